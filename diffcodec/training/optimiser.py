"""The optimiser: the same for all networks."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_DECAY, _KERNEL_DECAY = 1e-4, 1e-2

_MOMENTUM = 0.95

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
"""Of the Newton-Schulz iteration, whose quintic these are the coefficients of."""


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al., 2024) for the kernels of convolutions, all of one shape at a time.

    A kernel counts as a matrix with a row for each output. A network has many kernels, and each is
    small: together they are a few products on a GPU, one by one they would take as long as the
    network. Steps have the size of AdamW's (Liu et al., 2025), so that one rate serves both.

    Args: the kernels; the learning rate, a scalar tensor that may change; decoupled weight decay.
    """

    def __init__(self, kernels: Iterable[Tensor], rate: Tensor, weight_decay: float) -> None:
        super().__init__(kernels, {"lr": rate, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Change the kernels that have gradients."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for kernel in group["params"]:
                if kernel.grad is not None:
                    shapes.setdefault(kernel.shape, []).append(kernel)
            for kernels in shapes.values():
                self._step(kernels, group["lr"], group["weight_decay"])

    def _step(self, kernels: list[Tensor], rate: Tensor, decay: float) -> None:
        means, aheads = [], []
        for kernel in kernels:
            state, gradient = self.state[kernel], kernel.grad
            assert gradient is not None
            if not state:
                state["momentum"] = torch.zeros_like(kernel)
            means.append(state["momentum"].lerp_(gradient, 1 - _MOMENTUM))
            aheads.append(gradient)
        # Nesterov's momentum.
        ahead = torch.stack(aheads).lerp(torch.stack(means), _MOMENTUM)
        rows, columns = ahead.shape[1], ahead[0, 0].numel()
        size = 0.2 * max(rows, columns) ** 0.5
        steps = orthogonal(ahead.flatten(2)).float().view_as(ahead) * (rate * size)
        for kernel, step in zip(kernels, steps, strict=True):
            kernel.mul_(1 - rate * decay).sub_(step)


def orthogonal(matrices: Tensor) -> Tensor:
    """About the orthogonal factors of the polar decompositions of matrices [N, rows, columns].

    bfloat16; singular values end between 0.7 and 1.2.
    """
    x = matrices.bfloat16()
    wide = x.shape[1] <= x.shape[2]
    x = x if wide else x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x if wide else x.mT


class Optimiser:
    """Muon for the kernels of convolutions, AdamW for all else, at one rate.

    All that a step needs is on the networks' device, so that a CUDA graph can hold it.
    """

    def __init__(self, net: nn.Module, rate: float) -> None:
        parameters = list(net.parameters())
        device = parameters[0].device
        self._capturable = device.type == "cuda"
        self._rate = torch.tensor(rate, device=device)
        self._parts: dict[str, torch.optim.Optimizer] = {
            "muon": Muon([p for p in parameters if p.ndim == 4], self._rate, _KERNEL_DECAY),
            "adamw": torch.optim.AdamW(
                [p for p in parameters if p.ndim != 4],
                lr=self._rate,
                betas=(0.9, 0.98),
                weight_decay=_DECAY,
                fused=True,
                capturable=self._capturable,
            ),
        }

    def set_rate(self, rate: float) -> None:
        """Set the learning rate."""
        self._rate.fill_(rate)

    def step(self) -> None:
        """Change the parameters by their gradients, which are gone then."""
        for part in self._parts.values():
            part.step()
            part.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state, of any device.

        Raises KeyError or ValueError if it is of another network.
        """
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
            for group in part.param_groups:
                group["lr"] = self._rate
                if "capturable" in group:
                    group["capturable"] = self._capturable
