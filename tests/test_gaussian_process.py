"""The forward process, its schedules, and the four ways to say what a network predicts."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcodec import gaussian
from diffcodec.gaussian.model import ByStep, GaussianModel
from diffcodec.gaussian.parameterisation import Prediction
from diffcodec.gaussian.process import (
    alpha,
    flow_time,
    from_alpha_bar,
    from_flow_time,
    from_ve_sigma,
    interpolated_variance,
    marginal,
    posterior,
    sigma,
    to_ve,
    to_vp,
    transition,
    ve_sigma,
)
from diffcodec.gaussian.schedule import (
    HIGHEST,
    LOWEST,
    Cosine,
    DiscreteBetas,
    Learned,
    LinearBeta,
    LinearLogSnr,
    cosine_betas,
    linear_betas,
)

torch.manual_seed(0)
LEVELS = torch.linspace(-12, 14, 27, dtype=torch.float64)
PAIRS = [(t, s) for t in LEVELS for s in LEVELS if t < s]


def learned():
    """A learned schedule that is far from its straight start."""
    generator = torch.Generator().manual_seed(1)
    schedule = Learned()
    with torch.no_grad():
        for parameter in schedule.shape.parameters():
            parameter += 2 * torch.randn(parameter.shape, generator=generator)
    return schedule


SCHEDULES = {
    "linear log-SNR": LinearLogSnr(),
    "linear beta": LinearBeta(),
    "cosine": Cosine(),
    "discrete linear": DiscreteBetas(linear_betas(1000)),
    "discrete cosine": DiscreteBetas(cosine_betas(50)),
    "learned": learned(),
}
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


def assert_close(a, b, **tolerance):
    torch.testing.assert_close(torch.as_tensor(a).detach(), torch.as_tensor(b), **tolerance)


# --- process -------------------------------------------------------------------------------------


def test_the_process_preserves_variance_at_the_given_signal_to_noise_ratio():
    assert_close(alpha(LEVELS) ** 2 + sigma(LEVELS) ** 2, torch.ones_like(LEVELS))
    assert_close(alpha(LEVELS) ** 2 / sigma(LEVELS) ** 2, LEVELS.exp())
    extremes = torch.tensor([-40.0, 40.0])  # float32, where 1 - sigmoid would be 0 or 1
    assert_close(alpha(extremes)[0], torch.tensor(math.exp(-20)), rtol=1e-5, atol=0)
    assert_close(sigma(extremes)[1], torch.tensor(math.exp(-20)), rtol=1e-5, atol=0)


def affine(moments):
    """Slope, offset and variance of a Gaussian whose mean is affine in what it is given."""
    zero, variance = moments(torch.zeros((), dtype=torch.float64))
    return moments(torch.ones((), dtype=torch.float64)).mean - zero, zero, variance


def test_conditionals_compose_to_the_marginals_and_obey_bayes():
    x = torch.tensor(0.7, dtype=torch.float64)
    for t, s in PAIRS:
        back, offset, kept = affine(lambda z, t=t, s=s: posterior(z, x, t, s))
        forth, none, added = affine(lambda z, t=t, s=s: transition(z, s, t))
        at_t, at_s = marginal(x, t), marginal(x, s)
        assert none == 0
        assert_close(back * at_t.mean + offset, at_s.mean)
        assert_close(back**2 * at_t.variance + kept, at_s.variance)
        assert_close(forth * at_s.mean, at_t.mean)
        assert_close(forth**2 * at_s.variance + added, at_t.variance)
        assert_close(back * at_t.variance, forth * at_s.variance)  # the covariance of z_s and z_t


def test_the_variance_exploding_view():
    x, eps = torch.randn(2, 27, dtype=torch.float64)
    z = alpha(LEVELS) * x + sigma(LEVELS) * eps
    assert_close(to_ve(z, LEVELS), x + ve_sigma(LEVELS) * eps)
    assert_close(to_vp(to_ve(z, LEVELS), LEVELS), z)
    for t, s in PAIRS:
        # There z_t only adds noise to z_s, and the posterior is a Brownian bridge in sigma^2.
        step = transition(to_vp(x[0], s), s, t)
        assert_close(to_ve(step.mean, t), x[0])
        assert_close(step.variance / alpha(t) ** 2, ve_sigma(t) ** 2 - ve_sigma(s) ** 2)
        bridge = posterior(to_vp(eps[0], t), x[0], t, s)
        share = ve_sigma(s) ** 2 / ve_sigma(t) ** 2
        assert_close(to_ve(bridge.mean, s), x[0] + share * (eps[0] - x[0]))
        assert_close(bridge.variance / alpha(s) ** 2, (1 - share) * ve_sigma(s) ** 2)


def test_reverse_variances_run_from_beta_tilde_to_beta():
    z = torch.zeros((), dtype=torch.float64)
    for t, s in PAIRS:
        low, middle, high = (
            interpolated_variance(torch.tensor(mix, dtype=torch.float64), t, s)
            for mix in (0, 0.5, 1)
        )
        assert_close(low, posterior(z, z, t, s).variance)
        assert_close(high, transition(z, s, t).variance)
        assert_close(middle, (low * high).sqrt())


# --- parameterisations ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["x", "eps", "v", "score", "flow"])
def test_every_parameterisation_tells_all_the_others(kind):
    x, eps = torch.randn(2, 27, dtype=torch.float64)
    z = marginal(x, LEVELS).draw(eps)
    truth = {
        "x": x,
        "eps": eps,
        "v": alpha(LEVELS) * eps - sigma(LEVELS) * x,
        "score": -(z - alpha(LEVELS) * x) / sigma(LEVELS) ** 2,
        "flow": eps - x,
    }
    prediction = Prediction.of(kind, truth[kind], z, LEVELS)
    for name, value in truth.items():
        assert_close(getattr(prediction, name), value, rtol=1e-8, atol=1e-8)


def test_the_score_is_the_gradient_of_the_log_density_and_v_that_of_the_angle():
    x, eps = torch.randn(2, 27, dtype=torch.float64)
    z = marginal(x, LEVELS).draw(eps).requires_grad_()
    density = torch.distributions.Normal(alpha(LEVELS) * x, sigma(LEVELS))
    (gradient,) = torch.autograd.grad(density.log_prob(z).sum(), z)
    prediction = Prediction.of("x", x, z.detach(), LEVELS)
    assert_close(prediction.score, gradient)
    angle = torch.atan2(sigma(LEVELS), alpha(LEVELS)).requires_grad_()
    (velocity,) = torch.autograd.grad((angle.cos() * x + angle.sin() * eps).sum(), angle)
    assert_close(prediction.v, velocity)


def test_rectified_flow_goes_straight():
    """z / (alpha + sigma) is its x_t, and its derivative by t is eps - x at all levels."""
    x, eps = torch.randn(2, 1, dtype=torch.float64)
    t = flow_time(LEVELS)
    straight = marginal(x, LEVELS).draw(eps) / (alpha(LEVELS) + sigma(LEVELS))
    assert_close(straight, (1 - t) * x + t * eps)
    assert_close(straight.diff() / t.diff(), (eps - x).expand(len(LEVELS) - 1))
    assert_close(from_flow_time(t), LEVELS)


# --- the names of others -------------------------------------------------------------------------


def test_levels_go_by_other_names():
    alpha_bar = torch.sigmoid(LEVELS)
    assert_close(from_alpha_bar(alpha_bar), LEVELS)
    assert_close(ve_sigma(LEVELS), ((1 - alpha_bar) / alpha_bar).sqrt())
    assert_close(from_ve_sigma(ve_sigma(LEVELS)), LEVELS)
    betas = linear_betas(1000)
    schedule = DiscreteBetas(betas)
    assert_close(schedule.levels, from_alpha_bar((1 - betas).cumprod(0)), rtol=1e-9, atol=1e-9)


def test_a_network_of_steps_is_asked_for_steps():
    asked = []

    def network(z, step):
        asked.append(step)
        return z

    schedule = DiscreteBetas(linear_betas(1000))
    model = GaussianModel(ByStep(network, schedule), schedule, kind="eps")
    model(torch.zeros(3, 1, 1, 1), schedule.levels[[0, 7, 999]].float())
    assert_close(asked[0], torch.tensor([0.0, 7.0, 999.0]), rtol=0, atol=1e-2)
    model(torch.zeros(1, 1, 1, 1), schedule.levels[40:42].mean()[None])
    assert_close(asked[1], torch.tensor([40.5]), rtol=0, atol=1e-6)
    assert asked[1].dtype == torch.float32


def test_all_public_names_are_there():
    assert gaussian.__all__ == sorted(gaussian.__all__)
    for name in gaussian.__all__:
        assert getattr(gaussian, name).__name__ == name or name == "load"
    with pytest.raises(AttributeError, match="nothing"):
        _ = gaussian.nothing


# --- schedules -----------------------------------------------------------------------------------


@each_schedule
def test_log_snrs_fall_and_the_rate_is_their_derivative(schedule):
    t = torch.linspace(0, 1, 1234, dtype=torch.float64)[1:-1]
    log_snr, rate = schedule.with_rate(t)
    assert (log_snr.diff() < 0).all()
    assert (rate < 0).all()
    assert_close(log_snr.detach(), schedule.log_snr(t).detach())
    inside = torch.tensor([0.1, 0.33333, 0.5, 0.77], dtype=torch.float64) + 2e-4
    slope = (schedule.log_snr(inside + 1e-7) - schedule.log_snr(inside - 1e-7)) / 2e-7
    assert_close(schedule.with_rate(inside)[1], slope.detach(), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        fixed = schedule.with_rate(inside)
    assert not fixed[0].requires_grad
    assert not fixed[1].requires_grad


@each_schedule
def test_single_precision_is_enough(schedule):
    t = torch.linspace(0, 1, 51)
    assert schedule.log_snr(t).dtype == torch.float32
    double = schedule.log_snr(t.double())
    assert_close(schedule.log_snr(t).double(), double.detach(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["linear log-SNR", "cosine", "learned"])
def test_schedules_between_given_ends(name):
    ends = SCHEDULES[name].grid(3).detach()
    assert ends.shape == (4,)
    assert_close(ends[[0, -1]], torch.tensor([LOWEST, HIGHEST]), rtol=1e-5, atol=1e-5)
    assert_close(SCHEDULES[name].grid(1, start=0.4)[0], SCHEDULES[name].log_snr(torch.tensor(0.4)))


def test_the_cosine_schedule_is_that_of_the_paper():
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    alpha_bar = torch.sigmoid(SCHEDULES["cosine"].log_snr(t))
    angle = (alpha_bar * math.cos(0.008 / 1.008 * math.pi / 2) ** 2).sqrt().acos()
    assert_close(angle.diff(), angle.diff().mean().expand(100))  # linear in time
    betas = cosine_betas(200)
    after = ((torch.arange(1, 200) / 200 + 0.008) / 1.008 * math.pi / 2).double().cos() ** 2
    expected = after / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    assert_close((1 - betas).cumprod(0)[:-1], expected, rtol=1e-5, atol=1e-7)
    assert betas[-1] == 0.999


@pytest.mark.parametrize("betas", [linear_betas(1000), linear_betas(100), cosine_betas(64)])
def test_the_steps_of_discrete_schedules_have_their_betas(betas):
    schedule = DiscreteBetas(betas)
    t = torch.linspace(0, 1, len(betas), dtype=torch.float64)
    clear, noisy = schedule.log_snr(t).unfold(0, 2, 1).T
    assert_close(torch.sigmoid(-clear[0]), betas[0])
    variance = transition(torch.zeros_like(clear), clear, noisy).variance
    assert_close(variance, betas[1:], rtol=1e-9, atol=0)


def test_ddpm_in_discrete_and_in_continuous_time():
    betas = linear_betas(1000)
    assert (float(betas[0]), float(betas[-1])) == pytest.approx((1e-4, 0.02))
    t = torch.linspace(0, 1, 77)
    discrete, continuous = (SCHEDULES[f].log_snr(t) for f in ("discrete linear", "linear beta"))
    assert_close(discrete, continuous, rtol=0, atol=0.12)


@given(st.integers(0, 2**32 - 1), st.floats(0, 30), st.floats(-30, 30), st.floats(-5, 4))
@settings(deadline=None, max_examples=40)
def test_a_learned_schedule_falls_whatever_its_parameters(seed, spread, lowest, log_range):
    generator = torch.Generator().manual_seed(seed)
    schedule = Learned(units=8).requires_grad_(False)
    for parameter in schedule.shape.parameters():
        parameter.copy_(spread * torch.randn(8, generator=generator))
    schedule.lowest.fill_(lowest)
    schedule.log_range.fill_(log_range)
    t = torch.linspace(0, 1, 200, dtype=torch.float64)
    log_snr = schedule.log_snr(t)
    assert (log_snr.diff() < 0).all()
    span = math.exp(log_range)
    assert float(log_snr[-1]) == pytest.approx(lowest, abs=1e-5)
    assert float(log_snr[0]) == pytest.approx(lowest + span, rel=1e-5, abs=1e-5)


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))
@settings(deadline=None, max_examples=25)
def test_a_learned_schedule_survives_extreme_parameters(slope, offset, height):
    schedule = Learned(units=3).requires_grad_(False)
    for parameter, value in zip(schedule.shape.parameters(), (slope, offset, height), strict=True):
        parameter.fill_(value)
    log_snr = schedule.log_snr(torch.linspace(0, 1, 50, dtype=torch.float64))
    assert log_snr.isfinite().all()
    assert (log_snr.diff() <= 1e-9).all()
    assert log_snr[0] - log_snr[-1] == pytest.approx(HIGHEST - LOWEST, rel=1e-5)
