# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Publishers of the node's output topics."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from nav_msgs.msg import OccupancyGrid
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header
from vision_msgs.msg import Detection3DArray

from aqr_perception.frame import Frame, Result
from aqr_perception.msg import FrameTiming, FusedDetectionArray
from aqr_perception.nodes.input.frame_request import SensorUse
from aqr_perception.nodes.output import detection_messages, query_messages, weight_messages
from aqr_perception.nodes.output.autoware_objects import AutowareObjects
from aqr_perception.nodes.output.ground_plane import GroundPlane
from aqr_perception.nodes.output.marker_publisher import MarkerPublisher
from aqr_perception.nodes.stamps import ns_to_stamp, stamp_to_ns
from aqr_perception.nodes.worker import WorkerPool
from aqr_perception.stage_clock import in_this_frame, measured
from aqr_perception.visualization.bev_picture import bev_picture
from aqr_perception.visualization.camera_picture import camera_picture
from aqr_perception.visualization.picture_options import Caption, PictureOptions

_DEPTH = 5


class Publishers:
    """The node's output topics.

    Args:
        node: node of the publishers; the topics are private to it.
        camera_names: names of all configured cameras.
        marker_lifetime: seconds after which markers vanish.
        autoware: makes the messages of ~/objects; None: there is no such topic.

    Attributes:
        pictures: what the pictures of the next frame show; may be replaced at any time.
    """

    def __init__(
        self,
        node: Node,
        camera_names: Sequence[str],
        marker_lifetime: float,
        autoware: AutowareObjects | None = None,
    ) -> None:
        self._node, self._autoware = node, autoware
        self.pictures = PictureOptions()
        self._drawers = WorkerPool("aqr_pictures")
        self._detections = node.create_publisher(FusedDetectionArray, "~/detections", _DEPTH)
        self._detections_3d = node.create_publisher(Detection3DArray, "~/detections_3d", _DEPTH)
        self._objects = None if autoware is None else node.create_publisher(autoware.message_type, "~/objects", _DEPTH)
        self._markers = MarkerPublisher(node, _DEPTH, marker_lifetime)
        self._timing = node.create_publisher(FrameTiming, "~/timing", _DEPTH)
        self._queries = node.create_publisher(PointCloud2, "~/queries", _DEPTH)
        self._bev_image = node.create_publisher(Image, "~/weights/bev/image", _DEPTH)
        self._bev_raw = node.create_publisher(Image, "~/weights/bev/raw", _DEPTH)
        self._bev_grid = node.create_publisher(OccupancyGrid, "~/weights/bev/grid", _DEPTH)
        self._camera_image = {name: self._camera_publisher(name, "image") for name in camera_names}
        self._camera_raw = {name: self._camera_publisher(name, "raw") for name in camera_names}

    def publish(
        self,
        frame: Frame,
        result: Result,
        sensors: Sequence[SensorUse],
        to_output: NDArray[np.float64],
        output_frame: str,
        camera_headers: Mapping[str, Header],
        ground: GroundPlane | None,
        tracks: NDArray[np.int64] | None = None,
    ) -> None:
        """Publish the detections, and the other outputs that have subscribers.

        A frame without LiDAR has no BEV map, but a picture from above, so that no old one stays.

        Args:
            sensors: every configured sensor, used or not.
            to_output: (4, 4), model frame -> output frame.
            output_frame: TF frame of detections and markers. Headers of BEV images have the model frame instead.
            camera_headers: headers of the cameras' images, which their weight maps share.
            ground: where the BEV grid lies; None: there is no grid.
            tracks: see `detection_messages.detections_3d`.
        """
        stamp = ns_to_stamp(frame.stamp_ns)
        header = Header(stamp=stamp, frame_id=output_frame)
        self._detections.publish(detection_messages.fused_detections(result, sensors, to_output, header))
        if _has_subscribers(self._detections_3d):
            self._detections_3d.publish(detection_messages.detections_3d(result, to_output, header, tracks))
        if self._autoware is not None and self._objects is not None and _has_subscribers(self._objects):
            self._objects.publish(self._autoware.message(result.detections, to_output, header))
        if _has_subscribers(self._markers.topic):
            self._markers.publish(detection_messages.markers(result, to_output, header))
        if self.wants_queries:
            model_header = Header(stamp=stamp, frame_id=frame.frame_id)
            self._queries.publish(query_messages.query_cloud(frame, result, model_header))
        missing = tuple(sensor.name for sensor in sensors if not sensor.used)
        self._publish_bev(frame, result, ground, missing)
        self._publish_cameras(frame, result, camera_headers, missing)

    @property
    def wants_grid(self) -> bool:
        """Whether the BEV grid has subscribers."""
        return _has_subscribers(self._bev_grid)

    @property
    def wants_queries(self) -> bool:
        """Whether the queries, with their attention, have subscribers."""
        return _has_subscribers(self._queries)

    def publish_timing(self, timing: FrameTiming) -> None:
        self._timing.publish(timing)

    def delete_old_markers(self) -> None:
        """Delete markers in RViz that no newer frame has replaced in time."""
        self._markers.delete_old()

    def delete_markers(self) -> None:
        """Delete all markers in RViz, because the node stops."""
        self._markers.delete()

    def destroy(self) -> None:
        """Destroy all publishers."""
        self._markers.delete()
        objects = () if self._objects is None else (self._objects,)
        boxes = (self._detections, self._detections_3d, *objects, self._markers.topic, self._queries)
        bev = (self._bev_image, self._bev_raw, self._bev_grid)
        for publisher in (*boxes, self._timing, *bev, *self._camera_image.values(), *self._camera_raw.values()):
            self._node.destroy_publisher(publisher)

    def _camera_publisher(self, camera: str, kind: str) -> "Publisher[Image]":
        return self._node.create_publisher(Image, f"~/weights/{camera}/{kind}", _DEPTH)

    def _publish_bev(self, frame: Frame, result: Result, ground: GroundPlane | None, missing: tuple[str, ...]) -> None:
        maps = result.weight_maps
        stamp = ns_to_stamp(frame.stamp_ns)
        model_header = Header(stamp=stamp, frame_id=frame.frame_id)
        if maps.bev is not None and _has_subscribers(self._bev_raw):
            self._bev_raw.publish(weight_messages.raw_image(maps.bev, model_header))
        if maps.bev is not None and ground is not None and self.wants_grid:
            header = Header(stamp=stamp, frame_id=ground.frame_id)
            placement = ground.placement()
            grid = weight_messages.occupancy_grid(maps.bev, maps.bev_range, placement, header, maps.signed)
            self._bev_grid.publish(grid)
        if _has_subscribers(self._bev_image):
            with measured("pictures"):
                caption = Caption(frame.stamp_ns, missing)
                picture = bev_picture(maps, frame.points, result.detections, options=self.pictures, caption=caption)
            self._bev_image.publish(weight_messages.colour_image(picture, model_header))

    def _publish_cameras(
        self, frame: Frame, result: Result, headers: Mapping[str, Header], missing: tuple[str, ...]
    ) -> None:
        maps = result.weight_maps
        shown = [view for view in frame.cameras if _has_subscribers(self._camera_image[view.name])]
        work = [
            partial(
                camera_picture,
                view,
                maps.cameras.get(view.name),
                result.detections,
                signed=maps.signed,
                options=self.pictures,
                caption=Caption(stamp_to_ns(headers[view.name].stamp), missing),
                source=maps.source,
            )
            for view in shown
        ]
        with measured("wait"):
            pictures = self._drawers.run([in_this_frame(draw, "pictures") for draw in work])
        for view, picture in zip(shown, pictures, strict=True):
            self._camera_image[view.name].publish(weight_messages.colour_image(picture, headers[view.name]))
        for view in frame.cameras:
            weights = maps.cameras.get(view.name)
            if weights is not None and _has_subscribers(self._camera_raw[view.name]):
                self._camera_raw[view.name].publish(weight_messages.raw_image(weights.values, headers[view.name]))


def _has_subscribers(publisher: "Publisher[Any]") -> bool:
    count: int = publisher.get_subscription_count()
    return count > 0
