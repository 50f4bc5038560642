"""The transforms: exact inverses, and the norms that the ladder relies on."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcodec.quantized import ladder, schedule
from diffcodec.quantized.ladder import white
from diffcodec.quantized.pyramid import Process
from diffcodec.transforms import interpolation, rgb_to_ycocg, wavelet, ycocg_to_rgb
from diffcodec.transforms.wavelet import details_shape

BOTH = pytest.mark.parametrize("transform", [wavelet, interpolation])
SIDES = st.one_of(st.just(1), st.integers(1, 40))
INT32 = 1 << 31


def integers(seed, *shape, low=-INT32, high=INT32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, shape, generator=generator).to(torch.int32)


@given(st.integers(0, 999), SIDES, SIDES)
@settings(deadline=None)
def test_colour_inverts_exactly(seed, height, width):
    rgb = integers(seed, 2, 3, height, width, low=-(1 << 20), high=1 << 20)
    assert torch.equal(ycocg_to_rgb(rgb_to_ycocg(rgb)), rgb)


def test_colour_of_every_extreme_stays_in_its_range():
    ends = torch.tensor([0, 1, 127, 128, 254, 255], dtype=torch.int32)
    luma, co, cg = rgb_to_ycocg(torch.cartesian_prod(ends, ends, ends).T[:, :, None]).unbind(0)
    assert (int(luma.min()), int(luma.max())) == (0, 255)
    assert (int(co.min()), int(co.max())) == (-255, 255)
    assert (int(cg.min()), int(cg.max())) == (-255, 255)


def test_grey_has_no_colour():
    grey = torch.arange(256, dtype=torch.int32).expand(3, 1, 256)
    luma, co, cg = rgb_to_ycocg(grey).unbind(0)
    assert torch.equal(luma, grey[0])
    assert not co.any()
    assert not cg.any()


@BOTH
@given(st.integers(0, 999), SIDES, SIDES)
@settings(deadline=None)
def test_details_invert_exactly(transform, seed, height, width):
    image = integers(seed, 2, height, width)  # lifting inverts even what overflows
    low, details = transform.forward(image)
    assert torch.equal(transform.inverse(low, details, height, width), image)


@BOTH
@given(SIDES, SIDES)
@settings(deadline=None)
def test_details_are_real_only_inside_their_shape(transform, height, width):
    image = integers(height * 41 + width, height, width, low=-999, high=999)
    _, details = transform.forward(image)
    count = math.prod((-(-height // 2), -(-width // 2)))
    for band, (rows, columns) in enumerate(details_shape(height, width)):
        count += rows * columns
        outside = details[band].clone()
        outside[:rows, :columns] = 0
        assert not outside.any()
    assert count == height * width  # a critically sampled transform


@BOTH
@given(st.integers(-(1 << 20), 1 << 20), SIDES, SIDES)
@settings(deadline=None)
def test_a_constant_has_no_details(transform, value, height, width):
    low, details = transform.forward(torch.full((height, width), value, dtype=torch.int32))
    assert (low == value).all()
    assert not details.any()


@BOTH
@given(st.integers(-9, 9), st.integers(-9, 9), st.integers(4, 30), st.integers(4, 30))
@settings(deadline=None)
def test_a_ramp_has_no_details_inside(transform, down, right, height, width):
    ramp = down * torch.arange(height)[:, None] + right * torch.arange(width)
    low, details = transform.forward(ramp)
    assert not details[:, :-1, :-1].any()
    assert torch.equal(low[:-1, :-1], ramp[::2, ::2][:-1, :-1])


@given(st.integers(0, 999), SIDES, SIDES)
@settings(deadline=None)
def test_interpolation_tells_samples_against_means_around_them(seed, rows, columns):
    image = integers(seed, rows, columns, low=-999, high=999)
    low, (across, down, diagonal) = interpolation.forward(image)
    assert torch.equal(low, image[::2, ::2])
    for r in range(rows - 2):
        for c in range(columns - 2):
            beside, above = image[r, c - 1 : c + 2 : 2], image[r - 1 : r + 2 : 2, c]
            if r % 2 == 0 and c % 2:
                assert across[r // 2, c // 2] == image[r, c] - (beside.sum() >> 1)
            elif r % 2 and c % 2 == 0:
                assert down[r // 2, c // 2] == image[r, c] - (above.sum() >> 1)
            elif r % 2:
                mean = beside.sum() + above.sum() + 2 >> 2
                assert diagonal[r // 2, c // 2] == image[r, c] - mean


def impulse_norm(level, band):
    """The L2 norm of what one coefficient (band 0, 1, 2, or None: the low band) adds."""
    height, size = 1 << 20, 512  # so high an impulse that rounding does not count
    side = size >> level
    low = torch.zeros((side, side), dtype=torch.int64)
    details = torch.zeros((3, side, side), dtype=torch.int64)
    (low if band is None else details[band])[side // 2, side // 2] = height
    for step in range(level, 0, -1):
        size_now = size >> step - 1
        low = wavelet.inverse(low, details, size_now, size_now)
        details = torch.zeros((3, *low.shape), dtype=torch.int64)
    return float(low.double().norm()) / height


@pytest.mark.parametrize("level", range(1, schedule.LEVELS + 1))
def test_the_ladder_uses_the_norms_of_the_wavelet(level):
    side, diagonal = ladder._DETAIL_NORMS[level - 1]
    assert impulse_norm(level, 0) == pytest.approx(side, rel=0.02)
    assert impulse_norm(level, 1) == pytest.approx(side, rel=0.02)
    assert impulse_norm(level, 2) == pytest.approx(diagonal, rel=0.02)
    assert impulse_norm(level, None) == pytest.approx(ladder._LOW_NORMS[level], rel=0.02)


def test_the_ladder_uses_the_norms_of_the_colours():
    for channel, norm in enumerate(ladder._COLOUR_NORMS):
        impulse = torch.zeros((3, 1, 1), dtype=torch.int64)
        impulse[channel] = 1 << 20
        assert float(ycocg_to_rgb(impulse).double().norm()) / (1 << 20) == pytest.approx(
            norm, rel=1e-3
        )


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_levels_are_as_many_as_a_side_can_be_halved(height, width):
    longest, halvings = max(height, width), 0
    while longest > 1 and halvings < schedule.LEVELS:
        longest, halvings = -(-longest // 2), halvings + 1
    assert Process(white()).pyramid(height, width).levels == halvings


@given(st.integers(0, 999), SIDES, SIDES, st.integers(0, 5))
@settings(deadline=None, max_examples=30)
def test_black_and_white_pictures_start_in_the_zero_cells(seed, height, width, interpolated):
    picture = 255 * integers(seed, 1, 3, height, width, low=0, high=2)
    pyramid = Process(white(), interpolated).pyramid(height, width)
    for level, values in pyramid.analyse(picture).items():
        assert not (values.abs() >> pyramid.planes(pyramid.top, level)).any()
        assert not (values * ~pyramid.exists(level)).any()


@given(st.integers(0, 999), SIDES, SIDES, st.integers(0, 5))
@settings(deadline=None, max_examples=30)
def test_synthesis_undoes_analysis(seed, height, width, interpolated):
    picture = integers(seed, 1, 3, height, width, low=0, high=256)
    pyramid = Process(white(), interpolated).pyramid(height, width)
    assert torch.equal(pyramid.rebuild(pyramid.analyse(picture)), picture)
