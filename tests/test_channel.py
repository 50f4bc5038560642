"""Reverse channel coding: what is sent, what it costs, and that both sides agree."""

import math

import numpy as np
import pytest
import torch
from gaussian_data import LinearChain, pictures

from diffcodec.entropy import RangeDecoder, RangeEncoder
from diffcodec.exact.cdf import quantiles
from diffcodec.gaussian import channel
from diffcodec.gaussian.channel import Codebook, Numbers, Tile, relative_entropy, walk
from diffcodec.gaussian.decoder import to_data


def distance(samples, others):
    """The Kolmogorov-Smirnov distance of two samples, in units of its spread if they are alike."""
    places = torch.cat([samples, others]).sort().values
    first, second = (
        torch.searchsorted(part.sort().values, places, right=True) / len(part)
        for part in (samples, others)
    )
    count = len(samples) * len(others) / (len(samples) + len(others))
    return float((first - second).abs().max()) * math.sqrt(count)


CRITICAL = 1.95  # alike samples are farther apart once in a thousand times


@pytest.fixture(scope="module")
def codebook():
    return Codebook(quantiles())


# --- the codebook ---------------------------------------------------------------------------------


def test_candidates_are_normal_and_independent(codebook):
    numbers = [7, 8, 7 + channel._ROWS, 900_000]
    a, b, c, d = (codebook.candidate(5, number, 4000) for number in numbers)
    e = codebook.candidate(6, 7, 4000)
    for one in (a, b, c, d, e):
        assert float(one.mean()) == pytest.approx(0, abs=4 / 4000**0.5)
        assert float(one.var()) == pytest.approx(1, abs=4 * (2 / 4000) ** 0.5)
        assert float((one**4).mean()) == pytest.approx(3, abs=0.6)
    for one, other in ((a, b), (a, c), (a, d), (a, e), (c, e)):
        assert float((one * other).mean()) == pytest.approx(0, abs=4 / 4000**0.5)
    assert torch.equal(a, codebook.candidate(5, 7, 4000))


@pytest.mark.parametrize("ratio", [1.0, 0.8])
def test_the_candidate_that_is_found_is_a_sample_of_the_target(codebook, ratio):
    """Two-sample tests, along the shift and across it."""
    generator = torch.Generator().manual_seed(3)
    shift = torch.randn(12, generator=generator, dtype=torch.float64)
    shift *= 2.5 / shift.norm()
    found = torch.stack(
        [
            codebook.candidate(block, codebook.search(block, shift, ratio), 12)
            for block in range(300)
        ]
    )
    drawn = torch.randn((4000, 12), generator=generator, dtype=torch.float64)
    drawn = shift + math.sqrt(ratio) * drawn
    along = shift / shift.norm()
    across = torch.linalg.qr(torch.stack([along, *torch.eye(12, dtype=torch.float64)[1:]]).T)[0]
    assert distance(found @ along, drawn @ along) < CRITICAL
    assert distance(found @ across[:, 5], drawn @ across[:, 5]) < CRITICAL
    energy = [(part - shift).square().sum(1) for part in (found, drawn)]
    assert distance(*energy) < CRITICAL
    # The test has teeth: samples of p, or of a target less far away, do not pass.
    assert distance(found @ along, drawn @ along - 0.3) > CRITICAL


def test_numbers_are_as_long_as_the_relative_entropy(codebook):
    for length in (1.0, 2.0, 3.0):
        shift = torch.full((16,), length / 4, dtype=torch.float64)
        bits = [math.log2(codebook.search(block, shift, 1.0) + 1) for block in range(60)]
        divergence = relative_entropy(shift, 1.0)
        assert divergence == pytest.approx(length**2 / 2 / math.log(2))
        # E log2 N lies between D and D + log2(e) / e, or so (Li and El Gamal, 2018).
        assert np.mean(bits) == pytest.approx(divergence + 0.5, abs=1.3)


def test_a_search_goes_on_to_the_last_candidates(codebook):
    """There are 2^23; a block of 21 bits needs many of them."""
    shift = torch.full((64,), math.sqrt(21 * 2 * math.log(2)) / 8, dtype=torch.float64)
    assert relative_entropy(shift, 1.0) == pytest.approx(21)
    bits = [math.log2(codebook.search(block, shift, 1.0) + 1) for block in range(6)]
    assert max(bits) > 22


def test_relative_entropy_is_that_of_torch():
    shift = torch.tensor([0.3, -1.2, 0.0], dtype=torch.float64)
    target = torch.distributions.Normal(shift, math.sqrt(0.7))
    normal = torch.distributions.Normal(torch.zeros_like(shift), torch.ones_like(shift))
    expected = torch.distributions.kl_divergence(target, normal).sum() / math.log(2)
    assert relative_entropy(shift, 0.7) == pytest.approx(float(expected))


# --- numbers --------------------------------------------------------------------------------------


