"""Reading picture files, and saying what of them is left out.

Pillow reads them but for samples of 16 bits that it would change: pypng reads those of PNG files,
those of PPM and PGM files lie open.
"""

import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import png
from PIL import Image, ImageFile, UnidentifiedImageError

from diffcodec.errors import ImageError
from diffcodec.paths import StrPath
from diffcodec.pictures.images import DeepImage, Picture
from diffcodec.pictures.loading import is_deep, load, tiles
from diffcodec.pictures.metadata import IPTC_RESOURCE, RAW_COLOURS, of_image, to_info

Note = Callable[[str], None]

_DEEPEST = 65535

_PNG_CHUNKS = frozenset(
    [
        *("IHDR", "PLTE", "IDAT", "IEND", "tRNS", "iCCP", "eXIf", "tEXt", "zTXt", "iTXt"),
        *("pHYs", "gAMA", "cHRM", "sRGB", "acTL", "fcTL", "fdAT", *RAW_COLOURS),
    ]
)
"""What is kept of a PNG file, in one form or another."""

_JPEG_SEGMENTS = (
    *(b"JFIF\0", b"Exif\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0", b"Adobe"),
    *(b"MPF\0", b"urn:iso:std:iso:ts:21496:-1\0", b"Photoshop 3.0\0"),
)
"""How segments of a JPEG file begin that are kept, are spoken of by themselves, or not needed."""

_GAIN_MAP = (b"hdrgm:Version", b"urn:iso:std:iso:ts:21496:-1\0")
_RESOLUTION_RESOURCE, _DIGEST_RESOURCE = 0x03ED, 0x0425
_TIFF_TAGS = {34377: "Photoshop's resources", 37724: "Photoshop's layers"}


def ignore(_: str) -> None:
    """The note of a caller who does not ask."""


def read_image(path: StrPath | BinaryIO, note: Note = ignore) -> Picture:
    """Open a picture, by its path or as an open file, and load its pixels; of an animation, the
    first frame.

    `note` is called with a sentence on each thing that is left out or changed: other frames, a
    gain map, metadata that have no place in a .dfc file, and samples that are scaled to 16 bits.
    Raises ImageError if the file is missing, unreadable, damaged, no picture, claims an absurd
    size, or has samples that Pillow would quietly change.
    """
    if not isinstance(path, str | os.PathLike):
        return _open(path, "the input", note)
    try:
        with Path(path).open("rb") as file:
            return _open(file, str(path), note)
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror or error}") from error


def _open(file: BinaryIO, name: str, note: Note) -> Picture:
    try:
        with warnings.catch_warnings():
            # Pillow warns at half the size at which it refuses; a large photograph is no attack.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(file)
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not a picture in a format that Pillow reads") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} claims an absurd size: {error}") from error
    except Exception as error:  # a broken header surfaces as whatever the plugin tripped over
        raise ImageError(f"{name} is damaged: {error}") from error
    picture: Picture
    raws = [str(raw) for _, (raw, *_) in tiles(image)]
    maximum = _ppm_maximum(image)
    if image.format == "PNG" and is_deep(image):
        picture = _read_deep_png(image, file, name)
    elif maximum > 255:
        picture = _read_deep_ppm(image, file, name, maximum)
    else:
        picture = load(image, name)
    if 0 < maximum < 255 or 255 < maximum < _DEEPEST:
        to = 255 if maximum < 255 else _DEEPEST
        note(f"{name} has samples from 0 to {maximum:,}: they are scaled to {to:,}")
    chunks = _png_chunks(file) if image.format == "PNG" else {}
    image.info |= {kind: chunks[kind] for kind in RAW_COLOURS if kind in chunks}
    info = to_info(of_image(image))
    if isinstance(picture, DeepImage):
        picture = replace(picture, info=info)
    else:
        picture.info |= info
    if (frames := _frames(file)) > 1:
        note(f"{name} has {frames} frames: the first one is taken")
    if _has_gain_map(image):
        note(f"{name} has a gain map for brighter screens: it is left out")
    if left_out := list(_left_out(image, chunks, raws)):
        note(f"{name}: left out is {', '.join(left_out)}")
    return picture


