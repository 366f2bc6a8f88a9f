"""What `aqr_perception benchmark` measures."""
