"""The model of drawings: what coding many of them teaches.

The probabilities of the absorbing process adapt to each picture. Here they go on from picture to
picture, and so become those that the next one starts with.
"""

import random
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from diffcodec import __version__
from diffcodec.absorbing import samples
from diffcodec.absorbing.model import Learnt, Model, build, to_file, untrained
from diffcodec.absorbing.state import State
from diffcodec.absorbing.step import walk
from diffcodec.entropy import RangeEncoder
from diffcodec.training.folders import choose, licence
from diffcodec.training.sources import Found

FOLDER = "data/drawings"
"""The pictures of record; of sources without these, all are taken."""

OBSERVATIONS = 6
"""What a probability counts at the start of a picture at most: a picture is unlike the others."""

ERRORS = 1500
"""The same of all errors of a histogram."""

MOST_COLOURS = 12_000
"""Pictures with more colours are photographs, which another process codes."""


def learn(data: Sequence[Path], out: Path, *, without: Collection[str] = (), seed: int = 0) -> None:
    """Learn the model of drawings from pictures, and write its file.

    Args:
        data: folders of pictures, and packed files of them.
        out: the model file.
        without: names of pictures, without their folders, that are held out: the model's card tells
            how many bytes they take.
        seed: of the order of the pictures.

    Raises ImageError if there are none.
    """
    start, chosen = time.monotonic(), choose(data, [FOLDER])
    found = [one.picture for one in chosen]
    held_out = [one for one in found if PurePosixPath(one.name).name in without]
    pictures = [one for one in found if one not in held_out]
    random.Random(seed).shuffle(pictures)
    model, used = untrained(), 0
    learnt = model.begin(0)
    for picture in tqdm(pictures, "learning", disable=None):
        state = _state(model, picture)
        if state.truth is None or len(state.truth.samples) > MOST_COLOURS:
            continue
        bits, bits_seen = samples.unlearnt(state.masked.size)
        learnt.samples = learnt.samples._replace(bits=bits, bits_seen=bits_seen)
        state.learnt = learnt
        _coded_bytes(model, state)
        used += 1
    folders = sorted({one.folder for one in chosen})
    minutes = round((time.monotonic() - start) / 60, 1)
    own = {"data": ", ".join(folders), "device": "cpu", "steps": used, "minutes": minutes}
    file = to_file(_forgetful(learnt), {})
    final = build(file)
    total = sum(
        _coded_bytes(final, _state(final, one)) for one in tqdm(held_out, "measuring", disable=None)
    )
    card = {
        "data": {folder: licence(folder) for folder in folders},
        "runs": [{**own, "diffcodec": __version__}],
        "recipe": "diffcodec.training.drawings, one pass",
        "calibration": "none",
        "validation": f"{total} bytes of streams of {len(held_out)} pictures held out",
        "diffcodec": __version__,
    }
    replace(file, card=card).write(out)


def _state(model: Model, picture: Found) -> State:
    return State.of_image(model, "RGB", np.moveaxis(np.asarray(picture.read()), -1, 0))


def _coded_bytes(model: Model, state: State) -> int:
    """Code a picture, from which what it `learnt` comes; the bytes of its stream."""
    encoder = RangeEncoder()
    for _ in walk(model.curves, state, encoder):
        pass
    return len(encoder.to_bytes())


def _forgetful(learnt: Learnt) -> Learnt:
    """What a picture starts with: the same, but ready to learn."""

    def fewer(seen: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.minimum(seen, OBSERVATIONS)

    odds, histograms = learnt.candidates, learnt.samples.histograms
    share = np.minimum(1, ERRORS / histograms.sum(1, keepdims=True))
    return Learnt(
        learnt.flat,
        fewer(learnt.flat_seen),
        odds._replace(states_seen=fewer(odds.states_seen), patterns_seen=fewer(odds.patterns_seen)),
        learnt.samples._replace(histograms=np.maximum(np.rint(histograms * share), 1).astype(int)),
    )
