"""The networks: what they see of a state, and their integer layers.

All values are integers in float32. The model file's bound keeps every sum below 2^24, where float32
is exact, so that the order of a sum does not matter.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from .model import Model

_LIMIT = 511
"""Largest magnitude of a feature and of an activation."""

_MEAN_LIMIT = 1024
"""Largest magnitude of a network's output."""

TRUNK, HEAD, OUT = range(3)
"""Kinds of layers by what they round to eight bits, where the model asks for that: all; all but
products; nothing."""


def features(
    low: np.ndarray,
    low_planes: np.ndarray,
    floors: np.ndarray,
    planes: np.ndarray,
    finer: tuple[np.ndarray, np.ndarray] | None,
    extra_bits: int,
) -> np.ndarray:
    """What the network sees before a step, float32 [33, h, w].

    Args: the low band; planes of its error; floors and planes of the level, and those of the next
    finer one, if there is one; bits of a sample beyond eight.
    """
    height, width = low.shape[1:]
    around = np.pad(low, ((0, 0), (1, 1), (1, 1)), "edge")
    detail = 9 * low - sum(_shifted(around, 3, 1, height, width))
    midpoints = double_midpoint(floors, planes)
    children = np.zeros_like(floors)
    if finer is not None:
        magnitudes = np.abs(double_midpoint(*finer)) << 3 >> finer[1]
        _, rows, columns = magnitudes.shape
        whole = np.pad(magnitudes, ((0, 0), (0, 2 * height - rows), (0, 2 * width - columns)))
        children = whole.reshape(-1, height, 2, width, 2).sum((2, 4))
    parts = (
        low >> extra_bits,
        detail << 2 >> low_planes,
        midpoints << 5 >> planes,
        midpoints << 1 >> planes,
        children,
    )
    return np.concatenate(parts).clip(-_LIMIT, _LIMIT).astype(np.float32)


def double_midpoint(floors: np.ndarray, planes: np.ndarray) -> np.ndarray:
    """Twice the midpoints of cells, int64."""
    return 2 * floors + np.sign(floors) * ((1 << planes) - 1)


