"""Cells: they nest, and hold the values that they stand for."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffcodec.quantized import cells

VALUES, PLANES = st.integers(-(1 << 16), 1 << 16), st.integers(0, 17)


def tensor(numbers):
    return torch.tensor(numbers, dtype=torch.int32)


def edges(floor, plane):
    low, high = cells.double_edges(tensor(floor), tensor(plane))
    return int(low), int(high)


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
