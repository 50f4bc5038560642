"""The exact networks, and the layers that each of them has.

`step_layers`, `denoiser_layers` and `noise_layers` list the layers of a network by name, from its
shape. That list is all that a model file is checked against, that exporting goes through, and
that the float networks of `diffcodec.training` are made of.

A trunk sees the state before a step once; a small head for each phase adds what the phases before
it have decoded. Most of the trunk works at half the resolution, where a convolution costs a
quarter and sees twice as far; a trunk can end with blocks at the full one.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, count

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffcodec.exact.config import Count, Significand, Size
from diffcodec.exact.files import Shapes
from diffcodec.exact.layers import ACTIVATION_LIMIT, SIGNIFICANDS, ExactConv, ExactSum, Index

FEATURES, PHASE = "features", "phase"
"""The domains that networks read from outside."""

UNITS = {FEATURES: 1 / 64, PHASE: 1 / 128}
"""What one integer unit of the network's inputs is worth to the float network."""


@dataclass(frozen=True)
class Layer:
    """A convolution of a network, with tables of biases and gains for each step.

    Attributes:
        inputs, outputs: channels.
        kernel, stride: as usual; with a stride there is no padding.
        source, domain: the sets of activations that it reads and writes: each has one unit for
            every step. The network's own outputs have no domain: their units are the process's.
        rungs, levels: rows of the tables, in either direction.
        relu: whether negative outputs become zero.
        rows: whether the exact layer works on rows [n, inputs * kernel^2], one for each position
            in question. Such a row has the channels of the neighbours, neighbour by neighbour.
    """

    inputs: int
    outputs: int
    kernel: int
    source: str
    domain: str | None
    rungs: int
    levels: int
    stride: int = 1
    relu: bool = False
    rows: bool = False


Layers = dict[str, Layer]


@dataclass(frozen=True)
class Expert:
    """How many rungs a network serves, and its residual blocks at half and at full resolution."""

    rungs: Size
    half_blocks: Count
    full_blocks: Count

    @property
    def reach(self) -> int:
        """How many positions away an input can change an output, at most."""
        return 3 + 4 * self.half_blocks + 2 * self.full_blocks


@dataclass(frozen=True)
class StepShape:
    """The networks of the quantised process, one for each of some ranges of rungs.

    Attributes:
        features: input channels.
        known: for each phase, of how many channels earlier phases have decoded something.
        outputs: of a head: means, then log2 scales.
        levels: rows of the levels' tables.
        width, half_width: channels of the trunk at full and at half resolution.
        hidden: channels inside a head.
        experts: the networks, from the finest rung on.
    """

    features: Size
    known: tuple[Count, ...]
    outputs: Size
    levels: Size
    width: Size
    half_width: Size
    hidden: Size
    experts: tuple[Expert, ...]

    @property
    def reach(self) -> int:
        """How many positions away an input can change an output of any of them, at most."""
        return max(expert.reach for expert in self.experts)


@dataclass(frozen=True)
class DenoiserShape:
    """The denoiser: rows of its tables, channels, residual blocks."""

    rungs: Size
    levels: Size
    width: Size
    blocks: Count

    @property
    def reach(self) -> int:
        """As `StepShape.reach`."""
        return 2 + 2 * self.blocks


@dataclass(frozen=True)
class NoiseShape:
    """The U-Net of the Gaussian process.

    Attributes:
        colours, outputs: channels of what it takes and gives.
        widths, blocks: channels, and residual blocks on either way, at each resolution; every
            one is half as fine as the one before.
    """

    colours: Size
    outputs: Size
    widths: tuple[Size, ...]
    blocks: tuple[Count, ...]


def step_layers(shape: StepShape) -> Layers:
    """The layers of all experts."""
    layers = {}
    for number, expert in enumerate(shape.experts):
        prefix = f"experts.{number}."
        for name, layer in _expert_layers(shape, expert).items():
            source = layer.source if layer.source in UNITS else prefix + layer.source
            domain = None if layer.domain is None else prefix + layer.domain
            layers[prefix + name] = replace(layer, source=source, domain=domain)
    return layers


