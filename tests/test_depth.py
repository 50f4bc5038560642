"""Pictures of 16 bits per sample."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import diffcodec
from diffcodec.cli import main
from diffcodec.errors import ImageError
from diffcodec.pictures.images import DeepImage, metadata
from diffcodec.pictures.reading import read_image
from diffcodec.pictures.writing import write_image
from diffcodec.quantized import stream as quantised

SHAPES = {"L": (), "LA": (2,), "RGB": (3,), "RGBA": (4,)}


def waves(height, width, channels, noise=300):
    """A smooth picture over the whole range of 16 bits, with noise."""
    random = np.random.default_rng(height)
    y, x = np.mgrid[:height, :width]
    planes = [
        32768 + 30000 * np.sin(x / 7 + c) * np.cos(y / 5) + random.normal(0, noise, x.shape)
        for c in range(channels)
    ]
    pixels = np.stack(planes, -1).clip(0, 65535).astype(np.uint16)
    return pixels[..., 0] if channels == 1 else pixels


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_lossless(channels):
    pixels = waves(13, 18, channels)
    data = diffcodec.encode(pixels)
    info = diffcodec.info(data, rungs=False)
    assert (info.depth, info.mode) == (16, list(SHAPES)[channels - 1])
    back = diffcodec.decode_array(data)
    assert back.dtype == np.uint16
    assert np.array_equal(back, pixels)


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.lists(st.sampled_from([0, 1, 255, 256, 32767, 32768, 65535]), min_size=81, max_size=81),
)
@settings(deadline=None, max_examples=10)
def test_extremes(height, width, samples):
    pixels = np.array(samples, np.uint16)[: height * width].reshape(height, width)
    assert np.array_equal(diffcodec.decode_array(diffcodec.encode(pixels)), pixels)


def test_prefixes_get_better_down_to_the_last_bits():
    pixels = waves(32, 32, 3)
    data = diffcodec.encode(pixels)
    shown = [diffcodec.decode_array(data, max_bytes=n) for n in (100, 400, 1500, len(data) - 300)]
    errors = [np.abs(picture.astype(float) - pixels).mean() for picture in shown]
    assert errors[0] > 2 * errors[1] > 4 * errors[2] > 8 * errors[3] > 0


def test_the_low_bits_cost_what_noise_costs():
    """Eight bits more per sample, all of them noise, are about eight bits more in the file."""
    eight = waves(32, 32, 1) >> 8
    low = np.random.default_rng(0).integers(0, 256, eight.shape)
    coarse = len(diffcodec.encode(eight.astype(np.uint8)))
    fine = len(diffcodec.encode((eight * 256 + low).astype(np.uint16)))
    assert fine - coarse == pytest.approx(eight.size, rel=0.1)


def test_a_quality_is_against_the_range_of_16_bits():
    pixels = waves(32, 32, 1)
    data = diffcodec.encode(pixels, psnr=40)
    error = np.square(diffcodec.decode_array(data) - pixels.astype(float)).mean()
    assert 40 <= 10 * np.log10(65535**2 / error) < 42


def test_grey_pictures_of_pillow():
    image = Image.fromarray(waves(9, 11, 1))
    assert image.mode.startswith("I;16")
    back = diffcodec.decode(diffcodec.encode(image))
    assert (back.mode, back.tobytes()) == (image.mode, image.tobytes())
    assert [preview.image.mode for preview in diffcodec.decode_progressive(diffcodec.encode(image))]


def test_pillow_has_no_colours_of_16_bits():
    data = diffcodec.encode(waves(5, 5, 3))
    with pytest.raises(ImageError, match="array"):
        diffcodec.decode(data)


def test_arrays_of_8_bits_are_pictures():
    pixels = (waves(9, 8, 3) >> 8).astype(np.uint8)
    assert diffcodec.encode(pixels) == diffcodec.encode(Image.fromarray(pixels))
    assert np.array_equal(diffcodec.decode_array(diffcodec.encode(pixels)), pixels)


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((4, 4)), np.zeros((4, 4, 5), np.uint8), np.zeros(4, np.uint8), np.zeros((2, 2), int)],
)
def test_other_arrays_are_refused(pixels):
    with pytest.raises(ImageError, match="array"):
        diffcodec.encode(pixels)


def run(*arguments):
    """The command line; returns what it printed, once it is sure that it succeeded."""
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.stderr
    return result


def refused(*arguments):
    """What the command line says against it."""
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    (sentence,) = result.stderr.splitlines()
    return sentence


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def deep(channels):
    info = {"icc_profile": b"a profile", "exif": b"MM\0*\0\0\0\x08\0\0\0\0\0\0"}
    return DeepImage(waves(12, 16, channels), info)


def same(path, image):
    found = read_image(Path(path))
    return metadata(found) == metadata(image) and np.array_equal(found.pixels, image.pixels)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_png_files_of_16_bits(folder, channels):
    write_image(deep(channels), Path("deep.png"))
    run("encode", "deep.png")
    assert f"16x12 {list(SHAPES)[channels - 1]}" in run("decode", "deep.dfc", "-o", "b.png").stdout
    assert same("b.png", deep(channels))


def test_grey_png_files_of_16_bits(folder):
    Image.fromarray(waves(12, 16, 1)).save("grey.png")
    run("encode", "grey.png")
    run("decode", "grey.dfc", "-o", "b.png")
    assert np.array_equal(np.asarray(Image.open("b.png")), waves(12, 16, 1))


def test_many_png_files_of_16_bits(folder):
    Path("photos").mkdir()
    for channels in (2, 3):
        write_image(deep(channels), Path(f"photos/{channels}.png"))
    run("encode", "photos", "-o", "coded")
    run("decode", "coded", "-o", "again")
    assert all(same(f"again/{channels}.png", deep(channels)) for channels in (2, 3))


@pytest.fixture
def coded(folder):
    """A file with colours of 16 bits, and its original."""
    write_image(deep(3), Path("deep.png"))
    Path("deep.dfc").write_bytes(diffcodec.encode(deep(3)))


@pytest.mark.parametrize("suffix", [".tif", ".webp", ".jp2", ".jpg"])
def test_colours_of_16_bits_are_written_as_png_or_ppm_only(coded, monkeypatch, suffix):
    monkeypatch.setattr(quantised, "walk", None)  # refused before the work
    sentence = refused("decode", "deep.dfc", "-o", f"b{suffix}")
    assert sentence.startswith(f"diffcodec: cannot write b{suffix}: ")
    assert sentence.endswith(" has no colours of 16 bits; write .png or .ppm")
    assert not Path(f"b{suffix}").exists()


def test_ppm_files_of_16_bits(coded):
    run("decode", "deep.dfc", "-o", "b.ppm")
    run("encode", "b.ppm")
    assert np.array_equal(diffcodec.decode_array(Path("b.dfc").read_bytes()), deep(3).pixels)


def test_rungs_against_a_png_of_16_bits(coded):
    table = run("info", "deep.dfc", "--against", "deep.png").stdout.splitlines()
    assert "16x12 RGB, 16 bits" in table[0]
    assert table[-1].endswith("inf")
    Image.new("RGB", (16, 12)).save("eight.png")
    assert "cannot compare" in refused("info", "deep.dfc", "--against", "eight.png")


def test_previews_of_16_bits_are_shown_in_8(coded):
    run("preview", "deep.dfc", "-o", "x.webp")
    with Image.open("x.webp") as animation:
        animation.seek(animation.n_frames - 1)
        assert np.array_equal(np.asarray(animation.convert("RGB")), deep(3).pixels >> 8)


def test_live_pictures_of_16_bits(coded):
    run("decode", "deep.dfc", "--live", "b.png")
    assert same("b.png", deep(3))
