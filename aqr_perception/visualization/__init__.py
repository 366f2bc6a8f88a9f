# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Pictures of detections and weight maps, made with NumPy and OpenCV only."""
