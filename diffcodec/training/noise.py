"""The network of the Gaussian process as something to train."""

from collections.abc import Sequence

import torch
from torch import Tensor

from diffcodec.exact.files import ModelFile
from diffcodec.exact.networks import NoiseShape
from diffcodec.gaussian import elbo
from diffcodec.gaussian.decoder import to_data
from diffcodec.gaussian.likelihood import likelihood
from diffcodec.gaussian.model import GaussianModel
from diffcodec.gaussian.schedule import LinearLogSnr
from diffcodec.training.curves import Figures
from diffcodec.training.data import Draw
from diffcodec.training.gaussian import DenoisingNetwork, tabulate, untabulate
from diffcodec.training.tasks import Exported, central_tiles
from diffcodec.training.times import ImportanceTimes

HIGHEST, LOWEST = 11.0, -5.0
"""Log-SNRs of the Gaussian chain: from noise of half a pixel value, below which only the grid of
values is left to tell, to all but pure noise."""


class TimedModel(GaussianModel):
    """The Gaussian model of the task, with the times that it is trained at.

    The ends of its schedule are fixed: prior and decoder are then no part of what is learned.
    """

    def __init__(self, shape: NoiseShape) -> None:
        super().__init__(
            DenoisingNetwork(shape),
            LinearLogSnr(HIGHEST, LOWEST),
            variance="calibrated",
            decoder="network",
        )
        self.times = ImportanceTimes()


class Gaussian:
    """The network of the Gaussian process: v of square pictures, by the continuous VLB.

    Args: shape of the network; the pictures to learn from; those on which errors and ranges of
    activations are measured.
    """

    def __init__(self, shape: NoiseShape, draws: Sequence[Draw], calibration: Draw) -> None:
        self.shape, self.draws, self.calibration = shape, draws, calibration

    def network(self) -> TimedModel:
        """As `Task.network`."""
        return TimedModel(self.shape)

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
        """As `Task.loss`: an unbiased estimate of the diffusion term, in bits/dim."""
        x = to_data(crops)
        times, weights = net.times.draw(len(x), generator)
        noise = torch.randn(x.shape, generator=generator, device=x.device)
        losses = elbo.continuous(net, x, times, noise)
        net.times.update(times, losses)
        return (weights * losses).mean()

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
        """As `Task.exact`."""
        return tabulate(net, crops, torch.Generator().manual_seed(0))

    def restore(self, net: TimedModel, file: ModelFile) -> None:
        """As `Task.restore`."""
        assert isinstance(net.network, DenoisingNetwork)
        untabulate(net.network, file)
