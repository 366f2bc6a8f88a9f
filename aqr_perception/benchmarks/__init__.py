"""Speed and memory measurements of `aqr_perception benchmark`."""
