"""A model of the quantised process fitted to pictures of one source, as a difference from it."""

import tempfile
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO

import torch
from PIL import Image
from torch import Tensor

from diffcodec import __version__
from diffcodec.errors import ModelError
from diffcodec.exact import files
from diffcodec.exact.config import from_json
from diffcodec.exact.differences import Difference, added, bias_units
from diffcodec.exact.files import ModelFile
from diffcodec.exact.layers import ACCUMULATOR_LIMIT, ACTIVATION_LIMIT
from diffcodec.quantized import model as models
from diffcodec.quantized.ladder import Ladder
from diffcodec.quantized.pyramid import Process
from diffcodec.training import checkpoints
from diffcodec.training.integers import WEIGHT_LIMIT, in_units
from diffcodec.training.loop import train
from diffcodec.training.networks import Experts, FilmConv
from diffcodec.training.recipes import PHOTO, THUMBNAIL, Recipe
from diffcodec.training.sources import find
from diffcodec.training.tasks import Codec

_BIAS_LIMIT = (1 << 15) - 1

_ROOM = ACCUMULATOR_LIMIT * 63 // 64
"""What sums may reach; the rest is for biases that the exact layers round to eight bits."""


class Finetuning(Codec):
    """The conditionals of a model file, with gains that stay as they are.

    Crops are those of the recipe for pictures of that kind, but as the pictures are: what they have
    in common is what shall be learnt. Crops for which all pictures are too small are left out.

    Args: the model file; the smaller sides of the pictures.
    """

    def __init__(self, base: ModelFile, sides: Collection[int]) -> None:
        config = from_json(models.Config, base.config)
        task = _recipe(base).task
        assert isinstance(task, Codec)
        draws = [
            (replace(draw, half_chroma=0, smoothed=0, drawn=0, edited=0, resized=0), emphasis)
            for draw, emphasis in zip(task.draws, task.emphases, strict=True)
        ]
        used = [own for own in draws if own[0].size <= max(sides)]
        process = Process(Ladder.of_tensors(base.tensors), config.interpolated)
        super().__init__(config, process, used or draws, task.calibration)

    def network(self) -> Experts:
        """As `Task.network`."""
        net = super().network()
        for layer in net.modules():
            if isinstance(layer, FilmConv):
                layer.rung_gain.requires_grad_(False)
                layer.level_gain.requires_grad_(False)
        return net


def fit(
    data: Path,
    out: Path,
    *,
    minutes: float,
    model: Path = files.PHOTO,
    validation: Path | None = None,
    device: str | None = None,
) -> None:
    """Fit an installed model to pictures, and write the difference.

    Args:
        data: a folder of pictures, or a packed file of them.
        out: the model file.
        minutes: how long to train.
        model: the file of what is fitted, a model of the quantised process.
        validation, device: as of `train`.

    Raises ImageError if all pictures are too small, ModelError if the model is no installed one, or
    of another process, or if the training diverges.
    """
    base = files.parse(files.read(model))
    if files.installed(base.digest()) is None:
        raise ModelError(f"{model} is none of the installed models, which alone can be fitted.")
    task = Finetuning(base, [_smaller_side(picture.open()) for picture in find([data])])
    recipe = replace(_recipe(base), name="fit", task=task, data={}, minutes=minutes)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        train([data], run, recipe, validation=validation, device=device, start=model)
        state = checkpoints.load(run)
    net = task.network()
    net.load_state_dict(state["ema"])
    card = {name: state[name] for name in ("data", "runs", "recipe")}
    card |= {"base": base.digest(), "diffcodec": __version__}
    files.write_difference(out, base, difference(task, net, base), card)


@torch.no_grad()
def difference(task: Codec, net: Experts, base: ModelFile) -> dict[str, Tensor]:
    """How a network differs from the model file that it started from, in integers.

    An output of a layer whose sums could leave their range stays as it was.
    """
    start = task.network()
    task.restore(start, base)
    old, new = (in_units(own, base.tensors, models.output_units) for own in (start, net))
    found: dict[str, Tensor] = {}
    for name in (own.removesuffix("weight") for own in old if own.endswith(".weight")):
        weights, biases = (new[name + part] - old[name + part] for part in ("weight", "bias"))
        weight = base.tensors[name + "weight"].double()
        weights = (weight + weights).clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT) - weight
        units = bias_units(base.tensors[name + "multiplier"])
        own = {
            name + "weight": weights.round().clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT).to(torch.int8),
            name + "bias": (biases / units).round().clamp(-_BIAS_LIMIT, _BIAS_LIMIT).short(),
        }
        kept = _within_bounds(name, base.tensors, own)
        own[name + "weight"] *= kept[:, None, None, None]
        own[name + "bias"] *= kept
        found |= own
    return found


def _within_bounds(name: str, tensors: Mapping[str, Tensor], own: Difference) -> Tensor:
    """For each output of a layer, whether its sums keep their range with a difference."""
    result = added(tensors, own)
    weight, bias = (result[name + part].long().abs() for part in ("weight", "bias"))
    return weight.sum((1, 2, 3)) * (ACTIVATION_LIMIT + 1) + bias.amax((0, 1)) < _ROOM


def _recipe(base: ModelFile) -> Recipe:
    """The recipe for pictures of the kind that a model is for."""
    return THUMBNAIL if base.config["side"] else PHOTO


def _smaller_side(file: IO[bytes]) -> int:
    with file, Image.open(file) as image:
        return min(image.size)
