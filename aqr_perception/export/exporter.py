# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Export of a model: its parts, their comparison with PyTorch, and the manifest beside them."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from aqr_perception.detector import Detector
from aqr_perception.export import formats
from aqr_perception.export.formats import Format
from aqr_perception.export.parts import ExportError, Part, model_parts
from aqr_perception.options import AqrOptions

MANIFEST = "manifest.json"
TOLERANCE = 1e-3
"""Largest difference from PyTorch, relative to the output's standard deviation, at the quantile below."""
_QUANTILE = 0.99
"""Of an output's numbers: rounding moves single queries to the neighbouring cell of a grid."""

_log = logging.getLogger(__name__)


def export(detector: Detector, form: Format, folder: Path, cameras: int, aqr: AqrOptions) -> dict[str, Any]:
    """Write the parts of a detector's model and their manifest to a folder; return the manifest.

    Each part is loaded again and compared with PyTorch on made-up inputs.

    Args:
        detector: on the CPU in fp32.
        form: format of the files.
        folder: made if it does not exist.
        cameras: number of cameras of the rig.
        aqr: use of the query weights, which is built into the decoder.

    Raises:
        ExportError: a part cannot be exported, or differs from PyTorch.
    """
    formats.check_format(form)
    if detector.uses_cameras and cameras < 1:
        raise ExportError(f"cameras is {cameras}, but {detector.preset_name} needs at least 1")
    folder.mkdir(parents=True, exist_ok=True)
    of_model = model_parts(detector.model, cameras, aqr)
    entries = []
    for part in tqdm(of_model.parts, desc=f"export to {form}", unit="part"):
        path = folder / f"{part.name}{formats.SUFFIXES[form]}"
        formats.write(part, form, path)
        entries.append(_entry(part, form, path))
    manifest = {
        "format": form,
        **_model(detector, cameras, aqr),
        "parts": entries,
        "left_in_torch": dict(of_model.left_in_torch),
        "versions": _versions(),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


def expected_outputs(part: Part) -> list[NDArray[Any]]:
    """Return PyTorch's outputs for a part's example inputs."""
    with torch.inference_mode():
        outputs = part.module(*part.inputs.values())
    tensors = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    return [tensor.numpy() for tensor in tensors]


def difference(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the difference of two outputs, relative to the expected one's standard deviation; see `TOLERANCE`."""
    if found.shape != expected.shape:
        return float("inf")
    if expected.size == 0:
        return 0.0
    spread = max(float(expected.std()), 1e-6)
    return float(np.quantile(np.abs(found.astype(np.float64) - expected), _QUANTILE)) / spread


def _entry(part: Part, form: Format, path: Path) -> dict[str, Any]:
    """Return a part's entry of the manifest, after its comparison with PyTorch."""
    expected = expected_outputs(part)
    differences: dict[str, float] | None = None
    try:
        run = formats.load(form, path)
    except ExportError as error:
        _log.warning("%s is not compared with PyTorch: %s", path.name, error)
    else:
        found = run({name: tensor.detach().numpy() for name, tensor in part.inputs.items()})
        differences = {
            name: difference(one, other) for name, one, other in zip(part.outputs, found, expected, strict=True)
        }
        for name, value in differences.items():
            if not value <= TOLERANCE:
                raise ExportError(
                    f"{path}: the output {name!r} differs from PyTorch by {value:.2g} of its standard deviation, "
                    f"needed at most {TOLERANCE:g}; use another format, or other versions of its libraries"
                )
    return {
        "name": part.name,
        "file": path.name,
        "inputs": [_tensor(name, tensor.detach().numpy()) for name, tensor in part.inputs.items()],
        "outputs": [_tensor(name, array) for name, array in zip(part.outputs, expected, strict=True)],
        "difference_from_torch": differences,
    }


def _tensor(name: str, array: NDArray[Any]) -> dict[str, Any]:
    return {"name": name, "shape": list(array.shape), "dtype": str(array.dtype)}


def _model(detector: Detector, cameras: int, aqr: AqrOptions) -> dict[str, Any]:
    """Return the entries that describe the model and the rig."""
    preset, image = detector.model.preset, detector.model.preset.image
    description = repr(preset).encode()
    return {
        "preset": preset.name,
        "preset_sha256": hashlib.sha256(description).hexdigest(),
        "architecture": preset.architecture,
        "weights": str(detector.weights),
        "weights_sha256": _weights_hash(detector.model.state_dict()),
        "classes": list(preset.classes),
        "point_range": list(preset.point_range),
        "bev_range": list(preset.bev_range),
        "aqr": asdict(aqr.resolved(preset.aqr)) if detector.has_router else None,
        "cameras": cameras if image is not None else 0,
        "images": None
        if image is None
        else {
            "width": image.size[0],
            "height": image.size[1],
            "channels": "BGR",
            "mean": list(image.mean),
            "std": list(image.std),
            "scaling": "to the width, with anti-aliasing; then the upper rows are cut off (models/preprocessing.py)",
        },
        "box_code": "cx, cy, log dx, log dy, cz, log dz, sin yaw, cos yaw, vx, vy in metres, model frame",
    }


def _weights_hash(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key, tensor in sorted(state.items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    found = {}
    for name in ("aqr_perception", "torch", "onnx", "onnxscript", "onnxruntime", "openvino"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
