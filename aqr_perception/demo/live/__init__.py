# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Part of the demo that communicates with the perception node over ROS 2."""
