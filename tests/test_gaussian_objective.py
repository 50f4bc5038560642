"""Objectives and likelihood against closed forms.

For Gaussian data and a linear denoiser every term is a quadratic form in (x, eps). The four
points (+-1, +-1) have the second moments of a standard normal pair, so that `QUAD` gives exact
expectations, without any noise.
"""

import math
import re
from pathlib import Path

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from diffcodec.gaussian import elbo
from diffcodec.gaussian.decoder import VALUES, log_probabilities, to_data, to_pixels
from diffcodec.gaussian.likelihood import BATCH, likelihood
from diffcodec.gaussian.model import GaussianModel
from diffcodec.gaussian.parameterisation import Prediction
from diffcodec.gaussian.process import alpha, marginal, per_example, posterior, sigma
from diffcodec.gaussian.schedule import (
    Cosine,
    DiscreteBetas,
    Learned,
    LinearBeta,
    LinearLogSnr,
    linear_betas,
)
from diffcodec.training import diffusion
from diffcodec.training.gaussian import MILESTONE_BITS, milestones, spaced
from diffcodec.training.times import ImportanceTimes, low_discrepancy

MEAN, DEVIATION = 0.3, 0.5
QUAD = torch.tensor([[1.0, 1, -1, -1], [1, -1, 1, -1]], dtype=torch.float64).reshape(2, 1, 1, 1, 4)


def linear(share=1.0, kind="v", mean=MEAN, deviation=DEVIATION):
    """A linear denoiser: the best one for N(mean, deviation^2), or a share of its correction."""

    def network(z, log_snr):
        level = per_example(log_snr, z)
        gain = deviation**2 * alpha(level) / (deviation**2 * alpha(level) ** 2 + sigma(level) ** 2)
        x = mean + share * gain * (z - alpha(level) * mean)
        return getattr(Prediction.of("x", x, z, level), kind)

    return network


def midpoints(count):
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


def integral(function, model, count=4000, **options):
    """The mean of an objective over Gaussian data, noise and time."""
    t = midpoints(count)
    x, noise = MEAN + DEVIATION * QUAD[0], QUAD[1]
    x, noise = x.expand(count, 1, 1, 4), noise.expand(count, 1, 1, 4)
    with torch.no_grad():
        return float(function(model, x, t, noise, **options).mean())


def snr(schedule, t):
    return schedule.log_snr(torch.as_tensor(t, dtype=torch.float64)).exp()


def information(ends):
    """The diffusion term of the best denoiser: I(x; z_0) - I(x; z_1), in bits."""
    top, bottom = (1 + DEVIATION**2 * snr for snr in ends)
    return 0.5 * math.log2(top / bottom)


# --- the VLB -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["x", "eps", "v", "score", "flow"])
def test_the_continuous_vlb_of_the_best_denoiser_is_mutual_information(kind):
    schedule = LinearLogSnr(11.0, -6.0)
    model = GaussianModel(linear(kind=kind), schedule, kind=kind)
    expected = information((math.exp(11), math.exp(-6)))
    assert integral(elbo.continuous, model) == pytest.approx(expected, rel=1e-5)


def step_sum(schedule, steps):
    """Sum of (SNR(s) - SNR(t)) / 2 times the least squared error of x at t, in bits."""
    levels = snr(schedule, torch.linspace(0, 1, steps + 1, dtype=torch.float64))
    error = DEVIATION**2 / (1 + DEVIATION**2 * levels[1:])
    return float(((levels[:-1] - levels[1:]) * error).sum() / 2 / math.log(2))


@pytest.mark.parametrize("schedule", [LinearLogSnr(11.0, -6.0), Cosine(6.0, -6.0)])
def test_the_discrete_vlb_falls_to_the_continuous_one(schedule):
    model = GaussianModel(linear(), schedule)
    bits = {}
    for steps in (1, 2, 5, 50, 500, 4000):
        bits[steps] = integral(elbo.discrete, model, count=steps, steps=steps)
        assert bits[steps] == pytest.approx(step_sum(schedule, steps), rel=1e-6)
    values = [*bits.values(), integral(elbo.continuous, model)]
    assert values == sorted(values, reverse=True)
    # The gap is of first order in 1 / T.
    assert bits[4000] - (bits[500] - bits[4000]) / 7 == pytest.approx(values[-1], rel=2e-3)


