"""diffcodec itself, through its public API."""

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

import diffcodec
from bench.codecs import FileCodec, Point, Setting
from diffcodec.errors import FormatError

NAME = "diffcodec"


@cache
def model_id() -> str:
    """The ids of the default weights, in hexadecimal."""
    files = (diffcodec.encode(Image.new("RGB", (side, side))) for side in (256, 1))
    pictures, thumbnails = (diffcodec.info(data, rungs=False).model for data in files)
    return f"{pictures} (thumbnails {thumbnails})"


@cache
def build() -> str:
    """A digest of the installed package, code and weights: cached results end with it."""
    digest = hashlib.sha256()
    for path in sorted(Path(diffcodec.__file__).parent.rglob("*")):
        if path.suffix in (".py", ".safetensors"):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _version() -> str:
    return f"diffcodec {diffcodec.__version__}, model {model_id()}, build {build()}"


@dataclass(frozen=True)
class Diffcodec(FileCodec):
    """The lossless file."""

    name: str = NAME

    def version(self) -> str:
        return _version()

    def encode(self, image: Image.Image, setting: Setting = "lossless") -> bytes:
        return diffcodec.encode(image)

    def decode(self, data: bytes) -> Image.Image:
        return diffcodec.decode(data)


@dataclass(frozen=True)
class DiffcodecPrefixes:
    """Prefixes of the lossless file: the end of every rung, and `cuts` more between each two."""

    cuts: int = 0
    name: str = NAME
    exact: bool = True

    @property
    def settings(self) -> tuple[Setting, ...]:
        return (f"rungs and {self.cuts} cuts",)

    def version(self) -> str:
        return _version()

    def encode(self, image: Image.Image) -> bytes:
        return diffcodec.encode(image)

    def show(self, data: bytes, received: int) -> Image.Image | None:
        try:
            return diffcodec.decode(data[:received])
        except FormatError:  # not even the header
            return None

    def points(self, image: Image.Image, setting: Setting) -> Iterator[Point]:
        data = self.encode(image)
        *previews, whole = diffcodec.decode_progressive(data)
        for preview in previews:
            yield Point(f"rung {preview.rung}", preview.bytes_used, preview.image, False)
        yield Point("whole file", len(data), whole.image, True)
        for this, following in itertools.pairwise([*previews, whole]):
            start, end = this.bytes_used, following.bytes_used
            sizes = np.geomspace(start, end, self.cuts + 2)[1:-1].astype(int).tolist()
            for cut, size in enumerate(sizes, 1):
                if start < size < end:
                    shown = diffcodec.decode(data[:size])
                    yield Point(f"rung {this.rung} cut {cut}", size, shown, False)
