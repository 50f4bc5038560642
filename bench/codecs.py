"""The codecs, one short class each.

A `Codec` makes a lossless file. A `Curve` yields the operating points of a codec on one picture.
Both name the library that does the work in `version`, which raises `MissingError` where it is not
installed.
"""

import importlib.util
import io
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import click
import numpy as np
import PIL
from PIL import Image, features

import diffcodec


class MissingError(Exception):
    """The library that a codec needs is not installed."""


class _Named(Protocol):
    @property
    def name(self) -> str:
        """What the tables call it."""

    def version(self) -> str:
        """The library at work and its version; raises MissingError."""


class Codec(_Named, Protocol):
    """Image to lossless file and back."""

    def encode(self, image: Image.Image) -> bytes:
        """The file, in bytes."""

    def decode(self, data: bytes) -> Image.Image:
        """The picture in that file."""


class Curve(_Named, Protocol):
    """A codec over its range of rates."""

    def points(self, image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
        """Yield (bytes that were decoded, the picture they gave)."""


N = TypeVar("N", bound=_Named)


def installed(codecs: Iterable[N]) -> list[N]:
    """Those codecs whose library is there; the others are named on standard error."""
    there = []
    for codec in codecs:
        try:
            codec.version()
        except MissingError as error:
            click.echo(f"skipped: {codec.name} ({error})", err=True)
        else:
            there.append(codec)
    return there


@dataclass(frozen=True)
class Diffcodec:
    """diffcodec's lossless file."""

    name: str = "diffcodec"

    def version(self) -> str:
        return f"diffcodec {diffcodec.__version__}"

    def encode(self, image: Image.Image) -> bytes:
        return diffcodec.encode(image)

    def decode(self, data: bytes) -> Image.Image:
        return diffcodec.decode(data)


@dataclass(frozen=True)
class PillowCodec:
    """A format that Pillow writes itself; `feature` is Pillow's name for the library below."""

    name: str
    format: str
    feature: str
    options: dict[str, Any]

    def version(self) -> str:
        if not features.check(self.feature):
            raise MissingError(f"this Pillow is built without {self.feature}")
        return f"{self.feature} {features.version(self.feature)}, Pillow {PIL.__version__}"

    def encode(self, image: Image.Image) -> bytes:
        return _save(image, self.format, **self.options)

    def decode(self, data: bytes) -> Image.Image:
        return _open(data)


@dataclass(frozen=True)
class JpegXL:
    """JPEG XL lossless at one effort, through imagecodecs."""

    effort: int

    @property
    def name(self) -> str:
        return f"JPEG XL e{self.effort}"

    def version(self) -> str:
        if importlib.util.find_spec("imagecodecs") is None:
            raise MissingError("imagecodecs is not installed")
        import imagecodecs

        return f"{imagecodecs.jpegxl_version()}, imagecodecs {imagecodecs.__version__}"

    def encode(self, image: Image.Image) -> bytes:
        import imagecodecs

        return bytes(imagecodecs.jpegxl_encode(np.array(image), lossless=True, effort=self.effort))

    def decode(self, data: bytes) -> Image.Image:
        import imagecodecs

        return Image.fromarray(imagecodecs.jpegxl_decode(data))


@dataclass(frozen=True)
class Jpeg2000:
    """JPEG 2000 5/3 with the reversible colour transform, one quality layer, no JP2 wrapper."""

    name: str = "JPEG 2000"

    def version(self) -> str:
        return _jpeg2000_version()

    def encode(self, image: Image.Image) -> bytes:
        return _jpeg2000(image, irreversible=False)

    def decode(self, data: bytes) -> Image.Image:
        return _open(data)


@dataclass(frozen=True)
class DiffcodecPrefixes:
    """Prefixes of one lossless file: the end of every rung, and `cuts` more between each two."""

    cuts: int
    name: str = "diffcodec"

    def version(self) -> str:
        return f"diffcodec {diffcodec.__version__}"

    def points(self, image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
        data = diffcodec.encode(image)
        ends = []
        for preview in diffcodec.decode_progressive(data):
            ends.append(preview.bytes_used)
            yield preview.bytes_used, preview.image
        for start, end in itertools.pairwise(ends):
            for size in np.geomspace(start, end, self.cuts + 2)[1:-1].astype(int).tolist():
                if start < size < end:
                    yield size, diffcodec.decode(data, max_bytes=size)


# As OpenJPEG counts them: raw bytes for each byte of the file. From 0.03 to 9 bits per pixel of
# RGB, on Kodak from below 28 dB to above 44 dB; then 1, which is lossless for 5/3.
_RATES = (*(24 / np.geomspace(0.03, 9, 20)).tolist(), 1)


@dataclass(frozen=True)
class Jpeg2000Embedded:
    """Prefixes of one lossless 5/3 file with quality layers: diffcodec's like for like.

    The file is cut after each layer, where JPEG 2000 is at its best. OpenJPEG refuses a file
    that just stops, so the cut tile is closed as a writer would close it (its length and the end
    marker); that is a valid JPEG 2000 file, decoded like any other.
    """

    name: str = "JPEG 2000 5/3 embedded"
    rates: tuple[float, ...] = field(default=_RATES, repr=False)

    def version(self) -> str:
        return _jpeg2000_version()

    def points(self, image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
        # The packet lengths (PLT) tell where a layer ends; `cut` lacks them, so they cost nothing.
        data = _jpeg2000(image, quality_layers=self.rates, progression="LRCP", plt=True)
        head, packets, lengths = _split_packets(data)
        ends = np.cumsum(lengths).tolist()
        per_layer = len(ends) // len(self.rates)
        for end in ends[per_layer - 1 :: per_layer]:
            cut = _close_tile(head, packets[:end])
            yield len(cut), _open(cut)


@dataclass(frozen=True)
class Jpeg2000Files:
    """One JPEG 2000 file for each rate, the rate allocation set on that rate alone.

    OpenJPEG's two modes, a target rate and a target PSNR, were within 0.4 % of each other in bits
    at equal PSNR, through Pillow as through imagecodecs; a rate says what range is covered.
    """

    irreversible: bool
    rates: tuple[float, ...] = field(default=_RATES, repr=False)

    @property
    def name(self) -> str:
        return f"JPEG 2000 {'9/7' if self.irreversible else '5/3'}"

    def version(self) -> str:
        return _jpeg2000_version()

    def points(self, image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
        for rate in self.rates:
            data = _jpeg2000(image, irreversible=self.irreversible, quality_layers=[rate])
            yield len(data), _open(data)


LOSSLESS: tuple[Codec, ...] = (
    Diffcodec(),
    PillowCodec("PNG", "PNG", "zlib", {"optimize": True}),
    # Method 6 is smaller on photographs, the default on tiny pictures. Quality 100 on top gains
    # under 1 % on Kodak, for twenty times the time.
    PillowCodec("WebP", "WEBP", "webp", {"lossless": True}),
    PillowCodec("WebP m6", "WEBP", "webp", {"lossless": True, "method": 6}),
    Jpeg2000(),
    JpegXL(7),
    JpegXL(9),
)


def _save(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def _open(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def _jpeg2000_version() -> str:
    if not features.check("jpg_2000"):
        raise MissingError("this Pillow is built without jpg_2000")
    return f"OpenJPEG {features.version('jpg_2000')}, Pillow {PIL.__version__}"


def _jpeg2000(image: Image.Image, **options: Any) -> bytes:
    # Five wavelet levels; fewer where the lowest band would fall under 8 pixels, which costs more
    # than it saves. OpenJPEG would sign with a 33-byte comment: one byte stands in for it.
    resolutions = max(1, min(6, min(image.size).bit_length() - 3))
    return _save(
        image,
        "JPEG2000",
        no_jp2=True,
        mct=1,
        num_resolutions=resolutions,
        comment="-",
        **options,
    )


_SOT, _SOD, _PLT, _EOC = b"\xff\x90", b"\xff\x93", b"\xff\x58", b"\xff\xd9"
_SOT_BYTES = 12  # marker, length, tile, Psot (4 bytes at offset 6), part, number of parts


def _split_packets(data: bytes) -> tuple[bytes, bytes, list[int]]:
    """Split a one-tile codestream into its header up to SOT, its packets, and their lengths."""
    start = data.index(_SOT + b"\x00\x0a") + _SOT_BYTES
    position, lengths, value = start, [], 0
    while (marker := data[position : position + 2]) != _SOD:
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == _PLT:  # each length in groups of seven bits, the high bit set on all but last
            for byte in data[position + 5 : end]:
                value = value << 7 | byte & 0x7F
                if byte < 0x80:
                    lengths.append(value)
                    value = 0
        position = end
    return data[:start], data[position + 2 : -len(_EOC)], lengths


def _close_tile(head: bytes, packets: bytes) -> bytes:
    """Write a codestream of that header and those packets, with the tile's length put right."""
    length = _SOT_BYTES + len(_SOD) + len(packets)
    sot = head[-_SOT_BYTES:]
    sot = sot[:6] + length.to_bytes(4, "big") + sot[10:]
    return head[:-_SOT_BYTES] + sot + _SOD + packets + _EOC
