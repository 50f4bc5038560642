"""The example of the Gaussian process, on tiny pictures with a model that has learned nothing."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffcodec.exact.files import ModelFile
from diffcodec.exact.networks import NoiseShape
from diffcodec.training import gaussian as network
from diffcodec.training.noise import TimedModel

FILE = Path(__file__).parent.parent / "examples" / "gaussian.py"
SIDE = 4


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("example_gaussian", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["example_gaussian"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    yield module
    del sys.modules["example_gaussian"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two pictures, and a model of a few steps."""
    folder = tmp_path_factory.mktemp("example")
    random = np.random.default_rng(0)
    pixels = random.integers(90, 160, (2, SIDE, SIDE, 3), np.uint8)
    for number, values in enumerate(pixels):
        Image.fromarray(values).save(folder / f"{number}.png")
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "STEPS", 8)
        patch.setattr(network, "MILESTONE_BITS", 0.5)
        config, tensors = network.tabulate(
            TimedModel(NoiseShape(3, 3, (8,), (1,))),
            torch.from_numpy(pixels).permute(0, 3, 1, 2),
            torch.Generator().manual_seed(0),
        )
    ModelFile(config, {}, tensors).write(folder / "model")
    return folder


def test_every_figure_is_made(example, folder, monkeypatch):
    pictures = [str(folder / f"{number}.png") for number in range(2)]
    options = ["-o", str(folder / "out"), "--model", str(folder / "model"), "--steps", "9"]
    monkeypatch.setattr(sys, "argv", ["gaussian.py", *pictures, *options])
    curves, curve = {}, example.curve
    monkeypatch.setattr(
        example, "curve", lambda the, name, plots: curve(the, name, plots) or curves.update(plots)
    )
    example.main()
    made = {path.name: path for path in (folder / "out").iterdir()}
    assert set(made) == {
        *("terms.md", "chain.md", "progressive.png"),
        *(f"figure_{number}.png" for number in range(5, 9)),
    }
    for number in (6, 7, 8):
        with Image.open(made[f"figure_{number}.png"]) as image:
            assert image.size == (8 * SIDE, 4 * SIDE)
            assert len(np.unique(np.asarray(image))) > 8
    rows = made["terms.md"].read_text().splitlines()
    assert len(rows) == 5
    assert "infinitely many" in rows[-1]
    gross = [float(row.split("|")[3]) for row in made["chain.md"].read_text().splitlines()[2:]]
    assert len(gross) == 2
    assert gross[1] < gross[0]
    for points in curves.values():
        assert [place for place, _ in points] == sorted(place for place, _ in points)
    real, ideal = curves["bits/dim of the file"], curves["bits/dim"]
    assert real[0][1] > 10 * real[-1][1]  # to half a pixel's value
    assert len(ideal) == len(curves["reverse time"]) == 9


def test_what_is_not_there_is_said(example, folder, monkeypatch, capsys):
    picture, out = str(folder / "0.png"), str(folder / "none")
    monkeypatch.setattr(sys, "argv", ["gaussian.py", picture, "-o", out])
    with pytest.raises(SystemExit):
        example.main()
    assert "two pictures" in capsys.readouterr().err
    assert not Path(out).exists()
