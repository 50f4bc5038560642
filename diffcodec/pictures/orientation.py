"""Which way up a picture is shown: a note in its EXIF or XMP, which no codec applies."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from diffcodec.container import COLOUR, EXIF, ICC, XMP, Boxes
from diffcodec.pictures import exif, metadata
from diffcodec.pictures.images import DeepImage, Picture

_TAG = ExifTags.Base.Orientation

_TURNS: dict[int, Callable[[NDArray], NDArray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels[::-1].swapaxes(0, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels[:, ::-1].swapaxes(0, 1),
}
"""What is to be done with pixels [H, W, ...] of each orientation but 1."""


def orientation(boxes: Boxes) -> int:
    """EXIF's number from 1 (as it is) to 8; 1 if there is none, or one that makes no sense."""
    image = Image.new("1", (1, 1))
    image.info |= metadata.to_info({kind: boxes[kind] for kind in (EXIF, XMP) if kind in boxes})
    try:
        with exif.quiet():
            found = image.getexif().get(_TAG)
    except Exception:  # Pillow trips over damage in many ways
        return 1
    return found if found in _TURNS else 1


def stripped(boxes: Boxes) -> dict[int, bytes]:
    """The metadata without which a picture looks different: its colours, and which way is up."""
    kept = {kind: boxes[kind] for kind in (ICC, COLOUR) if kind in boxes}
    if (found := orientation(boxes)) != 1:
        tags = Image.Exif()
        tags[_TAG] = found
        kept[EXIF] = exif.block(tags)
    return kept


def upright(picture: Picture) -> Picture:
    """The picture turned as its metadata say, which then say so no more."""
    found = orientation(metadata.of_info(picture.info))
    if found == 1:
        return picture
    if isinstance(picture, DeepImage):
        info = {key: value for key, value in picture.info.items() if key not in ("exif", "xmp")}
        pixels = np.ascontiguousarray(_TURNS[found](picture.pixels))
        return replace(picture, pixels=pixels, info=info)
    try:
        with exif.quiet():
            return ImageOps.exif_transpose(picture)
    except Exception:  # EXIF that Pillow reads, but cannot write
        return picture
