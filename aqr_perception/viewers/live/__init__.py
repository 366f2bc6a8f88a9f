# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Part of the viewers that communicates with a running node over ROS 2."""
