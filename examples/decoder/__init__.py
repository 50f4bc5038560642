"""A decoder of .dfc files in plain numpy, written from docs/format.md and docs/quantised.md.

It imports nothing of diffcodec, and decodes what the quantised process codes, and stored samples:
complete files to their exact pixels, prefixes and lossy files to what their cells say. It is made
to be read, one subject to a module:

    container   header and stream of a file
    stored      the stream that is nothing but samples
    tiles       the streams of the tiles of a large picture
    coder       bits from bytes
    model       the model file: configuration, ladder, tables
    pyramid     sizes of the bands; from coefficients back to pixels
    spaces      colours of JPEG, WebP and Photo CD
    walk        the order of the stream: rungs, levels, significance, phases
    fitted      biases of the networks that were fitted to the picture
    network     the integer networks, and what they see
    phase       from cells to smaller cells
    adaptation  what a picture's own errors change in means and in odds
"""

import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import numpy as np

from . import container, fitted, spaces, stored, tiles
from .coder import RangeDecoder
from .model import Model
from .walk import State, walk


def decode(
    data: bytes, model: Path | None = None, progress: Callable[[int], None] = lambda rung: None
) -> np.ndarray:
    """The picture of a file or of a prefix of one, uint8 or uint16 [height, width, planes].

    Args: the bytes; the model file, which stored samples do without; what is called with the
    number of each rung that is done. Raises ValueError for what this decoder does not know, another
    model than the file's, and a whole stream whose samples do not match their checksum.
    """
    file = container.read(data)
    if file.codec == container.STORED:
        planes = stored.decode(file)
    elif model is None:
        raise ValueError(f"The file needs the model {file.model.hex()}.")
    else:
        planes = _quantised(file, Model(model), progress)
    samples = planes.astype(f"<u{file.depth // 8}")
    if file.whole and zlib.crc32(samples.tobytes()) != file.checksum:
        raise ValueError("The file is corrupt: its pixels do not match its checksum.")
    colours = len(file.mode.removesuffix("A"))
    middles = samples[:colours].astype(np.int64) * file.step
    samples[:colours] = np.minimum(middles, (1 << file.depth) - 1)
    return np.moveaxis(samples, 0, -1)


def _quantised(file: container.File, model: Model, progress: Callable[[int], None]) -> np.ndarray:
    if file.model != model.id:
        raise ValueError(f"The file needs the model {file.model.hex()}, not {model.id.hex()}.")
    rows: fitted.Rows | None = {} if file.fitted else None
    if not file.tile:
        decoder = RangeDecoder(file.stream, complete=file.lossless and file.whole)
        return _picture(file, model, rows, repeat(decoder), progress)
    if file.fitted:
        rows = fitted.read_all(tiles.fitted(file), model, file.depth, _colours(file))
    planes = np.empty((len(file.mode), file.height, file.width), np.int64)
    for down, right, decoders in tiles.of(file):
        size = {"height": down.stop - down.start, "width": right.stop - right.start}
        planes[:, down, right] = _picture(replace(file, **size), model, rows, decoders, progress)
    return planes


def _colours(file: container.File) -> int:
    return 3 if file.mode.startswith("RGB") else 1


def _picture(
    file: container.File,
    model: Model,
    rows: fitted.Rows | None,
    decoders: Iterable[RangeDecoder],
    progress: Callable[[int], None],
) -> np.ndarray:
    """The planes of a picture or a tile, whose rungs are read from one decoder each.

    What is known of the rows of the networks' tables is added to.
    """
    size, space = (file.height, file.width, file.depth), spaces.of(file.colours)
    states = [State(model, *size, colours=_colours(file), space=space, rows=rows)]
    if file.mode.endswith("A"):
        states.append(State(model, *size, colours=1))
    walk(states, decoders, progress)
    planes = np.concatenate([state.picture() for state in states])
    if file.colours in (1, 2):
        other = (None, 0, 2)[file.colours]
        planes[[1, other]] = planes[[other, 1]]
    if spaces.is_upside_down(file.colours):
        planes = planes[:, ::-1]
    return planes[..., ::-1] if file.mirrored else planes
