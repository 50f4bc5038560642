"""Tiles with a halo are the whole: no network reaches farther than the halo."""

import pytest
import tiny
import torch
import torch.nn.functional as F

from diffcodec.exact.networks import DenoiserShape
from diffcodec.quantized import tiles
from diffcodec.quantized.features import FEATURES
from diffcodec.training import recipes
from diffcodec.training.networks import Denoiser, Experts

LENGTH = 256


def trunk(shape):
    network = Experts(shape)
    for expert in network.experts:
        for block in expert.fine:  # as it is before training, it would be the identity
            torch.nn.init.normal_(block.second.weight)
    return [lambda x, row=row: network.trunk(x, (row, 0)) for row in network.starts], FEATURES


def denoiser(shape):
    network = Denoiser(shape)
    return [lambda x: network(x, (0, 0))], 12


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (trunk, recipes.PHOTO_NETWORKS),
        (trunk, recipes.THUMBNAIL_NETWORKS),
        (trunk, tiny.shape((3, 2), (0, 1), (1, 0))),
        (denoiser, recipes.DENOISER_NETWORK),
        (denoiser, DenoiserShape(1, 1, 8, 2)),
    ],
)
@torch.no_grad()
def test_networks_reach_as_far_as_they_say_and_not_beyond_the_halo(make, shape):
    networks, channels = make(shape)
    x = torch.randn(1, channels, 8, LENGTH)
    reach = 0
    for network in networks:
        before = network(x)
        for column in range(LENGTH // 2, LENGTH // 2 + 2):  # wherever it lies for the halving
            other = x.clone()
            other[..., column] += 1
            changed = (network(other) != before).any(2).any(1)[0].nonzero()[:, 0]
            reach = max(reach, int((changed - column).abs().max()))
    assert reach == shape.reach
    assert shape.reach + 1 <= tiles.HALO  # one more for the differences from neighbours
    assert tiles.HALO % 2 == 0
    assert tiles.TILE % 2 == 0


@pytest.mark.parametrize("places", [[(0, 0)], [(3, 99), (700, 40)], [(600, 610), (601, 611)]])
def test_what_is_wanted_is_what_the_whole_gives(places):
    plane = torch.randn(1, 1, 702, 613)
    wanted = torch.zeros((702, 613), dtype=torch.bool)
    for row, column in places:
        wanted[row, column] = True
    computed = []

    def blur(rows, columns):
        computed.append((rows.stop - rows.start) * (columns.stop - columns.start))
        return F.avg_pool2d(plane[..., rows, columns], 5, 1, 2)

    part = tiles.in_tiles(blur, wanted, 2)
    assert torch.equal(part[wanted], F.avg_pool2d(plane, 5, 1, 2)[0, 0][wanted][:, None])
    assert sum(computed) <= len(places) * (tiles.SMALLEST + 4) ** 2
    whole = tiles.in_tiles(blur, tiles.everywhere(702, 613), 2)
    assert torch.equal(whole[..., 0], F.avg_pool2d(plane, 5, 1, 2)[0, 0])
