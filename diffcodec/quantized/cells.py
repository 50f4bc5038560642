"""Cells: what is known of a coefficient, as sign and magnitude with a dead zone (as in EBCOT).

A coefficient known to plane p is held as its *floor*: sign(v) * (|v| >> p << p). A zero floor
stands for the cell (-2^p, 2^p), any other for 2^p integers on its side of zero. Cells nest: the
floor at a lower plane lies in the cell of the floor at a higher one. All tensors are int32.
"""

import torch
from torch import Tensor


def floor(values: Tensor, planes: Tensor) -> Tensor:
    """Floors of exact coefficients at the given planes (broadcast against each other)."""
    return values.sign() * (values.abs() >> planes << planes)


def double_midpoint(floors: Tensor, planes: Tensor) -> Tensor:
    """Twice the midpoints of the cells (doubled, so that they are integers)."""
    return 2 * floors + floors.sign() * ((1 << planes) - 1)


def reconstruct(floors: Tensor, planes: Tensor) -> Tensor:
    """One integer for each cell: 3/8 of the way up, where a peaked density has its mean."""
    return floors + floors.sign() * (3 * ((1 << planes) - 1) >> 3)


def double_edges(floors: Tensor, planes: Tensor) -> tuple[Tensor, Tensor]:
    """Twice the lower and the upper edges; edges lie half-way between two integers."""
    width, magnitude = 1 << planes, floors.abs()
    outer = 2 * (magnitude + width) - 1
    inner = torch.where(floors == 0, -outer, 2 * magnitude - 1)
    negative = floors < 0
    return torch.where(negative, -outer, inner), torch.where(negative, -inner, outer)
