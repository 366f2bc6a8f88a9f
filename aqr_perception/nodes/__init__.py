# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 nodes: all code that imports rclpy, except the recorder of the demo."""