def test_the_continuous_vlb_depends_on_the_ends_of_the_schedule_only():
    bent = Learned(9.0, -5.0)
    with torch.no_grad():
        bent.shape.heights[::7] += 6
        bent.shape.slopes += 9
    fall = DiscreteBetas(linear_betas(1000)).log_snr(torch.tensor([0.0, 1.0]).double())
    ends = {(9.0, -5.0): [Cosine(9.0, -5.0), bent]}
    ends[tuple(fall.tolist())] = [DiscreteBetas(linear_betas(1000))]
    beta = LinearBeta()
    ends[tuple(beta.log_snr(torch.tensor([0.0, 1.0]).double()).tolist())] = [beta]
    network = linear(share=0.7)  # also for a denoiser that is not the best
    for (highest, lowest), schedules in ends.items():
        straight = GaussianModel(network, LinearLogSnr(highest, lowest))
        expected = integral(elbo.continuous, straight)
        assert expected > 1.05 * information((math.exp(highest), math.exp(lowest)))
        for schedule in schedules:
            model = GaussianModel(network, schedule)
            got = integral(elbo.continuous, model, count=9990)
            assert got == pytest.approx(expected, rel=1e-3)


def random_network(channels):
    """Something that is linear in z and depends on the level, with as many output channels."""
    generator = torch.Generator().manual_seed(channels)
    mix = torch.randn(channels, 3, generator=generator, dtype=torch.float64) / 3

    def network(z, log_snr):
        return torch.einsum("oc,nchw->nohw", mix, z) * torch.sigmoid(per_example(log_snr, z))

    return network


@pytest.mark.parametrize("variance", ["beta", "beta_tilde", "learned", "calibrated"])
def test_a_step_costs_the_divergence_of_its_two_gaussians(variance):
    torch.manual_seed(1)
    schedule, steps = Cosine(10.0, -5.0), 20
    channels = 6 if variance == "learned" else 3
    model = GaussianModel(random_network(channels), schedule, variance=variance)
    model.errors.copy_(torch.rand(len(model.errors)))
    x, noise = torch.rand(20, 3, 2, 2).double() * 2 - 1, torch.randn(20, 3, 2, 2).double()
    levels = schedule.log_snr(torch.linspace(0, 1, 21, dtype=torch.float64))
    clear, noisy = levels[:-1], levels[1:]
    z = marginal(x, per_example(noisy, x)).draw(noise)
    q = posterior(z, x, per_example(noisy, x), per_example(clear, x))
    p = model.reverse(z, noisy, clear)
    ratio = (p.variance / q.variance).log2()
    assert ratio.abs().max() < 1e-12 if variance == "beta_tilde" else ratio.abs().max() > 0.5
    divergence = kl_divergence(*(Normal(g.mean, g.variance.sqrt()) for g in (q, p)))
    bits = elbo.discrete(model, x, midpoints(20), noise, steps)
    expected = steps * divergence.flatten(1).mean(1) / math.log(2)
    torch.testing.assert_close(bits, expected)


def test_calibrated_variances_make_few_steps_as_good_as_infinitely_many():
    """For Gaussian data p(z_s | z_t) is Gaussian, and with the right variance a step is exact."""
    torch.manual_seed(5)
    schedule = LinearLogSnr(11.0, -6.0)
    model = GaussianModel(linear(), schedule, variance="calibrated")
    model.calibrate(MEAN + DEVIATION * torch.randn(200, 1, 8, 8), torch.Generator().manual_seed(0))
    snrs = model.levels.exp()
    torch.testing.assert_close(
        model.errors, snrs * DEVIATION**2 / (1 + snrs * DEVIATION**2), rtol=0.06, atol=0
    )
    expected = information((math.exp(11), math.exp(-6)))
    for steps in (1, 3, 16):
        bits = integral(elbo.discrete, model, count=steps, steps=steps)
        assert bits == pytest.approx(expected, rel=2e-3)
        assert step_sum(schedule, steps) > 1.05 * expected
    model.calibrate(torch.zeros(2, 1, 8, 8), torch.Generator())  # of other data
    assert integral(elbo.discrete, model, count=3, steps=3) > 1.02 * expected


