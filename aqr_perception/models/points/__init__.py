# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Point branch: voxels, sparse encoder, SECOND and its feature pyramid."""
