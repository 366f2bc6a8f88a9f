# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Profile of Fast DDS for pictures and clouds, handed to processes by their environment."""

import os
from collections.abc import Mapping
from pathlib import Path

from aqr_perception.models.config.presets import preset_directory

_VARIABLE = "FASTDDS_DEFAULT_PROFILES_FILE"
_OLD_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"
_OLD_DISTRIBUTIONS = ("humble", "iron", "jazzy")
"""Their Fast DDS 2 reads the old variable; Fast DDS 3 warns about it."""

_FILES = ("DEFAULT_FASTDDS_PROFILES.xml", "DEFAULT_FASTRTPS_PROFILES.xml")
"""Files that Fast DDS reads from the working directory."""


def fast_dds_profile() -> Path:
    """Return the file of the profile, `config/fastdds.xml`."""
    return preset_directory().parent / "fastdds.xml"


def transport_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variable that makes Fast DDS use the profile; none where the user has an own profile."""
    if environment.get(_VARIABLE) or environment.get(_OLD_VARIABLE) or any(Path(name).exists() for name in _FILES):
        return {}
    is_old = environment.get("ROS_DISTRO") in _OLD_DISTRIBUTIONS
    return {_OLD_VARIABLE if is_old else _VARIABLE: str(fast_dds_profile())}
