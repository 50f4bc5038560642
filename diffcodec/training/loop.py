"""The training loop of the quantised process."""

import copy
import math
import pickle
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from diffcodec.errors import ModelError
from diffcodec.networks import StepNetwork
from diffcodec.quantized import chain
from diffcodec.quantized.model import network
from diffcodec.quantized.objective import KINDS, step_bits, step_loss
from diffcodec.quantized.schedule import FINISH, HIGHEST_TRAINED_RUNG, LEVELS, LOW
from diffcodec.training.data import Crops, load_images

PEAK_RATE = 2e-3
WARM_UP = 0.01
EMA_DECAY = 0.998
CHECKPOINT_SECONDS = 120.0
VALIDATION_SECONDS = 900.0


def train(
    data: Path,
    checkpoint: Path,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    validation: Path | None = None,
    device: str | None = None,
) -> None:
    """Train the quantised process on a folder of pictures and keep a checkpoint.

    The learning rate follows a cosine over the budget: wall-clock minutes or optimiser steps,
    exactly one of them. If `checkpoint` exists, training goes on where it stopped, and the
    budget counts what it has already spent. The checkpoint is written aside and renamed.

    Raises ImageError if the folder has no pictures of 512 x 512 pixels or more, ModelError if
    the checkpoint is of another network.
    """
    if (minutes is None) == (steps is None):
        raise ValueError("give either minutes or steps")
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    images = load_images(data, place)
    crops = [Crops(images, kind.size) for kind in KINDS]
    held_out = load_images(validation, place) if validation else []
    run = Run(place)
    if checkpoint.exists():
        run.load(checkpoint)
    low_precision = place.type == "cuda" or _cpu_has_bfloat16()

    bar = tqdm(total=1.0, bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}", disable=None)
    last = saved = validated = time.monotonic()
    while (done := run.seconds / (60 * minutes) if minutes else run.steps / (steps or 1)) < 1:
        run.set_rate(PEAK_RATE * min(1, done / WARM_UP + 1e-2) * (1 + math.cos(math.pi * done)) / 2)
        with torch.autocast(place.type, torch.bfloat16, enabled=low_precision):
            loss = sum(
                (
                    step_loss(run.net, kind, crop.draw(kind.batch, run.generator), run.generator)
                    for kind, crop in zip(KINDS, crops, strict=True)
                    if run.steps % kind.every == 0
                ),
                torch.zeros((), device=place),
            )
        run.update(loss)
        now = time.monotonic()
        run.seconds, last = run.seconds + now - last, now
        bar.n = min(1.0, done)
        if run.steps % 50 == 0:
            bar.set_postfix_str(f"step {run.steps}, loss {float(run.average):.4f}")
        if now - saved > CHECKPOINT_SECONDS:
            run.save(checkpoint)
            saved = now
        if held_out and now - validated > VALIDATION_SECONDS:
            bar.write(f"step {run.steps}: {describe(validate(run.ema, held_out))}")
            validated = last = time.monotonic()
    bar.close()
    run.save(checkpoint)
    if held_out:
        tqdm.write(f"step {run.steps}: {describe(validate(run.ema, held_out))}")


class Run:
    """The state of a training run: network, its moving average, optimiser, random numbers."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.generator = torch.Generator().manual_seed(0)
        torch.manual_seed(0)
        self.net = network().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = copy.deepcopy(self.net).requires_grad_(False)
        self.optimiser = torch.optim.AdamW(
            self.net.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=1e-4, foreach=True
        )
        self.steps, self.seconds, self.average = 0, 0.0, torch.zeros(())

    def set_rate(self, rate: float) -> None:
        """Set the learning rate."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def update(self, loss: Tensor) -> None:
        """One optimiser step, and the moving averages of weights and loss."""
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimiser.step()
        self.steps += 1
        # Early on, a long memory would hold on to the random start.
        decay = min(EMA_DECAY, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.net.parameters()), 1 - decay)
        self.average = loss.detach() if self.steps == 1 else self.average.lerp(loss.detach(), 0.01)

    def save(self, path: Path) -> None:
        """Write everything that resuming needs."""
        state: dict[str, Any] = {
            "net": self.net.state_dict(),
            "ema": self.ema.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "steps": self.steps,
            "seconds": self.seconds,
            "device": self.device.type,
            "average": self.average,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(path.name + ".part")
        torch.save(state, aside)
        aside.replace(path)

    def load(self, path: Path) -> None:
        """Take up a saved run; raises ModelError if it is of another network."""
        state = load_checkpoint(path)
        try:
            self.net.load_state_dict(state["net"])
            self.ema.load_state_dict(state["ema"])
            self.optimiser.load_state_dict(state["optimiser"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise ModelError(f"{path} is a checkpoint of another network.") from error
        self.generator.set_state(state["generator"].cpu())
        self.steps, self.seconds = state["steps"], state["seconds"]
        self.average = state["average"].to(next(self.net.parameters()).device)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU without running any code in it."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError(f"{path} is no readable checkpoint.") from error


@torch.no_grad()
def validate(net: StepNetwork, images: list[Tensor], size: int = 192) -> dict[int, float]:
    """Bits per dimension of each rung, averaged over the central crops of all images."""
    crops = []
    for image in images:
        top, left = ((side - size) // 2 for side in image.shape[1:])
        crops.append(image[:, top : top + size, left : left + size])
    totals = {}
    for rung in range(HIGHEST_TRAINED_RUNG, FINISH - 1, -1):
        bits = 0.0
        for crop in crops:
            values = chain.analyse(crop[None])
            by_level = step_bits(net, values, rung, [*range(1, LEVELS + 1), LOW])
            bits += sum(float(coded.sum()) for coded, _ in by_level.values())
        totals[rung] = bits / (len(crops) * 3 * size**2)
    return totals


def describe(totals: dict[int, float]) -> str:
    """One line: the sum over rungs, then each rung."""
    rungs = " ".join(f"{rung}:{bits:.4f}" for rung, bits in totals.items())
    return f"validation {sum(totals.values()):.4f} bits/dim ({rungs})"


def _cpu_has_bfloat16() -> bool:
    """Whether bfloat16 convolutions are fast here; without AVX-512 they are emulated."""
    return torch.cpu._is_avx512_bf16_supported()
