# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""`aqr_perception process` on bags: content, containers, interruptions, changed settings, broken bags."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.processed_drive import FRAMES, Drive

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
pytest.importorskip("aqr_perception.msg", reason="needs the built package; run `make test`")

from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from aqr_perception.bags.messages import TYPESTORE
from aqr_perception.bags.reader import BagReader
from aqr_perception.nodes.stamps import stamp_to_ns
from aqr_perception.offline import bag_run
from aqr_perception.offline.bag_run import BagJob, process_bag
from aqr_perception.offline.offline_error import OfflineError
from aqr_perception.offline.settings import GivenParameters


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "detections.jsonl").read_text().splitlines()]


def messages_of(bag: Path) -> list[tuple[str, int, bytes]]:
    """Return topics, times and contents; bytes between the fields, which ROS leaves as they are, do not count."""
    with BagReader(bag) as reader:
        return [(one.topic, one.stamp_ns, bytes(TYPESTORE.serialize_cdr(one.decode(), one.type))) for one in reader]


def sweeps_of(bag: Path) -> list[int]:
    with BagReader(bag) as reader:
        return [stamp_to_ns(message.decode().header.stamp) for message in reader.messages(["/lidar/points"])]


def copied(source: Path, target: Path, storage: StoragePlugin, mode: CompressionMode | None) -> Path:
    """Return a bag with the messages of another one, in another container."""
    writer = Writer(target, version=9, storage_plugin=storage)
    if mode is not None:
        writer.set_compression(mode, CompressionFormat.ZSTD)
    with BagReader(source) as reader, writer:
        connections = {
            topic.name: writer.add_connection(topic.name, topic.type, typestore=TYPESTORE) for topic in reader.topics
        }
        for message in reader:
            writer.write(connections[message.topic], message.stamp_ns, message.data)
    return target


def test_every_sweep_is_answered_with_its_own_stamp(drive: Drive, processed: Path) -> None:
    found = lines(processed)
    assert [line["stamp_ns"] for line in found] == sweeps_of(drive.bag)
    assert len(found) == FRAMES
    for line in found:
        assert line["frame_id"] == "base_link"
        assert all(sensor["used"] for sensor in line["sensors"])
        assert len(line["sensors"]) == 7
        assert 0 < len(line["detections"]) <= 20
    assert found[-1]["tracks"]


def test_the_output_bag_has_the_nodes_topics_and_lies_beside_the_input(drive: Drive, processed: Path) -> None:
    with BagReader(processed / "outputs.mcap") as reader, BagReader(drive.bag) as given:
        assert {topic.name.removeprefix("/aqr_perception/"): topic.count for topic in reader.topics} == dict.fromkeys(
            ("detections", "detections_3d", "markers", "tracks", "tracks_3d", "track_markers"), FRAMES
        )
        arrays = [message for message in reader if message.topic == "/aqr_perception/detections"]
        assert given.start_ns <= arrays[0].stamp_ns < arrays[-1].stamp_ns <= given.end_ns + 10**9
    for message, line in zip(arrays, lines(processed), strict=True):
        decoded = message.decode()
        assert stamp_to_ns(decoded.header.stamp) == line["stamp_ns"]
        assert message.stamp_ns >= line["stamp_ns"]
        assert [one.class_name for one in decoded.detections] == [one["class"] for one in line["detections"]]
        np.testing.assert_allclose(
            [one.pose.position.x for one in decoded.detections],
            [one["position"][0] for one in line["detections"]],
            atol=1e-5,
        )


def test_the_report_has_the_frames_and_numbers_of_the_lines(processed: Path) -> None:
    text = (processed / "report.html").read_text()
    found = re.findall(r'<script type="application/json" id="([\w-]+)">(.*?)</script>', text, re.DOTALL)
    data = {name: json.loads(content) for name, content in found}
    summary = data.pop("summary")
    assert len(data) == FRAMES
    stamps = [int(summary["start_ns"]) + round(1e9 * seconds) for seconds in summary["seconds"]]
    for stamp, frame, line in zip(stamps, data.values(), lines(processed), strict=True):
        assert stamp == pytest.approx(line["stamp_ns"], abs=1e5)
        assert [one["class"] for one in frame["detections"]] == [one["class"] for one in line["detections"]]
        for name in ("score", "lidar_weight", "camera_weight"):
            expected = [one[name] for one in line["detections"]]
            assert [one[name] for one in frame["detections"]] == pytest.approx(expected, abs=1e-4)
        assert [(one["name"], one["used"]) for one in frame["sensors"]] == [
            (one["name"], one["used"]) for one in line["sensors"]
        ]
        assert set(frame["pictures"]) == {"bev", *(one["name"] for one in line["sensors"])} - {"lidar"}
        for one in frame["detections"]:
            assert sum(one["attention"].values()) == pytest.approx(1.0, abs=1e-3)
            assert "bev" in one["windows"]


def test_nuscenes_results_lie_in_the_fixed_frame(processed: Path) -> None:
    pytest.importorskip("nuscenes", reason="needs nuscenes-devkit")
    content = json.loads((processed / "results_nusc.json").read_text())
    assert content["meta"] == {
        "use_camera": True,
        "use_lidar": True,
        "use_radar": False,
        "use_map": False,
        "use_external": False,
        "frame_id": "odom",
    }
    assert [int(token.rpartition("-")[2]) for token in content["results"]] == [
        line["stamp_ns"] for line in lines(processed)
    ]
    for token, boxes in content["results"].items():
        assert boxes and all(box["sample_token"] == token for box in boxes)


