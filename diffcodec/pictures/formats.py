"""The formats of picture files that are written, and what of a picture each of them holds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from diffcodec.container import (
    COLOUR,
    EXIF,
    ICC,
    IPTC,
    MAX_PIXELS,
    RESOLUTION,
    TEXT,
    XMP,
    Boxes,
)
from diffcodec.errors import ImageError
from diffcodec.pictures import exif
from diffcodec.pictures.metadata import (
    COMMENT,
    NAMES,
    colours,
    iptc_resource,
    resolution,
    texts,
)

_PHOTOSHOP = b"Photoshop 3.0\0"
_SEGMENT = 65533
"""Most bytes of a segment of a JPEG file."""


@dataclass(frozen=True)
class Format:
    """A format of files.

    Attributes:
        name: Pillow's.
        options: with which Pillow keeps as much of the picture as the format can hold.
        holds: the kinds of boxes.
        limits: most bytes of some of them.
        alpha, palettes: whether it has them.
        depths: the modes in which it has samples of 16 bits.
        side: most pixels of a side.
        reads_exif: whether Pillow must understand EXIF to write it.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    holds: tuple[int, ...] = ()
    limits: Mapping[int, int] = field(default_factory=dict)
    alpha: bool = True
    palettes: bool = False
    depths: tuple[str, ...] = ()
    side: int = MAX_PIXELS
    reads_exif: bool = False


PNG = Format("PNG", holds=tuple(NAMES), palettes=True, depths=("L", "LA", "RGB", "RGBA"))
_TIFF = Format(
    "TIFF",
    {"compression": "raw"},
    (ICC, EXIF, XMP, IPTC, RESOLUTION),
    palettes=True,
    depths=("L",),
    reads_exif=True,
)
_AVIF = Format(
    "AVIF",
    {"quality": 90, "subsampling": "4:4:4"},
    (ICC, EXIF, XMP),
    side=65536,
    reads_exif=True,
)
_PPM = Format("PPM", alpha=False, depths=("L", "RGB"))
_JPEG = Format(
    "JPEG",
    {"quality": 95, "subsampling": 0},
    (ICC, EXIF, XMP, IPTC, TEXT, RESOLUTION),
    {
        ICC: 255 * (_SEGMENT - 14),
        EXIF: _SEGMENT - len(exif.PREFIX),
        XMP: _SEGMENT - 29,
        IPTC: _SEGMENT - len(_PHOTOSHOP) - 13,
    },
    alpha=False,
    side=65500,
)
_FORMATS = {
    "": PNG,
    ".png": PNG,
    ".webp": Format("WEBP", {"lossless": True, "exact": True}, (ICC, EXIF, XMP), side=16383),
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".jp2": Format("JPEG2000", holds=(TEXT,), depths=("L",)),
    ".bmp": Format("BMP", holds=(RESOLUTION,), alpha=False),
    ".ppm": _PPM,
    ".pgm": _PPM,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".avif": _AVIF,
}


def of_suffix(path: Path) -> Format:
    """The format of a path's suffix. Raises ImageError if it is unknown."""
    if path.suffix.lower() not in _FORMATS:
        known = " ".join(suffix for suffix in _FORMATS if suffix)
        raise ImageError(
            f"cannot write {path}: the suffix {path.suffix} is unknown; known are {known}"
        )
    return _FORMATS[path.suffix.lower()]


def check_suffix(path: Path) -> None:
    """Raise ImageError if `write_image` has no format for `path`."""
    of_suffix(path)


def check_target(
    path: Path, mode: str, depth: int, size: tuple[int, int], metadata: Mapping[str, int]
) -> None:
    """Raise ImageError if `write_image` has no format for `path`, or it cannot hold a picture.

    Args:
        path: the file that would be written.
        mode, depth, size: of the picture: one of L, LA, RGB and RGBA, bits per sample, and width
            and height in pixels.
        metadata: bytes by name, as `Info` has them.
    """
    check(of_suffix(path), path, mode, depth, size, metadata)


