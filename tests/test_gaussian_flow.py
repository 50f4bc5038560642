"""SDEs and the probability flow against what is known of Gaussian data."""

import math
from itertools import pairwise

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from diffcodec.gaussian import flow
from diffcodec.gaussian.decoder import to_data
from diffcodec.gaussian.likelihood import likelihood
from diffcodec.gaussian.model import GaussianModel
from diffcodec.gaussian.process import alpha, per_example, sigma, to_ve, to_vp, ve_sigma
from diffcodec.gaussian.schedule import Cosine, LinearBeta, LinearLogSnr
from diffcodec.gaussian.sde import euler_maruyama, sub_vp, ve, vp
from diffcodec.training import diffusion

MEAN, DEVIATION = 0.3, 0.5
SCHEDULE = LinearLogSnr(9.0, -9.0)
SDES = {"vp": vp, "sub-vp": sub_vp, "ve": ve}
each_sde = pytest.mark.parametrize("sde", SDES.values(), ids=SDES)


def best(z, log_snr):
    """E[x | z] of N(MEAN, DEVIATION^2)."""
    level = per_example(log_snr, z)
    gain = DEVIATION**2 * alpha(level) / (DEVIATION**2 * alpha(level) ** 2 + sigma(level) ** 2)
    return MEAN + gain * (z - alpha(level) * MEAN)


def model(schedule=SCHEDULE, network=best):
    return GaussianModel(network, schedule, kind="x")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# --- SDEs ----------------------------------------------------------------------------------------


@each_sde
@pytest.mark.parametrize("schedule", [SCHEDULE, LinearBeta(), Cosine(8.0, -5.0)])
def test_scale_and_deviation_are_what_drift_and_diffusion_lead_to(sde, schedule):
    t = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    at, below, above = (sde(schedule, t + shift) for shift in (0, -1e-6, 1e-6))
    slope = (above.scale - below.scale) / 2e-6
    torch.testing.assert_close(slope, at.drift * at.scale, rtol=1e-5, atol=1e-6)
    slope = (above.deviation**2 - below.deviation**2) / 2e-6
    expected = 2 * at.drift * at.deviation**2 + at.diffusion
    torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-6)


def test_they_are_those_of_the_paper():
    start, t = 1e-3, torch.linspace(0, 1, 11, dtype=torch.float64)
    time = start + (1 - start) * t
    beta, total = 0.1 + 19.9 * time, 0.1 * time + 9.95 * time**2
    found = vp(LinearBeta(), t)
    torch.testing.assert_close(found.diffusion, (1 - start) * beta)
    torch.testing.assert_close(found.drift, -(1 - start) * beta / 2)
    found = sub_vp(LinearBeta(), t)
    torch.testing.assert_close(found.diffusion, (1 - start) * beta * -torch.expm1(-2 * total))
    torch.testing.assert_close(found.scale, (-total / 2).exp())
    torch.testing.assert_close(found.deviation, -torch.expm1(-total))
    lowest, highest = 0.01, 50.0
    found = ve(LinearLogSnr(-2 * math.log(lowest), -2 * math.log(highest)), t)
    deviation = lowest * (highest / lowest) ** t
    torch.testing.assert_close(found.deviation, deviation)
    root = deviation * math.sqrt(2 * math.log(highest / lowest))
    torch.testing.assert_close(found.diffusion.sqrt(), root)
    assert not found.drift.any()


@each_sde
def test_the_reverse_sde_leads_from_noise_to_the_data(sde):
    times, count = torch.linspace(1, 0, 301, dtype=torch.float64), 10_000
    with torch.no_grad():
        ends = [sde(SCHEDULE, t) for t in times[[0, -1]]]
    y = ends[0].deviation * torch.randn(count, 1, 1, 1, generator=seeded(1), dtype=torch.float64)
    y = euler_maruyama(model(), y, times, seeded(), sde)
    variance = float((ends[1].scale * DEVIATION) ** 2 + ends[1].deviation ** 2)
    mean = float(ends[1].scale * MEAN)
    assert float(y.mean()) == pytest.approx(mean, abs=4 * (variance / count) ** 0.5 + 2e-3)
    assert float(y.var()) == pytest.approx(variance, rel=4 * (2 / count) ** 0.5 + 0.03)