def _expert_layers(shape: StepShape, expert: Expert) -> Layers:
    conv = partial(Layer, rungs=expert.rungs, levels=shape.levels)
    row = partial(conv, rows=True)
    width, half, hidden = shape.width, shape.half_width, shape.hidden
    layers = {
        "stem": conv(shape.features, width, 3, FEATURES, "full", relu=True),
        "down": conv(width, half, 2, "full", "half", stride=2, relu=True),
        **_blocks(conv, expert.half_blocks, half, "half", "blocks"),
        "up": conv(half, 4 * width, 1, "half", "full"),
        "merge": conv(width, width, 3, "full", "trunk", relu=True),
        **_blocks(conv, expert.full_blocks, width, "trunk", "fine"),
    }
    for number, known in enumerate(shape.known):
        name = f"heads.{number}"
        layers[f"{name}.trunk"] = row(width, hidden, 1, "trunk", f"{name}.in")
        if known:
            layers[f"{name}.phase"] = row(known, hidden, 3, PHASE, f"{name}.in")
        layers[f"{name}.hidden"] = row(hidden, hidden, 1, f"{name}.in", f"{name}.hidden", relu=True)
        layers[f"{name}.out"] = row(hidden, shape.outputs, 1, f"{name}.hidden", None)
    return layers


def denoiser_layers(shape: DenoiserShape) -> Layers:
    """The layers of the denoiser: four pixels of three colours are twelve channels."""
    conv = partial(Layer, rungs=shape.rungs, levels=shape.levels)
    return {
        "stem": conv(12, shape.width, 3, FEATURES, "half", relu=True),
        **_blocks(conv, shape.blocks, shape.width, "half", "blocks"),
        "out": conv(shape.width, 12, 3, "half", None),
    }


def noise_layers(shape: NoiseShape, rows: int) -> Layers:
    """The layers of a U-Net whose tables have so many rows, one for each noise level."""
    conv = partial(Layer, rungs=rows, levels=1)
    widths = shape.widths
    layers = {"stem": conv(shape.colours, widths[0], 3, FEATURES, "depth0", relu=True)}
    for depth, (width, blocks) in enumerate(zip(widths, shape.blocks, strict=True)):
        here, finer = f"depth{depth}", f"depth{depth - 1}"
        if depth:
            name = str(depth - 1)
            layers[f"down.{name}"] = conv(
                widths[depth - 1], width, 2, finer, here, stride=2, relu=True
            )
            layers[f"up.{name}"] = conv(width, 4 * widths[depth - 1], 1, here, finer)
        layers |= _blocks(conv, blocks, width, here, f"encoder.{depth}")
        if depth < len(widths) - 1:
            layers |= _blocks(conv, blocks, width, here, f"decoder.{depth}")
    layers["out"] = conv(widths[0], shape.outputs, 3, "depth0", None)
    return layers


def _blocks(conv: partial[Layer], blocks: int, width: int, domain: str, name: str) -> Layers:
    """Residual blocks of two 3x3 convolutions, without normalisation."""
    layers = {}
    for i in range(blocks):
        own = f"{name}.{i}"
        layers[f"{own}.first"] = conv(width, width, 3, domain, own, relu=True)
        layers[f"{own}.second"] = conv(width, width, 3, own, domain)
    return layers


def tensor_shapes(layers: Layers) -> Shapes:
    """The tensors of a model file's layers.

    Beside `weight`, `bias` and `multiplier` (see `ExactConv`) each layer has `step`, what 1 is
    worth in each output's weights; and each domain has `unit`, what 1 is worth in its activations
    at each step. Coding does without these two; they lead back to the float network.
    """
    shapes: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
    for name, layer in layers.items():
        steps = (layer.rungs, layer.levels)
        weight = (layer.outputs, layer.inputs, layer.kernel, layer.kernel)
        shapes[f"{name}.weight"] = torch.int8, weight
        shapes[f"{name}.bias"] = torch.int32, (*steps, layer.outputs)
        shapes[f"{name}.multiplier"] = torch.float32, (*steps, layer.outputs)
        shapes[f"{name}.step"] = torch.float32, (layer.outputs,)
        if layer.domain is not None:
            shapes[f"unit.{layer.domain}"] = torch.float32, steps
    return shapes


Convs = Mapping[str, ExactConv]


