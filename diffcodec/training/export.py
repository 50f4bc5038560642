"""From a checkpoint to the exact network that the codec loads, with its model card."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from diffcodec import __version__
from diffcodec.errors import ModelError
from diffcodec.exact.files import digest
from diffcodec.training.data import Crops, load_images
from diffcodec.training.loop import load_checkpoint
from diffcodec.training.tasks import TASKS


@torch.no_grad()
def export(
    checkpoint: Path, out: Path, *, calibration: Path, validation: Path | None = None
) -> None:
    """Write the exact network of a checkpoint, as safetensors with a model card.

    Args:
        calibration: pictures (of the training set) that set the ranges of the activations and
            the odds that sleeping levels and squares wake.
        validation: pictures on which the card shall tell the float network's figures.

    Raises ModelError if the checkpoint is unusable or breaks the accumulator bound.
    """
    state = load_checkpoint(checkpoint)
    try:
        task = TASKS[state["task"]]
        net = task.network()
        net.load_state_dict(state["ema"])
    except (KeyError, RuntimeError) as error:
        raise ModelError(f"{checkpoint} is a checkpoint of another network.") from error
    cpu = torch.device("cpu")
    images = load_images(calibration, cpu)
    generator = torch.Generator().manual_seed(0)
    crops = Crops(images, task.calibration).draw(generator)
    tensors = task.exact(net, crops, images)
    card = {
        "digest": digest(tensors),
        "task": state["task"],
        "data": f"{len(images)} pictures in {calibration.name}",
        "steps": state["steps"],
        "minutes": round(state["seconds"] / 60, 1),
        "device": state["device"],
        "diffcodec": __version__,
    }
    if validation is not None:
        card["validation"] = task.validate(net, load_images(validation, cpu))
    aside = out.with_name(out.name + ".part")
    save_file({k: v.contiguous() for k, v in tensors.items()}, aside, {"card": json.dumps(card)})
    aside.replace(out)
