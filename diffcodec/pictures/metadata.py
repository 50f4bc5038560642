"""Metadata between Pillow's `info` and the boxes of a file.

In `info` they lie where Pillow's own formats keep them: `icc_profile`, `exif`, `xmp`, `dpi` (or
`aspect`), `photoshop` (IPTC), `gamma`, `chromaticity` and `srgb`. Two keys are ours: `text`, a
dictionary, and the names of PNG's other chunks about colours, with their bytes.
"""

import re
import struct
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from PIL import Image

from diffcodec.container import COLOUR, EXIF, ICC, IPTC, RESOLUTION, TEXT, XMP, Boxes
from diffcodec.pictures import exif

NAMES = {
    ICC: "ICC profile",
    COLOUR: "colour signalling",
    EXIF: "EXIF",
    XMP: "XMP",
    IPTC: "IPTC",
    TEXT: "text",
    RESOLUTION: "resolution",
}
"""The kinds of boxes that are metadata, in words."""

COMMENT = "Comment"
"""PNG's key for what is the comment of a JPEG, GIF or JPEG 2000 file."""

IPTC_RESOURCE = 0x0404
"""The number of IPTC among Photoshop's resources."""

RAW_COLOURS = ("cICP", "mDCV", "cLLI")
"""PNG's chunks about colours that Pillow does not read."""

_XMP_KEY = "XML:com.adobe.xmp"
_RAW_PROFILES = {"exif": "exif", "APP1": "exif", "xmp": "xmp", "iptc": "iptc", "8bim": "iptc"}
METRE = Fraction(5000, 127)
"""In inches."""

_INCH_IN_METRES = 0.0254


def of_image(image: Image.Image) -> dict[int, bytes]:
    """The boxes of a Pillow image; of a TIFF file also of its tags."""
    info: dict[Any, Any] = dict(image.info)
    if hasattr(image, "tag_v2"):
        info = _of_tiff(image, image.tag_v2) | info
        if 282 not in image.tag_v2:
            info.pop("dpi", None)  # Pillow's default
    return of_info(info)


def of_info(info: Mapping[Any, Any]) -> dict[int, bytes]:
    """The boxes of what Pillow's `info` holds; what makes no sense there is passed over.

    Raises ImageError for an `Image.Exif` that cannot be written.
    """
    text = {key: value for key, value in info.items() if _is_text(key, value)}
    if isinstance(more := info.get("text"), dict):
        text |= {key: value for key, value in more.items() if _is_text(key, value)}
    if comment := info.get("comment"):
        text[COMMENT] = _decoded(comment)
    profiles = dict(_raw_profiles(text))
    photoshop = info.get("photoshop")
    iptc = photoshop.get(IPTC_RESOURCE) if isinstance(photoshop, dict) else None
    xmp = info.get("xmp") or profiles.get("xmp") or b""
    found = {
        ICC: _bytes(info.get("icc_profile")),
        COLOUR: b"".join(
            kind.encode() + bytes([len(data)]) + data for kind, data in _colours(info)
        ),
        EXIF: exif.block(info.get("exif") or profiles.get("exif")),
        XMP: xmp.encode() if isinstance(xmp, str) else _bytes(xmp),
        IPTC: _bytes(iptc or profiles.get("iptc")),
        TEXT: _text(text),
        RESOLUTION: _resolution(info),
    }
    return {kind: content for kind, content in found.items() if content}


def to_info(boxes: Boxes) -> dict[Any, Any]:
    """What Pillow keeps of boxes in `info`; a box that makes no sense is left out."""
    info: dict[Any, Any] = {}
    if ICC in boxes:
        info["icc_profile"] = boxes[ICC]
    if EXIF in boxes:
        info["exif"] = exif.PREFIX + boxes[EXIF]
    if XMP in boxes:
        info["xmp"] = boxes[XMP]
    if IPTC in boxes:
        info["photoshop"] = {IPTC_RESOURCE: boxes[IPTC]}
    if text := texts(boxes):
        info["text"] = text
    if (found := resolution(boxes)) is not None:
        unit, *numbers = found
        info["aspect" if unit is None else "dpi"] = tuple(
            float(each / Fraction(unit or 1)) for each in numbers
        )
    for kind, data in colours(boxes).items():
        if kind == "gAMA":
            info["gamma"] = struct.unpack(">I", data)[0] / 1e5
        elif kind == "cHRM":
            info["chromaticity"] = tuple(each / 1e5 for each in struct.unpack(">8I", data))
        elif kind == "sRGB":
            info["srgb"] = data[0]
        else:
            info[kind] = data
    return info


def sizes(boxes: Boxes) -> dict[str, int]:
    """The names of the metadata among boxes, and their bytes."""
    return {name: len(boxes[kind]) for kind, name in NAMES.items() if kind in boxes}


def texts(boxes: Boxes) -> dict[str, str]:
    """The text box: values by key."""
    parts = boxes.get(TEXT, b"").decode("utf-8", "replace").split("\0")
    return dict(zip(parts[:-1:2], parts[1:-1:2], strict=False))


def resolution(boxes: Boxes) -> tuple[Fraction | None, Fraction, Fraction] | None:
    """The resolution box: the unit in inches (None: only the ratio is known), across and down."""
    pattern = rb"(inch|metre|none) (\d{1,9}(?:/[1-9]\d{0,8})?) (\d{1,9}(?:/[1-9]\d{0,8})?)"
    if (match := re.fullmatch(pattern, boxes.get(RESOLUTION, b""))) is None:
        return None
    unit, *numbers = (each.decode() for each in match.groups())
    across, down = map(Fraction, numbers)
    if not (across and down):
        return None
    return {"inch": Fraction(1), "metre": METRE, "none": None}[unit], across, down


