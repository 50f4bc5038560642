"""The float networks that are trained, made of the layers that `exact.networks` lists.

They agree with the exact networks up to rounding; `training.integers` turns one into the other.
Heads work on maps here, at all positions at once.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffcodec.exact.layers import Index, interpolated
from diffcodec.exact.networks import (
    FEATURES,
    PHASE,
    UNITS,
    DenoiserShape,
    Layer,
    Layers,
    NoiseShape,
    StepShape,
    denoiser_layers,
    expert_of,
    noise_layers,
    starts,
    step_layers,
)


class FilmConv(nn.Module):
    """y = (conv(x) + bias[step]) * gain[step], then optionally ReLU.

    The embedding of a step is additive in rung and level (FiLM: Perez et al., 2018). Weights start
    as for a ReLU (He et al., 2015), times `init`.
    """

    def __init__(self, layer: Layer, init: float = 1.0) -> None:
        super().__init__()
        self.layer = layer
        self.padding = layer.kernel // 2 if layer.stride == 1 else 0
        shape = layer.outputs, layer.inputs, layer.kernel, layer.kernel
        deviation = init * (2 / (layer.inputs * layer.kernel**2)) ** 0.5
        self.weight = nn.Parameter(torch.randn(shape) * deviation)
        self.rung_bias = nn.Parameter(torch.zeros(layer.rungs, layer.outputs))
        self.level_bias = nn.Parameter(torch.zeros(layer.levels, layer.outputs))
        self.rung_gain = nn.Parameter(torch.ones(layer.rungs, layer.outputs))
        self.level_gain = nn.Parameter(torch.zeros(layer.levels, layer.outputs))

    def forward(self, x: Tensor, index: Index) -> Tensor:
        rung, level = index
        bias = self.rung_bias[rung] + self.level_bias[level]
        gain = self.rung_gain[rung] + self.level_gain[level]
        # The gain goes into the weights: they are smaller than the activations.
        weight = self.weight * gain[:, None, None, None]
        y = F.conv2d(x, weight, bias * gain, self.layer.stride, self.padding)
        return F.relu(y) if self.layer.relu else y


class Sum(nn.Module):
    """The sum of two activations of one domain."""

    def __init__(self, domain: str) -> None:
        super().__init__()
        self.domain = domain

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class Convs:
    """Makes the layers of a part of a network.

    Args:
        layers: those of the whole network by name.
        kind: FilmConv, or a class like it.
        prefix: what the names of the part begin with.
    """

    def __init__(self, layers: Layers, kind: type[FilmConv] = FilmConv, prefix: str = "") -> None:
        self.layers, self.kind, self.prefix = layers, kind, prefix

    def __call__(self, name: str, init: float = 1.0) -> FilmConv:
        """The layer of that name."""
        return self.kind(self.layers[self.prefix + name], init)

    def within(self, name: str) -> "Convs":
        """What makes the layers of a part of this part."""
        return Convs(self.layers, self.kind, f"{self.prefix}{name}.")

    def sum_into(self, name: str) -> Sum:
        """A sum in the domain that a layer writes."""
        domain = self.layers[self.prefix + name].domain
        assert domain is not None
        return Sum(domain)


class Block(nn.Module):
    """A residual block of two 3x3 convolutions.

    With `init` 0 it is the identity at first, and can join a network that is trained already.
    """

    def __init__(self, convs: Convs, init: float) -> None:
        super().__init__()
        self.first, self.second = convs("first"), convs("second", init)
        self.sum = convs.sum_into("second")

    def forward(self, x: Tensor, index: Index | Tensor) -> Tensor:
        return self.sum(x, self.second(self.first(x, index), index))


class Blocks(nn.ModuleList):
    """Residual blocks, one after the other."""

    def __init__(self, convs: Convs, name: str, count: int, init: float = 0.3) -> None:
        super().__init__(Block(convs.within(f"{name}.{i}"), init) for i in range(count))

    def forward(self, x: Tensor, index: Index | Tensor) -> Tensor:
        for block in self:
            x = block(x, index)
        return x


class Head(nn.Module):
    """Conditionals of one phase from the trunk and the `known` channels of earlier phases."""

    def __init__(self, convs: Convs, known: int) -> None:
        super().__init__()
        self.trunk = convs("trunk")
        self.phase = convs("phase", init=0.3) if known else None
        self.sum = convs.sum_into("trunk")
        self.hidden = convs("hidden")
        self.out = convs("out", init=0.1)

    def forward(self, trunk: Tensor, known: Tensor | None, index: Index) -> Tensor:
        x = self.trunk(trunk, index)
        if self.phase is not None:
            x = self.sum(x, self.phase(known, index))
        return self.out(self.hidden(F.relu(x), index), index)


class StepNetwork(nn.Module):
    """Gaussian conditionals for the phases of the steps of some rungs."""

    def __init__(self, convs: Convs, shape: StepShape, number: int) -> None:
        super().__init__()
        own = shape.experts[number]
        self.stem, self.down = convs("stem"), convs("down")
        self.blocks = Blocks(convs, "blocks", own.half_blocks)
        self.up, self.sum = convs("up"), convs.sum_into("up")
        self.merge = convs("merge")
        self.fine = Blocks(convs, "fine", own.full_blocks, init=0)
        self.heads = nn.ModuleList(
            Head(convs.within(f"heads.{i}"), known) for i, known in enumerate(shape.known)
        )

    def trunk(self, features: Tensor, index: Index) -> Tensor:
        """As `Experts.trunk`, with the rung's row in this network's tables."""
        h, w = features.shape[-2:]
        padded = F.pad(features, (0, w % 2, 0, h % 2))
        full = self.stem(padded * UNITS[FEATURES], index)
        half = self.blocks(self.down(full, index), index)
        full = self.sum(full, F.pixel_shuffle(self.up(half, index), 2))
        return self.fine(self.merge(full, index), index)[..., :h, :w]

    def head(self, phase: int, trunk: Tensor, known: Tensor | None, index: Index) -> Tensor:
        """As `Experts.head`, with the rung's row in this network's tables."""
        known = None if known is None else known * UNITS[PHASE]
        return self.heads[phase](trunk, known, index)


class Experts(nn.Module):
    """A network of its own for each range of rungs, as large as its share of the bits is worth."""

    def __init__(self, shape: StepShape) -> None:
        super().__init__()
        convs = Convs(step_layers(shape))
        self.starts = starts(shape)
        self.experts = nn.ModuleList(
            StepNetwork(convs.within(f"experts.{number}"), shape, number)
            for number in range(len(shape.experts))
        )

    def trunk(self, features: Tensor, index: Index) -> Tensor:
        """Features [N, features, h, w] in integer units to activations [N, width, h, w].

        `index` has the rows of rung and level in the whole tables.
        """
        expert, own = self._expert(index)
        return expert.trunk(features, own)

    def head(self, phase: int, trunk: Tensor, known: Tensor | None, index: Index) -> Tensor:
        """Means and log2 scales of a phase everywhere, [N, outputs, h, w].

        Args:
            phase: its number.
            trunk: activations [N, width, h, w].
            known: what earlier phases have decoded, in integer units [N, known, h, w]; None in a
                phase that knows nothing.
            index: as for `trunk`.
        """
        expert, own = self._expert(index)
        return expert.head(phase, trunk, known, own)

    def _expert(self, index: Index) -> tuple[StepNetwork, Index]:
        number, own = expert_of(self.starts, index)
        expert = self.experts[number]
        assert isinstance(expert, StepNetwork)
        return expert, own


class Denoiser(nn.Module):
    """What a picture lacks that is known up to the error of a rung and a level.

    It works at half the resolution, with four pixels of three colours as twelve channels.
    """

    def __init__(self, shape: DenoiserShape) -> None:
        super().__init__()
        convs = Convs(denoiser_layers(shape))
        self.stem = convs("stem")
        self.blocks = Blocks(convs, "blocks", shape.blocks)
        self.out = convs("out", init=0.1)

    def forward(self, pixels: Tensor, index: Index) -> Tensor:
        """Pixels [N, 12, h, w] around zero, and the rows of rung and level, to corrections."""
        return self.out(self.blocks(self.stem(pixels * UNITS[FEATURES], index), index), index)


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
        y = F.conv2d(x, self.weight, None, self.layer.stride, self.padding)
        shift, factor = (part[..., None, None].to(y.dtype) for part in (bias * gain, gain))
        y = torch.addcmul(shift, y, factor)
        return F.relu(y) if self.layer.relu else y


class NoiseNetwork(nn.Module):
    """A U-Net of residual blocks for Gaussian noise, without normalisation or attention.

    Its tables have one row for each of the knots.
    """

    def __init__(self, shape: NoiseShape, knots: int) -> None:
        super().__init__()
        convs = Convs(noise_layers(shape, knots), NoiseConv)
        depths = range(len(shape.widths))
        finer = depths[:-1]
        self.stem = convs("stem")
        self.encoder = nn.ModuleList(Blocks(convs, f"encoder.{d}", shape.blocks[d]) for d in depths)
        self.decoder = nn.ModuleList(Blocks(convs, f"decoder.{d}", shape.blocks[d]) for d in finer)
        self.down = nn.ModuleList(convs(f"down.{d}") for d in finer)
        self.up = nn.ModuleList(convs(f"up.{d}") for d in finer)
        self.join = nn.ModuleList(convs.sum_into(f"up.{d}") for d in finer)
        self.out = convs("out", init=0.02)

    def forward(self, features: Tensor, index: Index | Tensor) -> Tensor:
        """Features [N, colours, H, W] in integer units to predictions [N, outputs, H, W].

        `index` as for `NoiseConv`. H and W are multiples of 2^(resolutions - 1).
        """
        x = self.stem(features * UNITS[FEATURES], index)
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
