"""The integer network on a state: conditionals of a step, in tiles so that memory is bounded.

A tile with a halo of the network's reach gives the same integers as the whole picture.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffcodec.quantized import cells
from diffcodec.quantized.chain import low_plane_tensor, plane_tensor
from diffcodec.quantized.features import step_features
from diffcodec.quantized.model import Model, scale_index
from diffcodec.quantized.refine import Conditional
from diffcodec.quantized.schedule import LOW, PHASES, Step, rung_index

if TYPE_CHECKING:
    from diffcodec.quantized.codec import State

TILE = 512
"""Side of a tile in positions of the level; even, as the network halves once."""

TRUNK_HALO = 18
"""Reach of the trunk and of its features; even."""

HEAD_HALO = 1
"""Reach of a head."""


class Conditionals:
    """The conditionals of one step of one picture, phase by phase.

    The state may already have been cut inside this very step.
    """

    def __init__(self, model: Model, state: "State", step: Step) -> None:
        self.model, level = model, step.level
        self.index = torch.tensor(rung_index(step.rung)), torch.tensor(level - 1)
        # The cells before the step; those of a cut state lie inside them.
        self.planes = plane_tensor(state.rungs[level], level, state.geometry.levels)
        self.floors = cells.floor(state.floors[level], self.planes)
        self.trunk = self._trunk(state, step)

    def of_phase(self, number: int, told: Tensor, where: Tensor) -> Conditional:
        """Conditionals of a phase at positions `where` of its three flattened channels.

        `told` is what earlier phases have told, int16 [1, 9, h, w].
        """
        phase = PHASES[number]
        known = told[:, : phase.known] if number else None
        mean, scale = self._head(number, known)
        if number == 0:
            mean, scale = mean[:, phase.channels], scale[:, phase.channels]
        return self._conditional(mean, scale, phase.channels, where)

    def marginals(self) -> Iterator[tuple[slice, Conditional]]:
        """Conditionals of all positions, three channels at a time, as the first head has them."""
        mean, scale = self._head(0, None)
        for channels in {phase.colour: phase.channels for phase in PHASES}.values():
            everywhere = torch.arange(mean[0, channels].numel())
            yield (
                channels,
                self._conditional(mean[:, channels], scale[:, channels], channels, everywhere),
            )

    def _conditional(
        self, mean: Tensor, scale: Tensor, channels: slice, where: Tensor
    ) -> Conditional:
        planes = self.planes[:, channels]
        middle = cells.double_midpoint(self.floors[:, channels], planes)
        table = self.model.table
        return Conditional(
            table,
            middle.flatten()[where],
            planes.flatten()[where // self.floors[0, 0].numel()],
            mean.flatten()[where].int(),
            table.inverse_scales[scale_index(scale.flatten()[where].int())],
        )

    def _trunk(self, state: "State", step: Step) -> Tensor:
        """Trunk activations, int16 [1, width, h, w]."""
        level, geometry = step.level, state.geometry
        finer = geometry.finer(level)
        if finer is not None:
            finer_planes = plane_tensor(state.rungs[finer], finer, geometry.levels)
            finer_floors = cells.floor(state.floors[finer], finer_planes)
        low_planes = low_plane_tensor(step.rung, geometry.levels if level == LOW else level)

        def tile(rows: slice, columns: slice) -> Tensor:
            children = None
            if finer is not None:
                family = [slice(2 * side.start, 2 * side.stop) for side in (rows, columns)]
                children = finer_floors[..., family[0], family[1]], finer_planes
            features = step_features(
                state.low[..., rows, columns],
                low_planes,
                self.floors[..., rows, columns],
                self.planes,
                children,
            )
            return self.model.network.trunk(features, self.index)

        height, width = geometry.size(level)
        return in_tiles(tile, height, width, TRUNK_HALO)

    def _head(self, number: int, known: Tensor | None) -> tuple[Tensor, Tensor]:
        """Means and log2 scales of a head's channels, int16 [1, 9 or 3, h, w] each."""

        def tile(rows: slice, columns: slice) -> Tensor:
            return self.model.network.head(
                number,
                self.trunk[..., rows, columns].float(),
                None if known is None else known[..., rows, columns].float(),
                self.index,
            )

        height, width = self.floors.shape[-2:]
        mean, scale = in_tiles(tile, height, width, HEAD_HALO).chunk(2, 1)
        return mean, scale


def in_tiles(
    compute: Callable[[slice, slice], Tensor], height: int, width: int, halo: int
) -> Tensor:
    """Put together what `compute` makes of tiles of a plane, int16 [1, C, height, width].

    `compute` gets rows and columns of a tile with its halo and returns [1, C, ...] for them.
    """
    whole = None
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            rows, rows_outside, rows_inside = _extend(top, height, halo)
            columns, columns_outside, columns_inside = _extend(left, width, halo)
            part = compute(rows_outside, columns_outside)[..., rows_inside, columns_inside]
            if whole is None:
                whole = part.new_empty((1, part.shape[1], height, width), dtype=torch.int16)
            whole[..., rows, columns] = part.to(torch.int16)
    assert whole is not None
    return whole


def _extend(start: int, size: int, halo: int) -> tuple[slice, slice, slice]:
    """One side of a tile: the tile, the tile with its halo, and its place inside that."""
    stop = min(start + TILE, size)
    first, last = max(0, start - halo), min(size, stop + halo)
    return slice(start, stop), slice(first, last), slice(start - first, stop - first)
