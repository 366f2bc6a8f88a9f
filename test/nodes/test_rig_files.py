# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Every parameter of the node is known in rig files: one file serves the car and its recordings."""

from pathlib import Path

import yaml

from aqr_perception.data.rig_file import read_rig
from aqr_perception.nodes.parameters.parameter_table import (
    PARAMETERS,
    camera_parameters,
    class_parameters,
    lidar_parameters,
)


def test_every_parameter_of_the_node_may_stand_in_a_rig_file(tmp_path: Path) -> None:
    parameters = (*PARAMETERS, *camera_parameters("front"), *lidar_parameters(2), *class_parameters())
    given = {"cameras": ["front"], "lidar_topic": "", "lidar_topics": ["/a", "/b"], "lidar.2.intensity_scale": 0.5}
    values = {parameter.name: parameter.default for parameter in parameters} | given
    path = tmp_path / "rig.yaml"
    path.write_text(yaml.safe_dump({"/**": {"ros__parameters": values}}))
    rig = read_rig(path)
    assert [rig.scale_of(topic) for topic in rig.lidar_topics] == [1.0, 0.5]
    (camera,) = rig.cameras
    assert camera.image_topic == "/front/image_raw" and camera.compressed is False
