"""Images held in memory, and random crops of them."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from diffcodec.errors import ImageError

SUFFIXES = {".png", ".webp", ".jpg", ".jpeg", ".bmp", ".ppm", ".tif", ".tiff"}


def load_images(folder: Path, device: torch.device) -> list[Tensor]:
    """All pictures below a folder as uint8 [3, H, W], in the order of their names.

    They stay in the device's memory, so that no decoding is left for the training loop.
    Raises ImageError if there are none.
    """
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise ImageError(f"There are no pictures in {folder}.")
    images = []
    for path in tqdm(paths, desc=f"reading {folder.name}", leave=False, disable=None):
        with Image.open(path) as image:
            pixels = np.array(image.convert("RGB"))
        images.append(torch.from_numpy(pixels).permute(2, 0, 1).contiguous().to(device))
    return images


class Crops:
    """Random square crops, flipped and transposed; images are drawn in proportion to area.

    With a `grid`, crops start at its multiples: each is one picture of a mosaic of pictures of
    that size. These have an upper side, so they are mirrored only.
    """

    def __init__(self, images: list[Tensor], size: int, grid: int = 1) -> None:
        """Use the images of at least size x size pixels; raises ImageError if there are none."""
        self.images = [image for image in images if min(image.shape[1:]) >= size]
        if not self.images:
            raise ImageError(f"Training needs pictures of at least {size} x {size} pixels.")
        self.odds = torch.tensor([float(image[0].numel()) for image in self.images])
        self.size, self.grid = size, grid

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """A batch uint8 [count, 3, size, size] on the images' device."""
        crops = []
        for i in torch.multinomial(self.odds, count, replacement=True, generator=generator):
            image = self.images[int(i)]
            top, left = (
                self.grid * int(torch.randint(places, (), generator=generator))
                for places in ((side - self.size) // self.grid + 1 for side in image.shape[1:])
            )
            crop = image[:, top : top + self.size, left : left + self.size]
            vertical, horizontal, transpose = torch.randint(2, (3,), generator=generator).tolist()
            if self.grid > 1:
                vertical = transpose = False
            flips = [dim for dim, flip in ((1, vertical), (2, horizontal)) if flip]
            crop = crop.flip(flips)
            crops.append(crop.mT if transpose else crop)
        return torch.stack(crops)
