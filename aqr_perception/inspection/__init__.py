"""What a bag or a running system holds, and whether the node can run it: analysis without ROS (all but `live/`)."""
