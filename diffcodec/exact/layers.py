"""Layers whose activations are integers, held in float32 so that fast convolutions serve.

Weights are int8 and activations signed 10-bit integers; as long as every accumulator stays below
2^24 in magnitude, a float32 convolution is exact in any order of summation, on any device. (What
really multiplies is a backend that has proved it, see `exact.backends`.) The result is
requantised by one float32 multiplication, which IEEE 754 rounds in one way only, and rounded to
an integer (design, section 4).

A model can ask that activations and sums are also rounded to the eight bits of bfloat16's
significand. They are integers still, the same on every device, and processors with instructions
for bfloat16, which sum in float32, do the convolutions several times as fast.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from diffcodec.errors import ModelError
from diffcodec.exact import backends
from diffcodec.exact.backends import ACCUMULATOR_LIMIT
from diffcodec.networks import (
    ACTIVATION_LIMIT,
    OUT,
    FilmConv,
    HeadConv,
    Index,
    Scale,
    Sum,
    interpolated,
)

_LARGEST = ACTIVATION_LIMIT + 1  # in bfloat16, which lacks the limit itself

SIGNIFICAND = "significand"
"""The tensor of a model file that tells to how many bits activations are rounded."""

SIGNIFICANDS = {24: torch.float32, 8: torch.bfloat16}
"""Types of activations by the bits of their significand; 24 if a model does not tell."""


class ExactConv(nn.Module):
    """round((conv(x) + bias[step]) * multiplier[step]), clamped; ReLU is a clamp at zero.

    As a twin of a `HeadConv` (`rows`) it is a matrix product on rows [n, inputs * k * k]. Like a
    `NoiseConv` it also takes positions in the table of the rungs, one for each example; between
    two rows bias and multiplier are floats, and the outputs still integers.

    With activations of bfloat16, inputs, bias and sums are rounded to that; so are the multiplier
    and the products of a convolution. Rows are few enough for the cache, where all else is faster
    in float32.

    Args:
        weight: int8 [outputs, inputs, k, k].
        bias: int32 [rungs, levels, outputs], in units of the accumulator.
        multiplier: float32 [rungs, levels, outputs].
        limit: largest magnitude of an output.
        held: the type of the activations, one of SIGNIFICANDS.

    Raises ModelError if some input could drive an accumulator to 2^24.
    """

    weight: Tensor
    bias: Tensor
    multiplier: Tensor

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        multiplier: Tensor,
        *,
        stride: int,
        relu: bool,
        rows: bool,
        limit: int,
        held: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        bias = bias.to(held)
        check_bound(weight, bias)
        packed = weight.to(held).contiguous(memory_format=torch.channels_last)
        self.rows = rows
        self.register_buffer("weight", packed.permute(0, 2, 3, 1).flatten(1) if rows else packed)
        self.register_buffer("bias", bias)
        multiplier = multiplier if rows else multiplier.to(held)[..., None, None]
        self.register_buffer("multiplier", multiplier)
        self.stride, self.padding = stride, weight.shape[-1] // 2 if stride == 1 else 0
        self.low, self.high = 0 if relu else -limit, limit
        self.held = held

    def forward(self, x: Tensor, index: Index | Tensor) -> Tensor:
        if isinstance(index, Tensor):
            y = self._sums(x, None)
            y += interpolated(self.bias[:, 0], index)[..., None, None]
            y *= interpolated(self.multiplier[:, 0], index)
        else:
            y = self._sums(x, self.bias[index])
            y *= self.multiplier[index]
        return y.round_().clamp_(self.low, self.high)

    def _sums(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """The accumulators, rounded as activations are."""
        x, operands = x.to(self.held), backends.operands(x.device, self.held)
        y = backends.sums(
            x, self.weight, bias, operands, stride=self.stride, padding=self.padding
        ).to(self.held)
        return y.float() if self.rows else y


class ExactSum(nn.Module):
    """The sum of two activations of one domain, clamped, in the place of the second."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return b.add_(a).clamp_(-ACTIVATION_LIMIT, ACTIVATION_LIMIT)


def check_bound(weight: Tensor, bias: Tensor) -> None:
    """Raise ModelError unless sum |w| * max |a| + max |bias| < 2^24 for each output channel."""
    reach = weight.long().abs().sum((1, 2, 3)) * _LARGEST
    if int((reach + bias.long().abs().amax((0, 1))).max()) >= ACCUMULATOR_LIMIT:
        raise ModelError("The model's sums can leave the range in which float32 is exact.")


def make_exact(skeleton: nn.Module, tensors: Mapping[str, Tensor], output_limit: int) -> nn.Module:
    """Replace the layers of a float network by exact ones with the given tensors.

    `tensors` has `<layer>.weight`, `.bias` and `.multiplier` for each FilmConv of the skeleton;
    layers that write the network's outputs may reach `output_limit`. Raises ModelError if tensors
    are missing, of the wrong shape, or break the bound, or if activations have an unknown type.
    """
    try:
        held = SIGNIFICANDS[int(tensors.get(SIGNIFICAND, 24))]
    except KeyError as error:
        raise ModelError(f"The model file has activations of {error} bits.") from error
    for name, module in list(skeleton.named_modules()):
        exact: nn.Module
        if isinstance(module, FilmConv):
            try:
                weight, bias, multiplier = (
                    tensors[f"{name}.{part}"] for part in ("weight", "bias", "multiplier")
                )
            except KeyError as error:
                raise ModelError(f"The model file lacks the layer {name}.") from error
            shape = (len(module.rung_bias), len(module.level_bias), len(module.weight))
            if weight.shape != module.weight.shape or not bias.shape == multiplier.shape == shape:
                raise ModelError(f"The layer {name} of the model file has the wrong shape.")
            rows, last = isinstance(module, HeadConv), module.domain.endswith(OUT)
            exact = ExactConv(
                weight,
                bias,
                multiplier,
                stride=module.stride,
                relu=module.relu,
                rows=rows,
                limit=output_limit if last else ACTIVATION_LIMIT,
                held=torch.float32 if last else held,
            )
        elif isinstance(module, Sum):
            exact = ExactSum()
        elif isinstance(module, Scale):
            exact = nn.Identity()
        else:
            continue
        parent, _, child = name.rpartition(".")
        setattr(skeleton.get_submodule(parent), child, exact)
    return skeleton.eval().requires_grad_(False)
