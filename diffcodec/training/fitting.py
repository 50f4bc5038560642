"""Biases fitted to one picture, before it is encoded: what `encode(fit=...)` does.

The biases of a row are moved by Adam (Kingma and Ba, 2015) on crops of the picture, in the whole
units in which a stream tells them, with gradients as if they were not rounded (straight-through:
Bengio et al., 2013). What telling them costs counts too, so that most stay as they are.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from diffcodec.entropy import RangeEncoder
from diffcodec.exact import backends
from diffcodec.exact.cdf import MEAN_UNITS, SCALE_UNITS
from diffcodec.exact.layers import ACTIVATION_LIMIT, ExactConv, Index
from diffcodec.exact.networks import ExactExperts, expert_of
from diffcodec.limits import Progress
from diffcodec.quantized.fitted import LIMIT, Fitted, Shifts, layers
from diffcodec.quantized.model import Model
from diffcodec.quantized.schedule import DEPTH, FINISH, Step
from diffcodec.quantized.state import State
from diffcodec.quantized.step import walk
from diffcodec.training.objective import Cells, level_bits, step_inputs

RUNGS, LEVELS = (FINISH, FINISH + 1, FINISH + 2), (1, 2)
"""What is fitted, of pictures of 8 bits: most of a lossless file."""

STEPS = 800
"""Steps of all rows if no seconds are given."""

SMALLEST = 1 << 12
"""Positions of a level with fewer of which no fit pays."""

CROP, RATE, WARM_UP, BETAS = 64, 0.05, 10, (0.9, 0.98)
"""Side of a crop in positions; highest learning rate, in units of a shift; steps up to there."""

FEW = 0.3
"""Added to the mean magnitude of shifts where their cost is estimated: nothing is impossible."""

Saved = Callable[[int], None]
"""Is called with the bytes that have been saved so far, about."""


@dataclass(frozen=True)
class Sample:
    """A level at a rung: features [1, C, h, w], and the cells before and after."""

    features: Tensor
    before: Cells
    after: Cells

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in positions."""
        h, w = self.features.shape[-2:]
        return h, w

    def crop(self, top: int, left: int) -> "Sample":
        """A part of it."""
        place = ..., slice(top, top + CROP), slice(left, left + CROP)
        return Sample(
            self.features[place],
            (self.before[0][place], self.before[1]),
            (self.after[0][place], self.after[1]),
        )


