"""encode, decode and sample."""

import time
from pathlib import Path
from typing import Any, Literal

import click

from diffcodec.cli.common import (
    MAX_PIXELS,
    PATH,
    STANDARD,
    Rectangle,
    Seconds,
    Size,
    at_most_one,
    complain,
    computing,
    files_only,
    name_output,
    none_with,
    open_input,
    picture_file,
    positive,
    progress_bar,
    read_bytes,
    refuse_inputs,
    report,
    write_data,
    write_picture,
)
from diffcodec.cli.many import Many, many_files
from diffcodec.cli.sets import GAUSSIAN_SAMPLERS, decode_set, encode_set, sample_set
from diffcodec.cli.tasks import Task
from diffcodec.errors import ImageError


@click.command()
@click.argument("inputs", nargs=-1, type=PATH, required=True, metavar="IN...")
@click.option("-o", "--output", type=PATH, help="File, folder, or - for standard output.  [IN.dfc]")
@click.option(
    "--method",
    type=click.Choice(["single", "bits-back", "channel"]),
    default="single",
    show_default=True,
    help="A file for each picture; or all of them in one, lossless or progressive.",
)
@click.option(
    "--process",
    type=click.Choice(["auto", "photo", "drawing"]),
    default="auto",
    show_default=True,
    help="As what a single picture is coded; auto is what makes the shorter file.",
)
@click.option(
    "--exact",
    is_flag=True,
    help="Of channel: send exact samples of the process, in more time and bits.",
)
@click.option("--bpp", type=float, callback=positive, help="At most this many bits per pixel.")
@click.option("--max-bytes", type=click.IntRange(min=1), help="At most this many bytes.")
@click.option("--psnr", type=float, callback=positive, help="At least this quality, in dB.")
@click.option(
    "--max-error",
    type=click.IntRange(min=1),
    help="Near-lossless: no sample differs by more than this.",
)
@click.option(
    "--tile",
    type=click.IntRange(min=0),
    help="Longest side of the tiles of a photograph, 64 to 2048; 0 for none.  "
    "[512 beyond four million pixels]",
)
@click.option(
    "--fit",
    type=Seconds(),
    help="Fit the model to the photograph for so many seconds: smaller, decoded about as fast.",
)
@click.option(
    "--rgb",
    is_flag=True,
    help="Code RGB also of what was converted from JPEG's, WebP's or Photo CD's colours.",
)
@click.option(
    "--strip",
    is_flag=True,
    help="Leave out metadata, but for colours (ICC profile...) and which way is up.",
)
@many_files
@computing
def encode(
    inputs: tuple[str, ...],
    output: str | None,
    method: Literal["single", "bits-back", "channel"],
    exact: bool,
    process: str,
    bpp: float | None,
    max_bytes: int | None,
    psnr: float | None,
    max_error: int | None,
    tile: int | None,
    fit: float | str | None,
    rgb: bool,
    strip: bool,
    recursive: bool,
    jobs: int,
    scheduler: str | None,
    force: bool,
    keep_times: bool | None,
    computing: dict[str, Any],
) -> None:
    """Encode pictures, losslessly unless a limit is given.

    IN is a picture in any format that Pillow reads, a folder or a pattern of them, or - for
    standard input. Of many files, those are left out whose .dfc file was made from the same bytes
    with the same options, and is whole. IMG.jpg and IMG.png of one folder become IMG.jpg.dfc and
    IMG.png.dfc.

    The methods bits-back and channel (of the Gaussian process) make one set of all pictures, which
    are RGB with samples of 8 bits.
    """
    if method != "channel":
        none_with(f"--method {method}", exact=exact)
    if method != "single":
        none_with(
            f"--method {method}",
            process=process != "auto",
            max_bytes=max_bytes,
            psnr=psnr,
            max_error=max_error,
            tile=tile,
            fit=fit,
            rgb=rgb,
            strip=strip,
            jobs=jobs > 1,
            scheduler=scheduler,
            force=force,
            keep_times=keep_times,
        )
        encode_set(inputs, output, method, bpp, computing, exact=exact, recursive=recursive)
        return
    options: dict[str, Any] = at_most_one(
        bpp=bpp, max_bytes=max_bytes, psnr=psnr, max_error=max_error
    )
    if fit is not None:
        none_with("--fit", bpp=bpp, max_bytes=max_bytes, psnr=psnr)
    options |= {"process": process, "tile": tile, "fit": fit, "rgb": rgb, "strip": strip}
    options |= computing
    if Many.are(inputs):
        import diffcodec
        from diffcodec.cli import batch

        many = Many(inputs, output, recursive, jobs, scheduler, force, keep_times)
        many.run(batch.encode_file, options, diffcodec.picture_suffixes(), ".dfc")
        return
    target = name_output(inputs[0], output, ".dfc")
    refuse_inputs(target, inputs[0])
    encode_one(inputs[0], target, options, keep_time=bool(keep_times))


