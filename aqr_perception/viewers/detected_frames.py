"""Frames of recordings without the node's outputs, run through the detector."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aqr_perception.bags.poses import TransformTree
from aqr_perception.bags.reader import BagReader
from aqr_perception.data.recordings.bag_frames import bag_frames, is_bag
from aqr_perception.data.recordings.recognition import open_recording
from aqr_perception.data.recordings.recorded_frames import recorded_frames
from aqr_perception.data.rig_file import Rig
from aqr_perception.data.sources.bag_topics import fixed_frame
from aqr_perception.frame import Frame
from aqr_perception.viewers.object_weights import ObjectFollower
from aqr_perception.viewers.shown_frame import ShownFrame, shown_result

if TYPE_CHECKING:
    from aqr_perception.detector import Detector

_ALL = sys.maxsize


def detected_frames(
    source: Path, load: "Callable[[], Detector]", frames: int | None = None, rig: Rig | None = None
) -> Iterator[ShownFrame]:
    """Yield what is shown of the frames of a bag or of a recorded data set, with the detector's results.

    Args:
        load: returns the detector; called once the recording is open.
        frames: number of frames, at most: of a bag spread over it, of other recordings from the start; None: all.
        rig: topics and frames of a bag; None: those that the bag's topics show.

    Raises:
        BagError, RecordingError: the recording cannot be read.
    """
    follower, opened = ObjectFollower(), _opened(source, rig)
    detector = load()
    for frame in opened(detector.sweeps, frames):
        result = detector.detect(frame)
        yield shown_result(frame, result, follower.follow(frame.stamp_ns, result.detections, frame.to_fixed))


def _opened(source: Path, rig: Rig | None) -> Callable[[int, int | None], Iterator[Frame]]:
    """Return a function that yields the frames for a number of sweeps, and at most a number of frames."""
    if is_bag(source):
        with BagReader(source) as bag:
            tree = transforms_of(bag)
        return lambda _, count: _bag_frames(source, rig, tree, count)
    recording = open_recording(source)
    return lambda sweeps, count: (recorded.frame() for recorded in islice(recorded_frames(recording, sweeps), count))


def _bag_frames(source: Path, rig: Rig | None, tree: TransformTree, count: int | None) -> Iterator[Frame]:
    """Yield frames of a bag with the vehicle's motion, where TF tells it."""
    fixed = fixed_frame(rig or Rig(), tree.frames)
    for frame in bag_frames(source, _ALL if count is None else count, rig):
        if fixed:
            to_fixed = tree.lookup(fixed, frame.stamp_ns, frame.frame_id, frame.stamp_ns)
            frame = replace(frame, to_fixed=to_fixed)
        yield frame


def transforms_of(bag: BagReader) -> TransformTree:
    """Return the transforms on a bag's /tf and /tf_static.

    Raises:
        BagError: a transform is none.
    """
    found: dict[str, list[Any]] = {"/tf": [], "/tf_static": []}
    topics = set(found) & {topic.name for topic in bag.topics}
    for message in bag.messages(topics) if topics else ():
        found[message.topic].append(message.decode())
    return TransformTree(found["/tf"], found["/tf_static"], str(bag.path))
