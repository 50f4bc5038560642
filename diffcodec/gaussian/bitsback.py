"""Lossless coding by bits-back: pictures on a stack, at the price of the chain's negative ELBO.

The latents are drawn upwards, z_0 from q(z_0 | x) and then each z_t from q(z_t | z_s), by popping
bits that are on the stack already; what a latent says of the one below is pushed as soon as it
is drawn. So the stack never lacks much more than one latent (Bit-Swap: Kingma, Abbeel and Ho,
2019), and the pictures of a chain lend each other their bits (BB-ANS: Townsend et al., 2019).

A latent is kept as an integer number of bins. Their width is in proportion to the deviation of
the noise that the step to its level adds; what rounding adds to the variance, 1/12 of a bin
squared, is taken off the Gaussians.
"""

import math

import numpy as np
import torch
from torch import Tensor

from diffcodec.entropy import Stack
from diffcodec.exact.cdf import DEVIATIONS
from diffcodec.gaussian.chain import Chain, Moments
from diffcodec.gaussian.decoder import to_data, to_values
from diffcodec.gaussian.symbols import Discretised, Symbols

BIN = 1.0
"""Width of a bin, in deviations of a step's noise: finer ones cost more initial bits."""

_PRIOR_HALVINGS, _VALUE_HALVINGS = 6, 8
"""Windows of p and of a pixel. That of p holds all that q may draw, as the outputs of the network
are bounded (`chain.V_LIMIT`)."""


def push(stack: Stack, chain: Chain, pixels: Tensor) -> None:
    """Push a picture uint8 [C, H, W]; H and W are multiples of 4."""
    latents = Latents(chain, pixels.shape)
    k = latents.lowest(pixels).pop(stack)
    latents.values(k).push(stack, pixels.flatten().long().numpy())
    for t in range(1, chain.steps + 1):
        noisier = latents.noisier(t, k).pop(stack)
        latents.clearer(t, noisier).push(stack, k)
        k = noisier
    latents.highest().push(stack, k)


def pop(stack: Stack, chain: Chain, shape: torch.Size) -> Tensor:
    """Pop the picture that was pushed last, uint8 of this shape."""
    latents = Latents(chain, shape)
    k = latents.highest().pop(stack)
    for t in range(chain.steps, 0, -1):
        clearer = latents.clearer(t, k).pop(stack)
        latents.noisier(t, clearer).push(stack, k)
        k = clearer
    pixels = torch.from_numpy(latents.values(k).pop(stack).astype(np.uint8)).reshape(shape)
    latents.lowest(pixels).push(stack, k)
    return pixels


def initial_bits(chain: Chain, shape: torch.Size) -> float:
    """What a picture of this shape takes off a stack before it gives any back, at most.

    That is the entropy of z_0 and of z_1, of which the pixels give a little back in between.
    """
    noise = chain.marginal(0).variance / chain.posterior(1, 0).variance
    deviations = 2 * math.pi * math.e / (BIN * BIN)
    return math.prod(shape) * 0.5 * (math.log2(deviations * noise) + math.log2(deviations))


class Latents:
    """The distributions of the discretised latents of a picture of some shape [C, H, W].

    Latents are symbols [C * H * W].
    """

    def __init__(self, chain: Chain, shape: torch.Size) -> None:
        self.chain, self.shape = chain, shape
        noise = [chain.posterior(1, 0), *(chain.transition(t - 1, t) for t in self._rows())]
        self.bins = [BIN * math.sqrt(moments.variance) for moments in noise]

    def lowest(self, pixels: Tensor) -> Discretised:
        """q(z_0 | x) for pixels uint8."""
        x = to_data(pixels).double().flatten()
        return self._gaussian(0, self.chain.marginal(0), x, x)

    def noisier(self, t: int, k: Symbols) -> Discretised:
        """q(z_t | z_s) of row t, for the latent of the row before."""
        z = self._z(t - 1, k)
        return self._gaussian(t, self.chain.transition(t - 1, t), z, z)

    def clearer(self, t: int, k: Symbols) -> Discretised:
        """p(z_s | z_t) of the row before t, for the latent of row t."""
        z = self._z(t, k)
        reverse = self.chain.reverse(t, t - 1)
        return self._gaussian(t - 1, reverse, z, self._predict(z, t), _PRIOR_HALVINGS)

    def highest(self) -> Discretised:
        """p(z_T)."""
        zero = torch.zeros(math.prod(self.shape), dtype=torch.float64)
        normal = Moments(of_z=0, of_x=0, variance=1)
        return self._gaussian(self.chain.steps, normal, zero, zero, _PRIOR_HALVINGS)

    def values(self, k: Symbols) -> Discretised:
        """p(x | z_0); the symbols are the pixels."""
        mean = to_values(self._predict(self._z(0, k), 0))
        deviation = self.chain.decoder_deviation()
        return Discretised(self.chain.table, mean, deviation, _VALUE_HALVINGS, first=0)

    def _rows(self) -> range:
        return range(1, self.chain.steps + 1)

    def _z(self, row: int, k: Symbols) -> Tensor:
        return torch.from_numpy(k).float() * self.bins[row]

    def _predict(self, z: Tensor, row: int) -> Tensor:
        return self.chain.predict(z.reshape(1, *self.shape), row).flatten()

    def _gaussian(
        self, row: int, moments: Moments, z: Tensor, x: Tensor, halvings: int | None = None
    ) -> Discretised:
        """Of a window so large, or of one that holds what may be drawn."""
        width = self.bins[row]
        scale = math.sqrt(moments.variance / (width * width) - 1 / 12)
        if halvings is None:
            halvings = math.ceil(2 * DEVIATIONS * scale).bit_length()
        return Discretised(self.chain.table, moments.mean(z, x) / width, scale, halvings)
