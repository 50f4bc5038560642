"""The order of the stream: rungs, levels, pictures, significance, phases."""

from collections.abc import Callable, Iterable

import numpy as np

from . import fitted, phase, spaces
from .adaptation import SIGNIFICANCE, Adaptation
from .coder import RangeDecoder
from .model import FINISH, LOW, TOP_RUNG, Model, rung_at_8_bits, rungs
from .network import Network, double_midpoint, features
from .phase import Coefficients
from .pyramid import Pyramid

_CORRECTED = 4  # the highest rung at which means are corrected
_SIDE = 32  # of a block


class _EndError(Exception):
    """The data end here."""


def walk(
    states: list["State"], decoders: Iterable[RangeDecoder], progress: Callable[[int], None]
) -> None:
    """Take the states of a picture down all rungs, or as far as the data go.

    Each rung is read from the next decoder.
    """
    pyramid = states[0].pyramid
    try:
        for rung, decoder in zip(rungs(pyramid.depth), decoders, strict=False):
            for level in pyramid.order:
                for state in states:
                    state.take(rung, level, decoder)
            progress(rung)
    except _EndError:
        pass


class State:
    """What is known of a picture: of its colours, or of its alpha.

    Args: the model; the size; bits of a sample; 3 colours, or 1 for grey and alpha; the space of
    the colours, None if it is RGB; what is known of fitted biases, None if the stream has none for
    it.
    """

    def __init__(
        self,
        model: Model,
        height: int,
        width: int,
        depth: int,
        *,
        colours: int,
        space: spaces.Space | None = None,
        rows: fitted.Rows | None = None,
    ) -> None:
        self.pyramid = Pyramid(height, width, depth, model.interpolated, space)
        self._model, self._colours, self._adaptation = model, colours, Adaptation(model)
        order = self.pyramid.order
        self._floors = {n: np.zeros((9, *self.pyramid.size(n)), np.int64) for n in order}
        top = TOP_RUNG + depth - 8
        self._planes = {n: self._planes_after(top, n) for n in order}
        self._significant: set[int] = set()
        self._rows = rows
        self._low = np.zeros((3, *self.pyramid.size(LOW)), np.int64)

    def picture(self) -> np.ndarray:
        """What the cells say, int64 [colours, height, width]."""
        known = {n: _shown(self._floors[n], self._planes[n]) for n in self._floors}
        return self.pyramid.picture(known)[: self._colours]

    def take(self, rung: int, level: int, decoder: RangeDecoder) -> None:
        """Take one step: a level to the planes of a rung. Raises _EndError."""
        pyramid = self.pyramid
        new = self._planes_after(rung, level)
        if level == LOW:
            self._low = np.zeros((3, *pyramid.size(LOW)), np.int64)
        if level not in self._significant and self._leaves_zero(rung, level, decoder):
            self._significant.add(level)
        if level in self._significant and (new != self._planes[level]).any():
            self._refine(rung, level, new, decoder)
        self._planes[level] = new
        if level > 1:
            self._low = pyramid.finer_low(self._low, level, _shown(self._floors[level], new))

    def _planes_after(self, rung: int, level: int) -> np.ndarray:
        """Planes of a level's channels after a rung, int64 [9, 1, 1]."""
        return self._finer(self._model.planes(rung, level, self.pyramid.levels))

    def _finer(self, planes: np.ndarray) -> np.ndarray:
        return planes if self.pyramid.space is None else spaces.finer(planes)

    def _rung_at_8_bits(self, rung: int) -> int:
        return rung_at_8_bits(rung, self.pyramid.depth)

    def _leaves_zero(self, rung: int, level: int, decoder: RangeDecoder) -> bool:
        odds = self._model.tensors["level_odds"][self._rung_at_8_bits(rung), level - 1]
        bits = decoder.read([odds])
        if decoder.ended:
            raise _EndError
        return bool(bits[0])

    def _refine(self, rung: int, level: int, new: np.ndarray, decoder: RangeDecoder) -> None:
        """Take the coefficients of a level from their planes to new ones. Raises _EndError."""
        height, width = self.pyramid.size(level)
        significant = self._significant_blocks(rung, level, decoder)
        if not significant.any():
            return
        floors, old = self._floors[level], self._planes[level]
        planes = np.broadcast_to(old, floors.shape).copy()
        start = double_midpoint(floors, old)
        parity = np.add.outer(np.arange(height), np.arange(width)) % 2
        exists = self.pyramid.exists(level)
        row_of_tables = self._model.row(self._rung_at_8_bits(rung), level)
        network = Network(self._model, row_of_tables, level)
        if self._rows is not None:
            if (row_of_tables, level) not in self._rows:
                shifts = fitted.read(decoder, network, self._colours)
                if decoder.ended:
                    raise _EndError
                self._rows[row_of_tables, level] = shifts
            network.shifts = self._rows[row_of_tables, level]
        trunk = network.trunk(self._features(rung, level))
        corrects = self._rung_at_8_bits(rung) <= _CORRECTED
        if corrects:
            self._adaptation.begin(level, height, width)
        moves = np.zeros((9, height + 2, width + 2), np.int64)
        for number in range(2 * self._colours):
            colour, odd = divmod(number, 2)
            rows, columns = np.nonzero(significant[colour] & (parity == odd))
            if not len(rows):
                continue
            bordered = (rows + 1) * (width + 2) + columns + 1
            mean, scale = network.head(number, trunk[:, rows, columns], moves, bordered)
            index, band = np.nonzero(exists[:, rows, columns].T)
            place = 3 * colour + band, rows[index], columns[index]
            coefficients = Coefficients(
                place=bordered[index],
                band=band,
                floor=floors[place],
                plane=planes[place],
                before=old[place[0], 0, 0],
                after=new[place[0], 0, 0],
                mean=mean[index, band],
                scale=scale[index, band],
            )
            odds = self._adaptation.odds(colour, finish=rung == FINISH)
            errors = self._adaptation.errors(level, colour, odd) if corrects else None
            phase.decode(coefficients, self._model, decoder, odds, errors)
            floors[place], planes[place] = coefficients.floor, coefficients.plane
            if decoder.ended:
                self._planes[level] = planes
                raise _EndError
            moved = (double_midpoint(floors, planes) - start) << 7 >> old
            moves[:, 1:-1, 1:-1] = moved.clip(-511, 511)

    def _features(self, rung: int, level: int) -> np.ndarray:
        pyramid, levels = self.pyramid, self.pyramid.levels
        finer = levels if level == LOW else level - 1
        return features(
            self._low,
            self._finer(self._model.low_planes(rung, levels if level == LOW else level)),
            self._floors[level],
            self._planes[level],
            (self._floors[finer], self._planes[finer]) if finer else None,
            pyramid.depth - 8,
        )

    def _significant_blocks(self, rung: int, level: int, decoder: RangeDecoder) -> np.ndarray:
        """Which positions of each colour are asked for, bool [colours, h, w]. Raises _EndError."""
        floors, (height, width) = self._floors[level], self.pyramid.size(level)
        if max(height, width) <= _SIDE:
            return np.ones((self._colours, height, width), bool)
        table = self._model.tensors["block_odds"][self._rung_at_8_bits(rung), level - 1]
        blocks = _blocks(floors)
        coarser = level if level == LOW else LOW if level == self.pyramid.levels else level + 1
        above = _blocks(self._floors[coarser])
        rows, columns = (
            np.arange(n) * m // n for n, m in zip(blocks.shape[1:], above.shape[1:], strict=True)
        )
        for colour in range(self._colours):
            before = np.pad(blocks[colour].astype(np.int64), 1)
            windows = np.lib.stride_tricks.sliding_window_view(before, (3, 3))
            around = windows.sum((2, 3))
            many = (around > 0).astype(np.int64) + (around > 2) + (around > 5)
            case = 4 * many + 2 * above[colour][rows[:, None], columns]
            if colour:
                case += blocks[colour - 1]
            rest = ~blocks[colour]
            odds = self._adaptation.odds(colour, finish=rung == FINISH)
            bits = odds.read(decoder, SIGNIFICANCE, table[colour][case[rest]].astype(np.int64))
            if decoder.ended:
                raise _EndError
            blocks[colour, rest] = bits.astype(bool)
        whole = blocks[: self._colours].repeat(_SIDE, 1).repeat(_SIDE, 2)
        return whole[:, :height, :width]


def _blocks(floors: np.ndarray) -> np.ndarray:
    """Which blocks of a level hold anything but zeros, bool [3, rows, columns]."""
    _, height, width = floors.shape
    nonzero = (floors != 0).reshape(3, 3, height, width).any(1)
    whole = np.pad(nonzero, ((0, 0), (0, -height % _SIDE), (0, -width % _SIDE)))
    rows, columns = (side // _SIDE for side in whole.shape[1:])
    return whole.reshape(3, rows, _SIDE, columns, _SIDE).any((2, 4))


def _shown(floors: np.ndarray, planes: np.ndarray) -> np.ndarray:
    """One integer for each cell: 3/8 of the way up."""
    return floors + np.sign(floors) * (3 * ((1 << planes) - 1) >> 3)
