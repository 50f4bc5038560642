"""What the tests of batches share: a tree of pictures, and the command line on it."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from click.testing import CliRunner
from PIL import Image

import diffcodec
from diffcodec.cli import journal, main

ROOT = str(Path(diffcodec.__file__).parent.parent)


def make_photos():
    """A tree with three pictures and things that are none."""
    Path("photos/deep").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.bmp", "deep/c.png")):
        picture(number).save(f"photos/{name}")
    picture(9).save("photos/.hidden.png")
    Path("photos/notes.txt").write_text("no picture")


def picture(seed, size=(5, 4)):
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0]), np.uint8)
    return Image.fromarray(noise)


def run(*arguments):
    """The command line in this process."""
    result = CliRunner().invoke(main, arguments)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def start(*arguments, **options):
    """The command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "diffcodec", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": ROOT},
        **options,
    )


def done(*arguments):
    """How many files a batch did, and how many were done before."""
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    counts = re.match(r"(\d+) done(?:, (\d+) done before)?[:,]", result.stdout.splitlines()[-1])
    return int(counts[1]), int(counts[2] or 0)


def files(place):
    """All files below a folder, but for journals."""
    found = (path for path in Path(place).rglob("*") if path.is_file())
    return {str(path) for path in found if path.name != journal.NAME}


def set_age(path, seconds):
    then = time.time() - seconds
    os.utime(path, (then, then))


def same(path, image):
    with Image.open(path) as other:
        return other.tobytes() == image.tobytes()


def assert_whole(path):
    assert diffcodec.info(path.read_bytes(), rungs=False).complete
    diffcodec.decode(path.read_bytes())
