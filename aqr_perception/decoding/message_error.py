# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Errors in messages, with the remedy."""

_LONGEST_PART = 300
"""Characters of a value in an error; a message's strings may have millions."""


class MessageError(ValueError):
    """A message cannot be used. The text names the topic, the value found, the value needed and the remedy.

    An error that is not raised is a *doubt*: the message is used, but the user should know.

    Attributes:
        topic: where the message came from.
        problem: a few words, e.g. ``truncated JPEG``; also the `reason` in SensorState.
        found, needed, remedy: the value found, the value needed, and what to do.
        summary: the problem with the value found and the value needed, without topic and remedy.
    """

    def __init__(self, topic: str, problem: str, found: object, needed: str, remedy: str) -> None:
        problem = printable(problem)
        self.summary = f"{problem}: found {printable(found)}, needed {printable(needed)}"
        super().__init__(f"{topic}: {self.summary}; {remedy}")
        self.topic, self.problem = topic, problem
        self.found, self.needed, self.remedy = printable(found), printable(needed), remedy


class TransformError(MessageError):
    """TF does not connect two frames at the requested times."""


def printable(value: object) -> str:
    """Return a value as one short line: a message's strings may hold line breaks or control characters."""
    text = str(value)
    if len(text) > _LONGEST_PART:
        text = f"{text[:_LONGEST_PART]}... ({len(text)} characters)"
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)
