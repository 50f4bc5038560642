"""A tile of a picture as its decoder knows it, whose segments come one by one."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from diffcodec.container import Header
from diffcodec.entropy import Bits, Coder, Probabilities, RangeDecoder
from diffcodec.limits import Progress
from diffcodec.quantized import colour
from diffcodec.quantized.fitted import Fitted
from diffcodec.quantized.model import Model
from diffcodec.quantized.sampling import Sampler
from diffcodec.quantized.schedule import DEPTH, FINISH
from diffcodec.quantized.segments import Segment
from diffcodec.quantized.step import walk
from diffcodec.quantized.stream import empty_states, known_planes, shown_planes, textured

COARSE = 4
"""A tile of which only levels from this one on are significant is shown without the denoiser: a
few bytes for each tile of a huge picture must not cost minutes."""


class Relay:
    """Passes bits to the coder of a segment, and what that does not give to a sampler."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self.coder: Coder = RangeDecoder(b"", complete=False)
        self.sampler = sampler

    def code(self, probabilities: Probabilities, truth: Bits | None = None) -> Bits:
        """As of `Coder`."""
        bits = self.coder.code(probabilities, truth)
        if self.sampler is None or len(bits) == len(probabilities):
            return bits
        return np.concatenate([bits, self.sampler.code(probabilities[len(bits) :])])

    def begin(self, colour: int) -> None:
        """As of `Sampler`."""
        if self.sampler is not None:
            self.sampler.begin(colour)


class Tile:
    """What a decoder knows of a tile.

    Args: the model; the header of the tile as a picture of its own; the networks, if they are
    fitted; what draws where bits are missing, if anything does; else the seed of the texture that
    is shown at the ends of rungs.
    Attributes: `rung` is the last one that is done; `ended` says if the data ended in the next.
    """

    def __init__(
        self,
        model: Model,
        header: Header,
        fitted: Fitted | None,
        sampler: Sampler | None = None,
        *,
        visual: tuple[int, int] | None = None,
    ) -> None:
        self._model, self._header, self._visual = model, header, visual
        self._states = empty_states(header, model)
        self._states[0].fitted = fitted
        self._relay = Relay(sampler)
        self._walk = walk(model, self._states, self._relay, begin=self._relay.begin)
        self.rung, self.ended = self._states[0].pyramid.top, False

    def take(self, data: bytes, whole: bool) -> None:
        """Decode the next rung from as much of its segment as there is."""
        self._relay.coder = RangeDecoder(data, complete=whole)
        self._advance()

    def take_all(self, column: Sequence[Segment], rung: int | None, progress: Progress) -> None:
        """Decode as much as there is of all segments, and as is wanted; draw what is left."""
        for done, segment in enumerate(column):
            progress(done / len(column))
            self.take(*segment)
            if self.ended or FINISH < self.rung <= (rung or 0):
                return
        sampler, extra_bits = self._relay.sampler, self._header.depth - DEPTH
        while sampler is not None and self.rung > max(rung or 0, FINISH):
            if sampler.drawn and not sampler.visible(self.rung, extra_bits):
                return
            self._relay.coder = sampler
            self._advance()

    @property
    def shown(self) -> NDArray:
        """As it is shown, uint8 or uint16 [C, h, w]."""
        header = self._header
        levels = [level for state in self._states for level in state.significant]
        if not levels:
            return colour.blank(header, header.height, header.width)
        if min(levels) >= COARSE:
            return known_planes(header, self._states)
        if self._visual is None or self.ended:
            return shown_planes(header, self._states)
        return shown_planes(header, textured(self._model, header, self._states, self._visual))

    @property
    def known(self) -> NDArray:
        """As its cells alone describe it."""
        return known_planes(self._header, self._states)

    def _advance(self) -> None:
        done = next(self._walk, None)
        self.ended = done is None
        self.rung = self.rung if done is None else done
