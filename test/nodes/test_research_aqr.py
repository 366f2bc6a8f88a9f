# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The node with the research code's AQR over DDS: signed weights, and parameters that change its effect."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from helpers.small_fusion import small_aqr_cmt, write_preset

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
pytest.importorskip("aqr_perception.msg", reason="needs the built package; run `make test`")

from helpers.vehicle import RunningNode, Vehicle, configuration  # noqa: E402
from nav_msgs.msg import OccupancyGrid  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from aqr_perception.models import build_model  # noqa: E402
from aqr_perception.models.aqr_cmt.model import AqrCMT  # noqa: E402
from aqr_perception.models.weights.checkpoint import save_checkpoint  # noqa: E402


@pytest.fixture(scope="module")
def vehicle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vehicle]:
    folder = tmp_path_factory.mktemp("node")
    preset = write_preset(folder, small_aqr_cmt())
    model = build_model(preset)
    assert isinstance(model, AqrCMT)
    predictor = model.pts_bbox_head.aqr_weight_generator.weight_predictor
    predictor.weight.data.mul_(10)  # untrained weights are all alike
    predictor.bias.data.copy_(torch.tensor([-1.5, 1.5]))
    weights = folder / "research.safetensors"
    save_checkpoint(model, weights)
    rclpy.init()
    changes = {"model.preset": preset, "model.checkpoint": str(weights)}
    node = RunningNode(configuration(folder, **changes), log=folder / "node.log")
    vehicle = Vehicle()
    try:
        vehicle.wait_until_connected()
        yield vehicle
    finally:
        vehicle.close()
        status = node.stop()
        rclpy.try_shutdown()
        assert status == 0, node.log.read_text()


def weights_of_a_frame(vehicle: Vehicle) -> np.ndarray:
    """Return (N, 2) LiDAR and camera weights of a frame with all sensors."""
    for _ in range(6):
        vehicle.next_frame()
        found = vehicle.drive()
        if all(sensor.used for sensor in found.sensors):
            return np.array([[each.lidar_weight, each.camera_weight] for each in found.detections])
    raise AssertionError(f"no frame used all sensors: {[sensor.reason for sensor in found.sensors]}")


def test_weights_are_signed_in_messages_raw_maps_and_the_grid(vehicle: Vehicle) -> None:
    raws = vehicle.listen(Image, "/aqr_perception/weights/bev/raw")
    front = vehicle.listen(Image, "/aqr_perception/weights/front/raw")
    grids = vehicle.listen(OccupancyGrid, "/aqr_perception/weights/bev/grid")
    vehicle.wait_until_known()
    weights = weights_of_a_frame(vehicle)
    assert -1 <= weights[:, 0].min() < 0 < weights[:, 1].max() <= 1
    vehicle.wait_for(lambda: bool(raws) and bool(front) and bool(grids), "raw maps and a grid")
    lidar, camera = (np.frombuffer(bytes(maps[-1].data), dtype="<f4") for maps in (raws, front))
    assert -1.5 <= lidar.min() < 0 and 0 < camera.max() <= 1.5
    shown = np.array(grids[-1].data)
    assert 0 <= shown[shown != -1].min() < 50


@pytest.mark.parametrize(
    ("name", "value", "own"),
    [("aqr.activation", "sigmoid", "auto"), ("aqr.router_attention", "windowed", "auto")],
)
def test_parameters_change_the_router_of_the_running_node(vehicle: Vehicle, name: str, value: str, own: str) -> None:
    before = weights_of_a_frame(vehicle)
    assert vehicle.set_parameters(**{name.replace(".", "__"): value}).successful
    try:
        after = weights_of_a_frame(vehicle)
        assert not np.array_equal(before, after)
        assert name != "aqr.activation" or after.min() >= 0
    finally:
        assert vehicle.set_parameters(**{name.replace(".", "__"): own}).successful


@pytest.mark.parametrize("mode", ["off", "modulation", "bias", "both"])
def test_every_mode_runs(vehicle: Vehicle, mode: str) -> None:
    assert vehicle.set_parameters(aqr__mode=mode).successful
    try:
        assert len(weights_of_a_frame(vehicle)) > 0
    finally:
        assert vehicle.set_parameters(aqr__mode="auto").successful
