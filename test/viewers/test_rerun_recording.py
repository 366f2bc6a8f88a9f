# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Recordings of Rerun: entities, timelines and counts, read back from the file; no network, no window."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rerun", reason="needs rerun-sdk: pip install 'aqr_perception[rerun]'")

import rerun as rr
from rerun.chunk import RrdReader

from aqr_perception.frame import CameraView, CameraWeightMap, Detections, Frame, Result, WeightMaps
from aqr_perception.viewers.object_weights import ObjectFollower
from aqr_perception.viewers.rerun_blueprint import blueprint
from aqr_perception.viewers.rerun_recording import RerunRecording
from aqr_perception.viewers.shown_frame import ObjectWeights, ShownFrame, shown_result

START_NS, PERIOD_NS = 1_700_000_000_000_000_000, 100_000_000
SIZE = (64, 32)


def frame_and_result(
    number: int, cameras: tuple[str, ...] = ("front", "back"), objects: int = 2
) -> tuple[Frame, Result]:
    """Return a frame of a vehicle that drives 1 m along x a frame, and detections with given weights."""
    rng = np.random.default_rng(number)
    intrinsics = np.array([[50.0, 0, SIZE[0] / 2], [0, 50.0, SIZE[1] / 2], [0, 0, 1]])
    extrinsics = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    image = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
    views = tuple(CameraView(name, image, intrinsics, extrinsics) for name in cameras)
    to_fixed = np.eye(4)
    to_fixed[0, 3] = number
    points = np.c_[rng.uniform(-20, 20, (50, 3)), np.zeros((50, 2))].astype(np.float32)
    places = [[10 + 8 * index - number, 2, 0, 4, 2, 1.5, 0.3, 0, 0] for index in range(objects)]
    boxes = np.array(places, np.float32).reshape(-1, 9)
    lidar, camera = np.array([0.8, 0.2], np.float32)[:objects], np.array([0.1, 0.6], np.float32)[:objects]
    each = np.tile(np.array([0.4, 0.3], np.float32)[: len(cameras)], (objects, 1))
    scores, labels = np.full(objects, 0.9, np.float32), np.zeros(objects, np.int64)
    detections = Detections(boxes, scores, labels, lidar, camera, each)
    heat = {name: CameraWeightMap(np.ones((4, 8), np.float32), np.diag([0.125, 0.125, 1.0])) for name in cameras}
    maps = WeightMaps(np.ones((20, 20), np.float32), (-20.0, -20.0, 20.0, 20.0), heat, "router")
    stamp_ns = START_NS + number * PERIOD_NS
    return Frame(stamp_ns, points, views, "lidar", to_fixed), Result(detections, maps)


def shown_frames(**changes: Any) -> Iterator[ShownFrame]:
    follower = ObjectFollower()
    for number in range(3):
        frame, result = frame_and_result(number, **changes)
        yield shown_result(frame, result, follower.follow(frame.stamp_ns, result.detections, frame.to_fixed))


class Entity:
    """Rows of one entity of a recording, joined from its chunks."""

    def __init__(self) -> None:
        self.timelines: set[str] = set()
        self.columns: dict[str, list[Any]] = {}

    def add(self, chunk: Any) -> None:
        self.timelines |= set(chunk.timeline_names)
        batch = chunk.to_record_batch()
        for name in batch.schema.names:
            self.columns.setdefault(name, []).extend(batch.column(name).to_pylist())

    def values(self, column: str) -> list[Any]:
        return [value for value in self.columns[column] if value is not None]


def read_back(path: Path) -> Mapping[str, Entity]:
    entities: dict[str, Entity] = {}
    for chunk in RrdReader(str(path)).stream().to_chunks():
        entities.setdefault(chunk.entity_path.removeprefix("/"), Entity()).add(chunk)
    return entities


def recorded(tmp_path: Path, frames: Iterator[ShownFrame]) -> Mapping[str, Entity]:
    path = tmp_path / "recording.rrd"
    stream = rr.RecordingStream("test")
    stream.save(path, default_blueprint=blueprint(["front", "back"]))
    recording = RerunRecording(stream)
    for frame in frames:
        recording.add(frame)
    stream.flush(timeout_sec=10.0)
    stream.disconnect()
    return read_back(path)


@pytest.fixture(scope="module")
def entities(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Entity]:
    return recorded(tmp_path_factory.mktemp("rerun"), shown_frames())


def test_each_frame_is_at_its_ros_time_and_number_and_nowhere_else(entities: Mapping[str, Entity]) -> None:
    boxes = entities["world/vehicle/boxes"]
    assert boxes.timelines == {"ros_time", "frame"}
    assert sorted(boxes.values("frame")) == [0, 1, 2]
    stamps = sorted(int(np.datetime64(value, "ns").astype(np.int64)) for value in boxes.values("ros_time"))
    assert stamps == [START_NS + number * PERIOD_NS for number in range(3)]
    for name, entity in entities.items():
        assert entity.timelines in (set(), {"ros_time", "frame"}), name


def test_boxes_have_weights_in_labels_and_colours(entities: Mapping[str, Entity]) -> None:
    boxes = entities["world/vehicle/boxes"]
    assert boxes.values("Boxes3D:labels") == [["car 0.90  L 0.80 C 0.10", "car 0.90  L 0.20 C 0.60"]] * 3
    np.testing.assert_allclose(boxes.values("Boxes3D:half_sizes")[0], [[2, 1, 0.75]] * 2)
    yaw = [2 * np.arctan2(z, w) for _x, _y, z, w in boxes.values("Boxes3D:quaternions")[0]]
    np.testing.assert_allclose(yaw, [0.3, 0.3], atol=1e-6)
    mostly_lidar, mostly_cameras = boxes.values("Boxes3D:colors")[0]
    assert mostly_lidar != mostly_cameras