@each_sde
def test_halved_steps_halve_the_error_of_the_mean(sde):
    """The mean of Gaussian data follows a linear equation, for which this is Euler's method."""
    errors = []
    for steps in (100, 200, 400):
        times = torch.linspace(0.6, 0.3, steps + 1, dtype=torch.float64)
        with torch.no_grad():
            start, end = (sde(SCHEDULE, t) for t in times[[0, -1]])
        pair = []
        for shift in (-1.0, 1.0):  # the difference of two paths under the same noise
            y = (start.scale * (MEAN + shift)).expand(1, 1, 1, 1)
            pair.append(float(euler_maruyama(model(), y, times, seeded(), sde)))
        # cov(y_s, y_t) / var(y_t): how the mean of y_s given y_t moves with y_t.
        variances = [(c.scale * DEVIATION) ** 2 + c.deviation**2 for c in (start, end)]
        slope = float(variances[1] / variances[0] * start.scale / end.scale)
        errors.append(abs((pair[1] - pair[0]) / float(2 * start.scale) - slope))
    for coarse, fine in pairwise(errors):
        assert coarse / fine == pytest.approx(2, rel=0.1)


# --- the flow ------------------------------------------------------------------------------------


def known_density(z, levels):
    """log p of z [N, 1, 1, 1] by the flow of Gaussian data, which is affine, in nats [N]."""
    ratio = (DEVIATION**2 + ve_sigma(levels[-1]) ** 2).sqrt() / (
        (DEVIATION**2 + ve_sigma(levels[0]) ** 2).sqrt()
    )
    end = to_vp(MEAN + (to_ve(z, levels[0]) - MEAN) * ratio, levels[-1])
    growth = (ratio * alpha(levels[-1]) / alpha(levels[0])).log()
    return Normal(0.0, 1.0).log_prob(end).flatten() + growth


def test_the_density_of_gaussian_data_at_second_order():
    z = torch.linspace(-1, 1.5, 9, dtype=torch.float64).reshape(-1, 1, 1, 1)
    errors = []
    for steps in (50, 100, 200):
        levels = SCHEDULE.grid(steps).double().flip(0)
        found = flow.log_density(model(), z, levels, seeded())
        errors.append(float((found - known_density(z, levels)).abs().max()))
    assert errors[-1] < 5e-3
    for coarse, fine in pairwise(errors):
        assert coarse / fine == pytest.approx(4, rel=0.1)
    # The end is all but pure noise, so this is the density of the data, too.
    spread = math.sqrt((alpha(levels[0]) * DEVIATION) ** 2 + sigma(levels[0]) ** 2)
    data = Normal(float(alpha(levels[0])) * MEAN, spread).log_prob(z).flatten()
    torch.testing.assert_close(found, data, rtol=0, atol=0.02)


def test_random_signs_estimate_the_trace():
    """Data with correlations: the estimate is right on average, and its scatter is no bias."""
    covariance = torch.tensor([[0.5, 0.3, 0.1], [0.3, 0.4, -0.1], [0.1, -0.1, 0.3]]).double()

    def network(z, log_snr):
        a, s = alpha(log_snr[0]), sigma(log_snr[0])
        gain = a * covariance @ torch.linalg.inv(a**2 * covariance + s**2 * torch.eye(3))
        return torch.einsum("ij,njhw->nihw", gain, z)

    levels = SCHEDULE.grid(150).double().flip(0)
    z = torch.tensor([0.3, -0.2, 0.5]).double().reshape(1, 3, 1, 1).expand(600, 3, 1, 1)
    found = flow.log_density(model(network=network), z, levels, seeded())
    a, s = alpha(levels[0]), sigma(levels[0])
    data = MultivariateNormal(torch.zeros(3).double(), a**2 * covariance + s**2 * torch.eye(3))
    expected = float(data.log_prob(z[0].flatten()))
    assert float(found.std()) > 0.1
    error = float(found.std()) / 600**0.5
    assert float(found.mean()) == pytest.approx(expected, abs=4 * error + 2e-3)


