"""What the transform buffer tells of its frames: as YAML, as a graph, as the chain between two of them."""

import yaml
from helpers.made_up_transforms import BufferCore, at, buffer_of, stamped


def test_the_yaml_report_tells_parent_broadcaster_rate_and_span():
    buffer = buffer_of(*(stamped("map", "base", t) for t in (1.0, 1.5, 2.0)))
    buffer.set_transform_static(stamped("base", "lidar", 0.0), "mount")
    report = yaml.safe_load(buffer.all_frames_as_yaml())
    assert report["base"] == {
        "parent": "map",
        "broadcaster": "test",
        "rate": 3.0,
        "most_recent_transform": 2.0,
        "oldest_transform": 1.0,
        "buffer_length": 1.0,
    }
    assert report["lidar"]["broadcaster"] == "mount"
    assert report["lidar"]["rate"] == 10000.0
    assert buffer.all_frames_as_string() == (
        "Frame base exists with parent map.\nFrame lidar exists with parent base.\n"
    )
    assert BufferCore().all_frames_as_yaml() == "[]"


def test_the_graph_has_an_edge_from_parent_to_child():
    buffer = buffer_of(stamped("map", "base", 1.0))
    assert '"map" -> "base"[label="Broadcaster: test\\nAverage rate: 10000.000 Hz' in buffer._allFramesAsDot()
    assert "( 2.000 sec old)" in buffer._allFramesAsDot(at(3.0))
    assert "Recorded at time: 3.000000" in buffer._allFramesAsDot(at(3.0))


def test_the_chain_names_every_frame_on_the_way():
    buffer = buffer_of(*(stamped(p, c, 1.0) for p, c in (("map", "odom"), ("odom", "base"), ("base", "lidar"))))
    assert buffer._chain("map", at(1.0), "lidar", at(1.0), "odom") == ["lidar", "base", "odom", "map"]
    assert buffer._chain("lidar", at(1.0), "map", at(1.0), "map") == ["map", "odom", "base", "lidar"]
