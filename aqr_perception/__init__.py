# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Camera + LiDAR 3D detection with adaptive query routing (AQR), for ROS 2."""

__version__ = "0.1.0"
