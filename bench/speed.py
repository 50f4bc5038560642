"""Time and memory as users meet them: whole processes (cold), and the next call in one (warm)."""

import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from bench import BenchError, results
from bench.codecs import FileCodec, installed, open_image
from bench.metrics import pixels
from bench.ours import NAME
from bench.pictures import Picture
from bench.results import Document
from bench.work import Row

TASKS = ("encode", "decode")

PARTS = ("region", "reduced")
"""What diffcodec decodes of a large picture as well: PART x PART pixels of its middle, and all of
it in no more than so many."""

PART = 512


class Usage(NamedTuple):
    """What one process took (wall seconds, peak resident bytes), and what it printed."""

    seconds: float
    peak_bytes: int
    output: str


def run(
    pictures: Sequence[Picture], codecs: Sequence[FileCodec], sizes: Sequence[float], runs: int
) -> Document:
    """Time encode and decode of all codecs, taking turns, `runs` times on each picture.

    With `sizes` (megapixels), the pictures are the first one, cut or continued by its mirror
    image to each of them, only whole processes are timed, and diffcodec decodes PARTS, too. Raises
    BenchError when a process fails or a decoded picture is not the original.
    """
    there, skipped = installed(codecs)
    named = [(picture.name, picture.load()) for picture in pictures]
    if sizes:
        named = [(f"{size:g} megapixels", resized(named[0][1], size)) for size in sizes]
    rows: list[Row] = []
    with tqdm(total=len(named) * runs * len(there), unit="codec") as bar:
        for name, image in named:
            labels = {"picture": name, "width": image.width, "height": image.height}
            for number in range(1, runs + 1):
                for codec in there:
                    measured = _measure(name, image, codec, warm=not sizes)
                    rows += [{**labels, "run": number, **row} for row in measured]
                    bar.update()
    return results.document("speed", rows, there, skipped)


def summary(document: Document) -> str:
    """One line a picture and codec: times as ratios of the first codec's, then in seconds.

    A ratio is the median of the rounds' own ratios; in one round the codecs follow each other.
    """
    names = list(results.by("codec", document["rows"]))
    first, alone = names[0], len(names) == 1
    kinds = list(dict.fromkeys((row["task"], row["state"]) for row in document["rows"]))
    tasks = list(dict.fromkeys(task for task, _ in kinds))
    lines = []
    for picture, rows in results.by("picture", document["rows"]).items():
        by_codec = results.by("codec", rows)
        for codec in by_codec:
            ratios, seconds = [], []
            for kind in kinds:
                mine, other = (_seconds(by_codec[name], kind) for name in (codec, first))
                if not mine:  # only large pictures have parts
                    ratios.append("-")
                    seconds.append("-")
                    continue
                pairs = zip(mine, other, strict=True)
                ratios.append(f"{median(a / b for a, b in pairs):.3g}")
                middle = median(mine)
                seconds.append(f"{middle:,.0f}" if middle >= 100 else f"{middle:.3g}")
            by_task = results.by("task", by_codec[codec])
            peaks = [
                f"{max(row['peak_bytes'] or 0 for row in by_task[task]) / 2**20:,.0f}"
                if task in by_task
                else "-"
                for task in tasks
            ]
            size = f"{rows[0]['width']}x{rows[0]['height']}"
            figures = seconds if alone else ratios + seconds
            lines.append([f"{picture} ({size})", codec, *figures, *peaks])
    states = [" ".join(kind) for kind in kinds]
    header = ["picture", "codec"]
    if not alone:
        header += [f"{state}, {first} = 1" for state in states]
    header += [*(f"{state}, s" for state in states), *(f"{task}, peak MiB" for task in tasks)]
    runs = max(row["run"] for row in document["rows"])
    notes = ["Lossless; " + ("one run." if runs == 1 else f"medians of {runs} runs.")]
    if not alone:
        notes.append("Peers run on one thread.")
    if PARTS[0] in tasks:
        notes.append(
            f"A region is the {PART}x{PART} pixels of the middle; reduced, no side is longer "
            f"than {PART} pixels."
        )
    notes.append("Cold is a whole Python process, PNG in or out.")
    if any(state == "warm" for _, state in kinds):
        notes.append("Warm is the second call in one process, in memory.")
    return f"{results.table(header, lines)}\n\n{' '.join(notes)}"


