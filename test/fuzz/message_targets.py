# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Fuzzed messages: each gives plausible data or a `MessageError`, and never harms another sensor's."""

import functools
from array import array

import cv2
import numpy as np
import tf2_ros
from geometry_msgs.msg import TransformStamped
from helpers.sensor_messages import INTRINSICS, MS, START, image, info, transform, with_header
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField

from aqr_perception.decoding.camera_images import MAX_PIXELS, Picture, picture_from_message
from aqr_perception.decoding.clouds import MAX_COORDINATE, MAX_INTENSITY, points_from_message
from aqr_perception.decoding.lens import described_size, pinhole_picture
from aqr_perception.decoding.message_error import MessageError
from aqr_perception.decoding.plausibility import camera_doubt
from aqr_perception.frame import FramePlacement
from aqr_perception.geometry import rigid_transform
from aqr_perception.nodes.input.frame_builder import FrameBuilder
from aqr_perception.nodes.input.frame_request import AssemblerSettings, CameraInput, CameraSettings, FrameRequest
from aqr_perception.nodes.input.transforms import FrameTransforms, TransformBuffer
from fuzz.choices import Choices
from fuzz.picture_seeds import seeds, with_right_sums

MOUNT = rigid_transform([0.5, 0.1, -0.2], [-0.5, 0.5, -0.5, 0.5])

_LAYOUTS: tuple[tuple[int, str], ...] = (
    (16, "x:7:0 y:7:4 z:7:8 intensity:7:12"),
    (12, "x:7:0 y:7:4 z:7:8"),
    (22, "x:7:0 y:7:4 z:7:8 intensity:7:12 ring:4:16 time:7:18"),
    (32, "x:8:0 y:8:8 z:8:16 i:4:24 timestamp:8:26"),
    (48, "x:7:0 y:7:4 z:7:8 intensity:7:16 t:6:20 reflectivity:4:24 ring:2:26"),
    (8, "z:3:4 y:3:2 x:3:0 reflectivity:2:6"),
)
"""Bytes of a point, and name, datatype and offset of its fields, as drivers publish them."""

_ENCODINGS = (
    *("bgr8", "rgb8", "mono8", "mono16", "bgra8", "rgba8", "bgr16", "rgb16", "bgra16", "rgba16"),
    *("bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8", "bayer_rggb16", "bayer_grbg16"),
    *("yuv422", "uyvy", "yuv422_yuy2", "yuyv", "nv12", "nv21", "nv24", "8UC1", "8UC3", "16UC1", "32FC1", "64FC4"),
    *("8UC0", "8UC4294967295", "32SC512", "h264", "bayer_", ""),
)
_FORMATS = (
    *("jpeg", "png", "bgr8; jpeg compressed bgr8", "bayer_rggb8; jpeg compressed ", "bayer_grbg16; png compressed "),
    *("bayer_x; png", "bayer_bggr8; jpeg compressed bayer_bggr8", "h264", "16UC1; compressedDepth png", ";;", ""),
)
_MODELS = ("plumb_bob", "", "rational_polynomial", "equidistant", "fisheye", "thin_prism_fisheye", "none")


def refused(error: MessageError) -> bool:
    """Check that an error is short enough to read, and return false: the input was not accepted."""
    text = str(error)
    assert error.problem and text.isprintable() and len(text) < 3000, text
    return False


