"""Networks on large planes: a tile with a halo of a network's reach gives the same integers."""

from collections.abc import Callable

from torch import Tensor

TILE = 512
"""Side of a tile in positions; even, as the networks halve once."""

HALO = 64
"""Reach of any of our networks and of its features; even."""


def in_tiles(compute: Callable[[slice, slice], Tensor], height: int, width: int) -> Tensor:
    """Put together what `compute` makes of tiles of a plane, [height, width, C] of its type.

    `compute` gets rows and columns of a tile with its halo and returns [1, C, ...] for them.
    """
    whole = None
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            rows, rows_outside, rows_inside = _extend(top, height)
            columns, columns_outside, columns_inside = _extend(left, width)
            part = compute(rows_outside, columns_outside)[..., rows_inside, columns_inside]
            if whole is None:
                whole = part.new_empty((height, width, part.shape[1]))
            whole[rows, columns] = part[0].movedim(0, -1)
    assert whole is not None
    return whole


def _extend(start: int, size: int) -> tuple[slice, slice, slice]:
    """One side of a tile: the tile, the tile with its halo, and its place inside that."""
    stop = min(start + TILE, size)
    first, last = max(0, start - HALO), min(size, stop + HALO)
    return slice(start, stop), slice(first, last), slice(start - first, stop - first)
