"""Bits-back coding reaches the entropy of data for which the model is right, and comes back."""

import numpy as np
import pytest
import torch
from gaussian_data import DEVIATION, ENTROPY, LinearChain, pictures
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcodec.entropy import RESERVE_WORDS, Stack
from diffcodec.errors import CorruptError, FormatError
from diffcodec.exact.cdf import THIN_TAIL, CdfTable
from diffcodec.gaussian import bitsback
from diffcodec.gaussian.symbols import Discretised

TABLE = CdfTable.gaussian(THIN_TAIL)


# --- the stack -----------------------------------------------------------------------------------

CHANCES = st.lists(st.integers(1, (1 << 16) - 1), min_size=1, max_size=60)


@given(st.lists(CHANCES, max_size=6), st.randoms())
@settings(deadline=None, max_examples=40)
def test_what_is_pushed_is_popped_in_reverse(groups, random):
    stack, pushed = Stack(), []
    for group in groups:
        chances = np.array(group) / (1 << 16)
        bits = np.array([random.random() < p for p in chances], np.int32)
        stack.push(bits, chances)
        pushed.append((bits, chances))
    again = Stack.from_bytes(*stack.to_bytes())
    assert again.bits == stack.bits
    for bits, chances in reversed(pushed):
        assert np.array_equal(again.pop(chances), bits)
    assert again.seed() == b""


@given(st.lists(CHANCES, min_size=1, max_size=6))
@settings(deadline=None, max_examples=40)
def test_what_is_popped_can_be_pushed_back(groups):
    stack = Stack()
    popped = []
    for group in groups:
        chances = np.array(group) / (1 << 16)
        popped.append((stack.pop(chances), chances))
    stack = Stack.from_bytes(*stack.to_bytes())
    for bits, chances in reversed(popped):
        stack.push(bits, chances)
    assert stack.seed() == b""


def test_a_stack_grows_by_the_information():
    stack, random = Stack(), np.random.default_rng(0)
    chances = np.full(20_000, 0.1)
    before = stack.bits
    stack.push((random.random(20_000) < 0.1).astype(np.int32), chances)
    entropy = -(0.1 * np.log2(0.1) + 0.9 * np.log2(0.9))
    assert stack.bits - before == pytest.approx(20_000 * entropy, rel=0.03)


def test_bytes_leave_out_the_untouched_reserve():
    stack = Stack()
    stack.pop(np.full(3200, 0.5))
    stack.push(np.zeros(64, np.int32), np.full(64, 0.5))
    data, untouched = stack.to_bytes()
    assert RESERVE_WORDS - untouched == pytest.approx(100, abs=3)
    assert len(data) < 30


def test_a_seed_lends_its_bits_and_comes_back():
    seed, chances = bytes(range(1, 250)), np.full(1610, 0.5)
    stack = Stack(seed)
    assert stack.bits - Stack().bits == 8 * 252
    popped = stack.pop(chances)
    data, untouched = stack.to_bytes()
    assert untouched == RESERVE_WORDS  # 1,610 of its 1,992 bits
    assert len(data) <= 252 - 200 + 8
    again = Stack.from_bytes(data, untouched)
    with pytest.raises(CorruptError):
        again.seed()
    again.push(popped, chances)
    assert again.seed() == seed + b"\0\0\0"


def test_an_exhausted_reserve_is_refused():
    stack = Stack()
    stack.pop(np.full(32 * RESERVE_WORDS + 64, 0.5))
    with pytest.raises(FormatError, match="too large"):
        stack.to_bytes()


@pytest.mark.parametrize(("data", "untouched"), [(b"", 5), (b"\1\0\0\0", RESERVE_WORDS + 1)])
def test_impossible_stacks_are_refused(data, untouched):
    with pytest.raises(CorruptError):
        Stack.from_bytes(data, untouched)


# --- symbols -------------------------------------------------------------------------------------


def test_popped_symbols_have_their_distribution():
    """From random bits come samples, here of 1.7 deviations around means between two symbols."""
    mean = torch.full((30_000,), 4.3, dtype=torch.float64)
    symbols = Discretised(TABLE, mean, 1.7, 5).pop(Stack())
    assert symbols.mean() == pytest.approx(4.3, abs=0.04)
    assert symbols.var() == pytest.approx(1.7**2 + 1 / 12, rel=0.03)


def test_symbols_cost_their_surprise():
    stack = Stack()
    mean = torch.linspace(-3, 3, 5000, dtype=torch.float64)
    conditional = Discretised(TABLE, mean, 0.8, 6)
    symbols = mean.round().long().numpy() + 1
    normal = torch.distributions.Normal(mean, 0.8)
    k = torch.from_numpy(symbols)
    surprise = -(normal.cdf(k + 0.5) - normal.cdf(k - 0.5)).log2().sum()
    before = stack.bits
    conditional.push(stack, symbols)
    assert stack.bits - before == pytest.approx(float(surprise), rel=0.005)
    assert np.array_equal(conditional.pop(stack), symbols)
    assert stack.seed() == b""


