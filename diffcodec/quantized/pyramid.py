"""The forward process: an image as exact coefficients by level, and back from any cells.

A process is what a model file fixes of it; a pyramid is the process on pictures of one size.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from diffcodec.quantized import cells
from diffcodec.quantized.ladder import Ladder, finer_chroma
from diffcodec.quantized.schedule import CHANNELS, DEPTH, LEVELS, LOW, TOP_RUNG, Step, steps
from diffcodec.transforms import rgb_to_ycocg, spaces, ycocg_to_rgb
from diffcodec.transforms.interpolation import INTERPOLATION
from diffcodec.transforms.spaces import Space
from diffcodec.transforms.wavelet import WAVELET, Transform, details_shape

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Process:
    """The quantised process of a model: its ladder, and at how many of the finest levels chroma is
    interpolated; it has wavelets at the others."""

    ladder: Ladder
    interpolated: int = 0

    def pyramid(
        self, height: int, width: int, depth: int = DEPTH, space: Space | None = None
    ) -> "Pyramid":
        """The process on pictures of height x width pixels with `depth` bits per sample.

        Their planes are RGB or, if there is a space, integers of that.
        """
        process = self if space is None else replace(self, ladder=finer_chroma(self.ladder))
        return Pyramid(process, height, width, depth, space)


@dataclass(frozen=True)
class Pyramid:
    """Sizes, planes and transform of the levels of pictures of one size."""

    process: Process
    height: int
    width: int
    depth: int = DEPTH
    space: Space | None = None

    @property
    def levels(self) -> int:
        """LEVELS, or fewer for small images."""
        return min(LEVELS, (max(self.height, self.width) - 1).bit_length())

    @property
    def coarse_to_fine(self) -> list[int]:
        """All levels in the order of a rung."""
        return [LOW, *range(self.levels, 0, -1)]

    @property
    def finest(self) -> int:
        """The level that ends a rung."""
        return 1 if self.levels else LOW

    @property
    def steps(self) -> list[Step]:
        """All steps of the chain."""
        return steps(self.levels, self.depth)

    @property
    def top(self) -> int:
        """The rung at which nothing is known."""
        return TOP_RUNG + self.depth - DEPTH

    def low_size(self, level: int) -> tuple[int, int]:
        """Size of the low band after `level` levels (0: the image)."""
        return -(-self.height >> level), -(-self.width >> level)

    def size(self, level: int) -> tuple[int, int]:
        """Size of the channels of a level (LOW: of the coarsest low band)."""
        return self.low_size(self.levels if level == LOW else level)

    def finer(self, level: int) -> int | None:
        """The level after `level` in a rung, if there is one."""
        coarse = self.levels + 1 if level == LOW else level
        return coarse - 1 if coarse > 1 else None

    def coarser(self, level: int) -> int | None:
        """The level before `level` in a rung, if there is one."""
        if level == LOW:
            return None
        return LOW if level == self.levels else level + 1

    def exists(self, level: int) -> Tensor:
        """Which coefficients of a level are real, bool [CHANNELS, h, w]; the others are zero."""
        mask = torch.zeros((CHANNELS, *self.size(level)), dtype=torch.bool, device="cpu")
        if level == LOW:
            mask[::3] = True
        else:
            for band, (rows, columns) in enumerate(details_shape(*self.low_size(level - 1))):
                mask[band::3, :rows, :columns] = True
        return mask

    def planes(self, rung: int, level: int, device: torch.device = _CPU) -> Tensor:
        """Planes of a level once a rung is done, int32 [1, CHANNELS, 1, 1]."""
        return _planes(self.process.ladder, rung, level, self.levels, device)

    def low_planes(self, rung: int, level: int, device: torch.device = _CPU) -> Tensor:
        """Planes of the error of the low band on which a level works, int32 [1, 3, 1, 1]."""
        own = self.levels if level == LOW else level
        return _low_planes(self.process.ladder, rung, own, device)

    def cells_at(self, values: Tensor, rung: int, level: int) -> tuple[Tensor, Tensor]:
        """Floors and planes of a level's exact coefficients int32 [N, 9, h, w] after a rung."""
        planes = self.planes(rung, level, values.device)
        return cells.floor(values, planes), planes

    def refines(self, rung: int, level: int) -> bool:
        """Whether a rung refines a level: coarse ones may be exact before the finish."""
        before = self.planes(rung + 1, level)
        return not torch.equal(self.planes(rung, level), before)

    def no_low(self) -> Tensor:
        """The low band on which level LOW works: none, int32 zeros [1, 3, h, w]."""
        return torch.zeros((1, 3, *self.size(LOW)), dtype=torch.int32, device="cpu")

    def finer_low(self, low: Tensor, level: int, coefficients: Tensor) -> Tensor:
        """The low band on which the next finer level works, int32 [N, 3, h, w].

        Args: the low band on which `level` works and integers for its channels [N, 9, h, w].
        """
        if level == LOW:
            return coefficients[:, ::3]
        size, bands = self.low_size(level - 1), coefficients.unflatten(1, (3, 3))
        luma = WAVELET.inverse(low[:, :1], bands[:, :1], *size)
        chroma = self._chroma(level).inverse(low[:, 1:], bands[:, 1:], *size)
        return torch.cat((luma, chroma), 1)

    def analyse(self, planes: Tensor) -> dict[int, Tensor]:
        """Exact coefficients of pictures [N, 3, H, W]: {level: int32 [N, 9, h, w]}."""
        low = planes.to(torch.int32)
        low = rgb_to_ycocg(low) if self.space is None else low
        low = low - middle(self.depth, self.space, low.device)
        values = {}
        for level in range(1, self.levels + 1):
            both = WAVELET.forward(low[:, :1]), self._chroma(level).forward(low[:, 1:])
            low, details = (torch.cat(part, 1) for part in zip(*both, strict=True))
            values[level] = details.flatten(1, 2)
        values[LOW] = low.new_zeros((len(low), CHANNELS, *low.shape[-2:]))
        values[LOW][:, ::3] = low
        return values

    def rebuild(self, known: dict[int, Tensor]) -> Tensor:
        """RGB int32 [N, 3, H, W], clamped, from integers for the channels of all levels."""
        low = self.no_low()
        for level in self.coarse_to_fine:
            low = self.finer_low(low, level, known[level])
        low = low + middle(self.depth, self.space, low.device)
        if self.space is not None:
            return spaces.to_rgb(self.space, low)
        return ycocg_to_rgb(low).clamp_(0, (1 << self.depth) - 1)

    def _chroma(self, level: int) -> Transform:
        """The transform of chroma at a level."""
        if level > self.process.interpolated:
            return WAVELET
        return self.space.chroma if self.space is not None and level == 1 else INTERPOLATION


# What is on a device already can be used while a CUDA graph is recorded.
@lru_cache(1 << 11)
def _planes(ladder: Ladder, rung: int, level: int, levels: int, device: torch.device) -> Tensor:
    return ladder.planes(rung, level, levels).to(device)


@lru_cache(1 << 11)
def _low_planes(ladder: Ladder, rung: int, level: int, device: torch.device) -> Tensor:
    return ladder.low_planes(rung, level).to(device)


@lru_cache
def middle(depth: int, space: Space | None, device: torch.device = _CPU) -> Tensor:
    """Y, Co and Cg of middle grey, or what they are in a space, int32 [3, 1, 1]."""
    blue, red = (0, 0) if space is None else space.grey
    whole = [mid_grey(depth), red, blue]
    return torch.tensor(whole, dtype=torch.int32, device="cpu").view(3, 1, 1).to(device)


def mid_grey(depth: int) -> int:
    """The middle of the range of samples."""
    return 1 << depth - 1


def checkerboard(height: int, width: int) -> Tensor:
    """(row + column) % 2, int64 [height, width]."""
    rows, columns = (torch.arange(side, device="cpu") for side in (height, width))
    return (rows[:, None] + columns) % 2
