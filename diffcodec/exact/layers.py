"""Layers whose activations are integers, held in float32 so that fast convolutions serve.

Weights are int8 and activations signed 10-bit integers; as long as every accumulator stays below
2^24 in magnitude, a float32 convolution is exact in any order of summation, on any device. The
result is requantised by one float32 multiplication, which IEEE 754 rounds in one way only, and
rounded to an integer (design, section 4).
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffcodec.errors import ModelError
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

ACCUMULATOR_LIMIT = 1 << 24
"""Integers up to here are exact in float32."""


class ExactConv(nn.Module):
    """round((conv(x) + bias[step]) * multiplier[step]), clamped; ReLU is a clamp at zero.

    As a twin of a `HeadConv` (`rows`) it is a matrix product on rows [n, inputs * k * k]. Like a
    `NoiseConv` it also takes positions in the table of the rungs, one for each example; between
    two rows bias and multiplier are floats, and the outputs still integers.

    Args:
        weight: int8 [outputs, inputs, k, k].
        bias: int32 [rungs, levels, outputs], in units of the accumulator.
        multiplier: float32 [rungs, levels, outputs].
        limit: largest magnitude of an output.

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
    ) -> None:
        super().__init__()
        check_bound(weight, bias)
        packed = weight.float().contiguous(memory_format=torch.channels_last)
        self.rows = rows
        self.register_buffer("weight", packed.permute(0, 2, 3, 1).flatten(1) if rows else packed)
        self.register_buffer("bias", bias.float())
        self.register_buffer("multiplier", multiplier if rows else multiplier[..., None, None])
        self.stride, self.padding = stride, weight.shape[-1] // 2 if stride == 1 else 0
        self.low, self.high = 0 if relu else -limit, limit

    def forward(self, x: Tensor, index: Index | Tensor) -> Tensor:
        # Rounding a convolution removes the error of kernels that transform (Winograd).
        if isinstance(index, Tensor):
            y = F.conv2d(x, self.weight, None, self.stride, self.padding).round_()
            y += interpolated(self.bias[:, 0], index)[..., None, None]
            y *= interpolated(self.multiplier[:, 0], index)
        else:
            bias = self.bias[index]
            if self.rows:
                y = F.linear(x, self.weight, bias)
            else:
                y = F.conv2d(x, self.weight, bias, self.stride, self.padding).round_()
            y *= self.multiplier[index]
        return y.round_().clamp_(self.low, self.high)


class ExactSum(nn.Module):
    """The sum of two activations of one domain, clamped, in the place of the second."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return b.add_(a).clamp_(-ACTIVATION_LIMIT, ACTIVATION_LIMIT)


def check_bound(weight: Tensor, bias: Tensor) -> None:
    """Raise ModelError unless sum |w| * max |a| + max |bias| < 2^24 for each output channel."""
    reach = weight.long().abs().sum((1, 2, 3)) * ACTIVATION_LIMIT
    if int((reach + bias.long().abs().amax((0, 1))).max()) >= ACCUMULATOR_LIMIT:
        raise ModelError("The model's sums can leave the range in which float32 is exact.")


def make_exact(skeleton: nn.Module, tensors: Mapping[str, Tensor], output_limit: int) -> nn.Module:
    """Replace the layers of a float network by exact ones with the given tensors.

    `tensors` has `<layer>.weight`, `.bias` and `.multiplier` for each FilmConv of the skeleton;
    layers that write the network's outputs may reach `output_limit`. Raises ModelError if tensors
    are missing, of the wrong shape, or break the bound.
    """
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
            limit = output_limit if module.domain.endswith(OUT) else ACTIVATION_LIMIT
            exact = ExactConv(
                weight,
                bias,
                multiplier,
                stride=module.stride,
                relu=module.relu,
                rows=isinstance(module, HeadConv),
                limit=limit,
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
