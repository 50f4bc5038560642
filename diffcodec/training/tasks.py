"""What can be trained: networks with their objectives, their validation and their export."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from diffcodec.exact.cdf import CdfTable
from diffcodec.exact.config import to_json
from diffcodec.exact.files import ModelFile
from diffcodec.exact.networks import NoiseShape, StepShape
from diffcodec.gaussian import elbo
from diffcodec.gaussian.decoder import to_data
from diffcodec.gaussian.likelihood import likelihood
from diffcodec.gaussian.model import GaussianModel
from diffcodec.gaussian.schedule import LinearLogSnr
from diffcodec.quantized import model
from diffcodec.quantized.denoising import Config as DenoiserConfig
from diffcodec.quantized.denoising import output_units as denoiser_units
from diffcodec.quantized.pyramid import Process
from diffcodec.quantized.schedule import (
    FINISH,
    HIGHEST_TRAINED_RUNG,
    LAST_RUNG,
    LEVELS,
    LOW,
)
from diffcodec.training import denoising, networks, recipes
from diffcodec.training.curves import Figures
from diffcodec.training.data import Draw
from diffcodec.training.gaussian import DenoisingNetwork, tabulate, untabulate
from diffcodec.training.integers import quantise, restore
from diffcodec.training.networks import Experts
from diffcodec.training.objective import random_rung, step_bits, step_loss
from diffcodec.training.odds import block_odds, level_odds
from diffcodec.training.recipes import PHOTO_PROCESS, THUMBNAIL, THUMBNAIL_PROCESS, Recipe
from diffcodec.training.times import ImportanceTimes

Net = TypeVar("Net", bound=nn.Module)

VALIDATION_SIZE = 192
"""Validation is on the central crops of this side."""

HIGHEST, LOWEST = 11.0, -5.0
"""Log-SNRs of the Gaussian chain: from noise of half a pixel value, below which only the grid of
values is left to tell, to all but pure noise."""

SIGNIFICAND = 8
"""Bits of the exact networks' activations: bfloat16 costs the codec next to nothing."""

Exported = tuple[dict[str, Any], dict[str, Tensor]]
"""Configuration and tensors of a model file."""

BATCH_PIXELS = 1 << 15
"""Pixels in a batch of the Gaussian process."""


