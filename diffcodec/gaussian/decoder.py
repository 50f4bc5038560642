"""Pixels as data in (-1, 1), and the way back: a distribution over the 256 values of a pixel."""

import torch
from torch import Tensor

VALUES = 256
"""Values of a pixel."""


def to_data(pixels: Tensor) -> Tensor:
    """Pixels uint8 to float32: the middles of 256 intervals of (-1, 1)."""
    return (2 * pixels.float() + 1) / VALUES - 1


def to_values(x: Tensor) -> Tensor:
    """Data on the scale of the pixels, where their values are whole numbers."""
    return (x + 1) * (VALUES / 2) - 0.5


def to_pixels(x: Tensor) -> Tensor:
    """The nearest pixels, uint8, to data of any size."""
    return to_values(x).round().clamp(0, VALUES - 1).to(torch.uint8)


def log_probabilities(mean: Tensor, variance: Tensor) -> Tensor:
    """log p(x | z_0) of all values of a pixel, [..., 256], in nats.

    A Gaussian at the 256 values, normalised over them. With mean z_0 / alpha_0 and variance
    1 / SNR(0) it is the posterior under equally likely values (VDM, section 3.3). The variance
    broadcasts against the mean.
    """
    values = to_data(torch.arange(VALUES, device=mean.device)).to(mean.dtype)
    return (-0.5 * (mean[..., None] - values).square() / variance[..., None]).log_softmax(-1)