def exact_layers(
    layers: Layers, tensors: Mapping[str, Tensor], significand: Significand, limit: int
) -> Convs:
    """The exact layers of a model file by name.

    Args:
        layers: which there are.
        tensors: as in `tensor_shapes`.
        significand: bits of the activations, one of SIGNIFICANDS.
        limit: largest magnitude of the network's outputs.

    Raises ModelError if a layer breaks the accumulators' bound.
    """
    convs = {}
    for name, layer in layers.items():
        last = layer.domain is None
        convs[name] = ExactConv(
            *(tensors[f"{name}.{part}"] for part in ("weight", "bias", "multiplier")),
            stride=layer.stride,
            relu=layer.relu,
            rows=layer.rows,
            limit=limit if last else ACTIVATION_LIMIT,
            dtype=torch.float32 if last else SIGNIFICANDS[significand],
        )
    return convs


def _within(convs: Convs, name: str) -> Convs:
    """The layers of a part of the network, by their names there."""
    prefix = f"{name}."
    return {own.removeprefix(prefix): convs[own] for own in convs if own.startswith(prefix)}


def _parts(convs: Convs, name: str) -> Iterator[Convs]:
    """The layers of the parts `name`.0, `name`.1 and so on."""
    for number in count():
        part = _within(convs, f"{name}.{number}")
        if not part:
            return
        yield part


class ExactBlocks(nn.ModuleList):
    """Residual blocks, one after the other."""

    def __init__(self, convs: Convs, name: str) -> None:
        super().__init__(ExactBlock(part) for part in _parts(convs, name))

    def forward(self, x: Tensor, index: Index | Tensor) -> Tensor:
        for block in self:
            x = block(x, index)
        return x


class ExactBlock(nn.Module):
    """A residual block of two 3x3 convolutions."""

    def __init__(self, convs: Convs) -> None:
        super().__init__()
        self.first, self.second, self.sum = convs["first"], convs["second"], ExactSum()

    def forward(self, x: Tensor, index: Index | Tensor) -> Tensor:
        return self.sum(x, self.second(self.first(x, index), index))


class ExactHead(nn.Module):
    """Conditionals of one phase, at the positions in question."""

    def __init__(self, convs: Convs) -> None:
        super().__init__()
        self.trunk, self.hidden, self.out = convs["trunk"], convs["hidden"], convs["out"]
        self.phase = convs.get("phase")
        self.sum = ExactSum()

    def forward(self, trunk: Tensor, known: Tensor | None, index: Index) -> Tensor:
        x = self.trunk(trunk, index)
        if self.phase is not None:
            x = self.sum(x, self.phase(known, index))
        return self.out(self.hidden(F.relu(x), index), index)


class ExactStepNetwork(nn.Module):
    """The network of one range of rungs."""

    def __init__(self, convs: Convs) -> None:
        super().__init__()
        self.stem, self.down = convs["stem"], convs["down"]
        self.up, self.merge = convs["up"], convs["merge"]
        self.blocks, self.fine = ExactBlocks(convs, "blocks"), ExactBlocks(convs, "fine")
        self.heads = nn.ModuleList(ExactHead(part) for part in _parts(convs, "heads"))
        self.sum = ExactSum()

    def trunk(self, features: Tensor, index: Index) -> Tensor:
        """As `ExactExperts.trunk`, with the rung's row in this network's tables."""
        h, w = features.shape[-2:]
        full = self.stem(F.pad(features, (0, w % 2, 0, h % 2)), index)
        half = self.blocks(self.down(full, index), index)
        full = self.sum(full, F.pixel_shuffle(self.up(half, index), 2))
        return self.fine(self.merge(full, index), index)[..., :h, :w]

    def head(self, phase: int, trunk: Tensor, known: Tensor | None, index: Index) -> Tensor:
        """As `ExactExperts.head`, with the rung's row in this network's tables."""
        return self.heads[phase](trunk, known, index)


