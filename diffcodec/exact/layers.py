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

import torch
from torch import Tensor, nn

from diffcodec.errors import ModelError
from diffcodec.exact import backends
from diffcodec.exact.backends import ACCUMULATOR_LIMIT

Index = tuple[int, int]
"""Rows of the rung and of the level in a layer's tables."""

ACTIVATION_LIMIT = 511
"""Largest magnitude of an integer activation."""

_LARGEST = ACTIVATION_LIMIT + 1  # in bfloat16, which lacks the limit itself

SIGNIFICANDS = {24: torch.float32, 8: torch.bfloat16}
"""Types of activations by the bits of their significand."""


class ExactConv(nn.Module):
    """round((conv(x) + bias[step]) * multiplier[step]), clamped; ReLU is a clamp at zero.

    With `rows` it is a matrix product on rows [n, k * k * inputs], one for each position. In the
    place of an index, tables of one level take a row of the rungs that is on the device, int64 [1],
    and positions among these rows, float [N], one for each example; between two rows bias and
    multiplier are floats, and the outputs still integers.

    With activations of bfloat16, inputs, bias and sums are rounded to that; so are the multiplier
    and the products of a convolution. Rows are few enough for the cache, where all else is faster
    in float32.

    Args:
        weight: int8 [outputs, inputs, k, k].
        bias: int32 [rungs, levels, outputs], in units of the accumulator.
        multiplier: float32 [rungs, levels, outputs].
        stride: of the convolution; with one above 1 there is no padding.
        relu: whether negative outputs become zero.
        rows: whether it works on rows.
        limit: largest magnitude of an output.
        dtype: the type of the activations, one of SIGNIFICANDS.

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
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        bias = bias.to(dtype)
        check_bound(weight, bias)
        packed = weight.to(dtype).contiguous(memory_format=torch.channels_last)
        self.rows = rows
        self.register_buffer("weight", packed.permute(0, 2, 3, 1).flatten(1) if rows else packed)
        self.register_buffer("bias", bias)
        multiplier = multiplier if rows else multiplier.to(dtype)[..., None, None]
        self.register_buffer("multiplier", multiplier)
        self.stride, self.padding = stride, weight.shape[-1] // 2 if stride == 1 else 0
        self.low, self.high = 0 if relu else -limit, limit
        self.dtype = dtype

    def forward(self, x: Tensor, index: Index | Tensor) -> Tensor:
        if isinstance(index, Tensor) and index.is_floating_point():
            y = self._sums(x, None)
            y += interpolated(self.bias[:, 0], index)[..., None, None]
            y *= interpolated(self.multiplier[:, 0], index)
        else:
            y = self._sums(x, _row(self.bias, index))
            y *= _row(self.multiplier, index)
        return y.round_().clamp_(self.low, self.high)

    @property
    def kernels(self) -> Tensor:
        """The weights as a convolution has them, float32 [outputs, inputs, k, k]."""
        if not self.rows:
            return self.weight.float()
        outputs, side = len(self.weight), 2 * self.padding + 1
        return self.weight.float().view(outputs, side, side, -1).permute(0, 3, 1, 2)

    def shift(self, index: Index, shifts: Tensor) -> None:
        """Move the biases of one step, in place, by integers [outputs] times their units.

        What is moved stays within a power of two that keeps all sums in their range, so any shifts
        will do; it is rounded as biases are.
        """
        weight, bias = self.weight.flatten(1).double(), self.bias[index].double()
        room = ACCUMULATOR_LIMIT - 1 - weight.abs().sum(1) * _LARGEST
        most = torch.exp2(room.frexp().exponent.double() - 1).floor()
        moved = (bias + shifts * self.shift_units(index)).maximum(-most).minimum(most)
        self.bias[index] = torch.where(shifts == 0, bias, moved).to(self.bias.dtype)

    def shift_units(self, index: Index) -> Tensor:
        """What 1 is worth in shifts of the biases of one step, float64 [outputs].

        The power of two that moves an output by 2 or more, but less than 4; at least 1.
        """
        exponents = self.multiplier[index].flatten().double().abs().frexp().exponent
        return torch.exp2(2 - exponents.double()).clamp(min=1)

    def _sums(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """The accumulators, rounded as activations are."""
        x, operands = x.to(self.dtype), backends.operands(x.device, self.dtype)
        y = backends.sums(
            x, self.weight, bias, operands, stride=self.stride, padding=self.padding
        ).to(self.dtype)
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


def _row(table: Tensor, index: Index | Tensor) -> Tensor:
    """One row of a table, which a tensor chooses without the host."""
    return table[:, 0].index_select(0, index)[0] if isinstance(index, Tensor) else table[index]


def interpolated(table: Tensor, positions: Tensor) -> Tensor:
    """Rows of a table at positions float [N], with straight lines between whole ones."""
    below = positions.floor().long().clamp(0, len(table) - 2)
    share = (positions - below).reshape(-1, *[1] * (table.ndim - 1))
    return torch.lerp(table[below], table[below + 1], share)
