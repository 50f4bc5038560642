"""Metadata between Pillow's `info` and the boxes of a file."""

from collections.abc import Mapping
from typing import Any

from diffcodec.container import EXIF, ICC, Boxes

_EXIF_PREFIX = b"Exif\0\0"


def of_info(info: Mapping[Any, Any]) -> dict[int, bytes]:
    """The ICC profile and the EXIF block (a TIFF structure) of a Pillow image, if it has them."""
    # Some of Pillow's readers leave JPEG's prefix on, others do not.
    exif = (info.get("exif") or b"").removeprefix(_EXIF_PREFIX)
    found = {ICC: info.get("icc_profile") or b"", EXIF: exif}
    return {kind: content for kind, content in found.items() if content}


def to_info(boxes: Boxes) -> dict[str, bytes]:
    """What Pillow keeps of boxes in `info`, and takes as options of `save`."""
    info = {}
    if ICC in boxes:
        info["icc_profile"] = boxes[ICC]
    if EXIF in boxes:
        info["exif"] = _EXIF_PREFIX + boxes[EXIF]
    return info
