"""From a checkpoint to the exact network that the codec loads, with its model card."""

from pathlib import Path

import torch

from diffcodec import __version__
from diffcodec.errors import ModelError
from diffcodec.exact import files
from diffcodec.exact.files import ModelFile
from diffcodec.quantized.ladder import Ladder
from diffcodec.quantized.model import build
from diffcodec.training.data import Crops
from diffcodec.training.loop import load_checkpoint
from diffcodec.training.sources import load_images
from diffcodec.training.tasks import TASKS


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
    checkpoint: Path, out: Path, *, calibration: Path, validation: Path | None = None
) -> None:
    """Write the exact network of a checkpoint, as a model file with a card.

    Args:
        checkpoint: as `train` writes it.
        out: the model file.
        calibration: pictures (of the training set) that set the ranges of the activations and
            the odds that levels and blocks become significant.
        validation: pictures on which the card shall tell the float network's figures.

    Raises ModelError if the checkpoint is unusable or breaks the accumulator bound.
    """
    state = load_checkpoint(checkpoint)
    try:
        task = TASKS[state["task"]]
        net = task.network()
        net.load_state_dict(state["ema"])
        card = {name: state[name] for name in ("task", "data", "runs")}
    except (KeyError, RuntimeError) as error:
        raise ModelError(f"{checkpoint} is a checkpoint of another network.") from error
    images = load_images([calibration])
    generator = torch.Generator().manual_seed(0)
    crops = Crops(images, task.calibration).draw(generator)
    config, tensors = task.exact(net, crops, images)
    card["calibration"] = f"{len(images)} pictures in {calibration.name}"
    card["recipe"] = f"diffcodec.training.recipes, task {card['task']}"
    card["diffcodec"] = __version__
    if validation is not None:
        figures = task.validate(net, load_images([validation]))
        card["validation"] = f"{figures} on {validation.name}, float network"
    ModelFile(config, card, tensors).write(out)
