"""Pictures side by side, pixel for pixel."""

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

_CELL = (384, 256)  # pixels that are shown of each picture, from its middle
_LABEL = 40


class Cell(NamedTuple):
    """A picture (None: nothing to see yet), the column and row it belongs to, and its label."""

    column: str
    row: float
    label: str
    image: Image.Image | None


def sheet(cells: Sequence[Cell]) -> Image.Image:
    """The middle of each picture under its label, columns and rows in order of appearance."""
    columns, rows = (list(dict.fromkeys(values)) for values in list(zip(*cells, strict=True))[:2])
    width, height = _CELL[0] + 8, _CELL[1] + _LABEL
    page = Image.new("RGB", (len(columns) * width, len(rows) * height), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(15)
    for cell in cells:
        left, top = columns.index(cell.column) * width, rows.index(cell.row) * height
        draw.text((left + 2, top + 2), f"{cell.column}\n{cell.label}", "black", font)
        if cell.image is not None:
            x, y = ((s - c) // 2 for s, c in zip(cell.image.size, _CELL, strict=True))
            middle = (max(0, x), max(0, y), max(0, x) + _CELL[0], max(0, y) + _CELL[1])
            right, bottom = map(min, middle[2:], cell.image.size)
            page.paste(cell.image.crop((*middle[:2], right, bottom)), (left, top + _LABEL))
    return page
