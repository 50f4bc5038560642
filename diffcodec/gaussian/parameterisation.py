"""What a network predicts about z_t = alpha x + sigma eps; each kind tells all the others."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from diffcodec.gaussian.process import alpha, sigma

Kind = Literal["x", "eps", "v", "score", "flow"]
"""The data, the noise, v = alpha eps - sigma x (Salimans and Ho, 2022), grad log q(z_t | x), and
eps - x, the velocity of rectified flow (Liu et al., 2023)."""


@dataclass(frozen=True)
class Prediction:
    """One prediction in all parameterisations; `log_snr` broadcasts against x and eps."""

    x: Tensor
    eps: Tensor
    log_snr: Tensor

    @classmethod
    def of(cls, kind: Kind, value: Tensor, z: Tensor, log_snr: Tensor) -> "Prediction":
        """From a prediction of this kind about z; `value` and z have the same shape."""
        a, s = alpha(log_snr), sigma(log_snr)
        match kind:
            case "x":
                x, eps = value, (z - a * value) / s
            case "eps":
                x, eps = (z - s * value) / a, value
            case "v":
                x, eps = a * z - s * value, s * z + a * value
            case "score":
                x, eps = (z + s * s * value) / a, -s * value
            case "flow":
                x, eps = (z - s * value) / (a + s), (z + a * value) / (a + s)
        return cls(x, eps, log_snr)

    @property
    def v(self) -> Tensor:
        """The velocity: the derivative of z by the angle of (alpha, sigma)."""
        return alpha(self.log_snr) * self.eps - sigma(self.log_snr) * self.x

    @property
    def score(self) -> Tensor:
        """The gradient of the log density of z."""
        return -self.eps / sigma(self.log_snr)

    @property
    def flow(self) -> Tensor:
        """The derivative of (1 - t) x + t eps by t."""
        return self.eps - self.x