class ExactExperts(nn.Module):
    """The conditionals of the quantised process: a network for each range of rungs."""

    def __init__(self, shape: StepShape, experts: Iterable[nn.Module]) -> None:
        super().__init__()
        self._shape, self.starts = shape, starts(shape)
        self.experts = nn.ModuleList(experts)

    @classmethod
    def of_convs(cls, shape: StepShape, convs: Convs) -> "ExactExperts":
        """Those of the layers of a model file."""
        return cls(shape, (ExactStepNetwork(part) for part in _parts(convs, "experts")))

    def forked(self, index: Index) -> "ExactExperts":
        """The same networks, of which the one that serves a rung is a copy."""
        number, _ = expert_of(self.starts, index)
        own = (deepcopy(one) if n == number else one for n, one in enumerate(self.experts))
        return ExactExperts(self._shape, own)

    def trunk(self, features: Tensor, index: Index) -> Tensor:
        """Features [N, features, h, w] to trunk activations [N, width, h, w].

        `index` has the rows of rung and level in the whole tables. Raises IndexError if there is
        none.
        """
        expert, own = self._expert(index)
        return expert.trunk(features, own)

    def reach(self, index: Index) -> int:
        """How many positions away an input can change an output, at most."""
        return self._shape.experts[expert_of(self.starts, index)[0]].reach

    def head(self, phase: int, trunk: Tensor, known: Tensor | None, index: Index) -> Tensor:
        """Means and log2 scales of a phase at n positions, [n, outputs].

        Args:
            phase: its number.
            trunk: the trunk's activations there, [n, width].
            known: what earlier phases have decoded around them, [n, 9 * known]; None in a phase
                that knows nothing.
            index: as for `trunk`.
        """
        expert, own = self._expert(index)
        return expert.head(phase, trunk, known, own)

    def _expert(self, index: Index) -> tuple[ExactStepNetwork, Index]:
        number, own = expert_of(self.starts, index)
        expert = self.experts[number]
        assert isinstance(expert, ExactStepNetwork)
        return expert, own


def starts(shape: StepShape) -> list[int]:
    """The first row of the rungs' whole table that each expert serves."""
    rungs = [expert.rungs for expert in shape.experts]
    return [0, *accumulate(rungs[:-1])]


def expert_of(starts: Sequence[int], index: Index) -> tuple[int, Index]:
    """The expert that serves a rung, and the index in its own tables."""
    rung, level = index
    number = bisect_right(starts, rung) - 1
    return number, (rung - starts[number], level)


class ExactDenoiser(nn.Module):
    """What a picture lacks that is known up to the error of a rung and a level."""

    def __init__(self, convs: Convs) -> None:
        super().__init__()
        self.stem, self.out = convs["stem"], convs["out"]
        self.blocks = ExactBlocks(convs, "blocks")

    def forward(self, pixels: Tensor, index: Index) -> Tensor:
        """Pixels [N, 12, h, w] around zero, and the rows of rung and level, to corrections."""
        return self.out(self.blocks(self.stem(pixels, index), index), index)


class ExactNoiseNetwork(nn.Module):
    """A U-Net for Gaussian noise."""

    def __init__(self, shape: NoiseShape, convs: Convs) -> None:
        super().__init__()
        depths = range(len(shape.widths))
        self.stem, self.out = convs["stem"], convs["out"]
        self.encoder = nn.ModuleList(ExactBlocks(convs, f"encoder.{d}") for d in depths)
        self.decoder = nn.ModuleList(ExactBlocks(convs, f"decoder.{d}") for d in depths[:-1])
        self.down = nn.ModuleList(convs[f"down.{d}"] for d in depths[:-1])
        self.up = nn.ModuleList(convs[f"up.{d}"] for d in depths[:-1])
        self.sum = ExactSum()

    def forward(self, features: Tensor, index: Index | Tensor) -> Tensor:
        """Features [N, colours, H, W] in integer units to predictions [N, outputs, H, W].

        `index` as for `ExactConv`. H and W are multiples of 2^(resolutions - 1).
        """
        x = self.stem(features, index)
        finer = []
        for depth, blocks in enumerate(self.encoder):
            if depth:
                finer.append(x)
                x = self.down[depth - 1](x, index)
            x = blocks(x, index)
        for depth in reversed(range(len(finer))):
            x = F.pixel_shuffle(self.up[depth](x, index), 2)
            x = self.decoder[depth](self.sum(finer[depth], x), index)
        return self.out(x, index)
