"""Which results are up to date: a journal, beside them, of what batches have made.

A line says that some bytes, coded with some options, gave some other bytes. That stays true
whatever becomes of the files, so several processes may add lines at once, in any order; one that
is lost or torn means that a file is coded again.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffcodec.errors import DiffcodecError

NAME = ".diffcodec.jsonl"

WITHOUT_EFFECT = frozenset({"threads", "device", "max_pixels"})
"""Options that change no byte of a result."""


def relevant(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given and change results; of a model file, what is in it."""
    return {
        name: digest(value) if isinstance(value, Path) else value
        for name, value in options.items()
        if value is not None and value is not False and name not in WITHOUT_EFFECT
    }


def digest(path: Path) -> str | None:
    """SHA-256 of a file's bytes; None if it cannot be read, or only once, as a pipe."""
    try:
        if path.is_file():
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        pass
    return None


def add(source: str | None, options: Mapping[str, Any], target: Path) -> None:
    """Note what `target` was made from: bytes of this digest, with these `relevant` options.

    Raises DiffcodecError if the journal cannot be written.
    """
    path = _beside(target)
    try:
        if source is not None:
            with path.open("ab") as file:
                file.write(f"{_line(source, options, digest(target))}\n".encode())
    except OSError as error:
        raise DiffcodecError(f"cannot write {path}: {error.strerror or error}") from error


class Journal:
    """The journals of the folders that results of a batch with some `relevant` options go to."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self._folders: dict[Path, frozenset[str]] = {}

    def is_current(self, source: Path, target: Path) -> bool:
        """Whether the bytes of the target are known to come from those of the source."""
        lines = self._lines(_beside(target))
        if not lines or not target.is_file():
            return False
        return _line(digest(source), self._options, digest(target)) in lines

    def _lines(self, path: Path) -> frozenset[str]:
        if path not in self._folders:
            try:
                text = path.read_text(encoding="utf-8", errors="replace")
            except OSError:
                text = ""
            self._folders[path] = frozenset(text.splitlines())
        return self._folders[path]


def _beside(target: Path) -> Path:
    return target.with_name(NAME)


def _line(source: str | None, options: Mapping[str, Any], target: str | None) -> str:
    return json.dumps({"source": source, "options": options, "target": target}, sort_keys=True)
