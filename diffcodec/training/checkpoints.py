"""Checkpoints: folders of small files, of which a kill at any moment leaves a whole set.

What `torch.save` writes stands in parts that have the number of their generation, and an index
names the generation that counts. The index is replaced when all parts are there, and older parts
go after that.
"""

import io
import json
import pickle
import re
import zlib
from pathlib import Path
from typing import Any

import torch

from diffcodec.errors import ModelError

PART_BYTES = 15 << 20
"""The largest size of a file."""

_INDEX, _ASIDE = "index.json", "index.json.part"
_PART = re.compile(r"\d+-\d+")


def exists(folder: Path) -> bool:
    """Whether there is a checkpoint; raises ModelError if something else is in its place."""
    if not folder.exists():
        return False
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else [""]
    if not all(name in (_INDEX, _ASIDE) or _PART.fullmatch(name) for name in names):
        raise ModelError(f"{folder} is no checkpoint.")
    return _INDEX in names


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint in place of the one that is there, if any."""
    stream = io.BytesIO()
    torch.save(state, stream)
    content = stream.getbuffer()
    generation = _index(folder)["generation"] + 1 if exists(folder) else 1
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(content), PART_BYTES)
    names = [f"{generation}-{number}" for number in range(len(starts))]
    for name, start in zip(names, starts, strict=True):
        (folder / name).write_bytes(content[start : start + PART_BYTES])
    index = {"generation": generation, "parts": names, "checksum": zlib.crc32(content)}
    (folder / _ASIDE).write_text(json.dumps(index))
    (folder / _ASIDE).replace(folder / _INDEX)
    for path in folder.iterdir():
        if path.name not in (_INDEX, *names):
            path.unlink()


def load(folder: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU without running any code in it.

    Raises ModelError if there is none, or if it is damaged.
    """
    index = _index(folder)
    try:
        content = b"".join((folder / name).read_bytes() for name in index["parts"])
        if zlib.crc32(content) != index["checksum"]:
            raise ValueError
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError(f"The checkpoint {folder} is damaged.") from error


def _index(folder: Path) -> dict[str, Any]:
    try:
        index = json.loads((folder / _INDEX).read_text())
        return {name: index[name] for name in ("generation", "parts", "checksum")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder} is no readable checkpoint.") from error
