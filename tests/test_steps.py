"""Near-lossless files: no sample is farther from its original than was allowed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import pixels

import diffcodec
from diffcodec import container, steps
from diffcodec.errors import FormatError


@given(st.sampled_from([8, 16]), st.data())
def test_no_value_is_farther_than_half_a_step(depth, data):
    error = data.draw(st.integers(1, (1 << depth - 1) - 1))
    header = container.Header(0, "L", 1, 1, b"", 0, 0, True, depth=depth, step=2 * error + 1)
    values = np.arange(1 << depth, dtype=f"u{depth // 8}")[None, None]
    numbers = steps.numbers(header, values)
    back = steps.values(header, numbers)
    assert np.abs(back.astype(int) - values).max() <= error
    assert np.array_equal(steps.numbers(header, back), numbers)
    assert numbers.max() == ((1 << depth) - 1 + error) // (2 * error + 1)


@pytest.mark.parametrize("process", ["photo", "drawing", "auto"])
@pytest.mark.parametrize(("mode", "depth"), [("L", 8), ("LA", 16), ("RGB", 16), ("RGBA", 8)])
def test_errors_stay_within_the_bound_and_alpha_is_exact(process, mode, depth):
    planes = pixels(20, 24).numpy().astype(f"u{depth // 8}") * (257 if depth == 16 else 1)
    array = np.stack([planes[n % 3] for n in range(len(mode))], -1)
    array = array[..., 0] if mode == "L" else array
    for error in (1, 9):
        data = diffcodec.encode(array, max_error=error, process=process)
        found, back = diffcodec.info(data, rungs=False), diffcodec.decode_array(data)
        assert (found.max_error, found.lossless) == (error, False)
        assert back.dtype == array.dtype and np.abs(back.astype(int) - array).max() <= error
        if mode.endswith("A"):
            assert np.array_equal(back[..., -1], array[..., -1])


def test_larger_errors_make_smaller_files_and_their_prefixes_are_pictures(tiny_path):
    array = pixels(64, 64).numpy().transpose(1, 2, 0)
    files = [diffcodec.encode(array, max_error=n, model=tiny_path) for n in (0, 1, 3, 10)]
    assert sorted(map(len, files), reverse=True) == list(map(len, files))
    data = files[2]
    last = list(diffcodec.decode_progressive(data, model=tiny_path))[-1]
    assert last.complete and np.abs(np.asarray(last.image, int) - array).max() <= 3
    middle = diffcodec.decode_array(data[: len(data) // 2], model=tiny_path)
    cut = next(diffcodec.decode_cuts(data, [len(data) // 2], model=tiny_path))
    assert np.array_equal(cut, middle)
    assert np.abs(middle.astype(int) - array).mean() < 12
    assert diffcodec.info(data[:99], rungs=False).max_error == 3


@settings(max_examples=20, deadline=None)
@given(st.integers(-3, 300))
def test_impossible_errors_are_refused(error):
    array = np.full((4, 4), 7, np.uint8)
    if 0 <= error <= 127:
        back = diffcodec.decode_array(diffcodec.encode(array, max_error=error))
        assert np.abs(back.astype(int) - array).max() <= error
    else:
        with pytest.raises(FormatError, match="steps of"):
            diffcodec.encode(array, max_error=error)


def test_a_bound_goes_with_no_other_limit():
    for limit in ({"bpp": 1.0}, {"max_bytes": 99}, {"psnr": 30.0}):
        with pytest.raises(ValueError, match="no other limit"):
            diffcodec.encode(np.zeros((4, 4), np.uint8), max_error=1, **limit)
