# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""An inspection as text, page, picture, JSON and parameter file."""
