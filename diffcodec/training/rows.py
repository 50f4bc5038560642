"""One row of the exact networks with gradients, and shifts of its biases to be learnt."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from diffcodec.exact import backends
from diffcodec.exact.cdf import MEAN_UNITS, SCALE_UNITS
from diffcodec.exact.layers import ACTIVATION_LIMIT, ExactConv, Index
from diffcodec.exact.networks import ExactExperts, expert_of
from diffcodec.quantized.fitted import LIMIT, layers

FEW = 0.3
"""Added to the mean magnitude of shifts where their cost is estimated: nothing is impossible."""


class Round(torch.autograd.Function):
    """Rounds; the gradient passes as it is."""

    @staticmethod
    def forward(_: object, x: Tensor) -> Tensor:
        return x.round().clamp(-LIMIT, LIMIT)

    @staticmethod
    def backward(_: object, gradient: Tensor) -> Tensor:
        return gradient


class RowNetwork(nn.Module):
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
        whole = [Round.apply(own).detach().cpu().numpy().astype(np.int32) for own in self._shifts]
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
            bias = bias + Round.apply(self._shifts[self._place[name]]) * units
        weight = layer.kernels * gain[:, None, None, None]
        kind = torch.float32 if layer.rows else self._operands
        y = F.conv2d(x.to(kind), weight.to(kind), None, layer.stride, layer.padding)
        return (y.float() + (bias * gain)[:, None, None]).clamp(layer.low, layer.high)
