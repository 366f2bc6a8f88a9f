# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The node's parameters for a bag of a recording, as YAML."""

from collections.abc import Collection
from typing import Any

import yaml

from aqr_perception.data.recordings.recorded_data import Recording
from aqr_perception.data.recordings.recording_bag import GROUND_FRAME, MODEL_FRAME
from aqr_perception.simulator.bag import FIXED_FRAME, LIDAR_TOPIC, TRUTH_TOPIC, VEHICLE_FRAME


def node_parameters(recording: Recording, model: str, sweeps: int, frames: Collection[str]) -> str:
    """Return a parameter file for the node, with which it runs on the bag of a recording.

    Args:
        model: preset name.
        sweeps: sweeps of one point cloud, as the model was trained.
        frames: the frames of `recording_bag.vehicle_frames` that the bag has.
    """
    known = bool(recording.poses)
    distorted = {image.camera for image in recording.images if any(image.distortion)}
    values: dict[str, Any] = {
        "cameras": list(recording.cameras) or [""],
        "lidar_topic": LIDAR_TOPIC if recording.sweeps else "",
        "fixed_frame": FIXED_FRAME if known else "",
        "model_frame": MODEL_FRAME if MODEL_FRAME in frames else "",
        "output_frame": VEHICLE_FRAME,
        "base_frame": GROUND_FRAME if GROUND_FRAME in frames else "",
        "sensor_reliability": "reliable",
        "max_sweeps": sweeps if known else 1,
        "model.preset": model,
        "camera": {
            name: {
                "image_topic": f"/{name}/image_raw/compressed",
                "info_topic": f"/{name}/camera_info",
                "compressed": True,
                "rectified": name not in distorted,
            }
            for name in recording.cameras
        },
    }
    content = {"/**": {"ros__parameters": values}}
    if recording.labels:  # for `--rig`; the node does not read it
        content["data"] = {"ros__parameters": {"labels": TRUTH_TOPIC}}
    notes = "".join(f"# {note}\n" for note in recording.notes)
    body = yaml.safe_dump(content, sort_keys=False)
    return f"# Parameters for the bag of {recording.name}, written by `aqr_perception convert`.\n{notes}{body}"
