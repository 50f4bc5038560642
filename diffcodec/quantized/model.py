"""The integer model that the codec runs: exact network and probability tables."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from diffcodec.errors import ModelError
from diffcodec.exact import files
from diffcodec.exact.cdf import (
    MEAN_UNITS,
    MIN_LOG_SCALE,
    SCALE_UNITS,
    SCALES,
    CdfTable,
)
from diffcodec.exact.layers import make_exact
from diffcodec.networks import Depth, Experts, StepNetwork
from diffcodec.quantized import significance as squares
from diffcodec.quantized.ladder import white
from diffcodec.quantized.pyramid import Process
from diffcodec.quantized.features import FEATURES
from diffcodec.quantized.schedule import EXPERTS, LEVELS, LOW, PHASES, TOP_RUNG

PHOTO, THUMBNAIL = (files.WEIGHTS / f"{name}.safetensors" for name in ("photo", "thumbnail"))
"""The models for all pictures but the smallest, and for those."""

LARGEST_THUMBNAIL = 48
"""Longer side, in pixels, up to which a picture is a thumbnail."""

PRIOR, INTERPOLATED = 20, 0
"""What models that do not tell theirs have (see `Model`)."""

MEAN_LIMIT = 4 * MEAN_UNITS
"""Largest magnitude of a mean, four cells from the midpoint."""


@dataclass(frozen=True)
class Model:
    """Everything that the probabilities of a stream depend on.

    Attributes:
        network: the exact network.
        table: the integer CDF.
        wake: int32 [TOP_RUNG, LOW]: chance in 2^-16 that a level which was all zero so far has
            its first significant coefficient at this rung.
        squares: int32 [TOP_RUNG, LOW, 3, squares.CONTEXTS]: chance in 2^-16 that a square of a
            colour which was all zero so far wakes at this rung of this level. None if squares of
            the model's streams do not sleep.
        prior: how many observations, in each bin of `Calibration`, speak for the probabilities as
            they are.
        interpolated: at how many of the finest levels chroma is interpolated (`Geometry`).
        id: the first bytes of the digest, as they stand in a file's header.
    """

    network: Experts
    table: CdfTable
    levels_odds: Tensor
    blocks_odds: Tensor
    prior: int
    process: Process
    id: bytes


def network(blocks: Sequence[Depth]) -> Experts:
    """The float network of the quantised process, untrained, with trunks of these depths."""
    known = [phase.known for phase in PHASES]

    def expert(number: int, rungs: int) -> StepNetwork:
        return StepNetwork(
            FEATURES, known, outputs=2 * 3, rungs=rungs, levels=LOW, blocks=blocks[number]
        )

    return Experts(EXPERTS, expert)


def output_units(channels: int) -> Tensor:
    """Integer units per 1.0 of the channels of a head: means, then log2 scales."""
    half = torch.ones(channels // 2)
    return torch.cat((half * MEAN_UNITS, half * SCALE_UNITS))


def scale_index(output: Tensor) -> Tensor:
    """Index into the table's scales from a head's integer log2 scale."""
    return (output - MIN_LOG_SCALE * SCALE_UNITS).clamp_(0, SCALES - 1)


def default(height: int, width: int) -> Path:
    """The model file that pictures of this size are encoded with."""
    return THUMBNAIL if max(height, width) <= LARGEST_THUMBNAIL else PHOTO


@cache
def load(path: Path) -> Model:
    """Read a model file. Raises ModelError if it is missing, damaged or breaks the bound."""
    return build(files.read(path))


def build(tensors: Mapping[str, Tensor]) -> Model:
    """The model of these tensors. Raises ModelError if some are missing or unsuitable."""
    try:
        table = CdfTable(tensors["cdf"], tensors["inverse_scales"])
        wake, flags = tensors["wake"], tensors.get("squares")
    except KeyError as error:
        raise ModelError(f"The model file lacks the table {error}.") from error
    untold = {"prior": torch.tensor(PRIOR), "interpolated": torch.tensor(INTERPOLATED)}
    held = {**untold, **tensors}
    expected = CdfTable.shapes() | {"wake": (TOP_RUNG, LOW)} | dict.fromkeys(untold, ())
    if flags is not None:
        expected["squares"] = (TOP_RUNG, LOW, 3, squares.CONTEXTS)
    for name, shape in expected.items():
        if tuple(held[name].shape) != shape:
            raise ModelError(f"The table {name} of the model file has the wrong shape.")
    if held["prior"] < 1:
        raise ModelError("The prior of the model file is less than one observation.")
    if not 0 <= held["interpolated"] <= LEVELS:
        raise ModelError("The model file has chroma interpolated at levels that there are not.")
    exact = make_exact(network(_blocks(tensors)), tensors, output_limit=MEAN_LIMIT)
    assert isinstance(exact, Experts)
    prior, interpolated = (int(held[name]) for name in untold)
    import os

    late = {1: 1} if os.environ.get("L1") and flags is not None else {}
    return Model(
        exact,
        table,
        wake,
        flags,
        prior,
        Process(white(late), interpolated),
        files.model_id(tensors),
    )


def _blocks(tensors: Mapping[str, Tensor]) -> list[Depth]:
    """The depths of the trunks that a model file holds; the rest of the network is always alike."""
    names = [re.match(r"(experts\.\d+\.(?:blocks|fine)\.)\d+\.", name) for name in tensors]
    count = Counter(start for _, start in {(name[0], name[1]) for name in names if name})
    prefixes = [f"experts.{number}." for number in range(len(EXPERTS))]
    return [(count[f"{prefix}blocks."], count[f"{prefix}fine."]) for prefix in prefixes]


def find(wanted: bytes) -> Model:
    """The installed model with this id; raises ModelError if there is none."""
    return load(files.find(wanted))
