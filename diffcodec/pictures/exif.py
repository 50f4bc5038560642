"""EXIF blocks: TIFF structures, without what JPEG puts before them."""

from PIL import ExifTags, Image

from diffcodec.errors import ImageError

PREFIX = b"Exif\0\0"
"""What JPEG, and Pillow, put before a block."""

# Tags that say how a TIFF file holds its samples, or what has a box of its own.
_SAMPLES = (*range(254, 267), 273, *range(277, 282), 284, *range(288, 294), 297, 317)
_MORE_SAMPLES = (*range(320, 342), 347, *range(512, 522), *range(529, 533))
_OTHERS = (700, 33723, 34377, 34675, 37724)
_LAYOUT = frozenset((*_SAMPLES, *_MORE_SAMPLES, *_OTHERS))
_RESOLUTION = frozenset((282, 283, 296))


def block(value: object) -> bytes:
    """The block of what Pillow has in `info` or takes as an option; none of other things.

    Raises ImageError for an `Image.Exif` that cannot be written.
    """
    if not isinstance(value, Image.Exif):
        # Some of Pillow's readers leave the prefix on, others do not.
        return value.removeprefix(PREFIX) if isinstance(value, bytes) else b""
    try:
        return value.tobytes().removeprefix(PREFIX) if len(value) else b""
    except Exception as error:  # Pillow's writer has no error of its own
        raise ImageError(f"the picture's EXIF cannot be written: {error}") from error


def parsed(content: bytes) -> Image.Exif | None:
    """A block as Pillow has it; None if it is damaged."""
    exif = Image.Exif()
    try:
        exif.load(content)
        dict(exif)
    except Exception:  # Pillow trips over damage in many ways
        return None
    return exif


def descriptive(exif: Image.Exif, *, resolution: bool) -> bytes:
    """The block of what EXIF says of the picture, without how a TIFF file holds it.

    `resolution` says whether that is kept. Raises what Pillow raises for damage, and ImageError for
    values that it cannot write.
    """
    kept = Image.Exif()
    left = _LAYOUT if resolution else _LAYOUT | _RESOLUTION
    for tag in set(exif) - left:
        if tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            directory = dict(exif.get_ifd(tag))
            if ExifTags.IFD.Interop in directory:
                directory[ExifTags.IFD.Interop] = dict(exif.get_ifd(ExifTags.IFD.Interop))
            kept[tag] = directory
        else:
            kept[tag] = exif[tag]
    return block(kept)
