"""Part of the viewers that communicates with a running node over ROS 2."""
