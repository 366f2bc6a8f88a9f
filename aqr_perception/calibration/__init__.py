# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Check of the cameras' rotation against the LiDAR, from the recorded pictures and points alone."""
