"""Samplers reproduce the moments and the paths of Gaussian data, for which the flow is known.

In the variance-exploding view y = x + s eps, data of variance d^2 follow
(y - mean) / sqrt(d^2 + s^2) = const along the probability flow.
"""

import math
from itertools import pairwise

import pytest
import torch

from diffcodec.gaussian.decoder import to_data
from diffcodec.gaussian.model import GaussianModel
from diffcodec.gaussian.process import (
    alpha,
    marginal,
    per_example,
    posterior,
    sigma,
    to_ve,
    to_vp,
    ve_sigma,
)
from diffcodec.gaussian.samplers import (
    ancestral,
    between,
    ddim,
    decode,
    heun,
    langevin,
    mosaic,
    predictor_corrector,
    progressive,
)
from diffcodec.gaussian.schedule import Cosine, LinearLogSnr

MEAN, DEVIATION = 0.3, 0.5
SCHEDULE = LinearLogSnr(10.0, -10.0)
COUNT = 20_000


def best(z, log_snr):
    """E[x | z] of N(MEAN, DEVIATION^2)."""
    level = per_example(log_snr, z)
    gain = DEVIATION**2 * alpha(level) / (DEVIATION**2 * alpha(level) ** 2 + sigma(level) ** 2)
    return MEAN + gain * (z - alpha(level) * MEAN)


def model(schedule=SCHEDULE, network=best, **options):
    return GaussianModel(network, schedule, kind="x", **options)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(count=COUNT, seed=1):
    return torch.randn(count, 1, 1, 1, generator=seeded(seed), dtype=torch.float64)


def assert_moments(samples, mean, variance, bias=0.0):
    """Within four standard errors, and a share of the variance for the steps' size."""
    count = len(samples)
    assert float(samples.mean()) == pytest.approx(mean, abs=4 * (variance / count) ** 0.5 + 1e-3)
    spread = 4 * variance * (2 / count) ** 0.5
    assert float(samples.var()) == pytest.approx(variance, abs=spread + bias * variance)


def end_variance(log_snr):
    """Of z at a level."""
    return DEVIATION**2 * float(alpha(log_snr)) ** 2 + float(sigma(log_snr)) ** 2


SAMPLERS = {
    "ancestral": (lambda z, grid: ancestral(model(), z, grid, seeded()), 200),
    "ancestral, beta": (lambda z, g: ancestral(model(variance="beta"), z, g, seeded()), 200),
    "ddim": (lambda z, grid: ddim(model(), z, grid, seeded()), 200),
    "ddim, half": (lambda z, grid: ddim(model(), z, grid, seeded(), eta=0.5), 200),
    "heun": (lambda z, grid: heun(model(), z, grid), 40),
    "predictor-corrector": (lambda z, g: predictor_corrector(model(), z, g, seeded()), 150),
}


@pytest.mark.parametrize(("sampler", "steps"), SAMPLERS.values(), ids=SAMPLERS)
def test_from_noise_to_the_moments_of_the_data(sampler, steps):
    grid = SCHEDULE.grid(steps)
    z = sampler(noise(), grid)
    assert_moments(z, MEAN * float(alpha(grid[-1])), end_variance(grid[-1]), bias=0.03)


