# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Bags of real recordings run in the node with the parameter file that `convert` writes for them."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
pytest.importorskip("aqr_perception.msg", reason="needs the built package; run `make test`")

from aqr_perception.msg import FusedDetectionArray  # noqa: E402
from helpers.vehicle import RunningNode, Vehicle  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from aqr_perception.cli import main  # noqa: E402


@pytest.fixture(scope="module")
def ros() -> Iterator[None]:
    rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddad_scene_01", "ddad_scene_02", "kitti_raw", "pandar64"])
def test_every_camera_of_a_converted_bag_gets_a_weight_map(
    ros: None, shared_reference: Path, tmp_path: Path, name: str
) -> None:
    bag = tmp_path / "bag.mcap"
    assert main(["convert", str(shared_reference / "real" / name), str(bag)]) == 0
    cameras = yaml.safe_load(bag.with_suffix(".yaml").read_text())["/**"]["ros__parameters"]["cameras"]
    # A loaded machine delivers late: late messages must neither miss the frame nor make another one.
    waits = {"camera_wait": 5.0, "lidar_timeout": 30.0, "transform_wait": 5.0, "max_latency": 600.0}
    patient = [argument for key, seconds in waits.items() for argument in ("-p", f"{key}:={seconds}")]
    node = RunningNode(bag.with_suffix(".yaml"), *patient, log=tmp_path / "node.log")
    listener = Vehicle()
    try:
        arrays = listener.listen(FusedDetectionArray, "/aqr_perception/detections")
        maps = {camera: listener.listen(Image, f"/aqr_perception/weights/{camera}/raw") for camera in cameras}
        listener.wait_for(lambda: listener.node.count_subscribers("/lidar/points") > 0, "the node", 60.0)
        listener.wait_until_known()
        command = ["bag_player", str(bag), "--wait", "20", "--rate", "0.2", "--duration", "1.5"]
        player = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def sensors() -> set[str]:
            return {sensor.name for array in arrays for sensor in array.sensors if sensor.used}

        try:
            everything = {"lidar", *cameras}
            listener.wait_for(lambda: everything <= sensors() and all(maps.values()), f"maps of {cameras}", 150.0)
        finally:
            player.terminate()
            player.wait(timeout=20)
        assert sensors() == everything
    finally:
        listener.close()
        assert node.stop(signal.SIGTERM) == 0, node.log.read_text()
