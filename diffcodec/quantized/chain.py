"""The forward process: an image as exact coefficients by level, and back from any state."""

from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from diffcodec.quantized import cells, schedule
from diffcodec.quantized.schedule import CHANNELS, DEPTH, LOW
from diffcodec.transforms import interpolation, rgb_to_ycocg, wavelet, ycocg_to_rgb
from diffcodec.transforms.wavelet import details_shape


@dataclass(frozen=True)
class Geometry:
    """Sizes of the bands of an image of height x width pixels with `depth` bits per sample.

    Chroma is interpolated at the `interpolated` finest levels, and has wavelets at the others.
    """

    height: int
    width: int
    depth: int = DEPTH
    interpolated: int = 0

    @property
    def levels(self) -> int:
        """Levels of the wavelet."""
        return schedule.levels(self.height, self.width)

    def low_size(self, level: int) -> tuple[int, int]:
        """Size of the low band after `level` levels (0: the image)."""
        return -(-self.height >> level), -(-self.width >> level)

    @property
    def finest(self) -> int:
        """The level that ends a rung."""
        return 1 if self.levels else LOW

    def finer(self, level: int) -> int | None:
        """The level after `level` in a rung, if there is one."""
        coarse = self.levels + 1 if level == LOW else level
        return coarse - 1 if coarse > 1 else None

    def coarser(self, level: int) -> int | None:
        """The level before `level` in a rung, if there is one."""
        if level == LOW:
            return None
        return LOW if level == self.levels else level + 1

    def size(self, level: int) -> tuple[int, int]:
        """Size of the channels of a level (LOW: of the coarsest low band)."""
        return self.low_size(self.levels if level == LOW else level)

    def exists(self, level: int) -> Tensor:
        """Which coefficients of a level are real, bool [CHANNELS, h, w]; the others are zero."""
        mask = torch.zeros((CHANNELS, *self.size(level)), dtype=torch.bool)
        if level == LOW:
            mask[::3] = True
        else:
            for band, (rows, columns) in enumerate(details_shape(*self.low_size(level - 1))):
                mask[band::3, :rows, :columns] = True
        return mask

    def checkerboard(self, level: int) -> Tensor:
        """(row + column) % 2 of the positions of a level, int64 [h, w]."""
        return checkerboard(*self.size(level))

    @cache  # noqa: B019 - a few entries, of sizes that a process meets again and again
    def selection(self, level: int, parity: int) -> "Selection":
        """The coefficients that the phases of a parity code."""
        here = (self.checkerboard(level) == parity).flatten()
        places = here.nonzero()[:, 0]
        real = self.exists(level)[:3].flatten(1)[:, places]
        return Selection(places, None if bool(real.all()) else real, self.size(level)[1])

    def no_low(self) -> Tensor:
        """The low band on which level LOW works: none, int32 zeros [1, 3, h, w]."""
        return torch.zeros((1, 3, *self.size(LOW)), dtype=torch.int32)

    def finer_low(self, low: Tensor, level: int, coefficients: Tensor) -> Tensor:
        """The low band on which the next finer level works, int32 [N, 3, h, w].

        Args: the low band on which `level` works and integers for its channels [N, 9, h, w].
        """
        if level == LOW:
            return coefficients[:, ::3]
        size, bands = self.low_size(level - 1), coefficients.unflatten(1, (3, 3))
        if level > self.interpolated:
            return wavelet.inverse(low, bands, *size)
        luma = wavelet.inverse(low[:, :1], bands[:, :1], *size)
        return torch.cat((luma, interpolation.inverse(low[:, 1:], bands[:, 1:], *size)), 1)


