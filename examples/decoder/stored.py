"""Stored samples: pixels grid by grid, each grid of half the spacing of the one before."""

import numpy as np

from .container import File


def decode(file: File) -> np.ndarray:
    """The picture, int64 [planes, height, width]; missing pixels are those of coarser grids."""
    kind, count = np.dtype(f"<u{file.depth // 8}"), len(file.mode)
    there = len(file.stream) // (kind.itemsize * count)
    stream = np.frombuffer(file.stream, kind, there * count).reshape(there, count)
    picture = np.full((file.height, file.width, count), 1 << file.depth - 1, np.int64)
    known, taken = np.zeros((file.height, file.width), bool), 0
    for power in reversed(range((max(file.height, file.width) - 1).bit_length() + 1)):
        spacing = 1 << power
        places = np.argwhere(~known[::spacing, ::spacing]) * spacing
        for (row, column), pixel in zip(places, stream[taken:], strict=False):
            # It stands for all that no finer grid has shown yet.
            picture[row : row + spacing, column : column + spacing] = pixel
        known[::spacing, ::spacing] = True
        taken += len(places)
    return np.moveaxis(picture, -1, 0)
