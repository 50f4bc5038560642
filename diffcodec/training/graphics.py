"""Drawn pictures: flat colours, edges and letters, of which photographs have few."""

import string
from functools import cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

SIDE = 512


@cache
def drawings(count: int, seed: int = 0) -> list[Tensor]:
    """Diagrams and screens made up at random, uint8 [3, SIDE, SIDE]; the same for a seed."""
    random = np.random.default_rng(seed)
    return [torch.from_numpy(np.array(_drawing(random))).permute(2, 0, 1) for _ in range(count)]


def _drawing(random: np.random.Generator) -> Image.Image:
    """One drawing: with smooth edges if it was drawn larger, with hard ones otherwise."""
    scale = int(random.integers(1, 4))
    side = SIDE * scale
    palette = [tuple(map(int, c)) for c in random.integers(0, 256, (int(random.integers(1, 7)), 3))]
    palette += [(0, 0, 0), (255, 255, 255)]
    image = Image.new("RGB", (side, side), palette[-1 - int(random.integers(len(palette)))])
    draw = ImageDraw.Draw(image)
    if random.random() < 0.3:
        for row in range(side):
            share = row / side
            ends = zip(palette[0], palette[1], strict=True)
            blend = tuple(round(a + (b - a) * share) for a, b in ends)
            draw.line([(0, row), (side, row)], blend)
    for _ in range(int(random.integers(5, 80))):
        _element(draw, random, palette, scale)
    turned = image.rotate(float(random.uniform(0, 90))) if random.random() < 0.2 else image
    return turned.reduce(scale)


def _element(
    draw: ImageDraw.ImageDraw,
    random: np.random.Generator,
    palette: list[tuple[int, ...]],
    scale: int,
) -> None:
    """A shape, a line or a line of text, somewhere."""
    side = SIDE * scale
    x, y = (int(v) for v in random.integers(-side // 8, side, 2))
    width, height = (int(v) for v in np.exp(random.uniform(0, np.log(side / 2), 2)))
    colour, edge = (palette[int(i)] for i in random.integers(len(palette), size=2))
    box, thick = (x, y, x + width, y + height), int(random.integers(0, 4)) * scale
    match int(random.integers(6)):
        case 0:
            draw.rectangle(box, colour, edge, thick)
        case 1:
            draw.ellipse(box, colour, edge, thick)
        case 2:
            draw.line(box, colour, max(1, thick))
        case 3:
            corners = random.integers(0, side // 3, (int(random.integers(3, 7)), 2))
            draw.polygon([(x + int(a), y + int(b)) for a, b in corners], colour, edge)
        case _:
            letters = random.choice(list(string.printable[:94] + " " * 12), random.integers(3, 60))
            font = ImageFont.load_default(float(random.integers(9, 40) * scale))
            draw.text((x, y), "".join(letters), colour, font)
