"""Python access to the payload of sensor_msgs messages."""
