# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""All messages of a bag."""

from collections.abc import Iterator
from pathlib import Path

from aqr_perception.bags.reader import BagMessage, BagReader


def read(path: Path) -> Iterator[BagMessage]:
    """Yield the messages of a bag, and close it at the end."""
    with BagReader(path) as reader:
        yield from reader.messages()
