# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Error of checkpoints."""

_LONGEST_LINE = 1000
"""Characters of a line; texts in a damaged file may have millions."""


class CheckpointError(ValueError):
    """Weights cannot be read or do not fit the model. The message names the file, every wrong key and the remedy."""

    def __init__(self, text: str) -> None:
        super().__init__("\n".join(_shortened(line) for line in text.split("\n")))


def _shortened(line: str) -> str:
    if len(line) <= _LONGEST_LINE:
        return line
    return f"{line[: _LONGEST_LINE // 2]} ... ({len(line)} characters) ... {line[-_LONGEST_LINE // 2 :]}"
