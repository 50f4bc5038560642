"""Training runs: they last, resume, recover, and several processes make one."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from PIL import Image

from diffcodec.errors import ModelError
from diffcodec.training import checkpoints, loop, progress, train
from diffcodec.training import run as runs
from diffcodec.training.budget import Budget
from diffcodec.training.data import Draw
from diffcodec.training.tasks import Denoiser


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder with a picture."""
    folder = tmp_path_factory.mktemp("runs") / "photos"
    folder.mkdir()
    Image.fromarray(tiny.pixels(64, 64).permute(1, 2, 0).numpy()).save(folder / "a.png")
    return folder


class Disturbed(Denoiser):
    """A task whose losses are `factor` times as large from call number `first` to `last`."""

    def __init__(self, factor, first, last=10**9):
        super().__init__(tiny.TASK.config, tiny.TASK.process, (Draw(32, 2),), Draw(32, 2))
        self.factor, self.times, self.calls = factor, range(first, last + 1), 0

    def loss(self, net, draw, choice, crops, generator):
        self.calls += 1
        loss = super().loss(net, draw, choice, crops, generator)
        return loss * self.factor if self.calls in self.times else loss


def tensors(state):
    """All tensors of a checkpoint."""
    if isinstance(state, torch.Tensor):
        return [state]
    values = state.values() if isinstance(state, dict) else state
    own = (dict, list, tuple, torch.Tensor)
    return [tensor for value in values if isinstance(value, own) for tensor in tensors(value)]


def test_a_run_that_always_diverges_ends_and_leaves_the_checkpoint(photos, tmp_path, capsys):
    train([photos], tmp_path / "run", tiny.RECIPE, steps=2, device="cpu")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    recipe = replace(tiny.RECIPE, task=Disturbed(float("inf"), 1))
    with pytest.raises(ModelError, match="diverged"):
        train([photos], tmp_path / "run", recipe, steps=4, device="cpu")
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    assert capsys.readouterr().out.count("back to step 2") == runs.RETREATS == 3


def test_a_run_that_diverges_goes_back_and_on_more_slowly(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    recipe = replace(tiny.RECIPE, task=Disturbed(float("nan"), 4, 4))
    train([photos], tmp_path / "run", recipe, steps=6, device="cpu")
    assert recipe.task.calls == 7  # one step was taken twice
    state = checkpoints.load(tmp_path / "run")
    assert (state["steps"], state["retreats"]) == (6, 1)
    assert state["rate"] == pytest.approx(recipe.rate / 3)
    assert [own["steps"] for own in state["runs"]] == [6]
    assert state["runs"][0]["minutes"] == pytest.approx(state["seconds"] / 60, abs=1e-4)
    assert all(tensor.isfinite().all() for tensor in tensors(state))
    assert "back to step 3" in capsys.readouterr().out


def test_a_loss_far_above_its_lowest_average_is_divergence(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runs, "WARM_UP", 3)
    recipe = replace(tiny.RECIPE, task=Disturbed(1e6, 5, 5))
    train([photos], tmp_path / "run", recipe, steps=6, device="cpu")
    assert checkpoints.load(tmp_path / "run")["retreats"] == 1
    assert "back to step 0" in capsys.readouterr().out  # the checkpoint of the start


def test_without_a_terminal_there_are_lines(photos, tmp_path, monkeypatch, capsys):
    train([photos], tmp_path / "run", tiny.RECIPE, steps=3, device="cpu")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("100.0%, step 3, loss ")
    assert len(lines) == 1
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    train([photos], tmp_path / "run", tiny.RECIPE, steps=5, device="cpu")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "crops/s" in lines[0]


def test_the_rate_rises_and_falls_to_zero():
    for budget, end in ((Budget(None, 1000), (1000, 0.0)), (Budget(2.0, None), (700, 120.0))):
        assert budget.factor(0, 0.0) == pytest.approx(1 / 200)
        assert budget.factor(*end) == pytest.approx(0)
        assert budget.done(*end) == 1
    assert Budget(2.0, None).factor(500, 60.0) == pytest.approx(0.5)
    assert list(Budget(None, 12).upcoming(10, 5)) == [10, 11]
    assert list(Budget(1.0, None).upcoming(10, 2)) == [10, 11]


# --- checkpoints ---------------------------------------------------------------------------------


def test_a_checkpoint_is_small_files_and_comes_back(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "PART_BYTES", 10_000)
    state = {"net": {"weight": torch.randn(5000)}, "steps": 3, "runs": [{"data": "photos"}]}
    for _ in range(3):
        state["steps"] += 1
        checkpoints.save(tmp_path / "run", state)
        back = checkpoints.load(tmp_path / "run")
        assert torch.equal(back["net"]["weight"], state["net"]["weight"])
        assert (back["steps"], back["runs"]) == (state["steps"], state["runs"])
        files = list((tmp_path / "run").iterdir())
        assert len(files) in (4, 5)  # of this generation alone
        assert max(path.stat().st_size for path in files) <= 10_000


def test_no_file_is_larger_than_sixteen_mebibytes():
    assert checkpoints.PART_BYTES <= 16 << 20


@pytest.mark.parametrize("call", ["write_bytes", "write_text", "replace", "unlink"])
@pytest.mark.parametrize("after", [0, 1])
def test_a_kill_while_a_checkpoint_is_written_leaves_one(tmp_path, monkeypatch, call, after):
    monkeypatch.setattr(checkpoints, "PART_BYTES", 1000)
    checkpoints.save(tmp_path / "run", {"steps": 1, "net": torch.ones(1000)})
    calls, real = [], getattr(Path, call)

    class KillError(BaseException):
        """What no handler expects."""

    def killed(self, *arguments):
        calls.append(self)
        if len(calls) > after:
            raise KillError
        return real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Path, call, killed)
        try:
            checkpoints.save(tmp_path / "run", {"steps": 2, "net": torch.zeros(1000)})
            assert after  # a second index is not written
        except KillError:
            pass
    state = checkpoints.load(tmp_path / "run")
    written = call == "unlink" or (after and call in ("write_text", "replace"))
    assert state["steps"] == (2 if written else 1)
    assert float(state["net"].mean()) == (0 if written else 1)
    checkpoints.save(tmp_path / "run", {"steps": 3})
    assert checkpoints.load(tmp_path / "run") == {"steps": 3}
    assert len(list((tmp_path / "run").iterdir())) == 3  # nothing of the others is left


