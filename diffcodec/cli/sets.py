"""encode and decode for sets of pictures, the files of the Gaussian process."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffcodec.cli.common import (
    STANDARD,
    complain,
    name_output,
    none_with,
    plural,
    progress_bar,
    read_all,
    refuse_inputs,
    report,
    write_data,
    write_picture,
)
from diffcodec.errors import ImageError

if TYPE_CHECKING:
    import diffcodec
    from diffcodec import Method


GAUSSIAN_SAMPLERS = ("ancestral", "ddim", "flow", "langevin", "predictor-corrector")
"""How the Gaussian process can draw."""


def encode_set(
    inputs: tuple[str, ...],
    output: str | None,
    method: "Method",
    bpp: float | None,
    computing: dict[str, Any],
    *,
    exact: bool,
    recursive: bool,
) -> None:
    """Encode all pictures to one file and print its line."""
    if output is None:
        raise click.UsageError(f"--method {method} makes one file of all pictures: name it with -o")
    if Path(output).is_dir():
        raise click.UsageError(f"--method {method} makes one file: -o must not be a folder")
    if method == "bits-back":
        none_with("--method bits-back, which is lossless", bpp=bpp)
    import diffcodec

    start = time.perf_counter()
    sources, images = read_all(inputs, recursive=recursive)
    refuse_inputs(output, *sources)
    with progress_bar(output) as progress:
        coded = diffcodec.encode_set(
            images, method=method, bpp=bpp, exact=exact, progress=progress, **computing
        )
    write_data(coded.data, output)
    line = f"{output}: {plural(len(images))}, {describe(coded)}"
    report(f"{line}, {time.perf_counter() - start:.1f} s", output)


def describe(coded: "diffcodec.CodedSet") -> str:
    """The size of a set, and what of it is due to the method more than to the pictures."""
    line = f"{len(coded.data):,} bytes, {coded.gross:.3f} bits/dim"
    if coded.initial_bits:
        return f"{line} gross, {coded.net:.3f} net, {coded.initial_bits:,} initial bits"
    if not coded.milestones:
        return line
    last = coded.milestones[-1]
    return f"{line}, actual over ideal bits {last.bits / last.ideal_bits:.3f}"


def decode_set(
    source: str, data: bytes, output: str | None, options: dict[str, Any], *, force: bool
) -> None:
    """Decode a set to a folder of pictures, or the only one in it to a file; print a line."""
    import diffcodec
    from diffcodec.cli.batch import decoded, make_room, truncated

    found = diffcodec.set_info(data)
    none_with("a set of pictures", max_bytes=options.pop("max_bytes"))
    if found.method == "bits-back":
        none_with("a bits-back set, which is lossless", bpp=options["bpp"])
    targets, place = name_pictures(source, output, found.pictures)
    for target in targets:
        refuse_inputs(target, source)
        if output is None and not force and Path(target).exists():
            # It may well be an original, and what is decoded a mere preview.
            raise ImageError(f"{target} exists: name its folder with -o, or --force replaces it")
    start = time.perf_counter()
    with progress_bar(source) as progress:
        images = diffcodec.decode_set(data, **options, progress=progress)
    for target, image in zip(targets, images, strict=True):
        if target != place:
            make_room(Path(target))
        write_picture(image, target)
    if not found.complete:
        complain(truncated(source, found))
    seconds = time.perf_counter() - start
    alone = targets == [place]
    line = decoded(images[0], seconds) if alone else f"{plural(len(images))}, {seconds:.1f} s"
    report(f"{place}: {line}", place)


def sample_set(
    output: str,
    count: int,
    sampler: Any,
    steps: int,
    eta: float,
    seed: int,
    computing: dict[str, Any],
) -> None:
    """Draw pictures to a folder, or as a grid to a file, and print a line."""
    import diffcodec
    from diffcodec.cli.batch import make_room

    single = as_folder(output)
    if single and Path(output).exists() and not Path(output).is_dir():
        raise click.UsageError(f"{output} is no folder, and has no suffix of a picture")
    if not single and output != STANDARD:
        diffcodec.check_suffix(Path(output))
    start = time.perf_counter()
    with progress_bar("sample") as progress:
        images = diffcodec.sample_set(
            count, sampler=sampler, steps=steps, eta=eta, seed=seed, progress=progress, **computing
        )
    if single:
        for target, image in zip(numbered(output, count), images, strict=True):
            make_room(Path(target))
            write_picture(image, target)
        what = plural(count)
    else:
        image = diffcodec.grid(images)
        write_picture(image, output)
        what = f"{image.width}x{image.height} {image.mode}"
    report(f"{output}: {what}, {time.perf_counter() - start:.1f} s", output)


def as_folder(place: str) -> bool:
    """Whether pictures go to a folder: what has the suffix of a picture and is none is a file."""
    import diffcodec

    path = Path(place)
    named = path.suffix.lower() in diffcodec.picture_suffixes()
    return place != STANDARD and (path.is_dir() or not named)


def numbered(folder: str, count: int) -> list[str]:
    """The files of so many pictures in a folder."""
    return [str(Path(folder) / f"{number:04}.png") for number in range(count)]


def name_pictures(source: str, output: str | None, count: int) -> tuple[list[str], str]:
    """The files of the pictures of a set, and their folder; or one file twice.

    The folder is `output`, or has the name of `source`. An output that has the suffix of a
    picture and is no folder, and standard output, take one picture.
    """
    import diffcodec

    place = name_output(source, None, "") if output is None else output
    path = Path(place)
    if place == STANDARD or (output is not None and not as_folder(place)):
        if count > 1:
            raise click.UsageError(f"the set has {count:,} pictures: -o must be a folder")
        if place != STANDARD:
            diffcodec.check_suffix(path)
        return [place], place
    if path.exists() and not path.is_dir():
        raise click.UsageError(f"a set becomes a folder, which {place} is not: name one with -o")
    return numbered(place, count), place
