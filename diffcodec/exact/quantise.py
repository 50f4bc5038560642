"""From a trained float network to the integer tensors of its exact twin."""

from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffcodec.exact.layers import ACCUMULATOR_LIMIT, ACTIVATION_LIMIT, check_bound
from diffcodec.networks import OUT, UNITS, FilmConv, Sum

WEIGHT_LIMIT = 127

# How the accumulator's range is shared between the products and the bias.
_WEIGHT_SHARE, _BIAS_SHARE = 0.7, 0.2

_SAMPLES = 1 << 20  # of activations, from which a quantile is taken


def quantise(
    net: nn.Module,
    run: Callable[[], None],
    output_units: Callable[[int], Tensor],
    *,
    quantile: float = 0.99999,
) -> dict[str, Tensor]:
    """Integer tensors of every FilmConv of a network, for `exact.layers.make_exact`.

    Args:
        net: the trained network.
        run: evaluates the network on representative inputs; the spread of the activations that
            it causes sets the scale of each domain.
        output_units: integer units per 1.0 for each channel of an output layer with that many.
        quantile: activations above it, in the call where it is largest, are clamped.

    Raises ModelError if a layer breaks the accumulator bound.
    """
    units = UNITS | _observe(net, run, quantile)
    tensors = {}
    for name, layer in net.named_modules():
        if not isinstance(layer, FilmConv):
            continue
        weight = layer.weight.detach().double()
        step = weight.abs().amax((1, 2, 3)) / WEIGHT_LIMIT
        reach = weight.abs().sum((1, 2, 3)) * ACTIVATION_LIMIT / (_WEIGHT_SHARE * ACCUMULATOR_LIMIT)
        step = torch.maximum(step, reach).clamp_min(1e-12)
        unit = step * units[layer.source]
        bias = (layer.rung_bias[:, None] + layer.level_bias).detach().double() / unit
        gain = (layer.rung_gain[:, None] + layer.level_gain).detach().double()
        if layer.domain.endswith(OUT):
            scale = output_units(len(weight)).double()
        else:
            scale = torch.tensor(1 / units[layer.domain], dtype=torch.float64)
        bound = _BIAS_SHARE * ACCUMULATOR_LIMIT
        tensors[f"{name}.weight"] = (weight / step[:, None, None, None]).round().to(torch.int8)
        tensors[f"{name}.bias"] = bias.clamp(-bound, bound).round().to(torch.int32)
        tensors[f"{name}.multiplier"] = (gain * unit * scale).float()
        check_bound(tensors[f"{name}.weight"], tensors[f"{name}.bias"])
    return tensors


@torch.no_grad()
def _observe(net: nn.Module, run: Callable[[], None], quantile: float) -> dict[str, float]:
    """Value of one integer unit in each domain of activations."""
    peaks: dict[str, float] = defaultdict(float)

    def record(module: nn.Module, args: object, output: Tensor) -> None:
        flat = output.detach().abs().flatten()
        flat = flat[:: max(1, len(flat) // _SAMPLES)]
        peak = float(flat.kthvalue(max(1, int(quantile * len(flat)))).values)
        domain = str(module.domain)
        peaks[domain] = max(peaks[domain], peak)

    hooks = [
        module.register_forward_hook(record)
        for module in net.modules()
        if isinstance(module, FilmConv | Sum)
    ]
    run()
    for hook in hooks:
        hook.remove()
    return {domain: peak / ACTIVATION_LIMIT for domain, peak in peaks.items()}
