"""Differences of a model from another one: integers for its weights and biases, packed.

All else, such as units, multipliers and tables, both models have alike.
"""

import lzma
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffcodec.errors import ModelError

Difference = Mapping[str, Tensor]
"""Of a model's tensors by name: int8 for each weight, int16 for each bias, in `bias_units`."""

FILTERS = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20, "lc": 0, "lp": 0, "pb": 0}]
"""Few of the numbers repeat others: they are coded one by one, by how often each occurs."""


def bias_units(multiplier: Tensor) -> Tensor:
    """What 1 is worth in differences of the biases with these multipliers; int64.

    The power of two that moves an output by 1/8 or more, but less than 1/4; from 1 to 2^16.
    """
    exponents = -2 - multiplier.double().abs().frexp().exponent.long()
    return 1 << exponents.clamp(0, 16)


def added(tensors: Mapping[str, Tensor], difference: Difference) -> dict[str, Tensor]:
    """The tensors of the other model. What leaves a type's range comes in at its other end."""
    result = dict(tensors)
    for name, change in difference.items():
        if name.endswith(".bias"):
            change = change * bias_units(tensors[name.removesuffix("bias") + "multiplier"])
        result[name] = (tensors[name].long() + change).to(tensors[name].dtype)
    return result


def pack(difference: Difference) -> Tensor:
    """A difference as bytes, uint8 [n]."""
    weights, biases = (
        np.concatenate([difference[name].numpy().ravel() for name in names])
        for names in _names(difference)
    )
    planes = biases.astype("<i2").view(np.uint8).reshape(-1, 2).T
    raw = weights.tobytes() + planes.tobytes()
    packed = lzma.compress(raw, lzma.FORMAT_RAW, filters=FILTERS)
    return torch.frombuffer(bytearray(packed), dtype=torch.uint8)


def unpack(packed: Tensor, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `pack`.

    Args: the bytes; the tensors of the model that it is a difference from.

    Raises ModelError if it is damaged, or from a model of another shape.
    """
    names = _names(tensors)
    counts = [sum(tensors[name].numel() for name in kind) for kind in names]
    size = counts[0] + 2 * counts[1]
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=FILTERS)
    try:
        raw = unpacker.decompress(packed.numpy().tobytes(), size + 1)
    except lzma.LZMAError as error:
        raise ModelError("The difference in the model file is damaged.") from error
    if len(raw) != size or not unpacker.eof or unpacker.unused_data:
        raise ModelError("The difference in the model file is damaged, or from another model.")
    planes = np.frombuffer(raw, np.uint8, offset=counts[0]).reshape(2, -1)
    values: tuple[NDArray, NDArray] = (
        np.frombuffer(raw, np.int8, counts[0]),
        np.ascontiguousarray(planes.T).view("<i2")[:, 0],
    )
    return dict(_split(names, values, tensors))


def _split(
    names: tuple[list[str], list[str]],
    values: tuple[NDArray, NDArray],
    tensors: Mapping[str, Tensor],
) -> Iterator[tuple[str, Tensor]]:
    """Values one after the other, as tensors by name."""
    for kind, flat in zip(names, values, strict=True):
        sizes = [tensors[name].numel() for name in kind]
        for name, part in zip(kind, np.split(flat, np.cumsum(sizes)[:-1]), strict=True):
            yield name, torch.from_numpy(part.copy()).view(tensors[name].shape)


def _names(tensors: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """The names of weights and biases, in the order in which they are packed."""
    weights, biases = (
        sorted(name for name in tensors if name.endswith(end)) for end in (".weight", ".bias")
    )
    return weights, biases
