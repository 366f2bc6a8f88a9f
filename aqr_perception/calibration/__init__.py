"""Check of the cameras' rotation against the LiDAR, from the recorded pictures and points alone."""