@pytest.mark.parametrize(("sampler", "steps"), SAMPLERS.values(), ids=SAMPLERS)
def test_from_any_level_to_any_other(sampler, steps):
    grid = SCHEDULE.grid(2 * steps)[steps // 2 : steps]
    x = MEAN + DEVIATION * noise(seed=2)
    z = marginal(x, grid[0]).draw(noise(seed=3))
    moments = float(alpha(grid[-1])) * MEAN, end_variance(grid[-1])
    assert_moments(sampler(z, grid), *moments, bias=0.02)


def test_few_ancestral_steps_show_which_variance_they_have():
    """Per step, beta-tilde falls short of the true variance, and beta exceeds it."""
    grid = SCHEDULE.grid(12)
    low, high = (
        float(ancestral(model(variance=v), noise(), grid, seeded()).var())
        for v in ("beta_tilde", "beta")
    )
    assert low < 0.9 * end_variance(grid[-1])
    assert high > 1.1 * end_variance(grid[-1])


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_calibrated_variances_need_no_small_steps(steps):
    grid, calibrated = SCHEDULE.grid(steps), model(variance="calibrated")
    calibrated.calibrate((MEAN + DEVIATION * noise(5000, 7)).reshape(50, 1, 10, 10), seeded())
    z = ancestral(calibrated, noise(), grid, seeded())
    assert_moments(z, MEAN * float(alpha(grid[-1])), end_variance(grid[-1]), bias=0.03)


def test_ancestral_sampling_draws_from_the_posterior():
    """From one z_t: not only the mean but the variance of p(x | z_t)."""
    grid = SCHEDULE.grid(200, start=0.45)
    z = torch.full((COUNT, 1, 1, 1), 0.8, dtype=torch.float64)
    expected = float(best(z[:1], grid[:1]))
    variance = DEVIATION**2 / (1 + DEVIATION**2 * float(grid[0].exp()))
    samples = ancestral(model(), z, grid, seeded()) / alpha(grid[-1])
    assert_moments(samples, expected, variance + float(ve_sigma(grid[-1])) ** 2, bias=0.03)
    assert heun(model(), z[:2], grid).std() == 0


def flow(z, grid):
    """Where the probability flow takes z."""
    spread = (DEVIATION**2 + ve_sigma(grid[[0, -1]]).double() ** 2).sqrt()
    return to_vp(MEAN + (to_ve(z, grid[0]) - MEAN) * spread[1] / spread[0], grid[-1])


@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        (lambda z, grid: ddim(model(), z, grid, seeded()), 1),
        (lambda z, grid: heun(model(), z, grid), 2),
    ],
    ids=["ddim", "heun"],
)
def test_deterministic_samplers_follow_the_flow(sampler, order):
    z = noise(5)
    errors = []
    for steps in (50, 100, 200):
        grid = SCHEDULE.grid(steps)
        errors.append(float((sampler(z, grid) - flow(z, grid)).abs().max()))
    assert errors[-1] < 0.03 / 10 ** (order - 1)
    for coarse, fine in pairwise(errors):
        assert coarse / fine == pytest.approx(2**order, rel=0.15)


def test_ddim_with_all_noise_is_ancestral_sampling():
    grid, z = Cosine(8.0, -6.0).grid(9), torch.randn(6, 2, 3, 3, dtype=torch.float64)
    mixed = model(network=lambda z, log_snr: (z.flip(1) * 0.7).tanh())
    one, other = ddim(mixed, z, grid, seeded(), eta=1.0), ancestral(mixed, z, grid, seeded())
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert (ddim(mixed, z, grid, seeded()) - other).abs().max() > 0.1


def test_ddim_draws_its_share_of_the_noise():
    step, z = SCHEDULE.grid(12)[5:7], torch.full((COUNT, 1, 1, 1), 0.7, dtype=torch.float64)
    deviation = posterior(z, z, *step).variance.sqrt()
    for eta in (0.0, 0.3, 0.6):
        spread = float(ddim(model(), z, step, seeded(), eta=eta).std())
        assert spread == pytest.approx(eta * float(deviation), rel=0.02, abs=1e-12)


@pytest.mark.parametrize("step", [0.5, 1.0])
def test_langevin_dynamics(step):
    """For Gaussian data each update is linear, so its moments can be followed."""
    grid, sweeps, count = LinearLogSnr(3.0, -8.0).grid(12), 15, 20_000
    z = noise(count)
    mean, variance = 0.0, float(alpha(grid[0])) ** -2
    for log_snr in grid:
        added = step * math.exp(-log_snr)
        pull = added / (2 * (DEVIATION**2 + math.exp(-log_snr)))
        for _ in range(sweeps):
            mean, variance = mean + pull * (MEAN - mean), (1 - pull) ** 2 * variance + added
    samples = to_ve(langevin(model(), z, grid, seeded(), sweeps=sweeps, step=step), grid[-1])
    assert_moments(samples, mean, variance)
    assert variance == pytest.approx(DEVIATION**2 + math.exp(-grid[-1]), rel=0.12)
    assert mean == pytest.approx(MEAN, abs=0.05)


def test_correctors_repair_what_few_steps_have_done():
    """The moments of predictor and corrector, which are linear for Gaussian data, step by step."""
    grid = SCHEDULE.grid(12)
    mean, variance, step = 0.0, 1.0, 0.3
    for t, s in pairwise(grid.double()):
        zero, one = (model().reverse(torch.full((1, 1, 1, 1), v).double(), t, s) for v in (0.0, 1))
        slope = float(one.mean - zero.mean)
        mean, variance = float(zero.mean) + slope * mean, slope**2 * variance + float(one.variance)
        pull = step * float(sigma(s)) ** 2 / (2 * end_variance(s))
        for _ in range(3):
            mean = mean + pull * (MEAN * float(alpha(s)) - mean)
            variance = (1 - pull) ** 2 * variance + step * float(sigma(s)) ** 2
    z = predictor_corrector(model(), noise(), grid, seeded(), sweeps=3, step=step)
    assert_moments(z, mean, variance)
    plain = float(ancestral(model(), noise(), grid, seeded()).var())
    target = end_variance(grid[-1])
    assert abs(variance - target) < 0.75 * abs(plain - target)


