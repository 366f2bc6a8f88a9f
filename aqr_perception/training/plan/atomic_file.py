# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Small files that a kill or a power failure leaves either old or new."""

import os
from pathlib import Path

from aqr_perception.training.training_state import sync_folder


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
    sync_folder(path.parent)
