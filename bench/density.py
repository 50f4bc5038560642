"""The Gaussian process as a density: its bound for so many steps, its likelihood by the flow."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import diffcodec
from bench import BenchError, results
from bench.metrics import pixels
from bench.ours import NAME
from bench.pictures import Picture
from bench.results import Document
from diffcodec.errors import DiffcodecError
from diffcodec.exact import files
from diffcodec.gaussian import flow
from diffcodec.gaussian.likelihood import Estimate, terms
from diffcodec.gaussian.model import GaussianModel
from diffcodec.training.gaussian import differentiable

# Of CIFAR-10, over the 10,000 pictures of the test set.
PUBLISHED = (
    ("DDPM, trained by the bound (Ho et al., 2020)", "bound", 3.70),
    ("DDPM, trained by L_simple (Ho et al., 2020)", "bound", 3.75),
    ("iDDPM (Nichol and Dhariwal, 2021)", "bound", 2.94),
    ("VDM (Kingma et al., 2021)", "bound", 2.65),
    ("NeuralCompression, bits-back, 4,000 steps", "real bits", 2.951),
    ("NeuralCompression, bits-back, 100 steps", "real bits", 3.077),
)

BATCH = 4  # pictures whose flow is followed together


def run(
    pictures: Sequence[Picture],
    *,
    steps: Sequence[int],
    draws: int,
    flow_steps: int,
    model: Path | None,
) -> Document:
    """Measure the bound for several numbers of steps, and the likelihood by the flow.

    All with the model's network in floats, and on the same pictures: the differences from the
    bound for infinitely many steps have standard errors of their own.

    Args:
        pictures: of one size, whose sides are multiples of 4; two at least.
        steps: of the chains whose bounds are measured.
        draws: times at which each picture is measured.
        flow_steps: of Heun's method, an even number; half as many are measured, too, and both
            extrapolated.
        model: a model file in place of the default one.

    Raises BenchError for pictures of several sizes, or for an unusable model.
    """
    arrays = [
        torch.from_numpy(pixels(picture.load()).copy()).permute(2, 0, 1) for picture in pictures
    ]
    if len(arrays) < 2 or len({tuple(one.shape) for one in arrays}) > 1:
        raise BenchError("a density is measured on two pictures or more, all of one size")
    images = torch.stack(arrays)
    try:
        file = files.parse(files.read(model or files.GAUSSIAN_32))
        floats = differentiable(file)
    except DiffcodecError as error:
        raise BenchError(str(error)) from error
    found: dict[int | None, Tensor] = {}
    for count in tqdm((None, *steps), desc="bounds", unit="chain"):
        parts = terms(floats, images, count, draws=draws, generator=_generator())
        found[count] = parts.sum(0)
    limit = found.pop(None)
    rows = [
        _row(f"bound, {count:,} steps", values, limit) | {"steps": count}
        for count, values in found.items()
    ]
    rows.append(_row("bound, infinitely many steps", limit, None))
    half, whole = (_by_flow(floats, images, count) for count in (flow_steps // 2, flow_steps))
    rows.append(_row(f"flow, {flow_steps // 2:,} steps", half, limit))
    rows.append(_row(f"flow, {flow_steps:,} steps", whole, limit))
    # Heun's method is of second order (Richardson's extrapolation).
    rows.append(_row("flow, infinitely many steps", whole + (whole - half) / 3, limit))
    return results.document("density", rows, [], {}) | {
        "model": file.id.hex(),
        "codecs": {NAME: f"diffcodec {diffcodec.__version__}, model {file.id.hex()}, in floats"},
        "pictures": len(images),
        "published": [list(one) for one in PUBLISHED],
    }


def summary(document: Document) -> str:
    """The estimates, and what others state beside them."""
    lines = [
        [
            row["estimate"],
            f"{row['bits_per_dim']:.4f} ± {row['error']:.4f}",
            _difference(row),
        ]
        for row in document["rows"]
    ]
    stated = [
        [f"{name}: stated", f"{bits:.2f}" if kind == "bound" else f"{bits:.3f}, {kind}", "-"]
        for name, kind, bits in document["published"]
    ]
    header = ["estimate", "bits/dim", "against the bound of infinitely many steps"]
    return (
        f"{results.table(header, [*lines, *stated])}\n\n"
        f"Means over {document['pictures']:,} pictures ± their standard errors, of differences "
        "those of pairs. What is stated is of all 10,000 test pictures of CIFAR-10, and not "
        "measured here."
    )


def _row(name: str, values: Tensor, limit: Tensor | None) -> dict[str, Any]:
    """An estimate from one value for each picture, [N]."""
    own = Estimate.of(values)
    row = {"estimate": name, "bits_per_dim": own.mean, "error": own.error}
    if limit is not None:
        pairs = Estimate.of(values - limit)
        row |= {"difference": pairs.mean, "difference_error": pairs.error}
    return row


def _difference(row: dict[str, Any]) -> str:
    if "difference" not in row:
        return "-"
    return f"{row['difference']:+.4f} ± {row['difference_error']:.4f}"


def _by_flow(model: GaussianModel, images: Tensor, steps: int) -> Tensor:
    """Bits/dim of each picture by the probability-flow ODE, [N]."""
    generator, parts = _generator(), images.split(BATCH)
    found = [
        flow.bits(model, part, steps, generator).double()
        for part in tqdm(parts, desc="flow", unit="batch")
    ]
    return torch.cat(found)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
