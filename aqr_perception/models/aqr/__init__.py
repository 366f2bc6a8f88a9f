# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Adaptive query routing (AQR): per-query weights of LiDAR and cameras, their effect on the model, and their maps."""
