"""The command line: arguments, progress bars and messages around the public API.

Commands import what they need when they run, so that `diffcodec --help` does not wait for torch.
"""

import contextlib
import io
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffcodec import __version__
from diffcodec.errors import DiffcodecError, ImageError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

STANDARD = "-"  # standard input or output


class Commands(click.Group):
    """Ends a command that fails with one sentence and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command: 1 for an error that has a sentence, 130 for an interruption."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            complain("interrupted")
            ctx.exit(130)
        except BrokenPipeError:
            raise  # the reader of our output left: click ends quietly
        except (DiffcodecError, OSError) as error:
            complain(str(error))
            ctx.exit(1)


class Size(click.ParamType):
    """A picture's size in pixels, WIDTHxHEIGHT."""

    name = "WxH"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Return (width, height)."""
        if isinstance(value, tuple):
            return value
        width, _, height = value.lower().partition("x")
        if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
            self.fail(f"{value!r} is not a size such as 640x480", param, ctx)
        return int(width), int(height)


def positive(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    """Refuse zero, negative numbers, infinity and NaN."""
    if value is not None and not 0 < value < math.inf:
        raise click.BadParameter(f"{value} is not a positive number")
    return value


def complain(message: str) -> None:
    """Say something on standard error."""
    click.echo(f"diffcodec: {message}", err=True)


def at_most_one(**limits: float | None) -> dict[str, Any]:
    """Return the limits as they are, once it is sure that they do not compete."""
    if sum(limit is not None for limit in limits.values()) > 1:
        names = ", ".join("--" + name.replace("_", "-") for name in limits)
        raise click.UsageError(f"give at most one of {names}")
    return limits


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Callable[[float], None]]:
    """A bar on standard error if that is a terminal; yields what takes the fraction done."""
    from tqdm import tqdm

    with tqdm(
        total=1.0,
        desc=title,
        leave=False,
        mininterval=0,
        disable=None,
        bar_format="{desc} {percentage:3.0f}% {bar} {elapsed}<{remaining}",
    ) as bar:
        yield lambda fraction: bar.update(fraction - bar.n)


def read_bytes(source: str) -> bytes:
    """Read a file or standard input."""
    if source == STANDARD:
        return sys.stdin.buffer.read()
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise DiffcodecError(f"cannot read {source}: {error.strerror}") from error


def read_picture(source: str) -> "Image.Image":
    """Read a picture from a file or standard input."""
    from diffcodec.imageio import read_image

    return read_image(io.BytesIO(read_bytes(source)) if source == STANDARD else Path(source))


def write_picture(image: "Image.Image", output: str) -> None:
    """Write a picture to a file or standard output."""
    from diffcodec.imageio import write_image

    write_image(image, sys.stdout.buffer if output == STANDARD else Path(output))


def name_output(source: str, output: str | None, suffix: str) -> str:
    """Where the result of `source` goes: `output`, a file in that folder, or beside `source`."""
    path = Path(source)
    if output is None:
        return STANDARD if source == STANDARD else str(path.parent / (path.stem + suffix))
    if output != STANDARD and Path(output).is_dir():
        if source == STANDARD:
            raise click.UsageError("standard input has no name: -o must be a file, not a folder")
        return str(Path(output) / (path.stem + suffix))
    return output


def spare_inputs(output: str, *sources: str) -> None:
    """Raise ImageError if writing `output` would destroy one of the inputs."""
    for source in sources:
        if (
            STANDARD not in (source, output)
            and Path(output).exists()
            and Path(source).exists()
            and Path(output).samefile(source)
        ):
            raise ImageError(f"{output} is an input: name another output with -o")


def report(line: str, output: str) -> None:
    """Print a result; on standard error if standard output carries the data."""
    click.echo(line, err=output == STANDARD)


MODEL = click.option(
    "--model",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A model file of your own, as `diffcodec export` writes it.",
)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="diffcodec", message="%(prog)s %(version)s")
def main() -> None:
    """Progressive, bit-for-bit lossless image coding with a diffusion model.

    Every prefix of a .dfc file is a picture; the whole file is the original.
    """


@main.command()
@click.argument("inputs", nargs=-1, required=True, metavar="IN...")
@click.option("-o", "--output", help="File, folder, or - for standard output.  [IN.dfc]")
@click.option("--bpp", type=float, callback=positive, help="At most this many bits per pixel.")
@click.option("--max-bytes", type=click.IntRange(min=1), help="At most this many bytes.")
@click.option("--psnr", type=float, callback=positive, help="At least this quality, in dB.")
@MODEL
@click.pass_context
def encode(
    ctx: click.Context,
    inputs: tuple[str, ...],
    output: str | None,
    bpp: float | None,
    max_bytes: int | None,
    psnr: float | None,
    model: Path | None,
) -> None:
    """Encode pictures, losslessly unless a limit is given.

    IN is a picture in any format that Pillow reads, or - for standard input.
    """
    limits = at_most_one(bpp=bpp, max_bytes=max_bytes, psnr=psnr)
    if len(inputs) > 1:
        if STANDARD in inputs:
            raise click.UsageError("standard input cannot be one of several inputs")
        if output is not None and not Path(output).is_dir():
            raise click.UsageError(f"with several inputs, -o must be a folder: {output} is none")
    outputs = [name_output(source, output, ".dfc") for source in inputs]
    for target in outputs:
        if outputs.count(target) > 1:
            raise click.UsageError(f"several inputs would be written to {target}")
    failed = False
    for source, target in zip(inputs, outputs, strict=True):
        try:
            spare_inputs(target, *inputs)
            encode_one(source, target, limits | {"model": model})
        except BrokenPipeError:
            raise
        except (DiffcodecError, OSError) as error:
            complain(str(error))
            failed = True
    if failed:
        ctx.exit(1)


def encode_one(source: str, output: str, options: dict[str, Any]) -> None:
    """Encode one picture and print its line."""
    import diffcodec
    from diffcodec.imageio import write_atomically

    start = time.perf_counter()
    image = read_picture(source)
    with progress_bar(source) as progress:
        data = diffcodec.encode(image, **options, progress=progress)
    if output == STANDARD:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        write_atomically(Path(output), data)
    seconds = time.perf_counter() - start
    header = diffcodec.info(data, rungs=False)
    pixels = header.width * header.height
    raw = pixels * len(header.mode)  # a mode has a letter per plane
    report(
        f"{output}: {len(data):,} bytes, {8 * len(data) / pixels:.3f} bpp, "
        f"{raw / len(data):.2f}:1, {seconds:.1f} s",
        output,
    )


@main.command()
@click.argument("source", metavar="IN.dfc")
@click.option("-o", "--output", help="File, folder, or - for standard output.  [IN.png]")
@click.option("--bpp", type=float, callback=positive, help="Use this many bits per pixel only.")
@click.option("--max-bytes", type=click.IntRange(min=1), help="Use this many bytes only.")
@click.option(
    "--detail",
    type=click.Choice(["mean", "sample"]),
    default="mean",
    show_default=True,
    help="What a prefix leaves open: its expectation, or a sample of what it may have been.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Seed of the sample.  [0]")
@MODEL
def decode(
    source: str,
    output: str | None,
    bpp: float | None,
    max_bytes: int | None,
    detail: str,
    seed: int,
    model: Path | None,
) -> None:
    """Decode a file, or as much of it as there is or as the limit allows."""
    import diffcodec
    from diffcodec.imageio import check_suffix

    limits = at_most_one(bpp=bpp, max_bytes=max_bytes)
    target = name_output(source, output, ".png")
    spare_inputs(target, source)
    if target != STANDARD:
        check_suffix(Path(target))
        if output is None and Path(target).exists():
            # It may well be the original, and what is decoded a mere preview.
            raise ImageError(f"{target} exists: name it with -o to replace it")
    start = time.perf_counter()
    data = read_bytes(source)
    header = diffcodec.info(data, rungs=False)
    with progress_bar(source) as progress:
        image = diffcodec.decode(
            data, **limits, detail=detail, seed=seed, model=model, progress=progress
        )
    write_picture(image, target)
    if not header.complete:
        complain(
            f"{source} is truncated, {header.bytes:,} of {header.total_bytes:,} bytes: "
            "this is a preview"
        )
    seconds = time.perf_counter() - start
    report(f"{target}: {image.width}x{image.height} {image.mode}, {seconds:.1f} s", target)


@main.command()
@click.option("-o", "--output", required=True, help="File, or - for standard output.")
@click.option("--size", type=Size(), default="256x256", show_default=True, help="In pixels.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Seed of the sample.  [0]")
@MODEL
def sample(output: str, size: tuple[int, int], seed: int, model: Path | None) -> None:
    """Draw a picture from the model: what it takes pictures to look like."""
    import diffcodec
    from diffcodec.imageio import check_suffix

    if output != STANDARD:
        check_suffix(Path(output))
    start = time.perf_counter()
    with progress_bar("sample") as progress:
        image = diffcodec.sample(*size, seed=seed, model=model, progress=progress)
    write_picture(image, output)
    seconds = time.perf_counter() - start
    report(f"{output}: {image.width}x{image.height} {image.mode}, {seconds:.1f} s", output)


@main.command()
@click.argument("source", metavar="IN.dfc")
@click.option("--against", metavar="ORIGINAL", help="Print each rung's PSNR against this picture.")
@MODEL
def info(source: str, against: str | None, model: Path | None) -> None:
    """Print what a file holds, and the bytes at which each rung ends."""
    import diffcodec

    data = read_bytes(source)
    header = diffcodec.info(data, rungs=False)
    quality = None
    if against is not None:
        kind = f"{header.width}x{header.height} {header.mode}"
        quality = rung_psnr(data, kind, against, model)
    pixels = header.width * header.height
    state = f"complete, {header.bytes:,} bytes"
    if not header.complete:
        state = f"truncated, {header.bytes:,} of {header.total_bytes:,} bytes"
    for label, value in {
        "picture": f"{header.width}x{header.height} {header.mode}",
        "model": header.model,
        "checksum": f"{header.checksum:08x}",
        "coding": "lossless" if header.lossless else "lossy",
        "file": f"{state}, {8 * header.bytes / pixels:.3f} bpp",
    }.items():
        click.echo(f"{label:<9}{value}")
    click.echo("\nrung       bytes      bpp" + ("     PSNR" if quality is not None else ""))
    for rung in diffcodec.info(data, model=model).rungs:
        line = f"{rung.rung:>4}{rung.bytes:>12,}{rung.bpp:>9.3f}"
        if quality is not None:
            line += f"{quality[rung.rung]:>9.2f}" if rung.rung in quality else f"{'-':>9}"
        click.echo(line)


def rung_psnr(data: bytes, kind: str, against: str, model: Path | None) -> dict[int, float]:
    """PSNR in dB at the end of each rung; ImageError unless `against` is of the same kind."""
    import diffcodec
    from diffcodec.imageio import to_planes

    mode, original = to_planes(read_picture(against))
    height, width = original.shape[1:]
    if (found := f"{width}x{height} {mode}") != kind:
        raise ImageError(f"cannot compare: {against} is {found}, the file holds {kind}")
    return {
        preview.rung: psnr(to_planes(preview.image)[1], original)
        for preview in diffcodec.decode_progressive(data, model=model)
    }


def psnr(planes: "np.ndarray", original: "np.ndarray") -> float:
    """PSNR in dB over all samples of 8-bit planes; infinite if they are equal."""
    import numpy as np

    error = float(np.mean(np.square(planes.astype(np.float32) - original), dtype=np.float64))
    return 10 * math.log10(255**2 / error) if error else math.inf


FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@main.command()
@click.argument("data", type=FOLDER)
@click.argument("checkpoint", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--minutes", type=float, callback=positive, help="Stop after so many minutes.")
@click.option("--steps", type=click.IntRange(min=1), help="Stop after so many steps.")
@click.option("--validation", type=FOLDER, help="Pictures to measure bits/dim on, now and then.")
@click.option("--device", help="cpu, cuda or cuda:N.  [cuda where there is one]")
def train(
    data: Path,
    checkpoint: Path,
    minutes: float | None,
    steps: int | None,
    validation: Path | None,
    device: str | None,
) -> None:
    """Train a model on the pictures in DATA; resume if CHECKPOINT exists."""
    budget = at_most_one(minutes=minutes, steps=steps)
    if minutes is None and steps is None:
        raise click.UsageError("give --minutes or --steps")
    from diffcodec import training

    training.train(data, checkpoint, **budget, validation=validation, device=device)


@main.command()
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--calibration", type=FOLDER, required=True, help="Pictures that set the ranges.")
@click.option("--validation", type=FOLDER, help="Pictures to measure bits/dim on.")
def export(checkpoint: Path, out: Path, calibration: Path, validation: Path | None) -> None:
    """Turn CHECKPOINT into OUT, the integer model that the codec runs."""
    spare_inputs(str(out), str(checkpoint))
    from diffcodec import training

    training.export(checkpoint, out, calibration=calibration, validation=validation)
