# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""JSON output of commands, for other programs."""

import json
from pathlib import Path


def write_json(path: Path | None, figures: object) -> None:
    """Write figures to a file; without a path, do nothing."""
    if path is not None:
        path.write_text(json.dumps(figures, indent=2) + "\n")
