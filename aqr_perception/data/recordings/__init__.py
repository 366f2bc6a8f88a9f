# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Recorded drives of data sets, read sensor by sensor, and their conversion to bags."""