def test_the_table_of_steps_is_what_the_page_says():
    page = (Path(__file__).parent.parent / "docs" / "gaussian.md").read_text()
    heading, _, *rows = re.search(r"<!-- steps -->\n(.*)<!-- /steps -->", page, re.S)[
        1
    ].splitlines()
    assert len(rows) > 5
    for place, variance in enumerate(re.findall(r"`(\w+)`", heading), 1):
        model = GaussianModel(linear(mean=0, deviation=0.2), LinearLogSnr(11.0, -6.0))
        model.variance = variance
        snrs = 0.04 * model.levels.exp()
        model.errors.copy_(snrs / (1 + snrs))
        for row in rows:
            cells = row.strip("| ").split(" | ")
            count = 4000 if cells[0] == "∞" else int(cells[0])
            x, noise = (0.2 * QUAD[0]).expand(count, 1, 1, 4), QUAD[1].expand(count, 1, 1, 4)
            arguments = model, x, midpoints(count), noise
            if cells[0] == "∞":
                bits = elbo.continuous(*arguments)
            else:
                bits = elbo.discrete(*arguments, count)
            assert float(bits.detach().mean()) == pytest.approx(float(cells[place]), abs=6e-4)


def test_errors_lie_between_those_that_were_measured():
    model = GaussianModel(linear(), Cosine(8.0, -4.0), variance="calibrated")
    model.errors.copy_(torch.linspace(0.1, 0.9, len(model.errors)))
    levels = torch.cat(
        [model.levels[3:5], model.levels[3:5].mean()[None], torch.tensor([-9.0, 99])]
    )
    step = 0.8 / (len(model.errors) - 1)
    expected = torch.tensor([0.1 + 3 * step, 0.1 + 4 * step, 0.1 + 3.5 * step, 0.1, 0.9])
    spread = model(torch.zeros(5, 1, 1, 1), levels)[1]
    torch.testing.assert_close(spread.flatten(), expected)


def test_weights_multiply_the_terms_and_simple_is_one_of_them():
    schedule = LinearLogSnr(9.0, -7.0)
    model = GaussianModel(linear(share=0.5), schedule)
    simple = integral(diffusion.simple, model)
    expected = 2 * math.log(2) / 16  # the density of log-SNRs, from bits to nats, from halves
    weighted = integral(elbo.continuous, model, weight=lambda s: expected * torch.ones_like(s))
    assert simple == pytest.approx(weighted, rel=1e-9)

    # Half of all log-SNRs: the information between its ends.
    best = GaussianModel(linear(), schedule)
    low = integral(elbo.continuous, best, weight=lambda log_snr: (log_snr < 1.0).double())
    assert low == pytest.approx(information((math.exp(1), math.exp(-7))), rel=1e-3)
    low = integral(elbo.discrete, best, steps=4000, weight=lambda s: (s < 1.0).double())
    assert low == pytest.approx(information((math.exp(1), math.exp(-7))), rel=5e-3)


def test_the_hybrid_objective_keeps_means_and_variances_apart():
    torch.manual_seed(2)
    outputs = torch.randn(8, 6, 2, 2, dtype=torch.float64, requires_grad=True)
    model = GaussianModel(
        lambda z, log_snr: outputs, LinearLogSnr(), kind="eps", variance="learned"
    )
    x, noise = torch.rand(8, 3, 2, 2).double(), torch.randn(8, 3, 2, 2).double()
    t = midpoints(8)

    def gradient(losses):
        return torch.autograd.grad(losses.sum(), outputs, allow_unused=True)[0].split(3, 1)

    mixed = gradient(diffusion.hybrid(model, x, t, noise, 8, vlb_weight=0.01))
    # A loss at the noisy end of the step of each t.
    plain = gradient(diffusion.simple(model, x, (torch.arange(8).double() + 1) / 8, noise))
    bound = gradient(elbo.discrete(model, x, t, noise, 8))
    torch.testing.assert_close(mixed[0], plain[0])
    torch.testing.assert_close(mixed[1], 0.01 * bound[1])
    assert mixed[1].abs().max() > 0


