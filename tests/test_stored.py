"""The stored form: what goes in comes out, and every prefix is a picture."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import diffcodec
from diffcodec import container, stored
from diffcodec.errors import CorruptError
from diffcodec.streaming import Source, Stream

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40))
DEPTHS = st.sampled_from([8, 16])


def noise(shape, depth, seed=0):
    random = np.random.default_rng(seed)
    return random.integers(0, 1 << depth, shape, dtype=f"u{depth // 8}")


def header(planes):
    channels, height, width = planes.shape
    return container.Header(
        codec=container.STORED,
        mode=container.MODES[channels - 1],
        width=width,
        height=height,
        model=b"",
        checksum=container.checksum(planes),
        stream_bytes=planes.nbytes,
        lossless=True,
        depth=8 * planes.itemsize,
    )


@given(SHAPES, DEPTHS)
@settings(deadline=None)
def test_pictures_come_back(shape, depth):
    planes = noise(shape, depth)
    stream = stored.encode(planes)
    assert len(stream) == planes.nbytes
    decoded = stored.decode(header(planes), stream)
    assert decoded.dtype.itemsize == planes.itemsize
    assert np.array_equal(decoded, planes)


@given(SHAPES, DEPTHS, st.data())
@settings(deadline=None)
def test_a_prefix_is_a_picture_of_known_pixels(shape, depth, data):
    planes = noise(shape, depth)
    stream = stored.encode(planes)
    length = data.draw(st.integers(0, len(stream)))
    shown = stored.decode(header(planes), stream[:length])
    assert shown.shape == planes.shape
    pixels = length // (shape[0] * depth // 8)
    assert (shown == planes).all(0).sum() >= pixels
    known = {tuple(pixel) for pixel in planes.reshape(shape[0], -1).T} if pixels else set()
    grey = {(1 << depth - 1,) * shape[0]}
    assert {tuple(pixel) for pixel in shown.reshape(shape[0], -1).T} <= (known or grey)


@given(SHAPES, DEPTHS)
@settings(deadline=None)
def test_the_ends_of_grids_are_reduced_pictures(shape, depth):
    planes = noise(shape, depth)
    stream = stored.encode(planes)
    ends = list(stored.ends(header(planes), stream))
    assert ends[-1] == (stored.FINISH, len(stream))
    for number, end in ends:
        spacing = 1 << number - stored.FINISH
        shown = stored.decode(header(planes), stream[:end])
        rows, columns = (np.arange(side) // spacing * spacing for side in shape[1:])
        assert np.array_equal(shown, planes[:, rows][:, :, columns])


@pytest.mark.parametrize("depth", [8, 16])
def test_the_layout_is_that_of_the_format(depth):
    planes = np.arange(6, dtype=f"u{depth // 8}").reshape(1, 2, 3)
    assert (
        stored.encode(planes)
        == planes.ravel()[[0, 2, 1, 3, 4, 5]].astype(f"<u{depth // 8}").tobytes()
    )


@given(SHAPES, DEPTHS, st.data())
@settings(deadline=None)
def test_previews_are_the_ends_of_grids_and_what_is_left(shape, depth, data):
    planes = noise(shape, depth)
    one, stream = header(planes), stored.encode(planes)
    length = data.draw(st.integers(0, len(stream)))
    shown = list(stored.previews(one, Stream(Source(stream[:length]), 0, len(stream))))
    ends = list(stored.ends(one, stream[:length]))
    assert [(rung, end) for end, rung, _, _ in shown[: len(ends)]] == ends
    assert [last for _, _, last, _ in shown] == [False] * (len(shown) - 1) + [True]
    assert np.array_equal(shown[-1][3], stored.decode(one, stream[:length]))
    assert shown[-1][0] == length


def test_damage_is_noticed_once_all_is_there():
    planes = noise((3, 5, 4), 8)
    damaged = b"\0" + stored.encode(planes)[1:]
    stored.decode(header(planes), damaged[:-1])
    with pytest.raises(CorruptError):
        stored.decode(header(planes), damaged)


# --- files ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[8, 16])
def coded(request):
    """Noise and its file."""
    pixels = np.moveaxis(noise((3, 40, 50), request.param), 0, -1)
    return pixels, diffcodec.encode(pixels)


def test_noise_is_stored_and_comes_back(coded):
    pixels, data = coded
    found = diffcodec.info(data)
    assert len(data) <= 1.001 * pixels.nbytes + 23
    assert found.lossless
    assert found.complete
    assert found.model == ""
    assert [rung.rung for rung in found.rungs] == [7, 6, 5, 4, 3, 2, 1]
    assert found.rungs[-1].bytes == len(data) == found.total_bytes
    assert np.array_equal(diffcodec.decode_array(data), pixels)


def test_prefixes_of_stored_files_are_pictures(coded):
    pixels, data = coded
    start = container.read(data).start
    for length in range(start, len(data), 997):
        assert diffcodec.decode_array(data[:length]).shape == pixels.shape
        assert not diffcodec.info(data[:length]).complete
    assert np.array_equal(
        diffcodec.decode_array(data, max_bytes=5000), diffcodec.decode_array(data[:5000])
    )
    rungs = [preview.rung for preview in diffcodec.decode_progressive(io.BytesIO(data))]
    assert rungs == [7, 6, 5, 4, 3, 2, 1]


def test_limits_below_the_samples_are_kept_and_others_change_nothing(coded):
    pixels, data = coded
    assert diffcodec.encode(pixels, max_bytes=len(data)) == data
    assert diffcodec.encode(pixels, psnr=300) == data
    assert len(diffcodec.encode(pixels, max_bytes=4000)) == 4000
    lossy = diffcodec.encode(pixels, psnr=12)
    assert len(lossy) < len(data) // 2
    assert not diffcodec.info(lossy, rungs=False).lossless


def test_a_damaged_stored_file_is_noticed(coded):
    _, data = coded
    with pytest.raises(CorruptError):
        diffcodec.decode_array(data[:-1] + bytes([data[-1] ^ 1]))
