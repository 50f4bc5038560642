"""The optimiser: the same for all networks."""

from typing import Any

import torch
from torch import nn

_DECAY, _KERNEL_DECAY = 1e-4, 1e-2


class Optimiser:
    """Muon (Jordan et al., 2024) for the kernels of convolutions, AdamW for all else.

    A kernel counts as a matrix with a row for each output; `adjust_lr_fn` gives both optimisers
    steps of one size, so that one rate serves.
    """

    def __init__(self, net: nn.Module, rate: float) -> None:
        parameters = list(net.parameters())
        self._kernels = [p for p in parameters if p.ndim == 4]
        # torch's Muon takes matrices only: these share the kernels' memory.
        self._matrices = [nn.Parameter(_rows(kernel.detach())) for kernel in self._kernels]
        for kernel, matrix in zip(self._kernels, self._matrices, strict=True):
            outputs, inputs, height, width = kernel.shape
            whole = matrix.detach().view(outputs, height, width, inputs)
            kernel.data = whole.permute(0, 3, 1, 2)
        self._parts: dict[str, torch.optim.Optimizer] = {
            "muon": torch.optim.Muon(
                self._matrices,
                lr=rate,
                weight_decay=_KERNEL_DECAY,
                adjust_lr_fn="match_rms_adamw",
            ),
            "adamw": torch.optim.AdamW(
                [p for p in parameters if p.ndim != 4],
                lr=rate,
                betas=(0.9, 0.98),
                weight_decay=_DECAY,
                foreach=True,
            ),
        }

    def set_rate(self, rate: float) -> None:
        """Set the learning rate."""
        for part in self._parts.values():
            for group in part.param_groups:
                group["lr"] = rate

    def step(self) -> None:
        """Change the parameters by their gradients, which are gone then."""
        for kernel, matrix in zip(self._kernels, self._matrices, strict=True):
            matrix.grad = None if kernel.grad is None else _rows(kernel.grad)
            kernel.grad = None
        for part in self._parts.values():
            part.step()
            part.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state; raises KeyError or ValueError if it is of another network."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name])


def _rows(kernel: torch.Tensor) -> torch.Tensor:
    return kernel.permute(0, 2, 3, 1).flatten(1)
