# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Weights that ship with the package, one file per preset."""

from dataclasses import dataclass
from pathlib import Path

RANDOM = "random"
"""Checkpoint name that selects random weights. A file of this name is given as ``./random``."""


@dataclass(frozen=True)
class Weights:
    """Source of a model's weights. Its text form is a description for the user.

    Attributes:
        path: file of the weights; None for random weights.
        shipped: whether the file ships with the package.
    """

    path: Path | None
    shipped: bool = False

    def __str__(self) -> str:
        if self.path is None:
            return "random weights: detections mean nothing"
        return f"the weights shipped for it, {self.path}" if self.shipped else str(self.path)


def weights_directory() -> Path:
    """Return the folder of the shipped weights, which need not exist."""
    return Path(__file__).resolve().parents[2] / "weights"


def choose_weights(preset: str, checkpoint: str | None) -> Weights:
    """Return the weights to load into a model.

    Args:
        preset: name of a preset, or path of a ``.yaml`` file. Shipped weights belong to names, because a file may
            describe any model.
        checkpoint: path of a file, which is not checked here, or `RANDOM`. If empty or None, the weights shipped for
            the preset are used, or random weights if there are none.
    """
    if checkpoint:
        return Weights(None if checkpoint == RANDOM else Path(checkpoint))
    path = weights_directory() / f"{preset}.safetensors"
    if preset.endswith(".yaml") or not path.is_file():
        return Weights(None)
    return Weights(path, shipped=True)
