# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Sensors of world 2: LiDAR and camera models, sweeps and pictures."""
