# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Sensor messages to arrays, for the node and for bags: works with any object that has a message's fields."""
