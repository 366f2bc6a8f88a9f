"""A small simulated world with cameras and a LiDAR."""
