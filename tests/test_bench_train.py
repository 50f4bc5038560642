"""`bench train` counts the work of training steps and times it."""

import csv
import json
import math
from pathlib import Path

import pytest
import tiny
import torch
from click.testing import CliRunner
from torch import nn

from bench.__main__ import main
from bench.train import convolutions
from diffcodec.training.recipes import RECIPES
from diffcodec.training.run import Run


def test_a_recipe_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, "tiny", tiny.RECIPE)
    words = ["train", "--recipe", "tiny", "--seconds", "1", "--device", "cpu"]
    outcome = CliRunner().invoke(main, [*words, "--out", str(tmp_path)])
    assert outcome.exit_code == 0, outcome.output
    with (tmp_path / "train.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["recipe"], row["device"], row["batches"]) == ("tiny", "cpu", "2 of 32 x 32")
    steps, seconds = int(row["steps"]), float(row["seconds"])
    assert float(row["crops_per_second"]) == pytest.approx(2 * steps / seconds)
    # A stem of 12 channels, two convolutions of eight, an output of 12, at half the resolution; all
    # of them three times, but that the pixels have no gradient.
    macs = 2 * 16 * 16 * 9 * (2 * 12 * 8 + 3 * (8 * 8 + 8 * 8 + 8 * 12))
    assert float(row["multiply_adds_per_second"]) == pytest.approx(macs * steps / seconds)
    share = float(row["share"])
    assert share > 0
    ratio = float(row["multiply_adds_per_second"]) / float(row["bare_multiply_adds_per_second"])
    assert ratio == pytest.approx(share)
    assert "| tiny | 2 of 32 x 32 |" in outcome.output
    assert json.loads((tmp_path / "train.json").read_text())["bench"] == "train"
    pytest.importorskip("matplotlib")
    assert (tmp_path / "train.svg").exists()


def test_an_unknown_recipe_is_refused() -> None:
    outcome = CliRunner().invoke(main, ["train", "--recipe", "missing"])
    assert outcome.exit_code == 2
    assert "missing is none of photo, " in outcome.output


def test_the_convolutions_of_a_step_are_those_of_its_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, shapes = Run(tiny.RECIPE, torch.device("cpu")), []
    for layer in run.net.modules():
        if isinstance(getattr(layer, "weight", None), nn.Parameter):
            shapes.append(tuple(layer.weight.shape))
    found = convolutions(run, (0, (3, 1)), torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    assert [conv.weight for conv in found] == shapes[::-1]
    assert [conv.gradient for conv in found] == [True] * (len(shapes) - 1) + [False]
    assert all(conv.x == (2, conv.weight[1], 16, 16) for conv in found)
    assert math.prod(found[-1].y) == 2 * 8 * 16 * 16