def cloud(choices: Choices) -> PointCloud2:
    """Return a point cloud of a few points whose header or data may be wrong."""
    step, layout = choices.pick(_LAYOUTS)
    count, rows = choices.below(40) + 3, choices.pick((1, 1, 1, 2, 4))
    fields = [
        PointField(name=name, datatype=int(datatype), offset=int(offset), count=1)
        for name, datatype, offset in (field.split(":") for field in layout.split())
    ]
    rng = choices.random()
    values = rng.normal(0, 20, (rows * count, -(-step // 4))).astype("<f4")
    for _ in range(choices.unsigned(1) % 4):
        with np.errstate(over="ignore"):
            values[choices.below(len(values)), choices.below(values.shape[1])] = choices.number()
    data = np.ascontiguousarray(values).view(np.uint8)[:, :step].tobytes()
    if choices.chance():
        data = choices.spoilt(data)
    if choices.chance(6) and fields:
        field = choices.pick(fields)
        field.offset, field.count = choices.size(field.offset), choices.pick((1, 0, 2, choices.size()))
        field.datatype = choices.pick((field.datatype, choices.below(12), choices.unsigned(1)))
    if choices.chance(8):
        fields.append(PointField(name=choices.pick(("x", "i", "z", choices.text())), datatype=choices.below(10)))
        fields[-1].offset, fields[-1].count = choices.size(step), choices.size()
    if choices.chance(8):
        del fields[choices.below(len(fields))]
    message = PointCloud2(height=rows, width=count, fields=fields, point_step=step, row_step=step * count)
    message.is_bigendian = choices.chance(6)
    for name in ("height", "width", "point_step", "row_step"):
        if choices.chance(6):
            setattr(message, name, choices.size(getattr(message, name)))
    message.data = array("B", data)
    return message


def raw_image(choices: Choices) -> Image:
    """Return a raw image of a few pixels whose header or data may be wrong."""
    encoding = choices.pick(_ENCODINGS)
    width, height = 2 + choices.below(12), 2 + choices.below(8)
    pixel = 8 if "a16" in encoding else 6 if "16" in encoding and "r1" in encoding else 4 if "a8" in encoding else 3
    if encoding.startswith(("mono", "bayer", "nv", "8UC1", "16UC1")):
        pixel = 2 if "16" in encoding else 1
    elif encoding.startswith(("yuv", "uyvy", "yuyv")):
        pixel = 2
    padding = choices.pick((0, 0, 1, 4, 31))
    step, rows = width * pixel + padding, height + (height // 2 if encoding.startswith("nv") else 0)
    data = choices.random().bytes(step * rows)
    message = Image(height=height, width=width, encoding=encoding, step=step, is_bigendian=choices.unsigned(1) % 2)
    if choices.chance():
        data = choices.spoilt(data)
    if choices.chance(8):
        message.encoding = choices.text()
    for name in ("height", "width", "step"):
        if choices.chance(6):
            setattr(message, name, choices.size(getattr(message, name)))
    message.data = array("B", data)
    return message


def compressed_image(choices: Choices) -> CompressedImage:
    """Return an encoded picture of a few pixels whose bytes may be wrong."""
    data = choices.pick(seeds())
    data = choices.spoilt(data, choices.pick((700, 64, 0)))
    if data.startswith(b"\x89PNG") and not choices.chance():
        data = with_right_sums(data)
    return CompressedImage(
        format=choices.text() if choices.chance(8) else choices.pick(_FORMATS), data=array("B", data)
    )


def calibration(choices: Choices, width: int = 40, height: int = 24) -> CameraInfo:
    """Return a calibration whose numbers may be wrong."""
    fx, cx, cy = 0.75 * width, width / 2, height / 2
    matrix = [fx, 0.0, cx, 0.0, fx, cy, 0.0, 0.0, 1.0]
    projection = [fx, 0.0, cx, 0.0, 0.0, fx, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    rotation = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    distortion = list(choices.pick(((), (0.0,) * 4, (-0.3, 0.1, 0.0, 0.0, 0.0), (0.1,) * 8, (0.0,) * 12, (0.0,) * 14)))
    for values in (matrix, projection, rotation, distortion):
        for _ in range(choices.unsigned(1) % 3 if values and choices.chance() else 0):
            place = choices.below(len(values))
            values[place] = choices.number(values[place])
    if choices.chance(12):
        distortion = [choices.number() for _ in range(choices.below(20))]
    message = CameraInfo(width=width, height=height, k=matrix, p=projection, r=rotation, d=distortion)
    message.distortion_model = choices.text() if choices.chance(12) else choices.pick(_MODELS)
    for name in ("width", "height", "binning_x", "binning_y"):
        if choices.chance(8):
            setattr(message, name, choices.size(getattr(message, name)))
    if choices.chance(8):
        for name in ("x_offset", "y_offset", "width", "height"):
            setattr(message.roi, name, choices.size(width))
    return message


def moved_transform(choices: Choices, parent: str, child: str) -> TransformStamped:
    """Return a transform whose numbers may be wrong."""
    message = transform(parent, child, MOUNT, START + MS * choices.unsigned(1))
    for part, names in ((message.transform.translation, "xyz"), (message.transform.rotation, "xyzw")):
        for name in names:
            if choices.chance(10):
                setattr(part, name, choices.number(getattr(part, name)))
    return message


def stamped_transform(choices: Choices, parent: str, child: str) -> TransformStamped:
    """Return a transform whose frames, stamp or numbers may be wrong."""
    message = moved_transform(choices, parent, child)
    if choices.chance(10):
        message.header.frame_id = choices.pick((child, parent, "map", choices.text()))
    if choices.chance(10):
        message.child_frame_id = choices.pick((parent, child, "map", choices.text()))
    if choices.chance(10):
        message.header.stamp.sec = choices.signed(4)
        message.header.stamp.nanosec = choices.size()
    return message


def check_points(points: np.ndarray, channels: int, coordinate: float = MAX_COORDINATE) -> None:
    assert points.dtype == np.float32 and points.ndim == 2 and points.shape[1] == channels
    assert np.isfinite(points).all() and (np.abs(points[:, :3]) <= coordinate).all()
    assert (np.abs(points[:, 3]) <= MAX_INTENSITY).all()


def fuzz_cloud(choices: Choices) -> bool:
    message = cloud(choices)
    try:
        points = points_from_message(message, "/points", [])
    except MessageError as error:
        return refused(error)
    check_points(points, 4)
    assert len(points) <= message.width * message.height
    return True


def fuzz_image(choices: Choices) -> bool:
    message = raw_image(choices)
    described = (choices.size(message.width), choices.size(message.height)) if choices.chance(8) else (0, 0)
    try:
        picture = picture_from_message(message, "/image", choices.below(40), described, [])
    except MessageError as error:
        return refused(error)
    assert picture.pixels.shape == (message.height, message.width, 3) and picture.pixels.dtype == np.uint8
    assert picture.full_size == (message.width, message.height)
    return True


def fuzz_compressed(choices: Choices) -> bool:
    message = compressed_image(choices)
    described = choices.pick(((0, 0), (40, 24), (80, 48), (choices.size(40), choices.size(24))))
    width = choices.pick((0, 5, 20, 40, choices.unsigned(2)))
    try:
        picture = picture_from_message(message, "/image", width, described, [])
    except MessageError as error:
        return refused(error)
    full_width, full_height = picture.full_size
    assert 0 < full_width * full_height <= MAX_PIXELS
    factors = [f for f in (1, 2, 4, 8) if picture.pixels.shape == (-(-full_height // f), -(-full_width // f), 3)]
    assert factors and picture.pixels.dtype == np.uint8, (picture.pixels.shape, picture.full_size)
    return True


def fuzz_calibration(choices: Choices) -> bool:
    scale = choices.pick((1, 1, 2, 8))
    message = calibration(choices)
    picture = Picture(np.zeros((24 * scale // choices.pick((1, 2)), 40 * scale, 3), np.uint8), (40, 24))
    rectified = choices.chance(2)
    try:
        size = described_size(message, "/info")
        pinhole = pinhole_picture(picture, message, rectified, "/info", choices.chance(3), [])
    except MessageError as error:
        return refused(error)
    assert min(size) >= 0
    assert pinhole.pixels.shape == picture.pixels.shape and pinhole.pixels.dtype == np.uint8
    assert np.isfinite(pinhole.intrinsics).all() and np.isfinite(pinhole.baseline).all()
    assert min(pinhole.intrinsics[0, 0], pinhole.intrinsics[1, 1]) > 0
    np.testing.assert_allclose(pinhole.intrinsics[2], [0, 0, 1], atol=1e-2)
    return True


def fuzz_transform(choices: Choices) -> bool:
    buffer = TransformBuffer()
    now = choices.pick((START, 0))
    buffer.now_ns = lambda: now
    buffer.set_transform_static(stamped_transform(choices, "lidar", "front"), "fuzz")
    for _ in range(choices.unsigned(1) % 4):
        message = stamped_transform(choices, choices.pick(("map", "front", "lidar")), choices.pick(("lidar", "base")))
        if choices.chance():
            buffer.set_transform_static(message, "fuzz")
        else:
            buffer.set_transform(message, "fuzz")
    assert all(isinstance(fault, str) for fault in buffer.faults())
    transforms = FrameTransforms(buffer, choices.pick(("", "", "map", choices.text())))
    target = choices.pick(("lidar", "base", "map", choices.text()))
    times = [START + (choices.signed(8) if choices.chance(6) else MS * choices.unsigned(1)) for _ in range(2)]
    try:
        matrix = transforms.lookup(target, times[0], "front", times[1])
        camera_doubt(matrix, "front", "/image")
    except MessageError as error:
        return refused(error)
    assert matrix.shape == (4, 4) and np.isfinite(matrix).all()
    # A rotation neither mirrors nor scales.
    np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-3)
    return True


@functools.cache
def _large_picture() -> bytes:
    """Return a JPEG of 320 x 192 pixels."""
    pixels = np.random.default_rng(1).integers(0, 255, (192, 320, 3), np.uint8)
    return bytes(cv2.imencode(".jpg", cv2.blur(pixels, (9, 9)))[1].tobytes())


def _front_image(choices: Choices) -> Image | CompressedImage:
    kind = choices.below(4)
    if kind == 0:
        return compressed_image(choices)
    if kind == 1:
        return raw_image(choices)
    return image("front") if kind == 2 else CompressedImage(format="jpeg", data=array("B", _large_picture()))


def fuzz_frame(choices: Choices) -> bool:
    """Spoil the LiDAR's and one camera's messages of two frames; the other camera must stay in both."""
    cameras = tuple(
        CameraSettings(name, f"/{name}/image", f"/{name}/info", True, name == "front" and choices.chance(2))
        for name in ("front", "back")
    )
    settings = AssemblerSettings(
        cameras=cameras,
        lidar_topic="/points",
        transform_wait=0.0,
        fixed_frame=choices.pick(("", "map")),
        max_sweeps=choices.pick((1, 3)),
        intensity_scale=choices.pick((1.0, 255.0, 1e-6, 1e6)),
    )
    buffer = tf2_ros.Buffer()
    for parent, child in (("base", "lidar"), ("base", "back"), ("map", "base")):
        buffer.set_transform_static(transform(parent, child, MOUNT), "fuzz")
    buffer.set_transform_static(moved_transform(choices, "base", "front"), "fuzz")
    builder, used, sweeps = FrameBuilder(), 0, []
    for number in range(2):
        now = START + number * 100 * MS
        sweeps.insert(0, with_header(cloud(choices), choices.text() if choices.chance(12) else "lidar", now))
        front_info = calibration(choices, 320, 192) if choices.chance(2) else calibration(choices)
        front = with_header(_front_image(choices), choices.text() if choices.chance(12) else "front", now)
        front_ns = now + (choices.signed(8) if choices.chance(12) else 0)
        inputs = (
            CameraInput(cameras[0], front, with_header(front_info, "front", now), front_ns),
            CameraInput(cameras[1], image("back", now), info("back"), now),
        )
        request = FrameRequest(now, "base", tuple(sweeps), inputs, settings)
        transforms = FrameTransforms(buffer, settings.fixed_frame)
        built = builder.build(request, transforms, choices.pick((0, 20, 160)), FramePlacement(1.8, "x"))
        assert not built.unexpected, built.warnings
        assert all(warning.isprintable() and len(warning) < 5000 for warning in built.warnings)
        assert built.frame is not None and [use.name for use in built.sensors] == ["lidar", "front", "back"]
        assert [use.used for use in built.sensors][2], built.warnings
        used += sum(use.used for use in built.sensors[:2])
        if built.frame.points is not None:
            check_points(built.frame.points, 5, 2e4)
        for view in built.frame.cameras:
            assert view.image.ndim == 3 and view.image.dtype == np.uint8
            assert np.isfinite(view.intrinsics).all() and np.isfinite(view.extrinsics).all()
        back = built.frame.cameras[-1]
        np.testing.assert_array_equal(back.intrinsics[:2] * 40 / back.image.shape[1], INTRINSICS[:2])
    return used > 0
