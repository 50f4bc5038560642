"""Sets of pictures under the Gaussian process: its bound, bits-back chains, channel coding."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

import diffcodec
from bench import BenchError, results
from bench.metrics import pixels
from bench.ours import NAME
from bench.pictures import Picture
from bench.results import Document
from bench.work import Row
from diffcodec.errors import DiffcodecError

# Section 4.3 and figure 5 of the paper; its rate is the relative entropy, no file's.
DDPM = {"name": "DDPM (Ho et al., 2020, CIFAR-10)", "ideal_bits_per_dim": 1.78, "rmse": 0.95}

TERMS = ("prior", "diffusion", "reconstruction", "total")

_MOST = 40  # milestones in the table

T = TypeVar("T")


def run(
    pictures: Sequence[Picture],
    *,
    steps: int,
    chain: int,
    progressive: int,
    bpd: float,
    model: Path | None,
) -> Document:
    """Measure the bound on all pictures, and files of the first few.

    Args:
        pictures: of one size, so that one model is measured.
        steps: of the model's chain.
        chain: pictures of the bits-back file.
        progressive: pictures of the channel-coded file.
        bpd: size of the channel-coded file, in bits/dim.
        model: a model file in place of the default one.

    Raises BenchError when bits-back coding is not lossless or diffcodec refuses.
    """
    images = [picture.load() for picture in pictures]
    try:
        bounds = [
            {"steps": count, **_bound(images, steps=count, model=model)}
            for count in tqdm((None, steps), desc="likelihood", unit="bound")
        ]
        data, bits_back = _bits_back(pictures[:chain], steps, model)
        rows = _channel(images[:progressive], bpd, model)
    except DiffcodecError as error:
        raise BenchError(str(error)) from error
    model_id = diffcodec.set_info(data).model
    return results.document("likelihood", rows, [], {}) | {
        "model": model_id,
        "codecs": {NAME: f"diffcodec {diffcodec.__version__}, model {model_id}"},
        "pictures": {
            "likelihood": len(images),
            "bits_back": len(images[:chain]),
            "channel": len(images[:progressive]),
        },
        "bounds": bounds,
        "bits_back": bits_back,
        "published": [DDPM],
    }


def summary(document: Document) -> str:
    """The bound term by term, and the bits-back file against the bound of its pictures."""
    header = ["bits/dim", *TERMS]
    lines = [
        [_steps(bound["steps"]), *(_estimate(bound[term]) for term in TERMS)]
        for bound in document["bounds"]
    ]
    counts, coded = document["pictures"], document["bits_back"]
    file = {
        "bits-back": f"{counts['bits_back']} pictures",
        "seeds": str(coded["seeds"]),
        "net bits/dim": f"{coded['net']:.4f}",
        "without seeds": f"{coded['unseeded']:.4f}",
        f"bound, {_steps(coded['steps'])}": f"{coded['bound']:.4f}",
        "against it": f"{100 * (coded['unseeded'] / coded['bound'] - 1):+.2f} %",
        "gross bits/dim": f"{coded['gross']:.4f}",
        "initial bits": f"{coded['initial_bits']:,}",
        "of the file": f"{100 * coded['initial_bits'] / (8 * coded['bytes']):.2f} %",
        "encode, s": f"{coded['encode_seconds']:.1f}",
        "decode, s": f"{coded['decode_seconds']:.1f}",
    }
    return (
        f"{results.table(header, lines)}\n\n"
        f"The negative ELBO, mean over {counts['likelihood']} pictures ± its standard error.\n\n"
        f"{results.table(list(file), [list(file.values())])}\n\n"
        "One file, decoded and equal to its originals. Net is what its pictures cost, gross the "
        "whole file; without those that seed the stack, and so are coded otherwise, against the "
        "bound of the same pictures."
    )


def curve(document: Document) -> str:
    """Rate and error of one channel-coded file, cut at its milestones."""
    header = ["bytes received", "bits/dim", "ideal bits/dim", "actual / ideal", "RMSE"]
    lines = [
        [
            f"{row['bytes']:,}",
            f"{row['bits_per_dim']:.4f}",
            f"{row['ideal_bits_per_dim']:.4f}",
            f"{row['bits_per_dim'] / row['ideal_bits_per_dim']:.3f}",
            f"{row['rmse']:.2f}",
        ]
        for row in document["rows"]
    ]
    for stated in document["published"]:
        rate, rmse = f"{stated['ideal_bits_per_dim']:.2f}", f"{stated['rmse']:.2f}"
        lines.append([f"{stated['name']}: published, not measured", "-", rate, "-", rmse])
    return (
        f"{results.table(header, lines)}\n\n"
        f"One file by reverse channel coding, header included (pictures: "
        f"{document['pictures']['channel']}); RMSE over all samples, on a scale to 255."
    )


def rmse(originals: Sequence[Image.Image], decoded: Sequence[Image.Image]) -> float:
    """Root of the mean squared error over all samples of all pictures, on a scale to 255."""
    errors = [
        (pixels(original).astype(np.float64) - pixels(image)).ravel()
        for original, image in zip(originals, decoded, strict=True)
    ]
    return float(np.sqrt(np.mean(np.concatenate(errors) ** 2)))


def _bound(images: Sequence[Image.Image], **options: Any) -> dict[str, dict[str, float]]:
    """Mean and standard error of each of TERMS, in bits/dim."""
    return asdict(diffcodec.model_likelihood(images, **options))


def _bits_back(
    pictures: Sequence[Picture], steps: int, model: Path | None
) -> tuple[bytes, dict[str, Any]]:
    """The file of a chain of pictures, and what it takes beside their bound.

    Raises BenchError when a decoded picture is not the original, or all but one seed the stack.
    """
    images = [picture.load() for picture in pictures]
    coded, encode_seconds = _timed("bits-back, encode", diffcodec.encode_set, images, model=model)
    decoded, decode_seconds = _timed(
        "bits-back, decode", diffcodec.decode_set, coded.data, model=model
    )
    for picture, original, image in zip(pictures, images, decoded, strict=True):
        if not np.array_equal(pixels(image), pixels(original)):
            raise BenchError(f"{NAME} is not lossless on {picture.name}")
    rest = images[coded.seeds :]
    if len(rest) < 2:
        raise BenchError(f"{coded.seeds} pictures seed the stack: the chain needs two more")
    # Each step of the chain is measured once: the gap to the net rate is small.
    bound = _bound(rest, steps=steps, draws=steps, model=model)
    samples = sum(3 * image.width * image.height for image in rest)
    return coded.data, {
        "steps": steps,
        "bytes": len(coded.data),
        "seeds": coded.seeds,
        "net": coded.net,
        "unseeded": (coded.net_bits - coded.seed_bits) / samples,
        "gross": coded.gross,
        "initial_bits": coded.initial_bits,
        "bound": bound["total"]["mean"],
        "encode_seconds": encode_seconds,
        "decode_seconds": decode_seconds,
    }


def _channel(images: Sequence[Image.Image], bpd: float, model: Path | None) -> list[Row]:
    """What one file shows of its pictures where it is cut, at its milestones or some of them."""
    coded, _ = _timed(
        "channel, encode",
        diffcodec.encode_set,
        images,
        method="channel",
        bpp=3 * bpd,
        model=model,
    )
    shown: dict[int, list[Image.Image]] = {}
    with tqdm(total=len(coded.milestones), desc="channel, decode", unit="milestone") as bar:
        for preview in diffcodec.decode_set_progressive(coded.data, model=model):
            shown[preview.bytes_used] = preview.images
            bar.update()
    # The limit cuts the file short of the last milestone.
    reached = [milestone for milestone in coded.milestones if milestone.bytes in shown]
    chosen = np.linspace(0, len(reached) - 1, min(len(reached), _MOST)).astype(int).tolist()
    return [
        {
            "bytes": milestone.bytes,
            "bits_per_dim": 8 * milestone.bytes / coded.samples,
            "ideal_bits_per_dim": milestone.ideal_bits / coded.samples,
            "rmse": rmse(images, shown[milestone.bytes]),
        }
        for milestone in (reached[i] for i in chosen)
    ]


def _timed(task: str, call: Callable[..., T], *arguments: Any, **options: Any) -> tuple[T, float]:
    """What a call returns that tells its progress, and its seconds."""
    with tqdm(total=1.0, desc=task, bar_format="{l_bar}{bar}[{elapsed}<{remaining}]") as bar:
        start = time.perf_counter()
        result = call(*arguments, progress=lambda done: bar.update(done - bar.n), **options)
        return result, time.perf_counter() - start


def _steps(count: int | None) -> str:
    return "infinitely many steps" if count is None else f"{count} steps"


def _estimate(estimate: dict[str, float]) -> str:
    return f"{estimate['mean']:.4f} ± {estimate['error']:.4f}"
