"""Biases of the networks that were fitted to the picture, and how a stream tells them.

A row is what serves one rung and level in the networks' tables. Right before a row is used first
(with tiles: before the rung, see `rows`), the stream says whether it is fitted and, if so, by how
much each bias of some layers is shifted, in units of `ExactConv.shift_units`. All is coded at fixed
probabilities.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from diffcodec.entropy import Coder
from diffcodec.exact.layers import ExactConv, Index
from diffcodec.exact.networks import ExactExperts, ExactStepNetwork, expert_of

LIMIT = 16
"""Largest magnitude of a shift."""

SHARES = 16
"""A layer says in multiples of 1 / SHARES how many of its biases are shifted."""

_FITTED, _HALF, _FARTHER = 1 / 16, 1 / 2, 1 / 4

Shifts = Mapping[Index, Mapping[str, NDArray[np.int32]]]
"""Of each fitted row, the shifts of its layers by name, [outputs] within LIMIT."""


def layers(network: ExactExperts, row: Index, phases: Sequence[int]) -> dict[str, ExactConv]:
    """The layers of a row whose biases can be fitted, in the order of the stream.

    Those before the full resolution matter less than they cost. `phases` are the numbers of those
    that the picture has.
    """
    number, _ = expert_of(network.starts, row)
    expert = network.experts[number]
    assert isinstance(expert, ExactStepNetwork)
    names = ["up", "merge"]
    names += [f"fine.{i}.{part}" for i in range(len(expert.fine)) for part in ("first", "second")]
    names += [f"heads.{n}.{part}" for n in phases for part in ("trunk", "phase", "hidden", "out")]
    there = dict(expert.named_modules())
    return {name: there[name] for name in names if there.get(name) is not None}


@dataclass
class Fitted:
    """The network of one picture while its stream is coded.

    Attributes:
        network: with the shifts that have been told.
        shifts: what is to be told, in an encoder.
        told: the rows of which the stream has spoken.
    """

    network: ExactExperts
    shifts: Shifts | None
    told: frozenset[Index] = frozenset()

    def pass_row(self, row: Index, phases: Sequence[int], coder: Coder) -> bool:
        """Code the shifts of a row before its first use; False, and no change, if the data end."""
        if row in self.told:
            return True
        truth = None if self.shifts is None else self.shifts.get(row, {})
        fitted = _bits(coder, _FITTED, 1, None if truth is None else [bool(truth)])
        if fitted is None:
            return False
        network = self.network
        if fitted[0]:
            network = network.forked(row)
            _, own = expert_of(network.starts, row)
            for name, layer in layers(network, row, phases).items():
                size = layer.bias.shape[-1]
                wanted = None if truth is None else truth.get(name, np.zeros(size, np.int32))
                shifts = _pass_layer(coder, size, wanted)
                if shifts is None:
                    return False
                layer.shift(own, torch.from_numpy(shifts).to(layer.bias.device))
        self.network, self.told = network, self.told | {row}
        return True


def _pass_layer(
    coder: Coder, size: int, truth: NDArray[np.int32] | None
) -> NDArray[np.int32] | None:
    """Code the shifts of a layer; None if the data end."""
    share = None
    if truth is not None:
        count = int(np.count_nonzero(truth))
        share = int(np.clip(round(SHARES * count / size), 1, SHARES - 1)) if count else 0
    told = 0
    for place in reversed(range(SHARES.bit_length() - 1)):
        bits = _bits(coder, _HALF, 1, None if share is None else [share >> place & 1])
        if bits is None:
            return None
        told |= int(bits[0]) << place
    shifts = np.zeros(size, np.int32)
    if told == 0:
        return shifts
    moved = _bits(coder, told / SHARES, size, None if truth is None else truth != 0)
    if moved is None:
        return None
    places = moved.nonzero()[0]
    signs = _bits(coder, _HALF, len(places), None if truth is None else truth[places] > 0)
    if signs is None:
        return None
    shifts[places] = 2 * signs - 1
    for reached in range(1, LIMIT):
        known = None if truth is None else abs(truth[places]) > reached
        farther = _bits(coder, _FARTHER, len(places), known)
        if farther is None:
            return None
        places = places[farther != 0]
        shifts[places] += np.sign(shifts[places])
    return shifts


def _bits(
    coder: Coder, probability: float, count: int, truth: Sequence[int] | NDArray | None
) -> NDArray[np.int32] | None:
    """Pass bits of one probability; None if the data end before all of them."""
    if count == 0:
        return np.empty(0, np.int32)
    known = None if truth is None else np.asarray(truth, np.int32)
    bits = coder.code(np.full(count, probability), known)
    return bits if len(bits) == count else None
