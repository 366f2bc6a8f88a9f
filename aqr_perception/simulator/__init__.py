"""A small simulated world for cameras and a LiDAR."""
