"""Reverse channel coding: what is sent, what it costs, and that both sides agree."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from gaussian_data import LinearChain, pictures

from diffcodec.container import CHANNEL, SetHeader, write_set_header
from diffcodec.entropy import RangeDecoder, RangeEncoder
from diffcodec.exact.cdf import THIN_TAIL, CdfTable, quantiles
from diffcodec.gaussian import channel, codebook, stream
from diffcodec.gaussian.channel import Tile, relative_entropy, walk
from diffcodec.gaussian.choices import BEST, SAMPLE, code_count
from diffcodec.gaussian.codebook import BEST_OF, Block, Codebook
from diffcodec.gaussian.decoder import to_data
from diffcodec.limits import Cut


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


TABLE = CdfTable.gaussian(THIN_TAIL)

both = pytest.mark.parametrize("choice", [BEST, SAMPLE], ids=["best", "sample"])


@pytest.fixture(scope="module")
def book():
    return Codebook(quantiles())


def block(number, row=3, tile=0):
    return Block(row, tile, number)


# --- the codebook ---------------------------------------------------------------------------------


def test_candidates_are_normal_and_independent(book):
    numbers = [7, 8, 7 + codebook._ROWS, 900_000]
    a, b, c, d = (book.candidate(block(5), number, 4000) for number in numbers)
    others = [block(6), block(5, row=4), block(5, tile=1)]
    e, f, g = (book.candidate(other, 7, 4000) for other in others)
    for one in (a, b, c, d, e, f, g):
        assert float(one.mean()) == pytest.approx(0, abs=4 / 4000**0.5)
        assert float(one.var()) == pytest.approx(1, abs=4 * (2 / 4000) ** 0.5)
        assert float((one**4).mean()) == pytest.approx(3, abs=0.6)
    for one, other in ((a, b), (a, c), (a, d), (a, e), (a, f), (a, g), (c, e)):
        assert float((one * other).mean()) == pytest.approx(0, abs=4 / 4000**0.5)
    assert torch.equal(a, book.candidate(block(5), 7, 4000))


@pytest.mark.parametrize("ratio", [1.0, 0.8])
def test_the_candidate_that_is_found_is_a_sample_of_the_target(book, ratio):
    """Two-sample tests, along the shift and across it."""
    generator = torch.Generator().manual_seed(3)
    shift = torch.randn(12, generator=generator, dtype=torch.float64)
    shift *= 2.5 / shift.norm()
    found = torch.stack(
        [
            book.candidate(block(number), book.sample(block(number), shift, ratio), 12)
            for number in range(300)
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


def test_numbers_are_as_long_as_the_relative_entropy(book):
    for length in (1.0, 2.0, 3.0):
        shift = torch.full((16,), length / 4, dtype=torch.float64)
        bits = [math.log2(book.sample(block(n), shift, 1.0) + 1) for n in range(60)]
        divergence = relative_entropy(shift, 1.0)
        assert divergence == pytest.approx(length**2 / 2 / math.log(2))
        # E log2 N lies between D and D + log2(e) / e, or so (Li and El Gamal, 2018).
        assert np.mean(bits) == pytest.approx(divergence + 0.5, abs=1.3)


def test_a_search_goes_on_to_the_last_candidates(book):
    """There are 2^23; blocks of 26 bits need many of them."""
    shift = torch.full((64,), math.sqrt(26 * 2 * math.log(2)) / 8, dtype=torch.float64)
    assert relative_entropy(shift, 1.0) == pytest.approx(26)
    bits = [math.log2(book.sample(block(n), shift, 1.0) + 1) for n in range(6)]
    assert max(bits) > 22


def test_the_best_candidate_is_the_best(book):
    """Of each block, also of one that is shorter than the others."""
    generator = torch.Generator().manual_seed(5)
    targets = torch.randn((2, 9), generator=generator, dtype=torch.float64)
    targets[1, 8] = 0
    blocks = [block(4), block(5)]
    found = book.best(blocks, targets)
    for own, target, number, length in zip(blocks, targets, found, (9, 8), strict=True):
        every = torch.stack([book.candidate(own, n, length) for n in range(0, BEST_OF, 16)])
        candidate = book.candidate(own, number, length)
        assert number < BEST_OF
        assert float(candidate @ target[:length]) >= float((every @ target[:length]).max())
    assert max(found) > BEST_OF // 4


def test_the_best_candidate_lies_where_thirteen_bits_do(book):
    """Blocks are so long that it falls neither short of the target nor beyond it."""
    reach = math.sqrt(BEST.bits * 2 * math.log(2))
    generator = torch.Generator().manual_seed(1)
    targets = torch.randn((40, 200), generator=generator, dtype=torch.float64)
    targets /= targets.norm(dim=1, keepdim=True)
    blocks = [block(n) for n in range(40)]
    numbers = book.best(blocks, targets)
    pairs = zip(blocks, numbers, targets, strict=True)
    along = [float(book.candidate(own, n, 200) @ target) for own, n, target in pairs]
    assert np.mean(along) == pytest.approx(reach, abs=0.15)


def test_relative_entropy_is_that_of_torch():
    shift = torch.tensor([0.3, -1.2, 0.0], dtype=torch.float64)
    target = torch.distributions.Normal(shift, math.sqrt(0.7))
    normal = torch.distributions.Normal(torch.zeros_like(shift), torch.ones_like(shift))
    expected = torch.distributions.kl_divergence(target, normal).sum() / math.log(2)
    assert relative_entropy(shift, 0.7) == pytest.approx(float(expected))


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("expected", [0.0, 0.4, 7.3, 300.0])
def test_counts_come_back_at_the_price_of_their_surprise(expected):
    near = round(expected)
    counts = [0, near, near + 1, 4095]
    encoder = RangeEncoder()
    costs = []
    for count in counts:
        before = encoder.bits_used
        assert code_count(encoder, TABLE, expected, count) == count
        costs.append(encoder.bits_used - before)
    decoder = RangeDecoder(encoder.to_bytes(), complete=True)
    assert [code_count(decoder, TABLE, expected, None) for _ in counts] == counts
    assert costs[1] <= 2 + math.log2(1 + expected / 4)
    assert costs[3] < 200


@both
def test_candidates_come_back(book, choice):
    generator = torch.Generator().manual_seed(2)
    shifts = [torch.randn(n, generator=generator, dtype=torch.float64) for n in (9, 9, 8)]
    blocks, encoder = [block(n) for n in range(3)], RangeEncoder()
    numbers = choice.code(encoder, TABLE, book, blocks, shifts, 0.9)
    assert len(set(numbers)) == 3
    decoder = RangeDecoder(encoder.to_bytes(), complete=True)
    assert choice.code(decoder, TABLE, book, blocks, None, 0.9) == numbers
    if choice is BEST:
        assert numbers == book.best(blocks, torch.nn.utils.rnn.pad_sequence(shifts, True))
        assert encoder.bits_used == 3 * 16
    else:
        assert numbers == [book.sample(*pair, 0.9) for pair in zip(blocks, shifts, strict=True)]


def test_counts_of_blocks():
    assert [BEST.count(bits) for bits in (0, 6.4, 6.6, 130, 1e6)] == [0, 0, 1, 10, 4095]
    assert [SAMPLE.count(bits) for bits in (0, 11, 11.1, 110, 1e6)] == [1, 1, 2, 10, 4095]


# --- the walk -------------------------------------------------------------------------------------


def sent(choice):
    """Tiles sent to the middle of a chain, and where each step of theirs ended."""
    chain = LinearChain(12, highest=6.0)
    tiles = [Tile(pixels.shape, pixels) for pixels in pictures(5, 3, 8, 8)]
    encoder, ends = RangeEncoder(), []
    for row in walk(chain, tiles, encoder, choice):
        ends.append((row, encoder.bits_used, sum(tile.ideal_bits for tile in tiles)))
    return chain, tiles, encoder, ends


@pytest.fixture(scope="module")
def coded():
    return {choice: sent(choice) for choice in (BEST, SAMPLE)}


@both
def test_the_decoder_gets_the_same_samples(coded, choice):
    chain, tiles, encoder, ends = coded[choice]
    data = encoder.to_bytes()
    decoded = [Tile(tile.shape) for tile in tiles]
    rows = list(walk(chain, decoded, RangeDecoder(data, complete=True), choice))
    assert rows == [row for row, _, _ in ends] == chain.milestones
    for tile, other in zip(tiles, decoded, strict=True):
        assert torch.equal(tile.z, other.z)
        assert tile.row == other.row == 0


@both
@pytest.mark.parametrize("step", [1, 4])
def test_a_prefix_decodes_to_its_milestone(coded, choice, step):
    chain, tiles, encoder, ends = coded[choice]
    row, data = ends[step][0], encoder.to_bytes()
    decoder = RangeDecoder(data, complete=True, track=True)
    for done in walk(chain, [Tile(tile.shape) for tile in tiles], decoder, choice):
        if done == row:
            break
    used = decoder.bytes_used
    decoded = [Tile(tile.shape) for tile in tiles]
    rows = list(walk(chain, decoded, RangeDecoder(data[:used], complete=False), choice))
    assert rows[-1] == row
    shorter = [Tile(tile.shape) for tile in tiles]
    rows = list(walk(chain, shorter, RangeDecoder(data[: used - 1], complete=False), choice))
    assert rows == [each for each, _, _ in ends[:step]]
    # The first tiles are a step ahead of the last one.
    assert {tile.row for tile in shorter} <= {row, ends[step - 1][0]}
    assert shorter[-1].row == ends[step - 1][0]


@both
def test_another_walk_goes_on_where_one_has_ended(coded, choice):
    chain, tiles, encoder, ends = coded[choice]
    data, stopped = encoder.to_bytes(), RangeEncoder()
    half = [replace(tile, z=None, row=None, x=None, needed=30.0, expected=30.0) for tile in tiles]
    for row in walk(chain, half, stopped, choice):
        if row == ends[3][0]:
            break
    known = [replace(tile, pixels=None) for tile in half]
    decoder = RangeDecoder.after(stopped, data, complete=True)
    assert list(walk(chain, known, decoder, choice)) == chain.milestones
    for tile, other in zip(tiles, known, strict=True):
        assert torch.equal(tile.z, other.z)


def test_what_is_sent_is_a_sample_of_the_process(coded):
    chain, tiles, _, _ = coded[SAMPLE]
    normal = torch.randn(20_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert distance(noise(chain, tiles), normal) < CRITICAL


def test_what_is_sent_by_the_best_is_nearly_one(coded):
    """Its noise has the deviation of the process, and nothing of the data."""
    chain, tiles, _, _ = coded[BEST]
    found, data = noise(chain, tiles), torch.cat([to_data(tile.pixels).flatten() for tile in tiles])
    assert float(found.std()) == pytest.approx(1, abs=0.1)
    correlation = torch.corrcoef(torch.stack([found, data.double()]))[0, 1]
    assert float(correlation) == pytest.approx(0, abs=0.2)


def noise(chain, tiles):
    """That of z, in deviations of the process."""
    parts = [(t.z - chain.alpha[0] * to_data(t.pixels).double()).flatten() for t in tiles]
    return torch.cat(parts) / chain.sigma[0]


@both
def test_the_ideal_rate_is_the_mutual_information(coded, choice):
    """The model is right about these data, so no bit of relative entropy is lost between steps."""
    chain, tiles, _, ends = coded[choice]
    count = sum(tile.pixels.numel() for tile in tiles)
    for row, _, ideal in ends[3:]:
        assert ideal / count == pytest.approx(chain.information(row), rel=0.2)
    # What a sample of the best lacks comes later.
    slack = 0.1 if choice is SAMPLE else 0.15
    assert ends[-1][2] / count == pytest.approx(chain.information(0), rel=slack)


def test_the_actual_rate_is_near_the_ideal_one(coded):
    ratios = {}
    for choice, (_, _, encoder, ends) in coded.items():
        ratios[choice] = encoder.bits_used / ends[-1][2]
    assert 1.2 < ratios[BEST] < 1.4
    assert 1.2 < ratios[SAMPLE] < 1.6


@both
def test_a_tile_that_needs_more_than_others_is_cut_into_more_blocks(choice):
    """Twice as far, and so four times the relative entropy, which the decoder learns of counts."""
    chain = LinearChain(12, highest=2.0)
    calm = pictures(1, 3, 8, 8)[0]
    busy = (128 + 4 * (calm.float() - 128)).clamp(0, 255).to(torch.uint8)
    tiles = [Tile(pixels.shape, pixels) for pixels in (calm, busy)]
    for _ in walk(chain, tiles, RangeEncoder(), choice):
        pass
    first, second = tiles
    assert first.expected == second.expected
    assert second.needed > 1.5 * first.needed
    assert second.needed > 0.8 * second.ideal_bits


def test_counts_are_expected_as_the_tile_has_needed(monkeypatch):
    """Of a tile that needs four times what the model expects, as much soon."""
    pairs = []

    def recorded(coder, table, expected, count):
        pairs.append((expected, count))
        return code_count(coder, table, expected, count)

    monkeypatch.setattr(channel, "code_count", recorded)
    busy = (128 + 4 * (pictures(1, 3, 16, 16)[0].float() - 128)).clamp(0, 255).to(torch.uint8)
    tiles = [Tile(busy.shape, busy)]
    for _ in walk(LinearChain(24, highest=7.0), tiles, RangeEncoder()):
        pass
    expected, counts = np.array(pairs[len(pairs) // 2 :]).T
    assert counts.sum() == pytest.approx(expected.sum(), rel=0.3)
    assert counts.sum() > 20


def test_blocks_are_no_longer_than_the_table():
    chain = LinearChain(2, lowest=-12.0)  # at whose start hardly anything is known
    tiles = [Tile(torch.Size((3, 64, 64)), pictures(1, 3, 64, 64)[0])]
    encoder = RangeEncoder()
    assert next(walk(chain, tiles, encoder)) == 2
    assert tiles[0].needed == channel._PRIOR_BITS  # no block at all
    assert float(tiles[0].z.std()) == pytest.approx(1, abs=0.05)
    assert encoder.bits_used < 3


# --- the stream of a set --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "count", "stride"), [(BEST, 1, 1), (BEST, 3, 4), (SAMPLE, 2, 9)]
)
def test_any_limit_makes_a_set_that_decodes(choice, count, stride):
    """The checksum, which a whole stream must meet, is that of what a decoder finds."""
    chain, parts = LinearChain(12, highest=9.0), list(pictures(count, 3, 8, 8))
    header = SetHeader(CHANNEL, ((8, 8),) * count, b"test", 0, 0, 0, exact=choice is SAMPLE)
    start, shortest = len(write_set_header(header)), 0
    for limit in range(start, start + 50, stride):
        coded = stream.encode_channel(chain, header, parts, Cut(max_bytes=limit))
        assert len(coded.stream) <= limit - start
        assert len(coded.stream) >= shortest
        shortest = len(coded.stream)
        stream.decode_channel(chain, coded.header, coded.stream)
        ends = [end.bytes - start for end in coded.milestones]
        assert ends == sorted(ends)
        assert all(end <= len(coded.stream) for end in ends)
    assert len(coded.milestones) > 3
