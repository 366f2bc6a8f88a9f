# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Frames of a bag without labels: each sweep with the nearest image of each camera, decoded as by the node."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from aqr_perception.bags.errors import BagError
from aqr_perception.bags.poses import TransformTree, stamp_to_ns
from aqr_perception.bags.reader import BagReader
from aqr_perception.data.rig_file import Rig
from aqr_perception.data.sources.bag_topics import bag_rig, fixed_frame, read_stamps
from aqr_perception.decoding.message_error import MessageError
from aqr_perception.decoding.sensor_data import pinhole_image, scaled_points
from aqr_perception.frame import CameraView, Frame


def is_bag(path: Path) -> bool:
    """Return whether a path names a bag: a .mcap or .db3 file, or a rosbag2 folder."""
    return path.suffix in (".mcap", ".db3") or (path / "metadata.yaml").is_file()


def bag_frames(path: Path, count: int, rig: Rig | None = None) -> Iterator[Frame]:
    """Yield frames of single sweeps spread over a bag, in the LiDAR's frame.

    Args:
        count: number of frames, at most.
        rig: topics and frames; None: those that the bag's topics show.

    Raises:
        BagError: the bag has no sweep, or a message or a transform is not usable.
    """
    with BagReader(path) as bag:
        found = bag_rig(bag, rig)
        if not found.lidar_topics:
            raise BagError(f"{path}: found no LiDAR among the topics, needed sweeps; name them in a rig file (--rig)")
        topics = {"/tf", "/tf_static"} & {topic.name for topic in bag.topics}
        transforms: dict[str, list[Any]] = {"/tf": [], "/tf_static": []}
        for message in bag.messages(topics) if topics else ():
            transforms[message.topic].append(message.decode())
        tree = TransformTree(transforms["/tf"], transforms["/tf_static"], str(path))
        fixed = fixed_frame(found, tree.frames)
        lidar = found.lidar_topics[0]
        stamps = read_stamps(
            bag, [lidar, *(t for camera in found.cameras for t in (camera.image_topic, camera.info_topic))]
        )
        total = len(stamps[lidar].measured)
        if not total:
            raise BagError(f"{path}: found no sweep on {lidar}, needed at least one")
        for index in np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int)):
            try:
                yield _frame(bag, found, tree, fixed, lidar, stamps, int(index))
            except MessageError as error:
                raise BagError(f"{path}: {error}") from error


def _frame(
    bag: BagReader, rig: Rig, tree: TransformTree, fixed: str, lidar: str, stamps: dict[str, Any], index: int
) -> Frame:
    sweep = _message(bag, lidar, int(stamps[lidar].recorded[index]))
    now, doubts = stamp_to_ns(sweep.header.stamp), list[MessageError]()
    points = scaled_points(sweep, lidar, rig.intensity_scale, doubts)
    frame_id, views = sweep.header.frame_id, []
    for camera in rig.cameras:
        images, infos = stamps[camera.image_topic], stamps[camera.info_topic]
        nearest = images.nearest(now + round(camera.offset * 1e9), rig.max_camera_age)
        if nearest is None or not len(infos.measured):
            continue
        image = _message(bag, camera.image_topic, int(images.recorded[nearest]))
        latest = max(int(np.searchsorted(infos.measured, images.measured[nearest], side="right")) - 1, 0)
        info = _message(bag, camera.info_topic, int(infos.recorded[latest]))
        pinhole = pinhole_image(
            image, info, camera.image_topic, camera.info_topic, camera.rectified, camera.baseline_in_tf, 0, doubts
        )
        taken = stamp_to_ns(image.header.stamp) - round(camera.offset * 1e9)
        optical = image.header.frame_id or info.header.frame_id
        extrinsics = tree.lookup(optical, taken, frame_id, now, fixed)
        extrinsics[:3, 3] += pinhole.baseline
        views.append(CameraView(camera.name, pinhole.pixels, pinhole.intrinsics, extrinsics, (now - taken) / 1e9))
    columns = np.c_[points, np.zeros(len(points), np.float32)].astype(np.float32)
    return Frame(now, columns, tuple(views), frame_id)


def _message(bag: BagReader, topic: str, recorded_ns: int) -> Any:
    return next(iter(bag.messages([topic], recorded_ns, recorded_ns + 1))).decode()
