# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Error of bags that cannot be read or written."""


class BagError(ValueError):
    """A bag cannot be read or written; the message names the file, the value found, the value needed and the remedy."""