def test_clouds_cameras_and_the_vehicle_are_in_the_world(entities: Mapping[str, Entity]) -> None:
    assert [len(points) for points in entities["world/vehicle/points"].values("Points3D:positions")] == [50] * 3
    places = sorted(np.ravel(place)[0] for place in entities["world/vehicle"].values("Transform3D:translation"))
    assert places == [0.0, 1.0, 2.0]
    for name in ("front", "back"):
        camera = entities[f"world/vehicle/cameras/{name}"]
        assert len(camera.values("EncodedImage:blob")) == len(camera.values("Pinhole:image_from_camera")) == 3
        assert np.ravel(camera.values("Pinhole:resolution")[0]).tolist() == list(SIZE)


def picture(entity: Entity) -> np.ndarray:
    blob = bytes(np.ravel(entity.values("EncodedImage:blob")[0]).astype(np.uint8))
    assert blob[:3] == b"\xff\xd8\xff", "pictures are JPEGs, so that the file stays small"
    return cv2.imdecode(np.frombuffer(blob, np.uint8), cv2.IMREAD_COLOR)


def test_pictures_show_heat_maps_and_boxes(entities: Mapping[str, Entity]) -> None:
    drawn = picture(entities["world/vehicle/cameras/front"])
    assert drawn.shape == (SIZE[1], SIZE[0], 3)
    assert np.abs(drawn.astype(int) - 90).max() > 40, "the image itself is plain grey"
    assert picture(entities["bev"]).max() > 100


def test_weights_over_time_are_means_by_sensor_and_camera_and_those_of_each_object(
    entities: Mapping[str, Entity],
) -> None:
    def series(path: str) -> list[float]:
        return np.ravel(entities[path].values("Scalars:scalars")).tolist()

    assert series("weights/by_sensor/lidar") == pytest.approx([0.5] * 3)
    assert series("weights/by_sensor/cameras") == pytest.approx([0.35] * 3)
    assert series("weights/by_camera/front") == pytest.approx([0.4] * 3)
    assert series("weights/by_camera/back") == pytest.approx([0.3] * 3)
    objects = {name.split("/")[2] for name in entities if name.startswith("weights/by_object/")}
    assert len(objects) == 2, "the vehicle moves, the objects stand: their identities last"
    lidar = sorted(series(f"weights/by_object/{identity}/lidar")[0] for identity in objects)
    assert lidar == pytest.approx([0.2, 0.8])


def test_nothing_of_an_earlier_frame_stays_visible(tmp_path: Path) -> None:
    first, second = frame_and_result(0), frame_and_result(1, cameras=("back",), objects=0)
    without_lidar = replace(second[0], points=None)
    maps = replace(second[1].weight_maps, bev=None)
    frames = [shown_result(*first, {}), shown_result(without_lidar, replace(second[1], weight_maps=maps), {})]
    frames[1] = replace(frames[1], unused={"front": "too old", "lidar": "no data"})
    entities = recorded(tmp_path, iter(frames))
    for name in ("cameras/front", "points", "boxes", "headings"):
        entity = entities[f"world/vehicle/{name}"]
        assert len(entity.values("Clear:is_recursive")) == 1 and sorted(entity.values("frame")) == [0, 1], name
    assert len(entities["bev"].values("Clear:is_recursive")) == 1
    (_first, said) = (text[0] for text in entities["status"].values("TextDocument:text"))
    assert "- front: too old" in said and "- lidar: no data" in said
    assert np.isnan(np.ravel(entities["weights/by_camera/front"].values("Scalars:scalars"))[-1]), "a gap in the plot"
    assert np.isnan(np.ravel(entities["weights/by_sensor/lidar"].values("Scalars:scalars"))[-1])


def test_names_that_look_like_paths_stay_one_entity(tmp_path: Path) -> None:
    frame, result = frame_and_result(0)
    shown = replace(shown_result(frame, result, {}), axes={"robot/base link": np.eye(4)})
    names = [name for name in recorded(tmp_path, iter([shown])) if "/frames/" in name]
    assert names == [r"world/vehicle/frames/robot\/base\ link"]


def test_objects_need_the_vehicles_motion() -> None:
    frame, result = frame_and_result(0)
    assert ObjectFollower().follow(frame.stamp_ns, result.detections, None) == {}
    found = ObjectFollower().follow(frame.stamp_ns, result.detections, np.eye(4))
    assert all(isinstance(weights, ObjectWeights) and weights.class_name == "car" for weights in found.values())
    weights = sorted((weights.lidar, weights.camera) for weights in found.values())
    np.testing.assert_allclose(weights, [(0.2, 0.6), (0.8, 0.1)], rtol=1e-6)


def test_the_window_is_arranged_with_a_view_of_each_camera(tmp_path: Path) -> None:
    recorded(tmp_path, shown_frames())
    (store,) = RrdReader(str(tmp_path / "recording.rrd")).blueprints()
    chunks = RrdReader(str(tmp_path / "recording.rrd")).stream(store=store).to_chunks()
    batches = [chunk.to_record_batch().to_pydict() for chunk in chunks]
    named = [str(name) for batch in batches for name in batch.get("ViewBlueprint:display_name", [])]
    for wanted in ("front", "back", "Detections", "By object", "Frame", "LiDAR weights from above"):
        assert any(wanted in name for name in named), named
