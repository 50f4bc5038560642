"""Pictures in and out through Pillow: files, modes, alpha, ICC and EXIF.

diffcodec codes planes of 8 or 16 bits in one of the modes L, LA, RGB and RGBA. Everything that
stands between a picture file and such planes is here, and so is the one way in which diffcodec
writes a file. Pillow has no colours of 16 bits: those are a DeepImage, and pypng reads and writes
the samples of their PNG files.
"""

import contextlib
import io
import os
import secrets
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np
import png
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from diffcodec.container import EXIF, ICC, MODES, PALETTE, Boxes
from diffcodec.errors import ImageError
from diffcodec.pictures import palettes
from diffcodec.pictures.metadata import of_info, to_info

# Suffix -> Pillow's format and the options that keep as much of the picture as it can hold.
_WRITERS: dict[str, tuple[str, dict[str, Any]]] = {
    "": ("PNG", {}),
    ".png": ("PNG", {}),
    ".webp": ("WEBP", {"lossless": True, "exact": True}),
    ".tif": ("TIFF", {}),
    ".tiff": ("TIFF", {}),
    ".jp2": ("JPEG2000", {}),
    ".bmp": ("BMP", {}),
    ".ppm": ("PPM", {}),
    ".pgm": ("PPM", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".avif": ("AVIF", {"quality": 90, "subsampling": "4:4:4"}),
}

# Pillow would write these without their alpha and not say so.
_NO_ALPHA = ("PPM", "BMP")

# These keep a palette or one bit a pixel as they are.
_PALETTES = ("PNG", "TIFF")

# Pillow would cut grey of 16 bits to 8 for these and not say so.
_NO_DEPTH = ("WEBP", "AVIF")


@dataclass(frozen=True)
class DeepImage:
    """A picture with colours of 16 bits: an array [H, W, C], its ICC profile and its EXIF block."""

    pixels: NDArray[np.uint16]
    icc: bytes = b""
    exif: bytes = b""

    @property
    def mode(self) -> str:
        """One of LA, RGB and RGBA."""
        return MODES[self.pixels.shape[2] - 1]

    @property
    def width(self) -> int:
        """In pixels."""
        return self.pixels.shape[1]

    @property
    def height(self) -> int:
        """In pixels."""
        return self.pixels.shape[0]


Picture = Image.Image | DeepImage

NO_BOXES: Boxes = MappingProxyType({})

Note = Callable[[str], None]


def _ignore(_: str) -> None:
    pass


def read_image(path: Path | BinaryIO, note: Note = _ignore) -> Picture:
    """Open a picture and load its pixels; of an animation, the first frame.

    `note` is called with a sentence if there are others. Raises ImageError if the file is
    missing, unreadable, damaged, no picture, claims an absurd size, or has colours of 16 bits and
    is no PNG: Pillow would quietly keep 8.
    """
    if not isinstance(path, Path):
        return _open(path, "the input", note)
    try:
        with path.open("rb") as file:
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
    picture: Picture = image
    if image.format == "PNG" and _is_deep(image):
        picture = _read_deep(image, file, name)
    else:
        _load(image, name)
    if (frames := _frames(file)) > 1:
        note(f"{name} has {frames} frames: the first one is taken")
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


def _tiles(image: Image.Image) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Codec and arguments of each tile of a freshly opened picture: how its samples lie."""
    for tile in getattr(image, "tile", ()):
        yield tile.codec_name, tile.args if isinstance(tile.args, tuple) else (tile.args,)


def _is_deep(image: Image.Image) -> bool:
    """Whether a freshly opened picture has colours or alpha of 16 bits; Pillow would keep 8."""
    return (image.mode in MODES or "transparency" in image.info) and any(
        str(raw).endswith((";16B", ";16L", ";16N"))
        or (codec.startswith("ppm") and rest and rest[0] > 255)
        for codec, (raw, *rest) in _tiles(image)
    )


def _read_deep(image: Image.Image, file: BinaryIO, name: str) -> DeepImage:
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
        pixels = np.concatenate([pixels, opaque * np.uint16(65535)], axis=-1)
    found = metadata(image)
    return DeepImage(pixels, found.get(ICC, b""), found.get(EXIF, b""))


def _load(image: Image.Image, name: str) -> None:
    """Load the pixels of a freshly opened picture, mending what Pillow does to sample depths."""
    if _is_deep(image):
        raise ImageError(
            f"{name} has colours of 16 bits, of which Pillow would keep 8: give diffcodec.encode "
            "an array of them, or `diffcodec encode` a PNG file"
        )
    for _, (raw, *_) in _tiles(image):
        if raw in ("L;2", "L;4") and "transparency" in image.info:
            # Pillow widens these samples to 8 bits, but not the transparent one.
            image.info["transparency"] *= 85 if raw == "L;2" else 17
    try:
        image.load()
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error...
        raise ImageError(f"{name} is damaged: {error}") from error


def to_planes(image: Picture | np.ndarray) -> tuple[str, np.ndarray]:
    """Return the coded mode (one of MODES) and the planes, uint8 or uint16 [C, H, W].

    Palettes become RGB, or RGBA if any entry is transparent; bilevel becomes L; a transparent
    colour in L or RGB becomes an alpha plane. Raises ImageError for every other mode, whose
    samples the planes cannot hold or whose colours would change on the way, and for arrays that
    are no pictures.
    """
    if isinstance(image, DeepImage):
        image = image.pixels
    if isinstance(image, np.ndarray):
        return _array_planes(image)
    _load(image, "the picture")
    if image.mode.startswith("I;16") and not image.has_transparency_data:
        return _array_planes(np.asarray(image).astype(np.uint16))
    if image.mode not in (*MODES, "1", "P"):
        raise ImageError(f"pictures of mode {image.mode} are not supported: {_advice(image.mode)}")
    mode = {"1": "L", "P": "RGB"}.get(image.mode, image.mode)
    if image.has_transparency_data and not mode.endswith("A"):
        mode += "A"
    if image.mode != mode:
        image = image.convert(mode)
    pixels = np.asarray(image).reshape(image.height, image.width, len(mode))
    return mode, np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


def _array_planes(pixels: np.ndarray) -> tuple[str, np.ndarray]:
    planes = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim not in (2, 3):
        raise ImageError("an array must be uint8 or uint16, [H, W] or [H, W, channels]")
    if not 1 <= len(planes) <= len(MODES):
        raise ImageError(f"an array of {len(planes)} channels is no picture")
    return MODES[len(planes) - 1], np.ascontiguousarray(planes)


def _advice(mode: str) -> str:
    """What to do with a picture of a mode that is not coded."""
    if mode == "CMYK":
        return (
            "convert it to RGB first, in a program that knows its ICC profile, "
            'or without one with Pillow\'s image.convert("RGB")'
        )
    return "convert it to 8-bit L, LA, RGB or RGBA first"


def from_planes(mode: str, planes: np.ndarray, boxes: Boxes = NO_BOXES) -> Picture:
    """Return the picture of `planes` (uint8 or uint16 [C, H, W]) in `mode`: `to_planes` undone.

    `boxes` are as `metadata` returns them; they go to `info`, where Pillow's own formats keep
    them.
    """
    if beyond_pillow(mode, 8 * planes.itemsize):
        pixels = np.ascontiguousarray(np.moveaxis(planes, 0, -1))
        return DeepImage(pixels, boxes.get(ICC, b""), boxes.get(EXIF, b""))
    pixels = np.array(np.moveaxis(planes, 0, -1), order="C")  # a copy: the picture owns its pixels
    image = Image.fromarray(pixels[..., 0] if mode == "L" else pixels)
    if PALETTE in boxes and planes.dtype == np.uint8:
        image = palettes.restored(planes, boxes[PALETTE]) or image
    image.info.update(to_info(boxes))
    return image


def eight_bits(picture: Picture) -> Image.Image:
    """Return the picture as a screen shows it."""
    mode, planes = to_planes(picture)
    if planes.dtype == np.uint16:
        picture = from_planes(mode, (planes >> 8).astype(np.uint8), metadata(picture))
    return to_pillow(picture)


def coded_kind(picture: Picture) -> tuple[str, int]:
    """Return mode and bits per sample in which a picture is coded; raise ImageError if in none."""
    mode, planes = to_planes(picture)
    return mode, 8 * planes.itemsize


def picture_suffixes() -> set[str]:
    """Return the suffixes of all pictures that Pillow opens, but for .dfc."""
    known = Image.registered_extensions()
    return {suffix for suffix, kind in known.items() if kind in Image.OPEN} - {".dfc"}


def beyond_pillow(mode: str, depth: int) -> bool:
    """Whether Pillow has no pictures of so many bits per sample in a coded mode."""
    return depth == 16 and mode != "L"


def to_pillow(picture: Picture) -> Image.Image:
    """Return what Pillow has a kind of picture for; raise ImageError for a DeepImage."""
    if isinstance(picture, DeepImage):
        raise ImageError(
            f"Pillow has no {picture.mode} pictures of 16 bits: diffcodec.decode_array gives an "
            "array, `diffcodec decode` a PNG file"
        )
    return picture


def metadata(image: Picture) -> dict[int, bytes]:
    """Return the ICC profile and the EXIF block (a TIFF structure), those that there are."""
    if isinstance(image, DeepImage):
        found = {ICC: image.icc, EXIF: image.exif}
        return {kind: content for kind, content in found.items() if content}
    return of_info(image.info)


def palette(image: Picture | np.ndarray, planes: np.ndarray) -> dict[int, bytes]:
    """Return the box that brings a palette or a bilevel mode back, if there is one."""
    content = palettes.box(image, planes) if isinstance(image, Image.Image) else None
    return {} if content is None else {PALETTE: content}


def check_suffix(path: Path, mode: str = "RGB", depth: int = 8) -> None:
    """Raise ImageError if `write_image` has no format for `path`, or none for such samples."""
    if path.suffix.lower() not in _WRITERS:
        known = " ".join(suffix for suffix in _WRITERS if suffix)
        raise ImageError(
            f"cannot write {path}: the suffix {path.suffix} is unknown; known are {known}"
        )
    if beyond_pillow(mode, depth) and _WRITERS[path.suffix.lower()][0] != "PNG":
        raise ImageError(f"cannot write {path}: colours of 16 bits are written as .png")


def write_image(image: Picture, path: Path | BinaryIO) -> None:
    """Write a picture with its ICC profile and EXIF, where the format has room for them.

    The suffix names the format; a path without one, and a stream, get PNG. Formats that can be
    lossless are written so. Raises ImageError for an unknown suffix, a picture that the format
    cannot hold, and an output that cannot be written.
    """
    suffix = ""
    if isinstance(path, Path):
        check_suffix(path, image.mode, 16 if isinstance(image, DeepImage) else 8)
        suffix = path.suffix.lower()
    data = _deep_png(image) if isinstance(image, DeepImage) else _encoded(image, path, suffix)
    if isinstance(path, Path):
        write_atomically(path, data)
    else:
        path.write(data)
        path.flush()


def _encoded(image: Image.Image, path: Path | BinaryIO, suffix: str) -> bytes:
    """The file of a picture in the format of a suffix; `path` is for messages."""
    format, options = _WRITERS[suffix]
    if format in _NO_ALPHA and image.has_transparency_data:
        raise ImageError(f"cannot write {path}: {format} has no alpha; PNG has")
    if format in _NO_DEPTH and image.mode.startswith("I;16"):
        raise ImageError(f"cannot write {path}: {format} has no samples of 16 bits; PNG has")
    opaque = not (format == "TIFF" and image.has_transparency_data)
    if image.mode in ("1", "P") and not (format in _PALETTES and opaque):
        image = to_pillow(from_planes(*to_planes(image), metadata(image)))
    buffer = io.BytesIO()
    try:
        image.save(buffer, format, **options, **to_info(metadata(image)))
    except Exception as error:  # Pillow's writers have no common error either
        raise ImageError(f"cannot write {path} as {format}: {error}") from error
    return buffer.getvalue()


def _deep_png(image: DeepImage) -> bytes:
    """The PNG file of a picture with colours of 16 bits."""
    buffer = io.BytesIO()
    grey, alpha = image.mode == "LA", image.mode.endswith("A")
    writer = png.Writer(image.width, image.height, greyscale=grey, alpha=alpha, bitdepth=16)
    writer.write(buffer, image.pixels.reshape(image.height, -1))
    header, *rest = png.Reader(bytes=buffer.getvalue()).chunks()
    extra = []
    if image.icc:
        extra.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(image.icc)))
    if image.exif:
        extra.append((b"eXIf", image.exif))
    buffer = io.BytesIO()
    png.write_chunks(buffer, [header, *extra, *rest])
    return buffer.getvalue()


def write_atomically(path: Path, data: bytes) -> None:
    """Make `path` hold `data`, or leave it as it was.

    The bytes go to a temporary file in the same folder, which then takes the name. A device or
    a pipe is written to directly. Raises ImageError if the file cannot be written.
    """
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
