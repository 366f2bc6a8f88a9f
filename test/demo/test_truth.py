# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The ground truth of a simulated drive is read back from its bag."""

from pathlib import Path

import numpy as np
import pytest
from helpers.recorded_drives import START_NS, camera, recorded_drive
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aqr_perception.bags import messages
from aqr_perception.bags.detections import detections_from_message
from aqr_perception.bags.errors import BagError
from aqr_perception.bags.writer import BagWriter
from aqr_perception.data.sources.simulated import FIRST_TRAINING_SEED, VALIDATION_SEEDS
from aqr_perception.demo.failures import FAILURES, FailingBag
from aqr_perception.demo.simulated_drive import DemoDrive
from aqr_perception.demo.truth import read_truth
from aqr_perception.frame import CLASSES
from aqr_perception.geometry import invert
from aqr_perception.simulator.rig import nuscenes_rig

DRIVE = DemoDrive(seconds=0.4, picture=(44, 16))


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return DRIVE.ensure_bag(tmp_path_factory.mktemp("drive"), progress=False)


def test_the_truth_of_a_bag_equals_that_of_the_simulator(bag: Path) -> None:
    truth = read_truth(bag)
    drive = DRIVE.draw()
    assert [truth.seconds(sweep.stamp_ns) for sweep in truth.sweeps] == [0.2, 0.4]
    for sweep in truth.sweeps:
        boxes, tracks = drive.true_boxes(truth.seconds(sweep.stamp_ns))
        np.testing.assert_allclose(sweep.boxes[:, :6], boxes[:, :6], atol=1e-4)
        np.testing.assert_allclose(np.exp(1j * sweep.boxes[:, 6]), np.exp(1j * boxes[:, 6]), atol=1e-4)
        assert sweep.labels.tolist() == [drive.scene.actors[track].label for track in tracks]
        assert 0 < sweep.hit.sum() <= len(tracks)


def test_cameras_have_the_geometry_of_their_mounts(bag: Path) -> None:
    cameras, rig = read_truth(bag).cameras, nuscenes_rig(DRIVE.picture)
    assert set(cameras) == {mount.name for mount in rig.cameras}
    for mount in rig.cameras:
        np.testing.assert_allclose(
            cameras[mount.name].from_lidar, invert(mount.to_vehicle) @ rig.lidar.to_vehicle, atol=1e-6
        )
        np.testing.assert_allclose(cameras[mount.name].intrinsics, mount.intrinsics)


def test_the_failures_of_the_demo_name_topics_of_the_drive(bag: Path) -> None:
    with FailingBag(bag, FAILURES) as failing:
        assert len(list(failing)) == len(failing)  # this drive ends before the first failure


def test_a_drive_is_simulated_once(bag: Path) -> None:
    written = bag.stat().st_mtime_ns
    assert DRIVE.ensure_bag(bag.parent, progress=False) == bag and bag.stat().st_mtime_ns == written


def test_neither_training_nor_evaluation_uses_the_scene_of_the_demo() -> None:
    assert DemoDrive().seed not in VALIDATION_SEEDS and DemoDrive().seed < FIRST_TRAINING_SEED


def test_a_bag_without_truth_is_refused(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag.mcap") as writer:
        writer.write("/tf_static", messages.tf([]), 1, latched=True)
    with pytest.raises(BagError, match="needed /ground_truth/objects"):
        read_truth(tmp_path / "bag.mcap")


@given(st.lists(st.floats(-40, 40), min_size=9, max_size=9), st.sampled_from((*CLASSES, "forklift")))
def test_a_detection_message_is_converted_to_its_box(values: list[float], name: str) -> None:
    box = np.array([*values[:3], *np.abs(values[3:6]), values[6] % 3, *values[7:]])
    message = messages.fused_detections(START_NS, "lidar", [messages.fused_detection(name, box, score=0.25)])
    read = detections_from_message(message)
    np.testing.assert_allclose(read.boxes[0], box, rtol=1e-5, atol=1e-5)
    assert read.classes[read.labels[0]] == name and read.scores[0] == 0.25


@given(st.floats(-0.3, 4.3))
@settings(deadline=None)
def test_a_frame_belongs_to_the_nearest_sweep_within_50_ms(seconds: float) -> None:
    truth = recorded_drive().truth
    index = truth.sweep_index(START_NS + round(seconds * 1e9))
    nearest = min(range(20), key=lambda index: abs(seconds - 0.2 * (index + 1)))
    distance = abs(seconds - 0.2 * (nearest + 1))
    assume(abs(distance - 0.05) > 1e-6)
    assert index == (nearest if distance < 0.05 else None)


@given(st.floats(1, 30), st.floats(-180, 180))
def test_a_box_is_in_view_if_its_centre_is_in_the_image(distance: float, bearing: float) -> None:
    assume(abs(abs(bearing) - 45) > 1e-3)  # the made-up camera's picture spans 90 degrees
    at = distance * np.array([np.cos(np.radians(bearing)), np.sin(np.radians(bearing)), 0.0])
    assert camera().in_view(at[None])[0] == (abs(bearing) < 45)