def _frames(file: BinaryIO) -> int:
    """How many pictures a file holds; counted apart, because that moves Pillow to the last."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file.seek(0)
            return getattr(Image.open(file), "n_frames", 1)
    except Exception:  # damage among later frames is not our business
        return 1


def _has_gain_map(image: Image.Image) -> bool:
    """Whether a JPEG file has a second picture that brightens the first one."""
    segments = [content for _, content in getattr(image, "applist", ())]
    return "mp" in image.info and any(mark in each for mark in _GAIN_MAP for each in segments)


def _png_chunks(file: BinaryIO) -> dict[str, bytes]:
    """Names and contents of the chunks of a PNG file, up to where it is damaged."""
    file.seek(0)
    found = {}
    with suppress(Exception):  # Pillow has found no damage that matters
        for kind, data in png.Reader(file).chunks():
            found[kind.decode("latin-1")] = b"" if kind == b"IDAT" else data
    return found


def _left_out(image: Image.Image, chunks: Iterable[str], raws: list[str]) -> Iterator[str]:
    """What a picture's file has beyond what is kept.

    `chunks` are those of a PNG file; `raws` tell how Pillow found the samples.
    """
    yield from sorted(set(chunks) - _PNG_CHUNKS)
    if any(getattr(value, "lang", None) for value in image.info.values()):
        yield "the language of text"
    for segment, content in getattr(image, "applist", ()):
        if segment.startswith("APP") and not content.startswith(_JPEG_SEGMENTS):
            name = content.partition(b"\0")[0].decode("latin-1")
            yield name if name.isprintable() and 1 < len(name) < 50 else segment
    resources = image.info.get("photoshop", {})
    if resources.keys() - {IPTC_RESOURCE, _RESOLUTION_RESOURCE, _DIGEST_RESOURCE}:
        yield _TIFF_TAGS[34377]
    tags = getattr(image, "tag_v2", {})
    yield from (words for tag, words in _TIFF_TAGS.items() if tag in tags)
    if not isinstance(tags.get(33723, b""), bytes):  # long integers, of which Pillow takes one
        yield "IPTC"
    if image.format == "TIFF" and any(raw.endswith("X") for raw in raws):
        yield "samples beside the colours"


def _read_deep_png(image: Image.Image, file: BinaryIO, name: str) -> DeepImage:
    """Read the samples of a PNG file that Pillow has opened; a transparent colour becomes alpha."""
    try:
        image.load()  # metadata may follow the samples
        file.seek(0)
        width, height, rows, found = png.Reader(file=file).read()
        pixels = np.vstack(list(rows)).reshape(height, width, -1)
    except Exception as error:  # neither library has a common error
        raise ImageError(f"{name} is damaged: {error}") from error
    if "transparent" in found:
        opaque = np.any(pixels != np.uint16(found["transparent"]), axis=-1, keepdims=True)
        pixels = np.concatenate([pixels, opaque * np.uint16(_DEEPEST)], axis=-1)
    return DeepImage(pixels)


def _ppm_maximum(image: Image.Image) -> int:
    """The number that stands for white in a PPM or PGM file; 0 in others."""
    if image.format == "PPM" and image.mode in ("L", "I", "RGB"):
        for codec, (raw, *rest) in tiles(image):
            if codec == "raw":
                return _DEEPEST if raw == "I;16B" else 255
            return rest[0]
    return 0


def _read_deep_ppm(image: ImageFile.ImageFile, file: BinaryIO, name: str, maximum: int) -> Picture:
    """Read the samples of a PPM or PGM file that Pillow has opened."""
    codec, _, offset, _ = image.tile[0]
    shape = (image.height, image.width, len(image.getbands()))
    file.seek(offset)
    try:
        if codec == "ppm_plain":
            words = re.sub(rb"#[^\r\n]*", b"", file.read()).split()
            samples = np.array(words[: np.prod(shape)]).astype(np.uint64)
        else:
            samples = np.frombuffer(file.read(2 * int(np.prod(shape))), ">u2").astype(np.uint64)
        samples = samples.reshape(shape)
        if samples.max() > maximum:
            raise ValueError(f"a sample is above {maximum}")
    except Exception as error:
        raise ImageError(f"{name} is damaged: {error}") from error
    pixels = ((samples * _DEEPEST + maximum // 2) // maximum).astype(np.uint16)
    return DeepImage(pixels) if shape[2] > 1 else Image.fromarray(pixels[..., 0])
