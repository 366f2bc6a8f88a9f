# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Comparison of the classes of a data set with those of a model."""

from collections.abc import Collection


def class_problem(classes: Collection[str], found: Collection[str]) -> str | None:
    """Return why no object of a data set is of use to a model; None if one is, or if there are no objects.

    Args:
        classes: the model's.
        found: the data set's.
    """
    if not found or set(classes) & set(found):
        return None
    return (
        f"found objects of {', '.join(sorted(found))}, needed at least one of the preset's classes "
        f"({', '.join(classes)}): change 'classes' in the preset, or the names in the data"
    )
