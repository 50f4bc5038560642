"""Pillow's modes for few colours: "1" of black and white, "P" with a palette."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BILEVEL, INDEXED = b"1", b"P"
"""What the content of a box begins with; colours of the palette's entries follow the second."""

_WHITE = _OPAQUE = 255


def box(image: Image.Image, planes: NDArray) -> bytes | None:
    """The content of the box of a picture with these planes uint8 [C, H, W].

    None if it is of another mode, or has two entries of one colour in use.
    """
    if image.mode == "1":
        return BILEVEL
    if image.mode != "P":
        return None
    indices = np.asarray(image)
    entries = np.zeros((int(indices.max()) + 1, len(planes)), np.uint8)
    entries[indices.ravel()] = planes.reshape(len(planes), -1).T
    used = np.unique(indices)
    if len(np.unique(entries[used], axis=0)) < len(used):
        return None
    # What is not in use keeps its red, green and blue.
    palette = np.reshape((image.getpalette("RGB") or [])[: 3 * len(entries)], (-1, 3))
    unused = np.setdiff1d(np.arange(len(palette)), used)
    entries[unused, :3], entries[unused, 3:] = palette[unused], _OPAQUE
    return INDEXED + entries.tobytes()


def restored(planes: NDArray, content: bytes) -> Image.Image | None:
    """The picture of planes uint8 [C, H, W] as its box says; None if it has other colours."""
    if content == BILEVEL:
        if len(planes) > 1 or not np.isin(planes, (0, _WHITE)).all():
            return None
        return Image.fromarray(planes[0]).convert("1", dither=Image.Dither.NONE)
    size = len(planes)
    entries = np.frombuffer(content[1:], np.uint8)
    if content[:1] != INDEXED or size < 3 or len(entries) % size or len(entries) > 256 * size:
        return None
    entries = entries.reshape(-1, size)
    # The first of several equal entries counts.
    colours, first = np.unique(_packed(entries.T), return_index=True)
    wanted = _packed(planes)
    place = np.searchsorted(colours, wanted).clip(max=max(len(colours) - 1, 0))
    if not len(colours) or not np.array_equal(colours[place], wanted):
        return None
    image = Image.fromarray(first[place].astype(np.uint8), "L")
    image.putpalette(entries[:, :3].tobytes())
    if size == 4:
        image.info["transparency"] = entries[:, 3].tobytes()
    return image


def _packed(planes: NDArray) -> NDArray[np.uint32]:
    """The samples [C, ...] of each pixel as one number, [...]."""
    packed = np.zeros(planes.shape[1:], np.uint32)
    for plane in planes:
        packed = packed << np.uint32(8) | plane
    return packed
