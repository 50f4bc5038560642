"""From a checkpoint to the integer model that the codec loads, with its model card."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from diffcodec import __version__
from diffcodec.errors import ModelError
from diffcodec.exact.cdf import CdfTable
from diffcodec.exact.quantise import quantise
from diffcodec.quantized import chain
from diffcodec.quantized.model import digest, network, output_units
from diffcodec.quantized.objective import step_bits
from diffcodec.quantized.schedule import FINISH, HIGHEST_TRAINED_RUNG, LEVELS, LOW, TOP_RUNG
from diffcodec.training.data import Crops, load_images
from diffcodec.training.loop import load_checkpoint, validate

CALIBRATION_CROPS = 8
CALIBRATION_SIZE = 256


def export(
    checkpoint: Path, out: Path, *, calibration: Path, validation: Path | None = None
) -> None:
    """Write the integer model of a checkpoint, as safetensors with a model card.

    Args:
        calibration: pictures (of the training set) that set the ranges of the activations and
            the odds of a level's first rung.
        validation: pictures whose bits/dim under the float network the card shall tell.

    Raises ModelError if the checkpoint is unusable or breaks the accumulator bound.
    """
    state = load_checkpoint(checkpoint)
    net = network()
    try:
        net.load_state_dict(state["ema"])
    except (KeyError, RuntimeError) as error:
        raise ModelError(f"{checkpoint} is a checkpoint of another network.") from error
    cpu = torch.device("cpu")
    images = load_images(calibration, cpu)
    generator = torch.Generator().manual_seed(0)
    crops = Crops(images, CALIBRATION_SIZE).draw(CALIBRATION_CROPS, generator)

    def run() -> None:
        values = chain.analyse(crops)
        for rung in tqdm(range(HIGHEST_TRAINED_RUNG, FINISH - 1, -1), "calibrating", disable=None):
            step_bits(net, values, rung, [*range(1, LEVELS + 1), LOW])

    table = CdfTable.gaussian()
    tensors = quantise(net, run, output_units)
    tensors |= {
        "cdf": table.values,
        "inverse_scales": table.inverse_scales,
        "wake": wake_odds(images),
    }
    card = {
        "digest": digest(tensors),
        "process": "quantised",
        "data": f"{len(images)} pictures in {calibration.name}",
        "steps": state["steps"],
        "minutes": round(state["seconds"] / 60, 1),
        "device": state["device"],
        "diffcodec": __version__,
    }
    if validation is not None:
        rungs = validate(net, load_images(validation, cpu))
        card["validation_bits_per_dim"] = round(sum(rungs.values()), 4)
    aside = out.with_name(out.name + ".part")
    save_file({k: v.contiguous() for k, v in tensors.items()}, aside, {"card": json.dumps(card)})
    aside.replace(out)


def wake_odds(images: list[Tensor]) -> Tensor:
    """For each rung and level the chance, in 2^-16, that a sleeping level wakes; int32.

    Counted over images, with half an observation added on either side.
    """
    asleep = torch.full((TOP_RUNG, LOW), 1.0)
    woken = torch.full((TOP_RUNG, LOW), 0.5)
    for image in tqdm(images, "counting", disable=None):
        for level, values in chain.analyse(image[None]).items():
            levels = chain.Geometry(*image.shape[1:]).levels
            for rung in range(TOP_RUNG - 1, FINISH - 1, -1):
                asleep[rung, level - 1] += 1
                if (values.abs() >> chain.plane_tensor(rung, level, levels)).any():
                    woken[rung, level - 1] += 1
                    break
    return (woken / asleep * (1 << 16)).round().clamp(1, (1 << 16) - 1).to(torch.int32)
