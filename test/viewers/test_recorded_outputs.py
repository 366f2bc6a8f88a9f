# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Bags with the node's outputs: each frame with the data that it comes from, and nothing else."""

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.output_bag import MOUNT, NODE, PERIOD_NS, SIZE, START_NS, write_output_bag

from aqr_perception.cli import main
from aqr_perception.data.rig_file import read_rig
from aqr_perception.viewers.node_topics import ViewError
from aqr_perception.viewers.recorded_outputs import RecordedOutputs
from aqr_perception.viewers.shown_frame import ShownFrame


def frames_of(*bags: Path, node: str = "", count: int | None = None) -> list[ShownFrame]:
    with RecordedOutputs(bags, node) as outputs:
        return list(outputs.frames(count))


def shade(jpeg: bytes | None) -> int:
    assert jpeg is not None
    return round(float(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).mean()))


@pytest.mark.parametrize("late", [0, 2])
def test_pictures_belong_to_their_frame_although_cameras_are_older_and_recorded_late(tmp_path: Path, late: int) -> None:
    frames = frames_of(write_output_bag(tmp_path / "b.mcap", late_pictures=late))
    assert [frame.stamp_ns for frame in frames] == [START_NS + number * PERIOD_NS for number in range(4)]
    for number, frame in enumerate(frames):
        assert set(frame.cameras) == ({"front"} if number == 2 else {"front", "back"})
        shades = [shade(camera.jpeg) for camera in frame.cameras.values()] + [shade(frame.bev)]
        assert shades == pytest.approx([40 + 30 * number] * len(shades), abs=2)
    assert dict(frames[2].unused) == {"back": "too old"}


def test_boxes_clouds_and_cameras_are_in_one_frame(tmp_path: Path) -> None:
    frame = frames_of(write_output_bag(tmp_path / "b.mcap"))[1]
    assert frame.frame_id == "base_link" and frame.camera_names == ("front", "back")
    np.testing.assert_allclose(frame.detections.boxes[0, :3], [19, 0, 0.5])
    np.testing.assert_allclose(frame.detections.camera_weights, [[0.5, 0.25]])
    assert frame.quaternions is not None and frame.points is not None and frame.to_fixed is not None
    np.testing.assert_allclose(2 * np.arctan2(frame.quaternions[0, 2], frame.quaternions[0, 3]), 0.2)
    assert frame.points[:, 0].tolist() == [1, 2, 3, 4, 5], "the cloud at the sweep's time, not the other LiDAR's"
    assert frame.to_fixed[0, 3] == 1.0
    front = frame.cameras["front"]
    assert front.intrinsics is not None and front.to_boxes is not None and front.size == SIZE
    np.testing.assert_allclose(front.to_boxes, MOUNT, atol=1e-9)
    assert front.intrinsics[0, 0] == 40
    assert set(frame.axes) == {"lidar", "front_optical", "back_optical"}


def test_a_standing_object_keeps_its_identity_while_the_vehicle_drives(tmp_path: Path) -> None:
    objects = [frame.objects for frame in frames_of(write_output_bag(tmp_path / "b.mcap"))]
    (identity,) = set.union(*(set(found) for found in objects))
    assert objects[0][identity].lidar == pytest.approx(0.9)


