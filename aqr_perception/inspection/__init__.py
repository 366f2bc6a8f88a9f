# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Inspection of bags and running systems: their content, and whether the node can run it. Only `live/` needs ROS."""
