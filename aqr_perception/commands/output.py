# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Output of commands for other programs: JSON, and the name of a result file."""

import json
from pathlib import Path


def write_json(path: Path | None, figures: object) -> None:
    """Write figures to a file; without a path, do nothing."""
    if path is not None:
        path.write_text(json.dumps(figures, indent=2) + "\n")


def result_line(results: Path, frames: int | None) -> str:
    """Return the line that names a result file."""
    part = "" if frames is None else f" (at most {frames} samples; nuscenes-devkit needs all samples of a split)"
    return f"{results}{part}"
