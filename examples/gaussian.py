"""The Gaussian process on pictures of your own: likelihood, real bits, figures 5 to 8 of DDPM.

    python examples/gaussian.py PICTURE PICTURE... -o FOLDER
    python examples/gaussian.py PICTURE PICTURE... -o FOLDER --only figure_6 --steps 50

Each function writes one table or figure, of the centres of the pictures, to the folder. The two
curves need matplotlib. With an installed model all together takes minutes for each picture.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

import diffcodec
from diffcodec.exact import files
from diffcodec.gaussian import elbo, load, samplers, to_data, to_pixels
from diffcodec.gaussian.process import marginal, normal

TIMES = (1.0, 0.97, 0.93, 0.88)
"""Of the latents in figures 7 and 8."""

COLUMNS = 8


@dataclass(frozen=True)
class Setting:
    """What all figures are made of.

    Attributes:
        images: RGB pictures of the model's size, two or more.
        model: the model file.
        out: the folder.
        steps: of sampling.
    """

    images: list[Image.Image]
    model: Path
    out: Path
    steps: int

    def x(self) -> Tensor:
        """The pictures as data [N, 3, H, W]."""
        return to_data(torch.from_numpy(np.stack(self.images)).permute(0, 3, 1, 2))

    def write(self, name: str, tiles: Tensor, columns: int) -> None:
        """Write pictures uint8 [N, 3, H, W] as one, in rows of so many."""
        grid = samplers.mosaic(tiles, columns).permute(1, 2, 0).numpy()
        Image.fromarray(grid).save(self.out / f"{name}.png")


def seeded() -> torch.Generator:
    """The source of all noise."""
    return torch.Generator().manual_seed(0)


def terms(the: Setting) -> None:
    """The negative ELBO term by term, for numbers of steps."""
    lines = ["| steps | prior | diffusion | reconstruction | total, bits/dim |", "|---" * 5 + "|"]
    for steps in (10, 100, None):
        found = diffcodec.model_likelihood(the.images, steps=steps, model=the.model)
        parts = (found.prior, found.diffusion, found.reconstruction, found.total)
        cells = " | ".join(f"{part.mean:.4f} ± {part.error:.4f}" for part in parts)
        lines.append(f"| {steps or 'infinitely many'} | {cells} |")
    (the.out / "terms.md").write_text("\n".join(lines) + "\n")


def chain(the: Setting) -> None:
    """Bits-back coding of ever more pictures: the initial bits are paid once."""
    lines = ["| pictures | net, bits/dim | gross, bits/dim |", "|---|---|---|"]
    for count in range(1, len(the.images) + 1):
        coded = diffcodec.encode_set(the.images[:count], model=the.model)
        lines.append(f"| {count} | {coded.net:.3f} | {coded.gross:.3f} |")
    (the.out / "chain.md").write_text("\n".join(lines) + "\n")


def progressive(the: Setting) -> None:
    """Real bits of reverse channel coding, and the error of what they show."""
    coded = diffcodec.encode_set(the.images, method="channel", model=the.model)
    points = []
    for shown in diffcodec.decode_set_progressive(coded.data, model=the.model):
        error = np.stack(shown.images).astype(float) - np.stack(the.images)
        points.append((8 * shown.bytes_used / coded.samples, math.sqrt(np.square(error).mean())))
    curve(the, "progressive", {"bits/dim of the file": points})


def figure_5(the: Setting) -> None:
    """Distortion and rate on the way down the chain, without any coding."""
    x, model, generator = the.x(), load(the.model).model(), seeded()
    by_time, by_rate = [], []
    rate = float(elbo.prior(model, x).mean())
    for step, log_snr in enumerate(model.schedule.grid(the.steps)[:-1]):
        noise = normal(x.shape, x, generator)
        shown = model(marginal(x, log_snr).draw(noise), log_snr)[0].x
        error = 128 * float((shown - x).square().mean().sqrt())
        by_time.append((step / the.steps, error))
        by_rate.append((rate, error))
        middle = torch.full((len(x),), 1 - (step + 0.5) / the.steps)
        rate += float(elbo.discrete(model, x, middle, noise, the.steps).mean()) / the.steps
    curve(the, "figure_5", {"reverse time": by_time, "bits/dim": by_rate})


def figure_6(the: Setting) -> None:
    """Progressive generation: what the network takes the picture to be, on the way from noise."""
    model, generator = load(the.model).model(), seeded()
    z = torch.randn(4, *the.x().shape[1:], generator=generator)
    shown = list(samplers.progressive(model, z, model.schedule.grid(the.steps), generator))
    picked = torch.linspace(0, len(shown) - 1, COLUMNS).round().long().tolist()
    tiles = torch.stack([to_pixels(shown[number]) for number in picked], 1)
    the.write("figure_6", tiles.flatten(0, 1), COLUMNS)


def figure_7(the: Setting) -> None:
    """Samples that share a latent, which each row begins with; less noise, more in common."""
    model, generator, rows = load(the.model).model(), seeded(), []
    for t in TIMES:
        level = model.schedule.log_snr(torch.tensor(t))
        z = marginal(the.x()[:1], level).draw(normal(the.x()[:1].shape, the.x(), generator))
        shared = z.expand(COLUMNS - 1, -1, -1, -1)
        drawn = samplers.decode(model, shared, t, "ancestral", steps=the.steps, generator=generator)
        rows += [to_pixels(z), drawn]
    the.write("figure_7", torch.cat(rows), COLUMNS)


def figure_8(the: Setting) -> None:
    """From one picture to another through their latents, a row for each level of noise."""
    x, model, generator, rows = the.x(), load(the.model).model(), seeded(), []
    for t in TIMES[::-1]:
        level = model.schedule.log_snr(torch.tensor(t))
        z = samplers.between(x[0], x[1], torch.linspace(0, 1, COLUMNS), level, generator)
        rows.append(samplers.decode(model, z, t, "ancestral", steps=the.steps, generator=generator))
    the.write("figure_8", torch.cat(rows), COLUMNS)


def curve(the: Setting, name: str, plots: dict[str, list[tuple[float, float]]]) -> None:
    """Draw RMSE against each of some quantities."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(plots), 4), layout="constrained")
    for number, (label, points) in enumerate(plots.items(), 1):
        axes = figure.add_subplot(1, len(plots), number, xlabel=label, ylabel="RMSE")
        axes.plot(*zip(*points, strict=True), marker=".")
    figure.savefig(the.out / f"{name}.png")


FIGURES = (terms, chain, progressive, figure_5, figure_6, figure_7, figure_8)


def main() -> None:
    """Make all figures, or one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("-o", "--out", required=True, type=Path, help="folder")
    parser.add_argument("--model", type=Path, default=files.GAUSSIAN_32)
    parser.add_argument("--steps", type=int, default=100, help="of sampling")
    parser.add_argument("--only", choices=[figure.__name__ for figure in FIGURES])
    options = parser.parse_args()
    side = load(options.model).side
    images = [
        ImageOps.fit(Image.open(path).convert("RGB"), (side, side)) for path in options.pictures
    ]
    if len(images) < 2:
        parser.error("two pictures or more, please")
    options.out.mkdir(parents=True, exist_ok=True)
    for figure in FIGURES:
        if options.only in (None, figure.__name__):
            print(figure.__name__, flush=True)
            figure(Setting(images, options.model, options.out, options.steps))


if __name__ == "__main__":
    main()
