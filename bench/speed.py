"""Time and memory of diffcodec as a user meets them: whole processes, start-up included."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from bench import BenchError, report
from bench.metrics import pixels
from bench.pictures import Picture


class Usage(NamedTuple):
    """What one process took: wall seconds, and peak resident bytes."""

    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Result:
    """One picture, encoded or decoded: median wall seconds, largest peak of resident bytes."""

    picture: str
    task: str
    seconds: float
    peak_bytes: int


def run(pictures: Sequence[Picture], runs: int, out: Path | None) -> str:
    """Time `python -m diffcodec encode` and `decode`, alternating, `runs` times a picture.

    Returns the table; speed.json in `out` grows with each picture. Raises BenchError when a
    process fails or the decoded picture is not the original.
    """
    results: list[Result] = []
    sizes: list[str] = []
    for picture in tqdm(pictures, unit="picture"):
        image = picture.load()
        sizes.append(f"{image.width}x{image.height}")
        results += _measure(picture.name, image, runs)
        report.save(out, "speed", {"runs": runs, "results": [asdict(r) for r in results]})
    rows = [
        [
            f"{encode.picture} ({size})",
            f"{encode.seconds:.2f}",
            f"{decode.seconds:.2f}",
            f"{encode.peak_bytes / 2**20:,.0f}",
            f"{decode.peak_bytes / 2**20:,.0f}",
        ]
        for encode, decode, size in zip(results[::2], results[1::2], sizes, strict=True)
    ]
    header = ["picture", "encode, s", "decode, s", "encode, peak MiB", "decode, peak MiB"]
    return f"{report.table(header, rows)}\n\nMedian of {runs} runs; {os.cpu_count()} CPU cores."


# A process counts the memory of the one that started it towards its own peak (Linux, until exec),
# so a small process does the starting, not this one with its pictures.
_LAUNCHER = """
import os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
process.returncode = os.waitstatus_to_exitcode(status)
print(time.perf_counter() - start, usage.ru_maxrss, process.returncode)
"""


def measure_process(command: Sequence[str]) -> Usage:
    """Run a command to its end; raises BenchError with its last line when it fails.

    Needs os.wait4, so any system but Windows.
    """
    launcher = [sys.executable, "-c", _LAUNCHER, *command]
    done = subprocess.run(launcher, capture_output=True, text=True, errors="replace")
    last = done.stderr.strip().rpartition("\n")[2]
    if done.returncode:
        raise BenchError(f"{' '.join(command)}: {last}")
    seconds, peak, code = done.stdout.split()
    if code != "0":
        raise BenchError(f"{' '.join(command)}: exit code {code} {last}")
    return Usage(float(seconds), int(peak) * (1 if sys.platform == "darwin" else 1024))


def _measure(name: str, image: Image.Image, runs: int) -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        original, coded, decoded = (Path(folder, f) for f in ("in.png", "in.dfc", "out.png"))
        image.save(original)
        tasks = {"encode": (original, coded), "decode": (coded, decoded)}
        usages: dict[str, list[Usage]] = {task: [] for task in tasks}
        for _ in range(runs):
            for task, (source, target) in tasks.items():
                target.unlink(missing_ok=True)
                program = [sys.executable, "-m", "diffcodec", task]
                usages[task].append(measure_process([*program, str(source), "-o", str(target)]))
        with Image.open(decoded) as result:
            if not np.array_equal(pixels(result), pixels(image)):
                raise BenchError(f"diffcodec is not lossless on {name}")
    return [
        Result(name, task, median(u.seconds for u in used), max(u.peak_bytes for u in used))
        for task, used in usages.items()
    ]
