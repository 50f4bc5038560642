"""Random crops of pictures, some of them degraded as pictures often are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from diffcodec.errors import ImageError
from diffcodec.quantized.detail import smoother
from diffcodec.training.converted import Conversion, convert
from diffcodec.training.graphics import drawings
from diffcodec.transforms import GREENS, exchanged

DRAWINGS = 128
"""How many drawings there are."""


@dataclass(frozen=True)
class Draw:
    """A batch of square crops, for every `every`-th time that those with `every` 1 are taken.

    Args:
        size: side of the crops as the network sees them.
        grid: crops start at its multiples: each is one picture of a mosaic of pictures of that
            size. These have an upper side, so they are mirrored only.
        half_chroma: the share of the crops whose chroma has half its resolution, as after JPEG's
            4:2:0 or on a Photo CD.
        smoothed: the share of the crops, after that, whose chroma has no fine detail but noise of
            less than a value, as after a JPEG file was made smaller (`smooth_chroma`).
        drawn: the share of the crops that are of drawings (`graphics`), not of the pictures.
        edited: the share of the crops whose contrast and colours are changed after that (`edit`).
        resized: the share of the crops that had another size before all this, 0.7 to 1.6 times
            as large a side.
        exchanged: the share of the crops in which, after all this, that colour is in green's place
            which leaves the least detail (`exchange`).
        conversion: what the crops go through in the end (`converted`); None for RGB.
        uses: how many times a batch is taken, as one that takes long to make.
    """

    size: int
    batch: int
    every: int = 1
    grid: int = 1
    half_chroma: float = 0.0
    smoothed: float = 0.0
    drawn: float = 0.0
    edited: float = 0.0
    resized: float = 0.0
    exchanged: float = 0.0
    conversion: Conversion | None = None
    uses: int = 1


class Crops:
    """Random square crops, flipped and transposed.

    Args:
        images: uint8 [3, H, W]; those that are large enough are used.
        how: what is drawn.
        weights: what a pixel of each image counts when one is drawn; by default all alike.

    Raises ImageError if no image is large enough.
    """

    def __init__(
        self, images: Sequence[Tensor], how: Draw, weights: Sequence[float] | None = None
    ) -> None:
        self.how = how
        used = [
            (image, weight * image[0].numel())
            for image, weight in zip(images, weights or [1.0] * len(images), strict=True)
            if min(image.shape[1:]) >= how.size
        ]
        if not used:
            raise ImageError(f"Training needs pictures of at least {how.size} x {how.size} pixels.")
        self.images = [image for image, _ in used]
        self.odds = torch.tensor([odds for _, odds in used])
        self.drawings = drawings(DRAWINGS) if how.drawn else []

    def draw(self, generator: torch.Generator) -> Tensor:
        """A batch uint8 [batch, 3, size, size]."""
        how, crops = self.how, []
        for i in torch.multinomial(self.odds, how.batch, replacement=True, generator=generator):
            image = self.images[int(i)]
            if how.drawn and torch.rand((), generator=generator) < how.drawn:
                image = self.drawings[int(torch.randint(DRAWINGS, (), generator=generator))]
            size = how.size
            if how.resized and torch.rand((), generator=generator) < how.resized:
                share = float(torch.rand((), generator=generator))
                ratio = _SMALLEST * (_LARGEST / _SMALLEST) ** share
                size = min(round(size * ratio), *image.shape[1:])
            top, left = (
                how.grid * int(torch.randint(places, (), generator=generator))
                for places in ((side - size) // how.grid + 1 for side in image.shape[1:])
            )
            crop = image[:, top : top + size, left : left + size]
            if size != how.size:
                crop = resize(crop, how.size)
            vertical, horizontal, transpose = torch.randint(2, (3,), generator=generator).tolist()
            if how.grid > 1:
                vertical = transpose = False
            flips = [dim for dim, flip in ((1, vertical), (2, horizontal)) if flip]
            crop = crop.flip(flips)
            crops.append(crop.mT if transpose else crop)
        batch = torch.stack(crops)
        halved = torch.rand(how.batch, generator=generator) < how.half_chroma
        if halved.any():
            cosited = bool(torch.randint(2, (), generator=generator))
            batch[halved] = halve_chroma(batch[halved], cosited=cosited)
        if how.smoothed:
            smoothed = torch.rand(how.batch, generator=generator) < how.smoothed
            batch[smoothed] = smooth_chroma(batch[smoothed], generator)
        edited = torch.rand(how.batch, generator=generator) < how.edited
        if edited.any():
            batch[edited] = edit(batch[edited], generator)
        chosen = torch.rand(how.batch, generator=generator) < how.exchanged
        for i in chosen.nonzero()[:, 0].tolist():
            batch[i] = exchange(batch[i])
        return convert(batch, how.conversion, generator)


class Batches(IterableDataset[Tensor]):
    """Endless batches of crops; each process that makes some has random numbers of its own."""

    def __init__(self, crops: Crops, seed: int) -> None:
        self._crops, self._seed = crops, seed

    def __iter__(self) -> Iterator[Tensor]:
        worker = get_worker_info()
        generator = torch.Generator().manual_seed(self._seed + (worker.id if worker else 0))
        while True:
            yield from repeat(self._crops.draw(generator), self._crops.how.uses)


def batches(crops: Crops, seed: int, workers: int = 0) -> Iterator[Tensor]:
    """Endless batches of crops, made by so many other processes ahead of time."""
    return iter(
        DataLoader(
            Batches(crops, seed),
            batch_size=None,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            pin_memory=workers > 0,
        )
    )


def resize(pixels: Tensor, side: int) -> Tensor:
    """Pixels uint8 [3, H, W] as a square of that side, by bicubic interpolation."""
    resized = F.interpolate(pixels[None].float(), (side, side), mode="bicubic", antialias=True)
    return resized[0].round().clamp(0, 255).byte()


def halve_chroma(pixels: Tensor, *, cosited: bool) -> Tensor:
    """Pixels uint8 [N, 3, H, W], H and W even, with chroma that went through half the resolution.

    YCbCr of JFIF. Samples of chroma lie either between the pixels, as in JPEG (means of four, and
    its "fancy" upsampling), or on every other pixel, as on a Photo CD (binomial filters).
    """
    luma, chroma = _to_ycbcr(pixels)
    if cosited:
        # A sample's partner beyond the border is the border.
        chroma = F.avg_pool2d(F.pad(chroma, (1, 0, 1, 0), mode="replicate"), 2, 1)
        chroma = F.avg_pool2d(F.pad(chroma, (0, 1, 0, 1), mode="replicate"), 2, 1)[..., ::2, ::2]
        size = [side * 2 + 1 for side in chroma.shape[-2:]]
        chroma = F.pad(chroma, (0, 1, 0, 1), mode="replicate")
        chroma = F.interpolate(chroma, size, mode="bilinear", align_corners=True)[..., :-1, :-1]
    else:
        chroma = _through(chroma, 2)
    return _to_rgb(luma, chroma).round().clamp(0, 255).byte()


def smooth_chroma(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Pixels uint8 [N, 3, H, W], sides multiples of 8, whose chroma went through little resolution.

    A half, a quarter or an eighth of it; before all samples are rounded, white noise of a random
    deviation up to 0.6 is added to each.
    """
    luma, chroma = _to_ycbcr(pixels)
    times = int(torch.randint(1, 4, (), generator=generator))
    planes = _to_rgb(luma, _through(chroma, 1 << times))
    deviations = _MOST_NOISE * torch.rand((len(pixels), 1, 1, 1), generator=generator)
    noise = deviations * torch.randn(planes.shape, generator=generator)
    return (planes + noise.to(pixels.device)).round().clamp(0, 255).byte()


