# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A simulated drive in a bag, and the call that processes it."""

from dataclasses import dataclass
from pathlib import Path

RATE, FRAMES = 5.0, 5


@dataclass(frozen=True)
class Drive:
    """A bag, and how to process it.

    Attributes:
        parameters: the node's parameter file.
    """

    bag: Path
    parameters: Path

    def process(self, output: Path, *arguments: str, bags: tuple[Path, ...] = ()) -> int:
        """Run the command; return its exit status."""
        from aqr_perception.cli import main

        given = [str(bag) for bag in bags or (self.bag,)]
        return main(["process", *given, "--params", str(self.parameters), "--output", str(output), *arguments])
