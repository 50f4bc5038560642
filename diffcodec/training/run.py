"""The state of a training run: all that a checkpoint keeps."""

import math
from collections.abc import Collection, Hashable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from diffcodec import __version__
from diffcodec.errors import ModelError
from diffcodec.exact import backends, files
from diffcodec.training import checkpoints
from diffcodec.training.budget import WARM_UP
from diffcodec.training.curves import record
from diffcodec.training.folders import licence
from diffcodec.training.optimiser import Optimiser
from diffcodec.training.recipes import Recipe

STARTED_RATE = 0.5
"""The learning rate of a network that starts from a model, against that of one from scratch."""

EMA_DECAY, EMA_STEPS = 0.98, 10
"""What an update of the moving average of weights leaves of the old one; steps between updates."""

FAR = 4.0
"""A run has diverged whose average loss is so many times its lowest one."""

RETREATS, RETREAT = 3, 1 / 3
"""How often a run that diverges goes back at most, and what that leaves of its learning rate."""

Kind = tuple[int, tuple[Hashable, ...]]
"""Which draw a batch is of, and what was chosen for it."""


class Run:
    """The network, its moving average, the optimiser, random numbers, and what the card will tell.

    Args: the recipe; the device.
    """

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self.generator = torch.Generator().manual_seed(0)
        self.noise = torch.Generator(device)
        torch.manual_seed(0)
        net = recipe.task.network()
        self.net = net.to(device, memory_format=torch.channels_last)
        self.ema = AveragedModel(self.net, multi_avg_fn=_average)
        self.optimiser = Optimiser(self.net, recipe.rate)
        self.rate, self.retreats = recipe.rate, 0
        self.data: dict[str, str] = {}
        self.runs: list[dict[str, Any]] = []
        self.steps, self.seconds, self.average = 0, 0.0, torch.zeros(())
        self._lowest = math.inf
        fast = device.type == "cuda" or backends.operands(device, torch.bfloat16) is torch.bfloat16
        self.dtype = torch.bfloat16 if fast else torch.float32

    def note(self, folders: Collection[str], processes: int = 1) -> None:
        """Tell the model card what follows: on which folders, and on which kind of device."""
        for folder in sorted(folders):
            self.data.setdefault(folder, licence(folder))
        place = self.device.type
        if place == "cuda":
            place = torch.cuda.get_device_name(self.device)
        if processes > 1:
            place += f", {processes} processes"
        own = {"data": ", ".join(sorted(folders)), "device": place, "diffcodec": __version__}
        if not self.runs or not own.items() <= self.runs[-1].items():
            self.runs.append({**own, "steps": 0, "minutes": 0.0})

    def step(self, kind: Kind, batch: Tensor) -> Tensor:
        """One optimiser step on a batch of crops uint8 [N, 3, H, W]; returns the loss."""
        # Pixels would lose bits in low precision.
        with (
            torch.backends.cudnn.flags(enabled=True, benchmark=True),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype is torch.bfloat16),
        ):
            loss = self.recipe.task.loss(self.net, *kind, batch, self.noise)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimiser.step()
        return loss.detach()

    def count(self, loss: Tensor, seconds: float) -> None:
        """Count a step, and update the moving averages of the loss and of the weights."""
        self.average = loss if self.steps == 0 else self.average.lerp(loss, 0.01)
        if self.steps % EMA_STEPS == 0:
            self.ema.update_parameters(self.net)
        self.steps += 1
        self.runs[-1]["steps"] += 1
        self.spend(seconds)

    def spend(self, seconds: float) -> None:
        """Count time."""
        self.seconds += seconds
        self.runs[-1]["minutes"] = round(self.runs[-1]["minutes"] + seconds / 60, 6)

    def diverges(self) -> bool:
        """Whether the average loss is no number any more, or far above its lowest."""
        average = float(self.average)
        if self.steps >= WARM_UP:
            self._lowest = min(self._lowest, average)
        return not average <= FAR * self._lowest

    def go_back(self, path: Path) -> float:
        """Take up the last checkpoint with a lower rate; raises ModelError after some times.

        Returns the seconds since then, which are still to be counted.
        """
        if self.retreats == RETREATS:
            raise ModelError(
                "The training has diverged: its loss is no finite number any more, or far too high."
            )
        retreats, rate, seconds = self.retreats + 1, RETREAT * self.rate, self.seconds
        self.load(path)
        self.retreats, self.rate = retreats, rate
        return seconds - self.seconds

    @torch.no_grad()
    def validation(self, images: list[Tensor], curve: Path) -> str:
        """One line on how the averaged weights do on held-out pictures, also kept as CSV."""
        figures = self.recipe.task.validate(self.ema.module, images)
        record(curve, self.steps, self.seconds / 60, float(self.average), figures)
        return f"step {self.steps}: {figures}"

    def save(self, path: Path) -> None:
        """Write everything that resuming needs."""
        state = {
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
            "retreats": self.retreats,
            "data": self.data,
            "runs": self.runs,
        }
        checkpoints.save(path, state)

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
        state = checkpoints.load(path)
        try:
            if state["recipe"] != self.recipe.name:
                raise ModelError(f"{path} is a checkpoint of the recipe {state['recipe']}.")
            self.net.load_state_dict(state["net"])
            self.ema.module.load_state_dict(state["ema"])
            self.ema.n_averaged.fill_(state["averaged"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.rate, self.retreats = state["rate"], state["retreats"]
            self.data, self.runs = state["data"], state["runs"]
        except (KeyError, RuntimeError, ValueError) as error:
            raise ModelError(f"{path} is a checkpoint of another network.") from error
        self.generator.set_state(state["generator"].cpu())
        self.steps, self.seconds = state["steps"], state["seconds"]
        self.average = state["average"].to(self.device)


@torch.no_grad()
def _average(means: Any, parameters: Any, count: Tensor | int) -> None:
    # Early on, a long memory would hold on to the random start.
    decay = min(EMA_DECAY, (1 + int(count)) / (2 + int(count)))
    for mean, parameter in zip(means, parameters, strict=True):
        mean.lerp_(parameter, 1 - decay)
