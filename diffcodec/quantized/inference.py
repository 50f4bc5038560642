"""The integer network on a state: conditionals of a step, in tiles so that memory is bounded."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffcodec.quantized import cells
from diffcodec.quantized.chain import Selection, low_plane_tensor
from diffcodec.quantized.features import step_features
from diffcodec.quantized.model import Model, scale_index
from diffcodec.quantized.refine import Conditional
from diffcodec.quantized.schedule import CHANNELS, LOW, PHASES, Step
from diffcodec.quantized.state import State
from diffcodec.quantized.tiles import in_tiles

ROWS = 1 << 14
"""Positions on which a head works at a time: few enough for the cache."""


class Told:
    """What the phases of a step have told so far, at every position of its level."""

    def __init__(self, height: int, width: int) -> None:
        # A border of zeros stands for what lies outside the picture.
        self.padded = torch.zeros((height + 2, width + 2, CHANNELS), dtype=torch.int16)

    def add(self, channels: slice, features: Tensor) -> None:
        """Add the features of a phase [1, 3, h, w], zero where it has coded nothing."""
        inner = self.padded[1:-1, 1:-1, channels]
        inner += features[0].movedim(0, -1).to(torch.int16)

    def around(self, known: int, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """What gives the first `known` channels at the nine neighbours of places.

        It takes places of the bordered plane and returns [n, 9 * known].
        """
        stride = self.padded.shape[1]
        # Three neighbours in a row lie side by side.
        rows = self.padded[..., :known].to(dtype).flatten().unfold(0, 3 * known, known)
        starts = torch.tensor([-stride, 0, stride]) - 1

        def at(places: Tensor) -> Tensor:
            wanted = (places[:, None] + starts).flatten()
            return rows.index_select(0, wanted).view(len(places), 9 * known)

        return at


class Conditionals:
    """The conditionals of one step of one picture, phase by phase."""

    def __init__(self, model: Model, state: State, step: Step) -> None:
        self.model, level = model, step.level
        self.index = step.index
        self.planes, self.floors = state.planes[level], state.floors[level]
        self.trunk = self._trunk(state, step)

    def of_phase(self, number: int, told: Told, selection: Selection) -> Conditional:
        """Conditionals of the coefficients of a phase, given what earlier phases have told."""
        phase = PHASES[number]
        outputs = self._head(number, told if number else None, selection)
        return self._conditional(outputs, phase.channels, selection)

    def _conditional(self, outputs: Tensor, channels: slice, selection: Selection) -> Conditional:
        """From a head's outputs [n, 6] at the selected positions."""
        planes = selection.of_channels(self.planes[0, channels, 0, 0])
        mean, scale = (selection.of_rows(part.T).int() for part in outputs.chunk(2, 1))
        return Conditional(
            self.model.table,
            cells.double_midpoint(selection.of_planes(self.floors[0, channels]), planes),
            planes,
            mean,
            scale_index(scale),
        )

    def _trunk(self, state: State, step: Step) -> Tensor:
        """Trunk activations, int16 or bfloat16 [h * w, width]."""
        level, geometry = step.level, state.geometry
        finer = geometry.finer(level)
        low_planes = low_plane_tensor(step.rung, geometry.levels if level == LOW else level)

        def tile(rows: slice, columns: slice) -> Tensor:
            children = None
            if finer is not None:
                family = [slice(2 * side.start, 2 * side.stop) for side in (rows, columns)]
                children = state.floors[finer][..., family[0], family[1]], state.planes[finer]
            features = step_features(
                state.low[..., rows, columns],
                low_planes,
                self.floors[..., rows, columns],
                self.planes,
                children,
                step.deeper,
            )
            features = features.contiguous(memory_format=torch.channels_last)
            trunk = self.model.network.trunk(features, self.index)
            # Two bytes each, either way.
            return trunk if trunk.dtype == torch.bfloat16 else trunk.to(torch.int16)

        height, width = geometry.size(level)
        return in_tiles(tile, height, width).flatten(0, 1)

    def _head(self, number: int, told: Told | None, selection: Selection) -> Tensor:
        """Outputs of a head at the selected positions, int16 [n, outputs]."""
        phase, parts = PHASES[number], []
        around = None if told is None else told.around(phase.known, self.trunk.dtype)
        places = zip(selection.places.split(ROWS), selection.bordered.split(ROWS), strict=True)
        for inside, bordered in places:
            trunk = self.trunk.index_select(0, inside)  # faster than indexing on one thread
            known = None if around is None else around(bordered)
            outputs = self.model.network.head(number, trunk, known, self.index)
            parts.append(outputs.to(torch.int16))
        return torch.cat(parts)
