# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Data sets by name."""

from pathlib import Path

import numpy as np
import pytest
from helpers.own_classes import OWN, write_preset

from aqr_perception.bags.errors import BagError
from aqr_perception.data.batch import collate
from aqr_perception.data.health import FrameWithHealth
from aqr_perception.data.sources.catalogue import DataError, open_data
from aqr_perception.frame import CLASSES, GroundTruth
from aqr_perception.models.config.presets import load_preset
from aqr_perception.simulator import bag
from aqr_perception.simulator.drive import draw_drive
from aqr_perception.simulator.rig import nuscenes_rig
from aqr_perception.simulator.street_sensors.camera_models import draw_rig


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


@pytest.mark.parametrize("source", ["nuscenes", "bags", "recordings"])
def test_recorded_data_has_no_worlds(source: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"'{source}' has no worlds: leave --world out"):
        open_data(source, "val", load_preset("aqr_tiny"), tmp_path, world=2)


@pytest.mark.slow
def test_frames_of_world_2_with_different_cameras_make_a_batch(tmp_path: Path) -> None:
    preset = load_preset("aqr_tiny")
    frames = open_data("synthetic", "val", preset, tmp_path, frames=3, world=2).frames
    counts = {seed: len(draw_rig(seed).cameras) for seed in range(3)}
    assert len(set(counts.values())) > 1
    samples = [FrameWithHealth(frames[seed]) for seed in counts]
    assert [len(sample.labelled.frame.cameras) for sample in samples] == list(counts.values())
    batch = collate(samples, preset)
    assert batch.images is not None and batch.images.shape[:2] == (3, max(counts.values()))


def names_of(truth: GroundTruth) -> list[str]:
    return [truth.classes[label] for label in truth.labels]


def test_simulated_objects_have_the_presets_classes_and_others_are_left_out(tmp_path: Path) -> None:
    own = load_preset(write_preset(tmp_path, classes=("pedestrian", "forklift", "car")))
    everything, some = (
        open_data("synthetic", "val", preset, tmp_path / "cache", frames=1).frames[0].truth
        for preset in (load_preset("aqr_tiny_sparse"), own)
    )
    assert len(list(tmp_path.rglob("*.npz"))) == 1
    kept = np.isin(names_of(everything), own.classes)
    assert 0 < kept.sum() < len(kept)
    assert some.classes == own.classes and names_of(some) == [n for n in names_of(everything) if n in own.classes]
    np.testing.assert_array_equal(some.boxes, everything.boxes[kept])


def test_a_preset_without_a_simulated_class_is_refused_with_both_lists(tmp_path: Path) -> None:
    preset = load_preset(write_preset(tmp_path, classes=("forklift", "crane")))
    with pytest.raises(DataError, match=r"found objects of barrier, .*needed .*\(forklift, crane\): change 'classes'"):
        open_data("synthetic", "train", preset)


@pytest.fixture(scope="module")
def forklifts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bag in which the simulator's barriers are called forklifts."""
    folder = tmp_path_factory.mktemp("forklifts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bag, "CLASSES", tuple("forklift" if name == "barrier" else name for name in CLASSES))
        drive = draw_drive(3, 2.0, nuscenes_rig((96, 32)))
        bag.write_bag(drive, folder / "drive.mcap", 0.2, progress=False)
    return folder


def test_the_classes_of_bags_are_matched_by_name(tmp_path: Path, forklifts: Path) -> None:
    own = open_data("bags", "train", load_preset(write_preset(tmp_path)), forklifts).frames[0].truth
    nuscenes = open_data("bags", "train", load_preset("aqr_tiny"), forklifts).frames[0].truth
    assert own.classes == OWN and "forklift" in names_of(own)
    assert nuscenes.classes == CLASSES and len(nuscenes) > 0
    for name in ("car", "truck", "pedestrian"):
        assert names_of(own).count(name) == names_of(nuscenes).count(name)
    assert len(own.boxes) == len(own.lidar_points) == len(own.visibility) == len(names_of(own))


def test_bags_without_any_of_the_classes_are_refused_with_both_lists(tmp_path: Path, forklifts: Path) -> None:
    preset = load_preset(write_preset(tmp_path, classes=("crane", "tractor")))
    with pytest.raises(BagError, match=r"forklifts.*: found objects of .*forklift.*needed .*\(crane, tractor\)"):
        open_data("bags", "train", preset, forklifts)
