"""The ROS 2 nodes: all code that imports rclpy, except the recorder of the demo."""
