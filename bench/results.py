"""What a run leaves behind: a document of rows, as JSON and as CSV, and tables made from it."""

import csv
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench import ours
from bench.codecs import Named
from bench.work import Row

Document = dict[str, Any]

_PACKAGES = ("torch", "numpy", "pillow", "imagecodecs", "pytorch-msssim", "ssimulacra2")


def document(
    kind: str, rows: list[Row], codecs: Iterable[Named], skipped: dict[str, str]
) -> Document:
    """The rows of a run, with all that says where they come from."""
    return {
        "bench": kind,
        "command": command(sys.argv[1:]),
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
        },
        "packages": {package: _version(package) for package in _PACKAGES},
        "model": ours.model_id(),
        "codecs": {codec.name: codec.version() for codec in codecs},
        "skipped": skipped,
        "rows": rows,
    }


def save(document: Document, out: Path) -> None:
    """Write the document as out/KIND.json, and its rows as out/KIND.csv."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / f"{document['bench']}.json", document)
    columns = {column: None for row in document["rows"] for column in row}
    with (out / f"{document['bench']}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(document["rows"])


def write_json(path: Path, value: Any) -> None:
    """Write JSON that has no NaN and no infinity, whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")
    partial.replace(path)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table: first column left, the others right-aligned."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(ratio: float) -> str:
    """A ratio as a signed difference: 0.92 is "-8.0 %"."""
    return f"{100 * (ratio - 1):+.1f} %"


def by(column: str, rows: Iterable[Row]) -> dict[Any, list[Row]]:
    """Group rows by a column, in the order of their first appearance."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[column], []).append(row)
    return groups


def origin(document: Document) -> str:
    """The paragraph under a table: what was left out, who was measured, where, and the command."""
    machine, reasons = document["machine"], dict[str, list[str]]()
    for name, why in document["skipped"].items():
        reasons.setdefault(why, []).append(name)
    lines = [f"Not measured: {', '.join(names)} ({why})." for why, names in reasons.items()]
    lines.append("; ".join(f"{name}: {text}" for name, text in document["codecs"].items()) + ".")
    lines.append(f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}.")
    lines.append(f"`{document['command']}`")
    return "\n".join(lines)


def command(arguments: Sequence[str]) -> str:
    """The command line to state, without the folders of this machine."""
    names = [Path(word).name if Path(word).is_absolute() else word for word in arguments]
    return shlex.join(["python", "-m", "bench", *names])


def _cpu() -> str:
    """The processor's name where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown processor"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