def test_numbers_come_back():
    values = [0, 1, 2, 3, 1000, (1 << 23) - 1, 5, 0, 1 << 20]
    encoder, numbers = RangeEncoder(), Numbers()
    for value in values:
        assert numbers.code(encoder, value) == value
    decoder, numbers = RangeDecoder(encoder.to_bytes(), complete=True), Numbers()
    assert [numbers.code(decoder, None) for _ in values] == values


def test_frequent_exponents_become_cheap():
    encoder, numbers = RangeEncoder(), Numbers()
    costs = []
    for value in [1000 + n for n in range(200)]:
        before = encoder.bits_used
        numbers.code(encoder, value)
        costs.append(encoder.bits_used - before)
    assert np.mean(costs[-20:]) < np.mean(costs[:3]) - 1
    assert 9 < np.mean(costs[-20:]) < 11.5  # nine or ten bits are the number's own


# --- the walk -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def coded():
    """Tiles sent to the middle of a chain, and where each step of theirs ended."""
    chain = LinearChain(12, highest=6.0)
    tiles = [Tile(pixels.shape, pixels) for pixels in pictures(5, 3, 8, 8)]
    encoder, ends = RangeEncoder(), []
    for row in walk(chain, tiles, encoder):
        ends.append((row, encoder.bits_used, sum(tile.ideal_bits for tile in tiles)))
    return chain, tiles, encoder, ends


def test_the_decoder_gets_the_same_samples(coded):
    chain, tiles, encoder, ends = coded
    data = encoder.to_bytes()
    decoded = [Tile(tile.shape) for tile in tiles]
    rows = list(walk(chain, decoded, RangeDecoder(data, complete=True)))
    assert rows == [row for row, _, _ in ends] == chain.milestones
    for tile, other in zip(tiles, decoded, strict=True):
        assert torch.equal(tile.z, other.z)
        assert tile.row == other.row == 0


@pytest.mark.parametrize("step", [1, 4])
def test_a_prefix_decodes_to_its_milestone(coded, step):
    chain, tiles, encoder, ends = coded
    row, data = ends[step][0], encoder.to_bytes()
    decoder = RangeDecoder(data, complete=True, track=True)
    for done in walk(chain, [Tile(tile.shape) for tile in tiles], decoder):
        if done == row:
            break
    used = decoder.bytes_used
    decoded = [Tile(tile.shape) for tile in tiles]
    rows = list(walk(chain, decoded, RangeDecoder(data[:used], complete=False)))
    assert rows[-1] == row
    shorter = [Tile(tile.shape) for tile in tiles]
    rows = list(walk(chain, shorter, RangeDecoder(data[: used - 1], complete=False)))
    assert rows == [each for each, _, _ in ends[:step]]
    # The first tiles are a step ahead of the last one.
    assert {tile.row for tile in shorter} <= {row, ends[step - 1][0]}
    assert shorter[-1].row == ends[step - 1][0]


def test_what_is_sent_is_a_sample_of_the_process(coded):
    chain, tiles, _, _ = coded
    noise = torch.cat(
        [(t.z - chain.alpha[0] * to_data(t.pixels).double()).flatten() for t in tiles]
    )
    normal = torch.randn(20_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert distance(noise / chain.sigma[0], normal) < CRITICAL


def test_the_ideal_rate_is_the_mutual_information(coded):
    """The model is right about these data, so no bit of relative entropy is lost between steps."""
    chain, tiles, _, ends = coded
    count = sum(tile.pixels.numel() for tile in tiles)
    for row, _, ideal in ends[3:]:
        assert ideal / count == pytest.approx(chain.information(row), rel=0.2)
    assert ends[-1][2] / count == pytest.approx(chain.information(0), rel=0.1)


def test_the_actual_rate_is_near_the_ideal_one(coded):
    _, _, encoder, ends = coded
    assert 1 < encoder.bits_used / ends[-1][2] < 1.6


def test_a_tile_that_needs_more_than_others_is_cut_into_more_blocks():
    chain = LinearChain(12, highest=2.0)
    calm = pictures(1, 3, 8, 8)[0]
    busy = (128 + 4 * (calm.float() - 128)).clamp(0, 255).to(torch.uint8)
    tiles = [Tile(pixels.shape, pixels) for pixels in (calm, busy)]
    for _ in walk(chain, tiles, RangeEncoder()):
        pass
    first, second = tiles
    assert first.expected == second.expected
    assert first.needed == pytest.approx(first.expected, rel=0.3)
    assert second.needed > 1.5 * first.needed
    assert len(second.blocks(0.5, 0)) > 1.3 * len(first.blocks(0.5, 0))


def test_blocks_follow_what_a_tile_has_needed():
    tile = Tile(torch.Size((3, 32, 32)))
    few = tile.blocks(0.1, 0)
    assert sorted(torch.cat(few).tolist()) == list(range(3072))
    assert len(few) == round(307.2 / channel.BLOCK_BITS)
    tile.needed += 4 * 307.2  # so it is a busy one
    assert len(tile.blocks(0.1, 9)) > 3 * len(few)
    assert len(Tile(torch.Size((3, 64, 64))).blocks(0.0, 0)) == 3  # LONGEST_BLOCK