def test_the_hybrid_objective_weighs_the_bound_in_bits():
    """0.001 of T steps, each the relative entropy of two Gaussians in bits/dim."""
    torch.manual_seed(6)
    prediction, mix = torch.randn(2, 4, 1, 2, 2, dtype=torch.float64)
    schedule, steps = LinearLogSnr(7.0, -3.0), 4
    model = GaussianModel(
        lambda z, log_snr: torch.cat([prediction, mix], 1), schedule, kind="x", variance="learned"
    )
    x, noise = torch.randn(2, 4, 1, 2, 2, dtype=torch.float64)
    levels = schedule.log_snr(torch.arange(steps + 1).double() / steps)[:, None, None, None]
    clear, noisy = levels[:-1], levels[1:]
    z = alpha(noisy) * x + sigma(noisy) * noise
    q, p = (posterior(z, of, noisy, clear) for of in (x, prediction))
    beta = sigma(noisy) ** 2 * (1 - torch.exp(noisy - clear))
    share = (mix + 1) / 2
    variance = q.variance ** (1 - share) * beta**share
    divergence = kl_divergence(
        Normal(q.mean, q.variance.sqrt().expand_as(z)), Normal(p.mean, variance.sqrt())
    )
    bits = divergence.flatten(1).mean(1) / math.log(2)
    eps = (z - alpha(noisy) * prediction) / sigma(noisy)
    simple = (noise - eps).square().flatten(1).mean(1)
    losses = diffusion.hybrid(model, x, midpoints(steps), noise, steps)
    torch.testing.assert_close(losses, simple + 1e-3 * steps * bits)
    assert (steps * bits * 1e-3 / simple).max() > 1e-3  # it counts


def test_levels_lie_closer_where_the_error_is_large():
    """The least sum of (error * d)^2, given that of d: d goes like error^(-2/3)."""
    model = GaussianModel(linear(), LinearLogSnr(9.0, -7.0), variance="calibrated")
    model.errors.copy_(torch.linspace(0.04, 0.9, len(model.errors)))
    levels = spaced(model, 16).double()
    distances = -levels.diff()
    errors = model.errors_at(levels[:-1] - distances / 2).double()
    assert float(distances.sum()) == pytest.approx(16, abs=0.1)
    evened = distances * errors ** (2 / 3)
    torch.testing.assert_close(evened, evened.mean().expand(16), rtol=0.03, atol=0)


def test_milestones_are_as_far_apart_as_their_bits_allow():
    """The relative entropy of a step with calibrated variance, by its own formula."""
    log_snrs = torch.linspace(8, -5, 257, dtype=torch.float64)
    errors = torch.linspace(0.03, 0.9, 257, dtype=torch.float64)
    rows, bits = milestones((log_snrs / 2).exp(), errors, 0.01)

    def expected(t, s):
        ratio = torch.exp(log_snrs[s] - log_snrs[t])
        return float(0.5 * torch.log2(1 + errors[t] * (ratio - 1)))

    assert rows[0] == 256
    assert rows[-1] == 0
    assert bits[0] == 0.01
    long = 0
    for t, s, spent in zip(rows[:-1].tolist(), rows[1:].tolist(), bits[1:].tolist(), strict=True):
        assert spent == pytest.approx(expected(t, s))
        assert spent <= MILESTONE_BITS or s == t - 1
        assert s == 0 or expected(t, s - 1) > MILESTONE_BITS
        long += t - s > 1
    assert long > 3


def test_prior_and_reconstruction():
    torch.manual_seed(3)
    pixels = torch.randint(256, (5, 3, 4, 4), dtype=torch.uint8)
    noise = torch.randn(5, 3, 4, 4)
    model = GaussianModel(random_network(3), LinearLogSnr(9.0, -2.0))
    x = to_data(pixels).double()
    z_1 = Normal(x * math.sqrt(1 / (1 + math.exp(2))), math.sqrt(1 / (1 + math.exp(-2))))
    expected = kl_divergence(z_1, Normal(torch.zeros(()).double(), 1.0)).flatten(1).mean(1)
    torch.testing.assert_close(elbo.prior(model, x), expected / math.log(2))

    y = x + math.exp(-4.5) * noise
    density = Normal(to_data(torch.arange(256)).double(), math.exp(-4.5)).log_prob(y[..., None])
    right = density.softmax(-1).gather(-1, pixels.long()[..., None])
    bits = elbo.reconstruction(model, pixels, noise.double())
    torch.testing.assert_close(bits, -right.log2().flatten(1).mean(1), rtol=1e-6, atol=0)


