"""What can be trained: networks with their objectives, their validation and their export."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from diffcodec.exact.cdf import CdfTable
from diffcodec.exact.config import to_json
from diffcodec.exact.files import ModelFile
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
from diffcodec.training import denoising, networks
from diffcodec.training.converted import convert
from diffcodec.training.curves import Figures
from diffcodec.training.data import Draw
from diffcodec.training.integers import quantise, restore
from diffcodec.training.networks import Experts
from diffcodec.training.objective import Emphasis, random_rung, step_bits, step_loss
from diffcodec.training.odds import block_odds, level_odds
from diffcodec.transforms.spaces import Space

Net = TypeVar("Net", bound=nn.Module)

VALIDATION_SIZE = 192
"""Validation is on the central crops of this side."""

Exported = tuple[dict[str, Any], dict[str, Tensor]]
"""Configuration and tensors of a model file."""


class Task(Protocol[Net]):
    """What the training loop and the exporter need to know of a network."""

    draws: Sequence[Draw]
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
        draws: the crops to learn from, and what their bits count.
        calibration: those that set the ranges of activations.
    """

    def __init__(
        self,
        config: model.Config,
        process: Process,
        draws: Sequence[tuple[Draw, Emphasis]],
        calibration: Draw,
    ) -> None:
        self.config, self.process = config, process
        self.draws: Sequence[Draw] = tuple(draw for draw, _ in draws)
        self.emphases = tuple(emphasis for _, emphasis in draws)
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
        how = self.draws[draw]
        loss = step_loss(net, self.emphases[draw], *choice, crops, self.process, _space(how))
        return how.every * loss

    def validate(self, net: Experts, images: list[Tensor]) -> Figures:
        """Bits/dim of the lossless pictures: the sum of all rungs, then each.

        They are converted as the crops of the draws are.
        """
        if self._mosaics:
            crops = [central_tiles(image, self.calibration.size) for image in images]
        else:
            crops = central_crops(images)
        generator = torch.Generator().manual_seed(0)
        held_out = [
            (
                None if how is None else how.space,
                convert(crop.cpu(), how, generator).to(crop.device),
            )
            for how in dict.fromkeys(draw.conversion for draw in self.draws)
            for crop in crops
        ]
        size, totals = sum(crop.numel() for _, crop in held_out), {}
        for rung in trained_rungs():
            bits = (self._bits(net, crop, rung, space) for space, crop in held_out)
            total = sum(float(coded.sum()) for levels in bits for coded in levels.values())
            totals[rung] = total / size
        return _by_rung("bits/dim", sum(totals.values()), totals)

    def exact(self, net: Experts, crops: Tensor, images: list[Tensor]) -> Exported:
        """As `Task.exact`."""

        def run() -> None:
            for rung in tqdm(trained_rungs(), "calibrating", disable=None):
                self._bits(net, crops, rung, _space(self.calibration))

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

    def _bits(
        self, net: Experts, crops: Tensor, rung: int, space: Space | None
    ) -> dict[int, Tensor]:
        height, width = crops.shape[-2:]
        pyramid = self.process.pyramid(height, width, space=space)
        return step_bits(net, pyramid, pyramid.analyse(crops), rung, ALL_LEVELS)

    @property
    def _mosaics(self) -> bool:
        return self.calibration.grid > 1


class Denoiser:
    """The denoiser of prefixes.

    Args: configuration of the model's files; the process of the prefixes; the crops to learn from,
    and those that set the ranges of activations.
    """

    def __init__(
        self, config: DenoiserConfig, process: Process, draws: Sequence[Draw], calibration: Draw
    ) -> None:
        self.config, self.process = config, process
        self.draws, self.calibration = draws, calibration

    def network(self) -> nn.Module:
        """As `Task.network`."""
        return networks.Denoiser(self.config.network)

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
        return denoising.loss(net, self.process, *choice, crops)

    def validate(self, net: nn.Module, images: list[Tensor]) -> Figures:
        """Mean gain of PSNR over the plain prefixes, in dB: the mean of all rungs, then each."""
        gains = {}
        crops = central_crops(images)
        for rung in trained_rungs(LAST_RUNG):
            total = 0.0
            for crop in crops:
                shown = denoising.prefixes(self.process, crop, rung)
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
                    shown = denoising.prefixes(self.process, crops, rung, level)
                    denoising.expected(net, shown, rung, level)

        return to_json(self.config), quantise(net, run, denoiser_units)

    def restore(self, net: nn.Module, file: ModelFile) -> None:
        """As `Task.restore`."""
        restore(net, file.tensors, denoiser_units)


def _space(how: Draw) -> Space | None:
    return None if how.conversion is None else how.conversion.space


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
