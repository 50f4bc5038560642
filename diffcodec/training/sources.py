"""Where the pictures of a training come from: folders, and packed files that travel to a GPU."""

import io
import random
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from diffcodec.errors import ImageError
from diffcodec.pictures.writing import write_atomically

SUFFIXES = {".png", ".webp", ".jpg", ".jpeg", ".bmp", ".ppm", ".tif", ".tiff"}

PACKED_SIDE = 1024
"""The largest side of what is packed: crops of very large pictures would be too much alike."""

# Of a ZIP archive: both headers of a file without its name, with room for larger ones, and the end.
_HEADERS, _END = 200, 22


@dataclass(frozen=True)
class Found:
    """A picture of a source: its name, from the source's own name on, and what opens its file."""

    name: str
    open: Callable[[], IO[bytes]]

    @property
    def folder(self) -> str:
        """The folder that it is from."""
        return str(PurePosixPath(self.name).parent)

    def read(self) -> Image.Image:
        """The picture as RGB."""
        with self.open() as file, Image.open(file) as image:
            return image.convert("RGB")


def find(data: Sequence[Path]) -> list[Found]:
    """All pictures below folders and in packed files, in the order of their names.

    Raises ImageError if a source has none.
    """
    found = []
    for source in data:
        own = _in_folder(source) if source.is_dir() else _in_packed(source)
        if not own:
            raise ImageError(f"There are no pictures in {source}.")
        found += own
    return sorted(found, key=lambda picture: picture.name)


def load(pictures: Sequence[Found]) -> list[Tensor]:
    """Pictures as uint8 [3, H, W], which leaves no decoding for the training loop."""
    return [
        torch.from_numpy(np.array(picture.read())).permute(2, 0, 1).contiguous()
        for picture in tqdm(pictures, "reading", leave=False, disable=None)
    ]


def pack(data: Sequence[Path], out: Path, mib: float, seed: int = 0) -> tuple[int, int]:
    """Write pictures of some sources, at random, as one file that `find` reads.

    Of one that is larger than PACKED_SIDE there is a random crop. All are lossless.

    Args:
        data: folders and packed files.
        out: the file, a ZIP archive.
        mib: at most so many MiB.
        seed: of the choice.

    Returns how many pictures it has, and how many there are.
    """
    draw, pictures, packed = random.Random(seed), find(data), 0
    draw.shuffle(pictures)
    archive, room = io.BytesIO(), mib * 2**20 - _END
    with zipfile.ZipFile(archive, "w") as file:
        for picture in tqdm(pictures, f"packing {out.name}", disable=None):
            image = picture.read()
            width, height = (min(side, PACKED_SIDE) for side in image.size)
            left, top = draw.randint(0, image.width - width), draw.randint(0, image.height - height)
            coded = io.BytesIO()
            image.crop((left, top, left + width, top + height)).save(coded, "WEBP", lossless=True)
            name = str(PurePosixPath(picture.name).with_suffix(".webp"))
            size = coded.tell() + _HEADERS + 2 * len(name.encode())
            if size <= room:
                file.writestr(name, coded.getvalue())
                room -= size
                packed += 1
    write_atomically(out, archive.getvalue())
    return packed, len(pictures)


def _in_folder(folder: Path) -> list[Found]:
    root = folder.absolute().parent
    return [
        Found(path.absolute().relative_to(root).as_posix(), partial(io.FileIO, path))
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
    ]


def _in_packed(path: Path) -> list[Found]:
    try:
        file = zipfile.ZipFile(path)  # open for as long as its pictures are wanted
    except (OSError, zipfile.BadZipFile) as error:
        raise ImageError(f"{path} is neither a folder nor a packed set of pictures.") from error
    return [Found(name, partial(file.open, name)) for name in file.namelist()]