def encode_one(source: str, output: str, options: dict[str, Any], *, keep_time: bool) -> None:
    """Encode one picture and print its line."""
    import diffcodec
    from diffcodec.cli.batch import encoded, outgrown

    if keep_time:
        files_only("--keep-times", source, output)
    start = time.perf_counter()
    file = picture_file(source)
    image = diffcodec.read_image(file, complain)
    kind, image = getattr(image, "format", None), diffcodec.lean(image)
    with progress_bar(source) as progress:
        data = diffcodec.encode(image, **options, progress=progress, saved=progress.saved)
    write_data(data, output)
    if keep_time:
        Task(Path(source), Path(output)).keep_time()
    size = file.stat().st_size if isinstance(file, Path) else file.getbuffer().nbytes
    for note in outgrown(source, kind, size, data):
        complain(note)
    report(f"{output}: {encoded(data, time.perf_counter() - start)[0]}", output)


@click.command()
@click.argument("inputs", nargs=-1, type=PATH, required=True, metavar="IN.dfc...")
@click.option("-o", "--output", type=PATH, help="File, folder, or - for standard output.  [IN.png]")
@click.option("--bpp", type=float, callback=positive, help="Use this many bits per pixel only.")
@click.option("--max-bytes", type=click.IntRange(min=1), help="Use this many bytes only.")
@click.option("--region", type=Rectangle(), help="Decode this part only, in pixels.")
@click.option("--size", type=click.IntRange(min=1), help="Reduce to sides no longer than this.")
@MAX_PIXELS
@click.option(
    "--show",
    type=click.Choice(["mean", "visual", "sample", "flow"]),
    default="mean",
    show_default=True,
    help="How a prefix is shown: as its expectation, with the texture that it may have had, as a "
    "sample of what it may have been, or (of a set) where the probability flow leads.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of what is drawn."
)
@click.option(
    "--live",
    type=PATH,
    metavar="OUT",
    help="Write OUT anew with each better picture while IN arrives.",
)
@many_files
@computing
def decode(
    inputs: tuple[str, ...],
    output: str | None,
    bpp: float | None,
    max_bytes: int | None,
    region: tuple[int, int, int, int] | None,
    size: int | None,
    max_pixels: int,
    show: str,
    seed: int,
    live: str | None,
    recursive: bool,
    jobs: int,
    scheduler: str | None,
    force: bool,
    keep_times: bool | None,
    computing: dict[str, Any],
) -> None:
    """Decode files, or as much of them as there is.

    Metadata are written where the format of OUT holds them; a line says what is left out.

    IN.dfc is a file, a folder or a pattern of files, or - for standard input. Of many files,
    those are left out whose picture was made from the same bytes with the same options, and is
    whole.

    A set of pictures becomes 0000.png, 0001.png... in the folder that -o names; by default it has
    the set's name, and nothing in it is replaced without --force.
    """
    options = at_most_one(bpp=bpp, max_bytes=max_bytes)
    if live is not None:
        none_with("--live", keep_times=keep_times)
        others = (output, bpp, max_bytes, region, size)
        still = show in ("mean", "visual")
        if len(inputs) > 1 or any(option is not None for option in others) or not still:
            raise click.UsageError(
                "--live takes one input, and goes with --show mean or visual, --seed, "
                "--max-pixels, --model, --threads and --device only"
            )
        options = {"show": show, "seed": seed, "max_pixels": max_pixels}
        decode_live(inputs[0], live, options | computing)
        return
    options |= {"show": show, "seed": seed, "max_pixels": max_pixels, **computing}
    parts: dict[str, Any] = {"region": region, "size": size}
    if Many.are(inputs):
        from diffcodec.cli import batch

        if show == "flow":
            raise click.UsageError("--show flow is for a set, which is decoded by itself")
        many = Many(inputs, output, recursive, jobs, scheduler, force, keep_times)
        # Beside its source a picture may well be the original, and what is decoded a preview.
        keep = output is None and not force
        many.run(batch.decode_file, options | parts, {".dfc"}, ".png", keep=keep)
        return
    import diffcodec

    data = read_bytes(inputs[0])
    if diffcodec.is_set(data):
        if show == "visual":
            raise click.UsageError(f"--show visual is for a picture, and {inputs[0]} is a set")
        none_with("a set of pictures", keep_times=keep_times, **parts)
        decode_set(inputs[0], data, output, options, force=force)
    else:
        decode_one(inputs[0], data, output, options | parts, keep_time=bool(keep_times))


