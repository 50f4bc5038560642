"""Loading what Pillow has opened: samples that it would change are mended, or refused."""

from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from PIL import Image, ImageFile

from diffcodec.container import MODES
from diffcodec.errors import ImageError
from diffcodec.pictures.metadata import of_image, to_info

_PHOTOMETRIC, _BITS, _SAMPLE_FORMAT = 262, 258, 339
_WHITE_IS_ZERO, _SIGNED = 0, 2


def load(image: Image.Image, name: str) -> Image.Image:
    """Load the pixels of a picture, unless they are; `name` is for messages.

    Returns it, or the picture that its file means where Pillow reads another. Raises ImageError for
    damage and for samples that Pillow does not keep.
    """
    tags = getattr(image, "tag_v2", {})
    if is_deep(image):
        raise ImageError(
            f"{name} has colours of 16 bits, of which Pillow would keep 8: give diffcodec.encode "
            "an array of them, or `diffcodec encode` a PNG or PPM file"
        )
    if image.mode == "L" and tags.get(_SAMPLE_FORMAT) == (_SIGNED,):
        raise ImageError(f"{name} has samples below zero: add 128 to them first")
    if image.mode.startswith("I;16") and tags.get(_BITS) == (12,):
        raise ImageError(f"{name} has samples of 12 bits: multiply them by 65535 / 4095 first")
    for _, (raw, *_) in tiles(image):
        if raw in ("L;2", "L;4") and "transparency" in image.info:
            # Pillow widens these samples to 8 bits, but not the transparent one.
            image.info["transparency"] *= 85 if raw == "L;2" else 17
    try:
        image.load()
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error...
        raise ImageError(f"{name} is damaged: {error}") from error
    if image.mode.startswith("I;16") and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        # Pillow inverts such samples of 8 bits, but not those of 16.
        inverse = Image.fromarray(np.invert(np.asarray(image).astype(np.uint16)))
        inverse.info |= image.info
        inverse.info |= to_info(of_image(image))
        return inverse
    return image


def tiles(image: Image.Image) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Codec and arguments of each tile of a freshly opened picture: how its samples lie."""
    for tile in getattr(image, "tile", ()):
        yield tile.codec_name, tile.args if isinstance(tile.args, tuple) else (tile.args,)


def is_deep(image: Image.Image) -> bool:
    """Whether a freshly opened picture has colours or alpha of 16 bits; Pillow would keep 8."""
    if image.mode not in MODES and "transparency" not in image.info:
        return False
    file = image.fp if isinstance(image, ImageFile.ImageFile) else None
    return any(
        str(raw).endswith((";16B", ";16L", ";16N"))
        or (codec.startswith("ppm") and rest and rest[0] > 255)
        or (codec == "jpeg2k" and file and _jpeg2000_bits(file) > 8)
        for codec, (raw, *rest) in tiles(image)
    )


def _jpeg2000_bits(file: IO[bytes]) -> int:
    """The bits per sample of a JPEG 2000 file, of the first component."""
    place = file.tell()
    file.seek(0)
    start = file.read(1 << 16)
    file.seek(place)
    _, found, sizes = start.partition(b"\xff\x4f\xff\x51")  # the start of the code stream
    return (sizes[38] & 127) + 1 if found and len(sizes) > 38 else 8
