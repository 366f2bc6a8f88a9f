# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""StaticTransformBroadcaster: publisher of constant transforms on /tf_static, also for late subscribers."""

from collections.abc import Iterable

from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage


class StaticTransformBroadcaster:
    """Publishes on `/tf_static`, latched."""

    def __init__(self, node: Node) -> None:
        qos = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.pub_tf = node.create_publisher(TFMessage, "/tf_static", qos)
        self.net_message = TFMessage()

    def sendTransform(self, transform: TransformStamped | Iterable[TransformStamped]) -> None:
        """Publish one or several transforms together with all earlier ones; a child frame has its last transform.

        Late subscribers receive only the last message, so it contains all transforms.
        """
        latest = {sent.child_frame_id: sent for sent in self.net_message.transforms}
        transforms = transform if hasattr(transform, "__iter__") else [transform]
        latest.update({new.child_frame_id: new for new in transforms})
        self.net_message.transforms = list(latest.values())
        self.pub_tf.publish(self.net_message)
