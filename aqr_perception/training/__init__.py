"""Training of detection models: the loop, the losses, and resumable training states."""
