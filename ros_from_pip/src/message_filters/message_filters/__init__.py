# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Filters that receive messages and pass them on: a topic and a history."""

from message_filters.cache import Cache
from message_filters.simple_filter import SimpleFilter
from message_filters.subscriber import Subscriber

__all__ = ["Cache", "SimpleFilter", "Subscriber"]
