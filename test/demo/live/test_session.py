"""A short drive through the real node: a process of its own, over DDS, with sensors that fail."""

from pathlib import Path

import pytest
from helpers.places import ROOT

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
pytest.importorskip("aqr_perception.msg", reason="needs the built package; run `make test`")

from aqr_perception.demo.drive_report import write_report
from aqr_perception.demo.failures import Failure
from aqr_perception.demo.live.session import DemoError, Session
from aqr_perception.demo.played import PlayedDrive
from aqr_perception.demo.recording import BEV, RING
from aqr_perception.demo.simulated_drive import DemoDrive
from aqr_perception.demo.truth import read_truth

CONFIG = ROOT / "config" / "demo.yaml"
FAILURES = (
    Failure("front", "/front/image_raw/compressed", "black", 0.3, 0.7),
    Failure("lidar", "/lidar/points", "gone", 0.7, 1.9),
)


def session(folder: Path, config: Path = CONFIG) -> Session:
    # What a loaded machine delivers late must not miss its frame.
    patient = ("score_threshold:=0.0", "max_detections:=20", "camera_wait:=2.0", "transform_wait:=5.0")
    return Session(config, "aqr_tiny", None, folder / "node.log", rate=0.2, overrides=patient, progress=False)


def test_a_drive_with_failing_sensors_is_answered_and_reported(tmp_path: Path) -> None:
    bag = DemoDrive(seconds=2.0, picture=(352, 128)).bag(tmp_path, progress=False)
    recording, truth = session(tmp_path).play(bag, FAILURES), read_truth(bag)
    drive = PlayedDrive(recording, truth, FAILURES, 2.0, (-51.2, -51.2, 51.2, 51.2))

    with_lidar = [answer for answer in recording.answers if "lidar" not in answer.left_out]
    without = [answer for answer in recording.answers if "lidar" in answer.left_out]
    assert with_lidar and without, "detections go on without LiDAR, and come with it"
    # Until the next sweep, at 2.0 s, the cameras go on alone, with pictures taken a little before it.
    left_out = [truth.seconds(answer.stamp_ns) for answer in without]
    assert min(left_out) >= 0.7 and max(left_out) < 2.0, left_out
    assert all(BEV not in answer.pictures for answer in without)
    assert not recording.trained and "random weights" in recording.model

    seen = {truth.seconds(answer.stamp_ns): answer.picture("front") for answer in with_lidar}
    black = {round(seconds, 1): picture for seconds, picture in seen.items() if picture is not None}
    whole = [answer for answer in with_lidar if set(answer.pictures) == {BEV, *RING}]
    assert whole and all(set(answer.map_means) == {BEV, *RING} for answer in whole)
    assert all(answer.milliseconds for answer in whole)
    intact = [picture.mean() for seconds, picture in black.items() if not 0.3 < seconds < 0.8]
    blind = [picture.mean() for seconds, picture in black.items() if 0.3 < seconds < 0.7]
    assert intact and all(level < min(intact) / 2 for level in blind)

    write_report(tmp_path / "report.html", drive)
    assert (tmp_path / "report.html").stat().st_size > 50_000


def test_a_node_that_cannot_start_is_told_with_its_log(tmp_path: Path) -> None:
    bag = DemoDrive(seconds=0.2, picture=(44, 16)).bag(tmp_path, progress=False)
    (tmp_path / "broken.yaml").write_text("aqr_perception: [nothing")
    with pytest.raises(DemoError, match=r"node\.log"):
        session(tmp_path, tmp_path / "broken.yaml").play(bag, ())
