"""The model file: configuration, ladder, tables and the tensors of the networks."""

import json
from pathlib import Path

import numpy as np
from safetensors import safe_open

LOW = 6
"""The number under which the low band is coded, as a level."""

FINISH = 1
"""The last rung, after which every coefficient is exact."""


TOP_RUNG = 18
"""Where all cells are around zero, of 8 bits."""


def rungs(depth: int) -> range:
    """All rungs of samples of so many bits, downwards."""
    return range(TOP_RUNG + depth - 8 - 1, FINISH - 1, -1)


def rung_at_8_bits(rung: int, depth: int) -> int:
    """The rung of samples of 8 bits whose odds and rows of the networks' tables serve a rung."""
    return FINISH if rung == FINISH else max(rung - (depth - 8), 2)


class Model:
    """Everything that the probabilities of a stream depend on.

    Attributes:
        id: the first bytes of the digest.
        interpolated: at how many of the finest levels chroma is interpolated.
        prior: observations that speak for the odds as they are.
        yields: whether few are left of them where counts cannot be chance.
        significand: bits of the activations, 8 or 24.
        experts: of each network, how many rows of rungs and of residual blocks it has.
        known: of each phase, how many channels earlier phases have decoded something of.
        tensors: by name.
    """

    def __init__(self, path: Path) -> None:
        with safe_open(path, "np") as file:
            metadata = file.metadata()
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config = json.loads(metadata["config"])
        if config["process"] != "quantised":
            raise ValueError(f"{path} is no model of the quantised process.")
        if "base" in config:
            raise ValueError(f"{path} is a difference from another model.")
        self.id = bytes.fromhex(metadata["digest"])[:4]
        self.interpolated, self.prior = config["interpolated"], config["prior"]
        self.yields = config.get("yields", 0) == 1
        self.significand = config["significand"]
        self.experts, self.known = config["network"]["experts"], config["network"]["known"]
        self._inverse_scales = self.tensors["inverse_scales"].astype(np.int64)
        self._cdf = self.tensors["cdf"].astype(np.int64)
        self.deviations = np.float32(1024 << 12) / self._inverse_scales.astype(np.float32)
        """The standard deviation of each index of a scale, in 1/256 of a cell; float32."""

    def planes(self, rung: int, level: int, levels: int) -> np.ndarray:
        """Planes of the nine channels of a level after a rung, int64 [9, 1, 1]."""
        if level == LOW:
            planes = self.tensors["ladder.low"][rung - FINISH, levels].repeat(3)
        else:
            planes = self.tensors["ladder.details"][rung - FINISH, level - 1]
        return planes.astype(np.int64)[:, None, None]

    def low_planes(self, rung: int, level: int) -> np.ndarray:
        """Planes of the error of the low band after `level` levels, int64 [3, 1, 1]."""
        return self.tensors["ladder.low"][rung - FINISH, level].astype(np.int64)[:, None, None]

    def row(self, rung_at_8_bits: int, level: int) -> int:
        """The row of the networks' tables that serves a level at a rung."""
        return int(self.tensors["ladder.rows"][rung_at_8_bits - FINISH, level - 1])

    def cdf(
        self, edge: np.ndarray, plane: np.ndarray, mean: np.ndarray, scale: np.ndarray
    ) -> np.ndarray:
        """2^30 F at an edge, int64.

        Args: twice the edge, from the midpoint of a cell of that plane; the mean from there in
        1/256 of the cell; the index of the scale.
        """
        distance = (edge << 8 >> plane + 1) - mean
        entry = distance * self._inverse_scales[scale] >> 12
        middle = len(self._cdf) // 2
        return self._cdf[entry.clip(-middle, middle) + middle]
