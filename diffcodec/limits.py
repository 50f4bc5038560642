"""What the drivers of all codecs share: limits, cuts, regions, and who follows their progress."""

from collections.abc import Callable
from dataclasses import dataclass

from diffcodec.errors import FormatError, ImageError

MAX_PIXELS = 89_478_485
"""Pixels of a picture that are decoded unless a caller allows more; as Pillow's own limit."""

Place = tuple[slice, slice]
"""Rows and columns of a part of a picture."""

Progress = Callable[[float], None]
"""Is called with the fraction of the work that is done."""


def ignore(_: float) -> None:
    """The progress of a caller who does not ask."""


def part(progress: Progress, number: int, parts: int) -> Progress:
    """The progress of one of some equal parts of the work, as that of the whole."""
    return lambda done: progress((number + done) / parts)


def check_pixels(pixels: int, limit: int | None) -> None:
    """Raise FormatError if a file claims more pixels than its reader allows."""
    if limit is not None and pixels > limit:
        raise FormatError(
            f"The file claims {pixels:,} pixels, more than the limit of {limit:,} that max_pixels "
            "(--max-pixels) sets."
        )


@dataclass(frozen=True)
class Cut:
    """Where a file is cut: at the first limit that is met.

    Attributes:
        bpp: at most so many bits of the file per pixel.
        max_bytes: at most so many bytes.
        psnr: as soon as it has this quality, in dB over all samples; for encoders.
    """

    bpp: float | None = None
    max_bytes: int | None = None
    psnr: float | None = None

    @property
    def whole(self) -> bool:
        """Whether there is no limit at all."""
        return self == Cut()

    def size(self, pixels: int) -> int | None:
        """The most bytes of a file of so many pixels; None if there is no limit."""
        limits = [] if self.max_bytes is None else [self.max_bytes]
        if self.bpp is not None:
            limits.append(int(self.bpp * pixels / 8))
        return min(limits, default=None)


@dataclass(frozen=True)
class Region:
    """A rectangle of a picture, in pixels from its left and its upper edge."""

    left: int
    top: int
    width: int
    height: int

    def check(self, width: int, height: int) -> None:
        """Raise ImageError unless it has pixels and lies within a picture of such a size."""
        inside = (
            min(self.left, self.top) >= 0
            and min(self.width, self.height) > 0
            and self.left + self.width <= width
            and self.top + self.height <= height
        )
        if not inside:
            raise ImageError(
                f"The region {self.left},{self.top},{self.width},{self.height} is not inside "
                f"the picture of {width} x {height} pixels."
            )

    @property
    def place(self) -> Place:
        """Its rows and columns in the picture."""
        return (
            slice(self.top, self.top + self.height),
            slice(self.left, self.left + self.width),
        )

    def shared(self, place: Place) -> tuple[Place, Place] | None:
        """What it shares with other rows and columns of the picture: as their part, and as its own.

        None if that is nothing.
        """
        theirs, own = zip(*map(_shared, place, self.place), strict=True)
        if any(part.start >= part.stop for part in theirs):
            return None
        return (theirs[0], theirs[1]), (own[0], own[1])


def _shared(one: slice, other: slice) -> tuple[slice, slice]:
    """The places of what two ranges share, from the start of each."""
    start, stop = max(one.start, other.start), min(one.stop, other.stop)
    return (
        slice(start - one.start, stop - one.start),
        slice(start - other.start, stop - other.start),
    )
