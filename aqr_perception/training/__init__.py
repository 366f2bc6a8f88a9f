"""Training: data sets, augmentation, sensor corruption, losses and the loop."""
