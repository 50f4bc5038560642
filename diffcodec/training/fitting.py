"""Biases fitted to one picture, before it is encoded: what `encode(fit=...)` does.

The biases of a row are moved by Adam (Kingma and Ba, 2015) on crops of the picture, in the whole
units in which a stream tells them, with gradients as if they were not rounded (straight-through:
Bengio et al., 2013). What telling them costs counts too, so that most stay as they are. Of a large
picture some tiles stand for all: their bits count as often as all have their pixels.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffcodec.entropy import RangeEncoder
from diffcodec.exact import backends
from diffcodec.exact.layers import Index
from diffcodec.limits import Progress
from diffcodec.quantized.fitted import Fitted, Shifts
from diffcodec.quantized.model import Model
from diffcodec.quantized.schedule import DEPTH, FINISH, Step
from diffcodec.quantized.state import State
from diffcodec.quantized.step import walk
from diffcodec.training.objective import Cells, level_bits, step_inputs
from diffcodec.training.rows import RowNetwork

RUNGS, LEVELS = (FINISH, FINISH + 1, FINISH + 2), (1, 2)
"""What is fitted, of pictures of 8 bits: most of a lossless file."""

STEPS, TYPICAL, MOST = 800, 1 << 19, 3
"""Steps of all rows if no seconds are given; pixels of a picture up to which there are so many, of
larger ones more, as the root of their pixels; how many times as many at most."""

SMALLEST = 1 << 12
"""Positions of a level with fewer of which no fit pays."""

CROP, RATE, WARM_UP, BETAS = 64, 0.05, 10, (0.9, 0.98)
"""Side of a crop in positions; highest learning rate, in units of a shift; steps up to there."""

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
    model: Model,
    states: Sequence[State],
    pixels: int,
    progress: Progress,
    *,
    seconds: float | None,
    saved: Saved,
) -> Shifts:
    """The shifts of biases that make a picture's stream shorter.

    Args:
        model: the model.
        states: of encoders at their start, of the picture or of some of its tiles.
        pixels: how many the picture has.
        progress: is called with the fraction of the work that is done.
        seconds: how long it may take, about; None for as long as usually pays.
        saved: as `Saved`.
    """
    picture = _Picture(model, states, pixels)
    # A fine level teaches more, and takes more steps.
    weights = {
        row: sum(picture.positions(step.level) for step in steps) ** 0.5
        for row, steps in picture.rows.items()
    }
    done, total = 0.0, 0
    shifts: dict[Index, Mapping[str, NDArray[np.int32]]] = {}
    lengths = picture.lengths({step.rung for step in picture.steps()}, shifts)
    generator = torch.Generator().manual_seed(0)
    for row, weight in weights.items():
        share = weight / sum(weights.values())

        def partly(fraction: float, done: float = done, share: float = share) -> None:
            progress(done + share * fraction)

        budget = _Budget(share, _steps(pixels), seconds, partly)
        more = {**shifts, row: _fit_row(picture, row, budget, generator)}
        done += share
        after = picture.lengths({step.rung for step in picture.rows[row]}, more)
        bits = sum(lengths[rung] - after[rung] for rung in after)
        bits -= picture.told(more)[1] - picture.told(shifts)[1]
        if bits > 0:
            shifts, total = more, total + bits
            lengths |= after
            saved(total // 8)
    return shifts


def _steps(pixels: int) -> int:
    """How many steps a picture is worth."""
    return round(STEPS * min(max(1.0, math.sqrt(pixels / TYPICAL)), MOST))


class _Picture:
    """What is looked at of a picture. Arguments as of `fit`.

    Attributes: `scale` is how often all that is looked at counts; `rows` are those that are fitted,
    with the steps that they serve.
    """

    def __init__(self, model: Model, states: Sequence[State], pixels: int) -> None:
        self.model, self.states = model, states
        self.scale = pixels / sum(math.prod(state.pyramid.low_size(0)) for state in states)
        self.phases = [number for number, _ in states[0].phases()]
        self.rows: dict[Index, list[Step]] = {}
        for step in self.steps():
            self.rows.setdefault(model.process.ladder.index(step), []).append(step)

    def positions(self, level: int) -> float:
        """About how many positions of a level the picture has."""
        pyramids = [state.pyramid for state in self.states if level <= state.pyramid.levels]
        return self.scale * sum(math.prod(pyramid.size(level)) for pyramid in pyramids)

    def steps(self) -> Iterator[Step]:
        """What is fitted."""
        extra = self.states[0].pyramid.depth - DEPTH
        for rung in RUNGS:
            for level in LEVELS:
                if self.positions(level) >= SMALLEST:
                    yield Step(rung + (extra if rung > FINISH else 0), level, extra)

    def samples(self, row: Index) -> list[Sample]:
        """All that a row serves of what is fitted, on the device of the call."""
        device, found = backends.device(), []
        for state in self.states:
            assert state.values is not None
            values = {level: tensor.to(device) for level, tensor in state.values.items()}
            for step in self.rows[row]:
                inputs = step_inputs(state.pyramid, values, step.rung, [step.level])
                found += [Sample(features, old, new) for _, _, features, old, new in inputs]
        return found

    def told(self, shifts: Shifts) -> tuple[Fitted, int]:
        """The networks with these shifts, and the bits that tell them."""
        fitted, encoder = Fitted(self.model.network, shifts), RangeEncoder()
        for row in shifts:
            fitted.pass_row(row, self.phases, encoder)
        return fitted, encoder.bits_used

    def lengths(self, rungs: Iterable[int], shifts: Shifts) -> dict[int, int]:
        """The bits of some rungs of the picture, about, with these shifts, which are not told."""
        fitted, _ = self.told(shifts)
        return {
            rung: round(self.scale * sum(self._length(own, rung, fitted) for own in self.states))
            for rung in rungs
        }

    def _length(self, state: State, rung: int, fitted: Fitted) -> int:
        encoder, coded = RangeEncoder(), state.clone()
        coded.advance(rung + 1)
        coded.fitted = copy(fitted)
        next(walk(self.model, [coded], encoder))
        return encoder.bits_used


class _Budget:
    """Steps or seconds of a row: `next` is the fraction that is used, until there is nothing left.

    Args: the row's share of all; steps of all, which count if there are no seconds of all; the
    row's progress.
    """

    def __init__(self, share: float, steps: int, seconds: float | None, progress: Progress) -> None:
        self._share, self._steps = share, steps
        self._seconds, self._progress = seconds, progress

    def __iter__(self) -> Iterator[float]:
        start, step, used = time.monotonic(), 0, 0.0
        while used < 1:
            yield used
            step += 1
            if self._seconds is None:
                used = step / (self._steps * self._share)
            else:
                used = (time.monotonic() - start) / (self._seconds * self._share)
            self._progress(min(used, 1.0))


def _fit_row(
    picture: _Picture, row: Index, budget: _Budget, generator: torch.Generator
) -> Mapping[str, NDArray[np.int32]]:
    """The shifts of a row."""
    samples = picture.samples(row)
    net = RowNetwork(picture.model.network, row, picture.phases)
    channels = slice(3 * picture.states[0].colours)
    areas = torch.tensor([float(h * w) for h, w in (sample.size for sample in samples)])
    whole = picture.scale * float(areas.sum())

    with torch.enable_grad():
        optimiser = torch.optim.Adam(net.parameters(), lr=RATE, betas=BETAS)
        for step, used in enumerate(budget):
            for group in optimiser.param_groups:
                group["lr"] = RATE * min(1.0, (step + 1) / WARM_UP) * (1 - used)
            sample = samples[int(torch.multinomial(areas, 1, generator=generator))]
            crop = sample.crop(*(_start(side, generator) for side in sample.size))
            h, w = crop.size
            coded = level_bits(net, row, crop.features, crop.before, crop.after)[:, channels].sum()
            loss = coded * (whole / (h * w)) + net.rate()
            optimiser.zero_grad()
            (loss / whole).backward()
            optimiser.step()
    return net.shifts()


def _start(side: int, generator: torch.Generator) -> int:
    """Where a crop begins along a side: an even place, as the network halves."""
    return 2 * int(torch.randint(max(side - CROP, 0) // 2 + 1, (1,), generator=generator))
