# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Small files that a kill or a power failure leaves either old or new."""

import os
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file; another process, or one after a power failure, finds the old file or the whole new one.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full.
    """
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # makes the rename durable
    finally:
        os.close(folder)
