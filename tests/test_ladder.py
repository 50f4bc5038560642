"""The ladder: tables of integers that follow the transform's norms, and lead to exact values."""

import math

import pytest
import torch

from diffcodec.errors import ModelError
from diffcodec.quantized.ladder import HEIGHT, Ladder, white
from diffcodec.quantized.pyramid import Process
from diffcodec.quantized.schedule import FINISH, LEVELS, LOW, RUNGS, TOP_RUNG, Step


def norm(level, channel):
    """What an error of one in a coefficient makes of the pixels: the L2 norm, measured."""
    pyramid, size, large = Process(white()).pyramid(256, 256, 16), 256 >> level, 1 << 10
    values = {
        n: torch.zeros((1, 9, *pyramid.size(n)), dtype=torch.int32) for n in pyramid.coarse_to_fine
    }
    grey = pyramid.rebuild(values)
    values[level if channel < 9 else LOW][0, channel % 9, size // 2, size // 2] = large
    return float((pyramid.rebuild(values) - grey).double().square().sum().sqrt()) / large


@pytest.mark.parametrize("level", range(1, LEVELS + 1))
@pytest.mark.parametrize("channel", range(9))
def test_the_white_ladder_follows_the_norms(level, channel):
    planes = white().planes(10, level, LEVELS).flatten()
    # A tie of log2 (Co's norm is one) may go either way.
    assert abs(10 - math.log2(norm(level, channel)) - int(planes[channel])) < 0.56


def test_levels_can_come_later():
    late, level = white({1: 1}), 1
    for rung in range(FINISH + 1, TOP_RUNG):
        assert torch.equal(
            late.planes(rung, level, LEVELS), white().planes(rung + 1, level, LEVELS)
        )
        assert torch.equal(late.planes(rung, 2, LEVELS), white().planes(rung, 2, LEVELS))
    assert not late.planes(FINISH, level, LEVELS).any()
    assert late.index(Step(3, 1)) == white().index(Step(4, 1))
    assert late.index(Step(FINISH, 1)) == (0, 0)


@pytest.mark.parametrize("ladder", [white(), white({1: 1, 3: 2})])
def test_every_rung_halves_cells_and_the_finish_is_exact(ladder):
    for table in (ladder.details, ladder.low):
        assert not table[0].any()
        steps = table.diff(dim=0)[1:]
        assert int(steps.min()) >= 0
        assert int(steps.max()) <= 1
    assert 0 <= int(ladder.rows.min()) <= int(ladder.rows.max()) == RUNGS - 1
    again = Ladder.of_tensors(ladder.tensors())
    assert torch.equal(again.details, ladder.details)
    assert {k: tuple(v.shape) for k, v in ladder.tensors().items()} == Ladder.shapes()


@pytest.mark.parametrize(
    ("name", "row", "value"),
    [("details", 0, 1), ("low", 5, 60), ("rows", 3, RUNGS), ("details", HEIGHT - 1, 0)],
)
def test_a_ladder_that_leads_nowhere_is_refused(name, row, value):
    tensors = {key: tensor.clone() for key, tensor in white().tensors().items()}
    tensors[f"ladder.{name}"][row] = value
    with pytest.raises(ModelError, match="ladder"):
        Ladder.of_tensors(tensors)
