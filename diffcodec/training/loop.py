"""The training loop: the same for all recipes."""

import math
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import torch

from diffcodec.exact.graphs import Replayed
from diffcodec.training import checkpoints
from diffcodec.training.budget import Budget
from diffcodec.training.data import Crops, Draw, batches
from diffcodec.training.folders import choose, weights
from diffcodec.training.processes import Team, team
from diffcodec.training.progress import Progress
from diffcodec.training.recipes import Recipe
from diffcodec.training.run import Kind, Run
from diffcodec.training.sources import find, load
from diffcodec.training.tasks import Task

GPU_BATCHES = 4
"""How many batches a GPU takes at once; the learning rate is twice as high then."""

GPU_PAUSE, TEAM_PAUSE = 50, 5
"""Steps from one pause to the next, where a GPU is waited for, or processes meet."""

CHECKPOINT_SECONDS = 45.0
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
    processes: int = 1,
) -> None:
    """Train a network on pictures and keep a checkpoint.

    The learning rate follows a cosine over the budget: wall-clock minutes or optimiser steps, or
    the recipe's minutes if neither is given. A run that diverges goes back to its checkpoint and
    on with a lower rate, three times at most.

    Args:
        data: folders of pictures, and packed files of them (`sources.pack`). Of each, the recipe's
            folders are taken, or all if it has none of these.
        checkpoint: a folder (`checkpoints`). If it exists, training goes on where it stopped, and
            the budget counts what it has already spent.
        recipe: what is trained, and how.
        minutes, steps: the budget.
        validation: a folder or a packed file of pictures to measure on, now and then; what is
            found stands beside the checkpoint as CSV, and as a picture if there is matplotlib.
        device: as torch names it; a GPU if there is one.
        start: the model file whose weights a new checkpoint starts from; else they are random.
        processes: how many train together on a CPU, with averaged weights.

    Raises ImageError if there are no pictures as large as the recipe's crops, ModelError if
    the checkpoint or the model to start from is of another network, or if the training diverges:
    the checkpoint is then as it was before.
    """
    if minutes is not None and steps is not None:
        raise ValueError("give either minutes or steps")
    budget = Budget(minutes or (None if steps else recipe.minutes), steps)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if processes > 1 and place.type != "cpu":
        raise ValueError("several processes train on a CPU only")
    work = data, checkpoint, recipe, budget, validation, place, start
    with team(processes, _train, *work) as own:
        _train(own, *work)


def draws_on(device: torch.device, task: Task[Any]) -> list[Draw]:
    """The crops of a task, in batches that are large enough for a device."""
    return [replace(draw, batch=_batches(device) * draw.batch) for draw in task.draws]


def order(draws: Sequence[Draw]) -> list[int]:
    """The numbers of the draws as often as they are taken, until all begin again."""
    return [
        number
        for turn in range(math.lcm(*(draw.every for draw in draws)))
        for number, draw in enumerate(draws)
        if turn % draw.every == 0
    ]


def _batches(device: torch.device) -> int:
    return GPU_BATCHES if device.type == "cuda" else 1


def _train(
    own: Team,
    data: Sequence[Path],
    checkpoint: Path,
    recipe: Recipe,
    budget: Budget,
    validation: Path | None,
    place: torch.device,
    start: Path | None,
) -> None:
    """What each process of a team does; the first one keeps the checkpoint, and says something."""
    first, cuda = own.rank == 0, place.type == "cuda"
    chosen = choose(data, recipe.data)
    folders = {one.folder for one in chosen}
    images = load([picture for picture, _ in chosen])
    counted = weights(images, [name for _, name in chosen], recipe.data)
    crops = [Crops(images, draw, counted) for draw in draws_on(place, recipe.task)]
    held_out = load(find([validation])) if validation and first else []
    held_out = [image.to(place) for image in held_out]

    run = Run(recipe, place)
    there = own.any(checkpoints.exists(checkpoint))
    if there:
        run.load(checkpoint)
    elif start is not None:
        run.start(start)
    run.note(folders, own.size)
    if first and not there:
        run.save(checkpoint)  # there is always something to go back to
    seed = 1000 * (run.steps * own.size + own.rank)  # each process that makes crops takes one
    workers = max(1, ((os.cpu_count() or 1) - 2) // len(crops)) if cuda else 0
    sources = [batches(one, seed, workers) for one in crops]
    run.noise.manual_seed(seed)
    turns = cycle(order([one.how for one in crops]))
    replayed: Replayed[Kind] = Replayed(run.step, place, run.noise)
    progress = Progress() if first else None
    pause = GPU_PAUSE if cuda else TEAM_PAUSE if own.size > 1 else 1
    begun = last = saved = validated = time.monotonic()
    waited, taken = 0.0, 0

    while budget.done(run.steps, run.seconds) < 1:
        for _ in budget.upcoming(run.steps, pause):
            factor = _batches(place) ** 0.5 * budget.factor(run.steps, run.seconds)
            run.optimiser.set_rate(run.rate * factor)
            draw = next(turns)
            asked = time.monotonic()
            batch = next(sources[draw]).to(place, non_blocking=True)
            waited += time.monotonic() - asked
            loss = replayed((draw, recipe.task.choose(draw, run.generator)), batch)
            now = time.monotonic()
            run.count(loss, now - last)
            last = now
            taken += len(batch)
        own.average(run.net)
        run.seconds = own.agree(run.seconds)
        if own.any(run.diverges()):
            lost = run.go_back(checkpoint)
            run.note(folders, own.size)
            run.spend(lost)
            # What was recorded is on the optimiser's old tensors.
            replayed = Replayed(run.step, place, run.noise)
            if progress:
                progress.say(
                    f"The loss diverges: back to step {run.steps}, at a third of the learning rate."
                )
            continue
        if progress is None:
            continue
        now, done = time.monotonic(), budget.done(run.steps, run.seconds)
        if progress.due or done >= 1:
            took = max(now - begun, 1e-9)
            progress.show(
                done,
                f"step {run.steps}, loss {float(run.average):.4f}, {run.seconds:.0f} s, "
                f"{own.size * taken / took:.3g} crops/s, {waited / took:.0%} of it for crops",
            )
        if now - saved > CHECKPOINT_SECONDS:
            run.save(checkpoint)
            saved = now
        if held_out and now - validated > VALIDATION_SECONDS:
            progress.say(run.validation(held_out, checkpoint.with_suffix(".csv")))
            validated = last = time.monotonic()
    if progress:
        run.save(checkpoint)
        if held_out:
            progress.say(run.validation(held_out, checkpoint.with_suffix(".csv")))
        progress.close()
