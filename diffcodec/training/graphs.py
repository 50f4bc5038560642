"""CUDA graphs: on a GPU, a step of training is launched at once, not kernel by kernel."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import torch
from torch import Tensor

Kind = TypeVar("Kind", bound=Hashable)

EAGER = 3
"""Calls that run as they are before one is recorded: they make buffers and choose algorithms."""


class Replayed(Generic[Kind]):
    """A function that is recorded once for each kind of call, and replayed from then on.

    Args:
        function: takes a kind and a tensor whose shape is that of the kind, and returns a scalar
            tensor. Nothing in it may wait for the device, or depend on anything that changes on
            the host but the kind.
        device: where nothing is recorded if it is not CUDA.
        generator: of the random numbers that the function draws on the device, which are new ones
            at each call.
    """

    def __init__(
        self,
        function: Callable[[Kind, Tensor], Tensor],
        device: torch.device,
        generator: torch.Generator | None = None,
    ) -> None:
        self._function, self._records = function, device.type == "cuda"
        self._generator = generator
        self._calls: dict[Kind, int] = {}
        self._graphs: dict[Kind, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}
        if self._records:
            self._stream = torch.cuda.Stream(device)
            self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, kind: Kind, given: Tensor) -> Tensor:
        """What the function returns for a kind and a tensor."""
        if not self._records:
            return self._function(kind, given)
        calls = self._calls[kind] = self._calls.get(kind, 0) + 1
        if calls <= EAGER:
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                result = self._function(kind, given)
            torch.cuda.current_stream().wait_stream(self._stream)
            return result
        if kind not in self._graphs:
            graph, held = torch.cuda.CUDAGraph(), given.clone()
            if self._generator is not None:
                graph.register_generator_state(self._generator)
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                result = self._function(kind, held)
            self._graphs[kind] = graph, held, result
        graph, held, result = self._graphs[kind]
        held.copy_(given, non_blocking=True)
        graph.replay()
        return result.clone()
