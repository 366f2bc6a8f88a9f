# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Frames of recordings without the node's outputs, run through the detector."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aqr_perception.bags.errors import BagError
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
_Placed = tuple[Frame, Mapping[str, NDArray[np.float64]]]
"""A frame, and (4, 4) of the other TF frames by name, this frame -> model frame."""


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
    for frame, axes in opened((detector.sweeps, detector.sweep_interval), frames):
        result = detector.detect(frame)
        objects = follower.follow(frame.stamp_ns, result.detections, frame.to_fixed)
        yield replace(shown_result(frame, result, objects), axes=axes)


def _opened(source: Path, rig: Rig | None) -> Callable[[tuple[int, float], int | None], Iterator[_Placed]]:
    """Return a function that yields the frames, given number and interval of the sweeps and the most frames."""
    if is_bag(source):
        with BagReader(source) as bag:
            tree = transforms_of(bag)
        return lambda _, count: _bag_frames(source, rig, tree, count)
    recording = open_recording(source)
    return lambda sweeps, count: (
        (recorded.frame(), {}) for recorded in islice(recorded_frames(recording, *sweeps), count)
    )


def _bag_frames(source: Path, rig: Rig | None, tree: TransformTree, count: int | None) -> Iterator[_Placed]:
    """Yield frames of a bag with the vehicle's motion, where TF tells it, and the other TF frames."""
    fixed = fixed_frame(rig or Rig(), tree.frames)
    for frame in bag_frames(source, _ALL if count is None else count, rig):
        stamp_ns, frame_id = frame.stamp_ns, frame.frame_id
        if fixed:
            frame = replace(frame, to_fixed=tree.lookup(fixed, stamp_ns, frame_id, stamp_ns))
        axes = {}
        for name in sorted(tree.frames - {fixed, frame_id}):
            with suppress(BagError):  # a frame that TF does not connect at this time is not shown
                axes[name] = tree.lookup(frame_id, stamp_ns, name, stamp_ns)
        yield frame, axes


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
