# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Choice of a model's weights: a given file, those shipped for its preset, or random ones."""

from pathlib import Path

import pytest

from aqr_perception.models.weights.shipped import Weights, choose_weights


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of the package's folder of weights, which does not exist yet."""
    weights = tmp_path / "weights"
    monkeypatch.setattr("aqr_perception.models.weights.shipped.weights_directory", lambda: weights)
    return weights


@pytest.mark.parametrize("no_checkpoint", ["", None])
def test_a_preset_gets_its_shipped_weights_if_they_exist(folder: Path, no_checkpoint: str | None) -> None:
    assert choose_weights("aqr_tiny", no_checkpoint) == Weights(None)
    folder.mkdir()
    assert choose_weights("aqr_tiny", no_checkpoint) == Weights(None)
    (folder / "aqr_tiny.safetensors").touch()
    assert choose_weights("aqr_tiny", no_checkpoint) == Weights(folder / "aqr_tiny.safetensors", shipped=True)
    assert choose_weights("petr_tiny", no_checkpoint) == Weights(None)


def test_a_given_file_or_random_weights_take_precedence(folder: Path) -> None:
    folder.mkdir()
    (folder / "aqr_tiny.safetensors").touch()
    assert choose_weights("aqr_tiny", "mine.pth") == Weights(Path("mine.pth"))
    assert choose_weights("aqr_tiny", "random") == Weights(None)
    assert choose_weights("aqr_tiny", "./random") == Weights(Path("random"))


def test_a_preset_given_by_path_has_no_shipped_weights(folder: Path) -> None:
    folder.mkdir()
    for name in ("aqr_tiny.safetensors", "aqr_tiny.yaml.safetensors"):
        (folder / name).touch()
    assert choose_weights("aqr_tiny.yaml", "") == choose_weights("/my/aqr_tiny.yaml", "") == Weights(None)
