# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Steps of a frame outside of the model: build it before; place it in the output frame, and publish, after.

The node and `aqr_perception process` share them.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import tf2_ros
from numpy.typing import NDArray
from std_msgs.msg import Header

from aqr_perception.byte_cache import ByteSet, text_bytes
from aqr_perception.decoding.message_error import MessageError
from aqr_perception.frame import Frame, FramePlacement, Result
from aqr_perception.nodes.input.frame_builder import AssembledFrame, FrameBuilder
from aqr_perception.nodes.input.frame_request import CameraInput, FrameRequest, SensorUse
from aqr_perception.nodes.input.transforms import FramePair, FrameTransforms
from aqr_perception.nodes.output.ground_plane import GroundPlane
from aqr_perception.nodes.output.publishers import Publishers
from aqr_perception.nodes.output.track_publisher import TrackPublisher

_MOST_TEXT_BYTES = 2**20
"""Bytes of the names kept to recognise what TF lacked before; messages bring new ones without end."""


class Placed(NamedTuple):
    """A frame with all that its messages need beside the result.

    Attributes:
        sensors: every configured sensor, used or not.
        to_output: (4, 4), model frame -> output frame.
        camera_headers: headers of the cameras' images.
        ground: where the BEV grid lies; None: there is no grid.
        doubt: why the ground is unknown where it is needed; empty if it is known.
    """

    frame: Frame
    sensors: tuple[SensorUse, ...]
    to_output: NDArray[np.float64]
    output_frame: str
    camera_headers: Mapping[str, Header]
    ground: GroundPlane | None
    doubt: str


class FrameSteps:
    """Steps of a frame, with the state that frames share.

    `build` is for one thread at a time, and so are `place` and `publish`. One frame may be built while another one is
    placed and published: they share only the TF buffer and the pairs of frames that TF did not connect, and both are
    thread-safe.

    Args:
        buffer: TF buffer.
        tracks: follows and publishes the objects of the published frames; None: nobody does.
        clock, pause: see `FrameTransforms`.
        patient: whether every frame waits for transforms that earlier frames lacked.
    """

    def __init__(
        self,
        buffer: tf2_ros.Buffer,
        outputs: Publishers,
        tracks: TrackPublisher | None = None,
        clock: Callable[[], float] | None = None,
        pause: Callable[[float], object] | None = None,
        patient: bool = False,
    ) -> None:
        self._buffer, self._outputs, self._tracks, self._patient = buffer, outputs, tracks, patient
        self._clock, self._pause = clock, pause
        self._builder = FrameBuilder()
        self._unconnected: ByteSet[FramePair] = ByteSet(_MOST_TEXT_BYTES, lambda pair: text_bytes(*pair))

    def build(
        self, request: FrameRequest, image_width: int, placement: FramePlacement | None
    ) -> tuple[AssembledFrame, FrameTransforms]:
        """Decode a request; see `FrameBuilder.build`. Also return the transforms, which `place` needs."""
        settings = request.settings
        unconnected = None if self._patient else self._unconnected
        transforms = FrameTransforms(
            self._buffer, settings.fixed_frame, settings.transform_wait, unconnected, self._clock, self._pause
        )
        return self._builder.build(request, transforms, image_width, placement), transforms

    def place(
        self, request: FrameRequest, frame: Frame, sensors: tuple[SensorUse, ...], transforms: FrameTransforms
    ) -> Placed:
        """Look up where a frame's output belongs.

        Raises:
            MessageError: TF lacks the output frame at the frame's time.
        """
        settings = request.settings
        output_frame = settings.output_frame or frame.frame_id
        to_output = np.eye(4)
        if output_frame != frame.frame_id:
            to_output = transforms.lookup(output_frame, frame.stamp_ns, frame.frame_id, frame.stamp_ns)
        headers = {camera.settings.name: _camera_header(camera) for camera in request.cameras}
        ground, doubt = None, ""
        if self._outputs.wants_grid:
            try:
                ground = _ground_plane(frame, settings.ground_frame, transforms)
            except ValueError as error:
                doubt = f"no ~/weights/bev/grid: {error}"
        return Placed(frame, sensors, to_output, output_frame, headers, ground, doubt)

    def publish(self, placed: Placed, result: Result, epoch: int) -> None:
        """Publish a result, and its tracks.

        Args:
            epoch: number of time jumps before the frame.
        """
        tracks = None if self._tracks is None else self._tracks.follow(placed.frame, result, epoch)
        self._outputs.publish(
            placed.frame,
            result,
            placed.sensors,
            placed.to_output,
            placed.output_frame,
            placed.camera_headers,
            placed.ground,
            tracks,
        )
        if self._tracks is not None:
            self._tracks.send(placed.frame.stamp_ns, placed.to_output, placed.output_frame)


def _camera_header(camera: CameraInput) -> Header:
    """Return the header of a camera's own image."""
    header = camera.image.header
    return Header(stamp=header.stamp, frame_id=header.frame_id or camera.info.header.frame_id)


def _ground_plane(frame: Frame, ground_frame: str, transforms: FrameTransforms) -> GroundPlane:
    """Return where the ground is at a frame's time.

    Raises:
        ValueError: that is unknown.
    """
    if not ground_frame:
        raise ValueError("found no base_frame and no output_frame, needed a TF frame on the ground")
    try:
        to_ground = transforms.lookup(ground_frame, frame.stamp_ns, frame.frame_id, frame.stamp_ns)
        ground = GroundPlane(ground_frame, to_ground)
        ground.placement()
    except ValueError as error:
        raise ValueError(f"{ground_frame} (base_frame, or else output_frame): {error}") from error
    return ground


def no_output(output_frame: str, error: MessageError) -> str:
    """Return a sentence for a frame without a place in the output frame."""
    return f"no detections in output_frame {output_frame}: {error}"