def fit(
    model: Model, state: State, progress: Progress, *, seconds: float | None, saved: Saved
) -> Shifts:
    """The shifts of biases that make a picture's stream shorter.

    Args:
        model: the model.
        state: of an encoder of the picture, at its start.
        progress: is called with the fraction of the work that is done.
        seconds: how long it may take, about; None for as long as usually pays.
        saved: as `Saved`.
    """
    rows = _rows(model, state)
    # A fine level teaches more, and takes more steps.
    weights = [sum(height * width for height, width in sizes) ** 0.5 for sizes in rows.values()]
    done, total = 0.0, 0
    shifts: dict[Index, Mapping[str, NDArray[np.int32]]] = {}
    generator = torch.Generator().manual_seed(0)
    for row, weight in zip(rows, weights, strict=True):
        share = weight / sum(weights)

        def partly(fraction: float, done: float = done, share: float = share) -> None:
            progress(done + share * fraction)

        budget = _Budget(share, seconds, partly)
        more = {**shifts, row: _fit_row(model, state, row, budget, generator)}
        done += share
        rungs = [rung for rung, level in _steps(state) if _row(model, state, rung, level) == row]
        bits = _length(model, state, rungs, shifts) - _length(model, state, rungs, more)
        if bits > 0:
            shifts, total = more, total + bits
            saved(total // 8)
    return shifts


def _steps(state: State) -> Iterator[tuple[int, int]]:
    """Rungs and levels of what is fitted."""
    extra = state.pyramid.depth - DEPTH
    for rung in RUNGS:
        for level in LEVELS:
            h, w = state.pyramid.size(level) if level <= state.pyramid.levels else (0, 0)
            if h * w >= SMALLEST:
                yield rung + (extra if rung > FINISH else 0), level


def _rows(model: Model, state: State) -> dict[Index, list[tuple[int, int]]]:
    """Rows that are fitted, with the sizes of the levels that they serve."""
    rows: dict[Index, list[tuple[int, int]]] = {}
    for rung, level in _steps(state):
        row = _row(model, state, rung, level)
        rows.setdefault(row, []).append(state.pyramid.size(level))
    return rows


def _row(model: Model, state: State, rung: int, level: int) -> Index:
    """The row that serves a rung and level."""
    return model.process.ladder.index(Step(rung, level, state.pyramid.depth - DEPTH))


def _samples(model: Model, state: State, row: Index) -> list[Sample]:
    """All that a row serves of what is fitted, on the device of the call."""
    device, found = backends.device(), []
    assert state.values is not None
    values = {level: tensor.to(device) for level, tensor in state.values.items()}
    for rung, level in _steps(state):
        inputs = step_inputs(state.pyramid, values, rung, [level])
        found += [
            Sample(features, before, after)
            for _, index, features, before, after in inputs
            if index == row
        ]
    return found


class _Budget:
    """Steps or seconds of a row: `next` is the fraction that is used, until there is nothing left.

    Args: the row's share of all; seconds of all, None for STEPS; the row's progress.
    """

    def __init__(self, share: float, seconds: float | None, progress: Progress) -> None:
        self._share, self._seconds, self._progress = share, seconds, progress

    def __iter__(self) -> Iterator[float]:
        start, step, used = time.monotonic(), 0, 0.0
        while used < 1:
            yield used
            step += 1
            if self._seconds is None:
                used = step / (STEPS * self._share)
            else:
                used = (time.monotonic() - start) / (self._seconds * self._share)
            self._progress(min(used, 1.0))


def _fit_row(
    model: Model, state: State, row: Index, budget: _Budget, generator: torch.Generator
) -> Mapping[str, NDArray[np.int32]]:
    """The shifts of a row."""
    samples = _samples(model, state, row)
    phases = [number for number, _ in state.phases()]
    net = _Network(model.network, row, phases)
    channels = slice(3 * state.colours)
    areas = torch.tensor([float(h * w) for h, w in (sample.size for sample in samples)])

    with torch.enable_grad():
        optimiser = torch.optim.Adam(net.parameters(), lr=RATE, betas=BETAS)
        for step, used in enumerate(budget):
            for group in optimiser.param_groups:
                group["lr"] = RATE * min(1.0, (step + 1) / WARM_UP) * (1 - used)
            sample = samples[int(torch.multinomial(areas, 1, generator=generator))]
            crop = sample.crop(*(_start(side, generator) for side in sample.size))
            h, w = crop.size
            coded = level_bits(net, row, crop.features, crop.before, crop.after)[:, channels].sum()
            loss = coded * (float(areas.sum()) / (h * w)) + net.rate()
            optimiser.zero_grad()
            (loss / float(areas.sum())).backward()
            optimiser.step()
    return net.shifts()


def _start(side: int, generator: torch.Generator) -> int:
    """Where a crop begins along a side: an even place, as the network halves."""
    return 2 * int(torch.randint(max(side - CROP, 0) // 2 + 1, (1,), generator=generator))


def _length(model: Model, state: State, rungs: list[int], shifts: Shifts) -> int:
    """The bits of some rungs that follow each other, in a stream with these shifts."""
    encoder, coded = RangeEncoder(), state.clone()
    coded.advance(max(rungs) + 1)
    coded.fitted = Fitted(model.network, shifts)
    for rung in walk(model, [coded], encoder):
        if rung == min(rungs):
            break
    return encoder.bits_used


class _Round(torch.autograd.Function):
    """Rounds; the gradient passes as it is."""

    @staticmethod
    def forward(_: object, x: Tensor) -> Tensor:
        return x.round().clamp(-LIMIT, LIMIT)

    @staticmethod
    def backward(_: object, gradient: Tensor) -> Tensor:
        return gradient


class _Network(nn.Module):
    """One row of the exact network, with gradients: its activations are not rounded.

    Heads work on maps, as those of `networks.Experts`.
    """

    def __init__(self, network: ExactExperts, row: Index, phases: list[int]) -> None:
        super().__init__()
        number, self._own = expert_of(network.starts, row)
        self._layers = {
            name: part
            for name, part in network.experts[number].named_modules()
            if isinstance(part, ExactConv)
        }
        self._names = list(layers(network, row, phases))
        self._shifts = nn.ParameterList(
            torch.zeros(self._layers[name].bias.shape[-1], device=backends.device())
            for name in self._names
        )
        self._place = {name: place for place, name in enumerate(self._names)}
        self._operands = backends.operands(backends.device(), torch.bfloat16)

    def trunk(self, features: Tensor, _: Index) -> Tensor:
        """As `Experts.trunk`."""
        h, w = features.shape[-2:]
        full = self._conv("stem", F.pad(features, (0, w % 2, 0, h % 2)))
        half = self._blocks("blocks", self._conv("down", full))
        full = self._sum(full, F.pixel_shuffle(self._conv("up", half), 2))
        return self._blocks("fine", self._conv("merge", full))[..., :h, :w]

    def head(self, phase: int, trunk: Tensor, known: Tensor | None, _: Index) -> Tensor:
        """As `Experts.head`."""
        name = f"heads.{phase}"
        x = self._conv(f"{name}.trunk", trunk)
        if known is not None:
            x = self._sum(x, self._conv(f"{name}.phase", known))
        y = self._conv(f"{name}.out", self._conv(f"{name}.hidden", F.relu(x)))
        mean, log_scale = y.chunk(2, 1)
        return torch.cat((mean / MEAN_UNITS, log_scale / SCALE_UNITS), 1)

    def rate(self) -> Tensor:
        """About the bits that tell the shifts: those of a Laplace distribution of their size."""
        told = torch.cat([shift.detach().round().abs() for shift in self._shifts])
        scale = (float(told.mean()) + FEW) * float(np.log(2))
        return sum(shift.abs().sum() for shift in self._shifts) / scale

    def shifts(self) -> dict[str, NDArray[np.int32]]:
        """The shifts of each layer."""
        whole = [_Round.apply(own).detach().cpu().numpy().astype(np.int32) for own in self._shifts]
        return dict(zip(self._names, whole, strict=True))

    def _blocks(self, name: str, x: Tensor) -> Tensor:
        number = 0
        while f"{name}.{number}.first" in self._layers:
            first = self._conv(f"{name}.{number}.first", x)
            x = self._sum(x, self._conv(f"{name}.{number}.second", first))
            number += 1
        return x

    def _sum(self, a: Tensor, b: Tensor) -> Tensor:
        return (a + b).clamp(-ACTIVATION_LIMIT, ACTIVATION_LIMIT)

    def _conv(self, name: str, x: Tensor) -> Tensor:
        layer, own = self._layers[name], self._own
        gain = layer.multiplier[own].flatten().float()
        bias = layer.bias[own].float()
        if name in self._place:
            units = layer.shift_units(own).float()
            bias = bias + _Round.apply(self._shifts[self._place[name]]) * units
        weight = layer.kernels * gain[:, None, None, None]
        kind = torch.float32 if layer.rows else self._operands
        y = F.conv2d(x.to(kind), weight.to(kind), None, layer.stride, layer.padding)
        return (y.float() + (bias * gain)[:, None, None]).clamp(layer.low, layer.high)
