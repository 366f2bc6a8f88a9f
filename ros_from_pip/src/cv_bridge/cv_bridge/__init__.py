"""Images between ROS messages and OpenCV."""

from cv_bridge.boost.cv_bridge_boost import cvtColorForDisplay, getCvType
from cv_bridge.core import CvBridge, CvBridgeError

__all__ = ["CvBridge", "CvBridgeError", "cvtColorForDisplay", "getCvType"]
