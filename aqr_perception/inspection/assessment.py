# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Inspection of what was heard: topics, stamps, TF, calibrations and point clouds, and whether the node can run it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from aqr_perception.bags.errors import BagError
from aqr_perception.bags.poses import TransformTree
from aqr_perception.decoding.message_error import MessageError
from aqr_perception.decoding.plausibility import camera_doubt, check_distances
from aqr_perception.frame import FramePlacement
from aqr_perception.geometry import transform_points
from aqr_perception.inspection.bag_reading import ReadBag
from aqr_perception.inspection.clock_offsets import StampOffsets, clock_findings, stamp_offsets
from aqr_perception.inspection.cloud_layout import CloudLayout, cloud_layout
from aqr_perception.inspection.finding import Finding, distinct, finding, from_error
from aqr_perception.inspection.observations import CLOUD, IMAGES, INFO, TF, Observations, Topic
from aqr_perception.inspection.sensor_choice import Choice, NamedCamera, choose
from aqr_perception.inspection.tf_tree import TfTree, tf_tree, tree_findings
from aqr_perception.inspection.timing import Time, node_times
from aqr_perception.inspection.topic_rates import TopicRate, topic_rate
from aqr_perception.inspection.vehicle_frames import VehicleFrames, vehicle_frames

_SENSORS = (*IMAGES, CLOUD)
_FRONT = re.compile(r"(.*_)?front(_(cent(er|re)|middle|main|wide|narrow|camera|cam))*")
"""Names of cameras that look ahead; those of front_left do not."""
_TRIALS = 40
"""Sweeps at which each camera's place is looked up."""
_LARGEST_MISS = 0.05


@dataclass(frozen=True)
class Inspection:
    """Everything that an inspection found.

    Attributes:
        source: what was inspected.
        rates: rate of each topic.
        offsets: stamps of the sensors by topic.
        clouds: layouts of the point clouds by topic.
        findings: problems, the worst first.
    """

    source: str
    heard: Observations
    sampling: str
    rates: Mapping[str, TopicRate]
    offsets: Mapping[str, StampOffsets]
    tree: TfTree
    clouds: Mapping[str, CloudLayout]
    choice: Choice
    frames: VehicleFrames
    times: Mapping[str, Time]
    findings: tuple[Finding, ...]
    recorded: ReadBag | None = field(default=None)

    @property
    def cameras(self) -> tuple[NamedCamera, ...]:
        """The chosen cameras that the node can use."""
        lost = lost_topics(self.findings)
        return tuple(one for one in self.choice.cameras if one.camera.image.name not in lost)

    @property
    def lidars(self) -> tuple[Topic, ...]:
        """The chosen LiDARs that the node can use, the one that triggers frames first."""
        lost = lost_topics(self.findings)
        return tuple(topic for topic in self.choice.lidars if topic.name not in lost)

    @property
    def runs(self) -> bool:
        """Whether the node makes frames of it."""
        return not any(one.severity == "stops" for one in self.findings)


