"""EXIF blocks: TIFF structures, without what JPEG puts before them."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import ExifTags, Image

from diffcodec.errors import ImageError

PREFIX = b"Exif\0\0"
"""What JPEG, and Pillow, put before a block."""

APPLIED = frozenset((274, 282, 283, 296))
"""Tags that Pillow applies when it reads a TIFF file, or that have a box of their own there."""

# Tags that say how a TIFF file holds its samples, or other metadata.
_SAMPLES = (*range(254, 267), 273, *range(277, 282), 284, *range(288, 294), 297, 317)
_MORE_SAMPLES = (*range(320, 342), 347, *range(512, 522), *range(529, 533))
_OTHERS = (700, 33723, 34377, 34675, 37724)
_LAYOUT = frozenset((*_SAMPLES, *_MORE_SAMPLES, *_OTHERS))


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
        with quiet():
            exif.load(content)
            dict(exif)
    except Exception:  # Pillow trips over damage in many ways
        return None
    return exif


@contextmanager
def quiet() -> Iterator[None]:
    """Without Pillow's remarks on what it could mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def descriptive(exif: Image.Exif, without: frozenset[int] = frozenset()) -> bytes:
    """The block of what EXIF says of the picture, without how a TIFF file holds it.

    `without` are other tags to leave out. Raises what Pillow raises for damage, and ImageError for
    values that it cannot write.
    """
    kept = Image.Exif()
    for tag in set(exif) - _LAYOUT - without:
        if tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            directory = dict(exif.get_ifd(tag))
            if ExifTags.IFD.Interop in directory:
                directory[ExifTags.IFD.Interop] = dict(exif.get_ifd(ExifTags.IFD.Interop))
            kept[tag] = directory
        else:
            kept[tag] = exif[tag]
    return block(kept)
