"""Many small measurements: spread over processes, and never made twice."""

import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

Row = dict[str, Any]  # one line of a table, fit for JSON


class Task(Protocol):
    """A measurement; it crosses to another process."""

    @property
    def key(self) -> str:
        """What the result depends on: kind, image digest, codec, setting, version."""

    @property
    def labels(self) -> Row:
        """Columns that tell in the table what was measured, and do not bear on the result."""

    def __call__(self) -> list[Row]:
        """Measure; raises BenchError for a result that must not be trusted."""


def collect(tasks: Sequence[Task], cache: Path | None, jobs: int) -> list[Row]:
    """Measure all tasks in `jobs` processes of one thread each; rows come in the tasks' order.

    Each result is appended to the file `cache` as it comes, and what is found there is not
    measured again. Raises what a task raises.
    """
    known = _read(cache)
    missing = list({task.key: task for task in tasks if task.key not in known}.values())
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(missing), unit="file", smoothing=0) as bar:
        for task, rows in _measured(missing, jobs):
            known[task.key] = rows
            bar.update()
            if cache is not None:
                with cache.open("a") as log:
                    log.write(json.dumps([task.key, rows], allow_nan=False) + "\n")
    return [{**task.labels, **row} for task in tasks for row in known[task.key]]


def _measured(tasks: Sequence[Task], jobs: int) -> Iterator[tuple[Task, list[Row]]]:
    if jobs == 1 or len(tasks) < 2:
        _one_thread()
        yield from ((task, task()) for task in tasks)
        return
    context = multiprocessing.get_context("spawn")  # torch does not survive a fork
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_one_thread) as pool:
        futures = {pool.submit(task): task for task in tasks}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _one_thread() -> None:
    import torch

    os.environ["OMP_NUM_THREADS"] = "1"  # for programs that are started from here
    torch.set_num_threads(1)


def _read(cache: Path | None) -> dict[str, list[Row]]:
    """What a cache holds; its last line may have been broken off."""
    known: dict[str, list[Row]] = {}
    if cache is not None and cache.exists():
        text = cache.read_text()
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            cache.write_text(whole)
        known.update(json.loads(line) for line in whole.splitlines())
    return known