def inspect_observations(
    heard: Observations,
    source: str,
    placement: FramePlacement | None = None,
    recorded: ReadBag | None = None,
    problems: Sequence[Finding] = (),
) -> Inspection:
    """Return the inspection of what was heard.

    Args:
        placement: where the model's frame lies; None if unknown.
        recorded: the bag, if it is one.
        problems: what is known already.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # numbers from outside may be absurd
        return _inspection(heard, source, placement, recorded, problems)


def _inspection(
    heard: Observations,
    source: str,
    placement: FramePlacement | None,
    recorded: ReadBag | None,
    problems: Sequence[Finding],
) -> Inspection:
    parts = recorded.parts if recorded is not None else ()
    topics = [topic for topic in heard.topics.values() if topic.recorded]
    whole = (recorded.times if recorded is not None else None) or {}
    rates = {
        topic.name: topic_rate(whole[topic.name]) if topic.name in whole else topic_rate(topic.recorded, parts)
        for topic in topics
    }
    tree = tf_tree(heard.transforms, parts)
    clouds = {topic.name: cloud_layout(topic) for topic in heard.of_type(CLOUD)}
    choice = choose(heard, clouds)
    sensors = [topic for topic in topics if topic.type in _SENSORS]
    first = choice.lidars[0] if choice.lidars else None
    offsets = stamp_offsets(sensors, first)
    chosen = [*choice.lidars, *(one.camera.image for one in choice.cameras)]
    transforms = _transforms(tree, source)
    frames = _frames(choice, tree, transforms, clouds, offsets, placement)
    anchor = first.frame if first else choice.cameras[0].camera.frame if choice.cameras else ""
    times = node_times([one.camera.image for one in choice.cameras], choice.lidars, rates, offsets, tree, anchor)
    findings = [
        *problems,
        *tree.findings,
        *frames.findings,
        *clock_findings(chosen, {t.name: offsets[t.name] for t in chosen}),
    ]
    for topic in choice.lidars:
        findings += clouds[topic.name].findings
    if not choice.lidars:
        findings += [one for layout in clouds.values() for one in layout.findings]
    for camera in (*(one.camera for one in choice.cameras), *choice.unusable):
        findings += camera.findings
    findings += _placed(choice, frames, tree)
    findings += _looked_up(choice, offsets, frames, transforms, clouds, times["max_camera_age"].seconds)
    findings += _topic_findings(heard)
    findings += _reasons_to_stop(choice, findings, frames)
    sampling = recorded.sampling if recorded is not None else ""
    return Inspection(
        source,
        heard,
        sampling,
        rates,
        offsets,
        tree,
        clouds,
        choice,
        frames,
        times,
        tuple(distinct(findings)),
        recorded,
    )


def _transforms(tree: TfTree, source: str) -> TransformTree:
    moving = ([one.message] for one in tree.usable if not one.static)
    static = ([one.message] for one in tree.usable if one.static)
    return TransformTree(map(_TfMessage, moving), map(_TfMessage, static), source)


@dataclass(frozen=True)
class _TfMessage:
    transforms: list[object]


def _frames(
    choice: Choice,
    tree: TfTree,
    transforms: TransformTree,
    clouds: Mapping[str, CloudLayout],
    offsets: Mapping[str, StampOffsets],
    placement: FramePlacement | None,
) -> VehicleFrames:
    lidar = choice.lidars[0] if choice.lidars else None
    ahead = next((one for one in choice.cameras if _FRONT.fullmatch(one.name)), None)
    if lidar is None and choice.cameras:
        ahead = ahead or choice.cameras[0]
    front = None
    if ahead is not None:
        stamps = [stamp for stamp in ahead.camera.image.stamps if stamp > 0]
        front = (ahead.camera.frame, stamps[len(stamps) // 2]) if stamps else None
    main = lidar or (choice.cameras[0].camera.image if choice.cameras else None)
    stamps = sorted(stamp for stamp in main.stamps if stamp > 0) if main is not None else []
    sweeps = clouds[lidar.name].sweeps if lidar is not None else ()
    return vehicle_frames(tree, transforms, lidar.frame if lidar else "", sweeps, stamps, front, placement)


def _placed(choice: Choice, frames: VehicleFrames, tree: TfTree) -> Iterator[Finding]:
    """Yield which sensors TF does not connect with the model frame."""
    sensors = [(topic.name, topic.frame) for topic in choice.lidars]
    if frames.model:
        sensors.insert(0, ("model_frame", frames.model))
    sensors += [(one.camera.image.name, one.camera.frame) for one in choice.cameras]
    yield from tree_findings(tree, sensors)


def _looked_up(
    choice: Choice,
    offsets: Mapping[str, StampOffsets],
    frames: VehicleFrames,
    transforms: TransformTree,
    clouds: Mapping[str, CloudLayout],
    max_age: float,
) -> Iterator[Finding]:
    """Yield what the node's checks of places and distances say at some sweeps."""
    lidar = choice.lidars[0] if choice.lidars else None
    target = frames.model or (lidar.frame if lidar else "")
    if not target:
        return
    for topic in choice.lidars:
        for sweep in clouds[topic.name].sweeps:
            try:
                pose = transforms.lookup(target, sweep.stamp_ns, topic.frame, sweep.stamp_ns)
                check_distances(transform_points(pose, sweep.points).astype(np.float32), topic.name)
            except BagError:
                continue  # `_placed` reports it
            except MessageError as error:
                yield from_error(error, "loses")
    for one in choice.cameras:
        if offsets[one.camera.image.name].faults:
            continue  # its stamps say nothing about the frames
        yield from _camera_place(one, target, frames, transforms, lidar, max_age)