def colours(boxes: Boxes) -> dict[str, bytes]:
    """The colour box: the data of PNG's chunks by their names."""
    lengths = {"cICP": 4, "gAMA": 4, "cHRM": 32, "sRGB": 1, "mDCV": 24, "cLLI": 8}
    found, rest = {}, boxes.get(COLOUR, b"")
    while len(rest) > 4:
        kind, end = rest[:4].decode("latin-1"), 5 + rest[4]
        if len(data := rest[5:end]) == lengths.get(kind):
            found[kind] = data
        rest = rest[end:]
    return found


def iptc_resource(iptc: bytes) -> bytes:
    """IPTC among Photoshop's resources, as other formats hold it."""
    header = struct.pack(">4sHHI", b"8BIM", IPTC_RESOURCE, 0, len(iptc))
    return header + iptc + bytes(len(iptc) % 2)


def _of_tiff(image: Image.Image, tags: Mapping[int, Any]) -> dict[str, Any]:
    """What the tags of a TIFF file hold, as `info` of other formats does."""
    info: dict[str, Any] = {}
    try:
        info["exif"] = exif.descriptive(image.getexif(), exif.APPLIED)
    except Exception:  # tags that Pillow reads, but cannot write
        info["exif"] = b""
    iptc = _bytes(tags.get(33723)) or _resource(_bytes(tags.get(34377)))
    return info | ({"photoshop": {IPTC_RESOURCE: iptc}} if iptc else {})


def _resource(data: bytes) -> bytes:
    """IPTC among Photoshop's resources; what are none are IPTC themselves."""
    if not data.startswith(b"8BIM"):
        return data
    position = 0
    while data[position : position + 4] == b"8BIM" and position + 7 <= len(data):
        number, name = struct.unpack(">HB", data[position + 4 : position + 7])
        position += 6 + (name + 2) // 2 * 2
        size = int.from_bytes(data[position : position + 4], "big")
        if number == IPTC_RESOURCE:
            return data[position + 4 : position + 4 + size]
        position += 4 + size + size % 2
    return b""


def _bytes(value: object) -> bytes:
    return bytes(value) if isinstance(value, bytes | bytearray | memoryview) else b""


def _decoded(value: object) -> str:
    if isinstance(value, str):
        return value
    try:
        return _bytes(value).decode()
    except UnicodeDecodeError:
        return _bytes(value).decode("latin-1")


def _is_text(key: object, value: object) -> bool:
    """Whether an entry of `info` is text of a PNG file."""
    reserved = ("text", "comment", "compression", "xmp", _XMP_KEY)
    return isinstance(key, str) and isinstance(value, str) and key not in reserved


def _text(text: Mapping[str, str]) -> bytes:
    # Zero separates; PNG does not allow it inside.
    parts = (part.replace("\0", "\ufffd") for pair in text.items() for part in pair)
    return "".join(part + "\0" for part in parts).encode("utf-8", "replace")


def _raw_profiles(text: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    """Take profiles in hexadecimal, as ImageMagick writes them, out of text."""
    for name, kind in _RAW_PROFILES.items():
        key = f"Raw profile type {name}"
        try:
            data = bytes.fromhex("".join(text.get(key, "").split("\n")[3:]))
        except ValueError:
            continue
        if data.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            kind, data = "xmp", data.partition(b"\0")[2]
        if data:
            del text[key]
            yield kind, _resource(data) if kind == "iptc" else data


def _resolution(info: Mapping[Any, Any]) -> bytes:
    unit, numbers = "none", info.get("aspect")
    if info.get("jfif_unit") == 0:  # what Pillow has as dpi then is its default, or of EXIF
        numbers = info.get("jfif_density")
    elif dpi := info.get("dpi"):
        unit, numbers = "inch", dpi
    try:
        across, down = (float(each) for each in numbers or ())
    except (TypeError, ValueError, ZeroDivisionError):
        return b""
    pair = (across, down)
    if not all(1e-3 < each < 1e5 for each in pair):
        return b""
    if across == down == 1 or (unit == "none" and across == down):
        return b""  # nothing is said
    if unit == "inch" and not all(each.is_integer() for each in pair):
        metre = [each / _INCH_IN_METRES for each in pair]
        if all(abs(each - round(each)) < 1e-6 * each for each in metre):
            unit, pair = "metre", (round(metre[0]), round(metre[1]))
    written = " ".join(str(Fraction(each).limit_denominator(10**4)) for each in pair)
    return f"{unit} {written}".encode()


def _colours(info: Mapping[Any, Any]) -> Iterator[tuple[str, bytes]]:
    """PNG's chunks about colours, by name."""
    for kind in RAW_COLOURS:
        if data := _bytes(info.get(kind)):
            yield kind, data[:255]
    try:
        if (gamma := info.get("gamma")) is not None:
            yield "gAMA", struct.pack(">I", round(gamma * 1e5))
        if (points := info.get("chromaticity")) is not None:
            yield "cHRM", struct.pack(">8I", *(round(each * 1e5) for each in points))
        if (intent := info.get("srgb")) is not None:
            yield "sRGB", struct.pack(">B", intent)
    except (TypeError, ValueError, OverflowError, struct.error):
        return
