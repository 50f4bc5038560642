"""From a trained model to the tensors of its exact chain."""

from itertools import pairwise

import torch
from torch import Tensor
from tqdm import tqdm

from diffcodec.exact.cdf import CdfTable, quantiles
from diffcodec.exact.quantise import quantise
from diffcodec.gaussian.chain import V_UNITS
from diffcodec.gaussian.decoder import to_data
from diffcodec.gaussian.model import GaussianModel
from diffcodec.gaussian.network import DenoisingNetwork, as_input, input_gain
from diffcodec.gaussian.objective import prior
from diffcodec.gaussian.process import alpha, marginal, normal, sigma

STEPS = 128
"""Of the exact chain. More come closer to the limit of infinitely many, and cost time."""

_LEAST_ERROR = 0.02
"""Levels are spaced as if the network's error of eps were never less."""

MILESTONE_BITS = 0.045
"""What a step of reverse channel coding is to cost at most, in bits/dim."""


@torch.no_grad()
def tabulate(model: GaussianModel, pixels: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """The tensors that `chain.Chain` takes.

    Args: a model with a `DenoisingNetwork` that predicts v, with calibrated variances; pictures
    uint8 [N, C, H, W] that its errors and the ranges of its activations are measured on.
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

    tensors = quantise(network, run, lambda channels: torch.full((channels,), float(V_UNITS)))
    errors = model.errors_at(log_snrs).double()
    first = float(prior(model, x).mean())
    rows, bits = milestones(alphas / sigmas, errors, first)
    table = CdfTable.gaussian()
    return tensors | {
        "alpha": alphas,
        "sigma": sigmas,
        "error": errors,
        "cdf": table.values,
        "inverse_scales": table.inverse_scales,
        "quantiles": quantiles(),
        "milestones": rows,
        "milestone_bits": bits,
        "side": torch.tensor(pixels.shape[-1], dtype=torch.int32),
    }


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
