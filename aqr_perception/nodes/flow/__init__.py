# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Flow of frames through the node's stages, one after another or side by side."""
