# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""MoME (arXiv:2503.19776): CMT with a router that sends each query to a fused, a LiDAR or a camera expert."""
