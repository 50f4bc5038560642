"""The float network of the Gaussian process, and the exact chain that becomes of it.

Noise levels are continuous in training, and embeddings are tables: the tables hold knots at equal
distances of log-SNR, with straight lines in between. The tables of a chain have a row for each of
its fixed levels instead.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from diffcodec.errors import ModelError
from diffcodec.exact.cdf import THIN_TAIL, CdfTable, quantiles
from diffcodec.exact.config import from_json, to_json
from diffcodec.exact.files import ModelFile
from diffcodec.exact.layers import interpolated
from diffcodec.exact.networks import NoiseShape
from diffcodec.gaussian.chain import V_UNITS, Chain, Config
from diffcodec.gaussian.decoder import to_data
from diffcodec.gaussian.elbo import prior
from diffcodec.gaussian.model import GaussianModel
from diffcodec.gaussian.network import as_input, input_gain
from diffcodec.gaussian.process import alpha, marginal, normal, per_example, sigma
from diffcodec.training.integers import quantise, restore
from diffcodec.training.networks import NoiseNetwork

LOWEST_KNOT, HIGHEST_KNOT, KNOTS = -6.0, 14.0, 33
"""Log-SNRs of the first and the last knot, and their number; beyond the ends levels share one."""

STEPS = 128
"""Of the exact chain. More come closer to the limit of infinitely many, and cost time."""

SIGNIFICAND = 24
"""Bits of the exact network's activations."""

MILESTONE_BITS = 0.045
"""What a step of reverse channel coding is to cost at most, in bits/dim."""

_LEAST_ERROR = 0.02
"""Levels are spaced as if the network's error of eps were never less."""

_SMOOTHNESS = 1e-6
"""What a squared difference of neighbouring knots counts against a squared error of the fit."""


class DenoisingNetwork(nn.Module):
    """z [N, 3, H, W] and log-SNRs [N] to predictions [N, 3 or 6, H, W].

    H and W must be multiples of `gaussian.network.ALIGNMENT`. Six channels tell a variance, too.
    """

    def __init__(self, shape: NoiseShape) -> None:
        super().__init__()
        self.shape = shape
        self.net = NoiseNetwork(self.shape, KNOTS)

    def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
        gain = input_gain(alpha(log_snr), sigma(log_snr))
        return self.net(z * per_example(gain, z), positions(log_snr))

    @torch.no_grad()
    def tabulated(self, log_snrs: Tensor) -> NoiseNetwork:
        """The network for fixed levels [T]: row t of its tables is the level log_snrs[t].

        It takes z times the input gain of that level.
        """
        table, where = NoiseNetwork(self.shape, len(log_snrs)), positions(log_snrs)
        state = {
            name: interpolated(value, where) if ".rung_" in name else value
            for name, value in self.net.state_dict().items()
        }
        table.load_state_dict(state)
        return table.requires_grad_(False)

    @torch.no_grad()
    def untabulate(self, table: NoiseNetwork, log_snrs: Tensor) -> None:
        """Take weights and tables from a network for fixed levels [T], in place.

        The knots are a least squares fit; what the levels leave open about them is as level as
        it can be.
        """
        identity = torch.eye(KNOTS, dtype=torch.float64)
        design, slopes = interpolated(identity, positions(log_snrs.double())), identity.diff(dim=0)
        normal_matrix = design.T @ design + _SMOOTHNESS * slopes.T @ slopes
        solve = torch.linalg.solve(normal_matrix, design.T)
        for name, value in table.state_dict().items():
            knots = (solve @ value.double()).float() if ".rung_" in name else value
            self.net.get_parameter(name).copy_(knots)


def positions(log_snr: Tensor) -> Tensor:
    """Where log-SNRs lie between the knots: float, from 0 to KNOTS - 1."""
    share = (log_snr - LOWEST_KNOT) / (HIGHEST_KNOT - LOWEST_KNOT)
    return share.clamp(0, 1) * (KNOTS - 1)


def v_units(channels: int) -> Tensor:
    """Integer units per 1.0 of the network's outputs."""
    return torch.full((channels,), float(V_UNITS))


