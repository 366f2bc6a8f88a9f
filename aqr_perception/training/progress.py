# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Position of a training in steps, samples and time."""

from dataclasses import dataclass


@dataclass
class Progress:
    """Progress and length of a training; exactly one of `steps` and `seconds` gives the length.

    Attributes:
        steps: optimiser steps of the whole training.
        seconds: wall-clock time of the whole training, including the time before a resume.
        samples_per_step: samples of one optimiser step, over all processes.
        step: number of finished steps.
        samples: number of used samples.
        elapsed: training time in seconds.
    """

    steps: int | None
    seconds: float | None
    samples_per_step: int
    step: int = 0
    samples: int = 0
    elapsed: float = 0.0

    @property
    def fraction(self) -> float:
        """Share of the training that is done, in 0..1."""
        return self.fraction_at(self.samples)

    @property
    def finished(self) -> bool:
        return self.fraction >= 1.0

    def fraction_at(self, sample: int) -> float:
        """Return the share, in 0..1, of the training that is done before sample number `sample`.

        Samples are prepared ahead of their step. With a length in seconds, the time of that step is unknown, and the
        result is the current share.
        """
        if self.steps is None:
            assert self.seconds is not None
            return min(1.0, self.elapsed / self.seconds)
        done = self.step * self.samples_per_step + sample - self.samples
        return min(1.0, done / (self.steps * self.samples_per_step))

    def advance(self) -> None:
        """Count one optimiser step; the clock is set separately."""
        self.step += 1
        self.samples += self.samples_per_step
