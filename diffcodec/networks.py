"""The float network that is trained; `diffcodec.exact` turns it into integers, layer by layer.

A trunk sees the state before a step once; a small head for each phase adds what the phases
before it have told. Most of the trunk works at half the resolution, where a convolution costs a
quarter and sees twice as far; a trunk can end with blocks at the full one.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Index = tuple[int, int]
"""Rows of the rung and of the level in the embedding tables."""

Depth = tuple[int, int]
"""Residual blocks of a trunk at half the resolution, and at the full one."""

FEATURES, PHASE, OUT = "features", "phase", ".out"
"""The domains that the network reads from outside, and the ending of those that it writes."""

UNITS = {FEATURES: 1 / 64, PHASE: 1 / 128}
"""What one integer unit of the network's inputs is worth in its own units."""

ACTIVATION_LIMIT = 511
"""Largest magnitude of an integer activation."""


class FilmConv(nn.Module):
    """y = (conv(x) + bias[step]) * gain[step], then optionally ReLU.

    The embedding of a step is additive in rung and level (FiLM: Perez et al., 2018). `source`
    and `domain` name the sets of activations that the layer reads and writes: the exact model
    gives each domain one scale a step.
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

    def scope(self, name: str) -> None:
        """Give the activations that it writes, or reads from other layers, a range of their own."""
        self.domain = name + self.domain
        if self.source not in UNITS:
            self.source = name + self.source

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

    def scope(self, name: str) -> None:
        """As `FilmConv.scope`."""
        self.domain = name + self.domain

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
    """A residual block of two 3x3 convolutions, without normalisation.

    With `init` 0 it is the identity at first, and can join a network that is trained already.
    """

    def __init__(self, conv: Layer, width: int, domain: str, name: str, init: float = 0.3) -> None:
        super().__init__()
        self.first = conv(width, width, 3, domain, name, relu=True)
        self.second = conv(width, width, 3, name, domain, init=init)
        self.sum = Sum(domain)

    def forward(self, x: Tensor, index: Index) -> Tensor:
        return self.sum(x, self.second(self.first(x, index), index))


class Blocks(nn.ModuleList):
    """Residual blocks, one after the other."""

    def forward(self, x: Tensor, index: Index | Tensor) -> Tensor:
        for block in self:
            x = block(x, index)
        return x


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
        outputs: output channels of a phase: means, then log2 scales.
        rungs, levels: sizes of the embedding tables.
        blocks: residual blocks of the trunk at half the resolution, then at the full one.
    """

    def __init__(
        self,
        features: int,
        known: Sequence[int],
        outputs: int,
        *,
        rungs: int,
        levels: int,
        blocks: Depth,
        width: int = 64,
        half_width: int = 64,
        hidden: int = 48,
    ) -> None:
        super().__init__()

        conv = partial(FilmConv, rungs=rungs, levels=levels)
        head = partial(HeadConv, rungs=rungs, levels=levels)
        self.feature_scale = Scale(UNITS[FEATURES])
        self.phase_scale = Scale(UNITS[PHASE])
        self.stem = conv(features, width, 3, FEATURES, "full", relu=True)
        self.down = conv(width, half_width, 2, "full", "half", stride=2, relu=True)
        half, full = blocks
        self.blocks = Blocks(Block(conv, half_width, "half", f"block{i}") for i in range(half))
        self.up = conv(half_width, 4 * width, 1, "half", "full")
        self.sum = Sum("full")
        self.merge = conv(width, width, 3, "full", "trunk", relu=True)
        self.fine = Blocks(Block(conv, width, "trunk", f"fine{i}", init=0) for i in range(full))
        self.heads = nn.ModuleList(
            Head(head, width, hidden, k, outputs, f"head{i}") for i, k in enumerate(known)
        )

    def trunk(self, features: Tensor, index: Index) -> Tensor:
        """Features [N, features, h, w] to trunk activations [N, width, h, w]."""
        h, w = features.shape[-2:]
        full = self.stem(self.feature_scale(F.pad(features, (0, w % 2, 0, h % 2))), index)
        half = self.blocks(self.down(full, index), index)
        full = self.sum(full, F.pixel_shuffle(self.up(half, index), 2))
        return self.fine(self.merge(full, index), index)[..., :h, :w]

    def head(self, phase: int, trunk: Tensor, known: Tensor | None, index: Index) -> Tensor:
        """Means and log2 scales of a phase, [N, outputs, h, w]; `known`: [N, known, h, w].

        The exact model takes and gives rows instead (see `HeadConv`): [n, width],
        [n, 9 * known] and [n, outputs].
        """
        if known is not None:
            known = self.phase_scale(known)
        return self.heads[phase](trunk, known, index)


class Experts(nn.Module):
    """A network of its own for each range of rungs, as large as its share of the bits is worth.

    Args:
        rungs: how many rows of the rungs' table each network serves, from the first row on.
        make: the network with this number, for that many rungs.
    """

    def __init__(self, rungs: Sequence[int], make: Callable[[int, int], StepNetwork]) -> None:
        super().__init__()
        self.starts = [0, *accumulate(rungs[:-1])]
        self.experts = nn.ModuleList(make(number, rows) for number, rows in enumerate(rungs))
        for number, expert in enumerate(self.experts):
            for layer in expert.modules():
                if isinstance(layer, FilmConv | Sum):
                    layer.scope(f"expert{number}.")

    def trunk(self, features: Tensor, index: Index) -> Tensor:
        """As `StepNetwork.trunk`, with the rung's row in the whole table."""
        expert, index = self._expert(index)
        return expert.trunk(features, index)

    def head(self, phase: int, trunk: Tensor, known: Tensor | None, index: Index) -> Tensor:
        """As `StepNetwork.head`, with the rung's row in the whole table."""
        expert, index = self._expert(index)
        return expert.head(phase, trunk, known, index)

    def _expert(self, index: Index) -> tuple[StepNetwork, Index]:
        rung, level = index
        number = bisect_right(self.starts, rung) - 1
        expert = self.experts[number]
        assert isinstance(expert, StepNetwork)
        return expert, (rung - self.starts[number], level)


