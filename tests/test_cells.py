"""Cells and their refinement: what is coded, what it costs, and what is expected of the rest."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcodec.entropy import RangeDecoder, RangeEncoder
from diffcodec.exact.cdf import MEAN_UNITS, MIN_LOG_SCALE, SCALE_UNITS, SCALES, TAIL, CdfTable
from diffcodec.quantized import cells
from diffcodec.quantized.refine import Conditional, in_sets, refine

TABLE = CdfTable.gaussian()
VALUES, PLANES = st.integers(-(1 << 16), 1 << 16), st.integers(0, 17)


def tensor(numbers):
    return torch.tensor(numbers, dtype=torch.int32)


def edges(floor, plane):
    low, high = cells.double_edges(tensor(floor), tensor(plane))
    return int(low), int(high)


def conditional(floors, planes, mean, scale):
    """Means in 1/256 cells and scale indices, in the frames of the given cells."""
    middle = cells.double_midpoint(floors, planes)
    return Conditional(TABLE, middle, planes, mean, scale)


@given(VALUES, PLANES, PLANES)
def test_cells_nest(value, plane, other):
    fine, coarse = sorted((plane, other))
    inner = cells.floor(tensor(value), tensor(fine))
    outer = cells.floor(tensor(value), tensor(coarse))
    assert int(cells.floor(inner, tensor(coarse))) == int(outer)
    low, high = edges(int(inner), fine)
    outer_low, outer_high = edges(int(outer), coarse)
    assert outer_low <= low < high <= outer_high


@given(VALUES, PLANES)
def test_edges_enclose_the_value_its_floor_and_its_reconstruction(value, plane):
    floor = cells.floor(tensor(value), tensor(plane))
    low, high = edges(int(floor), plane)
    rebuilt = int(cells.reconstruct(floor, tensor(plane)))
    for inside in (value, int(floor), rebuilt):
        assert low < 2 * inside < high
    assert int(cells.double_midpoint(floor, tensor(plane))) == (low + high) // 2


@pytest.mark.parametrize("plane", range(5))
def test_edges_bracket_exactly_the_integers_of_a_cell(plane):
    numbers = torch.arange(-70, 71, dtype=torch.int32)
    floors = cells.floor(numbers, tensor(plane))
    for floor in floors[(floors.abs() < 48)].unique().tolist():
        low, high = edges(floor, plane)
        inside = numbers[(2 * numbers > low) & (2 * numbers < high)]
        assert torch.equal(inside, numbers[floors == floor])
        assert low % 2 == high % 2 == 1  # half-way between integers


COEFFICIENT = st.tuples(
    st.integers(-(1 << 13), 1 << 13),
    st.integers(0, 12),  # plane before
    st.integers(0, 12),  # planes that are told
    st.integers(-1024, 1024),
    st.integers(0, SCALES - 1),
)


def plainly(floors, before, after, gaussians, coder, truth):
    """`refine` without calibration and learner."""
    diagonal = torch.zeros(floors.shape, dtype=torch.bool)
    code = lambda kinds, probabilities, bits: coder.code(probabilities, bits)  # noqa: E731
    sets = zip(in_sets(slice(0, len(floors)), 16))
    return refine(floors, before, after, gaussians, diagonal, code, truth, sets, None)


@given(st.lists(COEFFICIENT, min_size=1, max_size=60))
@settings(deadline=None, max_examples=80)
def test_refined_coefficients_come_back(coefficients):
    values, before, told, mean, scale = (tensor(c) for c in zip(*coefficients, strict=True))
    after = (before - told).clamp_min(0)
    floors = cells.floor(values, before)
    gaussians = conditional(floors, before, mean, scale)
    encoder = RangeEncoder()
    written, _ = plainly(floors, before, after, gaussians, encoder, values)
    assert torch.equal(written, cells.floor(values, after))
    decoder = RangeDecoder(encoder.to_bytes(), complete=True)
    read, reached = plainly(floors, before, after, gaussians, decoder, None)
    assert torch.equal(read, written)
    assert torch.equal(reached, after)


def mixture_cdf(z):
    z = min(8.0, max(-8.0, z))
    return (1 - 16 * TAIL) * 0.5 * math.erfc(-z / math.sqrt(2)) + TAIL * (z + 8)


def ideal_bits(value, before, after, mean, scale):
    """-log2 of the mass of the refined cell inside the old one, in coefficients."""
    floor = int(cells.floor(tensor(value), tensor(before)))
    outer = edges(floor, before)
    inner = edges(int(cells.floor(tensor(value), tensor(after))), after)
    mass = [
        mixture_cdf((high / 2 - mean) / scale) - mixture_cdf((low / 2 - mean) / scale)
        for low, high in (outer, inner)
    ]
    return math.log2(mass[0] / mass[1])


@pytest.mark.parametrize("after", [0, 2, 5])
@pytest.mark.parametrize("centre", [0, 100, -100])
def test_cost_is_the_information_of_the_gaussian(after, centre):
    random, n, before = np.random.default_rng(after), 1500, 6
    index = torch.from_numpy(random.integers(SCALES // 3, SCALES - 20, n))
    offset = torch.from_numpy(random.integers(-200, 200, n).astype(np.int32))
    floors = cells.floor(tensor([centre] * n), tensor(before))
    planes = tensor([before] * n)
    # The Gaussians that the integers stand for, in coefficients.
    means = (cells.double_midpoint(floors, planes) / 2 + offset * 2**before / MEAN_UNITS).numpy()
    scales = (2.0**before * 2 ** (index / SCALE_UNITS + MIN_LOG_SCALE)).numpy()
    low, high = edges(int(floors[0]), before)
    drawn = np.rint(random.normal(means, scales)).clip(low // 2 + 1, high // 2)
    values = tensor(drawn.astype(int).tolist())
    encoder = RangeEncoder()
    gaussians = conditional(floors, planes, offset, index)
    plainly(floors, planes, tensor([after] * n), gaussians, encoder, values)
    ideal = sum(
        ideal_bits(int(v), before, after, m, s)
        for v, m, s in zip(values, means, scales, strict=True)
    )
    assert encoder.bits_used == pytest.approx(ideal, rel=0.005, abs=3)
