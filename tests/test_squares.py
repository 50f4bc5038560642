"""Squares that sleep: which they are, what is coded of them, and that nothing is lost by them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcodec.entropy import RangeDecoder, RangeEncoder
from diffcodec.quantized import cells, model, squares
from diffcodec.quantized.calibration import WAKING, Calibration
from diffcodec.quantized.codec import walk
from diffcodec.quantized.model import Model
from diffcodec.quantized.schedule import FINISH, LOW, TOP_RUNG
from diffcodec.quantized.squares import SIDE
from diffcodec.quantized.state import State
from diffcodec.training.chances import square_chances

SHAPE = (TOP_RUNG, LOW, 3, squares.CONTEXTS)
SIZES = st.tuples(st.integers(1, 3 * SIDE), st.integers(1, 3 * SIDE))


@pytest.fixture(scope="module")
def sleeping() -> Model:
    """A small model whose squares sleep, with odds of no particular picture."""
    odds = torch.randint(1, 1 << 16, SHAPE, generator=torch.Generator().manual_seed(0))
    return replace(model.load(model.THUMBNAIL), squares=odds.int())


def calm(height, width):
    """Noise in a corner, colours without any detail elsewhere; integers [3, height, width]."""
    planes = torch.full((3, height, width), 90)
    planes[1] += 30
    noise = torch.randint(0, 256, (3, 40, 40), generator=torch.Generator().manual_seed(1))
    planes[:, :40, :40] = noise[:, :height, :width]
    return planes


@given(SIZES, st.data())
@settings(deadline=None, max_examples=40)
def test_a_square_is_awake_if_it_holds_anything(size, data):
    height, width = size
    magnitudes = torch.zeros((1, 9, height, width), dtype=torch.int32)
    places = st.tuples(st.integers(0, 8), st.integers(0, height - 1), st.integers(0, width - 1))
    expected = torch.zeros((3, -(-height // SIDE), -(-width // SIDE)), dtype=torch.bool)
    for channel, row, column in data.draw(st.lists(places, max_size=4)):
        magnitudes[0, channel, row, column] = -3
        expected[channel // 3, row // SIDE, column // SIDE] = True
    awake = squares.awake(magnitudes)
    assert torch.equal(awake, expected)
    for colour in range(3):
        positions = squares.positions(awake[colour], height, width)
        assert positions.shape == size
        for row, column in ((0, 0), (height - 1, width - 1), (height // 2, width // 3)):
            square = awake[colour, row // SIDE, column // SIDE]
            assert bool(positions[row, column]) == bool(square)


@given(st.integers(1, 5), st.integers(1, 5))
def test_every_part_of_a_case_counts(rows, columns):
    none = torch.zeros((rows, columns), dtype=torch.bool)
    coarser = torch.zeros((-(-rows // 2), -(-columns // 2)), dtype=torch.bool)
    assert not squares.contexts(none, coarser, None).any()
    parent = coarser.clone()
    parent[-1, -1] = True  # the coarser level's last square lies under the last two of this one
    told = squares.contexts(none, parent, None) > 0
    row, column = (torch.arange(n) // 2 == (n - 1) // 2 for n in (rows, columns))
    assert torch.equal(told, row[:, None] & column)
    assert (squares.contexts(none, coarser, ~none) > 0).all()
    case = squares.contexts(~none, ~coarser, ~none)
    assert int(case.max()) < squares.CONTEXTS
    if min(rows, columns) >= 3:
        assert int(case[1, 1]) > int(case[0, 0])  # with more neighbours awake


@pytest.mark.parametrize("size", [(40, 150), (131, 47)])
def test_pictures_with_calm_squares_come_back(sleeping, size):
    planes = calm(*size)
    encoder = RangeEncoder()
    rungs = list(walk(sleeping, [State.of_image(planes)], encoder))
    state = State.empty(*size, 3)
    decoder = RangeDecoder(encoder.to_bytes(), complete=True)
    assert list(walk(sleeping, [state], decoder)) == rungs
    exact = State.of_image(planes).values
    assert exact is not None
    for level, values in exact.items():
        assert torch.equal(state.floors[level], values)


def test_what_a_prefix_tells_of_calm_squares_is_true(sleeping):
    planes = calm(40, 150)
    encoder = RangeEncoder()
    list(walk(sleeping, [State.of_image(planes)], encoder))
    data, values = encoder.to_bytes(), State.of_image(planes).values
    assert values is not None
    ends = np.random.default_rng(0).integers(0, len(data), 40)
    for end in ends.tolist():
        state = State.empty(40, 150, 3)
        list(walk(sleeping, [state], RangeDecoder(data[:end], complete=False)))
        for level, floors in state.floors.items():
            assert torch.equal(floors, cells.floor(values[level], state.planes[level]))


def test_nothing_is_coded_of_a_square_that_sleeps(sleeping, monkeypatch):
    code = Calibration.code

    def spy(self, coder, group, kinds, *rest, **options):
        coded[group[0]] += int((kinds != WAKING).sum())
        return code(self, coder, group, kinds, *rest, **options)

    monkeypatch.setattr(Calibration, "code", spy)
    grey = calm(60, 150)[:1].expand(3, -1, -1)  # three equal planes: no chroma at all
    coded = [0, 0, 0]
    list(walk(sleeping, [State.of_image(grey)], RangeEncoder()))
    assert coded[0] > 3 * 40 * 40
    assert coded[1:] == [0, 0]
    coded = [0, 0, 0]
    list(walk(replace(sleeping, squares=None), [State.of_image(grey)], RangeEncoder()))
    assert min(coded) > 60 * 150


def test_odds_are_counted():
    awake = square_chances([torch.randint(0, 256, (3, 150, 150), dtype=torch.uint8)])
    still = square_chances([calm(150, 150).to(torch.uint8)])
    assert awake.shape == still.shape == SHAPE
    assert int(torch.minimum(awake, still).min()) > 0
    assert int(torch.maximum(awake, still).max()) < 1 << 16
    # The level's other luma squares, with nothing awake around them but the corner's.
    first = (FINISH, 0, 0)
    assert int(still[first][0]) < 1 << 15  # those that have no neighbour awake stay asleep
    assert int(awake.sum()) > int(still.sum())
