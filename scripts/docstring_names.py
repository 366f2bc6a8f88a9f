# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Extension of griffe, which reads docstrings for the site: an entry with several names becomes one entry for each."""

import re
from typing import Any

from griffe import Extension, Object

_ENTRY = re.compile(r"^(?P<indent> +)(?P<names>\w+(?:, \w+)+): (?P<text>.*)$")


class SeveralNames(Extension):
    """Extension that separates entries such as ``low, high: inclusive range``, which griffe takes for name and type."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring is not None:
            obj.docstring.value = separated(obj.docstring.value)


def separated(docstring: str) -> str:
    """Return a docstring in which each entry has one name; the names of one entry share its text."""
    lines = docstring.splitlines()
    result: list[str] = []
    while lines:
        line = lines.pop(0)
        entry = _ENTRY.match(line)
        if entry is None:
            result.append(line)
            continue
        following = []
        while lines and lines[0].startswith(entry["indent"] + " "):
            following.append(lines.pop(0))
        for name in entry["names"].split(", "):
            result += [f"{entry['indent']}{name}: {entry['text']}", *following]
    return "\n".join(result)