class Network:
    """The network of a model that serves one rung and one level.

    Args: the model; the row of the tables that serves the rung; the level.
    Attributes: `shifts` of the biases of its layers, by name.
    """

    def __init__(self, model: Model, row: int, level: int) -> None:
        number = 0
        while row >= model.experts[number]["rungs"]:
            row -= model.experts[number]["rungs"]
            number += 1
        self._tensors, self._prefix = model.tensors, f"experts.{number}."
        self._index, self._expert = (row, level - 1), model.experts[number]
        self._known, self._short = model.known, model.significand == 8
        self.shifts: dict[str, np.ndarray] = {}

    def fitted_layers(self, colours: int) -> list[str]:
        """The layers whose biases can be shifted, in the order of the stream."""
        names = ["up", "merge"]
        for block in range(self._expert["full_blocks"]):
            names += [f"fine.{block}.first", f"fine.{block}.second"]
        for phase in range(2 * colours):
            parts = ["trunk", *(["phase"] if self._known[phase] else []), "hidden", "out"]
            names += [f"heads.{phase}.{part}" for part in parts]
        return names

    def outputs(self, name: str) -> int:
        """How many a layer has."""
        return len(self._tensors[f"{self._prefix}{name}.weight"])

    def trunk(self, features: np.ndarray) -> np.ndarray:
        """Features [33, h, w] to activations [width, h, w]."""
        _, height, width = features.shape
        x = np.pad(features, ((0, 0), (0, height % 2), (0, width % 2)))
        full = self._conv("stem", self._rounded(x, TRUNK), relu=True)
        half = self._conv("down", full, stride=2, relu=True)
        half = self._blocks("blocks", self._expert["half_blocks"], half)
        up = self._conv("up", half)
        rows, columns = half.shape[1:]
        # Four channels are the four pixels of a square.
        up = up.reshape(-1, 2, 2, rows, columns).transpose(0, 3, 1, 4, 2).reshape(full.shape)
        full = self._conv("merge", self._sum(full, up), relu=True)
        full = self._blocks("fine", self._expert["full_blocks"], full)
        return full[:, :height, :width]

    def head(
        self, phase: int, trunk: np.ndarray, moves: np.ndarray, places: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Means and indices of scales of a phase, int64 [n, 3] each.

        Args: its number; the trunk's activations [width, n] at n places; how far earlier phases
        have moved midpoints, int64 [9, h + 2, w + 2] with a border of zeros; the places in that,
        flattened.
        """
        name, known = f"heads.{phase}", self._known[phase]
        x = self._layer(f"{name}.trunk", [trunk], HEAD)
        if known:
            stride = moves.shape[2]
            flat = self._rounded(moves[:known].astype(np.float32), HEAD).reshape(known, -1)
            steps = [row * stride + column for row in (-1, 0, 1) for column in (-1, 0, 1)]
            near = (flat[:, places + step] for step in steps)
            x = (x + self._layer(f"{name}.phase", near, HEAD)).clip(-_LIMIT, _LIMIT)
        x = self._rounded(np.maximum(x, 0), HEAD)
        x = self._layer(f"{name}.hidden", [x], HEAD, relu=True)
        out = self._layer(f"{name}.out", [x], OUT).astype(np.int64).T
        return out[:, :3], (out[:, 3:] + 80).clip(0, 128)

    def _blocks(self, name: str, count: int, x: np.ndarray) -> np.ndarray:
        """Residual blocks."""
        for number in range(count):
            inner = self._conv(f"{name}.{number}.first", x, relu=True)
            x = self._sum(x, self._conv(f"{name}.{number}.second", inner))
        return x

    def _sum(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The sum of two activations of the trunk."""
        return self._rounded((a + b).clip(-_LIMIT, _LIMIT), TRUNK)

    def _conv(self, name: str, x: np.ndarray, *, stride: int = 1, relu: bool = False) -> np.ndarray:
        """A convolution of the trunk [inputs, h, w]; with a stride there is no padding."""
        kernel = self._tensors[f"{self._prefix}{name}.weight"].shape[2]
        border = kernel // 2 if stride == 1 else 0
        height, width = x.shape[1] // stride, x.shape[2] // stride
        padded = np.pad(x, ((0, 0), (border, border), (border, border)))
        near = _shifted(padded, kernel, stride, height, width)
        y = self._layer(name, (part.reshape(len(x), -1) for part in near), TRUNK, relu=relu)
        return y.reshape(-1, height, width)

    def _layer(
        self, name: str, near: Iterable[np.ndarray], kind: int, *, relu: bool = False
    ) -> np.ndarray:
        """A layer on positions whose neighbours are given one by one, row by row, [inputs, n].

        What goes in is rounded as the kind asks; what comes out is, of the trunk.
        """
        shifts, name = self.shifts.get(name), self._prefix + name
        weight = self._tensors[f"{name}.weight"].astype(np.float32)
        bias = self._tensors[f"{name}.bias"][self._index].astype(np.float32)
        factor = self._tensors[f"{name}.multiplier"][self._index]
        bias = self._rounded(bias, kind)
        if shifts is not None:
            used = self._rounded(factor, kind) if kind == TRUNK else factor
            bias = self._rounded(_shifted_bias(weight, bias, used, shifts), kind)
        sums = bias[:, None]
        for place, neighbour in enumerate(near):
            row, column = divmod(place, weight.shape[3])
            sums = sums + weight[:, :, row, column] @ neighbour
        sums, limit = self._rounded(sums, kind), _MEAN_LIMIT if kind == OUT else _LIMIT
        if kind != TRUNK:
            return np.rint(sums * factor[:, None]).clip(0 if relu else -limit, limit)
        product = self._rounded(sums * self._rounded(factor[:, None], kind), kind)
        return self._rounded(np.rint(product).clip(0 if relu else -limit, limit), kind)

    def _rounded(self, x: np.ndarray, kind: int) -> np.ndarray:
        """To the nearest number of eight significant bits, to even in ties, where that is asked."""
        if kind == OUT or not self._short:
            return x
        bits = np.ascontiguousarray(x).view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)


def _shifted_bias(
    weight: np.ndarray, bias: np.ndarray, factor: np.ndarray, shifts: np.ndarray
) -> np.ndarray:
    """Biases with their shifts, in units that move an output by 2 to 4, within the sums' range."""
    unit = np.maximum(2.0 ** (2 - np.frexp(np.abs(factor))[1]), 1)
    room = (1 << 24) - 1 - 512 * np.abs(weight).sum((1, 2, 3), np.float64)
    most = np.floor(2.0 ** (np.frexp(room)[1] - 1))
    moved = (bias + shifts * unit).clip(-most, most)
    return np.where(shifts == 0, bias, moved).astype(np.float32)


def _shifted(
    padded: np.ndarray, kernel: int, stride: int, height: int, width: int
) -> Iterator[np.ndarray]:
    """The neighbours of all positions, one by one, row by row, [channels, height, width]."""
    for row in range(kernel):
        for column in range(kernel):
            yield padded[
                :, row : row + stride * height : stride, column : column + stride * width : stride
            ]
