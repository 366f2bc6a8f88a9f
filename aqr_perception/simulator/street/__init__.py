# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""World 2: streets with parametric bodies, vegetation, slopes, weather and light."""
