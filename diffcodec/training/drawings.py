"""The model of drawings: what coding many of them teaches.

The probabilities of the absorbing process adapt to each picture. Here they go on from picture to
picture, and so become those that the next one starts with.
"""

import random
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from diffcodec import __version__
from diffcodec.absorbing import samples
from diffcodec.absorbing.model import Learnt, to_file, untrained
from diffcodec.absorbing.state import State
from diffcodec.absorbing.step import walk
from diffcodec.entropy import RangeEncoder
from diffcodec.training.sources import find

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
        without: names of the pictures that are held out, without their folders.
        seed: of the order of the pictures.

    Raises ImageError if there are none.
    """
    model, used = untrained(), 0
    found = [picture for picture in find(data) if PurePosixPath(picture.name).name not in without]
    random.Random(seed).shuffle(found)
    learnt = model.begin(0)
    for picture in tqdm(found, "learning", disable=None):
        planes = np.moveaxis(np.asarray(picture.read()), -1, 0)
        state = State.of_image(model, "RGB", planes)
        assert state.truth is not None
        if len(state.truth.samples) > MOST_COLOURS:
            continue
        bits, bits_seen = samples.unlearnt(planes[0].size)
        learnt.samples = learnt.samples._replace(bits=bits, bits_seen=bits_seen)
        state.learnt = learnt
        for _ in walk(model.curves, state, RangeEncoder()):
            pass
        used += 1
    folders = sorted({picture.folder for picture in found})
    card = {
        "task": "drawings",
        "data": dict.fromkeys(folders, "licence unknown"),
        "pictures": used,
        "held out": len(without),
        "recipe": "one pass, every picture from what those before it have taught",
        "diffcodec": __version__,
    }
    to_file(_forgetful(learnt), card).write(out)


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
