"""The command line: parts of pictures, reduced ones, limits on pixels, near-lossless files."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_cli import refused, run
from tiny import pixels

import diffcodec
from diffcodec.training import fitting


@pytest.fixture(scope="module")
def picture():
    return np.ascontiguousarray(pixels(40, 100).numpy().transpose(1, 2, 0))


@pytest.fixture(scope="module")
def files(tmp_path_factory, tiny_path, picture):
    """A folder with a picture and its file in tiles."""
    folder = tmp_path_factory.mktemp("parts")
    Image.fromarray(picture).save(folder / "a.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        options = ("--process", "photo", "--tile", "64", "--model", str(tiny_path))
        assert run("encode", "a.png", *options).exit_code == 0
    return folder


@pytest.fixture
def decode(files, monkeypatch, tiny_path, tmp_path):
    monkeypatch.chdir(files)
    target = tmp_path / "b.png"

    def call(*options):
        result = run("decode", "a.dfc", "-o", str(target), "--model", str(tiny_path), *options)
        return result if result.exit_code else np.asarray(Image.open(target))

    return call


def test_a_region_is_decoded(decode, picture):
    assert np.array_equal(decode("--region", "70,5,20,30"), picture[5:35, 70:90])


def test_a_picture_is_reduced(decode, picture):
    shown = decode("--size", "30")
    assert shown.shape == (10, 25, 3)
    wanted = np.asarray(Image.fromarray(picture).reduce(4), int)
    assert np.abs(shown.astype(int) - wanted).mean() < 4


def test_a_region_can_be_reduced(decode, picture):
    assert decode("--region", "0,0,40,20", "--size", "10").shape == (5, 10, 3)


@pytest.mark.parametrize("region", ["1,2,3", "a,0,5,5", "-1,0,5,5", "0;0;5;5", ""])
def test_what_is_no_region_is_refused(decode, region):
    refused(decode("--region", region), "is not a part of a picture", code=2)


def test_a_region_outside_is_refused(decode):
    refused(decode("--region", "90,0,20,5"), "90,0,20,5 is not inside the picture of 100 x 40")


def test_too_many_pixels_are_refused(decode, files, tmp_path, tiny_path):
    refused(decode("--max-pixels", "3999"), "4,000 pixels", "--max-pixels")
    options = ("--max-pixels", "3999", "--model", str(tiny_path))
    refused(run("preview", "a.dfc", "-o", str(tmp_path / "p.gif"), *options), "4,000 pixels")
    refused(run("decode", "a.dfc", "--live", str(tmp_path / "p.png"), *options), "4,000 pixels")


def test_information_tells_tiles(decode):
    assert "of 64 pixels a side" in run("info", "a.dfc").stdout
    assert json.loads(run("info", "a.dfc", "--json").stdout)["tile"] == 64


def test_impossible_tiles_are_refused(decode):
    refused(run("encode", "a.png", "-o", "c.dfc", "--tile", "63"), "from 64 to 2048")


def test_near_lossless_files_keep_their_bound(decode, picture, tiny_path, tmp_path):
    coded, options = str(tmp_path / "c.dfc"), ("--model", str(tiny_path))
    assert run("encode", "a.png", "-o", coded, "--max-error", "2", *options).exit_code == 0
    assert "near-lossless, samples within 2" in run("info", coded, *options).stdout
    back = diffcodec.decode_array(Path(coded).read_bytes(), model=tiny_path).astype(int)
    assert 0 < np.abs(back - picture).max() <= 2
    refused(run("encode", "a.png", "-o", coded, "--max-error", "0"), "0", code=2)
    result = run("encode", "a.png", "-o", coded, "--max-error", "1", "--bpp", "1")
    refused(result, "at most one of", "--max-error", code=2)


def test_a_model_is_fitted(files, monkeypatch, tiny_path, tmp_path):
    monkeypatch.chdir(files)
    coded = str(tmp_path / "a.dfc")
    options = ("--process", "photo", "--model", str(tiny_path))
    asked = []
    monkeypatch.setattr(fitting, "fit", lambda *_, seconds, saved: asked.append(seconds) or {})
    for fit, tile in (("auto", "0"), ("2.5", "0"), ("5", "64")):
        asking = ("encode", "a.png", "-o", coded, "--fit", fit, "--tile", tile, *options)
        assert run(*asking).exit_code == 0
    assert asked == [None, 2.5, 5]
    for wrong in ("0", "-1", "nan", "long"):
        refused(run("encode", "a.png", "-o", coded, "--fit", wrong), "number of seconds", code=2)
    result = run("encode", "a.png", "-o", coded, "--fit", "5", "--bpp", "1")
    refused(result, "--bpp does not go with --fit", code=2)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_no_memory_is_said_in_a_sentence(decode, monkeypatch, error):
    def full(*_, **__):
        raise error

    monkeypatch.setattr(diffcodec, "decode_picture", full, raising=False)
    refused(decode(), "more memory than there is")
