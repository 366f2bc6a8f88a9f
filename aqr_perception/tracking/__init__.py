# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Tracks: the identity of detected objects across frames. Free of ROS and PyTorch."""
