"""Tables for people, JSON for programs."""

import json
import math
import platform
import shlex
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("diffcodec", "torch", "numpy", "pillow", "imagecodecs")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table: first column left, the others right-aligned."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(ratio: float) -> str:
    """A ratio of sizes as a signed difference: 0.92 is "-8.0 %"."""
    return f"{100 * (ratio - 1):+.1f} %"


def save(out: Path | None, name: str, results: dict[str, Any]) -> None:
    """Write `results`, with the command, machine and versions, to out/name.json.

    Nothing is written when `out` is None. Infinite figures (the PSNR of a lossless picture)
    become null. Raises OSError when the folder cannot be written.
    """
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    document = {
        "command": shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "packages": {package: _version(package) for package in _PACKAGES},
        **results,
    }
    path = out / f"{name}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(_finite(document), indent=1) + "\n")
    partial.replace(path)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _finite(value: Any) -> Any:
    """JSON has no infinity."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and math.isinf(value) else value
