"""Pictures of detections and weight maps, made with NumPy and OpenCV only."""
