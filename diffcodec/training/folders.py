"""Which pictures a recipe takes, what they count, and under which licences they are.

A name stands for a folder with all that is below it, or for files: it is a pattern that fits the
end of a path, such as photos/cid22 or cifar10/train_[01]*.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from torch import Tensor

from diffcodec.training.sources import Found, find

LICENCES = {
    "photos/cid22": "CID22, CC BY-SA 4.0",
    "photos/imagenet": "ImageNet, research use",
    "photos/clic": "CLIC, Unsplash licence",
    "photos/free": "metadata-extractor-images: 'free to use however you wish'; wagtail/bakerydemo: "
    "public domain; Budgie backgrounds: CC0; elementary wallpapers: CC0, Unsplash, Pexels and NASA "
    "licences",
    "data/drawings": "BSD-3, MIT, GPL-2, GPL-3+ or CC BY-3.0+, Leptonica's (data/SOURCES.md)",
    "cifar10": "CIFAR-10 (Krizhevsky, 2009), no licence stated",
}
"""What the pictures of record may be used for, by folder."""


class Chosen(NamedTuple):
    """A picture, and which of the names that were asked for it goes by, if any."""

    picture: Found
    name: str | None

    @property
    def folder(self) -> str:
        """Where it is from, as a model card tells it."""
        return self.name or self.picture.folder


def licence(folder: str) -> str:
    """The licence of a folder's pictures, as a model card tells it."""
    return next((text for name, text in LICENCES.items() if _fits(folder, name)), "licence unknown")


def choose(data: Sequence[Path], names: Collection[str]) -> list[Chosen]:
    """The pictures of some sources that go by one of the names.

    Of a source that has none such, all: so one's own pictures need no recipe of their own.
    Raises ImageError if a source has no pictures.
    """
    chosen = []
    for source in data:
        found = [
            Chosen(picture, next((name for name in names if _fits(picture.name, name)), None))
            for picture in find([source])
        ]
        named = [one for one in found if one.name is not None]
        chosen += named or found
    return sorted(chosen, key=lambda one: one.picture.name)


def weights(
    images: Sequence[Tensor], names: Sequence[str | None], shares: Mapping[str, float]
) -> list[float]:
    """What a pixel of each image counts, so that all pictures of a name have its share of them.

    A pixel of an image without a name counts 1, which is what those with names do on average.

    Args: uint8 [3, H, W] each; their names, or None; the share of each name.
    """
    areas = Counter[str]()
    for image, name in zip(images, names, strict=True):
        if name is not None:
            areas[name] += image[0].numel()
    average = areas.total() / sum(shares[name] for name in areas) if areas else 0.0
    return [1.0 if name is None else average * shares[name] / areas[name] for name in names]


def _fits(path: str, name: str) -> bool:
    """Whether a picture or a folder goes by a name."""
    whole = PurePosixPath(path)
    return any(part.match(name) for part in (whole, *whole.parents))
