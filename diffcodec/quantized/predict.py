"""The device's side of a step: the integer network on a state gives conditionals as integers.

Trunks are computed in tiles so that memory is bounded.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffcodec.exact import backends
from diffcodec.exact.networks import ExactExperts
from diffcodec.quantized.features import step_features
from diffcodec.quantized.model import Model, scale_index
from diffcodec.quantized.schedule import CHANNELS, PHASES, Step
from diffcodec.quantized.state import State
from diffcodec.quantized.tiles import in_tiles

ROWS = 1 << 14
"""Positions on which a head works at a time on the CPU: few enough for the cache. Another device
takes all of a phase at once."""

_ALL = slice(None)


class Context:
    """How far the phases of a step have moved midpoints so far, at every position of its level.

    It is on the device of the call.
    """

    def __init__(self, height: int, width: int) -> None:
        self._device = backends.device()
        # A border of zeros stands for what lies outside the picture.
        self._padded = torch.zeros(
            (height + 2, width + 2, CHANNELS), dtype=torch.int16, device=self._device
        )

    def add(self, colour: int, bordered: Tensor, moves: NDArray[np.int16]) -> None:
        """Add what a phase has moved, int16 [n, 3], at positions of the bordered plane."""
        flat = self._padded.view(-1, CHANNELS)
        own = torch.from_numpy(moves).to(self._device)
        flat[bordered.to(self._device), 3 * colour : 3 * colour + 3] = own

    def around(self, known: int, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """What gives the first `known` channels at the nine neighbours of places.

        It takes places of the bordered plane, on the device, and returns [n, 9 * known].
        """
        stride = self._padded.shape[1]
        # Three neighbours in a row lie side by side.
        rows = self._padded[..., :known].to(dtype).flatten().unfold(0, 3 * known, known)
        starts = torch.tensor([-stride, 0, stride], device=self._device) - 1

        def at(places: Tensor) -> Tensor:
            wanted = (places[:, None] + starts).flatten()
            return rows.index_select(0, wanted).view(len(places), 9 * known)

        return at


class Conditionals:
    """The conditionals of one step of one picture, phase by phase.

    Args: the model; its network, or one that was fitted to the picture; the state before the step;
    the step; at which positions there are conditionals, bool [h, w].
    """

    def __init__(
        self, model: Model, network: ExactExperts, state: State, step: Step, wanted: Tensor
    ) -> None:
        self._network, self._device = network, backends.device()
        self._index = model.process.ladder.index(step)
        self._trunk = self._trunk_of(state, step, wanted)

    def of_phase(
        self, number: int, context: Context, places: Tensor, bordered: Tensor
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Means and indices of scales, int32 [n, 3] each, for the host.

        Args: the number of the phase; what earlier ones have moved; positions in the flattened
        plane and in the bordered one, int64 [n].
        """
        phase, parts = PHASES[number], []
        around = context.around(phase.known, self._trunk.dtype) if phase.known else None
        most = ROWS if self._device.type == "cpu" else len(places)
        split = (where.to(self._device).split(most) for where in (places, bordered))
        for inside, beside in zip(*split, strict=True):
            # Faster than indexing on one thread.
            trunk = self._trunk.index_select(0, inside)
            known = None if around is None else around(beside)
            parts.append(self._network.head(number, trunk, known, self._index).to(torch.int32))
        mean, scale = torch.cat(parts).cpu().chunk(2, 1)
        return mean.contiguous().numpy(), scale_index(scale).contiguous().numpy()

    def _trunk_of(self, state: State, step: Step, wanted: Tensor) -> Tensor:
        """Trunk activations, int16 or bfloat16 [h * w, width]."""
        level, pyramid = step.level, state.pyramid
        finer = pyramid.finer(level)
        floors, planes = state.floors[level], state.planes[level]
        low_planes = pyramid.low_planes(step.rung, level, self._device)

        def there(tensor: Tensor, rows: slice = _ALL, columns: slice = _ALL) -> Tensor:
            return tensor[..., rows, columns].to(self._device)

        def tile(rows: slice, columns: slice) -> Tensor:
            children = None
            if finer is not None:
                family = [slice(2 * side.start, 2 * side.stop) for side in (rows, columns)]
                children = there(state.floors[finer], *family), there(state.planes[finer])
            features = step_features(
                there(state.low, rows, columns),
                low_planes,
                there(floors, rows, columns),
                there(planes),
                children,
                step.extra_bits,
            )
            features = features.contiguous(memory_format=torch.channels_last)
            trunk = self._network.trunk(features, self._index)
            # Two bytes each, either way.
            return trunk if trunk.dtype == torch.bfloat16 else trunk.to(torch.int16)

        halo = self._network.reach(self._index) + 1  # one more for differences from neighbours
        return in_tiles(tile, wanted, halo + halo % 2).flatten(0, 1)