class Denoiser(nn.Module):
    """What a picture lacks that is known up to the error of a rung.

    It works at half the resolution, with four pixels of three colours as twelve channels.
    """

    def __init__(self, *, rungs: int, width: int = 96, blocks: int = 12) -> None:
        super().__init__()
        conv = partial(FilmConv, rungs=rungs, levels=1)
        self.scale = Scale(UNITS[FEATURES])
        self.stem = conv(12, width, 3, FEATURES, "half", relu=True)
        self.blocks = Blocks(Block(conv, width, "half", f"block{i}") for i in range(blocks))
        self.out = conv(width, 12, 3, "half", f"correction{OUT}", init=0.1)

    def forward(self, pixels: Tensor, rung: int) -> Tensor:
        """Pixels [N, 12, h, w] around zero, and the row of the rung, to corrections alike."""
        index = (rung, 0)
        x = self.blocks(self.stem(self.scale(pixels), index), index)
        return self.out(x, index)


class NoiseConv(FilmConv):
    """A FilmConv whose rungs are knots along an axis of noise levels.

    Besides a row, `index` can be positions float [N] from 0 to the number of knots - 1, one for
    each example: bias and gain are then interpolated between the knots.
    """

    def forward(self, x: Tensor, index: Index | Tensor) -> Tensor:
        if not isinstance(index, Tensor):
            return super().forward(x, index)
        bias = interpolated(self.rung_bias, index) + self.level_bias[0]
        gain = interpolated(self.rung_gain, index) + self.level_gain[0]
        y = F.conv2d(x, self.weight, None, self.stride, self.padding)
        shift, factor = (part[..., None, None].to(y.dtype) for part in (bias * gain, gain))
        y = torch.addcmul(shift, y, factor)
        return F.relu(y) if self.relu else y

    @torch.no_grad()
    def tabulate(self, positions: Tensor) -> None:
        """Put rows for these positions in the place of the knots."""
        self.rung_bias = nn.Parameter(interpolated(self.rung_bias, positions))
        self.rung_gain = nn.Parameter(interpolated(self.rung_gain, positions))


def interpolated(table: Tensor, positions: Tensor) -> Tensor:
    """Rows of a table at positions float [N], with straight lines between whole ones."""
    below = positions.floor().long().clamp(0, len(table) - 2)
    share = (positions - below).reshape(-1, *[1] * (table.ndim - 1))
    return torch.lerp(table[below], table[below + 1], share)


class NoiseNetwork(nn.Module):
    """A U-Net of residual blocks for Gaussian noise, without normalisation or attention.

    Args:
        features: input channels.
        outputs: output channels.
        knots: rows of the embedding tables.
        widths, blocks: channels, and residual blocks on either way, at each resolution; every
            one is half as fine as the one before.
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        *,
        knots: int,
        widths: Sequence[int],
        blocks: Sequence[int],
    ) -> None:
        super().__init__()
        conv = partial(NoiseConv, rungs=knots, levels=1)

        def chain(depth: int, name: str) -> Blocks:
            names = [f"{name}{depth}.{i}" for i in range(blocks[depth])]
            return Blocks(Block(conv, widths[depth], f"depth{depth}", n) for n in names)

        depths = range(len(widths))
        self.scale = Scale(UNITS[FEATURES])
        self.stem = conv(features, widths[0], 3, FEATURES, "depth0", relu=True)
        self.encoder = nn.ModuleList(chain(depth, "encoder") for depth in depths)
        self.decoder = nn.ModuleList(chain(depth, "decoder") for depth in depths[:-1])
        self.down, self.up, self.join = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for depth in depths[1:]:
            over, here = f"depth{depth - 1}", f"depth{depth}"
            self.down.append(
                conv(widths[depth - 1], widths[depth], 2, over, here, stride=2, relu=True)
            )
            self.up.append(conv(widths[depth], 4 * widths[depth - 1], 1, here, over))
            self.join.append(Sum(over))
        self.out = conv(widths[0], outputs, 3, "depth0", f"prediction{OUT}", init=0.02)

    def forward(self, features: Tensor, index: Index | Tensor) -> Tensor:
        """Features [N, features, H, W] in integer units to predictions [N, outputs, H, W].

        `index` as for `NoiseConv`. H and W are multiples of 2^(resolutions - 1).
        """
        x = self.stem(self.scale(features), index)
        finer = []
        for depth, blocks in enumerate(self.encoder):
            if depth:
                finer.append(x)
                x = self.down[depth - 1](x, index)
            x = blocks(x, index)
        for depth in reversed(range(len(finer))):
            x = F.pixel_shuffle(self.up[depth](x, index), 2)
            x = self.decoder[depth](self.join[depth](finer[depth], x), index)
        return self.out(x, index)
