"""Inspection of bags and running systems: their content, and whether the node can run it. Only `live/` needs ROS."""
