"""The common codecs, through the libraries that people use them with."""

import re
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import PIL
from PIL import Image, features

from bench.codecs import (
    LOSSLESS,
    FileCodec,
    MissingError,
    Setting,
    load,
    open_image,
    save_image,
)


@dataclass(frozen=True)
class PillowCodec(FileCodec):
    """A format that Pillow writes itself; a setting is its `quality`.

    `feature` is Pillow's name for the library below.
    """

    format: str = ""
    feature: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    def version(self) -> str:
        if not features.check(self.feature):
            raise MissingError(f"this Pillow is built without {self.feature}")
        if "advanced" in self.options:
            try:
                self.encode(Image.new("RGB", (16, 16)), self.settings[0])
            except ValueError as error:
                raise MissingError(f"its encoder refuses {self.options['advanced']}") from error
        return f"{self.feature} {features.version(self.feature)}, Pillow {PIL.__version__}"

    def encode(self, image: Image.Image, setting: Setting) -> bytes:
        quality = {} if setting in LOSSLESS else {"quality": setting}
        return save_image(image, self.format, **self.options, **quality)

    def decode(self, data: bytes) -> Image.Image:
        return open_image(data)


@dataclass(frozen=True)
class Heic(FileCodec):
    """HEVC 4:4:4 in HEIF, through pillow-heif; a setting is its `quality`."""

    name: str = "HEIC"
    settings: tuple[Setting, ...] = field(
        default=(5, 15, 25, 35, 45, 55, 65, 75, 85, 93), repr=False
    )

    def version(self) -> str:
        library = load("pillow_heif").libheif_info()
        return f"libheif {library['libheif']}, {library['HEIF']}"

    def encode(self, image: Image.Image, setting: Setting) -> bytes:
        load("pillow_heif").register_heif_opener()
        return save_image(image, "HEIF", quality=setting, chroma=444)

    def decode(self, data: bytes) -> Image.Image:
        load("pillow_heif").register_heif_opener()
        return open_image(data)


@dataclass(frozen=True)
class ImagecodecsCodec(FileCodec):
    """A format that imagecodecs writes; a setting is its option `varies`."""

    format: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    varies: str = ""

    def version(self) -> str:
        library = load("imagecodecs")
        version = getattr(library, f"{self.format}_version")()
        return f"{version}, imagecodecs {library.__version__}"

    def encode(self, image: Image.Image, setting: Setting) -> bytes:
        encode = getattr(load("imagecodecs"), f"{self.format}_encode")
        varied = {} if setting in LOSSLESS else {self.varies: setting}
        return bytes(encode(np.array(image), **self.options, **varied))

    def decode(self, data: bytes) -> Image.Image:
        return Image.fromarray(getattr(load("imagecodecs"), f"{self.format}_decode")(data))


@dataclass(frozen=True)
class JpegLsOfDifferences(FileCodec):
    """JPEG-LS after a reversible colour transform, without which it knows nothing of colours.

    The planes are G, R - G and B - (R + G) / 2, modulo 256 (HP2 of JPEG-LS, part 2): the
    smallest on Kodak of HP1, HP2 and HP3. A file is the lengths of the first two planes' streams,
    then all three.
    """

    name: str = "JPEG-LS RCT"

    def version(self) -> str:
        return ImagecodecsCodec(self.name, format="jpegls").version()

    def encode(self, image: Image.Image, setting: Setting) -> bytes:
        red, green, blue = np.array(image).transpose(2, 0, 1).astype(int)
        planes = green, red - green + 128, blue - (red + green >> 1) + 128
        encode = load("imagecodecs").jpegls_encode
        streams = [bytes(encode(np.ascontiguousarray(p & 255, np.uint8))) for p in planes]
        return struct.pack("<II", *map(len, streams[:2])) + b"".join(streams)

    def decode(self, data: bytes) -> Image.Image:
        first, second = struct.unpack_from("<II", data)
        rest = data[struct.calcsize("<II") :]
        streams = rest[:first], rest[first : first + second], rest[first + second :]
        green, *others = (load("imagecodecs").jpegls_decode(s).astype(int) for s in streams)
        red = others[0] + green - 128 & 255
        blue = others[1] + (red + green >> 1) - 128 & 255
        return Image.fromarray(np.stack((red, green, blue), -1).astype(np.uint8))


@dataclass(frozen=True)
class ProgressiveJpeg:
    """A progressive JPEG without chroma subsampling, at Pillow's quality 90."""

    name: str = "JPEG progressive"
    exact: bool = False

    def version(self) -> str:
        return PillowCodec(self.name, feature="libjpeg_turbo").version()

    def encode(self, image: Image.Image) -> bytes:
        return save_image(image, "JPEG", quality=90, subsampling=0, progressive=True)

    def show(self, data: bytes, received: int) -> Image.Image | None:
        # libjpeg ends a scan that stops at an end marker, but needs whole segments outside scans.
        start, shown = len(_SOI), 0
        while start + 4 <= received:
            end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
            if end > received:
                break
            if data[start : start + 2] == _SOS:
                marker = _MARKER.search(data, end, received)
                shown = end = marker.start() if marker else received
            start = end
        return open_image(data[:shown] + _EOI) if shown else None


_SOI, _SOS, _EOI = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")  # no stuffing, no restart
