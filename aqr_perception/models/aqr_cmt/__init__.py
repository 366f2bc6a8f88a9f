# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""CMT with adaptive query routing as in the research code, whose checkpoints it loads."""
