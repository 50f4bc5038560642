"""From a trained float network to the integer tensors of the exact one, and back."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from diffcodec.errors import ModelError
from diffcodec.exact.layers import ACCUMULATOR_LIMIT, ACTIVATION_LIMIT, Index, check_bound
from diffcodec.exact.networks import UNITS, Layer, tensor_shapes
from diffcodec.training.networks import Block, FilmConv, Sum

WEIGHT_LIMIT = 127

OutputUnits = Callable[[int], Tensor]
"""Integer units per 1.0 for each channel of an output layer with that many."""

# How the accumulator's range is shared between the products and the bias.
_WEIGHT_SHARE, _BIAS_SHARE = 0.7, 0.2

# Activations above this quantile, in the call of the step where it is largest, are clamped.
_QUANTILE = 0.99999
_SAMPLES = 1 << 16  # from which the quantile is taken


def quantise(
    net: nn.Module, run: Callable[[], None], output_units: OutputUnits
) -> dict[str, Tensor]:
    """Integer tensors of every FilmConv of a network, as in `exact.networks.tensor_shapes`.

    Args:
        net: the trained network.
        run: evaluates the network on representative inputs; the spread of the activations that
            it causes sets the unit of each domain: one for each step, or a single one if the
            network is called with positions between the rows of its tables.
        output_units: of the network's outputs.

    Raises ModelError if a layer breaks the accumulator bound.
    """
    tensors = {f"unit.{domain}": table.float() for domain, table in _observe(net, run).items()}
    for name, layer in _convs(net):
        weight = layer.weight.detach().double()
        step = weight.abs().amax((1, 2, 3)) / WEIGHT_LIMIT
        reach = weight.abs().sum((1, 2, 3)) * ACTIVATION_LIMIT / (_WEIGHT_SHARE * ACCUMULATOR_LIMIT)
        step = torch.maximum(step, reach).clamp_min(1e-12)
        unit, made = _units(layer, tensors, step.float(), output_units)
        bias = (layer.rung_bias[:, None] + layer.level_bias).detach().double() / unit
        gain = (layer.rung_gain[:, None] + layer.level_gain).detach().double()
        bound = _BIAS_SHARE * ACCUMULATOR_LIMIT
        tensors[f"{name}.weight"] = (weight / step[:, None, None, None]).round().to(torch.int8)
        tensors[f"{name}.bias"] = bias.clamp(-bound, bound).round().to(torch.int32)
        tensors[f"{name}.multiplier"] = (gain * unit / made).float()
        tensors[f"{name}.step"] = step.float()
        check_bound(tensors[f"{name}.weight"], tensors[f"{name}.bias"])
    return tensors


@torch.no_grad()
def restore(net: nn.Module, tensors: Mapping[str, Tensor], output_units: OutputUnits) -> None:
    """Undo `quantise` but for rounding: set the weights and tables of a float network in place.

    Residual blocks that the tensors have not are the identity; those that the network has not are
    left out. Channels that the tensors have not come after the others, which do not see them at
    first (as in Net2Net: Chen et al., 2016), so that the network's outputs are the same.

    Args:
        net: a network of the shape that the tensors are of, or a wider one.
        tensors: of a model file.
        output_units: of the network's outputs.

    Raises ModelError if the tensors are of another network.
    """
    new = {
        f"{name}.{part}"
        for name, block in net.named_modules()
        if isinstance(block, Block) and f"{name}.first.weight" not in tensors
        for part in ("first", "second")
    }
    layers = {
        name: _narrow(name, own.layer, tensors) for name, own in _convs(net) if name not in new
    }
    for name, (_, shape) in tensor_shapes(layers).items():
        if name not in tensors or tuple(tensors[name].shape) != shape:
            raise ModelError(f"The model to start from is of another shape at {name}.")
    for name, layer in _convs(net):
        if name in new:
            layer.weight.mul_(0 if name.endswith("second") else 1)
            continue
        weight, bias, multiplier, step = (
            tensors[f"{name}.{part}"] for part in ("weight", "bias", "multiplier", "step")
        )
        unit, made = _units(layer, tensors, step, output_units)
        outputs, inputs = weight.shape[:2]
        layer.weight[:outputs] = 0
        layer.weight[:outputs, :inputs] = weight * step[:, None, None, None]
        for value, rung, level in (
            (bias * unit, layer.rung_bias, layer.level_bias),
            (multiplier * made / unit, layer.rung_gain, layer.level_gain),
        ):
            # Least squares: the means of the rows, and what they leave of those of the columns.
            rung[:, :outputs] = value.mean(1).float()
            level[:, :outputs] = (value - value.mean(1, keepdim=True)).mean(0).float()


@torch.no_grad()
def in_units(
    net: nn.Module, tensors: Mapping[str, Tensor], output_units: OutputUnits
) -> dict[str, Tensor]:
    """Weights and biases of a network in the integer units of a model file of its shape.

    float64, not rounded, by the names of the file's tensors; arguments as of `restore`.
    """
    values = {}
    for name, layer in _convs(net):
        step = tensors[f"{name}.step"]
        unit, _ = _units(layer, tensors, step, output_units)
        values[f"{name}.weight"] = layer.weight.double() / step.double()[:, None, None, None]
        values[f"{name}.bias"] = (layer.rung_bias[:, None] + layer.level_bias).double() / unit
    return values


def _narrow(name: str, layer: Layer, tensors: Mapping[str, Tensor]) -> Layer:
    """A layer with as many channels as the tensors have, where the network could have fewer."""
    if f"{name}.weight" not in tensors:
        return layer
    outputs, inputs = (int(side) for side in tensors[f"{name}.weight"].shape[:2])
    return replace(
        layer,
        outputs=layer.outputs if layer.domain is None else min(outputs, layer.outputs),
        inputs=layer.inputs if layer.source in UNITS else min(inputs, layer.inputs),
    )


def _convs(net: nn.Module) -> Iterator[tuple[str, FilmConv]]:
    return ((name, part) for name, part in net.named_modules() if isinstance(part, FilmConv))


def _units(
    layer: FilmConv, tensors: Mapping[str, Tensor], step: Tensor, output_units: OutputUnits
) -> tuple[Tensor, Tensor]:
    """What 1 is worth in accumulators and in outputs, float64 [rungs, levels, outputs or 1]."""
    source, domain = layer.layer.source, layer.layer.domain
    read = torch.tensor(UNITS[source]) if source in UNITS else tensors[f"unit.{source}"]
    unit = step.double() * read.double()[..., None]
    if domain is None:
        return unit, 1 / output_units(layer.layer.outputs).double()
    return unit, tensors[f"unit.{domain}"].double()[..., None]


@torch.no_grad()
def _observe(net: nn.Module, run: Callable[[], None]) -> dict[str, Tensor]:
    """Value of one integer unit in each domain of activations, float [rungs, levels]."""
    layers = [layer.layer for _, layer in _convs(net)]
    peaks = {own.domain: torch.zeros(own.rungs, own.levels) for own in layers if own.domain}
    step: Index | slice = slice(None)

    def record(module: nn.Module, args: tuple[Tensor, Any], output: Tensor) -> None:
        nonlocal step
        if isinstance(module, FilmConv):  # a sum follows a layer of its step
            step = slice(None) if isinstance(args[1], Tensor) else args[1]
            domain = module.layer.domain
        else:
            domain = str(module.domain)
        if domain is None:
            return
        flat = output.detach().abs().flatten()
        flat = flat[:: max(1, len(flat) // _SAMPLES)]
        peak = flat.kthvalue(max(1, int(_QUANTILE * len(flat)))).values
        table = peaks[domain]
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
