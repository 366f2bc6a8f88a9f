# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A short simulated drive as a bag, and a small model with fixed weights, for all tests of this folder."""

from pathlib import Path

import pytest
import yaml
from helpers.processed_drive import FRAMES, RATE, Drive
from helpers.small_fusion import SMALL, write_preset


@pytest.fixture(scope="session")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Drive:
    """Five sweeps of a drive, with pictures of 160 x 64 pixels."""
    pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
    pytest.importorskip("aqr_perception.msg", reason="needs the built package; run `make test`")
    import torch
    from safetensors.torch import save_file

    from aqr_perception.detector import Detector
    from aqr_perception.simulator.bag import write_bag
    from aqr_perception.simulator.drive import draw_drive
    from aqr_perception.simulator.rig import nuscenes_rig

    folder = tmp_path_factory.mktemp("drive")
    world = draw_drive(0, FRAMES / RATE + 1.0, nuscenes_rig((160, 64)), samples=1)
    bag = write_bag(world, folder / "drive.mcap", FRAMES / RATE, rate=RATE, progress=False)
    preset = write_preset(folder, SMALL)
    torch.manual_seed(0)
    weights = {name: value.contiguous() for name, value in Detector(preset, "random", "cpu").model.state_dict().items()}
    save_file(weights, folder / "small.safetensors")
    cameras = ["front", "front_right", "front_left", "back", "back_left", "back_right"]
    values = {
        "cameras": cameras,
        "camera": {
            name: {"image_topic": f"/{name}/image_raw/compressed", "compressed": True, "rectified": True}
            for name in cameras
        },
        "fixed_frame": "odom",
        "output_frame": "base_link",
        "sensor_reliability": "reliable",
        "score_threshold": 0.0,
        "max_detections": 20,
        "tracking": {"enabled": True, "birth_score": 0.0, "death_score": 0.0},
        "model": {"preset": preset, "checkpoint": str(folder / "small.safetensors"), "device": "cpu"},
        # A loaded machine delivers late; the drive's sensors come at 5 Hz.
        "camera_wait": 3.0,
        "lidar_timeout": 30.0,
        "transform_wait": 3.0,
        "max_latency": 60.0,
    }
    parameters = folder / "parameters.yaml"
    parameters.write_text(yaml.safe_dump({"/**": {"ros__parameters": values}}))
    return Drive(bag, parameters)


@pytest.fixture(scope="session")
def processed(drive: Drive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of the drive's bag."""
    output = tmp_path_factory.mktemp("processed")
    assert drive.process(output) == 0
    return output / "drive"
