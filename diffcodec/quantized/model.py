"""The integer model that the codec runs: exact network and probability tables."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from diffcodec.errors import ModelError
from diffcodec.exact import backends, files
from diffcodec.exact.cdf import (
    MEAN_UNITS,
    MIN_LOG_SCALE,
    SCALE_UNITS,
    SCALES,
    CdfTable,
)
from diffcodec.exact.config import Count, Flag, Significand, from_json
from diffcodec.exact.networks import (
    ExactExperts,
    StepShape,
    exact_layers,
    step_layers,
    tensor_shapes,
)
from diffcodec.quantized import significance
from diffcodec.quantized.features import FEATURES
from diffcodec.quantized.ladder import Ladder
from diffcodec.quantized.pyramid import Process
from diffcodec.quantized.schedule import LEVELS, LOW, PHASES, RUNGS, TOP_RUNG
from diffcodec.quantized.tiles import HALO

LARGEST_THUMBNAIL = 48
"""Longer side, in pixels, up to which a picture is a thumbnail."""

MEAN_LIMIT = 4 * MEAN_UNITS
"""Largest magnitude of a mean, four cells from the midpoint."""


@dataclass(frozen=True)
class Config:
    """The configuration of a model of the quantised process.

    Attributes:
        network: the shape of the networks.
        interpolated: at how many of the finest levels chroma is interpolated (`Process`).
        prior: how many observations, in each bin of `Odds`, speak for the probabilities as they
            are.
        yields: 1 if few of them are left where counts cannot be chance, else 0.
        significand: bits of the activations.
        side: of the pictures that it was made for, in pixels; 0 if of any size.
    """

    PROCESS: ClassVar = "quantised"

    network: StepShape
    interpolated: Annotated[int, range(LEVELS + 1)]
    prior: Annotated[int, range(1, 1 << 20)]
    significand: Significand
    side: Count
    yields: Flag = 0


@dataclass(frozen=True)
class Model:
    """Everything that the probabilities of a stream depend on.

    Attributes:
        network: the exact network.
        table: the integer CDF.
        process: the forward process.
        level_odds: int32 [TOP_RUNG, LOW]: probability in 2^-16 that a level which was all zero so
            far has its first significant coefficient at this rung.
        block_odds: int32 [TOP_RUNG, LOW, 3, significance.CONTEXTS]: the same of a block of a
            colour.
        prior, yields: as in `Config`.
        id: the first bytes of the digest, as they stand in a file's header.
    """

    network: ExactExperts
    table: CdfTable
    process: Process
    level_odds: Tensor
    block_odds: Tensor
    prior: int
    yields: bool
    id: bytes


def output_units(channels: int) -> Tensor:
    """Integer units per 1.0 of the channels of a head: means, then log2 scales."""
    half = torch.ones(channels // 2)
    return torch.cat((half * MEAN_UNITS, half * SCALE_UNITS))


def scale_index(output: Tensor) -> Tensor:
    """Index into the table's scales from a head's integer log2 scale."""
    return (output - MIN_LOG_SCALE * SCALE_UNITS).clamp_(0, SCALES - 1)


def default(height: int, width: int, *, converted: bool = False) -> Path:
    """The model file that pictures of this size are encoded with.

    Those that were converted have one of their own, whatever their size.
    """
    if converted:
        return files.CONVERTED
    return files.THUMBNAIL if max(height, width) <= LARGEST_THUMBNAIL else files.PHOTO


def build(file: files.ModelFile) -> Model:
    """The model that a file holds, on the device of the call. Raises ModelError if unsuitable."""
    config = from_json(Config, file.config)
    net = config.network
    rungs = sum(expert.rungs for expert in net.experts)
    known = tuple(phase.known for phase in PHASES)
    given = net.features, net.known, net.outputs, net.levels, rungs
    if given != (FEATURES, known, 2 * 3, LOW, RUNGS):
        raise ModelError("The model file's networks are not made for this version of diffcodec.")
    if net.reach >= HALO:  # features reach one position farther
        raise ModelError("The model file's networks see farther than tiles allow.")
    layers = step_layers(net)
    ladder = {name: (torch.int8, shape) for name, shape in Ladder.shapes().items()}
    odds = {
        "level_odds": (torch.int32, (TOP_RUNG, LOW)),
        "block_odds": (torch.int32, (TOP_RUNG, LOW, 3, significance.CONTEXTS)),
    }
    file.check({**tensor_shapes(layers), **CdfTable.shapes(), **ladder, **odds})
    tensors = file.tensors
    for name in odds:
        if not bool(((tensors[name] > 0) & (tensors[name] < 1 << 16)).all()):
            raise ModelError(f"The model file's {name} are not all between 0 and 1.")
    convs = exact_layers(layers, tensors, config.significand, MEAN_LIMIT)
    return Model(
        ExactExperts.of_convs(net, convs).to(backends.device()),
        CdfTable(tensors["cdf"], tensors["inverse_scales"]),
        Process(Ladder.of_tensors(tensors), config.interpolated),
        tensors["level_odds"],
        tensors["block_odds"],
        config.prior,
        bool(config.yields),
        file.id,
    )


load = files.loader(build)
"""Reads a model file. Raises ModelError if it is missing, damaged or unsuitable."""


def find(wanted: bytes) -> Model:
    """The installed model with this id; raises ModelError if there is none."""
    return load(files.find(wanted))
