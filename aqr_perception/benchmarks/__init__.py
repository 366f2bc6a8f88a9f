# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Speed and memory measurements of `aqr_perception benchmark`."""
