"""Pictures and the planes that are coded: modes, alpha, depths, metadata.

diffcodec codes planes of 8 or 16 bits in one of the modes L, LA, RGB and RGBA. Pillow has no
colours of 16 bits: those are a DeepImage.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffcodec.container import MODES, PALETTE, Boxes
from diffcodec.errors import ImageError
from diffcodec.pictures import palettes
from diffcodec.pictures.loading import load
from diffcodec.pictures.metadata import of_image, of_info, to_info


@dataclass(frozen=True)
class DeepImage:
    """An array [H, W, C], and metadata as Pillow has them: for what Pillow has no pictures of.

    `info` is as that of a Pillow image: `icc_profile`, `exif`, `xmp`, `dpi`...
    """

    pixels: NDArray[np.uint8] | NDArray[np.uint16]
    info: Mapping[Any, Any] = field(default_factory=dict)

    @property
    def mode(self) -> str:
        """One of L, LA, RGB and RGBA."""
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


_STRIP = 1 << 22
"""Pixels of a strip."""


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
    image = load(image, "the picture")
    if image.mode.startswith("I;16") and not image.has_transparency_data:
        return _array_planes(np.asarray(image).astype(np.uint16))
    if image.mode not in (*MODES, "1", "P"):
        raise ImageError(f"pictures of mode {image.mode} are not supported: {_advice(image.mode)}")
    mode = {"1": "L", "P": "RGB"}.get(image.mode, image.mode)
    if image.has_transparency_data and not mode.endswith("A"):
        mode += "A"
    if image.mode != mode:
        image = image.convert(mode)
    return mode, _pillow_planes(image)


def _pillow_planes(image: Image.Image) -> np.ndarray:
    """The planes of a loaded picture, strip by strip: Pillow needs a picture's memory twice."""
    width, height = image.size
    planes = np.empty((len(image.getbands()), height, width), np.uint8)
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        strip = np.asarray(image.crop((0, top, width, min(top + rows, height))))
        planes[:, top : top + rows] = np.moveaxis(strip.reshape(-1, width, len(planes)), -1, 0)
    return planes


def _array_planes(pixels: np.ndarray) -> tuple[str, np.ndarray]:
    if pixels.dtype.kind != "u" or pixels.itemsize > 2:
        raise ImageError(f"an array must be uint8 or uint16, not {pixels.dtype}: {_cast(pixels)}")
    if pixels.ndim not in (2, 3):
        raise ImageError(f"an array must be [H, W] or [H, W, channels], not {list(pixels.shape)}")
    planes = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    if not 1 <= len(planes) <= len(MODES):
        raise ImageError(f"an array of {len(planes)} channels is no picture")
    native = pixels.dtype.newbyteorder("=")
    return MODES[len(planes) - 1], np.ascontiguousarray(planes, native)


def _cast(pixels: np.ndarray) -> str:
    """What to do with an array whose samples are of another kind."""
    kind = pixels.dtype.kind
    if kind == "b":
        return "array.astype(numpy.uint8) * 255 makes True white"
    if kind in "ui":
        return (
            "array.astype(numpy.uint8) if its samples are from 0 to 255, "
            "array.astype(numpy.uint16) if to 65535"
        )
    if kind == "f":
        return (
            "(array * 255).round().astype(numpy.uint8) if its samples are from 0 to 1, "
            "or with 65535 and numpy.uint16"
        )
    return "it has no samples"


def _advice(mode: str) -> str:
    """What to do with a picture of a mode that is not coded."""
    if mode == "CMYK":
        return (
            "convert it to RGB first, in a program that knows its ICC profile, "
            'or without one with Pillow\'s image.convert("RGB")'
        )
    if mode.startswith("I"):
        return (
            "convert it to 8 bits first, or if its samples are from 0 to 65535, "
            "to the array numpy.asarray(image).astype(numpy.uint16)"
        )
    return "convert it to 8-bit L, LA, RGB or RGBA first"


def from_planes(mode: str, planes: np.ndarray, boxes: Boxes = NO_BOXES) -> Picture:
    """Return the picture of `planes` (uint8 or uint16 [C, H, W]) in `mode`: `to_planes` undone.

    `boxes` are as `metadata` returns them; they go to `info`, where Pillow's own formats keep
    them.
    """
    if beyond_pillow(mode, 8 * planes.itemsize):
        pixels = np.ascontiguousarray(np.moveaxis(planes, 0, -1))
        return DeepImage(pixels, to_info(boxes))
    pixels = np.array(np.moveaxis(planes, 0, -1), order="C")  # a copy: the picture owns its pixels
    image = Image.fromarray(pixels[..., 0] if mode == "L" else pixels)
    if PALETTE in boxes and planes.dtype == np.uint8:
        image = palettes.restored(planes, boxes[PALETTE]) or image
    image.info.update(to_info(boxes))
    return image


def lean(picture: Picture) -> Picture:
    """Return a picture of Pillow's as a DeepImage, if that holds all of it.

    It takes three quarters of the memory, and `encode` needs no second copy of its samples.
    """
    if isinstance(picture, DeepImage) or picture.mode not in MODES:
        return picture
    if "transparency" in picture.info:  # a colour of L and RGB
        return picture
    return DeepImage(np.moveaxis(to_planes(picture)[1], 0, -1), to_info(metadata(picture)))


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
    """Return the boxes of metadata, those that there are. Raises ImageError as `of_info` does."""
    return of_info(image.info) if isinstance(image, DeepImage) else of_image(image)


def palette(image: Picture | np.ndarray, planes: np.ndarray) -> dict[int, bytes]:
    """Return the box that brings a palette or a bilevel mode back, if there is one."""
    content = palettes.box(image, planes) if isinstance(image, Image.Image) else None
    return {} if content is None else {PALETTE: content}
