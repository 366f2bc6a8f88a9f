"""Every parameter of the node is known in rig files: one file serves the car and its recordings."""

from pathlib import Path

import yaml

from aqr_perception.data.rig_file import read_rig
from aqr_perception.nodes.parameters import PARAMETERS, camera_parameters, class_parameters


def test_every_parameter_of_the_node_may_stand_in_a_rig_file(tmp_path: Path) -> None:
    parameters = (*PARAMETERS, *camera_parameters("front"), *class_parameters())
    values = {parameter.name: parameter.default for parameter in parameters} | {"cameras": ["front"]}
    path = tmp_path / "rig.yaml"
    path.write_text(yaml.safe_dump({"/**": {"ros__parameters": values}}))
    (camera,) = read_rig(path).cameras
    assert camera.image_topic == "/front/image_raw" and camera.compressed is False
