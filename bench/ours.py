"""diffcodec itself, through its public API."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from PIL import Image

import diffcodec
from bench.codecs import FileCodec, Point, Setting
from diffcodec.errors import FormatError

NAME = "diffcodec"

CUTS, HALVINGS = 40, 4
"""Even cuts of a file, and how often the first of them is halved for still lower rates."""

WAYS = ("mean", "visual", "sample")
"""How a prefix can be shown, as `diffcodec.api.SHOWN`, which takes long to import; all are looked
at."""

SHORTEST = 32
"""Bytes of a prefix that has the header in any case."""


@cache
def model_id(model: Path | None = None) -> str:
    """The ids of the weights in hexadecimal: of a model file, or of the default ones."""
    ids = []
    for side, process in ((256, "photo"), (32, "photo"), (256, "drawing")):
        blank = Image.new("RGB", (side, side))
        data = diffcodec.encode(blank, model=model, process="auto" if model else process)
        ids.append(diffcodec.info(data, rungs=False).model)
    return "{} (thumbnails {}, drawings {})".format(*ids)


@cache
def build() -> str:
    """A digest of the installed package, code and weights: cached results end with it."""
    digest = hashlib.sha256()
    for path in sorted(Path(diffcodec.__file__).parent.rglob("*")):
        if path.suffix in (".py", ".safetensors"):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _version(model: Path | None = None) -> str:
    return f"diffcodec {diffcodec.__version__}, model {model_id(model)}, build {build()}"


@dataclass(frozen=True)
class Diffcodec(FileCodec):
    """The lossless file; `fit` and `rgb` are as `diffcodec.encode` takes them."""

    name: str = NAME
    fit: str | None = None
    rgb: bool = False

    def version(self) -> str:
        return _version()

    def encode(self, image: Image.Image, setting: Setting = "lossless") -> bytes:
        return diffcodec.encode(image, fit=self.fit, rgb=self.rgb)

    def decode(self, data: bytes) -> Image.Image:
        return diffcodec.decode(data)


@dataclass(frozen=True)
class DiffcodecPrefixes:
    """Prefixes of the lossless file: so many even cuts, and halvings of the first of them.

    `model` is a model file in place of the default one, `rgb` is as `diffcodec.encode` takes it.
    """

    cuts: int = CUTS
    name: str = NAME
    exact: bool = True
    model: Path | None = field(default=None, repr=False)  # its id counts, not its place
    rgb: bool = False

    @property
    def settings(self) -> tuple[Setting, ...]:
        return (f"{self.cuts} cuts",)

    def version(self) -> str:
        return _version(self.model)

    def encode(self, image: Image.Image) -> bytes:
        return diffcodec.encode(image, model=self.model, rgb=self.rgb)

    def show(self, data: bytes, received: int) -> Image.Image | None:
        try:
            return diffcodec.decode(data[:received], model=self.model)
        except FormatError:  # not even the header
            return None

    def points(self, image: Image.Image, setting: Setting) -> Iterator[Point]:
        data = self.encode(image)
        first = len(data) / self.cuts
        shares = [2.0**-halving for halving in range(HALVINGS, 0, -1)] + [*range(1, self.cuts)]
        sizes = {size for share in shares if (size := int(first * share)) >= SHORTEST} | {len(data)}
        shown = diffcodec.decode_cuts(data, sizes, model=self.model)
        for size, picture in zip(sorted(sizes), shown, strict=True):
            whole = size == len(data)
            name = "whole file" if whole else f"{size / len(data):.4f} of the file"
            yield Point(name, size, diffcodec.to_pillow(picture), whole)


@dataclass(frozen=True)
class DiffcodecShown:
    """Prefixes of the lossless file, shown in one of WAYS."""

    way: str

    @property
    def name(self) -> str:
        return f"{NAME} {self.way}"

    def version(self) -> str:
        return _version()

    def fitted(self, image: Image.Image, sizes: Sequence[int]) -> list[Point | None]:
        """What the first bytes of one file show, for each size; None where it has no header."""
        data = diffcodec.encode(image)
        return [self._point(data[:size]) for size in sizes]

    def _point(self, prefix: bytes) -> Point | None:
        try:
            shown = diffcodec.decode(prefix, show=self.way)
        except FormatError:
            return None
        return Point("prefix", len(prefix), shown, False)
