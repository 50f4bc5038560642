"""Calibration: what is coded comes back, and odds that are wrong all over a picture are mended."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcodec.entropy import RangeDecoder, RangeEncoder
from diffcodec.quantized.calibration import KINDS, Calibration

PRIOR = 20

SETS = st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.integers(0, 200)), max_size=6)


def decisions(seed, n, share=None):
    """Kinds, probabilities and bits; the share of ones, if it is not what was foretold."""
    random = np.random.default_rng(seed)
    probabilities = random.integers(1, 1 << 16, n) / (1 << 16)
    ones = probabilities if share is None else share(probabilities)
    bits = (random.random(n) < ones).astype(np.int32)
    return random.integers(0, KINDS, n), probabilities, bits


@given(SETS, st.integers(0, 1 << 30))
@settings(deadline=None, max_examples=40)
def test_bits_come_back(sets, seed):
    encoder, calibration = RangeEncoder(), Calibration()
    drawn = [decisions(seed + i, n) for i, (_, _, n) in enumerate(sets)]
    for (colour, finish, _), part in zip(sets, drawn, strict=True):
        calibration.code(encoder, (colour, finish), *part, prior=PRIOR)
    decoder, calibration = RangeDecoder(encoder.to_bytes(), complete=True), Calibration()
    for (colour, finish, _), (kinds, probabilities, bits) in zip(sets, drawn, strict=True):
        read = calibration.code(decoder, (colour, finish), kinds, probabilities, None, prior=PRIOR)
        assert np.array_equal(read, bits)


def spent(share, calibrated):
    encoder, calibration = RangeEncoder(), Calibration()
    for seed in range(20):
        kinds, probabilities, bits = decisions(seed, 3000, share)
        if calibrated:
            calibration.code(encoder, (0, False), kinds, probabilities, bits, prior=PRIOR)
        else:
            encoder.code(probabilities, bits)
    return encoder.bits_used


def test_wrong_odds_are_mended_and_right_ones_kept():
    doubled = lambda p: 2 * p / (1 + p)  # noqa: E731 - twice the odds
    n = 20 * 3000
    p = np.concatenate([decisions(seed, 3000)[1] for seed in range(20)])
    q = doubled(p)
    entropy = -(q * np.log2(q) + (1 - q) * np.log2(1 - q)).sum()
    loss = spent(doubled, calibrated=False) - entropy
    assert spent(doubled, calibrated=True) - entropy < 0.25 * loss
    assert spent(None, calibrated=True) - spent(None, calibrated=False) < 0.005 * n


class Spy:
    """Takes the true bits and keeps the probabilities."""

    def code(self, probabilities, truth):
        self.probabilities = probabilities
        return truth


@given(st.integers(0, 1 << 30))
@settings(deadline=None, max_examples=20)
def test_a_correction_does_not_depend_on_the_order_of_the_decisions(seed):
    spy, calibration, again = Spy(), Calibration(), Calibration()
    first = decisions(seed, 300, lambda p: p**2)
    kinds, probabilities, bits = decisions(seed + 1, 300)
    order = np.random.default_rng(seed).permutation(300)
    for one, change in ((calibration, slice(None)), (again, order)):
        one.code(spy, (0, False), *first, prior=PRIOR)
        reordered = (part[change] for part in (kinds, probabilities, bits))
        one.code(spy, (0, False), *reordered, prior=PRIOR)
        if one is calibration:
            expected = spy.probabilities[order]
    assert np.array_equal(spy.probabilities, expected)
