# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Errors of worker processes, passed to the process that started them."""

from dataclasses import dataclass


class WorkerError(ValueError):
    """A worker process failed; the message is one line that names the cause and the remedy."""


@dataclass(frozen=True)
class WorkerFailure:
    """An error on its way out of a worker process, as text: not every exception can be pickled.

    Attributes:
        message: one line.
    """

    message: str

    @classmethod
    def of(cls, error: Exception) -> "WorkerFailure":
        """Return the failure of an exception; an error without a remedy of its own gets its type and one."""
        text = " ".join(str(error).split())
        if isinstance(error, (ValueError, OSError)):
            return cls(text)
        cause = f"{type(error).__name__}: {text}"
        return cls(f"a worker process failed with {cause}; run without worker processes to see where")

    def error(self) -> WorkerError:
        """Return the exception to raise."""
        return WorkerError(self.message)


def lost_worker(error: Exception) -> WorkerError:
    """Return the error of a worker process that ended without a word."""
    text = " ".join(str(error).split())
    return WorkerError(
        f"a worker process ended unexpectedly ({text}); a process without memory is killed like this: give fewer "
        "--workers or a smaller --batch-size"
    )
