"""SSIMULACRA 2 (Sneyers, 2023) as a differentiable function of pictures.

Six scales of XYB; at each, one minus the local structural similarity, edges that were not there
and edges that are lost, by their means and by their 4-norms; a weighted sum of these, bent so that
100 is the same picture. Borders are those of the Python package ssimulacra2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 8
"""The least side at which there is another scale."""

# By channel of XYB and scale: what the means of the three maps count, then what their norms do.
# The sixth scale counts for next to nothing in all of them, and so does what is left out.
_WEIGHTS = (
    (
        (0, 0, 0, 0, 0, 0),
        (0, 0, 0, 1.104173, 0, 0),
        (0, 0.001641, 0, 1.842246, 11.441173, 0),
        (0.000799, 0, 0, 1.878759, 10.949069, 0),
        (0.000729, 0.967794, 0, 0, 0.998177, 0),
    ),
    (
        (0, 0, 0, 7.46689, 0, 17.445834),
        (0, 0, 0, 6.683678, 0, 1.02789),
        (225.205153, 0, 0, 19.213238, 0.00114, 0.001238),
        (176.393176, 0, 0, 24.43301, 0.285208, 0),
        (0, 0, 0, 34.779063, 44.835625, 0),
    ),
    (
        (0, 0, 0, 0, 0, 0),
        (0, 0, 0, 0, 0, 0),
        (0, 0, 0, 0, 0.001729, 0),
        (0.002083, 0, 0, 8.826983, 23.192433, 0),
        (95.10805, 0.986398, 0.983438, 0.001229, 171.266726, 0.980786),
    ),
)
_SCALE = 0.9562382616834844
_BEND = (2.326765642916932, -0.020884521182843837, 6.248496625763138e-05)
_POWER = 0.6276336467831387

_ABSORBANCE = (
    (0.3, 0.622, 0.078),
    (0.23, 0.692, 0.078),
    (0.24342268924547819, 0.20476744424496821, 0.55180986650955360),
)
_BIAS = 0.0037930732552754493

_RADIUS, _SIGMA = 5, 1.5
_C2 = 0.0009

_LEAST = 1e-24
"""Under roots, so that their gradients stay finite."""


def ssimulacra2(original: Tensor, shown: Tensor) -> Tensor:
    """The score of each picture, float [N]; 100 is the best, 30 is low quality.

    Args: pictures [N, 3, H, W] in 0..255, floats or integers, of at least 128 x 128 pixels.
    """
    return 100 - 10 * distance(original, shown).clamp(min=_LEAST) ** _POWER


def distance(original: Tensor, shown: Tensor) -> Tensor:
    """What the score is a power of, float [N]: 0 for the same picture. Arguments as there."""
    with torch.autocast(shown.device.type, enabled=False):  # variances need more than eight bits
        return _distance(original, shown)


def _distance(original: Tensor, shown: Tensor) -> Tensor:
    planes = [_linear(pixels) for pixels in (original, shown)]
    total = shown.new_zeros(len(shown), dtype=torch.float32)
    for scale in range(len(_WEIGHTS[0])):
        if scale:
            planes = [F.avg_pool2d(linear, 2, ceil_mode=True) for linear in planes]
        if min(planes[0].shape[2:]) < SMALLEST:
            break
        weights = torch.tensor([channel[scale] for channel in _WEIGHTS], device=total.device)
        total = total + (_figures(*(_xyb(linear) for linear in planes)) * weights).sum((1, 2))
    first, second, third = _BEND
    total = _SCALE * total
    return total * (first + total * (second + total * third))


def _figures(first: Tensor, second: Tensor) -> Tensor:
    """Means and 4-norms of the three maps of XYB pictures: [N, 3, 6]."""
    blurred = _blurred(torch.cat((first, second, first**2, second**2, first * second), 1))
    mean1, mean2, square1, square2, product = blurred.chunk(5, 1)
    luminance = 1 - (mean1 - mean2) ** 2
    covariance = 2 * (product - mean1 * mean2) + _C2
    variances = (square1 - mean1**2) + (square2 - mean2**2) + _C2
    edges = (1 + (second - mean2).abs()) / (1 + (first - mean1).abs()) - 1
    maps = torch.stack((1 - luminance * covariance / variances, edges, -edges), 2).relu().flatten(3)
    norms = (maps**4).mean(3).clamp(min=_LEAST) ** 0.25
    return torch.cat((maps.mean(3), norms), 2)


def _linear(pixels: Tensor) -> Tensor:
    """sRGB in 0..255 to linear light in 0..1."""
    value = pixels.float().clamp(0, 255) / 255
    return torch.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _xyb(linear: Tensor) -> Tensor:
    """XYB as SSIMULACRA 2 has it, above zero."""
    matrix = linear.new_tensor(_ABSORBANCE)
    absorbed = torch.einsum("dc,nchw->ndhw", matrix, linear) + _BIAS
    a, b, c = (absorbed ** (1 / 3) - _BIAS ** (1 / 3)).unbind(1)
    y = (a + b) / 2
    return torch.stack((14 * (a - b) / 2 + 0.42, y + 0.01, c - y + 0.55), 1)


def _blurred(planes: Tensor) -> Tensor:
    """Planes under a Gaussian: mirrored above and below them, zero beside them."""
    places = torch.arange(-_RADIUS, _RADIUS + 1, device=planes.device)
    kernel = torch.exp(-((places / _SIGMA) ** 2) / 2)
    kernel = (kernel / kernel.sum()).expand(planes.shape[1], 1, 1, -1)
    above, below = planes[..., :_RADIUS, :].flip(2), planes[..., -_RADIUS:, :].flip(2)
    mirrored = torch.cat((above, planes, below), 2)
    down = F.conv2d(mirrored, kernel.mT, groups=planes.shape[1])
    return F.conv2d(down, kernel, padding=(0, _RADIUS), groups=planes.shape[1])
