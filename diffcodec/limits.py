"""What the drivers of all codecs share: where a file is cut, and who follows their progress."""

from collections.abc import Callable
from dataclasses import dataclass

Progress = Callable[[float], None]
"""Is called with the fraction of the work that is done."""


def ignore(_: float) -> None:
    """The progress of a caller who does not ask."""


def part(progress: Progress, number: int, parts: int) -> Progress:
    """The progress of one of some equal parts of the work, as that of the whole."""
    return lambda done: progress((number + done) / parts)


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
