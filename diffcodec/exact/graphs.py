"""CUDA graphs: what a GPU has done once is launched at once, not kernel by kernel."""

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import torch
from torch import Tensor

Kind = TypeVar("Kind", bound=Hashable)

EAGER = 3
"""Calls that run as they are before one is recorded: they make buffers and choose algorithms."""


class Replayed(Generic[Kind]):
    """A function that is recorded once for each kind of call, and replayed from then on.

    Several threads may call it: one is served after the other.

    Args:
        function: takes a kind and tensors whose shapes are those of the kind, and returns a
            tensor. Nothing in it may wait for the device, or depend on anything that changes on
            the host but the kind.
        device: where nothing is recorded if it is not CUDA.
        generator: of the random numbers that the function draws on the device, which are new ones
            at each call.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        device: torch.device,
        generator: torch.Generator | None = None,
    ) -> None:
        self._function, self._records = function, device.type == "cuda"
        self._generator = generator
        self._calls: dict[Kind, int] = {}
        self._graphs: dict[Kind, tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]] = {}
        self._lock = threading.Lock()
        if self._records:
            self._stream = torch.cuda.Stream(device)
            self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, kind: Kind, *given: Tensor) -> Tensor:
        """What the function returns for a kind and tensors."""
        if not self._records:
            return self._function(kind, *given)
        with self._lock:
            current = torch.cuda.current_stream()
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                result = self._run(kind, given)
            current.wait_stream(self._stream)
            result.record_stream(current)
        return result

    def _run(self, kind: Kind, given: tuple[Tensor, ...]) -> Tensor:
        """The result, on the stream of this object."""
        calls = self._calls[kind] = self._calls.get(kind, 0) + 1
        if calls <= EAGER:
            return self._function(kind, *given)
        if kind not in self._graphs:
            self._graphs[kind] = self._record(kind, [each.clone() for each in given])
        graph, held, result = self._graphs[kind]
        for own, new in zip(held, given, strict=True):
            own.copy_(new, non_blocking=True)
        graph.replay()
        return result.clone()

    def _record(
        self, kind: Kind, held: list[Tensor]
    ) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]:
        """A graph, the tensors that it reads, and the one that it writes."""
        graph = torch.cuda.CUDAGraph()
        if self._generator is not None:
            graph.register_generator_state(self._generator)
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            result = self._function(kind, *held)
        return graph, held, result
