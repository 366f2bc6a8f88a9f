"""Load of the running perception node, measured over ROS 2."""
