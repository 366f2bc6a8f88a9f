"""The part of the demo that talks to the perception node over ROS 2."""
