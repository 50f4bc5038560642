"""info and preview."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffcodec.cli.common import (
    MAX_PIXELS,
    PATH,
    computing,
    none_with,
    plural,
    read_bytes,
    read_picture,
    refuse_inputs,
    report,
)
from diffcodec.errors import ImageError

if TYPE_CHECKING:
    import diffcodec


@click.command()
@click.argument("source", type=PATH, metavar="IN.dfc")
@click.option(
    "--against", type=PATH, metavar="ORIGINAL", help="Print each rung's PSNR against this picture."
)
@click.option("--json", "as_json", is_flag=True, help="Print all of it as one JSON object.")
@computing
def info(source: str, against: str | None, as_json: bool, computing: dict[str, Any]) -> None:
    """Print what a file holds, and where its rungs end.

    A set of pictures has no rungs: what its header says is printed.
    """
    import diffcodec

    data = read_bytes(source)
    if diffcodec.is_set(data):
        none_with("a set of pictures", against=against)
        print_set(diffcodec.set_info(data), as_json=as_json)
        return
    quality = None
    if against is not None:
        quality = rung_psnr(data, against, computing)
    found = diffcodec.info(data, **computing)
    (print_json if as_json else print_table)(found, quality)


def print_json(found: "diffcodec.Info", quality: dict[int, float] | None) -> None:
    """Print an Info and the PSNR of its rungs; infinity, which JSON lacks, is null."""
    fields = asdict(found)
    if quality is not None:
        for rung in fields["rungs"]:
            value = quality.get(rung["rung"], math.inf)
            rung["psnr"] = None if math.isinf(value) else round(value, 3)
    click.echo(json.dumps(fields, indent=2))


def print_table(found: "diffcodec.Info", quality: dict[int, float] | None) -> None:
    """Print an Info and the PSNR of its rungs for people."""
    pixels = found.width * found.height
    fields = {
        "picture": f"{found.width}x{found.height} {found.mode}" + ", 16 bits" * (found.depth == 16),
        "process": found.process,
        "colours": found.space,
        "model": found.model + ", fitted to the picture" * found.fitted,
        "checksum": f"{found.checksum:08x}",
        "coding": coding(found),
    }
    if found.tile:
        fields["tiles"] = f"of {found.tile} pixels a side at most"
    if found.metadata:
        kinds = (f"{name} {size:,} bytes" for name, size in found.metadata.items())
        fields["metadata"] = ", ".join(kinds)
    print_fields(fields | size_fields(found, pixels))
    click.echo("\nrung       bytes      bpp" + ("     PSNR" if quality is not None else ""))
    for rung in found.rungs:
        line = f"{rung.rung:>4}{rung.bytes:>12,}{rung.bpp:>9.3f}"
        if quality is not None:
            line += f"{quality[rung.rung]:>9.2f}" if rung.rung in quality else f"{'-':>9}"
        click.echo(line)


def coding(found: "diffcodec.Info") -> str:
    """How near a file comes to its picture."""
    if found.max_error:
        return f"near-lossless, samples within {found.max_error}"
    return "lossless" if found.lossless else "lossy"


def print_set(found: "diffcodec.SetInfo", *, as_json: bool) -> None:
    """Print a SetInfo as JSON or for people."""
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
        return
    groups = ", ".join(f"{each.count:,} of {each.width}x{each.height}" for each in found.groups)
    pixels = sum(each.count * each.width * each.height for each in found.groups)
    fields = {
        "set": f"{plural(found.pictures)}: {groups}",
        "model": found.model,
        "checksum": f"{found.checksum:08x}",
        "coding": found.method + ", exact" * found.exact,
    }
    print_fields(fields | size_fields(found, pixels))


def size_fields(found: "diffcodec.Info | diffcodec.SetInfo", pixels: int) -> dict[str, str]:
    """What to say of the bytes of a file with so many pixels."""
    state = f"complete, {found.bytes:,} bytes"
    if not found.complete:
        state = f"truncated, {found.bytes:,} of {found.total_bytes:,} bytes"
    fields = {"file": f"{state}, {8 * min(found.bytes, found.total_bytes) / pixels:.3f} bpp"}
    if found.bytes > found.total_bytes:
        fields["note"] = f"{found.bytes - found.total_bytes:,} bytes after its end are ignored"
    return fields


def print_fields(fields: dict[str, str]) -> None:
    """Print labels and values in columns."""
    for label, value in fields.items():
        click.echo(f"{label:<10}{value}")


def rung_psnr(data: bytes, against: str, computing: dict[str, Any]) -> dict[int, float]:
    """PSNR in dB at the end of each rung; ImageError unless `against` is of the same kind."""
    import diffcodec

    original = read_picture(against)
    try:
        return {
            preview.rung: diffcodec.psnr(preview.picture, original)
            for preview in diffcodec.decode_progressive(data, **computing)
        }
    except ImageError as error:
        raise ImageError(f"{against}: {error}") from error


@click.command()
@click.argument("source", type=PATH, metavar="IN.dfc")
@click.option("-o", "--output", type=PATH, required=True, help="A .html, .gif, .webp or .png file.")
@click.option(
    "--show",
    type=click.Choice(["mean", "visual"]),
    default="visual",
    show_default=True,
    help="Each prefix as its expectation, or with the texture that it may have had.",
)
@MAX_PIXELS
@computing
def preview(
    source: str, output: str, show: str, max_pixels: int, computing: dict[str, Any]
) -> None:
    """Show how a picture sharpens, as a page or an animation.

    The suffix of OUT decides: a page to play with, an animation, or (.png) a contact sheet. Those
    of a set are in a grid; of a bits-back set there is nothing to see but its pictures.
    """
    from diffcodec.cli import viewer

    refuse_inputs(output, source)
    title = Path(source).name
    computing |= {"show": show, "max_pixels": max_pixels}
    viewer.write(read_bytes(source), Path(output), title, **computing)
    report(f"{output}: {Path(output).stat().st_size:,} bytes", output)
