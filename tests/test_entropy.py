"""The entropy coder: round trips, prefixes, sampled bits, damaged streams."""

import zlib
from importlib import metadata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcodec.entropy import (
    PROBABILITY_BITS,
    BitSampler,
    RangeDecoder,
    RangeEncoder,
    Stack,
    quantise_probabilities,
)
from diffcodec.errors import CorruptError

ONE = 1 << PROBABILITY_BITS
SYMBOL = st.tuples(st.integers(1, ONE - 1), st.integers(0, 1))
GOLDEN = [1222698708, 743885078, 65535]
"""CRC-32 of a range coder's and of a stack's bytes, and words of the reserve left out of these."""

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
        assert decoder.bytes_used <= len(encoder.to_bytes())


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
    # Whole bits, rounded down; and constriction rounds probabilities.
    assert encoder.bits_used == pytest.approx(ideal, abs=1.01 + 1e-3 * ideal)
    assert 8 * len(encoder.to_bytes()) <= encoder.bits_used + 9


def test_a_long_stream_is_as_long_as_its_information():
    chances, bits = message(1, 20_000)
    encoder = RangeEncoder()
    encoder.code(chances, bits)
    assert 8 * len(encoder.to_bytes()) == pytest.approx(encoder.bits_used, abs=9)
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
        if len(got) < len(bits):
            assert decoder.ended
            assert len(decoder.code(chances[-1:])) == 0
        # The bytes determine as much, but for the coder's own rounding, and hardly less.
        assert len(got) == 0 or known[len(got) - 1] <= 8 * length
        assert len(got) >= np.searchsorted(known, 8 * length - 24)


@given(st.integers(0, 999), st.binary(max_size=9), st.integers(0, 90))
@settings(deadline=None)
def test_what_a_prefix_gives_does_not_depend_on_what_follows(seed, rest, length):
    chances, bits = message(seed, 400)
    prefix = encoded(chances, bits)[:length]
    got = RangeDecoder(prefix, complete=False).code(chances)
    longer = RangeDecoder(prefix + rest, complete=False).code(chances)
    assert np.array_equal(longer[: len(got)], got)
    # No more bits would do: what the bytes leave open makes a difference to the next one.
    ends = [RangeDecoder(prefix + fill * 30, complete=False) for fill in (b"\0", b"\xff")]
    low, high = (end.code(chances[: len(got) + 1]) for end in ends)
    assert len(got) == len(bits) or not (len(low) == len(high) and np.array_equal(low, high))


@given(st.integers(0, 999), st.integers(0, 400), st.booleans())
@settings(deadline=None)
def test_bytes_used_are_the_fewest_that_a_decoder_needs(seed, count, complete):
    chances, bits = message(seed, 400)
    stream = encoded(chances, bits)
    decoder = RangeDecoder(stream, complete=complete, track=True)
    count = len(decoder.code(chances[:count]))
    fewest = decoder.bytes_used
    enough = RangeDecoder(stream[:fewest], complete=complete and fewest == len(stream))
    assert np.array_equal(enough.code(chances[:count]), bits[:count])
    if fewest:
        fewer = RangeDecoder(stream[: fewest - 1], complete=False)
        assert len(fewer.code(chances[:count])) < count


@given(st.integers(0, 999), st.integers(0, 400), st.integers(0, 90), st.booleans())
@settings(deadline=None, max_examples=200)
def test_a_cut_decoder_is_a_decoder_of_the_first_bytes(seed, count, size, complete):
    chances, bits = message(seed, 400)
    stream = encoded(chances, bits)
    size = min(size, len(stream))
    whole = RangeDecoder(stream, complete=complete, track=True)
    count = len(whole.code(chances[:count]))
    expected = RangeDecoder(stream[:size], complete=False).code(chances)
    for decoder in (whole.clone(), whole):  # the first is not disturbed by what becomes of it
        cut = decoder.cut(size)
        if cut is None:
            assert len(expected) < count
        else:
            assert np.array_equal(cut.code(chances[count:]), expected[count:])
        decoder.code(chances[count:])


@given(st.integers(0, 999), st.lists(st.integers(0, 90), max_size=4))
@settings(deadline=None)
def test_a_decoder_goes_on_with_bytes_that_arrive(seed, sizes):
    chances, bits = message(seed, 400)
    stream = encoded(chances, bits)
    decoder, got = RangeDecoder(b"", complete=False), np.empty(0, np.int32)
    for size in [*sorted(size for size in sizes if size < len(stream)), len(stream)]:
        decoder = decoder.resumed(stream[:size], complete=size == len(stream))
        got = np.concatenate([got, decoder.code(chances[len(got) :])])
        if size < len(stream):
            alone = RangeDecoder(stream[:size], complete=False).code(chances)
            assert np.array_equal(got, alone)
    assert np.array_equal(got, bits)


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


@pytest.mark.parametrize("quarters", [3, 5, 12])
def test_odds_of_sampled_bits_are_raised_to_a_power(quarters):
    chances = np.array([0.001, 0.02, 0.3, 0.5, 0.9])
    sampler = BitSampler(7)
    sampler.quarters = quarters
    means = sampler.code(np.repeat(chances, 40_000)).reshape(5, -1).mean(1)
    odds = (chances / (1 - chances)) ** (quarters / 4)
    assert np.abs(means - odds / (1 + odds)).max() < 0.01


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


def test_constriction_writes_the_bytes_of_the_format():
    changed = (
        f"constriction {metadata.version('constriction')} writes other bytes than the one that "
        "made the format: files would not decode. Exclude this version in pyproject.toml."
    )
    units = np.concatenate([np.arange(1, ONE, 257), [1, ONE - 1, 1, ONE - 1]])
    chances = units / ONE
    bits = (np.arange(len(units)) * 40503 % ONE < units).astype(np.int32)
    bits[-4:] = 0, 1, 1, 0
    stack = Stack()
    stack.push(bits, chances)
    pushed, untouched = stack.to_bytes()
    digests = [zlib.crc32(data) for data in (encoded(chances, bits), pushed)]
    assert [*digests, untouched] == GOLDEN, changed
