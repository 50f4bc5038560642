"""The network of the Gaussian process as something to train."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from diffcodec.errors import ModelError
from diffcodec.exact.files import ModelFile
from diffcodec.exact.networks import NoiseShape
from diffcodec.gaussian import elbo
from diffcodec.gaussian.decoder import to_data
from diffcodec.gaussian.likelihood import likelihood
from diffcodec.gaussian.model import GaussianModel, Variance
from diffcodec.gaussian.parameterisation import Kind
from diffcodec.gaussian.schedule import Cosine, Learned, LinearLogSnr, Schedule
from diffcodec.training import diffusion
from diffcodec.training.curves import Figures
from diffcodec.training.data import Draw
from diffcodec.training.gaussian import DenoisingNetwork, tabulate, untabulate
from diffcodec.training.tasks import Exported, central_tiles
from diffcodec.training.times import ImportanceTimes, low_discrepancy

HIGHEST, LOWEST = 11.0, -5.0
"""Log-SNRs of the Gaussian chain: from noise of half a pixel value, below which only the grid of
values is left to tell, to all but pure noise."""

HYBRID_STEPS = 1000
"""Of the bound in the hybrid objective, if none are given."""

SCHEDULES: dict[str, Callable[[float, float], Schedule]] = {
    "linear": LinearLogSnr,
    "cosine": Cosine,
    "learned": Learned,
}


@dataclass(frozen=True)
class Options:
    """How a model of the Gaussian process is trained.

    Attributes:
        schedule: the log-SNR over time: linear or cosine between fixed ends, or learned with its
            ends (VDM).
        objective: the VLB, L_simple, or both (`diffusion.hybrid`).
        kind: what the network predicts.
        variance: of p(z_s | z_t); a learned one is the network's as well.
        steps: T, those of the VLB; None for infinitely many, in the hybrid for HYBRID_STEPS.
        vlb_weight: lambda, what the VLB in bits counts in the hybrid.

    Raises ValueError for what does not go together.
    """

    schedule: Literal["linear", "cosine", "learned"] = "linear"
    objective: Literal["vlb", "simple", "hybrid"] = "vlb"
    kind: Kind = "v"
    variance: Variance = "calibrated"
    steps: int | None = None
    vlb_weight: float = 1e-3

    def __post_init__(self) -> None:
        for name, own in (("schedule", SCHEDULES), *_CHOICES.items()):
            if getattr(self, name) not in own:
                raise ValueError(f"{name} is one of {', '.join(own)}, not {getattr(self, name)}")
        discrete = self.objective == "hybrid" or (
            self.objective == "vlb" and self.steps is not None
        )
        wrong = {
            "a learned variance needs objective=hybrid, or the VLB of so many steps": (
                self.variance == "learned" and not discrete
            ),
            "the hybrid is for a learned variance": (
                self.objective == "hybrid" and self.variance != "learned"
            ),
            "calibrated variances are measured after training: steps go with another variance": (
                discrete and self.variance == "calibrated"
            ),
            "L_simple has no steps": self.objective == "simple" and self.steps is not None,
            "there is no step": self.steps is not None and self.steps < 1,
            "a schedule is learned from the VLB of infinitely many steps": (
                self.schedule == "learned" and (discrete or self.objective == "simple")
            ),
        }
        for sentence, found in wrong.items():
            if found:
                raise ValueError(sentence)

    @classmethod
    def of(cls, given: Mapping[str, str]) -> "Options":
        """From words by name; raises ValueError for unknown names or values."""
        kinds = {field.name: str for field in fields(cls)} | {"steps": int, "vlb_weight": float}
        if unknown := given.keys() - kinds.keys():
            raise ValueError(f"there is no {min(unknown)}: there are {', '.join(kinds)}")
        values: dict[str, Any] = {name: kinds[name](word) for name, word in given.items()}
        return cls(**values)


_CHOICES = {
    "objective": ("vlb", "simple", "hybrid"),
    "kind": get_args(Kind),
    "variance": get_args(Variance),
}


BOUND = Options()
"""v, by the VLB of infinitely many steps."""


class TimedModel(GaussianModel):
    """The Gaussian model of the task, with the times that it is trained at.

    If the ends of its schedule are fixed, prior and decoder are no part of what is learned.
    """

    def __init__(self, shape: NoiseShape, options: Options = BOUND) -> None:
        learned = options.schedule == "learned"
        super().__init__(
            DenoisingNetwork(shape),
            SCHEDULES[options.schedule](HIGHEST, LOWEST),
            kind=options.kind,
            variance=options.variance,
            decoder="latent" if learned else "network",
        )
        self.times = ImportanceTimes()


class Gaussian:
    """The network of the Gaussian process.

    Args: shape of the network; the pictures to learn from; those on which errors and ranges of
    activations are measured; how it is trained.
    """

    def __init__(
        self,
        shape: NoiseShape,
        draws: Sequence[Draw],
        calibration: Draw,
        options: Options = Options(),
    ) -> None:
        outputs = shape.colours * (2 if options.variance == "learned" else 1)
        self.shape, self.options = replace(shape, outputs=outputs), options
        self.draws, self.calibration = draws, calibration

    def varied(self, given: Mapping[str, str]) -> "Gaussian":
        """The same with other options, by name; raises ValueError as `Options.of` does."""
        return Gaussian(self.shape, self.draws, self.calibration, Options.of(given))

    def network(self) -> TimedModel:
        """As `Task.network`."""
        return TimedModel(self.shape, self.options)

    def choose(self, draw: int, generator: torch.Generator) -> tuple[()]:
        """As `Task.choose`: nothing, as each picture has a time of its own."""
        return ()

    def loss(
        self,
        net: TimedModel,
        draw: int,
        choice: tuple[()],
        crops: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """As `Task.loss`: an unbiased estimate of the objective; bits/dim, if that is the VLB."""
        x = to_data(crops)
        if isinstance(net.schedule, Learned):
            return _with_schedule(net, net.schedule, crops, generator)
        times, weights = net.times.draw(len(x), generator)
        losses = self._losses(net, x, times, _noise(x, generator))
        net.times.update(times, losses)
        return (weights * losses).mean()

    def _losses(self, net: TimedModel, x: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        """One for each picture at its time, [N]."""
        own = self.options
        match own.objective:
            case "simple":
                return diffusion.simple(net, x, times, noise)
            case "hybrid":
                steps = own.steps or HYBRID_STEPS
                return diffusion.hybrid(net, x, times, noise, steps, own.vlb_weight)
        if own.steps is None:
            return elbo.continuous(net, x, times, noise)
        return elbo.discrete(net, x, times, noise, own.steps)

    def validate(self, net: TimedModel, images: list[Tensor]) -> Figures:
        """Bits/dim of 16 tiles of each picture in continuous time: the total and its terms."""
        tiles = torch.cat([central_tiles(image, self.calibration.size) for image in images])
        generator = torch.Generator().manual_seed(0)
        terms = likelihood(net, tiles, None, draws=4, generator=generator)
        parts = {
            "prior": terms.prior.mean,
            "diffusion": terms.diffusion.mean,
            "reconstruction": terms.reconstruction.mean,
            "standard error": terms.total.error,
        }
        return Figures("bits/dim", terms.total.mean, parts)

    def exact(self, net: TimedModel, crops: Tensor, images: list[Tensor]) -> Exported:
        """As `Task.exact`; raises ModelError unless the network predicts v, and nothing else.

        Variances are calibrated, whatever they were in training.
        """
        if net.kind != "v" or net.variance == "learned":
            raise ModelError(
                "Files are coded with networks that predict v and learn no variance; "
                f"this one predicts {net.kind}, its variance is {net.variance}."
            )
        net.variance, net.decoder = "calibrated", "network"
        return tabulate(net, crops, torch.Generator().manual_seed(0))

    def restore(self, net: TimedModel, file: ModelFile) -> None:
        """As `Task.restore`."""
        assert isinstance(net.network, DenoisingNetwork)
        if net.kind != "v":
            raise ModelError("The model to start from predicts v.")
        untabulate(net.network, file)


def _with_schedule(
    net: TimedModel, schedule: Learned, crops: Tensor, generator: torch.Generator
) -> Tensor:
    """The whole bound in bits/dim: its ends depend on the schedule, too."""
    x = to_data(crops)
    losses = elbo.continuous(net, x, low_discrepancy(len(x), generator), _noise(x, generator))
    ends = elbo.prior(net, x) + elbo.reconstruction(net, crops, _noise(x, generator))
    return (losses + ends).mean() + diffusion.schedule_gradient(losses, schedule)


def _noise(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator, device=x.device)
