"""Fitted biases of a picture in tiles: each rung's first segment tells those that it uses.

What is told are the rows that serve a rung, those of its levels from coarse to fine, of which no
rung before has told. They are the same for all tiles, each of which so needs no other.
"""

from collections.abc import Iterable

from diffcodec.container import Header
from diffcodec.entropy import Coder, RangeDecoder, RangeEncoder
from diffcodec.quantized import segments
from diffcodec.quantized.fitted import Fitted, Shifts
from diffcodec.quantized.model import Model
from diffcodec.quantized.schedule import LEVELS, phases, steps
from diffcodec.quantized.segments import Segment


def write(model: Model, header: Header, shifts: Shifts) -> tuple[Fitted, list[bytes]]:
    """The networks that tiles are encoded with, and the segments that tell of them."""
    fitted, written = Fitted(model.network, shifts), list[bytes]()
    for rung in segments.rungs(header):
        encoder = RangeEncoder()
        _pass(model, header, fitted, rung, encoder)
        written.append(segments.write(encoder.to_bytes()))
    return fitted, written


def read(model: Model, header: Header, column: Iterable[Segment]) -> Fitted | None:
    """The networks as segments tell of them; None of a file that is not fitted."""
    fitted = start(model, header)
    if fitted is not None:
        for rung, segment in zip(segments.rungs(header), column, strict=False):
            take(model, header, fitted, rung, segment)
    return fitted


def start(model: Model, header: Header) -> Fitted | None:
    """The networks of which nothing has been told; None of a file that is not fitted."""
    return Fitted(model.network, None) if header.fitted else None


def take(model: Model, header: Header, fitted: Fitted, rung: int, segment: Segment) -> bool:
    """Learn what the segment of a rung tells; False, and nothing is learnt, if it is not whole."""
    data, whole = segment
    if whole:
        _pass(model, header, fitted, rung, RangeDecoder(data, complete=True))
    return whole


def _pass(model: Model, header: Header, fitted: Fitted, rung: int, coder: Coder) -> None:
    """Code what a rung tells."""
    numbers = [number for number, _ in phases(3 if header.mode.startswith("RGB") else 1)]
    for step in steps(LEVELS, header.depth):
        if step.rung == rung:
            fitted.pass_row(model.process.ladder.index(step), numbers, coder)
