"""Drawn pictures: flat colours, edges, letters and dots, of which photographs have few."""

import string
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
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
    finished = turned.reduce(scale)
    match int(random.integers(10)):
        case 0 | 1:
            return _dithered(finished, random)
        case 2:
            few, dots = finished.quantize(int(random.integers(4, 65))), Image.Dither.FLOYDSTEINBERG
            shaded = _image(_shades(finished, random).round())
            return shaded.quantize(palette=few, dither=dots).convert("RGB")
        case _:
            return finished


def _dithered(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """The shaded picture in few shades, between which a pattern of dots (Bayer, 1973) mediates."""
    pattern = np.zeros((1, 1))
    for _ in range(int(random.integers(1, 4))):
        pattern = np.block([[4 * pattern, 4 * pattern + 2], [4 * pattern + 3, 4 * pattern + 1]])
    thresholds = np.tile((pattern + 0.5) / pattern.size, [SIDE // len(pattern)] * 2)[..., None]
    step = 2 ** int(random.integers(0, 6)) if random.random() < 0.5 else 1
    return _image(np.floor(_shades(image, random) / step + thresholds) * step)


def _image(shades: NDArray[np.float64]) -> Image.Image:
    """Whole shades as a picture, clipped to its range."""
    return Image.fromarray(shades.clip(0, 255).astype(np.uint8))


def _shades(image: Image.Image, random: np.random.Generator) -> NDArray[np.float64]:
    """The picture, brighter to one side, float [SIDE, SIDE, 3]."""
    down, right = random.uniform(-1, 1, 2) * np.exp(random.uniform(0, np.log(64)))
    ramp = np.linspace(0, down, SIDE)[:, None] + np.linspace(0, right, SIDE)
    return np.asarray(image) + ramp[..., None] * random.uniform(0.5, 1, 3) + random.random(3)


def _element(
    draw: ImageDraw.ImageDraw,
    random: np.random.Generator,
    palette: list[tuple[int, ...]],
    scale: int,
) -> None:
    """A shape, a line, a curve, a row of bars or some text, somewhere."""
    side = SIDE * scale
    x, y = (int(v) for v in random.integers(-side // 8, side, 2))
    width, height = (int(v) for v in np.exp(random.uniform(0, np.log(side / 2), 2)))
    colour, edge = (palette[int(i)] for i in random.integers(len(palette), size=2))
    box, thick = (x, y, x + width, y + height), int(random.integers(0, 4)) * scale
    match int(random.integers(8)):
        case 0:
            draw.rectangle(box, colour, edge, thick)
        case 1:
            draw.ellipse(box, colour, edge, thick)
        case 2:
            draw.line(box, colour, max(1, thick))
        case 3:
            corners = random.integers(0, side // 3, (int(random.integers(3, 7)), 2))
            draw.polygon([(x + int(a), y + int(b)) for a, b in corners], colour, edge)
        case 4:
            across = np.linspace(x, x + width, int(random.integers(3, 60)))
            along = y + height * np.cumsum(random.normal(0, 0.2, len(across)))
            draw.line(list(zip(across, along, strict=True)), colour, max(1, thick))
        case 5:
            pitch = max(2, int(width * random.uniform(0.1, 2)))
            for start in range(x, side, pitch)[: int(random.integers(3, 30))]:
                top = y + int(height * random.random()) if random.random() < 0.5 else y
                draw.rectangle((start, top, start + width // 2, y + height), colour, edge, thick)
        case _:
            length = int(random.integers(3, 60)) * (8 if random.random() < 0.2 else 1)
            letters = random.choice(list(string.printable[:94] + " " * 12 + "\n" * 2), length)
            font = ImageFont.load_default(float(random.integers(9, 40) * scale))
            draw.text((x, y), "".join(letters), colour, font)