class Task(Protocol[Net]):
    """What the training loop and the exporter need to know of a network."""

    draws: Sequence[Draw]
    rate: float
    """The highest learning rate."""
    calibration: Draw
    """The crops that set the ranges of the exact network's activations."""

    def network(self) -> Net:
        """The float network, untrained."""
        ...

    def choose(self, draw: int, generator: torch.Generator) -> tuple[int, ...]:
        """What is decided for a whole batch, such as its noise level."""
        ...

    def loss(
        self,
        net: Net,
        draw: int,
        choice: Any,
        crops: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """The loss of a batch uint8 [N, 3, H, W] of the draw with this number at a choice.

        What it draws at random is from a generator on the device of the crops.
        """
        ...

    def validate(self, net: Net, images: list[Tensor]) -> Figures:
        """A figure over all of the pictures, and its parts."""
        ...

    def exact(self, net: Net, crops: Tensor, images: list[Tensor]) -> Exported:
        """The file of the exact network; its ranges are those of the crops."""
        ...

    def restore(self, net: Net, file: ModelFile) -> None:
        """Undo `exact` but for rounding, in place; raises ModelError if it is another network."""
        ...


class Codec:
    """The conditionals of the quantised process.

    Args:
        config: of the model's files.
        process: the forward process.
        recipe: the crops to learn from.
        calibration: those that set the ranges of activations.
    """

    rate = 3e-3

    def __init__(
        self, config: model.Config, process: Process, recipe: Recipe, calibration: Draw
    ) -> None:
        self.config, self.process = config, process
        self.draws: Sequence[Draw] = tuple(draw for draw, _ in recipe)
        self.emphases = tuple(emphasis for _, emphasis in recipe)
        self.calibration = calibration

    def network(self) -> Experts:
        """As `Task.network`."""
        return Experts(self.config.network)

    def choose(self, draw: int, generator: torch.Generator) -> tuple[int]:
        """As `Task.choose`: a rung."""
        return (random_rung(self.emphases[draw], generator),)

    def loss(
        self,
        net: Experts,
        draw: int,
        choice: tuple[int],
        crops: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """As `Task.loss`."""
        # What is drawn at every n-th step counts n times.
        every = self.draws[draw].every
        return every * step_loss(net, self.emphases[draw], *choice, crops, self.process)

    def validate(self, net: Experts, images: list[Tensor]) -> Figures:
        """Bits/dim of the lossless pictures: the sum of all rungs, then each."""
        totals = {}
        if self._mosaics:
            crops = [central_tiles(image, self.calibration.size) for image in images]
        else:
            crops = central_crops(images)
        for rung in trained_rungs():
            bits = (self._bits(net, crop, rung) for crop in crops)
            total = sum(float(coded.sum()) for levels in bits for coded in levels.values())
            totals[rung] = total / (len(crops) * crops[0].numel())
        return _by_rung("bits/dim", sum(totals.values()), totals)

    def exact(self, net: Experts, crops: Tensor, images: list[Tensor]) -> Exported:
        """As `Task.exact`."""

        def run() -> None:
            for rung in tqdm(trained_rungs(), "calibrating", disable=None):
                self._bits(net, crops, rung)

        table, counted = CdfTable.gaussian(), list(crops) if self._mosaics else images
        tensors = quantise(net, run, model.output_units) | {
            "cdf": table.values,
            "inverse_scales": table.inverse_scales,
            "level_odds": level_odds(self.process, counted),
            "block_odds": block_odds(self.process, counted),
            **self.process.ladder.tensors(),
        }
        return to_json(self.config), tensors

    def restore(self, net: Experts, file: ModelFile) -> None:
        """As `Task.restore`."""
        restore(net, file.tensors, model.output_units)

    def _bits(self, net: Experts, crops: Tensor, rung: int) -> dict[int, Tensor]:
        pyramid = self.process.pyramid(*crops.shape[-2:])
        return step_bits(net, pyramid, pyramid.analyse(crops), rung, ALL_LEVELS)

    @property
    def _mosaics(self) -> bool:
        return self.calibration.grid > 1


class Denoiser:
    """The denoiser of prefixes."""

    draws: Sequence[Draw] = (Draw(128, 8, half_chroma=0.3, resized=0.25),)
    rate = 2e-3
    calibration = Draw(128, 8)

    def network(self) -> nn.Module:
        """As `Task.network`."""
        return networks.Denoiser(recipes.DENOISER)

    def choose(self, draw: int, generator: torch.Generator) -> tuple[int, int]:
        """As `Task.choose`: a rung and a level."""
        return denoising.random_step(generator)

    def loss(
        self,
        net: nn.Module,
        draw: int,
        choice: tuple[int, int],
        crops: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """As `Task.loss`."""
        return denoising.loss(net, PHOTO_PROCESS, *choice, crops)

    def validate(self, net: nn.Module, images: list[Tensor]) -> Figures:
        """Mean gain of PSNR over the plain prefixes, in dB: the mean of all rungs, then each."""
        gains = {}
        crops = central_crops(images)
        for rung in trained_rungs(LAST_RUNG):
            total = 0.0
            for crop in crops:
                shown = denoising.prefixes(PHOTO_PROCESS, crop, rung)
                plain = (shown - crop).square().mean()
                denoised = (denoising.expected(net, shown, rung) - crop).square().mean()
                total += 10 * float((plain / denoised).log10())
            gains[rung] = total / len(crops)
        return _by_rung("dB gained", sum(gains.values()) / len(gains), gains)

    def exact(self, net: nn.Module, crops: Tensor, images: list[Tensor]) -> Exported:
        """As `Task.exact`."""

        def run() -> None:
            for rung in tqdm(trained_rungs(LAST_RUNG), "calibrating", disable=None):
                for level in ALL_LEVELS:
                    shown = denoising.prefixes(PHOTO_PROCESS, crops, rung, level)
                    denoising.expected(net, shown, rung, level)

        config = DenoiserConfig(recipes.DENOISER, SIGNIFICAND)
        return to_json(config), quantise(net, run, denoiser_units)

    def restore(self, net: nn.Module, file: ModelFile) -> None:
        """As `Task.restore`."""
        restore(net, file.tensors, denoiser_units)


class TimedModel(GaussianModel):
    """The Gaussian model of the task, with the times that it is trained at.

    The ends of its schedule are fixed: prior and decoder are then no part of what is learned.
    """

    def __init__(self, shape: NoiseShape) -> None:
        super().__init__(
            DenoisingNetwork(shape),
            LinearLogSnr(HIGHEST, LOWEST),
            variance="calibrated",
            decoder="network",
        )
        self.times = ImportanceTimes()


class Gaussian:
    """The network of the Gaussian process: v of square pictures, by the continuous VLB.

    Args: shape of the network; side of the pictures; whether those to learn from are mosaics of
    such pictures.
    """

    rate = 1.5e-3

    def __init__(self, shape: NoiseShape, side: int, *, mosaics: bool) -> None:
        self.shape = shape
        grid = side if mosaics else 1
        batch = BATCH_PIXELS // side**2
        self.draws: Sequence[Draw] = (Draw(side, batch, grid=grid),)
        self.calibration = Draw(side, 2 * batch, grid=grid)

    def network(self) -> TimedModel:
        """As `Task.network`."""
        return TimedModel(self.shape)

    def choose(self, draw: int, generator: torch.Generator) -> tuple[()]:
        """As `Task.choose`: nothing, as each picture has a time of its own."""
        return ()

    def loss(
        self,
        net: TimedModel,
        draw: int,
        choice: tuple[()],
        crops: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """As `Task.loss`: an unbiased estimate of the diffusion term, in bits/dim."""
        x = to_data(crops)
        times, weights = net.times.draw(len(x), generator)
        noise = torch.randn(x.shape, generator=generator, device=x.device)
        losses = elbo.continuous(net, x, times, noise)
        net.times.update(times, losses)
        return (weights * losses).mean()

    def validate(self, net: TimedModel, images: list[Tensor]) -> Figures:
        """Bits/dim of 16 tiles of each picture in continuous time: the total and its terms."""
        tiles = torch.cat([central_tiles(image, self.calibration.size) for image in images])
        generator = torch.Generator().manual_seed(0)
        terms = likelihood(net, tiles, None, draws=4, generator=generator)
        parts = {
            "prior": terms.prior.mean,
            "diffusion": terms.diffusion.mean,
            "reconstruction": terms.reconstruction.mean,
            "standard error": terms.total.error,
        }
        return Figures("bits/dim", terms.total.mean, parts)

    def exact(self, net: TimedModel, crops: Tensor, images: list[Tensor]) -> Exported:
        """As `Task.exact`."""
        return tabulate(net, crops, torch.Generator().manual_seed(0))

    def restore(self, net: TimedModel, file: ModelFile) -> None:
        """As `Task.restore`."""
        assert isinstance(net.network, DenoisingNetwork)
        untabulate(net.network, file)


def _config(network: StepShape, process: Process, **own: int) -> model.Config:
    return model.Config(network, process.interpolated, significand=SIGNIFICAND, **own)


TASKS: dict[str, Task[Any]] = {
    "codec": Codec(
        _config(recipes.PHOTO_NETWORKS, PHOTO_PROCESS, prior=20, side=0),
        PHOTO_PROCESS,
        recipes.PICTURES,
        Draw(256, 8),
    ),
    # So small a picture has few decisions to learn from.
    "thumbnails": Codec(
        _config(
            recipes.THUMBNAIL_NETWORKS,
            THUMBNAIL_PROCESS,
            prior=300,
            side=model.LARGEST_THUMBNAIL,
        ),
        THUMBNAIL_PROCESS,
        recipes.THUMBNAILS,
        Draw(THUMBNAIL, 512, grid=THUMBNAIL),
    ),
    "denoiser": Denoiser(),
    "gaussian-32": Gaussian(recipes.GAUSSIAN_32, 32, mosaics=True),
    "gaussian-64": Gaussian(recipes.GAUSSIAN_64, 64, mosaics=False),
}

ALL_LEVELS = [*range(1, LEVELS + 1), LOW]


def central_crops(images: list[Tensor]) -> list[Tensor]:
    """The central squares of pictures uint8 [3, H, W]: [1, 3, size, size] each."""
    size, crops = VALIDATION_SIZE, []
    for image in images:
        top, left = ((side - size) // 2 for side in image.shape[1:])
        crops.append(image[None, :, top : top + size, left : left + size])
    return crops


def central_tiles(image: Tensor, side: int) -> Tensor:
    """The 16 tiles around the centre of a picture uint8 [3, H, W], on the grid of its tiles.

    [16, 3, side, side]. A mosaic of pictures of that size gives whole pictures.
    """
    top, left = ((length // side - 4) // 2 * side for length in image.shape[1:])
    part = image[:, top : top + 4 * side, left : left + 4 * side]
    return part.unfold(1, side, side).unfold(2, side, side).flatten(1, 2).transpose(0, 1)


def trained_rungs(last: int = FINISH) -> range:
    """The rungs that have rows of their own in the networks' tables, downwards."""
    return range(HIGHEST_TRAINED_RUNG, last - 1, -1)


def _by_rung(unit: str, total: float, rungs: dict[int, float]) -> Figures:
    return Figures(unit, total, {str(rung): value for rung, value in rungs.items()})
