# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Files of exported parts: ONNX, OpenVINO's IR and torch.export's archives, written and run on a CPU."""

import importlib
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aqr_perception.export.parts import ExportError, Part

Format = Literal["onnx", "openvino", "torch-export"]
FORMATS: tuple[Format, ...] = get_args(Format)
SUFFIXES: Mapping[Format, str] = {"onnx": ".onnx", "openvino": ".xml", "torch-export": ".pt2"}

_OPSET = 18
_NEEDED: Mapping[Format, tuple[str, str]] = {
    "onnx": ("onnx onnxscript", "export"),
    "openvino": ("openvino onnx onnxscript", "export,openvino"),
    "torch-export": ("", ""),
}
"""Libraries of each format, and the package's extra with them."""

Arrays = Mapping[str, NDArray[Any]]


class Runner(Protocol):
    """An exported part, loaded."""

    def __call__(self, inputs: Arrays) -> list[NDArray[Any]]:
        """Return the outputs in their order."""


def check_format(form: Format) -> None:
    """Check that the libraries that write a format are installed.

    Raises:
        ExportError: one is missing; the message has the command that installs it.
    """
    libraries, extra = _NEEDED[form]
    for library in libraries.split():
        _import(library, extra, f"--format {form}")


def _import(library: str, extra: str, purpose: str) -> Any:
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise ExportError(
            f"{purpose} needs {library}, which is not installed; run: pip install 'aqr_perception[{extra}]'"
        ) from error


def traced(part: Part) -> torch.export.ExportedProgram:
    """Return the part's program.

    Raises:
        ExportError: PyTorch cannot trace the part.
    """
    try:
        # With gradients, the model runs standard operations; without, operations fused for the CPU.
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(part.module, tuple(part.inputs.values()), strict=False)
    except Exception as error:  # whatever an operation raises under tracing
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ExportError(f"{part.name}: torch.export cannot trace this part: {reason}") from error


def write(part: Part, form: Format, path: Path) -> None:
    """Write a part to a file; ONNX and OpenVINO may put weights into a second file beside it.

    Raises:
        ExportError: the part cannot be traced or converted, or a library is missing.
    """
    check_format(form)
    program = traced(part)
    if form == "torch-export":
        torch.export.save(program, path)
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if form == "onnx":
                _write_onnx(program, part, path)
            else:
                _write_openvino(program, part, path)
    except ExportError:
        raise
    except Exception as error:  # whatever a converter raises for an operation it does not know
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ExportError(f"{part.name}: cannot be converted to {form}: {reason}") from error


def _write_onnx(program: torch.export.ExportedProgram, part: Part, path: Path) -> None:
    noisy = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in noisy]
    try:
        for logger in noisy:
            logger.setLevel(logging.ERROR)
        written = torch.onnx.export(
            program,
            input_names=list(part.inputs),
            output_names=list(part.outputs),
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
    finally:
        for logger, level in zip(noisy, levels, strict=True):
            logger.setLevel(level)
    assert written is not None
    written.save(path, external_data=sum(tensor.nbytes for tensor in program.state_dict.values()) > 2**30)


def _write_openvino(program: torch.export.ExportedProgram, part: Part, path: Path) -> None:
    openvino = _import("openvino", "openvino", "--format openvino")
    # By way of ONNX: OpenVINO reads more of its operations than of PyTorch's.
    with TemporaryDirectory() as folder:
        intermediate = Path(folder) / "part.onnx"
        _write_onnx(program, part, intermediate)
        openvino.save_model(openvino.convert_model(intermediate), path, compress_to_fp16=False)


def load(form: Format, path: Path) -> Runner:
    """Return an exported part, loaded for the CPU in float32.

    Raises:
        ExportError: the runtime is not installed.
    """
    return {"onnx": _load_onnx, "openvino": _load_openvino, "torch-export": _load_torch}[form](path)


def _load_onnx(path: Path) -> Runner:
    runtime = _import("onnxruntime", "export", "running ONNX files")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    known = {given.name for given in session.get_inputs()}

    def run(inputs: Arrays) -> list[NDArray[Any]]:
        outputs: list[NDArray[Any]] = session.run(None, {name: inputs[name] for name in known})
        return outputs

    return run


def _load_openvino(path: Path) -> Runner:
    openvino = _import("openvino", "openvino", "running OpenVINO files")
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.Core().compile_model(path, "CPU", settings)

    def run(inputs: Arrays) -> list[NDArray[Any]]:
        results = compiled([inputs[port.any_name] for port in compiled.inputs])
        return [np.array(results[port]) for port in compiled.outputs]

    return run


def _load_torch(path: Path) -> Runner:
    module = torch.export.load(path).module()

    def run(inputs: Arrays) -> list[NDArray[Any]]:
        with torch.inference_mode():
            outputs = module(*(torch.from_numpy(array) for array in inputs.values()))
        tensors: list[Tensor] = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        return [tensor.numpy() for tensor in tensors]

    return run
