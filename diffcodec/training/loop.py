"""The training loop: the same for all networks."""

import copy
import math
import pickle
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from diffcodec.errors import ModelError
from diffcodec.exact import backends
from diffcodec.training.data import Crops, load_images
from diffcodec.training.optimiser import Optimiser
from diffcodec.training.tasks import TASKS, Task

WARM_UP = 0.01
EMA_DECAY = 0.998
CHECKPOINT_SECONDS = 120.0
VALIDATION_SECONDS = 900.0


def train(
    data: Path,
    checkpoint: Path,
    *,
    task: str = "codec",
    minutes: float | None = None,
    steps: int | None = None,
    validation: Path | None = None,
    device: str | None = None,
    tasks: Mapping[str, Task[Any]] = TASKS,
) -> None:
    """Train a network on a folder of pictures and keep a checkpoint.

    `task` is one of `tasks`. The learning rate follows a cosine over the budget: wall-clock minutes
    or optimiser steps, exactly one of them. If `checkpoint` exists, training goes on where it
    stopped, and the budget counts what it has already spent. The checkpoint is written aside and
    renamed.

    Raises ImageError if the folder has no pictures of 512 x 512 pixels or more, ModelError if
    the checkpoint is of another network.
    """
    if (minutes is None) == (steps is None):
        raise ValueError("give either minutes or steps")
    aim = tasks[task]
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    images = load_images(data, place)
    crops = [Crops(images, draw) for draw in aim.draws]
    held_out = load_images(validation, place) if validation else []
    run = Run(task, aim, place)
    if checkpoint.exists():
        run.load(checkpoint)
    fast = place.type == "cuda" or backends.operands(place, torch.bfloat16) is torch.bfloat16

    bar = tqdm(total=1.0, bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}", disable=None)
    last = saved = validated = time.monotonic()
    while (done := run.seconds / (60 * minutes) if minutes else run.steps / (steps or 1)) < 1:
        warm = min(1, done / WARM_UP + 1e-2)
        run.optimiser.set_rate(aim.rate * warm * (1 + math.cos(math.pi * done)) / 2)
        # Pixels would lose bits in low precision.
        drawn = {
            i: crops[i].draw(run.generator)
            for i, draw in enumerate(aim.draws)
            if run.steps % draw.every == 0
        }
        with torch.autocast(place.type, torch.bfloat16, enabled=fast):
            losses = (aim.loss(run.net, i, batch, run.generator) for i, batch in drawn.items())
            loss = sum(losses, torch.zeros((), device=place))
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
            bar.write(run.validation(held_out))
            validated = last = time.monotonic()
    bar.close()
    run.save(checkpoint)
    if held_out:
        tqdm.write(run.validation(held_out))


class Run:
    """The state of a training run: network, its moving average, optimiser, random numbers."""

    def __init__(self, name: str, task: Task[Any], device: torch.device) -> None:
        self.name, self.task, self.device = name, task, device
        self.generator = torch.Generator().manual_seed(0)
        torch.manual_seed(0)
        net = task.network()
        self.net = net.to(device, memory_format=torch.channels_last)
        self.ema = copy.deepcopy(self.net).requires_grad_(False)
        self.optimiser = Optimiser(self.net, task.rate)
        self.steps, self.seconds, self.average = 0, 0.0, torch.zeros(())

    def update(self, loss: Tensor) -> None:
        """One optimiser step, and the moving averages of weights and loss."""
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimiser.step()
        self.steps += 1
        # Early on, a long memory would hold on to the random start.
        decay = min(EMA_DECAY, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            for mean, new in zip(self.ema.parameters(), self.net.parameters(), strict=True):
                mean.lerp_(new, 1 - decay)
        self.average = loss.detach() if self.steps == 1 else self.average.lerp(loss.detach(), 0.01)

    @torch.no_grad()
    def validation(self, images: list[Tensor]) -> str:
        """One line on how the averaged weights do on held-out pictures."""
        return f"step {self.steps}: {self.task.validate(self.ema, images)}"

    def save(self, path: Path) -> None:
        """Write everything that resuming needs."""
        state: dict[str, Any] = {
            "task": self.name,
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
            if state["task"] != self.name:
                raise ModelError(f"{path} is a checkpoint of the task {state['task']}.")
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
