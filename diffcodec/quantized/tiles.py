"""Networks on large planes: a tile with a halo of a network's reach gives the same integers."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

TILE, SMALLEST = 512, 32
"""Sides of a tile in positions, at most and at least; even, as the networks halve once."""

HALO = 64
"""Reach of any of our networks and of its features, at most; even."""


def in_tiles(compute: Callable[[slice, slice], Tensor], wanted: Tensor, halo: int = HALO) -> Tensor:
    """Put together what `compute` makes of tiles of a plane, [height, width, C] of its type.

    Args:
        compute: gets rows and columns of a tile with its halo and returns [1, C, ...] for them.
        wanted: at which positions something is wanted, bool [height, width], at one at least; what
            stands at others is undefined.
        halo: the network's reach, even.
    """
    whole = None
    for place in _tiles(wanted, halo):
        outside, inside = zip(
            *(_extend(part, side, halo) for part, side in zip(place, wanted.shape, strict=True)),
            strict=True,
        )
        part = compute(*outside)[..., inside[0], inside[1]]
        if whole is None:
            whole = part.new_empty((*wanted.shape, part.shape[1]))
        whole[place] = part[0].movedim(0, -1)
    assert whole is not None
    return whole


def _tiles(wanted: Tensor, halo: int) -> Iterator[tuple[slice, slice]]:
    """Tiles that hold all that is wanted."""
    height, width = wanted.shape
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            yield from _split(wanted, (top, left), TILE, halo)[1]


def _split(
    wanted: Tensor, corner: tuple[int, int], side: int, halo: int
) -> tuple[int, list[tuple[slice, slice]]]:
    """The cheapest tiles within a square, and how many positions they compute."""
    first, last = ((slice(c, min(c + side, n))) for c, n in zip(corner, wanted.shape, strict=True))
    if not bool(wanted[first, last].any()):
        return 0, []
    cost, whole = 1, (first, last)
    for part, n in zip(whole, wanted.shape, strict=True):
        outside, _ = _extend(part, n, halo)
        cost *= outside.stop - outside.start
    half = side // 2
    if half < SMALLEST or bool(wanted[first, last].all()):
        return cost, [whole]
    parts = [
        _split(wanted, (corner[0] + down, corner[1] + right), half, halo)
        for down in (0, half)
        for right in (0, half)
    ]
    split = sum(own for own, _ in parts)
    return (
        (split, [tile for _, tiles in parts for tile in tiles]) if split < cost else (cost, [whole])
    )


def _extend(part: slice, size: int, halo: int) -> tuple[slice, slice]:
    """One side of a tile: the tile with its halo, and the tile's place inside that."""
    first, last = max(0, part.start - halo), min(size, part.stop + halo)
    return slice(first, last), slice(part.start - first, part.stop - first)


def everywhere(height: int, width: int) -> Tensor:
    """All positions of a plane, for `in_tiles`."""
    return torch.ones((height, width), dtype=torch.bool, device="cpu")
