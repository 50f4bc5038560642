"""What the bench asks of a codec.

Every adapter has a name, names the library at work in `version`, and yields the operating points
of its settings. Most codecs make one file for each setting: `FileCodec`. Those whose one file can
be cut are `Progressive`.
"""

import functools
import importlib
import importlib.util
import io
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, NamedTuple, Protocol, TypeVar

import click
from PIL import Image

from bench import BenchError

Setting = float | str

LOSSLESS: tuple[Setting, ...] = ("lossless",)


class MissingError(Exception):
    """What a codec needs is not installed."""


class Point(NamedTuple):
    """One operating point: bytes that were decoded, and the picture that they gave.

    `exact` claims that the picture is the original; a claim that does not hold ends the run.
    """

    setting: str
    bytes: int
    image: Image.Image
    exact: bool


class Named(Protocol):
    """Anything that can be measured; its repr holds all options that bear on the result."""

    @property
    def name(self) -> str:
        """What the tables call it."""

    def version(self) -> str:
        """The library at work and its version; raises MissingError."""


class Codec(Named, Protocol):
    """A codec over its range of rates."""

    @property
    def settings(self) -> tuple[Setting, ...]:
        """What is measured apart, and cached apart."""

    def points(self, image: Image.Image, setting: Setting) -> Iterator[Point]:
        """Encode and decode an RGB picture with one setting."""


class Progressive(Named, Protocol):
    """A codec whose one file shows a picture before it has arrived."""

    @property
    def exact(self) -> bool:
        """Whether the whole file is lossless."""

    def encode(self, image: Image.Image) -> bytes:
        """The file."""

    def show(self, data: bytes, received: int) -> Image.Image | None:
        """What its first bytes show, or None while they show nothing."""


@dataclass(frozen=True)
class FileCodec(ABC):
    """A codec that makes a file for each setting; unless told so, it is lossless and has one."""

    name: str
    settings: tuple[Setting, ...] = field(default=LOSSLESS, repr=False)

    @abstractmethod
    def version(self) -> str:
        """The library at work and its version; raises MissingError."""

    @abstractmethod
    def encode(self, image: Image.Image, setting: Setting) -> bytes:
        """The file."""

    @abstractmethod
    def decode(self, data: bytes) -> Image.Image:
        """The picture in a file."""

    def points(self, image: Image.Image, setting: Setting) -> Iterator[Point]:
        data = self.encode(image, setting)
        yield Point(str(setting), len(data), self.decode(data), self.settings == LOSSLESS)

    def fitted(self, image: Image.Image, sizes: Sequence[int]) -> list[Point | None]:
        """The largest file of at most so many bytes, for each size; None where none is so small.

        The settings have to be sorted by the sizes of their files.
        """
        encode = functools.cache(functools.partial(self.encode, image))
        points: list[Point | None] = []
        for size in sizes:
            index = bisect_right(self.settings, size, key=lambda s: len(encode(s))) - 1
            if index < 0:
                points.append(None)
                continue
            setting = self.settings[index]
            data = encode(setting)
            points.append(Point(str(setting), len(data), self.decode(data), False))
        return points


N = TypeVar("N", bound=Named)


def installed(codecs: Iterable[N]) -> tuple[list[N], dict[str, str]]:
    """Split codecs into those that can run and, by name, the reasons why others cannot.

    The reasons are also told on standard error. Raises BenchError when none is left.
    """
    there, skipped = [], {}
    for codec in codecs:
        try:
            codec.version()
        except MissingError as error:
            skipped[codec.name] = str(error)
            click.echo(f"skipped: {codec.name} ({error})", err=True)
        else:
            there.append(codec)
    if not there:
        raise BenchError("none of these codecs can be measured here")
    return there, skipped


def save_image(image: Image.Image, format: str, **options: Any) -> bytes:
    """Write a picture as Pillow does."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def open_image(data: bytes) -> Image.Image:
    """Read a picture as Pillow does; raises OSError."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def load(package: str) -> ModuleType:
    """Import a package that need not be there; raises MissingError."""
    if importlib.util.find_spec(package) is None:
        raise MissingError(f"{package.replace('_', '-')} is not installed")
    return importlib.import_module(package)
