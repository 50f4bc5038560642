"""Biases that were fitted to the picture: what the stream says of a row of the networks' tables."""

from collections.abc import Iterable

import numpy as np

from .coder import ONE, RangeDecoder
from .model import LOW, Model, rung_at_8_bits, rungs
from .network import Network

Shifts = dict[str, np.ndarray]
"""By the names of layers, int64 [outputs]."""

Rows = dict[tuple[int, int], Shifts]
"""By row and level."""


def read_all(decoders: Iterable[RangeDecoder], model: Model, depth: int, colours: int) -> Rows:
    """What a picture in tiles says: each rung, read from its decoder, of the rows of its levels."""
    rows: Rows = {}
    for rung, decoder in zip(rungs(depth), decoders, strict=False):
        for level in range(LOW, 0, -1):
            row = model.row(rung_at_8_bits(rung, depth), level)
            if (row, level) not in rows:
                rows[row, level] = read(decoder, Network(model, row, level), colours)
    return rows


def read(decoder: RangeDecoder, network: Network, colours: int) -> Shifts:
    """By how much the biases of a network's row are shifted; nothing if it is as it was.

    If the data end, the decoder says so, and what this returns is not to be used.
    """
    fitted = decoder.read([ONE // 16])
    names = network.fitted_layers(colours) if fitted.any() else []
    return {name: _layer(decoder, network.outputs(name)) for name in names}


def _layer(decoder: RangeDecoder, outputs: int) -> np.ndarray:
    shifts = np.zeros(outputs, np.int64)
    share = 0
    for bit in decoder.read([ONE // 2] * 4):
        share = 2 * share + int(bit)
    if share == 0 or decoder.ended:
        return shifts
    places = np.flatnonzero(decoder.read([share * ONE // 16] * outputs))
    signs = decoder.read([ONE // 2] * len(places))
    if decoder.ended:
        return shifts
    shifts[places] = 2 * signs - 1
    for _ in range(15):
        more = decoder.read([ONE // 4] * len(places))
        if decoder.ended:
            break
        places = places[more == 1]
        shifts[places] += np.sign(shifts[places])
    return shifts
