# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Transforms, buffers of transforms, and their results as matrices, for the tests of tf2. Skips without ROS."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

pytest.importorskip("rclpy", reason="the transform buffer speaks ROS messages; run in the ROS environment")
geometry_msgs = pytest.importorskip("geometry_msgs.msg")
time_module = pytest.importorskip("rclpy.time")
duration_module = pytest.importorskip("rclpy.duration")
tf2 = pytest.importorskip("tf2_py", reason="needs NumPy, SciPy and transforms3d")

BufferCore, Time, Duration = tf2.BufferCore, time_module.Time, duration_module.Duration
IDENTITY = (0.0, 0.0, 0.0, 1.0)


def stamped(parent, child, seconds, translation=(0.0, 0.0, 0.0), rotation=IDENTITY):
    message = geometry_msgs.TransformStamped()
    message.header.frame_id, message.child_frame_id = parent, child
    message.header.stamp = Time(nanoseconds=round(seconds * 1e9)).to_msg()
    vector, quaternion = message.transform.translation, message.transform.rotation
    vector.x, vector.y, vector.z = translation
    quaternion.x, quaternion.y, quaternion.z, quaternion.w = rotation
    return message


def at(seconds):
    return Time(nanoseconds=round(seconds * 1e9))


def can_look_up(buffer, target, source, time):
    """Whether a buffer connects two frames at a time."""
    try:
        buffer.lookup_transform_core(target, source, time)
    except tf2.TransformException:
        return False
    return True


def frames_of(buffer):
    """Return the frames that a buffer knows, in the order of arrival."""
    return list(buffer._tree.frames)


def matrix(translation, rotation):
    result = np.eye(4)
    result[:3, :3] = Rotation.from_quat(rotation).as_matrix()
    result[:3, 3] = translation
    return result


def vector_of(message):
    vector = message.transform.translation
    return np.array([vector.x, vector.y, vector.z])


def quaternion_of(message):
    rotation = message.transform.rotation
    return np.array([rotation.x, rotation.y, rotation.z, rotation.w])


def matrix_of(message):
    return matrix(vector_of(message), quaternion_of(message))


def buffer_of(*messages, cache_time=None, static=False):
    buffer = BufferCore() if cache_time is None else BufferCore(Duration(seconds=cache_time))
    for message in messages:
        (buffer.set_transform_static if static else buffer.set_transform)(message, "test")
    return buffer
