# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The node runs bags with the parameter file that `inspect` writes, and `inspect --live` describes what is played."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
pytest.importorskip("aqr_perception.msg", reason="needs the built package; run `make test`")

from aqr_perception.msg import FusedDetectionArray  # noqa: E402
from helpers.small_bag import Entry, cloud_records, restamped, write_small_bag  # noqa: E402
from helpers.vehicle import RunningNode, Vehicle  # noqa: E402

from aqr_perception.bags import messages  # noqa: E402
from aqr_perception.bags.poses import stamp_to_ns  # noqa: E402
from aqr_perception.cli import main  # noqa: E402


@pytest.fixture(scope="module")
def ros() -> Iterator[None]:
    rclpy.init()
    yield
    rclpy.try_shutdown()


def renamed(entry: Entry) -> Entry:
    """Return an entry under topics that no default of the node has, with intensities of 0..1."""
    recorded, topic, message = entry
    if topic == "/lidar/points":
        message = messages.cloud(stamp_to_ns(message.header.stamp), "lidar", cloud_records(0.8))
    return recorded, topic.replace("/lidar", "/sensing/top").replace("/front/", "/sensing/cam0/"), message


def used_sensors(bag: Path, parameters: Path, log: Path, lidar: str) -> tuple[set[str], list[str]]:
    """Play a bag into the node; return the sensors of its fullest frame, and what the log says of unused parameters."""
    # A loaded machine delivers late: late messages must neither miss the frame nor make another one.
    waits = {"camera_wait": 5.0, "lidar_timeout": 30.0, "transform_wait": 5.0, "max_latency": 600.0}
    patient = [argument for key, seconds in waits.items() for argument in ("-p", f"{key}:={seconds}")]
    node = RunningNode(parameters, *patient, log=log)
    listener = Vehicle()
    used: list[set[str]] = []
    try:
        arrays = listener.listen(FusedDetectionArray, "/aqr_perception/detections")
        listener.wait_for(lambda: listener.node.count_subscribers(lidar) > 0, "the node", 60.0)
        listener.wait_until_known()
        command = ["bag_player", str(bag), "--wait", "20", "--rate", "0.2", "--duration", "1.5"]
        subprocess.run(command, check=True, timeout=90, capture_output=True)
        listener.wait_for(lambda: bool(arrays), "detections", 60.0)
        used = [{sensor.name for sensor in array.sensors if sensor.used} for array in arrays]
    finally:
        listener.close()
        assert node.stop(signal.SIGTERM) == 0, node.log.read_text()
    said = [line for line in log.read_text().splitlines() if "parameter" in line or "has no effect" in line]
    return max(used, key=len), said


@pytest.mark.slow
def test_the_node_uses_every_sensor_with_the_written_file(ros: None, tmp_path: Path) -> None:
    bag, parameters = write_small_bag(tmp_path / "bag.mcap", renamed), tmp_path / "node.yaml"
    assert main(["inspect", str(bag), "--params", str(parameters)]) == 0
    used, said = used_sensors(bag, parameters, tmp_path / "node.log", "/sensing/top/points")
    assert used == {"lidar", "back", "sensing_cam0"} and not said
    log = (tmp_path / "node.log").read_text()
    assert "intensity" not in log and "another height" not in log


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddad_scene_02", "pandar64"])
def test_real_sets_run_with_the_written_file(ros: None, shared_reference: Path, tmp_path: Path, name: str) -> None:
    bag, parameters, figures = (tmp_path / file for file in ("bag.mcap", "node.yaml", "report.json"))
    assert main(["convert", str(shared_reference / "real" / name), str(bag)]) == 0
    assert main(["inspect", str(bag), "--params", str(parameters), "--json", str(figures)]) == 0
    cameras = json.loads(figures.read_text())["used_cameras"]
    assert len(cameras) == (6 if name == "ddad_scene_02" else 1)
    used, said = used_sensors(bag, parameters, tmp_path / "node.log", "/lidar/points")
    assert used == {"lidar", *cameras} and not said


def test_a_running_system_is_described_like_its_bag(
    ros: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def late_back_camera(entry: Entry) -> Entry:
        recorded, topic, message = entry
        return recorded, topic, restamped(message, -5_000_000_000) if topic == "/back/image_raw" else message

    bag = write_small_bag(tmp_path / "bag.mcap", late_back_camera)
    parameters, figures = tmp_path / "node.yaml", tmp_path / "report.json"
    player = subprocess.Popen(
        ["bag_player", str(bag), "--wait", "0", "--rate", "0.4", "--loop"], stderr=subprocess.PIPE
    )
    watcher = rclpy.create_node("watcher")
    try:
        end = time.monotonic() + 30
        while not watcher.count_publishers("/lidar/points"):
            assert time.monotonic() < end and player.poll() is None, "the player does not start"
            time.sleep(0.05)
        arguments = ["inspect", "--live", "--seconds", "5", "--params", str(parameters), "--json", str(figures)]
        assert main(arguments) == 0, capsys.readouterr().out
    finally:
        player.send_signal(signal.SIGTERM)
        player.wait(20)
        watcher.destroy_node()
    report = json.loads(figures.read_text())
    assert report["lidars"] == ["/lidar/points"] and report["used_cameras"] == ["back", "front"]
    assert report["topics"]["/tf_static"]["messages"] >= 1, "latched messages are heard, too"
    assert report["frames"]["fixed"] == "odom"
    assert any(
        one["subject"] == "/back/image_raw" and one["problem"] == "clock of another time" for one in report["findings"]
    )
    assert "lidar_topic: /lidar/points" in parameters.read_text()
