"""How a run does on held-out pictures: a line each time, a CSV file, and a picture of that."""

import csv
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True)
class Figures:
    """What one validation has found: a total in some unit, and its parts by name."""

    unit: str
    total: float
    parts: dict[str, float]

    def __str__(self) -> str:
        parts = " ".join(f"{name}:{value:.4f}" for name, value in self.parts.items())
        return f"{self.total:.4f} {self.unit} ({parts})"


def record(path: Path, steps: int, minutes: float, loss: float, figures: Figures) -> None:
    """Add a row to a CSV file, which begins with names, and draw its totals beside it as PNG.

    Without matplotlib there is no picture.
    """
    row = {"steps": steps, "minutes": round(minutes, 3), "loss": loss}
    row |= {figures.unit: figures.total, **figures.parts}
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if new:
            writer.writeheader()
        writer.writerow(row)
    if find_spec("matplotlib"):
        _draw(path, figures.unit)


def _draw(path: Path, unit: str) -> None:
    from matplotlib.figure import Figure

    with path.open(newline="") as file:
        points = [(float(row["minutes"]), float(row[unit])) for row in csv.DictReader(file)]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="minutes", ylabel=f"{unit}, held-out pictures")
    axes.plot(*zip(*points, strict=True), marker="o")
    axes.grid(alpha=0.3)
    figure.savefig(path.with_suffix(".png"))