# --- the decoder ---------------------------------------------------------------------------------


def test_pixels_are_data_and_back():
    pixels = torch.arange(256, dtype=torch.uint8)
    x = to_data(pixels)
    assert torch.equal(to_pixels(x), pixels)
    assert torch.equal(to_pixels(x + 0.99 / 256), pixels)
    assert torch.equal(to_pixels(x - 0.99 / 256), pixels)
    assert to_pixels(torch.tensor([-7.0, 7.0])).tolist() == [0, 255]
    assert float(x.sum()) == 0
    assert torch.allclose(x.diff(), torch.tensor(2 / 256))


@pytest.mark.parametrize("deviation", [1e-4, 0.004, 0.1, 30.0])
def test_the_decoder_sums_to_one_and_has_its_limits(deviation):
    mean = (torch.arange(-170, 170, dtype=torch.float64) + 0.37) / 128
    logs = log_probabilities(mean, torch.full_like(mean, deviation**2))
    assert logs.shape == (340, VALUES)
    torch.testing.assert_close(logs.exp().sum(-1), torch.ones_like(mean))
    assert torch.equal(logs.argmax(-1).to(torch.uint8), to_pixels(mean))
    if deviation == 1e-4:  # no noise: the nearest value is certain
        assert logs.amax(-1).exp().min() > 0.99
    if deviation == 30.0:  # no signal: all values are alike
        torch.testing.assert_close(logs, torch.full_like(logs, -math.log(256)), rtol=1e-3, atol=0)


def test_a_decoder_can_ask_the_network():
    truth = torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8)
    model = GaussianModel(
        lambda z, log_snr: to_data(truth), LinearLogSnr(4.0, -5.0), kind="x", decoder="network"
    )
    noise = torch.randn(2, 3, 16, 16)
    asked = elbo.reconstruction(model, truth, noise)
    z_0 = marginal(to_data(truth), torch.tensor(4.0)).draw(noise)
    assert torch.equal(model.most_likely(z_0), truth)
    model.decoder = "latent"
    assert not torch.equal(model.most_likely(z_0), truth)
    assert (elbo.reconstruction(model, truth, noise) > asked + 0.5).all()


# --- likelihood ----------------------------------------------------------------------------------


def knowing(values, odds):
    """A model that knows that pixels are independent, with these odds of these values."""
    x, prior = to_data(torch.tensor(values)), torch.tensor(odds).log()

    def network(z, log_snr):
        level = per_example(log_snr, z)[..., None]
        distance = (z[..., None] - alpha(level) * x) / sigma(level)
        return ((prior - 0.5 * distance.square()).softmax(-1) * x).sum(-1)

    return network


def drawn(values, odds, images, generator):
    """Pictures [images, 1, 4, 4] of such pixels."""
    picks = torch.multinomial(torch.tensor(odds), images * 16, True, generator=generator)
    return torch.tensor(values, dtype=torch.uint8)[picks].reshape(images, 1, 4, 4)


def estimate(values, odds, steps, seed=0, schedule=None, images=150, draws=60, **options):
    generator = torch.Generator().manual_seed(seed)
    schedule = schedule or LinearLogSnr(13.3, -5.0)
    model = GaussianModel(knowing(values, odds), schedule, kind="x", **options)
    pixels = drawn(values, odds, images, generator)
    return likelihood(model, pixels, steps, draws=draws, generator=generator)