def test_without_recorded_pictures_the_boxes_are_drawn_on_the_cameras_images(tmp_path: Path) -> None:
    bag = write_output_bag(tmp_path / "b.mcap", without=["weights/front/image", "weights/back/image"])
    frames, both = frames_of(bag), {"front", "back"}
    assert [set(frame.cameras) for frame in frames] == [both, both, {"front"}, both]
    drawn = cv2.imdecode(np.frombuffer(frames[0].cameras["front"].jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(drawn.astype(int) - 60).max() > 60, "the car is ahead"


def test_outputs_and_sensors_may_be_in_two_bags(tmp_path: Path) -> None:
    of_node, of_sensors = ["detections", "/image"], ["points", "camera_info", "compressed", "/tf", "/tf_static"]
    sensors = write_output_bag(tmp_path / "in.mcap", without=of_node)
    outputs = write_output_bag(tmp_path / "out.mcap", without=of_sensors)
    whole, joined = frames_of(write_output_bag(tmp_path / "b.mcap")), frames_of(outputs, sensors)
    for one, other in zip(whole, joined, strict=True):
        assert one.points is not None and other.points is not None and one.points.tolist() == other.points.tolist()
        assert {name: camera.jpeg for name, camera in one.cameras.items()} == {
            name: camera.jpeg for name, camera in other.cameras.items()
        }
        assert set(one.objects) == set(other.objects)


def test_data_that_no_frame_comes_from_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bag = write_output_bag(tmp_path / "b.mcap", without=["/tf", "/tf_static"])
    rig = tmp_path / "rig.yaml"
    front = "image_topic: /cam/front/image_raw/compressed, info_topic: /cam/front/camera_info, compressed: true"
    rig.write_text(f"cameras: [front]\nlidar_topic: /other/points\ncamera: {{front: {{{front}}}}}\n")
    with RecordedOutputs([bag], rig=read_rig(rig)) as outputs, caplog.at_level(logging.WARNING):
        frames = list(outputs.frames())
    assert all(frame.points is None for frame in frames), "old sweeps are never shown as those of the frame"
    (said,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("/other/points")]
    assert "it is left out there" in said
    assert all(frame.to_fixed is None and not frame.objects for frame in frames)


def test_the_node_is_chosen_where_a_bag_has_several(tmp_path: Path) -> None:
    one, other = (
        write_output_bag(tmp_path / "a.mcap"),
        write_output_bag(tmp_path / "b.mcap", node="/other/aqr_perception"),
    )
    with pytest.raises(ViewError, match=f"found outputs of /other/aqr_perception, {NODE}, needed one node"):
        frames_of(one, other)
    assert len(frames_of(one, other, node=NODE, count=2)) == 2
    with pytest.raises(ViewError, match=f"found {NODE}, needed /nobody/detections"):
        frames_of(one, node="/nobody")


@pytest.fixture
def no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)


def test_the_command_writes_a_recording_without_a_display(
    tmp_path: Path, no_display: None, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rerun", reason="needs rerun-sdk: pip install 'aqr_perception[rerun]'")
    bag, recording = write_output_bag(tmp_path / "b.mcap"), tmp_path / "out.rrd"
    assert main(["view", str(bag), "--rerun", str(recording)]) == 0
    assert f"{recording}: 4 frames" in capsys.readouterr().out
    from rerun.chunk import RrdReader

    rows = [
        chunk.num_rows
        for chunk in RrdReader(str(recording)).stream().to_chunks()
        if chunk.entity_path.endswith("/boxes")
    ]
    assert sum(rows) == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["b.mcap"], "found no display (DISPLAY and WAYLAND_DISPLAY are empty)"),
        (["b.mcap", "--rerun", "out.bag"], "needed a name that ends in .rrd"),
        (["b.mcap", "--rerun", "no/out.rrd"], "found no folder no"),
        (["b.mcap", "--rerun", "out.rrd", "--frames", "0"], "--frames: found 0, needed 1 or more"),
        (["b.mcap", "--rerun", "out.rrd", "--seconds", "3"], "--seconds: found 3 for a recording, needed 'live'"),
        (["none.mcap", "--rerun", "out.rrd"], "none.mcap: found no such file or folder"),
        (["b.mcap", "--rerun", "out.rrd", "--node", "/x"], "needed /x/detections"),
        (["folder", "--rerun", "out.rrd"], "folder: found no known layout"),
    ],
)
def test_the_command_says_what_is_missing(
    tmp_path: Path,
    no_display: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    pytest.importorskip("rerun", reason="needs rerun-sdk: pip install 'aqr_perception[rerun]'")
    monkeypatch.chdir(tmp_path)
    write_output_bag(Path("b.mcap"), frames=1)
    Path("folder").mkdir()
    assert main(["view", *arguments]) == 1
    error = capsys.readouterr().err
    assert said in error and not Path("out.rrd").exists()


def test_without_rerun_the_command_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "rerun", None)
    assert main(["view", "b.mcap", "--rerun", str(tmp_path / "out.rrd")]) == 1
    assert "pip install 'aqr_perception[rerun]'" in capsys.readouterr().err


def test_without_ros_2_the_live_view_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rerun", reason="needs rerun-sdk: pip install 'aqr_perception[rerun]'")
    import sys

    monkeypatch.delitem(sys.modules, "aqr_perception.viewers.live.running_node", raising=False)
    monkeypatch.setitem(sys.modules, "rclpy", None)
    assert main(["view", "live", "--rerun", str(tmp_path / "out.rrd")]) == 1
    assert "found no rclpy, needed ROS 2 with the built package" in capsys.readouterr().err


@pytest.mark.slow
def test_a_bag_with_sensors_only_is_run_through_the_detector(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rerun", reason="needs rerun-sdk: pip install 'aqr_perception[rerun]'")
    from rerun.chunk import RrdReader

    recording = tmp_path / "out.rrd"
    assert main(["simulate", "bag", str(tmp_path / "drive.mcap"), "--seconds", "0.3", "--size", "96", "32"]) == 0
    arguments = ["--rerun", str(recording), "--frames", "2", "--score-threshold", "0.1"]
    assert main(["view", str(tmp_path / "drive.mcap"), *arguments]) == 0
    assert "2 frames" in capsys.readouterr().out
    paths = {chunk.entity_path for chunk in RrdReader(str(recording)).stream().to_chunks()}
    assert {
        "/bev",
        "/world/vehicle/points",
        "/world/vehicle/frames/base_link",
        "/world/vehicle/cameras/front",
        "/world/path",
    } <= paths