def decode_one(
    source: str, data: bytes, output: str | None, options: dict[str, Any], *, keep_time: bool
) -> None:
    """Decode the file of one picture and print its line."""
    import diffcodec
    from diffcodec.cli.batch import check_target, decoded, truncated

    if options["show"] == "flow":
        raise click.UsageError(f"--show flow is for a set, and {source} is none")
    target = name_output(source, output, ".png")
    refuse_inputs(target, source)
    if keep_time:
        files_only("--keep-times", source, target)
    start = time.perf_counter()
    header = diffcodec.info(data, rungs=False)
    if target != STANDARD:
        check_target(Path(target), header, options)
        if output is None and Path(target).exists():
            # It may well be the original, and what is decoded a mere preview.
            raise ImageError(f"{target} exists: name it with -o to replace it")
    with progress_bar(source) as progress:
        image = diffcodec.decode_picture(data, **options, progress=progress)
    write_picture(image, target)
    if keep_time:
        Task(Path(source), Path(target)).keep_time()
    if not header.complete:
        complain(truncated(source, header))
    report(f"{target}: {decoded(image, time.perf_counter() - start)}", target)


def decode_live(source: str, target: str, options: dict[str, Any]) -> None:
    """Decode while the input arrives; `target` always holds the last picture whole, and upright.

    Which way is up stands at the end of a file: from a pipe the last picture alone is turned.
    """
    import diffcodec

    refuse_inputs(target, source)
    diffcodec.check_suffix(Path(target))
    with open_input(source) as file:
        for preview in diffcodec.decode_progressive(file, **options):
            notes: list[str] = []
            diffcodec.write_image(diffcodec.upright(preview.picture), Path(target), notes.append)
            click.echo(f"{target}: rung {preview.rung}, {preview.bytes_used:,} bytes")
    for note in notes:
        complain(note)
    if not preview.complete:
        complain(f"{source} is truncated: this is a preview")


@click.command()
@click.option(
    "-o",
    "--output",
    type=PATH,
    required=True,
    help="File, - for standard output, or (Gaussian only) a folder of single pictures.",
)
@click.option(
    "--sampler",
    type=click.Choice(["quantised", *GAUSSIAN_SAMPLERS]),
    default="quantised",
    show_default=True,
    help="How to draw; all but the first are of the Gaussian process.",
)
@click.option("--size", type=Size(), help="In pixels; quantised only.  [256x256]")
@click.option("--count", type=click.IntRange(min=1), help="Pictures; Gaussian only.  [16]")
@click.option("--steps", type=click.IntRange(min=1), help="From noise; Gaussian only.  [100]")
@click.option(
    "--eta", type=click.FloatRange(0, 1), help="The share of fresh noise; ddim only.  [0]"
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of what is drawn."
)
@computing
def sample(
    output: str,
    sampler: str,
    size: tuple[int, int] | None,
    count: int | None,
    steps: int | None,
    eta: float | None,
    seed: int,
    computing: dict[str, Any],
) -> None:
    """Draw from the model: what it takes pictures to look like.

    The quantised process draws one picture of any size, the Gaussian one small pictures: to a file
    as a grid, to a folder one by one.
    """
    if sampler != "ddim":
        none_with(f"--sampler {sampler}", eta=eta)
    if sampler == "quantised":
        none_with("--sampler quantised", count=count, steps=steps)
    else:
        none_with(f"--sampler {sampler}", size=size)
        sample_set(output, count or 16, sampler, steps or 100, eta or 0.0, seed, computing)
        return
    import diffcodec

    if output != STANDARD:
        diffcodec.check_suffix(Path(output))
    start = time.perf_counter()
    with progress_bar("sample") as progress:
        side = size or (256, 256)
        image = diffcodec.sample(*side, seed=seed, progress=progress, **computing)
    write_picture(image, output)
    seconds = time.perf_counter() - start
    report(f"{output}: {image.width}x{image.height} {image.mode}, {seconds:.1f} s", output)