@pytest.mark.parametrize(
    ("values", "odds"),
    [([*range(0, 256, 5)], [1 / 52] * 52), ([3, 100, 104, 250], [0.1, 0.5, 0.25, 0.15])],
)
def test_the_best_model_needs_the_entropy_of_the_data(values, odds):
    entropy = -sum(p * math.log2(p) for p in odds)
    result = estimate(values, odds, None)
    assert result.total.mean == pytest.approx(entropy, abs=4 * result.total.error + 0.015)
    assert 0 < result.total.error < 0.05 * entropy
    parts = result.prior.mean + result.diffusion.mean + result.reconstruction.mean
    assert parts == pytest.approx(result.total.mean, rel=1e-6)
    assert result.diffusion.mean > 0.9 * result.total.mean

    # What is lost by few steps is in the diffusion term, and shrinks with their number.
    coarse = estimate(values, odds, 20, draws=20)
    fine = estimate(values, odds, 240)
    assert coarse.total.mean > fine.total.mean + 0.1
    assert fine.total.mean > entropy - 4 * fine.total.error
    assert coarse.reconstruction.mean == pytest.approx(fine.reconstruction.mean, abs=0.02)


def test_what_the_schedule_leaves_to_prior_and_decoder():
    values = [*range(0, 256, 3)]
    odds = [1 / len(values)] * len(values)
    ends = estimate(values, odds, None), estimate(values, odds, None, schedule=Cosine(8.0, -3.0))
    assert ends[1].reconstruction.mean > ends[0].reconstruction.mean + 0.5
    assert ends[1].prior.mean > 5 * ends[0].prior.mean
    # The decoder does not know that there is but every third value.
    assert ends[1].total.mean > ends[0].total.mean + 0.2


def test_a_ddpm_is_a_chain_whose_last_step_is_the_decoder():
    """Its finest level hides pixel values, and its decoder has the width of that noise."""
    values, odds = [*range(0, 256, 16)], [1 / 16] * 16  # far enough apart to be certain
    ddpm = DiscreteBetas(linear_betas(1000))
    asked = estimate(values, odds, 999, schedule=ddpm, decoder="network")
    width = math.sqrt(1e-4 / (1 - 1e-4)) * 128 * math.sqrt(2 * math.pi)
    assert asked.reconstruction.mean == pytest.approx(math.log2(width), abs=0.05)
    assert asked.diffusion.mean == pytest.approx(4, abs=4 * asked.diffusion.error + 0.1)
    assert asked.prior.mean < 1e-4  # 1000 steps of DDPM end in noise
    latent = estimate(values, odds, 999, schedule=ddpm)
    entropy = math.log2(width * math.sqrt(math.e))  # the noise's own
    assert latent.reconstruction.mean == pytest.approx(entropy, abs=0.1)


def test_standard_errors_tell_how_estimates_scatter():
    runs = [estimate([3, 60, 250], [0.5, 0.3, 0.2], None, s, images=40, draws=8) for s in range(40)]
    totals = torch.tensor([run.total.mean for run in runs])
    errors = torch.tensor([run.total.error for run in runs])
    assert 0.65 < float(totals.std() / errors.mean()) < 1.4
    decoded = torch.tensor([run.reconstruction.mean for run in runs])
    errors = torch.tensor([run.reconstruction.error for run in runs])
    assert 0.65 < float(decoded.std() / errors.mean()) < 1.5


def test_with_as_many_draws_as_steps_every_step_is_measured_once():
    seen = []

    def network(z, log_snr):
        seen.append(log_snr.clone())
        return torch.zeros_like(z)

    schedule, images = LinearLogSnr(), BATCH + 3
    model = GaussianModel(network, schedule)
    pixels = torch.zeros(images, 1, 1, 1, dtype=torch.uint8)
    result = likelihood(model, pixels, 7, draws=7, generator=torch.Generator().manual_seed(0))
    sizes = [len(levels) for levels in seen]
    assert sizes == [BATCH] * 7 + [3] * 7
    for levels in (torch.stack(seen[:7]), torch.stack(seen[7:])):
        torch.testing.assert_close(levels, schedule.grid(7)[:-1].flip(0)[:, None].expand_as(levels))
    assert result.prior.error == 0
    with pytest.raises(ValueError, match="two"):
        likelihood(model, pixels[:1], None, draws=1, generator=torch.Generator())


# --- times ---------------------------------------------------------------------------------------


