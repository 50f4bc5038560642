"""Many files: which they are, and where their results go."""

import glob
import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from diffcodec.errors import ImageError

WILDCARDS = frozenset("*?[")


@dataclass(frozen=True)
class Task:
    """A file and what is to be made of it."""

    source: Path
    target: Path

    def keep_time(self) -> None:
        """Give the target the time of the last change of its source. Raises OSError."""
        found = self.source.stat()
        os.utime(self.target, ns=(found.st_atime_ns, found.st_mtime_ns))


def collect(
    inputs: Iterable[str],
    output: Path | None,
    kinds: Collection[str],
    suffix: str,
    *,
    recursive: bool,
) -> list[Task]:
    """The tasks of files, folders and patterns.

    Args:
        inputs: names of files; folders, which are searched for visible files with a suffix among
            `kinds`; patterns as a shell knows them (`**` is any folders), likewise.
        output: a folder that mirrors the tree below each folder, or below the fixed part of a
            pattern; None puts results beside their sources.
        suffix: the results' suffix.
        recursive: whether the folders below a folder are searched too.

    Results have the stems of their sources. Where two would be one file, also if only the case of
    their names differs, both keep the suffix of their source too: IMG.jpg.dfc and IMG.png.dfc.

    Raises ImageError for a folder or pattern with nothing in it, or if results would be one file
    all the same, as those of one name from two folders.
    """
    found: dict[tuple[Path, Path], None] = {}  # each source and the place that mirrors it, in order
    for name in inputs:
        root, paths = _find(name, kinds, recursive)
        for path in paths:
            found[path, path if output is None else output / path.relative_to(root)] = None
    targets = _targets([place for _, place in found], suffix)
    tasks = [Task(source, target) for (source, _), target in zip(found, targets, strict=True)]
    first: dict[str, Task] = {}
    for task in tasks:
        # Beside different sources of one name there is a place for as many results.
        name = str(task.target) if output is None else _folded(task.target)
        other = first.setdefault(name, task)
        if other is not task:
            raise ImageError(
                f"{other.source} and {task.source} would both be written to {task.target}"
            )
    return tasks


def _targets(places: Sequence[Path], suffix: str) -> list[Path]:
    """The names of results; one that becomes longer may meet another, so it goes in turns."""
    whole: set[int] = set()
    while True:
        targets = [
            place.with_name((place.name if number in whole else place.stem) + suffix)
            for number, place in enumerate(places)
        ]
        times = Counter(map(_folded, targets))
        clashing = {number for number, each in enumerate(targets) if times[_folded(each)] > 1}
        if clashing <= whole:
            return targets
        whole |= clashing


def _folded(path: Path) -> str:
    """What names share that are one where case does not count."""
    return str(path).casefold()


def sources(inputs: Iterable[str], kinds: Collection[str], *, recursive: bool) -> list[Path]:
    """The files that inputs mean, in order; arguments and errors as of `collect`."""
    return [path for name in inputs for path in _find(name, kinds, recursive)[1]]


def is_many(name: str) -> bool:
    """Whether an input is a folder or a pattern."""
    path = Path(name)
    return path.is_dir() or (not path.exists() and not WILDCARDS.isdisjoint(name))


def _find(name: str, kinds: Collection[str], recursive: bool) -> tuple[Path, list[Path]]:
    """The root of a tree and the files in it that an input means."""
    path = Path(name)
    if not is_many(name):
        return path.parent, [path]
    if path.is_dir():
        root, found = path, list(path.rglob("*") if recursive else path.glob("*"))
    else:
        fixed = takewhile(WILDCARDS.isdisjoint, path.parts)
        root = Path(*fixed)
        found = [Path(each) for each in glob.iglob(name, recursive=True)]  # noqa: PTH207
    files = sorted(
        file
        for file in found
        if file.suffix.lower() in kinds and not file.name.startswith(".") and file.is_file()
    )
    if not files:
        hint = "" if recursive or not path.is_dir() else " itself; --recursive looks below it"
        raise ImageError(f"there is nothing to do in {name}{hint}")
    return root, files