def test_a_damaged_checkpoint_is_refused(tmp_path):
    folder = tmp_path / "run"
    checkpoints.save(folder, {"steps": 1})
    part = next(path for path in folder.iterdir() if path.name != "index.json")
    content = part.read_bytes()
    part.write_bytes(content[:-1])
    with pytest.raises(ModelError, match="damaged"):
        checkpoints.load(folder)
    part.unlink()
    with pytest.raises(ModelError, match="damaged"):
        checkpoints.load(folder)
    for index in ("", "[]", json.dumps({"generation": 1})):
        (folder / "index.json").write_text(index)
        with pytest.raises(ModelError, match="no readable checkpoint"):
            checkpoints.load(folder)


def test_what_is_no_checkpoint_is_not_written_over(photos, tmp_path):
    (tmp_path / "file").touch()
    for path in (photos, tmp_path / "file"):
        with pytest.raises(ModelError, match="is no checkpoint"):
            train([photos], path, tiny.RECIPE, steps=1, device="cpu")
    assert [path.name for path in photos.iterdir()] == ["a.png"]


# --- several processes ---------------------------------------------------------------------------


class Noted(Denoiser):
    """A task that leaves what it sees in a folder: weights and crops by process and step."""

    def __init__(self, folder):
        super().__init__(tiny.TASK.config, tiny.TASK.process, (Draw(32, 2),), Draw(32, 2))
        self.folder, self.calls = folder, 0

    def loss(self, net, draw, choice, crops, generator):
        seen = {"net": {k: v.clone() for k, v in net.state_dict().items()}, "crops": crops}
        torch.save(seen, self.folder / f"{self.calls}-{os.getpid()}")
        self.calls += 1
        return super().loss(net, draw, choice, crops, generator)


def test_processes_train_on_their_own_crops_and_average_their_weights(photos, tmp_path):
    pause, run = loop.TEAM_PAUSE, tmp_path / "run"

    def trained(steps):
        """What the processes see at each step of a run to that one, and whether weights agree."""
        folder = tmp_path / str(steps)
        folder.mkdir()
        recipe = replace(tiny.RECIPE, task=Noted(folder))
        train([photos], run, recipe, steps=steps, device="cpu", processes=2)
        for call in range(len(list(folder.iterdir())) // 2):
            one, other = (torch.load(path) for path in folder.glob(f"{call}-*"))
            same = all(torch.equal(one["net"][name], other["net"][name]) for name in one["net"])
            yield one["net"], same, torch.equal(one["crops"], other["crops"])

    _, same, crops = zip(*trained(pause + 2), strict=True)
    assert list(same) == [call % pause == 0 for call in range(pause + 2)]
    assert not any(crops)
    end = checkpoints.load(run)["net"]
    nets, same, _ = zip(*trained(2 * pause), strict=True)  # goes on with what they agreed on
    assert all(torch.equal(nets[0][name], end[name]) for name in end)
    assert list(same) == [True] + [False] * (pause - 3)
    state = checkpoints.load(run)
    assert state["steps"] == 2 * pause
    assert [own["device"] for own in state["runs"]] == ["cpu, 2 processes"]


def test_processes_end_together_by_the_clock(photos, tmp_path):
    train([photos], tmp_path / "run", tiny.RECIPE, minutes=0.01, device="cpu", processes=2)
    state = checkpoints.load(tmp_path / "run")
    assert state["steps"] % loop.TEAM_PAUSE == 0
    assert state["seconds"] >= 0.6


def test_several_processes_are_for_the_cpu(photos, tmp_path):
    with pytest.raises(ValueError, match="CPU"):
        train([photos], tmp_path / "run", tiny.RECIPE, steps=1, device="cuda", processes=2)
