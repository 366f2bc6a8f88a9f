# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Bags written and read without ROS."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from helpers.recorded_messages import read
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from aqr_perception.bags import messages
from aqr_perception.bags.errors import BagError
from aqr_perception.bags.reader import BagReader
from aqr_perception.bags.writer import BagWriter

KINDS = [("bag.mcap", "mcap"), ("bag.db3", "sqlite3"), ("bag", "mcap"), ("bag", "sqlite3")]
IMAGE = messages.image(5, "camera", np.arange(24, dtype=np.uint8).reshape(2, 4, 3))


def write_some(path: Path, storage: str = "mcap") -> None:
    with BagWriter(path, storage) as writer:
        writer.write("/image", IMAGE, 2_000_000_000)
        writer.write("/tf_static", messages.tf([]), 1_000_000_000, latched=True)


@pytest.mark.parametrize(("name", "storage"), KINDS)
def test_messages_are_read_back_in_recording_order(tmp_path: Path, name: str, storage: str) -> None:
    write_some(tmp_path / name, storage)
    found = list(read(tmp_path / name))
    assert [(entry.topic, entry.type, entry.stamp_ns) for entry in found] == [
        ("/tf_static", "tf2_msgs/msg/TFMessage", 1_000_000_000),
        ("/image", "sensor_msgs/msg/Image", 2_000_000_000),
    ]
    image = found[1].decode()
    assert (image.header.frame_id, image.header.stamp.nanosec, image.encoding) == ("camera", 5, "bgr8")
    np.testing.assert_array_equal(image.data, np.arange(24))
    assert [entry.name for entry in tmp_path.iterdir()] == [name], "no temporary file is left next to the bag"


@pytest.mark.parametrize(("name", "storage"), KINDS)
def test_latched_topics_are_transient_local_in_every_storage(tmp_path: Path, name: str, storage: str) -> None:
    write_some(tmp_path / name, storage)
    with BagReader(tmp_path / name) as bag:
        durability = {topic.name: topic.qos[0].durability.name for topic in bag.topics}
        assert durability == {"/image": "VOLATILE", "/tf_static": "TRANSIENT_LOCAL"}
        assert (len(bag), bag.start_ns, bag.end_ns) == (2, 1_000_000_000, 2_000_000_001)


@pytest.mark.parametrize("mode", [CompressionMode.FILE, CompressionMode.MESSAGE])
def test_compressed_bags_are_read(tmp_path: Path, mode: CompressionMode) -> None:
    writer = Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.SQLITE3)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/image", IMAGE.__msgtype__, typestore=messages.TYPESTORE)
        writer.write(connection, 7, messages.TYPESTORE.serialize_cdr(IMAGE, IMAGE.__msgtype__))
    (found,) = read(tmp_path / "bag")
    np.testing.assert_array_equal(found.decode().data, IMAGE.data)


def test_definitions_come_from_the_bag_or_else_from_the_known_interfaces(tmp_path: Path) -> None:
    """A message of this package is read with its own definition; a Humble recording has no definitions at all."""
    objects = messages.fused_detections(7, "lidar", [messages.fused_detection("car", np.arange(9.0))])
    for name in ("with.db3", "without.db3"):
        with BagWriter(tmp_path / name) as writer:
            writer.write("/objects", objects, 7)
    with sqlite3.connect(tmp_path / "without.db3") as database:
        database.execute("DELETE FROM message_definitions")
    for name in ("with.db3", "without.db3"):
        (found,) = read(tmp_path / name)
        assert found.decode().detections[0].size.x == 3.0


def test_a_ros_1_bag_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "old.bag").write_bytes(b"#ROSBAG V2.0\n")
    with pytest.raises(BagError, match=r"old\.bag: found the suffix of ROS 1 bags.*rosbags-convert"):
        BagReader(tmp_path / "old.bag")


