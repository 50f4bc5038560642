"""Processes on one machine that train together: each on its own crops, with averaged weights."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn


class Team:
    """The processes, as one of them sees them; by default it is alone.

    Args: its number, from 0 on; how many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @torch.no_grad()
    def average(self, net: nn.Module) -> None:
        """Give a network's parameters and buffers the mean that they have in all processes.

        In place: `torch.distributed`'s own model averagers would have all parameters share one
        memory, in another order than that of the channels.
        """
        if self.size > 1:
            values = list(net.state_dict().values())
            pending = [dist.all_reduce(value.div_(self.size), async_op=True) for value in values]
            for work in pending:
                work.wait()

    def agree(self, number: float) -> float:
        """What the first process gives, in all of them."""
        if self.size == 1:
            return number
        shared = torch.tensor(number, dtype=torch.float64)
        dist.broadcast(shared, 0)
        return float(shared)

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process."""
        if self.size == 1:
            return flag
        flags = torch.tensor(int(flag))
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags)


@contextmanager
def team(size: int, work: Callable[..., None], *arguments: Any) -> Iterator[Team]:
    """Have so many processes, of which this is the first; the threads are shared out.

    Args:
        size: how many.
        work: what the others call, with their own `Team` first.
        arguments: what follows it.
    """
    if size == 1:
        yield Team()
        return
    threads = torch.get_num_threads()
    own = max(1, threads // size)
    with tempfile.TemporaryDirectory() as folder:
        place = f"file://{folder}/meeting"
        others = mp.spawn(
            _join, (place, size, own, work, arguments), size - 1, join=False, daemon=True
        )
        assert others is not None
        try:
            torch.set_num_threads(own)
            dist.init_process_group("gloo", init_method=place, rank=0, world_size=size)
            yield Team(0, size)
        except RuntimeError:
            others.join(timeout=10)  # raises what has ended another process, if that is it
            raise
        finally:
            torch.set_num_threads(threads)
            # What they had to do is done when the first one is through; how they end is no matter.
            for process in others.processes:
                process.terminate()
                process.join()
            if dist.is_initialized():
                dist.destroy_process_group()


def _join(
    index: int,
    place: str,
    size: int,
    threads: int,
    work: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    torch.set_num_threads(threads)
    dist.init_process_group("gloo", init_method=place, rank=index + 1, world_size=size)
    work(Team(index + 1, size), *arguments)
    dist.destroy_process_group()
