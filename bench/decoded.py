"""Pictures as decoders of lossy files leave them: many PNG files hold nothing else."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.codecs import open_image, save_image
from bench.pictures import Picture

KINDS: Mapping[str, dict[str, Any]] = {
    "jpeg-420": {"format": "JPEG", "quality": 90, "subsampling": "4:2:0"},
    "jpeg-444": {"format": "JPEG", "quality": 95, "subsampling": "4:4:4"},
    "webp": {"format": "WEBP", "quality": 85},
}
"""Pillow's options, by what is added to a picture's name."""


def write(pictures: Sequence[Picture], folder: Path) -> None:
    """Write a PNG file of each picture and kind into a folder, which is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        for kind, options in KINDS.items():
            decoded = open_image(save_image(picture.load(), **options)).convert("RGB")
            decoded.save(folder / f"{picture.path.stem}-{kind}.png")