def _camera_place(
    one: NamedCamera, target: str, frames: VehicleFrames, transforms: TransformTree, lidar: Topic | None, max_age: float
) -> Iterator[Finding]:
    topic = one.camera.image
    stamps = np.array(sorted(stamp for stamp in topic.stamps if stamp > 0), np.int64)
    if not len(stamps):
        return
    sweeps = [stamp for stamp in (lidar or topic).stamps if stamp > 0]
    sample = sweeps[:: max(1, len(sweeps) // _TRIALS)]
    too_old, missing = 0, list[str]()
    for sweep in sample:
        taken = int(stamps[np.abs(stamps - sweep).argmin()])
        if abs(taken - sweep) > max_age * 1e9:
            too_old += 1
            continue
        try:
            pose = transforms.lookup(one.camera.frame, taken, target, sweep, frames.fixed)
            doubt = camera_doubt(pose, one.camera.frame, topic.name)
        except MessageError as error:
            yield from_error(error, "loses")
            continue
        except BagError as error:
            missing.append(str(error).partition(": ")[2])
            continue
        if doubt is not None:
            yield from_error(doubt, "odd")
    if too_old > _LARGEST_MISS * len(sample):
        found = f"no picture within {max_age:g} s at {too_old} of {len(sample)} sweeps"
        remedy = "check rate and clock of the camera; the node makes these frames without it"
        yield finding("odd", topic.name, "pictures missing", found, "one near each sweep", remedy)
    if missing and len(missing) < len(sample):
        found = f"{missing[0]} ({len(missing)} of {len(sample)} sweeps)"
        remedy = "record /tf as long as the sensors; the node makes these frames without the camera"
        yield finding("odd", topic.name, "transforms missing at times", found, "transforms at all times", remedy)


def _topic_findings(heard: Observations) -> Iterator[Finding]:
    for topic in heard.topics.values():
        if topic.errors:
            found = f"{len(topic.errors)} or more messages: {topic.errors[0]}"
            needed = f"messages of type {topic.type} according to its definition"
            yield finding("odd", topic.name, "unreadable messages", found, needed, "check driver and recorder")
        if not topic.recorded and topic.type in (*_SENSORS, INFO, TF):
            found, remedy = "no message", "check that the driver runs, and listen or record longer"
            yield finding("odd", topic.name, "empty topic", found, "messages", remedy)


def lost_topics(findings: Sequence[Finding]) -> frozenset[str]:
    """Return the topics of sensors that are kept out of all frames."""
    return frozenset(one.subject for one in findings if one.severity == "loses" and one.problem in _LASTING)


def _reasons_to_stop(choice: Choice, findings: Sequence[Finding], frames: VehicleFrames) -> Iterator[Finding]:
    """Yield why the node would make no frame at all."""
    lost = lost_topics(findings)
    chosen = [*choice.lidars, *(one.camera.image for one in choice.cameras)]
    if all(topic.name in lost for topic in chosen):
        reasons = [f"{one.subject}: {one.problem}" for one in findings if one.severity == "loses"]
        found = "; ".join(dict.fromkeys(reasons)) or "neither point clouds nor pictures"
        needed = "a LiDAR (sensor_msgs/PointCloud2), or cameras with sensor_msgs/CameraInfo and TF"
        yield finding("stops", "sensors", "no usable sensor", found, needed, "record the sensors' topics, see above")
    elif not choice.lidars and not (frames.model or frames.output):
        found, needed = "cameras without LiDAR, and no vehicle's frame in TF", "a TF frame for the boxes"
        yield finding("stops", "/tf", "no model frame", found, needed, "publish the cameras' places on /tf_static")


_LASTING = ("no transform", "empty frame_id", "implausible transform", "implausible distances")
"""Problems of a chosen sensor that keep it out of all frames."""
