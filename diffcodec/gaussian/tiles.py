"""Pictures cut into tiles of the size that a model was trained on, and put together again.

Tiles at the right and lower borders may be smaller; they are padded to multiples of ALIGNMENT.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from diffcodec.gaussian.network import ALIGNMENT

Sizes = Sequence[tuple[int, int]]
"""Width and height of each picture."""


def cut(pixels: Tensor, side: int) -> list[Tensor]:
    """The tiles of a picture uint8 [3, H, W], row by row, padded with its edge."""
    tiles = []
    for rows, columns in _places(pixels.shape[1], pixels.shape[2], side):
        tile = pixels[:, rows, columns]
        padding = (0, -tile.shape[2] % ALIGNMENT, 0, -tile.shape[1] % ALIGNMENT)
        tiles.append(F.pad(tile[None].float(), padding, mode="replicate")[0].to(torch.uint8))
    return tiles


def shapes(sizes: Sizes, side: int) -> list[torch.Size]:
    """The shapes of all tiles of pictures."""
    return [
        torch.Size((3, *(-(-(part.stop - part.start) // ALIGNMENT) * ALIGNMENT for part in place)))
        for width, height in sizes
        for place in _places(height, width, side)
    ]


def joined(sizes: Sizes, tiles: Sequence[Tensor], side: int) -> list[Tensor]:
    """Pictures uint8 [3, H, W] from all their tiles, without the padding."""
    left, pictures = iter(tiles), []
    for width, height in sizes:
        pixels = torch.empty((3, height, width), dtype=torch.uint8)
        for rows, columns in _places(height, width, side):
            part = pixels[:, rows, columns]
            part.copy_(next(left)[:, : part.shape[1], : part.shape[2]])
        pictures.append(pixels)
    return pictures


def _places(height: int, width: int, side: int) -> Iterator[tuple[slice, slice]]:
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield slice(top, min(top + side, height)), slice(left, min(left + side, width))