def generators(count):
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def test_low_discrepancy_times_are_stratified_and_unbiased():
    draws = torch.stack([low_discrepancy(8, generator) for generator in generators(800)])
    assert torch.equal((draws * 8).floor(), torch.arange(8.0).expand(800, 8))
    assert ((draws >= 0) & (draws < 1)).all()
    means = draws.exp().mean(1)
    free = torch.stack([torch.rand(8, generator=g) for g in generators(800)]).exp().mean(1)
    assert float(means.mean()) == pytest.approx(math.e - 1, abs=4 * float(means.std()) / 800**0.5)
    assert float(free.mean()) == pytest.approx(math.e - 1, abs=4 * float(free.std()) / 800**0.5)
    assert means.std() < 0.5 * free.std()
    # Each single one is uniform in its stratum.
    assert float((draws[:, 3] * 8 - 3).mean()) == pytest.approx(0.5, abs=0.04)
    assert float((draws[:, 3] * 8 - 3).var()) == pytest.approx(1 / 12, rel=0.1)


def peak(t):
    """A loss with almost all of its second moment in a few times; its mean is 1.05."""
    return 0.05 + 10 * ((t > 0.6) & (t < 0.7)).float()


def test_importance_sampling_is_unbiased_and_goes_where_the_losses_are():
    times, generator = ImportanceTimes(bins=20), torch.Generator().manual_seed(0)
    t, weights = times.draw(64, generator)
    assert torch.allclose(weights, torch.ones(64))  # knowing nothing, it is uniform
    for _ in range(300):
        t, weights = times.draw(64, generator)
        times.update(t, peak(t))
    drawn = [times.draw(16, generator) for _ in range(600)]
    t, weights = (torch.stack(part) for part in zip(*drawn, strict=True))
    assert ((t >= 0) & (t < 1)).all()
    for loss in (peak, torch.ones_like, torch.exp, lambda t: t):
        expected = float(loss(midpoints(10_000).float()).mean())
        means = (weights * loss(t)).mean(1)
        assert float(means.mean()) == pytest.approx(expected, abs=4 * float(means.std()) / 600**0.5)
    assert float(((t > 0.6) & (t < 0.7)).float().mean()) > 0.75
    weighted, plain = weights * peak(t), peak(torch.rand(9600, generator=generator))
    assert weighted.std() < 0.3 * plain.std()
    assert weights.max() < 10.01


def test_bins_without_a_visit_count_as_average_ones():
    times = ImportanceTimes(bins=4)
    times.update(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([2.0, 4.0, 6.0]))
    assert times.second_moments[:2].tolist() == [10, 36]
    times.update(torch.tensor([0.1]), torch.tensor([2.0]))
    assert times.second_moments.tolist() == [7, 36, 0, 0]  # the mean of two batches
    weights = times.draw(400, torch.Generator().manual_seed(0))[1].unique()
    roots = torch.tensor([7, 36, 21.5, 21.5]).sqrt()
    expected = 0.25 / (0.9 * roots / roots.sum() + 0.1 / 4)
    torch.testing.assert_close(weights, expected.unique())


def test_a_learned_schedule_lowers_the_variance_and_leaves_the_bound():
    torch.manual_seed(4)
    schedule = Learned(9.0, -5.0)
    model = GaussianModel(linear(), schedule)
    x, noise = (part.expand(64, 1, 1, 4) for part in (MEAN + DEVIATION * QUAD[0], QUAD[1]))
    ends = [schedule.lowest, schedule.log_range]

    def losses(t):
        return elbo.continuous(model, x, t, noise)

    before = losses(midpoints(64)).detach()
    rates = [10.0, 1.0, 1.0]
    for step in range(150):
        t = low_discrepancy(64, torch.Generator().manual_seed(step)).double()
        drawn = losses(t)
        plain = torch.autograd.grad(drawn.mean(), ends, retain_graph=True)
        extra = diffusion.schedule_gradient(drawn, schedule)
        assert extra == 0
        schedule.zero_grad()
        (drawn.mean() + extra).backward()
        torch.testing.assert_close([end.grad for end in ends], list(plain))
        with torch.no_grad():
            for parameter, rate in zip(schedule.shape.parameters(), rates, strict=True):
                parameter -= rate * parameter.grad
    after = losses(midpoints(64)).detach()
    assert after.std() < 0.6 * before.std()
    assert float(after.mean()) == pytest.approx(float(before.mean()), rel=0.01)
