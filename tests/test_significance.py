"""Significance of blocks: which have left zero, and what is coded of them."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcodec.quantized import significance
from diffcodec.quantized.significance import SIDE

SIZES = st.tuples(st.integers(1, 3 * SIDE), st.integers(1, 3 * SIDE))


@given(SIZES, st.data())
@settings(deadline=None, max_examples=40)
def test_a_block_is_significant_if_it_holds_anything(size, data):
    height, width = size
    magnitudes = torch.zeros((1, 9, height, width), dtype=torch.int32)
    places = st.tuples(st.integers(0, 8), st.integers(0, height - 1), st.integers(0, width - 1))
    expected = torch.zeros((3, -(-height // SIDE), -(-width // SIDE)), dtype=torch.bool)
    for channel, row, column in data.draw(st.lists(places, max_size=4)):
        magnitudes[0, channel, row, column] = -3
        expected[channel // 3, row // SIDE, column // SIDE] = True
    found = significance.significant(magnitudes)
    assert torch.equal(found, expected)
    for colour in range(3):
        positions = significance.positions(found[colour], height, width)
        assert positions.shape == size
        for row, column in ((0, 0), (height - 1, width - 1), (height // 2, width // 3)):
            block = found[colour, row // SIDE, column // SIDE]
            assert bool(positions[row, column]) == bool(block)


@given(st.integers(1, 5), st.integers(1, 5))
def test_every_part_of_a_case_counts(rows, columns):
    none = torch.zeros((rows, columns), dtype=torch.bool)
    coarser = torch.zeros((-(-rows // 2), -(-columns // 2)), dtype=torch.bool)
    assert not significance.contexts(none, coarser, None).any()
    parent = coarser.clone()
    parent[-1, -1] = True  # the coarser level's last block lies under the last two of this one
    below = significance.contexts(none, parent, None) > 0
    row, column = (torch.arange(n) // 2 == (n - 1) // 2 for n in (rows, columns))
    assert torch.equal(below, row[:, None] & column)
    assert (significance.contexts(none, coarser, ~none) > 0).all()
    case = significance.contexts(~none, ~coarser, ~none)
    assert int(case.max()) < significance.CONTEXTS
    if min(rows, columns) >= 3:
        assert int(case[1, 1]) > int(case[0, 0])  # with more neighbours significant
