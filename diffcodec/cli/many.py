"""Many files in one run: options, which are left out, the bar, the summary, the failures."""

import contextlib
import sys
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffcodec.cli.common import RECURSIVE, STANDARD, complain

if TYPE_CHECKING:
    from diffcodec.cli.batch import Outcome
    from diffcodec.cli.tasks import Task


def many_files(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of commands that take many files."""
    for option in (
        click.option(
            "--scheduler",
            metavar="ADDRESS",
            help="Work on the cluster of this Dask scheduler, tcp://HOST:PORT.",
        ),
        click.option(
            "--keep-times/--no-keep-times",
            default=None,
            help="Results have the times of their sources.  [of many files only]",
        ),
        click.option("--force", is_flag=True, help="Of many files, redo also those done before."),
        click.option(
            "--jobs",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            metavar="N",
            help="Code N files at a time, in processes of one thread each, or of --threads.",
        ),
        RECURSIVE,
    ):
        command = option(command)
    return command


@dataclass
class Many:
    """The arguments that a command got for many files."""

    inputs: tuple[str, ...]
    output: str | None
    recursive: bool
    jobs: int
    scheduler: str | None
    force: bool
    keep_times: bool | None

    def __post_init__(self) -> None:
        if self.scheduler is not None and self.jobs > 1:
            raise click.UsageError("give at most one of --jobs, --scheduler")

    @staticmethod
    def are(inputs: tuple[str, ...]) -> bool:
        """Whether the inputs are more than one file."""
        from diffcodec.cli.tasks import is_many

        return len(inputs) > 1 or is_many(inputs[0])

    def run(
        self,
        function: "Callable[..., Outcome]",
        options: dict[str, Any],
        kinds: Collection[str],
        suffix: str,
        *,
        keep: bool = False,
    ) -> None:
        """Do all files, then exit with 1 if some of them failed.

        `function` does a task with `options`, `kinds` are the suffixes that a folder is searched
        for and `suffix` that of the results. With `keep`, what is there already is not replaced.
        """
        from diffcodec.cli import batch, journal

        tasks = self._tasks(kinds, suffix)
        relevant = journal.relevant(options)
        work = partial(batch.noted, partial(function, **options), relevant)
        current = set() if self.force else _current(tasks, relevant)
        if self.keep_times is not False:
            work = partial(batch.timed, work)
            for task in current:
                task.keep_time()
        todo = [task for task in tasks if task not in current]
        refused = _refused(todo, {task.source.resolve() for task in tasks}, keep=keep)
        todo = [task for task in todo if task not in refused]
        outcomes = [batch.Outcome(task, error=error) for task, error in refused.items()]
        start = time.perf_counter()
        if todo:
            if self.scheduler is None:
                running = batch.run(work, todo, self.jobs)
            else:
                running = batch.run_on(work, todo, self.scheduler)
            with contextlib.closing(running) as results:
                outcomes += self._watch(results, len(todo))
        seconds = time.perf_counter() - start
        click.echo(_summary(outcomes, len(current), seconds))
        failures = [outcome.error for outcome in outcomes if outcome.error is not None]
        for failure in failures:
            complain(failure)
        if failures:
            click.get_current_context().exit(1)

    def _tasks(self, kinds: Collection[str], suffix: str) -> list["Task"]:
        from diffcodec.cli.tasks import collect, is_many

        if STANDARD in self.inputs:
            raise click.UsageError("standard input cannot be one of several inputs")
        folder = None if self.output is None else Path(self.output)
        # A folder is made for a tree; for plain files a missing one may be a slip.
        made = any(map(is_many, self.inputs)) and self.output != STANDARD
        if folder is not None and not folder.is_dir() and (folder.exists() or not made):
            raise click.UsageError(f"with several inputs, -o must be a folder: {folder} is none")
        return collect(self.inputs, folder, kinds, suffix, recursive=self.recursive)

    def _watch(self, results: Iterator["Outcome"], total: int) -> list["Outcome"]:
        """Print lines and notes as outcomes come, under a bar where there is a terminal."""
        from tqdm import tqdm

        outcomes = []
        start = time.perf_counter()
        with tqdm(total=total, unit="file", leave=False, disable=None, dynamic_ncols=True) as bar:
            for outcome in results:
                outcomes.append(outcome)
                for note in outcome.notes:
                    tqdm.write(f"diffcodec: {note}", file=sys.stderr)
                if outcome.error is None:
                    tqdm.write(outcome.line, file=sys.stdout)
                bar.set_postfix_str(_rates(outcomes, time.perf_counter() - start), refresh=False)
                bar.update()
        return outcomes


def _current(tasks: list["Task"], options: dict[str, Any]) -> set["Task"]:
    """Tasks whose results are there already, under a bar where there is a terminal."""
    from tqdm import tqdm

    from diffcodec.cli.journal import Journal

    made = Journal(options)
    with tqdm(tasks, "looking", unit="file", leave=False, disable=None, delay=1) as bar:
        return {task for task in bar if made.is_current(task.source, task.target)}


def _refused(tasks: list["Task"], inputs: set[Path], *, keep: bool) -> dict["Task", str]:
    """Tasks that would destroy what they must not, and why."""
    refused = {}
    for task in tasks:
        if task.target.resolve() in inputs:
            refused[task] = f"{task.target} is an input: name a folder with -o"
        elif keep and task.target.exists():
            refused[task] = f"{task.target} exists: --force replaces it"
    return refused


def _rates(outcomes: list["Outcome"], seconds: float) -> str:
    """Ratio and throughput so far."""
    raw = sum(outcome.raw_bytes for outcome in outcomes)
    coded = sum(outcome.coded_bytes for outcome in outcomes)
    return f"{raw / coded:.2f}:1, {raw / 1e6 / seconds:.2f} MB/s" if coded else ""


def _summary(outcomes: list["Outcome"], skipped: int, seconds: float) -> str:
    """One line on all files."""
    done = sum(outcome.error is None for outcome in outcomes)
    parts = [f"{done} done"]
    if skipped:
        parts.append(f"{skipped} done before")
    if len(outcomes) > done:
        parts.append(f"{len(outcomes) - done} failed")
    line = ", ".join(parts)
    if done:
        line += f": {_rates(outcomes, seconds)}"
    return f"{line}, {seconds:.1f} s"
