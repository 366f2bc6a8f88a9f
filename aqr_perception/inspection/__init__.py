"""What a bag or a running system holds, and whether the node can run it: without ROS, all but `live/`."""
