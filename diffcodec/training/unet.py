"""DDPM's network in the layout of diffusers' UNet2DModel, such as google/ddpm-cifar10-32.

It is for research on the Gaussian process, in floats: nothing is coded with it. Its modules have
the names of the layout, so that state dicts load as they are.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from diffcodec.errors import ModelError

_REQUIRED = {
    "act_fn": "silu",
    "attention_head_dim": None,
    "center_input_sample": False,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "mid_block_scale_factor": 1,
    "time_embedding_type": "positional",
}
"""What a configuration must say: diffusers' defaults differ from some of it."""

_DEFAULTS = {
    "add_attention": True,
    "attention_legacy_order": False,
    "attn_norm_num_groups": None,
    "class_embed_type": None,
    "downsample_type": "conv",
    "num_class_embeds": None,
    "resnet_time_scale_shift": "default",
    "upsample_type": "conv",
}
"""What it must not say otherwise."""

_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Of layers of attention, in files from before 2023."""


@dataclass(frozen=True)
class UNetShape:
    """The shape of a network; the default is that of DDPM for CIFAR-10.

    Attributes:
        colours, predictions: channels of input and output.
        widths: channels at each resolution, from the full one down by halves.
        attends: whether there is attention, at each of them.
        layers: residual blocks at each, on the way down; one more on the way up.
        groups, epsilon: of the normalisation.
    """

    colours: int = 3
    predictions: int = 3
    widths: tuple[int, ...] = (128, 256, 256, 256)
    attends: tuple[bool, ...] = (False, True, False, False)
    layers: int = 2
    groups: int = 32
    epsilon: float = 1e-6

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "UNetShape":
        """From the configuration, config.json.

        Raises ModelError if it asks for anything that `UNet` does not have.
        """
        try:
            for name, value in _REQUIRED.items():
                _must_be(name, config[name], value)
            for name, value in _DEFAULTS.items():
                _must_be(name, config.get(name, value), value)
            down, up = (tuple(config[f"{way}_block_types"]) for way in ("down", "up"))
            attends = tuple(kind == "AttnDownBlock2D" for kind in down)
            _must_be("down_block_types", down, _kinds("Down", attends))
            _must_be("up_block_types", up, _kinds("Up", attends[::-1]))
            return cls(
                config["in_channels"],
                config["out_channels"],
                tuple(config["block_out_channels"]),
                attends,
                config["layers_per_block"],
                config["norm_num_groups"],
                config["norm_eps"],
            )
        except KeyError as error:
            raise ModelError(f"The configuration of the UNet has no {error}.") from error


class UNet(nn.Module):
    """z [N, colours, H, W] and numbers of steps [N] to [N, predictions, H, W].

    H and W must be multiples of 2^(resolutions - 1). Steps count from 0, the least noise;
    `gaussian.ByStep` makes this a network of log-SNRs.
    """

    def __init__(self, shape: UNetShape) -> None:
        super().__init__()
        widths, first, last = shape.widths, shape.widths[0], shape.widths[-1]
        self.width = first
        self.conv_in = _conv(shape.colours, first)
        self.time_embedding = TimeEmbedding(first)

        self.down_blocks, skips, ins = nn.ModuleList(), [first], first
        for width, attends in zip(widths, shape.attends, strict=True):
            sizes = [ins, *[width] * (shape.layers - 1)]
            scales = len(self.down_blocks) < len(widths) - 1
            self.down_blocks.append(Down(shape, sizes, width, attends, scales))
            skips += [width] * (shape.layers + scales)
            ins = width
        self.mid_block = Middle(shape, last)
        self.up_blocks = nn.ModuleList()
        for width, attends in zip(widths[::-1], shape.attends[::-1], strict=True):
            sizes = [ins + skips.pop(), *(width + skips.pop() for _ in range(shape.layers))]
            scales = len(self.up_blocks) < len(widths) - 1
            self.up_blocks.append(Up(shape, sizes, width, attends, scales))
            ins = width

        self.conv_norm_out = _norm(shape, first)
        self.conv_out = _conv(first, shape.predictions)

    def forward(self, z: Tensor, step: Tensor) -> Tensor:
        time = self.time_embedding(sinusoids(step, self.width).to(z.dtype))
        skips = [self.conv_in(z)]
        for stage in self.down_blocks:
            skips += stage(skips[-1], time)
        x = self.mid_block(skips[-1], time)
        for stage in self.up_blocks:
            x = stage(x, skips, time)
        return self.conv_out(F.silu(self.conv_norm_out(x)))

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take all weights from a state dict of the layout.

        Raises ModelError if names or shapes are not exactly those of this network.
        """
        try:
            self.load_state_dict({_current(name): value for name, value in state.items()})
        except RuntimeError as error:
            raise ModelError(f"The weights are of another network: {error}") from error


