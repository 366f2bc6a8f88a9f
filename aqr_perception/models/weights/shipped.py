"""The weights that come with the package, by the name of the preset that they were trained with."""

from dataclasses import dataclass
from pathlib import Path

RANDOM = "random"
"""Instead of a checkpoint: random weights, also for a preset with shipped ones. A file of this name is ``./random``."""


@dataclass(frozen=True)
class Weights:
    """Where a model's weights come from; as text, what to tell the user of them.

    Attributes:
        path: their file; None for random ones.
        shipped: whether they come with the package.
    """

    path: Path | None
    shipped: bool = False

    def __str__(self) -> str:
        if self.path is None:
            return "random weights: detections mean nothing"
        return f"the weights shipped for it, {self.path}" if self.shipped else str(self.path)


def weights_directory() -> Path:
    """Return where the package's weights lie; there need not be such a folder."""
    return Path(__file__).resolve().parents[2] / "weights"


def choose_weights(preset: str, checkpoint: str | None) -> Weights:
    """Return the weights that a model gets.

    Args:
        preset: its name or the path of a ``.yaml``, for which there are no shipped weights: it may say anything.
        checkpoint: a file, which is not looked for here, or `RANDOM`. Empty or None: the weights shipped for the
            preset, or random ones where there are none.
    """
    if checkpoint:
        return Weights(None if checkpoint == RANDOM else Path(checkpoint))
    path = weights_directory() / f"{preset}.safetensors"
    if preset.endswith(".yaml") or not path.is_file():
        return Weights(None)
    return Weights(path, shipped=True)
