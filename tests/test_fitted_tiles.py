"""Fitted files in tiles: rows that each rung tells first, prefixes, regions, damage."""

import numpy as np
import pytest
from test_fitted import shifts_of
from test_tiled import Slow
from tiny import pixels

import diffcodec
from diffcodec import container
from diffcodec.errors import DiffcodecError
from diffcodec.exact.backends import exactly
from diffcodec.limits import Cut
from diffcodec.quantized import segments, tiled

ROWS = (0, 0), (1, 1), (3, 2)
"""Used first at rungs 1, 2 and 4."""


def write(weights, planes, shifts):
    """A file of uint8 or uint16 [C, H, W] in tiles of 64 pixels a side, with these shifts."""
    header = container.Header(
        container.QUANTISED, container.MODES[len(planes) - 1], planes.shape[2], planes.shape[1],
        weights.id, container.checksum(planes), 0, True, depth=8 * planes.itemsize, tile=64,
    )  # fmt: skip
    with exactly(1):
        coded = tiled.encode(weights, header, planes, Cut(), {}, fit=lambda *_: shifts)
    return container.write(*coded, {})


def rows_of(data):
    """Where in a whole file the first segment of each rung begins and ends."""
    file = container.read(data)
    told, columns = segments.split(file.header, file.stream)
    found, position = {}, file.start
    for rung, *row in zip(segments.rungs(file.header), told, *columns, strict=True):
        sizes = [len(segments.write(content)) for content, _ in row]
        found[rung] = position, position + sizes[0]
        position += sum(sizes)
    assert position == len(data)
    return found


@pytest.fixture(scope="module")
def planes():
    return pixels(40, 66).numpy()  # two tiles


@pytest.fixture(scope="module")
def array(planes):
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


@pytest.fixture(scope="module")
def coded(tiny_model, planes):
    return write(tiny_model, planes, shifts_of(tiny_model, rows=ROWS, most=2))


@pytest.fixture(scope="module")
def decode(tiny_path):
    return lambda data, **options: diffcodec.decode_array(data, model=tiny_path, **options)


def test_a_picture_comes_back(array, coded, decode):
    header = container.read(coded).header
    assert header.fitted and header.tile == 64
    for threads in (1, 2):
        assert np.array_equal(decode(coded, threads=threads), array)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_grey_and_alpha_come_back(tiny_model, planes, decode, mode):
    own = planes[[0, 1, 2, 0]][-len(mode) :, :9]
    data = write(tiny_model, own, shifts_of(tiny_model, rows=ROWS, most=2))
    assert container.read(data).header.mode == mode
    assert np.array_equal(decode(data), own.transpose(1, 2, 0))


def test_alpha_is_coded_as_without_a_fit(tiny_model, planes):
    """No level of flat grey that is fitted is ever significant."""
    flat = np.concatenate([np.zeros_like(planes[:1]), planes[:1]])
    data = write(tiny_model, flat, shifts_of(tiny_model, rows=ROWS))
    told = sum(end - start for start, end in rows_of(data).values())
    assert len(data) - len(write(tiny_model, flat, {})) == told > 100


def test_rows_are_told_before_the_rungs_that_use_them(tiny_model, coded):
    table = tiny_model.process.ladder.rows
    told = {rung for rung, (start, end) in rows_of(coded).items() if end - start > 1}
    first = {
        max(rung for rung in range(1, 18) if table[rung - 1, level] == row) for row, level in ROWS
    }
    assert told == first == {1, 2, 4}


def test_a_region_is_a_part_of_the_picture(array, coded, decode):
    for left, top, width, height in ((40, 30, 20, 10), (30, 5, 20, 20)):
        part = decode(coded, region=(left, top, width, height))
        assert np.array_equal(part, array[top : top + height, left : left + width])


def test_a_prefix_inside_rows_shows_the_rung_before(coded, decode, tiny_path):
    ends = {rung.rung: rung.bytes for rung in diffcodec.info(coded).rungs}
    places = rows_of(coded)
    assert list(ends) == list(places)
    assert all(ends[rung + 1] == places[rung][0] for rung in places if rung < 17)
    for rung in (4, 1):
        start, end = places[rung]
        assert end - start > 1
        before = decode(coded, rung=rung + 1)
        for size in (start + 1, end - 1):
            assert np.array_equal(decode(coded[:size]), before)
    *_, last = diffcodec.decode_progressive(coded[: end - 1], model=tiny_path)
    assert (last.rung, last.complete) == (2, False)
    assert np.array_equal(np.asarray(last.image), before)
    (cut,) = diffcodec.decode_cuts(coded, [start + 1], model=tiny_path)
    assert np.array_equal(np.asarray(cut), before)


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_streaming_shows_what_prefixes_show(array, coded, decode, tiny_path, share):
    part = coded[: int(share * len(coded))]
    shown = list(diffcodec.decode_progressive(Slow(part), model=tiny_path))
    assert np.array_equal(np.asarray(shown[-1].image), decode(part))
    assert np.array_equal(np.asarray(shown[-1].image), array) == (share == 1)
    for preview in shown[-3:-1]:
        assert np.array_equal(np.asarray(preview.image), decode(coded[: preview.bytes_used]))


def test_a_reduced_picture_and_a_limit_are_those_of_a_prefix(coded, decode):
    ends = {rung.rung: rung.bytes for rung in diffcodec.info(coded).rungs}
    assert np.array_equal(decode(coded[: ends[4]], size=20), decode(coded, size=20))
    assert np.array_equal(decode(coded, max_bytes=900), decode(coded[:900]))


@pytest.mark.parametrize("show", ["visual", "sample"])
def test_what_is_missing_is_drawn_with_rows_as_they_were(coded, decode, show):
    start, end = rows_of(coded)[4]
    part = coded[: (start + end) // 2]
    drawn = [decode(part, show=show, seed=1, threads=n) for n in (1, 2)]
    assert np.array_equal(*drawn)
    assert not np.array_equal(drawn[0], decode(part))
    assert np.array_equal(drawn[0], decode(coded[:start], show=show, seed=1))


def test_damage_of_rows_is_told(coded, decode):
    for start, end in rows_of(coded).values():
        for place in {start, end - 3} if end - start > 1 else ():
            damaged = bytearray(coded)
            damaged[place] ^= 16
            with pytest.raises(DiffcodecError):
                decode(bytes(damaged))


def test_a_fit_that_finds_nothing_gives_an_unfitted_file(tiny_path, tiny_model, array, planes):
    plain = diffcodec.encode(array, tile=64, process="photo", model=tiny_path)
    assert write(tiny_model, planes, {}) == plain
    assert diffcodec.encode(array, tile=64, fit=1000, process="photo", model=tiny_path) == plain


def test_the_tiles_that_are_looked_at_are_spread(monkeypatch):
    monkeypatch.setattr(tiled, "LOOKED_AT", 1 << 18)
    for width, height in ((6000, 4000), (640, 128), (100, 9), (700, 500), (4096, 4096)):
        header = container.Header(0, "L", width, height, b"", 0, 0, True, tile=128)
        there = tiled.places(header)
        found = [there.index(place) for place in tiled._looked_at(header)]
        pixels = [(a.stop - a.start) * (b.stop - b.start) for a, b in there]
        assert found == sorted(set(found))
        assert sum(pixels[n] for n in found) <= max(1 << 18, min(pixels)) * 1.1
        if len(there) <= 16:
            assert len(found) == len(there)
        else:
            steps = np.diff([-1, *found, len(there)])
            assert steps.max() <= 2 * len(there) / len(found) + 1
            columns = {there[n][1].start for n in found}
            assert len(columns) > len(found) / 3