def load(folder: Path) -> UNet:
    """The network of a folder with config.json and diffusion_pytorch_model.safetensors.

    Raises ModelError if a file is missing, damaged or of another kind of network.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        state = load_file(folder / "diffusion_pytorch_model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"The UNet in {folder} cannot be read: {error}") from error
    net = UNet(UNetShape.of(config))
    net.load(state)
    return net


def sinusoids(step: Tensor, width: int) -> Tensor:
    """Sines, then cosines, of steps [N] times width / 2 frequencies from 1 to 1e-4; [N, width]."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half, device=step.device) * (-math.log(1e4) / (half - 1)))
    angles = step.to(frequencies.dtype)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)


class TimeEmbedding(nn.Module):
    """Two layers on the sinusoids."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(x)))


class Stage(nn.Module):
    """The layers at one resolution, on one way."""

    def __init__(self, shape: UNetShape, ins: Iterable[int], out: int, attends: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(Residual(shape, width, out) for width in ins)
        self.attentions = nn.ModuleList(Attention(shape, out) for _ in self.resnets if attends)

    def layer(self, number: int, x: Tensor, time: Tensor) -> Tensor:
        """A residual block, and attention if there is any."""
        x = self.resnets[number](x, time)
        return self.attentions[number](x) if self.attentions else x


class Down(Stage):
    """A stage on the way down; all that it gives goes to the other way, too."""

    def __init__(
        self, shape: UNetShape, ins: Iterable[int], out: int, attends: bool, scales: bool
    ) -> None:
        super().__init__(shape, ins, out, attends)
        self.downsamplers = nn.ModuleList([Downsampler(out)] if scales else [])

    def forward(self, x: Tensor, time: Tensor) -> list[Tensor]:
        given = [x := self.layer(number, x, time) for number in range(len(self.resnets))]
        return given + [scaled(x) for scaled in self.downsamplers]


class Up(Stage):
    """A stage on the way up; it takes what it needs from the end of `skips`."""

    def __init__(
        self, shape: UNetShape, ins: Iterable[int], out: int, attends: bool, scales: bool
    ) -> None:
        super().__init__(shape, ins, out, attends)
        self.upsamplers = nn.ModuleList([Upsampler(out)] if scales else [])

    def forward(self, x: Tensor, skips: list[Tensor], time: Tensor) -> Tensor:
        for number in range(len(self.resnets)):
            x = self.layer(number, torch.cat([x, skips.pop()], 1), time)
        for scaled in self.upsamplers:
            x = scaled(x)
        return x


class Middle(nn.Module):
    """Attention between two residual blocks."""

    def __init__(self, shape: UNetShape, width: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(Residual(shape, width, width) for _ in range(2))
        self.attentions = nn.ModuleList([Attention(shape, width)])

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x, time)), time)


class Residual(nn.Module):
    """Two convolutions, with the time between them."""

    def __init__(self, shape: UNetShape, ins: int, out: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(shape, ins), _conv(ins, out)
        self.time_emb_proj = nn.Linear(4 * shape.widths[0], out)
        self.norm2, self.conv2 = _norm(shape, out), _conv(out, out)
        self.conv_shortcut = nn.Identity() if ins == out else nn.Conv2d(ins, out, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = hidden + self.time_emb_proj(F.silu(time))[:, :, None, None]
        return self.conv_shortcut(x) + self.conv2(F.silu(self.norm2(hidden)))


class Attention(nn.Module):
    """Self-attention of all places, with one head."""

    def __init__(self, shape: UNetShape, width: int) -> None:
        super().__init__()
        self.group_norm = _norm(shape, width)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        places = self.group_norm(x).flatten(2).transpose(1, 2)
        q, k, v = self.to_q(places), self.to_k(places), self.to_v(places)
        found = self.to_out(F.scaled_dot_product_attention(q, k, v))
        return x + found.transpose(1, 2).reshape(x.shape)


class Downsampler(nn.Module):
    """To half the resolution. As in DDPM, the padding is at the right and lower ends only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsampler(nn.Module):
    """To twice the resolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = _conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def _conv(ins: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(ins, out, 3, padding=1)


def _norm(shape: UNetShape, width: int) -> nn.GroupNorm:
    return nn.GroupNorm(shape.groups, width, shape.epsilon)


def _current(name: str) -> str:
    """A tensor's name as it is in newer files."""
    *place, layer, kind = name.split(".")
    return ".".join([*place, _OLD_NAMES.get(layer, layer), kind])


def _kinds(way: str, attends: Iterable[bool]) -> tuple[str, ...]:
    """The names of blocks."""
    return tuple(f"{'Attn' * attention}{way}Block2D" for attention in attends)


def _must_be(name: str, value: object, expected: object) -> None:
    if value != expected:
        raise ModelError(f"The {name} of a UNet must be {expected}, not {value}.")
