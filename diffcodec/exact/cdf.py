"""The Gaussian CDF as integers, and the probabilities that they give to cells.

Means and scales come as integers too: a mean in 1/256 of a cell, a scale as an index into a
geometric table with 16 entries per octave.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffcodec.exact.files import Shapes

MEAN_UNITS = 256
"""Units of a mean, and of an edge, per width of a cell."""

SCALE_UNITS = 16
"""Scale indices per octave."""

MIN_LOG_SCALE, MAX_LOG_SCALE = -5, 3
"""Range of log2(scale / width of a cell)."""

SCALES = (MAX_LOG_SCALE - MIN_LOG_SCALE) * SCALE_UNITS + 1

TAIL = 1e-4 / 16
"""Uniform density, per standard deviation, mixed into every Gaussian: nothing is impossible."""

THIN_TAIL = 6e-9
"""The same for latents, which are samples of Gaussians, so that nothing of them lies far out."""

REACH = 8 * MEAN_UNITS
"""Largest distance of an edge from a mean; no cell needs more."""

QUANTILES, QUANTILE_UNITS = 1 << 15, 4096
"""Positive entries of the table of normal deviates, and their units per standard deviation."""

DEVIATIONS = 8
"""The table covers so many standard deviations on either side."""

_Z_UNITS = 1024  # entries per standard deviation
_HALF = DEVIATIONS * _Z_UNITS
_SHIFT = 12
_TOTAL = 1 << 30


@dataclass(frozen=True)
class CdfTable:
    """Integer tables: they ship with the weights, so that no library's erf decides a bit.

    Attributes:
        values: int32 [16385], 2^30 times the CDF at multiples of 1/1024, from -8 to 8.
        inverse_scales: int32 [SCALES], fixed-point factors from units of a mean to entries.
    """

    values: Tensor
    inverse_scales: Tensor

    @staticmethod
    def shapes() -> Shapes:
        """The types and shapes of the tables under their names in a model file."""
        shapes = {"cdf": (2 * _HALF + 1,), "inverse_scales": (SCALES,)}
        return {name: (torch.int32, shape) for name, shape in shapes.items()}

    @classmethod
    def gaussian(cls, tail: float = TAIL) -> "CdfTable":
        """The normal CDF with a uniform density mixed in."""
        z = [i / _Z_UNITS for i in range(-_HALF, _HALF + 1)]
        weight = 1 - 2 * DEVIATIONS * tail
        cdf = [weight * 0.5 * math.erfc(-x / math.sqrt(2)) + tail * (x + DEVIATIONS) for x in z]
        inverse = [
            (_Z_UNITS << _SHIFT) / MEAN_UNITS * 2 ** -(i / SCALE_UNITS + MIN_LOG_SCALE)
            for i in range(SCALES)
        ]
        return cls(
            torch.tensor([round(_TOTAL * c) for c in cdf], dtype=torch.int32),
            torch.tensor([round(x) for x in inverse], dtype=torch.int32),
        )

    @cached_property
    def _at_distances(self) -> Tensor:
        """For each scale 2^30 times the CDF at distances from -REACH to REACH, in a row."""
        distances = torch.arange(-REACH, REACH + 1, dtype=torch.int32)
        z = distances * self.inverse_scales[:, None] >> _SHIFT
        return self.values[z.clamp_(-_HALF, _HALF).add_(_HALF)].flatten()

    def at(self, edges: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        """2^30 * CDF((edge - mean) / scale), int32.

        Args: edges and means in units of a mean, no farther apart than REACH, and indices of
        scales; int32, broadcast against each other.
        """
        places = edges + (scale * (2 * REACH + 1) + (REACH - mean))
        # On one thread this is faster than indexing.
        return self._at_distances.index_select(0, places.flatten()).view_as(places)

    def deviations(self) -> NDArray[np.float32]:
        """The standard deviation that each index of a scale stands for, in units of a mean."""
        return np.float32(_Z_UNITS << _SHIFT) / self.inverse_scales.numpy().astype(np.float32)

    def at_deviations(self, deviations: Tensor) -> Tensor:
        """2^30 * CDF at distances from the mean in standard deviations, float64; int64."""
        entries = (deviations * _Z_UNITS).floor().clamp(-_HALF, _HALF).long() + _HALF
        return self.values[entries].long()

    @property
    def total(self) -> int:
        """What the CDF reaches far above the mean."""
        return _TOTAL


def quantiles() -> Tensor:
    """Positive normal deviates in equal steps of probability, int16 [QUANTILES]."""
    normal = NormalDist()
    middles = (0.5 + (i + 0.5) / (2 * QUANTILES) for i in range(QUANTILES))
    return torch.tensor(
        [round(normal.inv_cdf(p) * QUANTILE_UNITS) for p in middles], dtype=torch.int16
    )
