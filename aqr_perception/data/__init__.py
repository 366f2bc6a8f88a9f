# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Labelled frames for training and evaluation: sources, corruption, augmentation and batches."""
