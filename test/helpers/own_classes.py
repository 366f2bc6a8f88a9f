# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Presets with their own class list."""

from pathlib import Path
from typing import Any

import yaml

from aqr_perception.models.config.presets import preset_directory

OWN = ("car", "truck", "pedestrian", "forklift")


def write_preset(folder: Path, base: str = "aqr_tiny_sparse", classes: tuple[str, ...] = OWN, **changes: Any) -> str:
    """Write a copy of a preset, named after its base and classes; return its path."""
    values = yaml.safe_load((preset_directory() / f"{base}.yaml").read_text())
    path = folder / f"{base}_{'_'.join(classes)}.yaml"
    path.write_text(yaml.safe_dump({**values, "classes": list(classes), **changes}))
    return str(path)
