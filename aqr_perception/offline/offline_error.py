# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Error of a bag that cannot be processed."""


class OfflineError(ValueError):
    """A bag cannot be processed; the message names the bag, the value found, the value needed and the remedy."""
