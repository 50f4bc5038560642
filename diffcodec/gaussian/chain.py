"""The exact chain: fixed levels of noise, and all that depends on them the same on every machine.

Row 0 of the tables has the least noise, the last one the most. The network is
integer arithmetic (`diffcodec.exact`). Whatever else decides a bit is float64: products and sums
of single elements and square roots, which IEEE 754 rounds in one way, of numbers that come with
the weights; no logarithm, exponential or sine is computed here.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from diffcodec.errors import ModelError
from diffcodec.exact import backends, files
from diffcodec.exact.cdf import QUANTILES, CdfTable
from diffcodec.exact.config import Significand, Size, from_json
from diffcodec.exact.files import ModelFile
from diffcodec.exact.graphs import Replayed
from diffcodec.exact.layers import interpolated
from diffcodec.exact.networks import (
    ExactNoiseNetwork,
    NoiseShape,
    exact_layers,
    noise_layers,
    tensor_shapes,
)
from diffcodec.gaussian.decoder import VALUES
from diffcodec.gaussian.model import GaussianModel
from diffcodec.gaussian.network import ALIGNMENT, as_input, input_gain
from diffcodec.gaussian.process import alpha, per_example, sigma
from diffcodec.gaussian.schedule import Tabulated

V_UNITS = 1024
"""Integer units of the network's output per 1.0 of v."""

V_LIMIT = 6 * V_UNITS
"""Largest magnitude of an output; no v of a picture in six deviations of noise is larger."""


@dataclass(frozen=True)
class Config:
    """The configuration of a model of the Gaussian process.

    Attributes:
        network: the shape of the network.
        steps: of the chain.
        milestones: how many rows there are at which reverse channel coding stops.
        significand: bits of the activations.
        side: of the pictures that it was made for, in pixels.
    """

    PROCESS: ClassVar = "gaussian"

    network: NoiseShape
    steps: Size
    milestones: Size
    significand: Significand
    side: Size


@dataclass(frozen=True)
class Moments:
    """A Gaussian of z whose mean is of_z * z + of_x * x, for what is known of z and x."""

    of_z: float
    of_x: float
    variance: float

    def mean(self, z: Tensor, x: Tensor) -> Tensor:
        """Float64, of tensors alike."""
        return self.of_z * z + self.of_x * x


