"""Steps of training on the device at hand, against what their bare convolutions would take."""

import math
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

import diffcodec
from bench import results
from bench.ours import NAME
from bench.results import Document
from bench.work import Row
from diffcodec.exact.graphs import EAGER, Replayed
from diffcodec.training.loop import draws_on, order
from diffcodec.training.recipes import Recipe
from diffcodec.training.run import Kind, Run

STEPS = 12
"""A recipe's steps differ in crops and rungs: so many are drawn, and then repeated."""


class Conv(NamedTuple):
    """A convolution of a step: shapes, and whether its input has a gradient."""

    x: tuple[int, ...]
    weight: tuple[int, ...]
    y: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    gradient: bool

    @property
    def multiplications(self) -> int:
        """Multiply-adds, forward and backward."""
        return (2 + self.gradient) * math.prod(self.y) * math.prod(self.weight[1:])


def run(recipes: Sequence[Recipe], seconds: float, device: str | None) -> Document:
    """Measure each recipe for about so many seconds, and its convolutions alone for as many steps.

    Args: what to measure; how long; the device as torch names it, a GPU if there is one.
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    named = torch.cuda.get_device_name(place) if place.type == "cuda" else place.type
    rows = [
        {"recipe": recipe.name, "device": named, "threads": torch.get_num_threads()}
        | _measure(recipe, place, seconds)
        for recipe in tqdm(recipes, unit="recipe", disable=None)
    ]
    return results.document("train", rows, [], {}) | {
        "codecs": {NAME: f"diffcodec {diffcodec.__version__}, trained on {named}"}
    }


def summary(document: Document) -> str:
    """Crops and multiply-adds a second of each recipe, and the share of the bare convolutions'."""
    header = [
        *("recipe", "crops of a step", "crops/s", "10^9 multiply-adds a crop"),
        *("10^9 multiply-adds/s", "of the bare convolutions'"),
    ]
    lines = [
        [
            row["recipe"],
            row["batches"],
            f"{row['crops_per_second']:.3g}",
            f"{row['multiply_adds_per_second'] / row['crops_per_second'] / 1e9:.3g}",
            f"{row['multiply_adds_per_second'] / 1e9:,.0f}",
            f"{100 * row['share']:.0f} %",
        ]
        for row in document["rows"]
    ]
    row = document["rows"][0]
    threads = f", {row['threads']} threads" if row["device"] == "cpu" else ""
    return (
        f"{results.table(header, lines)}\n\nTraining steps on {row['device']}{threads}, without "
        "making their crops. Multiply-adds are those of convolutions, forward and backward; bare "
        "ones have the same shapes, type and number, and nothing in between."
    )


def _measure(recipe: Recipe, place: torch.device, seconds: float) -> Row:
    """One row: the recipe's own steps, then what their convolutions take."""
    own = Run(recipe, place)
    own.optimiser.set_rate(0.0)
    draws = draws_on(place, recipe.task)
    batches = [
        torch.randint(256, (draw.batch, 3, draw.size, draw.size), dtype=torch.uint8).to(place)
        for draw in draws
    ]
    kinds: list[Kind] = [
        (draw, recipe.task.choose(draw, own.generator))
        for draw in islice(cycle(order(draws)), STEPS)
    ]
    convs = {kind: convolutions(own, kind, batches[kind[0]]) for kind in set(kinds)}
    replayed: Replayed[Kind] = Replayed(own.step, place, own.noise)

    def step(kind: Kind) -> Tensor:
        return replayed(kind, batches[kind[0]])

    if place.type == "cuda":
        _warm(step, kinds, EAGER + 1)  # then all are recorded
    count, taken = _timed(step, kinds, place, seconds)

    operands = _Operands(own.dtype, place)

    def bare(kind: Kind, _: Tensor) -> Tensor:
        for conv in convs[kind]:
            operands.convolve(conv)
        return torch.zeros((), device=place)

    alone: Replayed[Kind] = Replayed(bare, place)
    nothing = torch.zeros((), device=place)
    _warm(lambda kind: alone(kind, nothing), kinds, EAGER + 1 if place.type == "cuda" else 1)
    _, least = _timed(lambda kind: alone(kind, nothing), kinds, place, math.inf, count)

    done = list(islice(cycle(kinds), count))
    crops = sum(len(batches[draw]) for draw, _ in done)
    multiplications = sum(conv.multiplications for kind in done for conv in convs[kind])
    return {
        "batches": ", ".join(f"{draw.batch} of {draw.size} x {draw.size}" for draw in draws),
        "steps": count,
        "seconds": taken,
        "crops_per_second": crops / taken,
        "multiply_adds_per_second": multiplications / taken,
        "bare_multiply_adds_per_second": multiplications / least,
        "share": least / taken,
    }


def convolutions(own: Run, kind: Kind, batch: Tensor) -> list[Conv]:
    """Those of a step, in the order of their gradients."""
    found: list[Conv] = []

    def note(
        y: Any, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, *others: Any, **_: Any
    ) -> int:
        (gradient, *_) = others[-1]  # which gradients are asked for
        shapes = tuple(x), tuple(weight), tuple(y)
        found.append(Conv(*shapes, tuple(stride), tuple(padding), gradient))
        return 0

    backward = torch.ops.aten.convolution_backward
    with FlopCounterMode(display=False, custom_mapping={backward: note}):
        own.step(kind, batch)
    return found


class _Operands:
    """Random operands of convolutions, one set for each shape."""

    def __init__(self, dtype: torch.dtype, place: torch.device) -> None:
        self._dtype, self._place = dtype, place
        self._made: dict[Conv, tuple[Tensor, ...]] = {}

    def convolve(self, conv: Conv) -> None:
        """One convolution, forward and backward."""
        if conv not in self._made:
            self._made[conv] = tuple(
                torch.randn(shape, device=self._place)
                .to(self._dtype, memory_format=torch.channels_last)
                .requires_grad_(gradient)
                for shape, gradient in zip(conv[:3], (conv.gradient, True, False), strict=True)
            )
        x, weight, gradient = self._made[conv]
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            y = F.conv2d(x, weight, None, conv.stride, conv.padding)
            torch.autograd.grad(y, (x, weight) if conv.gradient else (weight,), gradient)


def _warm(call: Callable[[Kind], Tensor], kinds: Sequence[Kind], times: int) -> None:
    for kind in dict.fromkeys(kinds):
        for _ in range(times):
            call(kind)


def _timed(
    call: Callable[[Kind], Tensor],
    kinds: Sequence[Kind],
    place: torch.device,
    seconds: float,
    most: int | None = None,
) -> tuple[int, float]:
    """How many calls were made, of the kinds in turn, and how long they took.

    At least one, until so many seconds or calls are over.
    """
    _wait(place)
    start, count = time.perf_counter(), 0
    for kind in islice(cycle(kinds), most):
        call(kind)
        count += 1
        if count % len(kinds) == 0 or place.type != "cuda":
            _wait(place)
            if time.perf_counter() - start >= seconds:
                break
    _wait(place)
    return count, time.perf_counter() - start


def _wait(place: torch.device) -> None:
    if place.type == "cuda":
        torch.cuda.synchronize(place)
