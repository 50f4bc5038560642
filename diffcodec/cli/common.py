"""What the commands share: errors, options, progress bars, reading and writing."""

import contextlib
import io
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from diffcodec import limits
from diffcodec.errors import DiffcodecError, ImageError

if TYPE_CHECKING:
    from PIL import Image

    from diffcodec import Picture

STANDARD = "-"  # standard input or output

PATH = click.Path()  # a name as it is, which shells complete


class Commands(click.Group):
    """Lists commands as they were added; ends one that fails with a sentence and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, the common ones first."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command: 1 for an error that has a sentence, 130 for an interruption."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            complain("interrupted")
            ctx.exit(130)
        except BrokenPipeError:
            raise  # the reader of our output left: click ends quietly
        except (MemoryError, RuntimeError) as error:
            if not lacks_memory(error):
                raise
            complain("this needs more memory than there is")
            ctx.exit(1)
        except (DiffcodecError, OSError) as error:
            complain(str(error))
            ctx.exit(1)


def lacks_memory(error: Exception) -> bool:
    """Whether it says that there is not enough memory; PyTorch has no class for that on a CPU."""
    sentences = ("can't allocate memory", "out of memory")
    return isinstance(error, MemoryError) or any(part in str(error) for part in sentences)


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


class Rectangle(click.ParamType):
    """A part of a picture in pixels, LEFT,TOP,WIDTH,HEIGHT."""

    name = "X,Y,W,H"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Return (left, top, width, height)."""
        if isinstance(value, tuple):
            return value
        parts = value.split(",")
        if len(parts) != 4 or not all(part.strip().isdecimal() for part in parts):
            self.fail(f"{value!r} is not a part of a picture such as 0,0,640,480", param, ctx)
        return tuple(map(int, parts))


class Seconds(click.ParamType):
    """A number of seconds, or `auto`."""

    name = "SECONDS|auto"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | str:
        """Return the number or "auto"."""
        if value == "auto":
            return "auto"
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not 0 < seconds < math.inf:
            self.fail(f"{value!r} is not a number of seconds, nor auto", param, ctx)
        return seconds


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


def none_with(what: str, **options: object) -> None:
    """Refuse options that were given (are neither None nor False) and do not go with `what`."""
    for name, value in options.items():
        if value is not None and value is not False:
            raise click.UsageError(f"--{name.replace('_', '-')} does not go with {what}")


def files_only(option: str, *names: str) -> None:
    """Refuse an option that standard input and output do not have."""
    if STANDARD in names:
        raise click.UsageError(f"{option} is for files, not for standard input or output")


class Bar:
    """A bar of the work on `title`; it is called with the fraction that is done."""

    def __init__(self, bar: Any, title: str) -> None:
        self._bar, self._title = bar, title

    def __call__(self, fraction: float) -> None:
        self._bar.update(fraction - self._bar.n)

    def saved(self, count: int) -> None:
        """Show how many bytes a fit has saved so far."""
        self._bar.set_description_str(f"{self._title} (saved {count:,} bytes)")


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Bar]:
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
        yield Bar(bar, title)


def open_input(source: str) -> contextlib.AbstractContextManager[BinaryIO]:
    """Open a file or standard input for reading. Raises DiffcodecError if that fails."""
    if source == STANDARD:
        return contextlib.nullcontext(sys.stdin.buffer)
    try:
        return Path(source).open("rb")
    except OSError as error:
        raise DiffcodecError(f"cannot read {source}: {error.strerror}") from error


def read_bytes(source: str) -> bytes:
    """Read a file or standard input."""
    with open_input(source) as file:
        return file.read()


def picture_file(source: str) -> Path | io.BytesIO:
    """What `diffcodec.read_image` takes for a file or standard input."""
    return io.BytesIO(read_bytes(source)) if source == STANDARD else Path(source)


def read_picture(source: str) -> "Picture":
    """Read a picture from a file or standard input."""
    import diffcodec

    return diffcodec.read_image(picture_file(source), complain)


def read_rgb(source: str) -> "Image.Image":
    """Read a picture for the Gaussian process; an ImageError about its kind names the file."""
    import diffcodec

    picture = read_picture(source)
    try:
        mode, depth = diffcodec.coded_kind(picture)
    except ImageError as error:
        raise ImageError(f"{source}: {error}") from error
    if (mode, depth) != ("RGB", 8):
        raise ImageError(
            f"{source} is {mode} with samples of {depth} bits: "
            "the Gaussian process knows RGB with samples of 8 bits only"
        )
    return diffcodec.to_pillow(picture)


def read_all(inputs: Iterable[str], *, recursive: bool) -> "tuple[list[str], list[Image.Image]]":
    """The names of the files that inputs mean, and their pictures; `-` is standard input."""
    import diffcodec
    from diffcodec.cli.tasks import sources

    kinds = diffcodec.picture_suffixes()
    names = [str(path) for path in sources(inputs, kinds, recursive=recursive)]
    return names, [read_rgb(name) for name in names]


def write_picture(image: "Picture", output: str) -> None:
    """Write a picture to a file or standard output."""
    import diffcodec

    target = sys.stdout.buffer if output == STANDARD else Path(output)
    diffcodec.write_image(image, target, complain)


def write_data(data: bytes, output: str) -> None:
    """Write a .dfc file, whole or not at all, or standard output."""
    if output == STANDARD:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    import diffcodec

    diffcodec.write_atomically(Path(output), data)


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


def refuse_inputs(output: str, *sources: str) -> None:
    """Raise ImageError if writing `output` would destroy one of the inputs."""
    for source in sources:
        if (
            STANDARD not in (source, output)
            and Path(output).exists()
            and Path(source).exists()
            and Path(output).samefile(source)
        ):
            raise ImageError(f"{output} is an input: name another output with -o")


def plural(count: int) -> str:
    """So many pictures, in words."""
    return f"{count:,} picture{'s' * (count != 1)}"


def report(line: str, output: str) -> None:
    """Print a result; on standard error if standard output carries the data."""
    click.echo(line, err=output == STANDARD)


MAX_PIXELS = click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    default=limits.MAX_PIXELS,
    show_default=True,
    help="Refuse a file that claims more.",
)
RECURSIVE = click.option("--recursive", is_flag=True, help="Look below folders too.")
_COMPUTING = (
    click.option(
        "--threads",
        type=click.IntRange(min=1),
        metavar="N",
        help="Compute with N threads.  [one for each processor]",
    ),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="Where the network computes; the bytes are the same.",
    ),
    click.option(
        "--model",
        type=click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path),
        help="A model file of your own, as `diffcodec export` or `fit` writes it.",
    ),
)


def computing(command: Callable[..., None]) -> Callable[..., None]:
    """Options that the API's calls share; the command gets them as a dictionary, `computing`."""

    @wraps(command)
    def call(*args: Any, threads: int | None, device: str, model: Path | None, **own: Any) -> None:
        shared = {"threads": threads, "device": device, "model": model}
        command(*args, computing=shared, **own)

    for option in reversed(_COMPUTING):
        call = option(call)
    return call
