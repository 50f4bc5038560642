"""A model that is small enough for tests to make it on the way."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from diffcodec.exact.cdf import CdfTable
from diffcodec.exact.config import to_json
from diffcodec.exact.files import ModelFile
from diffcodec.exact.networks import DenoiserShape, Expert, StepShape
from diffcodec.quantized import model
from diffcodec.quantized.corrections import Corrections
from diffcodec.quantized.denoising import Config as DenoiserConfig
from diffcodec.quantized.ladder import white
from diffcodec.quantized.pyramid import Process
from diffcodec.quantized.schedule import LOW, RUNGS, TOP_RUNG
from diffcodec.quantized.significance import CONTEXTS
from diffcodec.quantized.state import State
from diffcodec.training import recipes
from diffcodec.training.data import Draw
from diffcodec.training.integers import quantise
from diffcodec.training.networks import Experts, FilmConv
from diffcodec.training.objective import step_bits
from diffcodec.training.tasks import ALL_LEVELS, Denoiser, trained_rungs


def shape(*blocks: tuple[int, int], width: int = 8) -> StepShape:
    """Networks of that width, with so many blocks at half and at full resolution."""
    experts = tuple(Expert(n, *own) for n, own in zip((1, 2, RUNGS - 3), blocks, strict=True))
    return replace(
        recipes.PHOTO_NETWORKS, width=width, half_width=width, hidden=width, experts=experts
    )


CONFIG = model.Config(
    shape((1, 1), (1, 0), (1, 0)), interpolated=2, prior=20, significand=8, side=0, yields=1
)

TASK = Denoiser(
    DenoiserConfig(DenoiserShape(rungs=11, levels=6, width=8, blocks=1), significand=8),
    recipes.PHOTO_PROCESS,
    draws=(Draw(32, 2),),
    calibration=Draw(32, 2),
)

RECIPE = recipes.Recipe(
    "tiny", TASK, {"photos": 1.0}, calibration=("photos",), rate=1e-3, minutes=1.0
)
"""What trains in no time."""


def pixels(height: int, width: int, seed: int = 0) -> Tensor:
    """Waves and a little noise, uint8 [3, height, width]."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    planes = [
        128 + 70 * np.sin(x / 13 + c) * np.cos(y / 9) + random.normal(0, 5, x.shape)
        for c in range(3)
    ]
    return torch.from_numpy(np.stack(planes).clip(0, 255).astype(np.uint8))


def network(config: model.Config = CONFIG, seed: int = 0) -> Experts:
    """A float network whose every parameter counts."""
    torch.manual_seed(seed)
    net = Experts(config.network).requires_grad_(False)
    for layer in net.modules():
        if isinstance(layer, FilmConv):
            for table in (layer.rung_bias, layer.level_bias, layer.rung_gain, layer.level_gain):
                table += 0.1 * torch.randn_like(table)
            if not layer.weight.any():
                torch.nn.init.normal_(layer.weight, std=0.02)
    return net


@torch.no_grad()
def model_file(
    config: model.Config = CONFIG, net: Experts | None = None, picture: Tensor | None = None
) -> ModelFile:
    """The file of a network, by default a random one, whose ranges are those on one picture."""
    net = network(config) if net is None else net
    picture = pixels(64, 64) if picture is None else picture
    process = Process(white({1: 1}), config.interpolated)
    pyramid, table = process.pyramid(*picture.shape[1:]), CdfTable.gaussian()
    values = pyramid.analyse(picture[None])

    def run() -> None:
        for rung in trained_rungs():
            step_bits(net, pyramid, values, rung, ALL_LEVELS)

    tensors = quantise(net, run, model.output_units) | {
        "cdf": table.values,
        "inverse_scales": table.inverse_scales,
        "level_odds": torch.full((TOP_RUNG, LOW), 1 << 13, dtype=torch.int32),
        "block_odds": torch.full((TOP_RUNG, LOW, 3, CONTEXTS), 1 << 13, dtype=torch.int32),
        **process.ladder.tensors(),
    }
    return ModelFile(to_json(config), {}, tensors)


def start(weights: model.Model, planes: Tensor, depth: int = 8) -> State:
    """The state of an encoder that begins with a picture, integers [1 or 3, H, W]."""
    _, height, width = planes.shape
    pyramid = weights.process.pyramid(height, width, depth)
    return State.of_image(pyramid, planes, Corrections(weights.table, weights.prior))


def nothing(weights: model.Model, height: int, width: int, colours: int = 3) -> State:
    """The state of a decoder that begins with a picture."""
    pyramid = weights.process.pyramid(height, width)
    return State.empty(pyramid, colours, Corrections(weights.table, weights.prior))
