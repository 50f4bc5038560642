"""The trial of colours in green's place: the shortest wins, on patches from everywhere."""

import numpy as np
import pytest
import tiny
import torch

from diffcodec.entropy import RangeEncoder
from diffcodec.exact import files
from diffcodec.quantized import colour, model
from diffcodec.quantized.step import walk

SIDE = colour.PATCHES * colour.PATCH


def noise(height, width, deviation, seed=0):
    random = np.random.default_rng(seed)
    grey = random.normal(128, deviation, (1, height, width))
    return torch.from_numpy(grey.clip(0, 255).astype(np.int32)).expand(3, -1, -1)


@pytest.mark.parametrize("best", range(3))
def test_the_shortest_way_wins(best):
    ways = [noise(24, 20, 2 if way == best else 4) for way in range(3)]
    assert colour.shortest(model.load(files.THUMBNAIL), ways, 8) == best


def test_the_first_wins_unless_another_is_clearly_shorter():
    longer = noise(24, 20, 3)
    ways = [longer, longer, longer.clone()]
    ways[2][:, 0, 0] = 128
    assert colour.shortest(model.load(files.THUMBNAIL), ways, 8) == 0


def test_patches_are_of_all_of_a_large_picture_and_a_small_one_is_tried_whole():
    numbers = torch.arange(300 * 1000, dtype=torch.int32).view(1, 300, 1000)
    mosaic = colour.patches(numbers)
    assert mosaic.shape == (1, SIDE, SIDE)
    assert (int(mosaic[0, 0, 0]), int(mosaic[0, -1, -1])) == (0, 299_999)
    for patch in (
        mosaic[0].unfold(0, colour.PATCH, colour.PATCH).unfold(1, colour.PATCH, colour.PATCH)
    ):
        assert bool((patch.diff(dim=-1) == 1).all())
        assert bool((patch.diff(dim=-2) == 1000).all())
    small = numbers[:, :SIDE, : SIDE - 3]
    assert torch.equal(colour.patches(small), small)


@pytest.mark.parametrize("rung", [5, 2])
def test_an_encoder_that_is_told_a_rung_stands_where_one_stands_that_walked(rung):
    picture, weights = noise(21, 34, 3), model.load(files.THUMBNAIL)
    told, walked = tiny.start(weights, picture), tiny.start(weights, picture)
    told.advance(rung)
    for done in walk(weights, [walked], RangeEncoder()):
        if done == rung:
            break
    assert told.rungs == walked.rungs
    assert told.significant == walked.significant
    for level, floors in walked.floors.items():
        assert torch.equal(told.floors[level], floors)
        assert torch.equal(told.planes[level], walked.planes[level])
    assert list(walk(weights, [told], RangeEncoder())) == list(range(rung - 1, 0, -1))
