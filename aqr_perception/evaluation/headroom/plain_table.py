# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Tables of cells as text for a terminal and as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from aqr_perception.evaluation.report import markdown_lines, text_lines


@dataclass(frozen=True)
class PlainTable:
    """A title, a header, rows of as many cells, and notes of one sentence each."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def text(self) -> str:
        """Return the table for a terminal, with the notes below it."""
        return "\n".join([self.title, *text_lines(self.header, self.rows), *self.notes])

    def markdown(self) -> str:
        """Return the table as Markdown, with the notes as a list below it."""
        notes = ["", *(f"- {note}" for note in self.notes)] if self.notes else []
        return "\n".join([f"{self.title}.", "", *markdown_lines(self.header, self.rows), *notes]) + "\n"
