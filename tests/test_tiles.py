"""Tiles with a halo are the whole: no network reaches farther than the halo."""

import pytest
import torch

from diffcodec.quantized import denoising, model, tiles
from diffcodec.quantized.features import FEATURES
from diffcodec.training.diet import BLOCKS

LENGTH = 256


def trunk():
    network = model.network(BLOCKS).experts[0]
    for block in network.fine:  # as it is before training, it would be the identity
        torch.nn.init.normal_(block.second.weight)
    return lambda x: network.trunk(x, (0, 0)), FEATURES


def denoiser():
    network = denoising.network()
    return lambda x: network(x, 0), 12


@pytest.mark.parametrize("make", [trunk, denoiser])
@torch.no_grad()
def test_no_network_reaches_beyond_the_halo(make):
    torch.manual_seed(0)
    network, channels = make()
    x = torch.randn(1, channels, 8, LENGTH)
    before = network(x)
    reach = 0
    for column in range(LENGTH // 2, LENGTH // 2 + 2):  # wherever it lies for the halving
        other = x.clone()
        other[..., column] += 1
        changed = (network(other) != before).any(2).any(1)[0].nonzero()[:, 0]
        reach = max(reach, int((changed - column).abs().max()))
    assert 4 < reach + 1 <= tiles.HALO  # one more for the differences from neighbours
    assert tiles.HALO % 2 == 0
    assert tiles.TILE % 2 == 0
