"""Labelled frames for training and evaluation: sources, corruption, augmentation and batches."""