def check(
    format: Format,
    path: object,
    mode: str,
    depth: int,
    size: tuple[int, int],
    metadata: Mapping[str, int],
) -> None:
    """As `check_target`, for a format; `path` is for messages."""
    if depth == 16 and mode not in format.depths:
        kind = "grey" if mode == "L" else "colours" if mode == "RGB" else "alpha"
        why = f"{format.name} has no {kind} of 16 bits"
        raise _refusal(path, why, lambda other: mode in other.depths)
    if mode.endswith("A") and not format.alpha:
        raise _refusal(path, f"{format.name} has no alpha", lambda other: other.alpha)
    if max(size) > format.side:
        why = f"{format.name} has at most {format.side:,} pixels a side, not {max(size):,}"
        raise _refusal(path, why, lambda other: max(size) <= other.side)
    for box, most in format.limits.items():
        if (found := metadata.get(NAMES[box], 0)) > most:
            why = f"{format.name} has at most {most:,} bytes of {NAMES[box]}, not {found:,}"
            raise _refusal(path, why, partial(_holds, box))


def save_options(format: Format, boxes: Boxes) -> dict[str, Any]:
    """Pillow's options that write a picture's metadata in a format; PNG has chunks instead."""
    # What is None would come from the picture.
    found: dict[str, Any] = {"icc_profile": boxes.get(ICC), "comment": None}
    held = {kind: boxes[kind] for kind in format.holds if kind in boxes}
    if format.reads_exif and _writable(boxes.get(EXIF, b"")) is None:
        held.pop(EXIF, None)
    comment = texts(held).get(COMMENT, "").encode()
    if comment and len(comment) <= _SEGMENT:
        found["comment"] = comment
    unit, across, down = resolution(held) or (None, 1, 1)
    if unit is not None and max(dpi := (float(across / unit), float(down / unit))) < 1 << 16:
        found["dpi"] = dpi
    if format is _TIFF:
        return found | {"exif": _tiff_tags(held)}
    if EXIF in held:
        found["exif"] = exif.PREFIX + held[EXIF]
    if XMP in held:
        found["xmp"] = held[XMP]
    if IPTC in held:
        content = _PHOTOSHOP + iptc_resource(held[IPTC])
        found["extra"] = b"\xff\xed" + (len(content) + 2).to_bytes(2, "big") + content
    return found


def lost(format: Format, boxes: Boxes) -> list[str]:
    """The names of the metadata that a format does not hold."""
    gone = {kind for kind in NAMES if kind in boxes and kind not in format.holds}
    if format is PNG:
        gone |= {TEXT} if len(png_texts(boxes)) < len(texts(boxes)) else set()
    else:
        if set(texts(boxes)) - {COMMENT}:
            gone.add(TEXT)
        if (scale := resolution(boxes)) is not None and scale[0] is None:
            gone.add(RESOLUTION)
        if COLOUR in gone and colours(boxes).keys() <= {"sRGB", "gAMA", "cHRM"}:
            # sRGB is what is supposed if nothing is said.
            gone -= {COLOUR} if "sRGB" in colours(boxes) or ICC in boxes else set()
    if format.reads_exif and EXIF in boxes and _writable(boxes[EXIF]) is None:
        gone.add(EXIF)
    return [NAMES[kind] for kind in NAMES if kind in gone]


def png_texts(boxes: Boxes) -> dict[str, str]:
    """What of the text box goes to a PNG file, whose keys are short and Latin-1."""
    found = texts(boxes)
    return {key: found[key] for key in found if 0 < len(key) < 80 and max(key) < "\u0100"}


def _tiff_tags(boxes: Boxes) -> bytes:
    """The metadata that are tags of a TIFF file, as an EXIF block."""
    tags = exif.parsed(_writable(boxes.get(EXIF, b"")) or b"") or Image.Exif()
    for kind, tag in ((XMP, 700), (IPTC, 33723)):
        if kind in boxes:
            tags[tag] = boxes[kind]
    return exif.block(tags)


def _writable(content: bytes) -> bytes | None:
    """What of an EXIF block can be a TIFF file's; None if it is damaged."""
    found = exif.parsed(content)
    try:
        with exif.quiet():
            return None if found is None else exif.descriptive(found)
    except Exception:  # values that Pillow reads, but cannot write
        return None


def _holds(box: int, format: Format) -> bool:
    return box in format.holds


def _refusal(path: object, why: str, holds: Callable[[Format], bool]) -> ImageError:
    """An error that names the suffixes of formats which do hold it, those that are lossless."""
    names = [name for name in (".png", ".tif", ".webp", ".ppm") if holds(_FORMATS[name])]
    return ImageError(f"cannot write {path}: {why}; write {' or '.join(names)}")