@given(st.lists(st.tuples(st.integers(0, 2**40), st.binary(max_size=60)), min_size=1, max_size=20))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_raw_messages_come_back_byte_for_byte_sorted_by_time(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[int, bytes]]
) -> None:
    path = tmp_path_factory.mktemp("bag") / "bag.mcap"
    with BagWriter(path) as writer:
        for stamp_ns, data in entries:
            writer.write_raw("/raw", "std_msgs/msg/String", data, stamp_ns)
    with BagReader(path) as bag:
        found = [(entry.stamp_ns, entry.data) for entry in bag]
    assert sorted(found) == sorted(entries)
    assert [stamp for stamp, _ in found] == sorted(stamp for stamp, _ in entries)


def test_topics_and_a_time_span_can_be_chosen(tmp_path: Path) -> None:
    write_some(tmp_path / "bag")
    with BagReader(tmp_path / "bag") as bag:
        assert [entry.topic for entry in bag.messages(["/image"])] == ["/image"]
        assert [entry.topic for entry in bag.messages(stop_ns=2_000_000_000)] == ["/tf_static"]
        with pytest.raises(BagError, match=r"/lidar.*needed one of /image, /tf_static"):
            next(bag.messages(["/lidar"]))


def test_a_bag_never_replaces_an_existing_file(tmp_path: Path) -> None:
    (tmp_path / "bag.mcap").write_text("precious")
    with pytest.raises(BagError, match=r"bag\.mcap: found an existing file or folder"):
        BagWriter(tmp_path / "bag.mcap")
    assert (tmp_path / "bag.mcap").read_text() == "precious"


def test_an_interrupted_bag_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="power cut"), BagWriter(tmp_path / "bag.mcap") as writer:
        writer.write("/image", IMAGE, 0)
        raise RuntimeError("power cut")
    assert list(tmp_path.iterdir()) == []


def test_a_topic_keeps_its_type(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as writer:
        writer.write("/image", IMAGE, 0)
        with pytest.raises(BagError, match=r"/image: found a std_msgs/msg/String, needed a sensor_msgs/msg/Image"):
            writer.write_raw("/image", "std_msgs/msg/String", b"", 1)


def test_missing_and_broken_bags_are_named(tmp_path: Path) -> None:
    with pytest.raises(BagError, match=r"none\.mcap: found no such file"):
        BagReader(tmp_path / "none.mcap")
    for name in ("garbage.mcap", "garbage.db3", "garbage.txt"):
        (tmp_path / name).write_bytes(b"no bag at all" * 10)
        with pytest.raises(BagError, match=rf"{name}: found a broken bag"), BagReader(tmp_path / name) as bag:
            list(bag)
    (tmp_path / "folder").mkdir()
    with pytest.raises(BagError, match=r"folder: found a broken bag.*metadata"):
        BagReader(tmp_path / "folder")


@given(st.floats(0.0, 0.999))
@settings(max_examples=25, deadline=None)
def test_a_truncated_bag_is_named(tmp_path_factory: pytest.TempPathFactory, fraction: float) -> None:
    folder = tmp_path_factory.mktemp("bag")
    write_some(folder / "whole.mcap")
    whole = (folder / "whole.mcap").read_bytes()
    (folder / "cut.mcap").write_bytes(whole[: int(len(whole) * fraction)])
    with pytest.raises(BagError, match=r"cut\.mcap: found a broken bag"), BagReader(folder / "cut.mcap") as bag:
        list(bag)


@pytest.mark.parametrize("length", [0, 1, 8, 9])  # 8: the magic number alone
def test_a_bag_cut_in_its_header_is_named(tmp_path: Path, length: int) -> None:
    write_some(tmp_path / "whole.mcap")
    (tmp_path / "cut.mcap").write_bytes((tmp_path / "whole.mcap").read_bytes()[:length])
    with pytest.raises(BagError, match=r"cut\.mcap: found a broken bag"):
        BagReader(tmp_path / "cut.mcap")


def test_data_that_does_not_fit_its_type_is_named(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as writer:
        writer.write_raw("/image", "sensor_msgs/msg/Image", b"\x00\x01\x00\x00\x05", 0)
    with pytest.raises(BagError, match="/image: found 5 bytes"):
        next(read(tmp_path / "bag")).decode()
