"""The work on many files, in one process and in several."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffcodec.cli import journal
from diffcodec.cli.common import lacks_memory
from diffcodec.cli.tasks import Task
from diffcodec.errors import DiffcodecError, ImageError

if TYPE_CHECKING:
    from diffcodec import Info, Picture, SetInfo

LOSSY = ("JPEG", "MPO", "WEBP", "AVIF", "JPEG2000")
"""Pillow's names of formats whose files are often smaller than lossless ones can be."""


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    `line` describes the result and `notes` what is odd about the source; `raw_bytes` are those
    of the planes, `coded_bytes` those of the .dfc file. A task that failed has `error` only.
    """

    task: Task
    line: str = ""
    notes: tuple[str, ...] = ()
    raw_bytes: int = 0
    coded_bytes: int = 0
    error: str | None = None


Work = Callable[[Task], Outcome]


def encode_file(task: Task, **options: Any) -> Outcome:
    """Encode a picture file, with the options of `diffcodec.encode`, and raise what it raises."""
    import diffcodec

    start = time.perf_counter()
    notes: list[str] = []
    image = diffcodec.read_image(task.source, notes.append)
    kind, image = getattr(image, "format", None), diffcodec.lean(image)
    data = diffcodec.encode(image, **options)
    notes += outgrown(str(task.source), kind, task.source.stat().st_size, data)
    make_room(task.target)
    diffcodec.write_atomically(task.target, data)
    line, raw = encoded(data, time.perf_counter() - start)
    return Outcome(task, f"{task.target}: {line}", tuple(notes), raw, len(data))


def encoded(data: bytes, seconds: float) -> tuple[str, int]:
    """The line that describes a file just encoded, and the bytes of the picture's planes."""
    import diffcodec

    header = diffcodec.info(data, rungs=False)
    pixels = header.width * header.height
    raw, size = raw_bytes(header), len(data)
    rate = f"{8 * size / pixels:.3f} bpp, {raw / size:.2f}:1"
    return f"{size:,} bytes, {rate}, {seconds:.1f} s", raw


def outgrown(name: str, kind: str | None, size: int, data: bytes) -> list[str]:
    """What to say if the lossless file of a JPEG or the like is larger than its `size` bytes."""
    import diffcodec

    lossless = diffcodec.info(data, rungs=False).lossless
    if kind not in LOSSY or not lossless or len(data) <= size:
        return []
    return [f"{name}: the lossless file is {len(data) / size:.1f} times as large as this {kind}"]


def decode_file(task: Task, **options: Any) -> Outcome:
    """Decode a file, with the options of `diffcodec.decode`, and raise what it raises."""
    import diffcodec

    start = time.perf_counter()
    try:
        data = task.source.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read {task.source}: {error.strerror or error}") from error
    if diffcodec.is_set(data):
        raise ImageError(f"{task.source} is a set of pictures: decode it by itself")
    header = diffcodec.info(data, rungs=False)
    check_target(task.target, header, options)
    notes: list[str] = []
    image = diffcodec.decode_picture(data, **options)
    make_room(task.target)
    diffcodec.write_image(image, task.target, notes.append)
    if not header.complete:
        notes.append(truncated(str(task.source), header))
    line = f"{task.target}: {decoded(image, time.perf_counter() - start)}"
    return Outcome(task, line, tuple(notes), raw_bytes(header), len(data))


def check_target(target: Path, header: "Info", options: Mapping[str, Any]) -> None:
    """Raise ImageError if the picture of a file cannot be written to `target`.

    What a region or a reduced picture measures is known when it is decoded, and checked then.
    """
    import diffcodec

    whole = options.get("region") is None and options.get("size") is None
    size = (header.width, header.height) if whole else (1, 1)
    diffcodec.check_target(target, header.mode, header.depth, size, header.metadata)


def raw_bytes(header: "Info") -> int:
    """The bytes of a file's planes; a mode has a letter for each."""
    return header.width * header.height * len(header.mode) * header.depth // 8


def decoded(image: "Picture", seconds: float) -> str:
    """The line that describes a picture just decoded."""
    return f"{image.width}x{image.height} {image.mode}, {seconds:.1f} s"


def truncated(source: str, header: "Info | SetInfo") -> str:
    """What to say of a file that is not all there."""
    return (
        f"{source} is truncated, {header.bytes:,} of {header.total_bytes:,} bytes: "
        "this is a preview"
    )


def make_room(path: Path) -> None:
    """Make the folder that a file goes to. Raises ImageError if that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(f"cannot write {path}: {error.strerror or error}") from error


def noted(work: Work, options: Mapping[str, Any], task: Task) -> Outcome:
    """Do a task and enter it in the journal, with the options that change its result."""
    source = journal.digest(task.source)
    outcome = work(task)
    journal.add(source, options, task.target)
    return outcome


def timed(work: Work, task: Task) -> Outcome:
    """Do a task; its result keeps the time of its source."""
    outcome = work(task)
    task.keep_time()
    return outcome


def attempt(work: Work, task: Task) -> Outcome:
    """Do a task; an error that has a sentence becomes its outcome."""
    try:
        return work(task)
    except (DiffcodecError, OSError) as error:
        name, sentence = str(task.source), str(error)
        return Outcome(task, error=sentence if name in sentence else f"{name}: {sentence}")
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        return Outcome(task, error=f"{task.source} needs more memory than there is")


def run(work: Work, tasks: list[Task], jobs: int) -> Generator[Outcome, None, None]:
    """Do tasks, and yield their outcomes as they come.

    With several jobs these are processes of one thread each. Closing the iterator, as an
    interruption does, ends them without half-written files.
    """
    if jobs == 1:
        yield from (attempt(work, task) for task in tasks)
        return
    # Forking a process that has used torch may hang its threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(tasks)), context, _start) as pool:
        try:
            with _uninterrupted():
                futures = {pool.submit(_serve, work, task): task for task in tasks}
            for future in as_completed(futures):
                try:
                    yield future.result()
                except BrokenProcessPool:
                    source = futures[future].source
                    yield Outcome(futures[future], error=f"{source}: a process was killed")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
            raise


def run_on(work: Work, tasks: list[Task], scheduler: str) -> Generator[Outcome, None, None]:
    """Do tasks on the workers of a Dask cluster, and yield their outcomes as they come.

    The workers have diffcodec installed and see the files under the same absolute paths. Closing
    the iterator takes back what is not being worked on. Raises DiffcodecError without Dask,
    OSError if there is no such scheduler.
    """
    try:
        from distributed import Client, KilledWorker, as_completed
    except ImportError as error:
        raise DiffcodecError(
            "--scheduler needs Dask: install diffcodec with its extra `distributed`"
        ) from error
    places = [Task(task.source.absolute(), task.target.absolute()) for task in tasks]
    with Client(scheduler) as client:
        futures = {client.submit(attempt, work, task, pure=False): task for task in places}
        try:
            for future in as_completed(futures):
                try:
                    yield future.result()
                except KilledWorker:
                    source = futures[future].source
                    yield Outcome(futures[future], error=f"{source}: workers died of it")
        finally:
            client.cancel(list(futures))


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Keep interruptions from processes that start inside, also before `_start`; ours waits."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start() -> None:
    """Make a worker use one thread and leave interruptions to its parent, which ends it."""
    os.environ["OMP_NUM_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)


def _leave(*_: object) -> None:
    raise SystemExit


def _serve(work: Work, task: Task) -> Outcome:
    try:
        return attempt(work, task)
    except SystemExit:  # temporary files are gone; the pool would go on with the next task
        os._exit(1)
