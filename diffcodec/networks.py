"""The float network that is trained; `diffcodec.exact` turns it into integers, layer by layer.

A trunk sees the state before a step once; a small head for each phase adds what the phases
before it have told. Most of the trunk works at half the resolution, where a convolution costs a
quarter and sees twice as far.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Index = tuple[int, int]
"""Rows of the rung and of the level in the embedding tables."""

FEATURES, PHASE, OUT = "features", "phase", ".out"
"""The domains that the network reads from outside, and the ending of those that it writes."""

UNITS = {FEATURES: 1 / 64, PHASE: 1 / 128}
"""What one integer unit of the network's inputs is worth in its own units."""


class FilmConv(nn.Module):
    """y = (conv(x) + bias[step]) * gain[step], then optionally ReLU.

    The embedding of a step is additive in rung and level (FiLM: Perez et al., 2018). `source`
    and `domain` name the sets of activations that the layer reads and writes: the exact model
    gives each domain one scale.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        source: str,
        domain: str,
        *,
        rungs: int,
        levels: int,
        stride: int = 1,
        relu: bool = False,
        init: float = 1.0,
    ) -> None:
        super().__init__()
        self.source, self.domain = source, domain
        self.stride, self.relu = stride, relu
        self.padding = kernel // 2 if stride == 1 else 0
        fan_in = inputs * kernel**2
        self.weight = nn.Parameter(
            torch.randn(outputs, inputs, kernel, kernel) * init * (2 / fan_in) ** 0.5
        )
        self.rung_bias = nn.Parameter(torch.zeros(rungs, outputs))
        self.level_bias = nn.Parameter(torch.zeros(levels, outputs))
        self.rung_gain = nn.Parameter(torch.ones(rungs, outputs))
        self.level_gain = nn.Parameter(torch.zeros(levels, outputs))

    def forward(self, x: Tensor, index: Index) -> Tensor:
        rung, level = index
        bias = self.rung_bias[rung] + self.level_bias[level]
        gain = self.rung_gain[rung] + self.level_gain[level]
        # The gain goes into the weights: they are smaller than the activations.
        weight = self.weight * gain[:, None, None, None]
        y = F.conv2d(x, weight, bias * gain, self.stride, self.padding)
        return F.relu(y) if self.relu else y


class Sum(nn.Module):
    """The sum of two activations of one domain."""

    def __init__(self, domain: str) -> None:
        super().__init__()
        self.domain = domain

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class Scale(nn.Module):
    """Takes integer features to the network's own units; the identity in the exact model."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


Layer = Callable[..., FilmConv]


class Block(nn.Module):
    """A residual block of two 3x3 convolutions, without normalisation."""

    def __init__(self, conv: Layer, width: int, domain: str, name: str) -> None:
        super().__init__()
        self.first = conv(width, width, 3, domain, name, relu=True)
        self.second = conv(width, width, 3, name, domain, init=0.3)
        self.sum = Sum(domain)

    def forward(self, x: Tensor, index: Index) -> Tensor:
        return self.sum(x, self.second(self.first(x, index), index))


class HeadConv(FilmConv):
    """A convolution of a head; its exact twin works on rows, one for each position in question.

    A row of a 3x3 convolution has the channels of the position's nine neighbours, row by row.
    """


class Head(nn.Module):
    """Conditionals of one phase from the trunk and the `known` channels of earlier phases."""

    def __init__(
        self,
        conv: Layer,
        width: int,
        hidden: int,
        known: int,
        outputs: int,
        name: str,
    ) -> None:
        super().__init__()
        self.trunk = conv(width, hidden, 1, "trunk", f"{name}.in")
        self.phase = conv(known, hidden, 3, PHASE, f"{name}.in", init=0.3) if known else None
        self.sum = Sum(f"{name}.in")
        self.hidden = conv(hidden, hidden, 1, f"{name}.in", f"{name}.hidden", relu=True)
        self.out = conv(hidden, outputs, 1, f"{name}.hidden", f"{name}{OUT}", init=0.1)

    def forward(self, trunk: Tensor, phase: Tensor | None, index: Index) -> Tensor:
        x = self.trunk(trunk, index)
        if self.phase is not None:
            x = self.sum(x, self.phase(phase, index))
        return self.out(self.hidden(F.relu(x), index), index)


class StepNetwork(nn.Module):
    """Gaussian conditionals for the phases of a step.

    Args:
        features: input channels.
        known: for each phase, how many channels earlier phases have told something about.
        outputs: for each phase, its output channels: means, then log2 scales.
        rungs, levels: sizes of the embedding tables.
    """

    def __init__(
        self,
        features: int,
        known: Sequence[int],
        outputs: Sequence[int],
        *,
        rungs: int,
        levels: int,
        width: int = 64,
        half_width: int = 64,
        blocks: int = 3,
        hidden: int = 48,
    ) -> None:
        super().__init__()

        conv = partial(FilmConv, rungs=rungs, levels=levels)
        head = partial(HeadConv, rungs=rungs, levels=levels)
        self.feature_scale = Scale(UNITS[FEATURES])
        self.phase_scale = Scale(UNITS[PHASE])
        self.stem = conv(features, width, 3, FEATURES, "full", relu=True)
        self.down = conv(width, half_width, 2, "full", "half", stride=2, relu=True)
        self.blocks = nn.ModuleList(
            Block(conv, half_width, "half", f"block{i}") for i in range(blocks)
        )
        self.up = conv(half_width, 4 * width, 1, "half", "full")
        self.sum = Sum("full")
        self.merge = conv(width, width, 3, "full", "trunk", relu=True)
        self.heads = nn.ModuleList(
            Head(head, width, hidden, k, o, f"head{i}")
            for i, (k, o) in enumerate(zip(known, outputs, strict=True))
        )

    def trunk(self, features: Tensor, index: Index) -> Tensor:
        """Features [N, features, h, w] to trunk activations [N, width, h, w]."""
        h, w = features.shape[-2:]
        full = self.stem(self.feature_scale(F.pad(features, (0, w % 2, 0, h % 2))), index)
        half = self.down(full, index)
        for block in self.blocks:
            half = block(half, index)
        full = self.sum(full, F.pixel_shuffle(self.up(half, index), 2))
        return self.merge(full, index)[..., :h, :w]

    def head(self, phase: int, trunk: Tensor, known: Tensor | None, index: Index) -> Tensor:
        """Means and log2 scales of a phase, [N, outputs, h, w]; `known`: [N, known, h, w].

        The exact model takes and gives rows instead (see `HeadConv`): [n, width],
        [n, 9 * known] and [n, outputs].
        """
        if known is not None:
            known = self.phase_scale(known)
        return self.heads[phase](trunk, known, index)
