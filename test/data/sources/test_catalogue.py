"""Data sets by name."""

from pathlib import Path

import pytest

from aqr_perception.data.sources.catalogue import DataError, open_data
from aqr_perception.models.config.presets import load_preset


def test_small_models_with_and_without_a_lidar_share_cached_scenes(tmp_path: Path) -> None:
    fused, cameras = (
        open_data("synthetic", "val", load_preset(name), tmp_path, frames=1).frames
        for name in ("aqr_tiny", "petr_tiny")
    )
    labelled = fused[0]
    drawn = list(tmp_path.rglob("*.npz"))
    assert (cameras[0].truth.lidar_points == labelled.truth.lidar_points).all()
    assert list(tmp_path.rglob("*.npz")) == drawn


def test_an_unknown_source_names_the_known_ones() -> None:
    with pytest.raises(DataError, match=r"'kitti'.*synthetic, nuscenes, bags$"):
        open_data("kitti", "train", load_preset("aqr_tiny"))


@pytest.mark.parametrize("source", ["nuscenes", "bags"])
def test_recorded_data_needs_a_folder(source: str) -> None:
    with pytest.raises(DataError, match="--data-root"):
        open_data(source, "val", load_preset("aqr_tiny"))
