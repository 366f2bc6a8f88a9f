# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Image branch of a model in OpenVINO, on a CPU."""

import importlib
import os
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aqr_perception.models.image.graphed_branch import padded


class OpenVinoError(RuntimeError):
    """OpenVINO is missing or cannot convert the branch; the message has the remedy or the reason."""


def cache_folder() -> Path:
    """Return the folder in which OpenVINO keeps compiled branches."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aqr_perception" / "openvino"


class _Branch(nn.Module):
    def __init__(self, image_features: Callable[[Tensor | None], Tensor | None], model: nn.Module) -> None:
        super().__init__()
        self.model, self._features = model, image_features

    def forward(self, images: Tensor) -> Tensor:
        features = self._features(images)
        assert features is not None  # there are images
        return features


class OpenVinoBranch:
    """A model's `image_features`, compiled once for the largest number of cameras so far.

    Fewer cameras run with images of zeros in place of the missing ones, so that a camera that fails costs no
    compilation while the vehicle drives.

    Args:
        model: its image branch.
        image_features: the branch, a method of `model`.
        precision: bf16 or float32, the number format of the arithmetic.
        cache: folder of compiled branches; None for `cache_folder`.

    Raises:
        OpenVinoError: OpenVINO is not installed.
    """

    def __init__(
        self,
        model: nn.Module,
        image_features: Callable[[Tensor | None], Tensor | None],
        precision: torch.dtype,
        cache: Path | None = None,
    ) -> None:
        try:
            self._openvino: Any = importlib.import_module("openvino")
        except ImportError as error:
            raise OpenVinoError("openvino is not installed; run: pip install 'aqr_perception[openvino]'") from error
        self._branch = _Branch(image_features, model)
        self._precision, self._cache = precision, cache or cache_folder()
        self._compiled: Any = None
        self._views = 0

    def prepare(self, shape: tuple[int, ...]) -> None:
        """Compile for images of a shape (1, V, 3, H, W), unless that is done.

        Raises:
            OpenVinoError: OpenVINO cannot convert or compile the branch.
        """
        if self._compiled is not None and shape[1] <= self._views:
            return
        try:
            # With gradients, the branch runs standard operations; without, operations fused for PyTorch.
            # The caller's autocast would end up in the program, in its conversion, too.
            plain = (torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False))
            with ExitStack() as stack, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for context in plain:
                    stack.enter_context(context)
                program = torch.export.export(self._branch, (torch.zeros(shape),), strict=False)
                model = self._openvino.convert_model(program)
                settings = {
                    "CACHE_DIR": str(self._cache),
                    "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                    "INFERENCE_PRECISION_HINT": "bf16" if self._precision == torch.bfloat16 else "f32",
                    "PERFORMANCE_HINT": "LATENCY",
                }
                self._compiled = self._openvino.Core().compile_model(model, "CPU", settings)
        except Exception as error:  # whatever a converter raises for an operation it does not know
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise OpenVinoError(f"OpenVINO cannot convert the image branch: {reason}") from error
        self._views = shape[1]

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features (1, V, ...) float32 of (1, V, 3, H, W) normalised images.

        Raises:
            OpenVinoError: see `prepare`.
        """
        views = images.shape[1]
        self.prepare(tuple(images.shape))
        features = self._compiled([padded(images.float(), self._views).contiguous().numpy()])[0]
        return torch.from_numpy(features.copy())[:, :views]
