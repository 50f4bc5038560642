"""How long a run lasts, and what that makes of its learning rate."""

import math
from dataclasses import dataclass

WARM_UP = 200
"""Steps in which the learning rate rises; no share of the time, as a GPU's first steps are slow."""


@dataclass(frozen=True)
class Budget:
    """Minutes of wall-clock time, or optimiser steps: one of them is None."""

    minutes: float | None
    steps: int | None

    def done(self, steps: int, seconds: float) -> float:
        """The share that is spent, or more than 1."""
        if self.steps is not None:
            return steps / self.steps
        assert self.minutes is not None
        return seconds / (60 * self.minutes)

    def upcoming(self, steps: int, most: int) -> range:
        """The numbers of the steps that follow, at most so many."""
        end = steps + most
        return range(steps, end if self.steps is None else min(end, self.steps))

    def factor(self, steps: int, seconds: float) -> float:
        """What to multiply the highest learning rate by: a warm-up, and a cosine down to zero."""
        done = min(1.0, self.done(steps, seconds))
        return min(1.0, (steps + 1) / WARM_UP) * (1 + math.cos(math.pi * done)) / 2