def resized(image: Image.Image, megapixels: float) -> Image.Image:
    """A picture of that size and about the same shape: cut, or continued by its mirror image."""
    scale = math.sqrt(megapixels * 1e6 / (image.width * image.height))
    samples = pixels(image)
    for axis in (0, 1):
        side = samples.shape[axis]
        index = np.arange(max(1, round(side * scale))) % (2 * side)
        samples = samples.take(np.minimum(index, 2 * side - 1 - index), axis)
    return Image.fromarray(samples)


# A process counts the memory of the one that started it towards its own peak (Linux, until exec),
# so a small process does the starting, not this one with its pictures.
_LAUNCHER = """
import os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)
output = process.stdout.read()
_, status, usage = os.wait4(process.pid, 0)
process.returncode = os.waitstatus_to_exitcode(status)
print(time.perf_counter() - start, usage.ru_maxrss, process.returncode, output)
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
    seconds, peak, code, *output = done.stdout.split(maxsplit=3)
    if code != "0":
        raise BenchError(f"{' '.join(command)}: exit code {code} {last}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Usage(float(seconds), int(peak) * unit, "".join(output).strip())


def _seconds(rows: Sequence[Row], kind: tuple[str, str]) -> list[float]:
    """Of one codec's rows, the seconds of a task in a state, round by round."""
    return [row["seconds"] for row in rows if (row["task"], row["state"]) == kind]


def _measure(name: str, image: Image.Image, codec: FileCodec, *, warm: bool) -> list[Row]:
    """One round of one codec: encode and decode as whole processes, and warm as well if asked."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        original, coded, decoded = (str(Path(folder, f)) for f in ("in.png", "in.dfc", "out.png"))
        image.save(original)
        for task, files in zip(TASKS, ((original, coded), (coded, decoded)), strict=True):
            row: Row = {"codec": codec.name, "task": task}
            worker = [sys.executable, "-m", "bench.worker", codec.name, task, *files]
            whole = [*worker, "1"]
            if codec.name == NAME:
                whole = _ours(task, files)
            rows.append(row | _cold(whole))
            if warm:
                Path(files[1]).unlink()
                second = float(measure_process([*worker, "2"]).output)
                rows.append(row | {"state": "warm", "seconds": second, "peak_bytes": None})
        if codec.name == NAME and not warm:
            part = str(Path(folder, "part.png"))
            places = ((image.width - PART) // 2, (image.height - PART) // 2, PART, PART)
            options = ("--region", ",".join(map(str, places))), ("--size", str(PART))
            for task, option in zip(PARTS, options, strict=True):
                if min(image.size) >= PART:
                    whole = _ours("decode", (coded, part), *option)
                    rows.append({"codec": codec.name, "task": task, **_cold(whole)})
        shown = open_image(Path(decoded).read_bytes())
        if not np.array_equal(pixels(shown), pixels(image)):
            raise BenchError(f"{codec.name} is not lossless on {name}")
    return rows


def _ours(task: str, files: Sequence[str], *options: str) -> list[str]:
    """The command of diffcodec's users."""
    if task == "decode":
        options = (*options, "--max-pixels", str(1 << 27))
    return [sys.executable, "-m", "diffcodec", task, files[0], "-o", files[1], *options]


def _cold(command: Sequence[str]) -> Row:
    """What a whole process took."""
    used = measure_process(command)
    return {"state": "cold", "seconds": used.seconds, "peak_bytes": used.peak_bytes}
