"""Writing picture files, and the one way in which diffcodec writes a file.

Pillow writes them but for PNG and PPM files with colours of 16 bits. The metadata of PNG files are
put into them afterwards, chunk by chunk.
"""

import contextlib
import io
import os
import secrets
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import png
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from diffcodec.container import EXIF, ICC, IPTC, XMP, Boxes
from diffcodec.errors import ImageError
from diffcodec.paths import StrPath
from diffcodec.pictures import formats
from diffcodec.pictures.formats import Format
from diffcodec.pictures.images import (
    DeepImage,
    Picture,
    from_planes,
    metadata,
    to_pillow,
    to_planes,
)
from diffcodec.pictures.metadata import METRE, colours, iptc_resource, resolution, sizes
from diffcodec.pictures.reading import Note, ignore

_LONG_TEXT = 1000
"""Text of more characters is packed."""


def write_image(image: Picture, path: StrPath | BinaryIO, note: Note = ignore) -> None:
    """Write a picture with its metadata, where the format has room for them.

    The suffix names the format; a path without one, and a stream, get PNG. Formats that can be
    lossless are written so. `note` is called with a sentence if metadata are left out. Raises
    ImageError for an unknown suffix, a picture that the format cannot hold, and an output that
    cannot be written.
    """
    name, format = "the output", formats.PNG
    if isinstance(path, str | os.PathLike):
        name, format = str(path), formats.of_suffix(Path(path))
    data = _encoded(image, name, format)
    if isinstance(path, str | os.PathLike):
        write_atomically(path, data)
    else:
        path.write(data)
        path.flush()
    if lost := formats.lost(format, metadata(image)):
        note(f"{name}: left out is {', '.join(lost)}, which {format.name} does not hold")


def _encoded(image: Picture, name: str, format: Format) -> bytes:
    """The file of a picture in a format; `name` is for messages."""
    boxes = metadata(image)
    mode, depth = _kind(image)
    formats.check(format, name, mode, depth, (image.width, image.height), sizes(boxes))
    try:
        if isinstance(image, DeepImage):
            data = _deep_ppm(image) if format.name == "PPM" else _deep_png(image)
        else:
            data = _by_pillow(image, format, boxes)
    except Exception as error:  # Pillow's writers have no common error
        raise ImageError(f"cannot write {name} as {format.name}: {error}") from error
    return _with_chunks(data, boxes) if format is formats.PNG else data


def _kind(image: Picture) -> tuple[str, int]:
    """Mode and bits per sample, of any picture."""
    if isinstance(image, DeepImage):
        return image.mode, 16
    if image.mode.startswith("I;16"):
        return "L", 16
    return ("RGBA" if image.has_transparency_data else image.mode), 8


def _by_pillow(image: Image.Image, format: Format, boxes: Boxes) -> bytes:
    opaque = not (format.name == "TIFF" and image.has_transparency_data)
    if image.mode in ("1", "P") and not (format.palettes and opaque):
        image = to_pillow(from_planes(*to_planes(image)))
    buffer = io.BytesIO()
    options = (
        {"icc_profile": None} if format is formats.PNG else formats.save_options(format, boxes)
    )
    image.save(buffer, format.name, **format.options, **options)
    return buffer.getvalue()


def _deep_png(image: DeepImage) -> bytes:
    buffer = io.BytesIO()
    grey, alpha = image.mode == "LA", image.mode.endswith("A")
    writer = png.Writer(image.width, image.height, greyscale=grey, alpha=alpha, bitdepth=16)
    writer.write(buffer, image.pixels.reshape(image.height, -1))
    return buffer.getvalue()


def _deep_ppm(image: DeepImage) -> bytes:
    return (
        b"P6\n%d %d\n65535\n" % (image.width, image.height) + image.pixels.astype(">u2").tobytes()
    )


def _with_chunks(data: bytes, boxes: Boxes) -> bytes:
    """A PNG file with metadata, after its header."""
    chunks = list(_chunks(boxes))
    if not chunks:
        return data
    header, *rest = png.Reader(bytes=data).chunks()
    buffer = io.BytesIO()
    png.write_chunks(buffer, [header, *chunks, *rest])
    return buffer.getvalue()


def _chunks(boxes: Boxes) -> Iterator[tuple[bytes, bytes]]:
    """Names and contents of the chunks that hold metadata in a PNG file."""
    if ICC in boxes:
        yield b"iCCP", b"ICC Profile\0\0" + zlib.compress(boxes[ICC])
    for kind, content in colours(boxes).items():
        if not (kind == "sRGB" and ICC in boxes):  # a PNG file has one of them
            yield kind.encode(), content
    if (scale := resolution(boxes)) is not None:
        unit, *sides = scale
        factor = sides[0].denominator * sides[1].denominator if unit is None else METRE / unit
        numbers = [round(factor * each) for each in sides]
        if 0 < min(numbers) <= max(numbers) < 1 << 32:
            yield b"pHYs", struct.pack(">2IB", *numbers, unit is not None)
    if EXIF in boxes:
        yield b"eXIf", boxes[EXIF]
    text = PngInfo()
    if XMP in boxes:
        text.add_itxt("XML:com.adobe.xmp", boxes[XMP])
    if IPTC in boxes:  # as ImageMagick and ExifTool have it
        profile = iptc_resource(boxes[IPTC])
        text.add_text("Raw profile type iptc", f"\niptc\n{len(profile):8}\n{profile.hex()}\n", True)
    for key, value in formats.png_texts(boxes).items():
        text.add_text(key, value, zip=len(value) > _LONG_TEXT)
    yield from ((kind, content) for kind, content, _ in text.chunks)


def write_atomically(path: StrPath, data: bytes) -> None:
    """Make `path` hold `data`, or leave it as it was.

    The bytes go to a temporary file in the same folder, which then takes the name. A device or
    a pipe is written to directly. Raises ImageError if the file cannot be written.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)
        else:
            _replace(path.resolve(), data)  # resolved: a symbolic link stays one
    except OSError as error:
        raise ImageError(f"cannot write {path}: {error.strerror or error}") from error


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".diffcodec-{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, temporary)
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