def test_bits_of_pixels_are_their_entropy():
    """Of independent pixels that take four values, for the denoiser that knows them."""
    values, odds = torch.tensor([3, 100, 104, 250]), torch.tensor([0.1, 0.5, 0.25, 0.15])
    x, prior = to_data(values).double(), odds.double().log()

    def network(z, log_snr):
        level = per_example(log_snr, z)[..., None]
        distance = (z[..., None] - alpha(level) * x) / sigma(level)
        return ((prior - 0.5 * distance.square()).softmax(-1) * x).sum(-1).to(z.dtype)

    picks = torch.multinomial(odds, 120 * 16, True, generator=seeded())
    pixels = values[picks].to(torch.uint8).reshape(120, 1, 4, 4)
    knowing = GaussianModel(network, LinearLogSnr(13.3, -5.0), kind="x")
    bits = flow.bits(knowing, pixels, 150, seeded())
    entropy = float(-(odds * odds.log2()).sum())
    error = float(bits.std()) / 120**0.5
    assert error < 0.1
    assert float(bits.mean()) == pytest.approx(entropy, abs=4 * error + 0.02)

    # Where the decoder has much to tell, both bounds have: the best denoiser's densities are one.
    knowing = GaussianModel(network, LinearLogSnr(9.0, -5.0), kind="x")
    bits = flow.bits(knowing, pixels, 150, seeded())
    chain = likelihood(knowing, pixels, None, draws=60, generator=seeded(1))
    assert chain.reconstruction.mean > 1
    error = math.hypot(float(bits.std()) / 120**0.5, chain.total.error)
    assert float(bits.mean()) == pytest.approx(chain.total.mean, abs=4 * error)


# --- the score -----------------------------------------------------------------------------------


def test_denoising_score_matching_is_explicit_score_matching_and_a_constant():
    """Two Gaussians; their scores, and the integrals over z, are known or taken finely."""
    centres, width, level = torch.tensor([-0.6, 0.5]).double(), 0.2, torch.tensor(0.5).double()
    a, s = alpha(level), sigma(level)
    z = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    spread = math.sqrt(a**2 * width**2 + s**2)
    parts = Normal(a * centres, spread).log_prob(z[:, None]) - math.log(2)
    density = parts.logsumexp(1)
    score = (parts.softmax(1) * (a * centres - z[:, None]) / spread**2).sum(1)
    generator, count = seeded(), 40_000
    x = centres[torch.randint(2, (count,), generator=generator)]
    x = (x + width * torch.randn(count, generator=generator)).reshape(-1, 1, 1, 1)
    noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    t = (SCHEDULE.highest - level) / (SCHEDULE.highest - SCHEDULE.lowest)

    def objectives(network):
        guess = GaussianModel(network, SCHEDULE, kind="score")
        denoising = diffusion.score_matching(guess, x, t.expand(count), noise)
        error = network(z.reshape(-1, 1, 1, 1), level).flatten() - score
        return denoising, float(torch.trapezoid(0.5 * error**2 * density.exp(), z))

    networks = [lambda z, _: -z, lambda z, _: -0.4 * z + 0.3, lambda z, _: (2 * z).sin()]
    (first, explicit), *others = [objectives(network) for network in networks]
    for denoising, other in others:
        # The same draws for both, so that their difference scatters less.
        difference = denoising - first
        error = float(difference.std()) / count**0.5
        assert abs(other - explicit) > 20 * error
        assert float(difference.mean()) == pytest.approx(other - explicit, abs=4 * error)
    # The constant: the variance of the score of q(z | x) around that of q(z).
    fisher = float(torch.trapezoid(score**2 * density.exp(), z))
    error = float(first.std()) / count**0.5
    assert float(first.mean()) - explicit == pytest.approx(
        0.5 * (float(s) ** -2 - fisher), abs=4 * error
    )
