# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Views of the node's outputs: RViz, Foxglove and Rerun, without ROS."""
