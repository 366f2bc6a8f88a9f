# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Findings of an inspection: what is odd, and what keeps the node from using a sensor or from running."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from aqr_perception.decoding.message_error import MessageError, printable

Severity = Literal["stops", "loses", "odd"]
SEVERITIES: tuple[Severity, ...] = ("stops", "loses", "odd")
"""Worst first: the node makes no frames; it leaves a sensor or data out; it runs, but results may suffer."""


@dataclass(frozen=True)
class Finding:
    """One problem, with what a user needs in order to mend it.

    Attributes:
        subject: topic, frame or file.
    """

    severity: Severity
    subject: str
    problem: str
    found: str
    needed: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.problem}: found {self.found}, needed {self.needed}; {self.remedy}"


def finding(severity: Severity, subject: str, problem: str, found: object, needed: str, remedy: str) -> Finding:
    """Return a finding; strings from messages are made printable and short."""
    return Finding(severity, printable(subject), printable(problem), printable(found), printable(needed), remedy)


def from_error(error: MessageError, severity: Severity) -> Finding:
    """Return the finding of an error or doubt of the node's decoders."""
    return Finding(severity, printable(error.topic), error.problem, error.found, error.needed, error.remedy)


def distinct(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings by severity, each problem of a subject once: repeated ones differ in their numbers only."""
    first = {(one.severity, one.subject, one.problem): one for one in reversed(list(findings))}
    order = list(reversed(first.values()))
    return sorted(order, key=lambda one: SEVERITIES.index(one.severity))
