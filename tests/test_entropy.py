"""The entropy coder: round trips, prefixes, sampled bits, damaged streams."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcodec.entropy import (
    MARGIN_BITS,
    PROBABILITY_BITS,
    BitSampler,
    RangeDecoder,
    RangeEncoder,
    bytes_for,
    quantise_probabilities,
)
from diffcodec.errors import CorruptError

ONE = 1 << PROBABILITY_BITS
SYMBOL = st.tuples(st.integers(1, ONE - 1), st.integers(0, 1))
CALLS = st.lists(st.lists(SYMBOL, max_size=60), max_size=6)


def arrays(symbols):
    chances = np.array([c for c, _ in symbols], np.float64) / ONE
    return chances, np.array([b for _, b in symbols], np.int32)


def message(seed, count):
    """Probabilities of every size and bits that follow them."""
    random = np.random.default_rng(seed)
    chances = quantise_probabilities(random.random(count) ** 4 * ONE, np.full(count, ONE))
    return chances, (random.random(count) < chances).astype(np.int32)


def information(chances, bits):
    return -np.log2(np.where(bits, chances, 1 - chances))


def encoded(chances, bits):
    encoder = RangeEncoder()
    encoder.code(chances, bits)
    return encoder.to_bytes()


@given(CALLS, st.booleans())
@settings(deadline=None)
def test_bits_come_back(calls, track):
    encoder = RangeEncoder()
    for call in calls:
        encoder.code(*arrays(call))
    decoder = RangeDecoder(encoder.to_bytes(), complete=True, track=track)
    for call in calls:
        chances, bits = arrays(call)
        assert np.array_equal(decoder.code(chances), bits)
    assert not decoder.ended
    if track:
        assert decoder.bits_used == encoder.bits_used


@given(CALLS)
@settings(deadline=None)
def test_bits_used_is_the_information_and_the_length(calls):
    encoder, ideal = RangeEncoder(), 0.0
    for call in calls:
        before = encoder.bits_used
        chances, bits = arrays(call)
        encoder.code(chances, bits)
        assert encoder.bits_used >= before
        ideal += information(chances, bits).sum()
    assert encoder.bits_used == pytest.approx(ideal, rel=1e-3, abs=0.01)
    assert 8 * len(encoder.to_bytes()) <= encoder.bits_used + 8 + 1e-9


def test_a_long_stream_is_as_long_as_its_information():
    chances, bits = message(1, 20_000)
    encoder = RangeEncoder()
    encoder.code(chances, bits)
    assert 8 * len(encoder.to_bytes()) == pytest.approx(encoder.bits_used, abs=8)
    assert encoder.bits_used == pytest.approx(information(chances, bits).sum(), rel=1e-3)


@given(st.integers(0, 999), st.integers(1, 7))
@settings(deadline=None, max_examples=8)
def test_every_prefix_gives_a_prefix_of_the_bits(seed, parts):
    chances, bits = message(seed, 400)
    stream = encoded(chances, bits)
    known = np.cumsum(information(chances, bits))
    for length in range(len(stream)):
        decoder = RangeDecoder(stream[:length], complete=False)
        got = np.concatenate([decoder.code(part) for part in np.array_split(chances, parts)])
        assert np.array_equal(got, bits[: len(got)])
        assert len(got) >= np.searchsorted(known, 8 * length - MARGIN_BITS - 8)
        if len(got) < len(bits):
            assert decoder.ended
            assert len(decoder.code(chances[-1:])) == 0
        # What is given back is determined by the bytes, but for the coder's own rounding.
        assert len(got) == 0 or known[len(got) - 1] <= 8 * length - MARGIN_BITS + 0.1


@given(st.integers(0, 999), st.integers(1, 399))
@settings(deadline=None)
def test_bytes_for_is_enough_for_a_decoder(seed, count):
    chances, bits = message(seed, 400)
    encoder = RangeEncoder()
    encoder.code(chances[:count], bits[:count])
    enough = bytes_for(encoder.bits_used)
    encoder.code(chances[count:], bits[count:])
    stream = encoder.to_bytes()
    # Past the end of the stream there are no bytes to be had: its last bits need it complete.
    decoder = RangeDecoder(stream[:enough], complete=enough > len(stream))
    assert np.array_equal(decoder.code(chances[:count]), bits[:count])


@given(st.binary(max_size=80), st.integers(0, 999), st.booleans())
@settings(deadline=None, max_examples=200)
def test_a_corrupt_stream_is_an_error_or_bits(data, seed, complete):
    chances, _ = message(seed, 500)
    decoder = RangeDecoder(data, complete=complete)
    try:
        got = [decoder.code(part) for part in (chances[:100], chances[100:])]
    except CorruptError:
        assert complete
        return
    assert set(np.concatenate(got)) <= {0, 1}
    assert not complete or sum(map(len, got)) == 500


@pytest.mark.parametrize("complete", [True, False])
def test_a_stream_of_ones_is_refused(complete):
    chances, _ = message(0, 500)
    decoder = RangeDecoder(b"\xff" * 40, complete=complete)
    if complete:
        with pytest.raises(CorruptError, match="corrupt"):
            decoder.code(chances)
    else:
        assert len(decoder.code(chances)) == 0
        assert decoder.ended


@given(st.lists(st.tuples(st.integers(0, 1 << 40), st.integers(0, 1 << 40)), min_size=1))
def test_probabilities_are_never_certain(pairs):
    top, bottom = (np.array(p) for p in zip(*pairs, strict=True))
    chances = quantise_probabilities(np.minimum(top, bottom), bottom)
    assert ((chances > 0) & (chances < 1)).all()
    assert (chances * ONE == np.rint(chances * ONE)).all()
    known = bottom > 0
    exact = np.minimum(top, bottom)[known] / bottom[known]
    assert np.abs(chances[known] - exact).max(initial=0) <= 1 / ONE
    assert (chances[~known] == 0.5).all()


def test_sampled_bits_follow_seed_and_probability():
    chances = np.repeat([0.02, 0.3, 0.5, 0.9], 20_000)
    first = BitSampler(7).code(chances)
    assert np.array_equal(BitSampler(7).code(chances), first)
    assert not np.array_equal(BitSampler(8).code(chances), first)
    means = first.reshape(4, -1).mean(1)
    assert np.abs(means - [0.02, 0.3, 0.5, 0.9]).max() < 0.015


def test_a_sampler_goes_on_where_its_decoder_ends():
    chances, bits = message(3, 400)
    stream = encoded(chances, bits)
    known = RangeDecoder(stream[:20], complete=False).code(chances)
    sampler = BitSampler(1, RangeDecoder(stream[:20], complete=False))
    got = sampler.code(chances)
    assert len(got) == 400
    assert 0 < len(known) < 400
    assert np.array_equal(got[: len(known)], bits[: len(known)])
    assert len(sampler.code(chances)) == 400