class Chain:
    """A trained Gaussian model at `steps` + 1 levels.

    Attributes:
        alpha, sigma, error: float64 [steps + 1]: factor of the data, deviation of the noise, and
            the network's mean squared error of eps at each level.
        table: the integer CDF.
        quantiles: as `cdf.quantiles` makes them.
        milestones: rows int32, falling, at which reverse channel coding stops.
        milestone_bits: float64, what it is expected to spend before each of them, in bits/dim.
        side: of the tiles that the model was trained on, in pixels.
        id: the first bytes of the digest, as they stand in a file's header.
    """

    def __init__(self, file: ModelFile) -> None:
        """Raises ModelError if the file's configuration or tensors are unsuitable."""
        config, tensors = from_json(Config, file.config), file.tensors
        self.steps, self.side = config.steps, config.side
        if 1 << len(config.network.widths) - 1 > ALIGNMENT:
            raise ModelError("The model file's network has more resolutions than it may have.")
        layers = noise_layers(config.network, self.steps + 1)
        rows, stops = (self.steps + 1,), (config.milestones,)
        file.check(
            {
                **tensor_shapes(layers),
                **CdfTable.shapes(),
                **dict.fromkeys(("alpha", "sigma", "error"), (torch.float64, rows)),
                "quantiles": (torch.int16, (QUANTILES,)),
                "milestones": (torch.int32, stops),
                "milestone_bits": (torch.float64, stops),
            }
        )
        self.table = CdfTable(tensors["cdf"], tensors["inverse_scales"])
        self.quantiles = tensors["quantiles"]
        self.alpha, self.sigma, self.error = (
            tensors[name].tolist() for name in ("alpha", "sigma", "error")
        )
        self.milestones = tensors["milestones"].tolist()
        self.milestone_bits = tensors["milestone_bits"].tolist()
        if not _falling(self.milestones, self.steps):
            raise ModelError("The milestones of the model file do not lead down its rows.")
        convs = exact_layers(layers, tensors, config.significand, V_LIMIT)
        self.network = ExactNoiseNetwork(config.network, convs).to(backends.device())
        self._replayed: Replayed[torch.Size] = Replayed(self._at, backends.device())
        self.id = file.id

    def predict(self, z: Tensor, row: int) -> Tensor:
        """The network's x, float64, of z float64 [N, C, H, W] at a row."""
        device = backends.device()
        inputs = as_input(z, input_gain(self.alpha[row], self.sigma[row])).to(device)
        if inputs.shape[2:] == (self.side, self.side):
            at = torch.tensor([row], device=device)
            v = self._replayed(inputs.shape, inputs, at)
        else:
            v = self.network(inputs, (row, 0))
        return self.alpha[row] * z - self.sigma[row] / V_UNITS * v.to("cpu", torch.float64)

    def _at(self, _: torch.Size, inputs: Tensor, row: Tensor) -> Tensor:
        """The network's outputs, where nothing depends on the host."""
        return self.network(inputs, row)

    def removed(self, t: int, s: int) -> float:
        """1 - SNR(t) / SNR(s) for rows t > s."""
        ratio = (self.alpha[t] * self.sigma[s]) / (self.alpha[s] * self.sigma[t])
        return 1 - ratio * ratio

    def marginal(self, row: int) -> Moments:
        """q(z | x) at a row."""
        return Moments(0.0, self.alpha[row], self.sigma[row] * self.sigma[row])

    def transition(self, s: int, t: int) -> Moments:
        """q(z_t | z_s) (VDM, appendix A)."""
        variance = self.sigma[t] * self.sigma[t] * self.removed(t, s)
        return Moments(self.alpha[t] / self.alpha[s], 0.0, variance)

    def posterior(self, t: int, s: int) -> Moments:
        """q(z_s | z_t, x) (VDM, appendix A)."""
        share = self.removed(t, s)
        variance = self.sigma[s] * self.sigma[s] * share
        return Moments(self.alpha[s] * (1 - share) / self.alpha[t], self.alpha[s] * share, variance)

    def reverse(self, t: int, s: int) -> Moments:
        """p(z_s | z_t), of z_t and the predicted x, with calibrated variance.

        The variance as in `process.calibrated_variance`.
        """
        exact, share = self.posterior(t, s), self.removed(t, s)
        spread = 1 + self.error[t] * share / (1 - share)
        return Moments(exact.of_z, exact.of_x, exact.variance * spread)

    def decoder_deviation(self) -> float:
        """The deviation of p(x | z_0) around the predicted x, in values of a pixel.

        A value's interval has a variance of 1/12, which the CDF's differences add.
        """
        scale = self.sigma[0] / self.alpha[0] * VALUES / 2
        return math.sqrt(max(scale * scale * self.error[0] - 1 / 12, 0.01))

    def model(self) -> GaussianModel:
        """The same model for any level: between two rows its tables are interpolated.

        Its schedule takes as long for each step of the chain.
        """
        alphas, sigmas = torch.tensor([self.alpha, self.sigma], dtype=torch.float64)
        schedule = Tabulated(2 * (alphas / sigmas).log())
        network = _AnyLevel(self.network, schedule)
        model = GaussianModel(network, schedule, variance="calibrated", decoder="network")
        rows = schedule.step_of(model.levels)
        model.errors.copy_(interpolated(torch.tensor(self.error, dtype=torch.float64), rows))
        return model


load = files.loader(Chain)
"""Reads a model file. Raises ModelError if it is missing, damaged or unsuitable."""


def _falling(milestones: list[int], steps: int) -> bool:
    """Whether rows fall from the noisiest, `steps`, to 0."""
    falling = all(later < earlier for earlier, later in pairwise(milestones))
    return milestones[0] == steps and milestones[-1] == 0 and falling


class _AnyLevel(nn.Module):
    """The exact network as a `model.Network`."""

    def __init__(self, network: ExactNoiseNetwork, schedule: Tabulated) -> None:
        super().__init__()
        self.network, self.schedule = network, schedule

    def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
        gain = input_gain(alpha(log_snr), sigma(log_snr))
        inputs, rows = as_input(z, per_example(gain, z)), self.schedule.step_of(log_snr).float()
        device = backends.device()
        return self.network(inputs.to(device), rows.to(device)).cpu() / V_UNITS
