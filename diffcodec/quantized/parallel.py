"""Parts of a picture that do not need each other, in threads of their own.

Two of them with a thread each take little more than half of the time that they take one after the
other with two threads for the network's layers: what codes on the host has one thread only.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

from diffcodec.exact import backends
from diffcodec.limits import Progress, ignore

Item = TypeVar("Item")
Made = TypeVar("Made")

_SECONDS = 0.2  # between looks at the progress


def each(
    work: Callable[[Item, Progress], Made], items: Iterable[Item], progress: Progress = ignore
) -> Iterator[Made]:
    """What `work` makes of each item, in order; inside `backends.exactly`.

    No more are under way, or wait to be taken, than PyTorch has threads here.

    Args:
        work: takes an item and a progress of its own.
        items: all of them.
        progress: is called with the fraction of all the work that is done, in the caller's thread.
    """
    todo = list(items)
    done = [0.0] * len(todo)
    threads, device = torch.get_num_threads(), backends.device().type

    def make(number: int) -> Made:
        def note(fraction: float) -> None:
            done[number] = fraction
            if threads == 1:
                progress(sum(done) / len(done))

        made = work(todo[number], note)
        note(1.0)
        return made

    def alone(number: int) -> Made:
        with backends.exactly(threads=1, device=device):
            return make(number)

    if threads == 1:
        yield from map(make, range(len(todo)))
        return
    pool = ThreadPoolExecutor(threads)
    try:
        numbers, running = iter(range(len(todo))), deque[Future[Made]]()
        while True:
            running.extend(
                pool.submit(alone, number) for number in islice(numbers, threads - len(running))
            )
            if not running:
                return
            first = running.popleft()
            while not _ended(first):
                progress(sum(done) / len(done))
            yield first.result()
            progress(sum(done) / len(done))
    finally:
        pool.shutdown(cancel_futures=True)


def _ended(future: Future[Made]) -> bool:
    """Whether it ends within a moment."""
    try:
        future.exception(_SECONDS)
    except TimeoutError:
        return False
    return True
