"""Frames of recordings without the node's outputs, run through the detector."""

from collections.abc import Iterator
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


def detected_frames(source: Path, detector: "Detector", frames: int, rig: Rig | None = None) -> Iterator[ShownFrame]:
    """Yield what is shown of the frames of a bag or of a recorded data set, with the detector's results.

    Args:
        frames: number of frames, at most: of a bag spread over it, of other recordings from the start.
        rig: topics and frames of a bag; None: those that the bag's topics show.

    Raises:
        BagError, RecordingError: the recording cannot be read.
    """
    follower = ObjectFollower()
    detector.forget()
    for frame in _frames(source, detector.sweeps, frames, rig):
        result = detector.detect(frame)
        yield shown_result(frame, result, follower.follow(frame.stamp_ns, result.detections, frame.to_fixed))


def _frames(source: Path, sweeps: int, count: int, rig: Rig | None) -> Iterator[Frame]:
    if not is_bag(source):
        recording = open_recording(source)
        yield from (recorded.frame() for recorded in islice(recorded_frames(recording, sweeps), count))
        return
    tree, fixed = _motion(source, rig)
    for frame in bag_frames(source, count, rig):
        if fixed:
            to_fixed = tree.lookup(fixed, frame.stamp_ns, frame.frame_id, frame.stamp_ns)
            frame = replace(frame, to_fixed=to_fixed)
        yield frame


def _motion(bag: Path, rig: Rig | None) -> tuple[TransformTree, str]:
    """Return the transforms of a bag, and the name of the frame fixed to the world; empty if there is none."""
    with BagReader(bag) as reader:
        tree = transforms_of(reader)
    return tree, fixed_frame(rig or Rig(), tree.frames)


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