@pytest.mark.slow
def test_the_same_bag_in_other_containers_gives_the_same_lines(drive: Drive, processed: Path, tmp_path: Path) -> None:
    expected = (processed / "detections.jsonl").read_bytes()
    kinds = {
        "again": None,
        "sqlite": (StoragePlugin.SQLITE3, None),
        "by_message": (StoragePlugin.MCAP, CompressionMode.MESSAGE),
        "by_file": (StoragePlugin.SQLITE3, CompressionMode.FILE),
    }
    for name, kind in kinds.items():
        folder = tmp_path / name
        bag = drive.bag if kind is None else copied(drive.bag, folder, *kind)
        assert drive.process(tmp_path / "out", bags=(bag,)) == 0
        assert (tmp_path / "out" / (bag.stem) / "detections.jsonl").read_bytes() == expected, name


@pytest.mark.slow
def test_an_interrupted_bag_is_completed_without_repeated_or_lost_frames(
    drive: Drive, processed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(seconds: float, frames: int) -> None:
        if frames == 3:
            raise KeyboardInterrupt

    folder = tmp_path / "drive"
    with pytest.raises(KeyboardInterrupt):
        process_bag(BagJob(drive.bag, folder, GivenParameters(drive.parameters)), stop)
    assert not (folder / "detections.jsonl").exists()
    with (folder / "frames.partial").open("ab") as file:
        file.write(b"\x99\x00\x00\x00\x00\x00\x00\x00 half a record")
    assert drive.process(tmp_path) == 0
    assert "5 frames, 3 of them before an interruption" in capsys.readouterr().out
    for name in ("detections.jsonl", "results_nusc.json", "report.html"):
        assert (folder / name).read_text() == (processed / name).read_text()
    assert messages_of(folder / "outputs.mcap") == messages_of(processed / "outputs.mcap")
    assert not (folder / "frames.partial").exists()


def test_a_finished_bag_is_skipped_and_one_by_other_settings_refused_or_replaced(
    drive: Drive, processed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(processed, tmp_path / "drive")
    with monkeypatch.context() as patch:
        patch.setattr(bag_run, "_detector", lambda model: pytest.fail("the model was loaded"))
        assert drive.process(tmp_path) == 0
        assert "finished before" in capsys.readouterr().out
        changed = ("-p", "max_detections:=3")
        assert drive.process(tmp_path, *changed) == 1
        assert "parameters max_detections 20 before, now 3" in capsys.readouterr().err
    assert lines(tmp_path / "drive") == lines(processed)
    assert drive.process(tmp_path, *changed, "--redo") == 0
    assert all(len(line["detections"]) == 3 for line in lines(tmp_path / "drive"))


def test_another_model_file_of_the_same_name_is_noticed(drive: Drive, tmp_path: Path) -> None:
    job = BagJob(drive.bag, tmp_path / "drive", GivenParameters(drive.parameters, {"model.checkpoint": "random"}))

    def stop(seconds: float, frames: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process_bag(job, stop)
    with pytest.raises(OfflineError, match=r"model weights 'random' before, now '[0-9a-f]{64}'"):
        process_bag(BagJob(drive.bag, tmp_path / "drive", GivenParameters(drive.parameters)))


@pytest.mark.slow
def test_a_broken_bag_does_not_stop_the_others(
    drive: Drive, processed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.mcap"
    broken.write_bytes(drive.bag.read_bytes()[:100_000])
    missing = tmp_path / "missing.mcap"
    assert drive.process(tmp_path / "out", bags=(broken, missing, drive.bag)) == 1
    said = capsys.readouterr()
    assert "2 of 3 bags failed" in said.err
    assert "broken.mcap: " in said.err and "missing.mcap: " in said.err
    assert lines(tmp_path / "out" / "drive") == lines(processed)


def test_weight_maps_and_report_are_written_where_asked_for(drive: Drive, processed: Path, tmp_path: Path) -> None:
    assert drive.process(tmp_path, "--weight-maps", "pictures", "raw", "--no-report") == 0
    assert not (tmp_path / "drive" / "report.html").exists()
    for ours, theirs in zip(lines(tmp_path / "drive"), lines(processed), strict=True):
        # The report's attention rounds differently, but neither changes the detections.
        for one, other in zip(ours["detections"], theirs["detections"], strict=True):
            assert one["class"] == other["class"]
            assert [one["score"], *one["position"]] == pytest.approx([other["score"], *other["position"]], abs=1e-4)
    with BagReader(tmp_path / "drive" / "outputs.mcap") as reader:
        names = {topic.name.removeprefix("/aqr_perception/weights/") for topic in reader.topics}
    assert {"bev/image", "bev/raw", "bev/grid", "front/image", "back/raw"} <= names


def test_folders_with_other_files_are_left_alone(
    drive: Drive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "drive").mkdir()
    mine = tmp_path / "drive" / "notes.txt"
    mine.write_text("mine")
    assert drive.process(tmp_path, "--redo") == 1
    assert "did not write" in capsys.readouterr().err
    assert mine.read_text() == "mine"


def test_two_bags_of_one_name_are_refused(drive: Drive, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(drive.bag, tmp_path / drive.bag.name)
    assert drive.process(tmp_path / "out", bags=(drive.bag, tmp_path / drive.bag.name)) == 1
    assert "both named drive" in capsys.readouterr().err
