"""The documentation is true: its commands run, in order, on tiny pictures; its code does too."""

import io
import math
import re
import shlex
import shutil
import sys
import tomllib
import types
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import diffcodec
from diffcodec import container
from diffcodec.cli import main
from diffcodec.cli import training as command_line
from diffcodec.exact import files
from diffcodec.training import fitting

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page, language):
    """The contents of the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.S | re.M)


def commands(page):
    """Pipelines that end in diffcodec, without their comments."""
    lines = [line for block in blocks(page, "") for line in block.splitlines()]
    lines = [re.sub(r"\s+#.*", "", line) for line in lines]
    return [line for line in lines if re.match(r"(diffcodec|head|cat) ", line)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """What the documentation takes for granted: pictures, and a model of one's own."""
    monkeypatch.chdir(tmp_path)
    y, x, c = np.mgrid[:24, :40, :3]
    image = Image.fromarray((5 * x + 4 * y + 30 * c).astype(np.uint8))
    image.save("photo.png")
    image.crop((0, 0, 9, 9)).save("screenshot.png")
    Path("photos/deep").mkdir(parents=True)
    image.crop((0, 0, 16, 12)).save("photos/deep/a.png")
    for name in ("DATA", "PICTURES", "HELD_OUT", "DRAWINGS"):
        Path(name).mkdir()
    Path("HELD_OUT.txt").touch()
    # Training takes pictures of 512 x 512 and long; here its arguments only are checked.
    stub = types.ModuleType("diffcodec.training")
    stub.RECIPES = dict.fromkeys(command_line.RECIPES)
    stub.varied = lambda recipe, options: recipe
    stub.train = lambda data, checkpoint, recipe, **_: checkpoint.mkdir(exist_ok=True)
    stub.pack = lambda data, out, *_: (out.touch(), (1, 1))[1]
    stub.export = lambda checkpoint, out, **_: shutil.copy(files.PHOTO, out)
    stub.fit = lambda data, out, **_: shutil.copy(files.PHOTO, out)
    stub.fitting = fitting
    stub.drawings = types.ModuleType("diffcodec.training.drawings")
    stub.drawings.learn = lambda data, out, **_: shutil.copy(files.DRAWING, out)
    monkeypatch.setitem(sys.modules, "diffcodec.training", stub)
    monkeypatch.setattr(diffcodec, "training", stub, raising=False)


def run(pipeline):
    """Run a pipeline in this process."""
    *before, last = (shlex.split(part) for part in pipeline.split("|"))
    data = None
    for program, *arguments in before:
        size = int(arguments.pop(0) and arguments.pop(0)) if program == "head" else None
        data = Path(arguments[0]).read_bytes()[:size]
    assert last[0] == "diffcodec"
    result = CliRunner().invoke(main, last[1:], input=data)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, f"{pipeline}: {result.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_the_commands_run(folder, page):
    for pipeline in commands(page):
        run(pipeline)


def test_there_are_commands_to_run():
    assert len(commands(ROOT / "README.md")) > 10
    assert len(commands(ROOT / "docs" / "train.md")) > 5


def test_the_readme_names_every_command():
    text = " ".join(commands(ROOT / "README.md")) + (ROOT / "README.md").read_text()
    for name in main.commands:
        assert f"diffcodec {name}" in text


def test_the_code_of_the_readme_runs(folder):
    codes = blocks(ROOT / "README.md", "python")
    assert len(codes) >= 2
    for code in codes:
        exec(compile(code, "README.md", "exec"), {})
    assert diffcodec.decode(Path("small.dfc").read_bytes()).size == (40, 24)


def test_the_code_of_the_gaussian_page_runs(capsys):
    names = {}
    for code in blocks(ROOT / "docs" / "gaussian.md", "python"):
        exec(compile(code, "gaussian.md", "exec"), names)
    assert names["pixels"].shape == (16, 3, 8, 8)
    # White data of this deviation, in values of a pixel.
    entropy = math.log2(0.2 * 128 * math.sqrt(2 * math.pi * math.e))
    assert names["bits"].total.mean == pytest.approx(entropy, abs=0.2)


def test_the_container_is_as_described():
    (code,) = blocks(ROOT / "docs" / "format.md", "python")
    names = {}
    exec(compile(code, "format.md", "exec"), names)
    image = Image.new("RGBA", (200, 1), (1, 2, 3, 4))
    image.info["icc_profile"] = b"profile" * 40
    image.info["exif"] = b"Exif\0\0II*\0\x08\0\0\0\0\0"
    image.info["xmp"] = b"<xmp/>" * 40
    image.info["dpi"] = (300, 72.5)
    image.info["srgb"] = 0
    image.info["photoshop"] = {0x0404: b"IIM"}
    image.info["text"] = {"Author": "Zoë", "Title": ""}
    assert len(container.read(diffcodec.encode(image)).boxes) == 7
    deep = np.arange(0, 6000, 100, np.uint16).reshape(5, 12)
    noise = Image.effect_noise((30, 9), 60)
    stored = np.random.default_rng(0).integers(0, 256, (3, 5), np.uint8)
    for options, picture in (({}, image), ({"max_bytes": 60}, noise), ({}, deep), ({}, stored)):
        data = diffcodec.encode(picture, **options)
        found, expected = names["container"](data), container.read(data)
        for key in (
            "codec",
            "depth",
            "mode",
            "width",
            "height",
            "model",
            "checksum",
            "lossless",
            "mirrored",
            "colours",
        ):
            assert found[key] == getattr(expected.header, key)
        assert found["stream"] == expected.stream
        assert found["boxes"] == expected.boxes


def test_modules_and_pages_that_are_named_exist():
    for page in PAGES:
        text = page.read_text()
        for name in re.findall(r"`((?:diffcodec|examples|bench|docs)/[\w./]*)`", text):
            assert (ROOT / name).exists(), f"{page.name} names {name}"
        for name in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
            assert (page.parent / name).exists(), f"{page.name} links to {name}"


def test_the_checksum_is_over_planes():
    import zlib

    image = Image.effect_noise((5, 4), 50)
    stream = io.BytesIO()
    image.save(stream, "DFC")
    assert container.read(stream.getvalue()).header.checksum == zlib.crc32(image.tobytes())


def test_the_limits_are_those_of_the_code():
    text = (ROOT / "docs" / "limits.md").read_text()
    for number in (container.MAX_PIXELS, container.MAX_PICTURES):
        assert f"{number:,}" in text
    assert f"{container.MAX_METADATA >> 20} MiB" in text
    width, height = map(int, re.search(r"such as (\d+)x(\d+)", text).groups())
    assert width * height <= container.MAX_PIXELS < (width + 1) * (height + 1)


def test_one_version_everywhere():
    version = diffcodec.__version__
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    newest = re.search(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest.group(1) == version
