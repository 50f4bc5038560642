"""Photographs in tiles: whole files, prefixes, regions, damage."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import pixels

import diffcodec
from diffcodec import container
from diffcodec.errors import CorruptError, FormatError, ImageError
from diffcodec.limits import Region
from diffcodec.quantized import tile_state, tiled

SIDE = 64
HEIGHT, WIDTH = 66, 100  # two rows and two columns of tiles


@pytest.fixture(scope="module")
def array():
    return np.ascontiguousarray(pixels(HEIGHT, WIDTH).numpy().transpose(1, 2, 0))


@pytest.fixture(scope="module")
def encode(tiny_path):
    def call(array, **options):
        options = {"model": tiny_path, "tile": SIDE, "process": "photo", **options}
        return diffcodec.encode(array, **options)

    return call


@pytest.fixture(scope="module")
def decode(tiny_path):
    return lambda data, **options: diffcodec.decode_array(data, model=tiny_path, **options)


@pytest.fixture(scope="module")
def coded(array, encode):
    return encode(array)


def psnr(one, other):
    return 10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2))


def test_a_picture_comes_back(array, coded, decode):
    assert np.array_equal(decode(coded), array)
    found = diffcodec.info(coded, rungs=False)
    assert (found.tile, found.lossless, found.process) == (SIDE, True, "photo")


@pytest.mark.parametrize(("depth", "channels"), [(8, 1), (16, 4)])
def test_all_modes_and_depths_come_back(encode, decode, depth, channels):
    planes = pixels(30, 66).numpy().astype(f"u{depth // 8}") << depth - 8
    stacked = np.stack([planes[n % 3] for n in range(channels)], -1)
    stacked = stacked[..., 0] if channels == 1 else stacked
    assert np.array_equal(decode(encode(stacked)), stacked)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(64, 2048))
def test_tiles_cover_a_picture_once_and_are_nearly_alike(height, width, side):
    header = container.Header(0, "L", width, height, b"", 0, 0, True, tile=side)
    places = tiled.places(header)
    rows = sorted({(rows.start, rows.stop) for rows, _ in places})
    columns = sorted({(columns.start, columns.stop) for _, columns in places})
    assert len(places) == len(rows) * len(columns)
    for parts, length in ((rows, height), (columns, width)):
        assert [start for start, _ in parts] + [length] == [0] + [end for _, end in parts]
        sizes = {end - start for start, end in parts}
        assert max(sizes) <= side and max(sizes) - min(sizes) <= 1
        assert len(parts) == -(-length // side)


def test_longer_prefixes_show_more(array, coded, decode):
    quality = [psnr(decode(coded[:size]), array) for size in (60, 500, 2000, 7000)]
    assert quality == sorted(quality) and quality[-1] > quality[0] + 15


def test_a_prefix_inside_a_rung_shows_what_is_there_of_each_tile(array, coded, decode):
    """Tiles before the cut are a rung further than those after it."""
    ends = {rung.rung: rung.bytes for rung in diffcodec.info(coded).rungs}
    middle = decode(coded[: (ends[2] + ends[1]) // 2])
    errors = np.abs(middle.astype(int) - array).sum(-1)
    assert not errors[: HEIGHT // 2, : WIDTH // 2].any()
    assert errors[HEIGHT // 2 :, WIDTH // 2 :].any()


def test_rungs_end_where_information_says(coded, decode):
    rungs = diffcodec.info(coded).rungs
    assert [rung.rung for rung in rungs] == list(range(17, 0, -1))
    assert rungs[-1].bytes == len(coded)
    for rung in rungs[11::4]:
        whole, less = decode(coded[: rung.bytes]), decode(coded[: rung.bytes - 1])
        assert np.array_equal(whole, decode(coded, rung=rung.rung))
        assert not np.array_equal(whole, less)


class Slow(io.RawIOBase):
    """Delivers a few bytes at a time."""

    def __init__(self, data):
        self._data = io.BytesIO(data)

    def readable(self):
        return True

    def readinto(self, buffer):
        part = self._data.read(min(len(buffer), 997))
        buffer[: len(part)] = part
        return len(part)


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_streaming_shows_what_prefixes_show(coded, decode, tiny_path, share):
    part = coded[: int(share * len(coded))]
    shown = list(diffcodec.decode_progressive(Slow(part), model=tiny_path))
    ends = {rung.rung: rung.bytes for rung in diffcodec.info(coded).rungs}
    for preview in shown[-2:-1]:
        assert preview.bytes_used == ends[preview.rung]
        assert np.array_equal(np.asarray(preview.image), decode(coded[: preview.bytes_used]))
    assert np.array_equal(np.asarray(shown[-1].image), decode(part))
    assert shown[-1].complete == (share == 1)


def test_cuts_show_what_prefixes_show(coded, decode, tiny_path):
    sizes = [20, 900, 5000]
    for size, cut in zip(
        sizes, diffcodec.decode_cuts(coded, sizes[::-1], model=tiny_path), strict=True
    ):
        assert np.array_equal(np.asarray(cut), decode(coded[:size]))


@pytest.mark.parametrize("limit", [{"bpp": 2.0}, {"max_bytes": 900}])
def test_byte_limits_hold_and_cut_the_lossless_stream(array, encode, decode, coded, limit):
    data = encode(array, **limit)
    assert len(data) == limit.get("max_bytes", int(2.0 * HEIGHT * WIDTH / 8))
    stream = container.read(data).stream
    assert container.read(coded).stream.startswith(stream)
    start = container.read_header(coded)[1]
    assert np.array_equal(decode(data), decode(coded[: start + len(stream)]))
    assert not diffcodec.info(data, rungs=False).lossless


def test_quality_is_reached_by_few_bytes(array, encode, decode):
    data = encode(array, psnr=36)
    assert psnr(decode(data), array) >= 36
    assert psnr(decode(data[: int(0.8 * len(data))]), array) < 36


def test_noise_is_stored(encode, decode):
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    data = encode(noise)
    assert diffcodec.info(data).process == "stored" and np.array_equal(decode(data), noise)


@given(st.data())
@settings(max_examples=4, deadline=None, derandomize=True)
def test_a_region_is_a_part_of_the_picture(array, coded, decode, data):
    left, top = data.draw(st.integers(0, WIDTH - 1)), data.draw(st.integers(0, HEIGHT - 1))
    width, height = data.draw(st.integers(1, WIDTH - left)), data.draw(st.integers(1, HEIGHT - top))
    part = decode(coded, region=(left, top, width, height))
    assert np.array_equal(part, array[top : top + height, left : left + width])


def test_a_region_decodes_only_its_tiles(array, coded, decode, monkeypatch):
    sizes = []
    real = tiled.Tile

    def counting(model, header, *rest):
        sizes.append((header.width, header.height))
        return real(model, header, *rest)

    monkeypatch.setattr(tiled, "Tile", counting)
    decode(coded, region=(60, 40, 30, 10))
    assert sizes == [(50, 33)]


def test_regions_of_what_has_no_tiles_are_cut_out(array):
    flat = np.repeat(array[:, :1], 40, 1) // 64 * 64
    noise = np.random.default_rng(0).integers(0, 256, (9, 8), np.uint8)
    for picture in (flat, noise):
        data = diffcodec.encode(picture)
        assert np.array_equal(diffcodec.decode_array(data, region=(2, 3, 4, 5)), picture[3:8, 2:6])


@pytest.mark.parametrize("region", [(-1, 0, 5, 5), (0, 0, 0, 5), (0, 0, 101, 5), (3, 64, 5, 3)])
def test_regions_outside_are_refused(coded, decode, region):
    with pytest.raises(ImageError, match="not inside"):
        decode(coded, region=region)


def test_regions_share_what_both_have():
    assert Region(2, 1, 4, 3).shared((slice(0, 2), slice(5, 9))) == (
        (slice(1, 2), slice(0, 1)),
        (slice(0, 1), slice(3, 4)),
    )
    assert Region(2, 1, 4, 3).shared((slice(0, 2), slice(6, 9))) is None


@pytest.mark.parametrize("show", ["visual", "sample"])
def test_what_is_missing_is_drawn(array, coded, decode, show):
    one, other = (decode(coded[:1500], show=show, seed=seed) for seed in (1, 2))
    assert not np.array_equal(one, other)
    assert np.array_equal(one, decode(coded[:1500], show=show, seed=1))
    assert psnr(one, array) > 15
    assert np.array_equal(decode(coded, show=show), array)


def test_previews_and_cuts_can_have_texture(coded, tiny_path):
    how = {"show": "visual", "model": tiny_path}
    shown = [np.asarray(p.image) for p in diffcodec.decode_progressive(coded, **how)]
    means = [np.asarray(p.image) for p in diffcodec.decode_progressive(coded, model=tiny_path)]
    different = [not np.array_equal(*pair) for pair in zip(shown, means, strict=True)]
    assert any(different) and not any(different[-3:])
    (cut,) = diffcodec.decode_cuts(coded, [1500], **how)
    assert cut.tobytes() == diffcodec.decode(coded[:1500], **how).tobytes()


def test_damage_is_told(coded, decode):
    for place in (-2, len(coded) // 2):
        damaged = bytearray(coded)
        damaged[place] ^= 0x10
        with pytest.raises(CorruptError):
            decode(bytes(damaged))


def test_large_pictures_have_tiles_by_themselves(encode, decode, monkeypatch, array):
    monkeypatch.setattr(container, "UNTILED", 64 * 64)
    monkeypatch.setattr(tiled, "SIDE", 64)
    data = encode(array, tile=None)
    assert diffcodec.info(data).tile == 64 and np.array_equal(decode(data), array)
    with pytest.raises(FormatError, match="needs tiles"):
        encode(array, tile=0)
    with pytest.raises(FormatError, match="from 64"):
        encode(array, tile=63)


def test_next_to_nothing_of_a_huge_picture_costs_next_to_nothing(tiny_model, decode, monkeypatch):
    """The network, and even the wavelets, compute nothing for tiles of which nothing is known."""
    header = container.Header(0, "RGB", 9000, 9000, tiny_model.id, 0, 1 << 20, True, tile=1024)
    monkeypatch.setattr(tile_state, "shown_planes", None)
    for stream in (b"", b"\0" * 50, b"\0" * 200):
        shown = decode(container.write_header(header) + stream)
        assert shown.shape == (9000, 9000, 3) and (shown == 128).all()


def test_too_many_pixels_are_refused(coded, decode, tiny_path):
    assert decode(coded, max_pixels=HEIGHT * WIDTH).shape == (HEIGHT, WIDTH, 3)
    less = {"max_pixels": HEIGHT * WIDTH - 1}
    for read in (
        lambda: decode(coded, **less),
        lambda: next(diffcodec.decode_progressive(coded, model=tiny_path, **less)),
        lambda: next(diffcodec.decode_cuts(coded, [50], model=tiny_path, **less)),
    ):
        with pytest.raises(FormatError, match="6,600 pixels, more than the limit of 6,599"):
            read()
    bomb = container.Header(3, "RGB", 11585, 11585, bytes(4), 0, 9, True)
    with pytest.raises(FormatError, match="max-pixels"):
        decode(container.write_header(bomb))


def test_a_set_of_too_many_pixels_is_refused():
    header = container.SetHeader(1, ((32, 32),) * 3, bytes(4), 0, 0, 9)
    with pytest.raises(FormatError, match="3,072 pixels"):
        diffcodec.decode_set(container.write_set_header(header), max_pixels=3071)


@pytest.mark.parametrize("size", [100, 99, 20, 1])
def test_a_reduced_picture_is_near_the_mean_of_the_original(array, coded, tiny_path, size):
    shown = diffcodec.decode(coded, size=size, model=tiny_path)
    factor = -(-WIDTH // size)
    assert shown.size == (-(-WIDTH // factor), -(-HEIGHT // factor)) and max(shown.size) <= size
    wanted = Image.fromarray(array).reduce(factor)
    assert shown.size == wanted.size
    if factor == 1:
        assert np.array_equal(np.asarray(shown), array)
    else:
        assert psnr(np.asarray(shown), np.asarray(wanted)) > 36


def test_a_reduced_picture_needs_few_rungs(array, coded, decode):
    small = decode(coded, size=20)
    end = next(rung.bytes for rung in diffcodec.info(coded).rungs if rung.rung == 4)
    assert end < len(coded) / 2
    assert np.array_equal(decode(coded[:end], size=20), small)


def test_reduced_drawings_and_stored_samples_are_means(array):
    drawing = np.kron(np.arange(64, dtype=np.uint8).reshape(8, 8), np.ones((8, 8), np.uint8))
    noise = np.random.default_rng(0).integers(0, 256, (64, 48), np.uint8)
    for picture in (drawing, noise):
        small = diffcodec.decode(diffcodec.encode(picture), size=16)
        wanted = np.asarray(Image.fromarray(picture).reduce(4), int)
        if picture is noise:
            assert np.abs(np.asarray(small, int) - wanted).max() <= 1
        else:
            assert np.array_equal(small, wanted)
