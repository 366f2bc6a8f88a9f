"""StaticTransformBroadcaster: publishes transforms that never change on /tf_static, for late joiners too."""

from collections.abc import Iterable

from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile
from tf2_msgs.msg import TFMessage

from tf2_ros.transform_broadcaster import as_list


class StaticTransformBroadcaster:
    """Publishes on `/tf_static`; `qos` is a profile or a history depth (default: latched, the last message)."""

    def __init__(self, node: Node, qos: QoSProfile | int | None = None) -> None:
        if qos is None:
            qos = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL, history=HistoryPolicy.KEEP_LAST)
        self.pub_tf = node.create_publisher(TFMessage, "/tf_static", qos)
        self.net_message = TFMessage()

    def sendTransform(self, transform: TransformStamped | Iterable[TransformStamped]) -> None:
        """Publish these together with all sent before; one with a known child frame replaces the earlier one.

        Late joiners get only the last message, so that message has to hold everything.
        """
        latest = {sent.child_frame_id: sent for sent in self.net_message.transforms}
        latest.update({new.child_frame_id: new for new in as_list(transform)})
        self.net_message.transforms = list(latest.values())
        self.pub_tf.publish(self.net_message)
