# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A short drive with failing sensors through the real node: a separate process, over DDS."""

from pathlib import Path

import numpy as np
import pytest
from helpers.places import ROOT

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
pytest.importorskip("aqr_perception.msg", reason="needs the built package; run `make test`")

from aqr_perception.demo.drive_report import write_report
from aqr_perception.demo.failures import Failure
from aqr_perception.demo.live.session import DemoError, Session
from aqr_perception.demo.recorded_drive import RecordedDrive
from aqr_perception.demo.recording import BEV, CAMERA_GRID
from aqr_perception.demo.simulated_drive import DemoDrive
from aqr_perception.demo.truth import read_truth

CONFIG = ROOT / "config" / "demo.yaml"
FAILURES = (
    Failure("front", "/front/image_raw/compressed", "black", 0.3, 0.7),
    Failure("lidar", "/lidar/points", "gone", 0.7, 1.9),
)


def session(folder: Path, config: Path = CONFIG) -> Session:
    # Long waits: on a loaded machine images and transforms arrive late.
    patient = ("score_threshold:=0.0", "max_detections:=20", "camera_wait:=2.0", "transform_wait:=5.0")
    return Session(config, "aqr_tiny", None, folder / "node.log", rate=1.0, overrides=patient, progress=False)


def test_a_drive_with_failing_sensors_is_recorded_and_reported(tmp_path: Path) -> None:
    bag = DemoDrive(seconds=2.0, picture=(352, 128)).ensure_bag(tmp_path, progress=False)
    recording, truth = session(tmp_path).play(bag, FAILURES), read_truth(bag)
    drive = RecordedDrive(recording, truth, FAILURES, 2.0, (-51.2, -51.2, 51.2, 51.2))

    with_lidar = [frame for frame in recording.frames if "lidar" not in frame.unused]
    without_lidar = [frame for frame in recording.frames if "lidar" in frame.unused]
    assert with_lidar and without_lidar, "the node publishes detections with and without LiDAR"
    # Camera-only frames continue until the next sweep, at 2.0 s.
    times = [truth.seconds(frame.stamp_ns) for frame in without_lidar]
    assert min(times) >= 0.7 and max(times) < 2.0, times
    assert all(BEV not in frame.map_means for frame in without_lidar), "there is no map of the LiDAR's weights"
    assert not drive.unanswered(), "the playback waits for an answer to every sweep"
    queries = [frame.queries for frame in recording.frames]
    assert all(found is not None and {"lidar", "front"} <= set(found.attention) for found in queries)
    assert not recording.trained and "random weights" in recording.model

    fronts = {truth.seconds(frame.stamp_ns): frame.picture("front") for frame in with_lidar}
    pictures = {round(seconds, 1): picture for seconds, picture in fronts.items() if picture is not None}
    complete = [frame for frame in with_lidar if set(frame.pictures) == {BEV, *CAMERA_GRID}]
    assert complete and all(set(frame.map_means) == {BEV, *CAMERA_GRID} for frame in complete)
    assert all(frame.milliseconds for frame in complete)
    # Medians, because weights, boxes and legend are drawn over the picture.
    intact = [np.median(picture) for seconds, picture in pictures.items() if not 0.3 < seconds < 0.8]
    black = [np.median(picture) for seconds, picture in pictures.items() if 0.3 < seconds < 0.7]
    assert black and intact and all(level < min(intact) / 2 for level in black)

    write_report(tmp_path / "report.html", drive)
    assert (tmp_path / "report.html").stat().st_size > 50_000


def test_a_node_that_cannot_start_raises_with_the_path_of_its_log(tmp_path: Path) -> None:
    bag = DemoDrive(seconds=0.2, picture=(44, 16)).ensure_bag(tmp_path, progress=False)
    (tmp_path / "broken.yaml").write_text("aqr_perception: [nothing")
    with pytest.raises(DemoError, match=r"node\.log"):
        session(tmp_path, tmp_path / "broken.yaml").play(bag, ())