@dataclass(frozen=True)
class Selection:
    """Coefficients of a phase: positions in the flattened plane, and which channels have them.

    `places` is int64 [n]; `real` bool [3, n], or None if all of them exist. (The three channels
    of a colour are alike; of level LOW only the first exists.) `width` is that of the plane.
    """

    places: Tensor
    real: Tensor | None
    width: int

    @cached_property
    def bordered(self) -> Tensor:
        """The positions in the flattened plane with a border of one."""
        row, column = self.places // self.width, self.places % self.width
        return (row + 1) * (self.width + 2) + column + 1

    def within(self, positions: Tensor) -> "Selection":
        """Those of them at some positions, bool [h, w]."""
        kept = positions.flatten()[self.places]
        if bool(kept.all()):
            return self
        real = None if self.real is None else self.real[:, kept]
        return Selection(self.places[kept], real, self.width)

    def of_rows(self, rows: Tensor) -> Tensor:
        """The selected elements of [3, n], channel by channel, one-dimensional."""
        return rows.flatten() if self.real is None else rows[self.real]

    def of_planes(self, planes: Tensor) -> Tensor:
        """The selected elements of [3, h, w]."""
        return self.of_rows(planes.flatten(1)[:, self.places])

    def of_channels(self, values: Tensor) -> Tensor:
        """One value for each channel, [3], spread over its selected elements."""
        return self.of_rows(values[:, None].expand(-1, len(self.places)))

    @property
    def bands(self) -> list[slice]:
        """The selected elements of each of the three channels."""
        each = [len(self.places)] * 3 if self.real is None else self.real.sum(1).tolist()
        return [slice(*ends) for ends in pairwise(accumulate(each, initial=0))]

    def put(self, planes: Tensor, elements: Tensor) -> Tensor:
        """A copy of [3, h, w] with the selected elements replaced."""
        flat = planes.flatten(1).clone()
        if self.real is None:
            flat[:, self.places] = elements.view(3, -1)
        else:
            rows = flat[:, self.places]
            rows[self.real] = elements
            flat[:, self.places] = rows
        return flat.view_as(planes)


def checkerboard(height: int, width: int) -> Tensor:
    """(row + column) % 2, int64 [height, width]."""
    return (torch.arange(height)[:, None] + torch.arange(width)) % 2


def analyse(rgb: Tensor, depth: int = DEPTH, interpolated: int = 0) -> dict[int, Tensor]:
    """Exact coefficients of pictures [N, 3, H, W]: {level: int32 [N, 9, h, w]}.

    Args: pictures, their bits per sample, and at how many levels chroma is interpolated.
    """
    low = rgb_to_ycocg(rgb.to(torch.int32))
    low[:, 0] -= mid_grey(depth)
    values = {}
    for level in range(1, schedule.levels(*rgb.shape[-2:]) + 1):
        if level > interpolated:
            low, details = wavelet.forward(low)
        else:
            parts = wavelet.forward(low[:, :1]), interpolation.forward(low[:, 1:])
            low, details = (torch.cat(part, 1) for part in zip(*parts, strict=True))
        values[level] = details.flatten(1, 2)
    values[LOW] = low.new_zeros((len(low), CHANNELS, *low.shape[-2:]))
    values[LOW][:, ::3] = low
    return values


def rebuild(geometry: Geometry, known: dict[int, Tensor]) -> Tensor:
    """RGB [N, 3, H, W] int32 from integers for the channels of all levels, [N, 9, h, w] each."""
    low = geometry.no_low()
    for level in (LOW, *range(geometry.levels, 0, -1)):
        low = geometry.finer_low(low, level, known[level])
    return synthesise(low, geometry.depth)


def synthesise(low: Tensor, depth: int = DEPTH) -> Tensor:
    """RGB [N, 3, H, W] int32, clamped, from the rebuilt low band of level 0."""
    low = low.clone()
    low[:, 0] += mid_grey(depth)
    return ycocg_to_rgb(low).clamp_(0, (1 << depth) - 1)


def mid_grey(depth: int) -> int:
    """The middle of the range of samples."""
    return 1 << depth - 1


def plane_tensor(rung: int, level: int, levels: int) -> Tensor:
    """Planes of a level after a rung, int32 [1, CHANNELS, 1, 1]."""
    planes = schedule.planes(rung, level, levels)
    return torch.tensor(planes, dtype=torch.int32).reshape(1, CHANNELS, 1, 1)


def cells_at(values: Tensor, rung: int, level: int, levels: int) -> tuple[Tensor, Tensor]:
    """Floors and planes of a level's exact coefficients int32 [N, 9, h, w] after a rung."""
    planes = plane_tensor(rung, level, levels).to(values.device)
    return cells.floor(values, planes), planes


def low_plane_tensor(rung: int, level: int) -> Tensor:
    """Planes of the error of the low band at a level, int32 [1, 3, 1, 1]."""
    return torch.tensor(schedule.low_planes(rung, level), dtype=torch.int32).reshape(1, 3, 1, 1)
