"""Tracks: the identity of detected objects across frames. Free of ROS and PyTorch."""