# --- on the way ----------------------------------------------------------------------------------


def test_progressive_generation_predicts_where_it_goes():
    grid, z = SCHEDULE.grid(120), noise(4000)
    shown = list(progressive(model(), z, grid, seeded()))
    assert len(shown) == 120
    torch.testing.assert_close(shown[0], best(z, grid[:1]))
    z_0 = ancestral(model(), z, grid, seeded())
    torch.testing.assert_close(to_ve(z_0, grid[-1]), shown[-1], rtol=0, atol=0.2)
    distances = [float((x - shown[-1]).square().mean()) for x in shown[20::20]]
    assert distances == sorted(distances, reverse=True)
    # Predictions spread from the mean of the data to their deviation.
    assert float(shown[0].std()) < 0.01
    assert float(shown[-1].std()) == pytest.approx(DEVIATION, rel=0.1)


def test_latents_lie_between_two_pictures():
    x, other = MEAN + DEVIATION * torch.randn(2, 3, 8, 8, generator=seeded(8), dtype=torch.float64)
    shares, level = torch.tensor([0.0, 0.25, 1.0]), torch.tensor(1.0, dtype=torch.float64)
    z = between(x, other, shares, level, seeded())
    source = seeded()
    ends = [
        marginal(p, level).draw(torch.randn(p.shape, generator=source, dtype=torch.float64))
        for p in (x, other)
    ]
    torch.testing.assert_close(z[0], ends[0])
    torch.testing.assert_close(z[2], ends[1])
    torch.testing.assert_close(z[1], 0.75 * ends[0] + 0.25 * ends[1])
    # The flow of Gaussian data is affine: what is between remains between.
    levels = torch.linspace(1.0, 10.0, 9, dtype=torch.float64)
    shown = heun(model(), z, levels)
    torch.testing.assert_close(shown[1], 0.75 * shown[0] + 0.25 * shown[2])


# --- pictures ------------------------------------------------------------------------------------


def picture(seed=0):
    return torch.randint(256, (2, 3, 4, 4), generator=seeded(seed), dtype=torch.uint8)


@pytest.mark.parametrize("method", ["mean", "ancestral", "flow"])
@pytest.mark.parametrize("decoder", ["latent", "network"])
def test_who_knows_the_picture_decodes_it_from_noise(method, decoder):
    schedule, truth = LinearLogSnr(16.0, -5.0), to_data(picture())
    knowing = model(schedule, lambda z, log_snr: truth, decoder=decoder)
    z = torch.randn(2, 3, 4, 4, generator=seeded())
    shown = decode(knowing, z, 1.0, method, steps=30, generator=seeded())
    assert torch.equal(shown, picture())


def test_who_knows_nothing_keeps_what_was_sent():
    """At t near 0 all methods give the picture back, whatever the network adds."""
    schedule = LinearLogSnr(16.0, -5.0)
    x = to_data(picture())
    t = torch.tensor(0.02)
    z = marginal(x, schedule.log_snr(t)).draw(torch.randn(x.shape, generator=seeded()))
    naive = GaussianModel(lambda z, log_snr: torch.zeros_like(z), schedule, kind="v")
    for method in ("mean", "ancestral", "flow"):
        assert torch.equal(decode(naive, z, 0.02, method, steps=9, generator=seeded()), picture())


def test_the_mean_has_the_least_error_and_samples_the_right_spread():
    t = torch.tensor(0.5)
    x = MEAN + DEVIATION * noise(20_000, 4).float()
    x = x[(x.abs() < 0.99)][:, None, None, None]
    z = marginal(x, SCHEDULE.log_snr(t)).draw(noise(len(x), 5).float())
    error = {
        method: float(
            (to_data(decode(model(), z, 0.5, method, steps=60, generator=seeded())) - x).var()
        )
        for method in ("mean", "ancestral", "flow")
    }
    assert error["mean"] < error["flow"] < error["ancestral"]
    assert error["ancestral"] == pytest.approx(2 * error["mean"], rel=0.1)


def test_mosaics_are_in_reading_order():
    images = torch.arange(6).reshape(6, 1, 1, 1).expand(6, 3, 2, 4)
    shown = mosaic(images, 3)
    assert shown.shape == (3, 4, 12)
    assert shown[1, ::2, ::4].tolist() == [[0, 1, 2], [3, 4, 5]]
    single = torch.rand(4, 3, 5, 6)
    assert torch.equal(mosaic(single, 2)[:, 5:, :6], single[2])
