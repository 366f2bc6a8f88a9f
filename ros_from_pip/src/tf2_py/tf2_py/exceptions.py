# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The exceptions of tf2, all caught by `TransformException`."""


class TransformException(Exception):
    """Base of everything that a transform lookup can raise."""


class ConnectivityException(TransformException):
    """The two frames exist, but no chain of transforms joins them."""


class LookupException(TransformException):
    """A frame is unknown, or the frames form a loop."""


class ExtrapolationException(TransformException):
    """The requested time is outside the stored samples of a frame."""


class InvalidArgumentException(TransformException):
    """A frame name is empty or starts with a slash."""
