"""The training loop: the same for all networks."""

import math
import os
import pickle
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from diffcodec import __version__
from diffcodec.errors import ModelError
from diffcodec.exact import backends, files
from diffcodec.training.curves import record
from diffcodec.training.data import Crops, batches
from diffcodec.training.folders import choose, licence, weights
from diffcodec.training.graphs import Replayed
from diffcodec.training.optimiser import Optimiser
from diffcodec.training.recipes import Recipe
from diffcodec.training.sources import find, load

WARM_UP = 200
"""Steps in which the learning rate rises; no share of the time, as a GPU's first steps are slow."""

STARTED_RATE = 0.5
"""The learning rate of a network that starts from a model, against that of one from scratch."""

GPU_BATCHES = 4
"""How many batches a GPU takes at once; the learning rate is twice as high then."""

EMA_DECAY, EMA_STEPS = 0.98, 10
"""What an update of the moving average of weights leaves of the old one; steps between updates."""

Kind = tuple[int, tuple[int, ...]]
"""Which draw a batch is of, and what was chosen for it."""

CHECKPOINT_SECONDS = 60.0
VALIDATION_SECONDS = 900.0


def train(
    data: Sequence[Path],
    checkpoint: Path,
    recipe: Recipe,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    validation: Path | None = None,
    device: str | None = None,
    start: Path | None = None,
) -> None:
    """Train a network on pictures and keep a checkpoint.

    The learning rate follows a cosine over the budget: wall-clock minutes or optimiser steps, or
    the recipe's minutes if neither is given. The checkpoint is written aside and renamed.

    Args:
        data: folders of pictures, and packed files of them (`sources.pack`). Of each, the recipe's
            folders are taken, or all if it has none of these.
        checkpoint: if it exists, training goes on where it stopped, and the budget counts what it
            has already spent.
        recipe: what is trained, and how.
        minutes, steps: the budget.
        validation: a folder or a packed file of pictures to measure on, now and then; what is
            found stands beside the checkpoint as CSV, and as a picture if there is matplotlib.
        device: as torch names it; a GPU if there is one.
        start: the model file whose weights a new checkpoint starts from; else they are random.

    Raises ImageError if there are no pictures as large as the recipe's crops, ModelError if
    the checkpoint or the model to start from is of another network, or if the training diverges:
    the checkpoint is then as it was before.
    """
    if minutes is not None and steps is not None:
        raise ValueError("give either minutes or steps")
    minutes = minutes or (None if steps else recipe.minutes)
    task = recipe.task
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    times = GPU_BATCHES if place.type == "cuda" else 1
    chosen = choose(data, recipe.data)
    images = load([picture for picture, _ in chosen])
    counted = weights(images, [name for _, name in chosen], recipe.data)
    draws = [replace(draw, batch=times * draw.batch) for draw in task.draws]
    crops = [Crops(images, draw, counted) for draw in draws]
    held_out = [image.to(place) for image in load(find([validation]))] if validation else []
    run = Run(recipe, place)
    if checkpoint.exists():
        run.load(checkpoint)
    elif start is not None:
        run.start(start)
    run.note({one.folder for one in chosen})
    spent = run.seconds
    workers = max(1, ((os.cpu_count() or 1) - 2) // len(crops)) if place.type == "cuda" else 0
    sources = [batches(own, 1000 * run.steps, workers) for own in crops]
    order = cycle(_order([draw.every for draw in draws]))
    fast = place.type == "cuda" or backends.operands(place, torch.bfloat16) is torch.bfloat16

    def step(kind: Kind, batch: Tensor) -> Tensor:
        # Pixels would lose bits in low precision.
        with (
            torch.backends.cudnn.flags(enabled=True, benchmark=True),
            torch.autocast(place.type, torch.bfloat16, enabled=fast),
        ):
            loss = task.loss(run.net, *kind, batch, run.noise)
        run.update(loss)
        return loss.detach()

    replayed: Replayed[Kind] = Replayed(step, place, run.noise)
    bar = tqdm(total=1.0, bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}", disable=None)
    last = saved = validated = time.monotonic()
    waited = 0.0
    while (done := run.seconds / (60 * minutes) if minutes else run.steps / (steps or 1)) < 1:
        warm = min(1, (run.steps + 1) / WARM_UP)
        rate = run.rate * times**0.5 * warm * (1 + math.cos(math.pi * done)) / 2
        run.optimiser.set_rate(rate)
        draw = next(order)
        asked = time.monotonic()
        batch = next(sources[draw]).to(place, non_blocking=True)
        waited += time.monotonic() - asked
        run.count(replayed((draw, task.choose(draw, run.generator)), batch))
        now = time.monotonic()
        run.spend(now - last)
        last = now
        bar.n = min(1.0, done)
        if run.steps % 50 == 0:
            loss, share = float(run.average), waited / max(run.seconds - spent, 1e-9)
            bar.set_postfix_str(f"step {run.steps}, loss {loss:.4f}, {share:.0%} for crops")
        if now - saved > CHECKPOINT_SECONDS:
            run.save(checkpoint)
            saved = now
        if held_out and now - validated > VALIDATION_SECONDS:
            bar.write(run.validation(held_out, checkpoint.with_suffix(".csv")))
            validated = last = time.monotonic()
    bar.close()
    run.save(checkpoint)
    if held_out:
        tqdm.write(run.validation(held_out, checkpoint.with_suffix(".csv")))


def _order(every: list[int]) -> list[int]:
    """The numbers of the draws as often as they are taken, until all begin again."""
    return [
        number
        for turn in range(math.lcm(*every))
        for number, own in enumerate(every)
        if turn % own == 0
    ]


class Run:
    """The state of a training run.

    That is the network, its moving average, the optimiser, random numbers, and what the model
    card will tell: licences of the folders of pictures, and the runs on them.
    """

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self.generator = torch.Generator().manual_seed(0)
        self.noise = torch.Generator(device).manual_seed(0)
        torch.manual_seed(0)
        net = recipe.task.network()
        self.net = net.to(device, memory_format=torch.channels_last)
        self.ema = AveragedModel(self.net, multi_avg_fn=_average)
        self.optimiser = Optimiser(self.net, recipe.rate)
        self.rate = recipe.rate
        self.data: dict[str, str] = {}
        self.runs: list[dict[str, Any]] = []
        self.steps, self.seconds, self.average = 0, 0.0, torch.zeros(())

    def note(self, folders: Collection[str]) -> None:
        """Tell the model card what follows: on which folders, and on which kind of device."""
        for folder in sorted(folders):
            self.data.setdefault(folder, licence(folder))
        place = self.device.type
        if place == "cuda":
            place = torch.cuda.get_device_name(self.device)
        own = {"data": ", ".join(sorted(folders)), "device": place, "diffcodec": __version__}
        if not self.runs or not own.items() <= self.runs[-1].items():
            self.runs.append({**own, "steps": 0, "minutes": 0.0})

    def spend(self, seconds: float) -> None:
        """Count one step."""
        self.steps, self.seconds = self.steps + 1, self.seconds + seconds
        self.runs[-1]["steps"] += 1
        self.runs[-1]["minutes"] = round(self.runs[-1]["minutes"] + seconds / 60, 6)

    def update(self, loss: Tensor) -> None:
        """One optimiser step."""
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimiser.step()

    def count(self, loss: Tensor) -> None:
        """Update the moving averages of the loss and of the weights after a step."""
        self.average = loss if self.steps == 0 else self.average.lerp(loss, 0.01)
        if self.steps % EMA_STEPS == 0:
            self.ema.update_parameters(self.net)

    @torch.no_grad()
    def validation(self, images: list[Tensor], curve: Path) -> str:
        """One line on how the averaged weights do on held-out pictures, also kept as CSV."""
        figures = self.recipe.task.validate(self.ema.module, images)
        record(curve, self.steps, self.seconds / 60, float(self.average), figures)
        return f"step {self.steps}: {figures}"

    def save(self, path: Path) -> None:
        """Write everything that resuming needs; raises ModelError if that is not finite."""
        if not self.average.isfinite():
            raise ModelError("The training has diverged: the loss is no finite number any more.")
        state: dict[str, Any] = {
            "recipe": self.recipe.name,
            "net": self.net.state_dict(),
            "ema": self.ema.module.state_dict(),
            "averaged": int(self.ema.n_averaged),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "steps": self.steps,
            "seconds": self.seconds,
            "average": self.average,
            "rate": self.rate,
            "data": self.data,
            "runs": self.runs,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(path.name + ".part")
        torch.save(state, aside)
        aside.replace(path)

    def start(self, path: Path) -> None:
        """Begin with the weights of a model file; raises ModelError if it is another network."""
        file = files.parse(files.read(path))
        with torch.no_grad():
            net = self.recipe.task.network()
            self.recipe.task.restore(net, file)
            self.net.load_state_dict(net.state_dict())
            self.ema.module.load_state_dict(net.state_dict())
        self.rate = STARTED_RATE * self.recipe.rate
        self.data, self.runs = file.card.get("data", {}), file.card.get("runs", [])

    def load(self, path: Path) -> None:
        """Take up a saved run; raises ModelError if it is of another network."""
        state = load_checkpoint(path)
        try:
            if state["recipe"] != self.recipe.name:
                raise ModelError(f"{path} is a checkpoint of the recipe {state['recipe']}.")
            self.net.load_state_dict(state["net"])
            self.ema.module.load_state_dict(state["ema"])
            self.ema.n_averaged.fill_(state["averaged"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.rate, self.data, self.runs = state["rate"], state["data"], state["runs"]
        except (KeyError, RuntimeError, ValueError) as error:
            raise ModelError(f"{path} is a checkpoint of another network.") from error
        self.generator.set_state(state["generator"].cpu())
        self.steps, self.seconds = state["steps"], state["seconds"]
        self.noise.manual_seed(self.steps)
        self.average = state["average"].to(next(self.net.parameters()).device)


@torch.no_grad()
def _average(means: Any, parameters: Any, count: Tensor | int) -> None:
    # Early on, a long memory would hold on to the random start.
    decay = min(EMA_DECAY, (1 + int(count)) / (2 + int(count)))
    for mean, parameter in zip(means, parameters, strict=True):
        mean.lerp_(parameter, 1 - decay)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU without running any code in it."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError(f"{path} is no readable checkpoint.") from error