def _through(chroma: Tensor, times: int) -> Tensor:
    """Chroma that had its sides divided by that, and interpolated again."""
    return F.interpolate(F.avg_pool2d(chroma, times), scale_factor=times, mode="bilinear")


def _to_ycbcr(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Luma [N, 1, H, W] and chroma [N, 2, H, W] of JFIF, floats, of pixels [N, 3, H, W]."""
    matrix = pixels.new_tensor(_RGB_TO_YCBCR, dtype=torch.float32)
    luma, chroma = torch.einsum("dc,nchw->ndhw", matrix, pixels.float()).split((1, 2), 1)
    return luma, chroma


def _to_rgb(luma: Tensor, chroma: Tensor) -> Tensor:
    """Undo `_to_ycbcr`; floats."""
    matrix = luma.new_tensor(_RGB_TO_YCBCR).inverse()
    return torch.einsum("dc,nchw->ndhw", matrix, torch.cat((luma, chroma), 1))


def edit(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Pixels uint8 [N, 3, H, W] with less contrast and saturation, and another balance of colours.

    Everything gets smaller, by at most a half: what is stretched has gaps among its values.
    """

    def draw(low: float, high: float, colours: int = 1) -> Tensor:
        drawn = torch.rand((len(pixels), colours, 1, 1), generator=generator)
        return (low + (high - low) * drawn).to(pixels.device)

    weights = pixels.new_tensor(_RGB_TO_YCBCR[:1], dtype=torch.float32)
    luma = torch.einsum("dc,nchw->ndhw", weights, pixels.float())
    duller = torch.lerp(luma, pixels.float(), draw(0.7, 1.0))
    fixed = draw(0.0, 255.0)
    gain = draw(0.75, 0.95) * draw(0.95, 1.05, colours=3)
    return torch.lerp(fixed, duller, gain).round().clamp(0, 255).byte()


def exchange(pixels: Tensor) -> Tensor:
    """Pixels uint8 [3, H, W] with red or blue in green's place where an encoder would try that."""
    ways = [exchanged(pixels, number) for number in range(len(GREENS))]
    return ways[[*smoother(ways), 0][0]]


_MOST_NOISE = 0.6

_SMALLEST, _LARGEST = 0.7, 1.6
"""Sides of crops that are resized, against those that the network sees."""

_RGB_TO_YCBCR = (
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)
