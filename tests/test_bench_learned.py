"""The learned peers: with a stand-in for CompressAI, and with the package where it is installed.

`python -m bench compressai-env DIR` builds an environment in which all of it runs.
"""

import importlib.machinery
import subprocess
import sys
import venv
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from bench import codecs, learned
from bench.__main__ import main
from bench.metrics import pixels, psnr


def waves(width: int, height: int) -> Image.Image:
    y, x = np.mgrid[:height, :width] / 64
    smooth = np.stack((np.sin(9 * x + 4 * y), np.sin(6 * x * y), np.cos(7 * y)), -1)
    return Image.fromarray(np.uint8(127 + 90 * smooth))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """PyTorch's hub folder for weights, which is empty."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    learned._pretrained.cache_clear()
    learned._own.cache_clear()
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    return folder


def test_learned_codecs_go_through_real_bytes(monkeypatch: pytest.MonkeyPatch, hub: Path) -> None:
    class Model:
        """Keeps every 64th pixel, as latents of a hyperprior with two strings."""

        def eval(self) -> "Model":
            return self

        def update(self) -> None:
            pass

        def compress(self, x: torch.Tensor) -> dict:
            small = x[0, :, ::64, ::64].mul(255).round().byte()
            return {"strings": [[b"latents"], [bytes(small.flatten().tolist())]], "shape": None}

        def decompress(self, strings: list, shape: list) -> dict:
            assert strings[0] == [b"latents"]
            small = torch.tensor(list(strings[1][0])).reshape(1, 3, *shape) / 255
            wide = small.repeat_interleave(64, 2).repeat_interleave(64, 3)
            return {"x_hat": wide}

    urls = {"toy": {"mse": {1: "https://nowhere.invalid/toy-1.pth.tar"}}}
    zoo = {"image_models": {"toy": lambda **_: Model()}}
    for name, members in (
        ("compressai", {"__version__": "1"}),
        ("compressai.zoo", zoo),
        ("compressai.zoo.image", {"model_urls": urls}),
    ):
        module = ModuleType(name)
        module.__dict__.update(members, __path__=[])
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    codec = learned.CompressAI("toy", settings=(1,))
    with pytest.raises(codecs.MissingError, match="weights of quality 1 are not"):
        codec.version()
    (hub / "toy-1.pth.tar").touch()
    assert codec.version() == "CompressAI 1"
    image = Image.new("RGB", (100, 30), (9, 80, 200))
    (point,) = codec.points(image, 1)
    assert point.bytes == 5 + 4 + len(b"latents") + 4 + 2 * 3
    assert np.array_equal(pixels(point.image), pixels(image))


# With the package


@pytest.mark.parametrize("name", learned.ZOO)
def test_a_model_of_random_weights_is_a_codec(name: str, hub: Path) -> None:
    zoo = pytest.importorskip("compressai.zoo")
    codec = learned.CompressAI(name, settings=(1,))
    with pytest.raises(codecs.MissingError, match="weights of quality 1"):
        codec.version()
    random = zoo.image_models[name](quality=1, metric="mse", pretrained=False)
    url = zoo.image.model_urls[name]["mse"][1]
    torch.save(random.state_dict(), hub / Path(url).name)
    assert codec.version().startswith("CompressAI ")

    image = waves(100, 70)
    (point,) = codec.points(image, 1)
    assert point.image.size == image.size
    assert point.bytes == len(codec.encode(image, 1))
    if name.startswith("bmshj2018"):  # the others' forward pass rounds in another way
        padded = np.pad(pixels(image), ((0, 58), (0, 28), (0, 0)), mode="edge")
        planes = torch.from_numpy(padded.transpose(2, 0, 1)[None].astype(np.float32) / 255)
        random.load_state_dict(codec.model(1).state_dict())
        with torch.inference_mode():
            shown = random.eval()(planes)["x_hat"][0, :, :70, :100].clamp(0, 1)
        expected = shown.mul(255).round().byte().permute(1, 2, 0).numpy()
        assert np.abs(expected.astype(int) - pixels(point.image)).max() <= 1


def test_a_hyperprior_is_trained_and_found(hub: Path, tmp_path: Path) -> None:
    pytest.importorskip("compressai")
    from bench import hyperprior

    with pytest.raises(codecs.MissingError, match=r"bench\.hyperprior"):
        learned.TrainedHyperprior().version()
    waves(90, 200).save(tmp_path / "a.png")
    options = ["--minutes", "0.2", "--lmbda", "0.05", "--channels", "16"]
    outcome = CliRunner().invoke(hyperprior.main, [str(tmp_path), *options])
    assert outcome.exit_code == 0, outcome.output
    codec = learned.TrainedHyperprior()
    assert codec.settings == (0.05,)
    assert "weights" in codec.version()
    image = waves(100, 70)
    (point,) = codec.points(image, 0.05)
    assert point.bytes < 100 * 70
    grey = Image.new("RGB", image.size, tuple(pixels(image).mean((0, 1)).astype(int).tolist()))
    assert psnr(image, point.image) > psnr(image, grey) + 1


# Its environment


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """What would be run; nothing is."""
    run: list[list[str]] = []

    def note(command: list[str], **_: object) -> subprocess.CompletedProcess:
        run.append(command[1:])
        return subprocess.CompletedProcess(command, int("bench.learned" in command))

    monkeypatch.setattr(subprocess, "run", note)
    monkeypatch.setattr(venv.EnvBuilder, "create", lambda *_: None)
    return run


def test_an_environment_asks_before_it_downloads(commands: list, tmp_path: Path) -> None:
    call = ["compressai-env", str(tmp_path / "env")]
    assert CliRunner().invoke(main, call, input="n\n").exit_code == 1
    assert commands == []
    assert CliRunner().invoke(main, call, input="y\nn\n").exit_code == 0
    assert commands[0][2:] == ["install", "torch", "torchvision"]
    assert {"numpy<2", "compressai"} < set(commands[1])
    assert commands[-1][0] == "-c"


def test_an_environment_stands_without_the_weights(commands: list, tmp_path: Path) -> None:
    call = ["compressai-env", str(tmp_path / "env"), "--yes", "--index", "https://cpu.invalid"]
    outcome = CliRunner().invoke(main, call)
    assert outcome.exit_code == 0
    assert commands[0][-2:] == ["--index-url", "https://cpu.invalid"]
    assert "Without the zoo's weights" in outcome.output