def test_closed_windows_hold_the_tails():
    mean = torch.tensor([-40.0, 300.0, 255.4, 128.0], dtype=torch.float64)
    conditional = Discretised(TABLE, mean, 0.5, 8, first=0)
    stack = Stack()
    before = stack.bits
    conditional.push(stack, np.array([0, 255, 255, 128]))
    assert stack.bits - before < 4
    conditional.push(stack, np.array([255, 0, 3, 7]))  # surprising, but possible
    assert np.array_equal(conditional.pop(stack), [255, 0, 3, 7])


def test_a_symbol_outside_of_its_window_comes_from_damage():
    conditional = Discretised(TABLE, torch.zeros(2, dtype=torch.float64), 1.0, 5)
    with pytest.raises(CorruptError):
        conditional.push(Stack(), np.array([0, 16]))


# --- pictures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("highest", [11.0, 4.0])
def test_the_net_rate_is_the_entropy_of_the_data(highest):
    """With the best denoiser and calibrated variances few steps are as good as many.

    The decoder of z_0 too: where the noise is half a value wide, its Gaussian is narrower by
    1/12, as the values round; where it is more than the data deviate, it tells less than they do.
    """
    chain, stack = LinearChain(12, highest), Stack()
    start, data = stack.bits, pictures(24, 3, 16, 16)
    for pixels in data:
        bitsback.push(stack, chain, pixels)
    values = torch.distributions.Normal(127.5, DEVIATION)
    surprise = -(values.cdf(data + 0.5) - values.cdf(data - 0.5)).log2().mean()
    assert float(surprise) == pytest.approx(ENTROPY, rel=0.01)
    net = (stack.bits - start) / data.numel()
    # Probabilities of 16 bits, or a heavier tail, cost 0.002 to 0.006 bits/dim.
    assert net == pytest.approx(float(surprise), abs=0.0015)

    again = Stack.from_bytes(*stack.to_bytes())
    for pixels in data.flip(0):
        assert torch.equal(bitsback.pop(again, chain, pixels.shape), pixels)
    assert again.seed() == b""


def test_the_initial_bits_are_those_of_one_latent_or_two():
    chain, stack = LinearChain(40), Stack()
    pixels = pictures(1, 3, 16, 16)[0]
    bitsback.push(stack, chain, pixels)
    _, untouched = stack.to_bytes()
    borrowed = 32 * (RESERVE_WORDS - untouched) / pixels.numel()
    assert borrowed == pytest.approx(
        bitsback.initial_bits(chain, pixels.shape) / pixels.numel(), abs=1.2
    )
    assert borrowed < 4.2  # bits/dim; with all 40 latents drawn first it would be over 80


def test_bins_are_as_wide_as_the_noise_of_a_step_deviates():
    chain = LinearChain(12)
    alphas, sigmas = np.array(chain.alpha), np.array(chain.sigma)
    added = sigmas[1:] ** 2 - (alphas[1:] / alphas[:-1] * sigmas[:-1]) ** 2
    # q(z_0 | z_1, x): precisions add up.
    first = 1 / (1 / sigmas[0] ** 2 + (alphas[1] / alphas[0]) ** 2 / added[0])
    bins = bitsback.Latents(chain, torch.Size((3, 4, 4))).bins
    assert np.square(bins) == pytest.approx([first, *added])


def test_latents_are_samples_of_the_process():
    chain = LinearChain(12)
    pixels = pictures(1, 3, 64, 64)[0]
    stack, latents = Stack(), bitsback.Latents(chain, pixels.shape)
    k = latents.lowest(pixels).pop(stack)
    for t in range(1, 6):
        k = latents.noisier(t, k).pop(stack)
    x = (2 * pixels.double() + 1).flatten() / 256 - 1
    noise = (torch.from_numpy(k) * latents.bins[5] - chain.alpha[5] * x) / chain.sigma[5]
    count = noise.numel()
    assert float(noise.mean()) == pytest.approx(0, abs=4 / count**0.5)
    assert float(noise.var()) == pytest.approx(1, abs=4 * (2 / count) ** 0.5 + 0.01)
    assert float((noise**4).mean()) == pytest.approx(3, abs=0.2)


def test_the_first_latent_is_a_sample_far_out_too():
    """Where steps are short, the noise of z_0 is many bins wide."""
    chain = LinearChain(400)
    pixels = pictures(1, 3, 64, 64)[0]
    latents = bitsback.Latents(chain, pixels.shape)
    z = torch.from_numpy(latents.lowest(pixels).pop(Stack())) * latents.bins[0]
    x = (2 * pixels.double() + 1).flatten() / 256 - 1
    noise = (z - chain.alpha[0] * x) / chain.sigma[0]
    # Of as many normal deviates 5.7 are farther out.
    assert 1 <= int((noise.abs() > 3.5).sum()) <= 13


@pytest.mark.parametrize("pixels", [torch.zeros(3, 4, 4), torch.full((3, 4, 4), 255.0)])
def test_pictures_that_the_model_finds_absurd_come_back(pixels):
    chain, stack = LinearChain(12), Stack()
    assert DEVIATION < 20  # black lies ten deviations away
    pixels = pixels.to(torch.uint8)
    bitsback.push(stack, chain, pixels)
    assert torch.equal(bitsback.pop(stack, chain, pixels.shape), pixels)
    assert stack.seed() == b""
