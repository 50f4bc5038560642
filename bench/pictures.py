"""Where the measured pictures come from."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from bench import BenchError


@dataclass(frozen=True)
class Picture:
    """A picture on disk, or the square of `side` pixels at column and row of a mosaic."""

    path: Path
    side: int | None = None
    column: int = 0
    row: int = 0

    @property
    def name(self) -> str:
        """The file name, with the tile's row and column where there is one."""
        return (
            self.path.name if self.side is None else f"{self.path.name}[{self.row},{self.column}]"
        )

    def load(self) -> Image.Image:
        """Read the pixels as RGB, so that every codec gets the same three channels and no metadata.

        Raises BenchError when the file is no picture.
        """
        image = _read(self.path)
        if self.side is None:
            return image.copy()
        left, top = self.column * self.side, self.row * self.side
        return image.crop((left, top, left + self.side, top + self.side))

    def digest(self) -> str:
        """SHA-256 of size and pixels, in hexadecimal."""
        image = self.load()
        return hashlib.sha256(str(image.size).encode() + image.tobytes()).hexdigest()


def find(
    data: Path, tiles: int | None = None, limit: int | None = None, only: Path | None = None
) -> list[Picture]:
    """List the pictures of a folder by name, or the one that `data` is.

    With `tiles`, each is a mosaic, cut row-major into squares of that side. At most `limit` come
    back. `only` is a text file with the names of those that count, one a line. Raises BenchError
    when there is none, or when a mosaic is not a whole number of tiles.
    """
    known = Image.registered_extensions()
    paths = [data] if data.is_file() else sorted(data.iterdir())
    paths = [path for path in paths if path.suffix.lower() in known]
    if only is not None:
        names = set(only.read_text().split())
        paths = [path for path in paths if path.name in names]
    pictures: list[Picture] = []
    for path in paths:
        if limit is not None and len(pictures) >= limit:
            break
        if tiles is None:
            pictures.append(Picture(path))
            continue
        width, height = _read(path).size
        if width % tiles or height % tiles:
            raise BenchError(f"{path.name}: {width}x{height} does not divide into {tiles}x{tiles}")
        pictures += [
            Picture(path, tiles, column, row)
            for row in range(height // tiles)
            for column in range(width // tiles)
        ]
    if not pictures:
        raise BenchError(f"no pictures in {data}")
    return pictures[:limit]


@lru_cache(maxsize=1)  # a mosaic is decoded once, not once for each of its tiles
def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return Image.fromarray(np.array(image.convert("RGB")))
    except OSError as error:
        raise BenchError(f"{path.name}: {error}") from error
