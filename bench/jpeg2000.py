"""JPEG 2000 through Pillow: the one common codec whose file, too, is embedded up to lossless."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
import PIL
from PIL import Image, features

from bench.codecs import LOSSLESS, FileCodec, MissingError, Point, Setting, open_image, save_image

# As OpenJPEG counts them: raw bytes for each byte of the file. From 0.03 to 9 bits per pixel of
# RGB, on Kodak from below 28 dB to above 44 dB.
RATES: tuple[Setting, ...] = tuple((24 / np.geomspace(0.03, 9, 20)).tolist())


@dataclass(frozen=True)
class Jpeg2000(FileCodec):
    """A JPEG 2000 codestream without the JP2 wrapper: lossless, or a file for each rate.

    The reversible 5/3 or the irreversible 9/7 wavelet, always with its colour transform. OpenJPEG's
    two modes, a target rate and a target PSNR, were within 0.4 % of each other in bits at equal
    PSNR, through Pillow as through imagecodecs; a rate says what range is covered.
    """

    irreversible: bool = False

    def version(self) -> str:
        return _version()

    def encode(self, image: Image.Image, setting: Setting) -> bytes:
        layers = {} if setting in LOSSLESS else {"quality_layers": [setting]}
        return _encode(image, irreversible=self.irreversible, **layers)

    def decode(self, data: bytes) -> Image.Image:
        return open_image(data)


@dataclass(frozen=True)
class Jpeg2000Embedded:
    """Prefixes of one lossless 5/3 file with quality layers: diffcodec's like for like.

    OpenJPEG refuses a file that just stops, so the cut tile is closed as a writer would close it
    (its length and the end marker) after its last whole packet; that is a valid JPEG 2000 file,
    decoded like any other. The file carries packet lengths (PLT) to find them; what is decoded
    and counted lacks them, so they cost nothing.
    """

    name: str = "JPEG 2000 5/3 embedded"
    exact: bool = True
    settings: tuple[Setting, ...] = (f"{len(RATES) + 1} layers",)

    def version(self) -> str:
        return _version()

    def encode(self, image: Image.Image) -> bytes:
        layers = [*RATES, 1]  # a rate of 1 is lossless
        return _encode(image, quality_layers=layers, progression="LRCP", plt=True)

    def show(self, data: bytes, received: int) -> Image.Image | None:
        head, packets, ends = _split_packets(data)
        room = received - len(_close_tile(head, b""))
        fitting = [end for end in ends if end <= room]
        return open_image(_close_tile(head, packets[: fitting[-1]])) if fitting else None

    def points(self, image: Image.Image, setting: Setting) -> Iterator[Point]:
        head, packets, ends = _split_packets(self.encode(image))
        layers = len(RATES) + 1
        per_layer = len(ends) // layers
        for layer, end in enumerate(ends[per_layer - 1 :: per_layer], 1):
            cut = _close_tile(head, packets[:end])
            yield Point(f"layer {layer}", len(cut), open_image(cut), layer == layers)


def _version() -> str:
    if not features.check("jpg_2000"):
        raise MissingError("this Pillow is built without OpenJPEG")
    return f"OpenJPEG {features.version('jpg_2000')}, Pillow {PIL.__version__}"


def _encode(image: Image.Image, **options: Any) -> bytes:
    # Five wavelet levels; fewer where the lowest band would fall under 8 pixels, which costs more
    # than it saves. OpenJPEG would sign with a 33-byte comment: one byte stands in for it.
    resolutions = max(1, min(6, min(image.size).bit_length() - 3))
    shape: dict[str, Any] = {"no_jp2": True, "mct": 1, "num_resolutions": resolutions}
    return save_image(image, "JPEG2000", comment="-", **shape, **options)


_SOT, _SOD, _PLT, _EOC = b"\xff\x90", b"\xff\x93", b"\xff\x58", b"\xff\xd9"
_SOT_BYTES = 12  # marker, length, tile, Psot (4 bytes at offset 6), part, number of parts


@lru_cache(maxsize=1)
def _split_packets(data: bytes) -> tuple[bytes, bytes, list[int]]:
    """Split a one-tile codestream into its header up to SOT, its packets, and where each ends."""
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
    return data[:start], data[position + 2 : -len(_EOC)], list(accumulate(lengths))


def _close_tile(head: bytes, packets: bytes) -> bytes:
    """Write a codestream of that header and those packets, with the tile's length put right."""
    length = _SOT_BYTES + len(_SOD) + len(packets)
    sot = head[-_SOT_BYTES:]
    sot = sot[:6] + length.to_bytes(4, "big") + sot[10:]
    return head[:-_SOT_BYTES] + sot + _SOD + packets + _EOC
