"""Pictures of detections and weights: NumPy and OpenCV alone."""
