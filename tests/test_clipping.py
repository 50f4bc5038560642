"""Clipped colours get the chroma that was doubled, where they can have it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from diffcodec.transforms import spaces
from diffcodec.transforms.clipping import between, unclip
from diffcodec.transforms.doubling import Doubling, low_band
from diffcodec.transforms.interpolation import HALVED
from diffcodec.transforms.spaces import SPACES, Space

INSIDE = slice(1, -1), slice(1, -1)
"""Of a low band what is known as well where an image was cut out at an odd row or column."""

DOUBLED = [space for space in SPACES if space.halved is not None]
WHOLE = DOUBLED[:3]


def smooth(seed: int, height: int, width: int, low: float, high: float) -> NDArray:
    """Waves between two values, int32 [height, width]."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.sin(x / random.uniform(5, 9) + 1) * np.cos(y / random.uniform(5, 9))
    return np.rint(low + (high - low) * (1 + waves) / 2).astype(np.int32)


def bright(space: Space, height: int, width: int) -> NDArray:
    """RGB uint8 [3, height, width] of doubled chroma, some of it clipped."""
    halves = -(-height // 2), -(-width // 2)
    low = torch.from_numpy(np.stack([smooth(n, *halves, 110, 170) for n in (1, 2)]))
    none = low.new_zeros((2, 3, *halves))
    chroma = space.chroma.inverse(low, none, height, width)
    luma = torch.from_numpy(smooth(3, height, width, 60, 250))
    rgb: NDArray = spaces.to_rgb(space, torch.cat((luma[None], chroma))).numpy()
    return rgb.astype(np.uint8)


def details(space: Space, planes: NDArray) -> int:
    """How many details of chroma are not zero."""
    return int((space.chroma.forward(torch.from_numpy(planes[1:].astype(np.int32)))[1] != 0).sum())


@pytest.mark.parametrize("space", DOUBLED)
@pytest.mark.parametrize("size", [(64, 80), (61, 47), (1, 5), (300, 20)])
def test_few_details_are_left_and_the_picture_stays(space, size):
    rgb = bright(space, *size)
    before = spaces.from_rgb(space, rgb)
    assert before is not None
    after = before.copy()
    unclip(space, rgb, after)
    assert np.array_equal(spaces.to_rgb(space, torch.from_numpy(after)).numpy(), rgb)
    clear = ((rgb > 0) & (rgb < 255)).all(0)
    assert np.array_equal(after[:, clear], before[:, clear])
    if min(size) > 20:
        assert 0.02 < 1 - clear.mean() < 0.5
        assert details(space, after) < 0.7 * details(space, before)


def test_what_is_not_clipped_is_not_looked_at(monkeypatch):
    monkeypatch.setattr("diffcodec.transforms.clipping._expected", None)
    rgb = np.full((3, 20, 20), 100, np.uint8)
    planes = spaces.from_rgb(SPACES[3], rgb)
    unclip(SPACES[3], rgb, planes)
    assert (planes[0] == 100).all()


def away(space: Space, seed: int, height: int, width: int) -> NDArray:
    """How far the low band that is found is from the one of noise that was doubled."""
    low = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (1, height, width)))
    known = np.ones((2 * height, 2 * width), bool)
    image = space.chroma.inverse(low, low.new_zeros((1, 3, height, width)), *known.shape)
    found: NDArray = np.abs(space.halved(image[0].numpy(), known) - low[0].numpy())
    return found


@given(st.integers(0, 1 << 30), st.integers(2, 20), st.integers(2, 20))
@settings(deadline=None, max_examples=30)
def test_the_low_band_of_a_doubled_image_is_found(seed, height, width):
    for space in WHOLE:
        assert away(space, seed, height, width).mean() < 0.75


@given(st.integers(0, 1 << 30), st.integers(16, 24), st.integers(16, 24))
@settings(deadline=None, max_examples=30)
def test_the_low_band_of_what_was_cut_out_is_found(seed, height, width):
    for space in DOUBLED[len(WHOLE) :]:
        assert away(space, seed, height, width)[INSIDE].mean() < 0.75


@given(st.integers(0, 1 << 30), st.integers(1, 9), st.integers(1, 9))
@settings(deadline=None, max_examples=30)
def test_a_low_band_has_the_least_squares(seed, height, width):
    """Of images that nothing was doubled to; the solution is rounded to integers."""
    how = Doubling((0.75, 0.25), (0.75, 0.25), lost=0.0)
    image = np.random.default_rng(seed).integers(0, 256, (2 * height, 2 * width))
    matrix = np.kron(doubling_matrix(height), doubling_matrix(width))
    best = np.linalg.lstsq(matrix, image.ravel(), rcond=None)[0].reshape(height, width)
    found = low_band(image, np.ones(image.shape, bool), how)
    assert np.abs(found - best).max() < 0.5 + 1


def doubling_matrix(count: int) -> NDArray:
    """What makes 2 * count samples, each three quarters of the nearest one, of others."""
    matrix = np.zeros((2 * count, count))
    for place in range(2 * count):
        beside = min(max(place // 2 + (1 if place % 2 else -1), 0), count - 1)
        matrix[place, place // 2] += 0.75
        matrix[place, beside] += 0.25
    return matrix


@pytest.mark.parametrize("space", DOUBLED)
def test_what_is_not_known_follows_from_the_rest(space):
    low = torch.from_numpy(smooth(5, 12, 14, 0, 255))[None]
    image = space.chroma.inverse(low, low.new_zeros((1, 3, 12, 14)), 24, 28)[0].numpy()
    known, broken = np.ones(image.shape, bool), image.copy()
    for place in ((7, 9), (16, 20)):
        known[place] = False
        broken[place] ^= 100
    found = space.halved(broken, known)
    known = ... if space in WHOLE else INSIDE
    assert np.abs(found - low[0].numpy())[known].max() <= 1


@given(st.integers(0, 1 << 30), st.integers(1, 9), st.integers(1, 9))
@settings(deadline=None, max_examples=30)
def test_samples_between_kept_ones_are_those_of_the_transform(seed, height, width):
    image = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (1, height, width)))
    low, details = HALVED.forward(image)
    doubled = HALVED.inverse(low, torch.zeros_like(details), height, width)[0]
    for row, column in np.ndindex(height, width):
        assert between(image[0].numpy(), row, column) == doubled[row, column]


@given(st.integers(0, 1 << 30), st.integers(1, 24), st.integers(1, 24), st.sampled_from(DOUBLED))
@settings(deadline=None, max_examples=40)
def test_any_picture_stays(seed, height, width, space):
    planes = np.random.default_rng(seed).integers(0, 256, (3, height, width), np.uint8)
    rgb = spaces.to_rgb(space, torch.from_numpy(planes)).numpy().astype(np.uint8)
    unclip(space, rgb, planes)
    assert np.array_equal(spaces.to_rgb(space, torch.from_numpy(planes)).numpy(), rgb)
