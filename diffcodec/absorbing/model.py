"""The model: what the adaptive probabilities and weights of a picture start from, as integers.

`diffcodec.training.drawings` learns it by coding pictures. Each picture starts with a copy of it,
and learns on.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from diffcodec.absorbing import blocks, candidates, mixing, samples
from diffcodec.absorbing.grids import KINDS
from diffcodec.absorbing.memory import CONTEXTS
from diffcodec.errors import ModelError
from diffcodec.exact import files
from diffcodec.exact.config import from_json, to_json

_STATES = KINDS * len(CONTEXTS) * candidates.TURNS * candidates.STATES
_PATTERNS = candidates.PATTERNS, 1 << candidates.PATTERN_BITS

SHAPES: files.Shapes = {
    "flat": (torch.int32, (blocks.CASES,)),
    "flat_seen": (torch.uint8, (blocks.CASES,)),
    "states": (torch.int32, (_STATES,)),
    "states_seen": (torch.uint8, (_STATES,)),
    "patterns": (torch.int32, _PATTERNS),
    "patterns_seen": (torch.uint8, _PATTERNS),
    "weights": (torch.int32, (candidates.SETS, candidates.INPUTS)),
    "byte_weights": (torch.int32, (samples.SETS, samples.INPUTS)),
    "histograms": (torch.int16, (samples.CLASSES, samples.ERRORS)),
    "stretch": (torch.int32, (1 << mixing.STRETCHED,)),
    "squash": (torch.int32, (2 * mixing.LOGITS,)),
}
"""The tensors of a model file."""

_RANGES = {
    **dict.fromkeys(("flat", "states", "patterns"), (0, 2 * mixing.HALF - 1)),
    **dict.fromkeys(("weights", "byte_weights"), (-(1 << 24), 1 << 24)),
    "histograms": (1, 1 << 14),
    "stretch": (-mixing.LOGITS, mixing.LOGITS),
    "squash": (1, mixing.ONE - 1),
}


@dataclass(frozen=True)
class Config:
    """The configuration of a model of the absorbing process: the version of its tables."""

    PROCESS: ClassVar = "absorbing"

    version: Annotated[int, (1,)]


@dataclass
class Learnt:
    """What a picture has taught so far, but for the contexts of its own; all of it changes.

    Attributes:
        flat, flat_seen: whether blocks have one colour, and observations, [blocks.CASES].
        candidates: whether pixels have the colour of a candidate.
        samples: the bits of other colours.
    """

    flat: NDArray[np.int32]
    flat_seen: NDArray[np.uint8]
    candidates: candidates.Odds
    samples: samples.Odds


@dataclass(frozen=True)
class Model:
    """Everything that the probabilities of a stream depend on.

    Attributes:
        tables: what a picture starts from, by the names of SHAPES.
        id: the first bytes of the digest, as they stand in a file's header.
    """

    tables: dict[str, NDArray]
    id: bytes

    @property
    def curves(self) -> mixing.Curves:
        """Logits and probabilities."""
        return mixing.Curves(self.tables["stretch"], self.tables["squash"])

    def begin(self, pixels: int) -> Learnt:
        """What is known before a picture of so many pixels."""
        own = {name: table.copy() for name, table in self.tables.items()}
        wide = {name: own[name].astype(np.int64) for name in _WIDE}
        return Learnt(
            own["flat"],
            own["flat_seen"],
            candidates.Odds(
                own["states"],
                own["states_seen"],
                own["patterns"],
                own["patterns_seen"],
                wide["weights"],
                np.array([mixing.ONE // 8]),
            ),
            samples.Odds(*samples.unlearnt(pixels), wide["byte_weights"], wide["histograms"]),
        )


_WIDE = ("weights", "byte_weights", "histograms")


def build(file: files.ModelFile) -> Model:
    """The model that a file holds. Raises ModelError if it is unsuitable."""
    from_json(Config, file.config)
    file.check(SHAPES)
    for name, (least, most) in _RANGES.items():
        tensor = file.tensors[name]
        if int(tensor.min()) < least or int(tensor.max()) > most:
            raise ModelError(f"The model file's {name} leave their range.")
    return Model({name: tensor.numpy() for name, tensor in file.tensors.items()}, file.id)


load = files.loader(build)
"""Reads a model file. Raises ModelError if it is missing, damaged or unsuitable."""


def find(wanted: bytes) -> Model:
    """The installed model with this id; raises ModelError if there is none."""
    return load(files.find(wanted))


def default() -> Path:
    """The model file that drawings are encoded with."""
    return files.DRAWING


def untrained() -> Model:
    """The model that training starts from: it knows nothing but that errors are small."""
    tables = {
        name: np.zeros(shape, torch.empty((), dtype=kind).numpy().dtype)
        for name, (kind, shape) in SHAPES.items()
    }
    for name in ("flat", "states", "patterns"):
        tables[name] += mixing.HALF
    for name in ("weights", "byte_weights"):
        tables[name][:, :-1] = round(0.3 * mixing.ONE)
    tables["histograms"][:] = _histograms()
    tables.update(mixing.curves()._asdict())
    return Model(tables, b"")


def to_file(learnt: Learnt, card: dict[str, object]) -> files.ModelFile:
    """The model file of what pictures have taught."""
    tables = {
        "flat": learnt.flat,
        "flat_seen": learnt.flat_seen,
        **{name: table for name, table in learnt.candidates._asdict().items() if name in SHAPES},
        "byte_weights": learnt.samples.weights,
        "histograms": learnt.samples.histograms,
        **mixing.curves()._asdict(),
    }
    tensors = {name: torch.from_numpy(table).to(SHAPES[name][0]) for name, table in tables.items()}
    return files.ModelFile(to_json(Config(1)), card, tensors)


def _histograms() -> NDArray[np.int64]:
    """Exponential ones, the wider the more the neighbours and the byte before differ."""
    size = np.abs(np.arange(samples.ERRORS) - samples.ERRORS // 2)
    lengths = np.arange(9)
    spread, beside = np.meshgrid(lengths, lengths, indexing="ij")
    first = 0.6 * 2.0 ** (np.maximum(spread, 1) - 1)
    later = np.maximum(0.5, np.maximum(0.4 * 2.0 ** (beside - 1), 0.25 * 2.0 ** (spread - 1)))
    widths = np.stack([first, later, later, first, first])
    widths = np.broadcast_to(widths, (KINDS, *widths.shape)).reshape(-1, 1)
    return (1 + 400 * np.exp(-size / widths) / widths).astype(np.int64)
