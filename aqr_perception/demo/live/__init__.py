"""Part of the demo that communicates with the perception node over ROS 2."""
