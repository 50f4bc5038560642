"""From a checkpoint to the exact network that the codec loads, with its model card."""

from collections.abc import Sequence
from pathlib import Path

import torch

from diffcodec import __version__
from diffcodec.errors import ModelError
from diffcodec.exact import files
from diffcodec.exact.files import ModelFile
from diffcodec.quantized.ladder import Ladder
from diffcodec.quantized.model import build
from diffcodec.training import checkpoints
from diffcodec.training.data import Crops
from diffcodec.training.folders import choose
from diffcodec.training.recipes import named
from diffcodec.training.sources import find, load


def with_ladder(model: Path, out: Path, ladder: Ladder) -> None:
    """Write a model file of the quantised process with another ladder, its networks as they are.

    Raises ModelError if the model is unusable.
    """
    file = files.parse(files.read(model))
    changed = ModelFile(file.config, file.card, {**file.tensors, **ladder.tensors()})
    build(changed)
    changed.write(out)


@torch.no_grad()
def export(
    checkpoint: Path, out: Path, *, calibration: Sequence[Path], validation: Path | None = None
) -> None:
    """Write the exact network of a checkpoint, as a model file with a card.

    Args:
        checkpoint: as `train` writes it.
        out: the model file.
        calibration: folders of pictures, and packed files of them, that set the ranges of the
            activations and the odds that levels and blocks become significant: those of the
            recipe's folders, or all if there are none of these.
        validation: pictures on which the card shall tell the float network's figures.

    Raises ModelError if the checkpoint is unusable or breaks the accumulator bound.
    """
    state = checkpoints.load(checkpoint)
    try:
        recipe = named(state["recipe"])
        task = recipe.task
        net = task.network()
        net.load_state_dict(state["ema"])
        card = {name: state[name] for name in ("data", "runs")}
    except (KeyError, RuntimeError) as error:
        raise ModelError(f"{checkpoint} is a checkpoint of another network.") from error
    chosen = choose(calibration, recipe.calibration)
    images = load([picture for picture, _ in chosen])
    generator = torch.Generator().manual_seed(0)
    crops = Crops(images, task.calibration).draw(generator)
    config, tensors = task.exact(net, crops, images)
    folders = ", ".join(sorted({one.folder for one in chosen}))
    card["calibration"] = f"{len(images)} pictures in {folders}"
    card["recipe"] = recipe.name
    card["diffcodec"] = __version__
    if validation is not None:
        figures = task.validate(net, load(find([validation])))
        card["validation"] = f"{figures} on {validation.name}, float network"
    ModelFile(config, card, tensors).write(out)
