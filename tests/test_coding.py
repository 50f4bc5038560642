"""A batch of coefficients through a coder: it comes back, and costs what its Gaussians say."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcodec.entropy import RangeDecoder, RangeEncoder
from diffcodec.exact.cdf import MIN_LOG_SCALE, SCALE_UNITS, SCALES, TAIL, CdfTable
from diffcodec.quantized import coding
from diffcodec.quantized.coding import Batch
from diffcodec.quantized.corrections import Odds

TABLE = CdfTable.gaussian()
CERTAIN = 1 << 30  # observations that speak for odds as they are: nothing is learnt

COEFFICIENT = st.tuples(
    st.integers(-(1 << 13), 1 << 13),
    st.integers(-1024, 1024),
    st.integers(0, SCALES - 1),
)
PLANES = st.lists(st.integers(0, 12), min_size=3, max_size=3)


def floor(values, planes):
    return np.sign(values) * (np.abs(values) >> planes << planes)


def batch(values, before, after, mean, scale, *, encoder, exists=None):
    """A batch of [n, 3] coefficients whose first cells follow from their values."""
    before, after = np.array(before, np.int32), np.array(after, np.int32)
    values = np.array(values, np.int32).reshape(-1, 3)
    return Batch(
        floors=floor(values, before).astype(np.int32),
        reached=np.tile(before.astype(np.int8), (len(values), 1)),
        before=before,
        after=after,
        mean=np.array(mean, np.int32).reshape(-1, 3),
        scale=np.array(scale, np.int32).reshape(-1, 3),
        values=values if encoder else None,
        exists=np.arange(values.size, dtype=np.int32) if exists is None else exists,
    )


@given(st.lists(st.tuples(COEFFICIENT, COEFFICIENT, COEFFICIENT), min_size=1), PLANES, PLANES)
@settings(deadline=None, max_examples=60)
def test_refined_coefficients_come_back(coefficients, before, fewer):
    values, mean, scale = np.array(coefficients).transpose(2, 0, 1)
    after = np.maximum(np.array(before) - fewer, 0)
    encoder, written = RangeEncoder(), batch(values, before, after, mean, scale, encoder=True)
    moves, ended = coding.code(written, TABLE, encoder, Odds(20), None)
    assert not ended
    assert np.array_equal(written.floors, floor(values, after))
    assert (written.reached == np.minimum(before, after)).all()
    decoder = RangeDecoder(encoder.to_bytes(), complete=True)
    read = batch(values, before, after, mean, scale, encoder=False)
    again, ended = coding.code(read, TABLE, decoder, Odds(20), None)
    assert not ended
    assert np.array_equal(read.floors, written.floors)
    assert np.array_equal(again, moves)


@given(st.integers(0, 1 << 30), st.floats(0, 1))
@settings(deadline=None, max_examples=40)
def test_what_a_prefix_says_is_true(seed, share):
    random = np.random.default_rng(seed)
    values = random.normal(0, 40, (50, 3)).astype(np.int32)
    mean, scale = random.integers(-200, 200, (50, 3)), random.integers(50, SCALES, (50, 3))
    planes = [5, 5, 6], [1, 1, 2]
    encoder = RangeEncoder()
    coding.code(batch(values, *planes, mean, scale, encoder=True), TABLE, encoder, Odds(20), None)
    data = encoder.to_bytes()
    decoder = RangeDecoder(data[: int(share * len(data))], complete=False)
    read = batch(values, *planes, mean, scale, encoder=False)
    _, ended = coding.code(read, TABLE, decoder, Odds(20), None)
    assert ended == bool((read.reached > read.after).any())
    assert np.array_equal(read.floors, floor(values, read.reached))
    if share < 0.5:
        assert ended


def test_what_does_not_exist_is_not_coded():
    values = np.zeros((40, 3), np.int32)
    exists = np.arange(0, 120, 3, dtype=np.int32)
    encoder = RangeEncoder()
    whole = batch(values, [3] * 3, [0] * 3, values, values + 64, encoder=True, exists=exists)
    coding.code(whole, TABLE, encoder, Odds(20), None)
    assert (whole.reached[:, 0] == 0).all()
    assert (whole.reached[:, 1:] == 3).all()


def test_moves_are_those_that_training_sees():
    from torch import from_numpy

    from diffcodec.quantized.features import phase_features

    random = np.random.default_rng(3)
    values = random.normal(0, 30, (60, 3)).astype(np.int32)
    before, after = np.array([5, 4, 3]), np.array([2, 0, 3])
    zero = np.zeros((60, 3), int)
    coded = batch(values, before, after, zero, zero + 60, encoder=True)
    moves, _ = coding.code(coded, TABLE, RangeEncoder(), Odds(20), None)
    maps = [
        from_numpy(np.broadcast_to(x, (60, 3)).astype(np.int32).T.copy())
        for x in (floor(values, before), before, floor(values, after), after)
    ]
    assert np.array_equal(moves.T, phase_features(*maps).numpy())


def mixture_cdf(z):
    z = min(8.0, max(-8.0, z))
    return (1 - 16 * TAIL) * 0.5 * math.erfc(-z / math.sqrt(2)) + TAIL * (z + 8)


def edges(floor, plane):
    """The edges of a cell, half-way between integers."""
    magnitude, width = abs(floor), 1 << plane
    if floor == 0:
        return 0.5 - width, width - 0.5
    low, high = magnitude - 0.5, magnitude + width - 0.5
    return (low, high) if floor > 0 else (-high, -low)


def ideal_bits(value, before, after, mean, scale):
    """-log2 of the mass of the refined cell inside the old one, in coefficients."""
    mass = [
        mixture_cdf((high - mean) / scale) - mixture_cdf((low - mean) / scale)
        for low, high in (edges(floor(value, before), before), edges(floor(value, after), after))
    ]
    return math.log2(mass[0] / mass[1])


@pytest.mark.parametrize("after", [0, 2, 5])
@pytest.mark.parametrize("centre", [0, 100, -100])
def test_cost_is_the_information_of_the_gaussian(after, centre):
    random, shape, before = np.random.default_rng(after), (500, 3), 6
    index = random.integers(SCALES // 3, SCALES - 20, shape)
    offset = random.integers(-200, 200, shape)
    low, high = edges(floor(centre, before), before)
    # The Gaussians that the integers stand for, in coefficients.
    means = (low + high) / 2 + offset * 2**before / 256
    scales = 2.0**before * 2 ** (index / SCALE_UNITS + MIN_LOG_SCALE)
    values = np.rint(random.normal(means, scales)).clip(low + 0.5, high - 0.5).astype(int)
    encoder = RangeEncoder()
    coded = batch(values, [before] * 3, [after] * 3, offset, index, encoder=True)
    coding.code(coded, TABLE, encoder, Odds(CERTAIN), None)
    ideal = sum(
        ideal_bits(int(v), before, after, m, s)
        for v, m, s in zip(values.flat, means.flat, scales.flat, strict=True)
    )
    assert encoder.bits_used == pytest.approx(ideal, rel=0.005, abs=3)
