"""The forward process: pixels are masked from fine grids to coarse ones.

At level k the pixels of a grid of spacing 2^k are known, exactly, and all others are masked
(absorbing diffusion: Austin et al., 2021, D3PM; any order: Hoogeboom et al., 2022). The chain goes
back in phases: the coarsest grid, then for each half of the spacing the centres of its squares,
and what lies between these.

Within a phase pixels come in waves: those of a row follow the ones of the row above at a distance,
so that a wave knows its neighbours, and all of a wave are coded together.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

BASE, CENTRES, REST = range(3)
"""Kinds of phases."""

KINDS = 3

NEIGHBOURS = 18
"""Known pixels around one that contexts are made of, the nearest first."""

FINISH = 1
"""The rung of the whole picture. Coarser grids count up, as rungs do."""

_COARSEST_POINTS = 1 << 12  # at most so many pixels are in the coarsest grid
_LEAST = 8  # its spacing at least
_LAG = 2  # how many places a row is behind the one above it
_FAR = 6  # spacings away, at most, that a neighbour is


@dataclass(frozen=True)
class Phase:
    """Its kind, and the spacing of the grid that is known with it."""

    kind: int
    spacing: int

    @property
    def rung(self) -> int | None:
        """The rung that it completes, if it does."""
        return None if self.kind == CENTRES else FINISH + self.spacing.bit_length() - 1

    def pixels(self, masked: NDArray[np.bool_]) -> tuple[NDArray, NDArray]:
        """Rows and columns of the phase's pixels among those masked, bool [H, W], row by row."""
        first, step = self._grid
        rows, columns = masked[first::step, first::step].nonzero()
        if self.kind == REST:
            own = (rows + columns) % 2 == 1
            rows, columns = rows[own], columns[own]
        return first + step * rows, first + step * columns

    def waves(self, masked: NDArray[np.bool_]) -> Iterator[tuple[NDArray, NDArray]]:
        """The same pixels, wave by wave."""
        rows, columns = self.pixels(masked)
        first, step = self._grid
        wave = (columns - first) // (step << (self.kind == REST)) + _LAG * ((rows - first) // step)
        order = np.argsort(wave, kind="stable")
        ends = np.flatnonzero(np.diff(wave[order])) + 1
        if len(rows):
            parts = np.split(rows[order], ends), np.split(columns[order], ends)
            yield from zip(*parts, strict=True)

    @property
    def around(self) -> list[tuple[int, int]]:
        """Rows and columns to the nearest pixels of coarser grids."""
        s = self.spacing
        if self.kind == CENTRES:
            return [(-s, -s), (-s, s), (s, -s), (s, s)]
        return [(-s, 0), (0, -s), (0, s), (s, 0)] if self.kind == REST else []

    @property
    def _grid(self) -> tuple[int, int]:
        """First row and column, and distance, of a grid that has its pixels."""
        s = self.spacing
        return (s, 2 * s) if self.kind == CENTRES else (0, s)


def phases(height: int, width: int) -> list[Phase]:
    """The phases of a picture of this size, in the order of the stream."""
    spacing = _LEAST
    while (height // spacing) * (width // spacing) > _COARSEST_POINTS:
        spacing *= 2
    found = [Phase(BASE, spacing)]
    while spacing > 1:
        spacing //= 2
        found += [Phase(CENTRES, spacing), Phase(REST, spacing)]
    return found


def border(height: int, width: int) -> int:
    """How far outside the picture a neighbour can be, in pixels."""
    return _FAR * phases(height, width)[0].spacing


@cache
def neighbours(kind: int) -> NDArray[np.int64]:
    """The nearest pixels that a pixel of a phase knows, [NEIGHBOURS, 2] in spacings."""
    found = []
    for down in range(-_FAR, _FAR + 1):
        for across in range(-_FAR, _FAR + 1):
            if _known(kind, down, across):
                distance = down * down + across * across
                later = down > 0 or (down == 0 and across > 0)
                found.append((distance, later, abs(down) > abs(across), down, across))
    return np.array([place[-2:] for place in sorted(found)[:NEIGHBOURS]], np.int64)


def _known(kind: int, down: int, across: int) -> bool:
    """Whether a pixel so many spacings away is known, wherever a pixel of the phase is."""
    if kind == BASE:
        return across + _LAG * down < 0
    if kind == CENTRES:
        if down % 2 and across % 2:
            return True
        return down % 2 == across % 2 == 0 and across // 2 + _LAG * (down // 2) < 0
    if (down + across) % 2:
        return True
    return max((place + across) // 2 - place // 2 for place in (0, 1)) + _LAG * down < 0
