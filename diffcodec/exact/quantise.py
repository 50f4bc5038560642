"""From a trained float network to the integer tensors of its exact twin."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from diffcodec.exact.layers import ACCUMULATOR_LIMIT, ACTIVATION_LIMIT, check_bound
from diffcodec.networks import OUT, UNITS, FilmConv, Index, Sum

WEIGHT_LIMIT = 127

# How the accumulator's range is shared between the products and the bias.
_WEIGHT_SHARE, _BIAS_SHARE = 0.7, 0.2

# Activations above this quantile, in the call of the step where it is largest, are clamped.
_QUANTILE = 0.99999
_SAMPLES = 1 << 16  # from which the quantile is taken


def quantise(
    net: nn.Module,
    run: Callable[[], None],
    output_units: Callable[[int], Tensor],
) -> dict[str, Tensor]:
    """Integer tensors of every FilmConv of a network, for `exact.layers.make_exact`.

    Args:
        net: the trained network.
        run: evaluates the network on representative inputs; the spread of the activations that
            it causes sets the scale of each domain: one for each step, or a single one if the
            network is called with positions between the rows of its tables.
        output_units: integer units per 1.0 for each channel of an output layer with that many.

    Raises ModelError if a layer breaks the accumulator bound.
    """
    inputs = {domain: torch.tensor(unit) for domain, unit in UNITS.items()}
    units = {k: v[..., None].double() for k, v in (inputs | _observe(net, run)).items()}
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
            scale = 1 / units[layer.domain]
        bound = _BIAS_SHARE * ACCUMULATOR_LIMIT
        tensors[f"{name}.weight"] = (weight / step[:, None, None, None]).round().to(torch.int8)
        tensors[f"{name}.bias"] = bias.clamp(-bound, bound).round().to(torch.int32)
        tensors[f"{name}.multiplier"] = (gain * unit * scale).float()
        check_bound(tensors[f"{name}.weight"], tensors[f"{name}.bias"])
    return tensors


@torch.no_grad()
def _observe(net: nn.Module, run: Callable[[], None]) -> dict[str, Tensor]:
    """Value of one integer unit in each domain of activations, float [rungs, levels]."""
    layers = [module for module in net.modules() if isinstance(module, FilmConv)]
    tables = [(layer.domain, len(layer.rung_bias), len(layer.level_bias)) for layer in layers]
    peaks = {domain: torch.zeros(rungs, levels) for domain, rungs, levels in tables}
    step: Index | slice = slice(None)

    def record(module: nn.Module, args: tuple[Tensor, Any], output: Tensor) -> None:
        nonlocal step
        if isinstance(module, FilmConv):  # a sum follows a layer of its step
            step = slice(None) if isinstance(args[1], Tensor) else args[1]
        flat = output.detach().abs().flatten()
        flat = flat[:: max(1, len(flat) // _SAMPLES)]
        peak = flat.kthvalue(max(1, int(_QUANTILE * len(flat)))).values
        table = peaks[str(module.domain)]
        # Of what is hardly ever active, all counts.
        table[step] = torch.maximum(table[step], peak if peak > 0 else flat.max())

    hooks = [
        module.register_forward_hook(record)
        for module in net.modules()
        if isinstance(module, FilmConv | Sum)
    ]
    run()
    for hook in hooks:
        hook.remove()
    # A step that was not met takes the widest range; what is never active takes any.
    for table in peaks.values():
        table[table == 0] = table.max() or 1.0
    return {domain: table / ACTIVATION_LIMIT for domain, table in peaks.items()}