@torch.no_grad()
def tabulate(
    model: GaussianModel, pixels: Tensor, generator: torch.Generator
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and tensors of a model's file.

    Args:
        model: with a `DenoisingNetwork` that predicts v, and calibrated variances.
        pixels: uint8 [N, C, H, W], on which its errors and the ranges of its activations are
            measured.
        generator: of the noise.
    """
    assert isinstance(model.network, DenoisingNetwork)
    x, steps = to_data(pixels), STEPS
    model.calibrate(x, generator)
    log_snrs = spaced(model, steps)
    network = model.network.tabulated(log_snrs)
    alphas, sigmas = alpha(log_snrs.double()), sigma(log_snrs.double())

    def run() -> None:
        for row in tqdm(range(steps + 1), "calibrating", disable=None):
            z = marginal(x, log_snrs[row]).draw(normal(x.shape, x, generator))
            network(as_input(z, float(input_gain(alphas[row], sigmas[row]))), (row, 0))

    tensors = quantise(network, run, v_units)
    errors = model.errors_at(log_snrs).double()
    first = float(prior(model, x).mean())
    rows, bits = milestones(alphas / sigmas, errors, first)
    table = CdfTable.gaussian(THIN_TAIL)
    config = Config(model.network.shape, steps, len(rows), SIGNIFICAND, pixels.shape[-1])
    return to_json(config), tensors | {
        "alpha": alphas,
        "sigma": sigmas,
        "error": errors,
        "cdf": table.values,
        "inverse_scales": table.inverse_scales,
        "quantiles": quantiles(),
        "milestones": rows,
        "milestone_bits": bits,
    }


def untabulate(network: DenoisingNetwork, file: ModelFile) -> None:
    """Take the float network back from a model file, in place.

    Raises ModelError if the file is of another network.
    """
    config = from_json(Config, file.config)
    if config.network != network.shape:
        raise ModelError("The model to start from has a network of another shape.")
    table = NoiseNetwork(config.network, config.steps + 1)
    restore(table, file.tensors, v_units)
    log_snrs = 2 * (file.tensors["alpha"] / file.tensors["sigma"]).log()
    network.untabulate(table, log_snrs)


def differentiable(file: ModelFile) -> GaussianModel:
    """The model of a file with a network of floats, which has derivatives.

    Its weights are the integers' values; activations are not rounded. Raises ModelError for a file
    of another kind.
    """
    model = Chain(file).model()
    network = DenoisingNetwork(from_json(Config, file.config).network)
    untabulate(network, file)
    model.network = network.requires_grad_(False)
    return model


def spaced(model: GaussianModel, steps: int) -> Tensor:
    """Falling log-SNRs [steps + 1] between the ends of a calibrated model's schedule.

    A step of length d costs about (error * d)^2 more than infinitely many in its place, so the
    least sum has lengths like error^(-2/3).
    """
    fine = model.schedule.grid(64 * steps).flip(0).double()
    density = model.errors_at(fine).double().clamp(min=_LEAST_ERROR) ** (2 / 3)
    lengths = -fine.diff() * (density[1:] + density[:-1]) / 2
    place = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]) / lengths.sum() * steps
    picked = torch.searchsorted(place, torch.arange(steps + 1).double()).clamp(max=len(fine) - 1)
    picked[-1] = len(fine) - 1
    return fine[picked].float()


def milestones(ratios: Tensor, errors: Tensor, first: float) -> tuple[Tensor, Tensor]:
    """Rows at which reverse channel coding stops, and the bits/dim expected before each.

    A step from row t to row s of a model with calibrated variances has an expected relative
    entropy of 1/2 log2(1 + error_t (SNR_s / SNR_t - 1)).

    Args: alpha / sigma and the error of each row; the bits/dim of the first state.
    """
    snr = ratios.square()

    def expected(t: int, s: int) -> float:
        return 0.5 * float(torch.log2(1 + errors[t] * (snr[s] / snr[t] - 1)))

    rows = [len(errors) - 1]
    while (t := rows[-1]) > 0:
        fitting = [s for s in range(t - 1, -1, -1) if expected(t, s) <= MILESTONE_BITS]
        rows.append(min(fitting, default=t - 1))
    bits = [first, *(expected(t, s) for t, s in pairwise(rows))]
    return torch.tensor(rows, dtype=torch.int32), torch.tensor(bits, dtype=torch.float64)
