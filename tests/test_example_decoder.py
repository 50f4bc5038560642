"""The decoder in plain numpy gives the pixels that diffcodec gives, from files and prefixes."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from make_golden import CASES, FOLDER
from PIL import Image

import diffcodec
from diffcodec import container, stored
from diffcodec.exact import files
from diffcodec.pictures.images import read_image, to_planes
from diffcodec.quantized import coding, colour, significance, stream
from diffcodec.quantized.preview import plain

EXAMPLES = Path(__file__).parent.parent / "examples"
KNOWN = container.QUANTISED, container.STORED


def golden(name):
    return (FOLDER / f"{name}.dfc").read_bytes()


NAMES = [name for name in CASES if container.read(golden(name)).header.codec in KNOWN]


@pytest.fixture(scope="module")
def decoder():
    sys.path.insert(0, str(EXAMPLES))
    try:
        import decoder
    finally:
        sys.path.pop(0)
    return decoder


@pytest.fixture
def cells(monkeypatch):
    """What diffcodec makes of a prefix without its denoiser, [H, W, C]."""
    monkeypatch.setattr(stream, "picture", plain)
    return lambda data, model: np.atleast_3d(diffcodec.decode_array(data, model=model))


@pytest.fixture(scope="module")
def unrounded_path(tmp_path_factory):
    """A model of the other kind: of rounding, of chroma, and with blocks at full resolution."""
    path = tmp_path_factory.mktemp("tiny") / "unrounded.safetensors"
    network = tiny.shape((1, 1), (1, 1), (1, 0))
    tiny.model_file(replace(tiny.CONFIG, network=network, interpolated=0, significand=24)).write(
        path
    )
    return path


def model_of(data):
    model = container.read(data).header.model
    return files.find(model) if model else None


def same(found, expected):
    return found.dtype == expected.dtype and np.array_equal(found, np.atleast_3d(expected))


def cuts(data, *shares):
    return [data[: round(len(data) * share)] for share in shares]


@pytest.mark.parametrize("name", NAMES)
def test_golden_files_decode_to_their_pixels(decoder, cells, name):
    data = golden(name)
    decoded = decoder.decode(data, model_of(data))
    if container.read(data).header.lossless:
        _, expected = to_planes(read_image(FOLDER / f"{name}.png"))
        assert same(decoded, np.moveaxis(expected, 0, -1))
    else:
        assert same(decoded, cells(data, None))


@pytest.mark.parametrize("name", ["mirrored", "deep"])
def test_prefixes_of_golden_files_decode_to_their_cells(decoder, cells, name):
    for prefix in cuts(golden(name), 0.6):
        assert same(decoder.decode(prefix, model_of(prefix)), cells(prefix, None))


def test_every_prefix_of_a_small_picture_decodes_to_its_cells(decoder, cells, tiny_path):
    data = diffcodec.encode(
        tiny.pixels(4, 5).permute(1, 2, 0).numpy(), model=tiny_path, process="photo"
    )
    start = container.read(data).start
    assert len(data) - start > 30
    for size in range(start, len(data), 5):
        assert same(decoder.decode(data[:size], tiny_path), cells(data[:size], tiny_path))


def test_blocks_and_sets_and_what_a_large_picture_teaches(decoder, cells, tiny_path, monkeypatch):
    pixels = tiny.pixels(100, 160).permute(1, 2, 0).numpy().copy()
    pixels[:, 100:] = 77  # blocks without anything
    data = diffcodec.encode(pixels, model=tiny_path, process="photo")
    assert same(decoder.decode(data, tiny_path), pixels)
    for prefix in cuts(data, 0.7):
        assert same(decoder.decode(prefix, tiny_path), cells(prefix, tiny_path))
    # It is large enough for all of them to matter.
    monkeypatch.setattr(coding, "FIRST_SET", 1 << 13)
    assert diffcodec.encode(pixels, model=tiny_path, process="photo") != data
    monkeypatch.undo()
    monkeypatch.setattr(significance, "SIDE", 1 << 8)
    assert diffcodec.encode(pixels, model=tiny_path, process="photo") != data


@pytest.mark.parametrize(("mode", "depth"), [("LA", 8), ("RGBA", 16)])
def test_modes_and_depths(decoder, cells, unrounded_path, mode, depth):
    planes = np.concatenate([tiny.pixels(17, 50).numpy(), tiny.pixels(17, 50, seed=1).numpy()])
    pixels = np.moveaxis(planes[: len(mode)], 0, -1)
    if depth == 16:
        pixels = pixels * np.uint16(200) + np.uint16(31)
    data = diffcodec.encode(pixels, model=unrounded_path, process="photo")
    assert container.read(data).header.codec == container.QUANTISED
    assert same(decoder.decode(data, unrounded_path), pixels)
    (prefix,) = cuts(data, 0.5)
    assert same(decoder.decode(prefix, unrounded_path), cells(prefix, unrounded_path))


@pytest.mark.parametrize("number", [1, 2])
def test_colour_transforms(decoder, cells, tiny_path, monkeypatch, number):
    monkeypatch.setattr(colour, "select", lambda *_: number)
    pixels = tiny.pixels(9, 60).permute(1, 2, 0).numpy()
    data = diffcodec.encode(pixels, model=tiny_path, process="photo")
    assert container.read(data).header.colours == number
    assert same(decoder.decode(data, tiny_path), pixels)
    (prefix,) = cuts(data, 0.5)
    assert same(decoder.decode(prefix, tiny_path), cells(prefix, tiny_path))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 1)])
def test_pictures_of_a_few_pixels(decoder, tiny_path, size):
    pixels = np.full((*size, 4), 1 << 15, np.uint16)
    data = diffcodec.encode(pixels, model=tiny_path, process="photo")
    assert container.read(data).header.codec == container.QUANTISED
    assert same(decoder.decode(data, tiny_path), pixels)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_stored_samples_and_their_prefixes(decoder, kind):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (6, 11, 2), kind)
    data = diffcodec.encode(pixels)
    header = container.read(data).header
    assert header.codec == container.STORED
    start = len(data) - header.stream_bytes
    for size in range(start, len(data) + 1, 5):
        expected = stored.decode(header, data[start:size])
        assert same(decoder.decode(data[:size]), np.moveaxis(expected, 0, -1))


def test_what_it_cannot_decode_is_refused(decoder, tiny_path):
    data = golden("rgb")
    featured = data[:3] + bytes([data[3] | 128, 1]) + data[4:]
    changed = data[:-4] + bytes(4)
    other_sum = data[:4] + bytes(4) + data[8:]
    for wrong in (b"", b"P6", data[:9], featured, golden("drawing"), changed, other_sum):
        with pytest.raises(ValueError):
            decoder.decode(wrong, files.THUMBNAIL)
    with pytest.raises(ValueError, match="needs the model"):
        decoder.decode(data, tiny_path)
    with pytest.raises(ValueError, match="needs the model"):
        decoder.decode(data)


def run(*arguments):
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=EXAMPLES, capture_output=True, text=True)


def test_its_command_writes_a_png(tmp_path):
    target = tmp_path / "deep.png"
    result = run("-m", "decoder", FOLDER / "deep.dfc", files.THUMBNAIL, target)
    assert result.returncode == 0, result.stderr
    found, expected = (to_planes(read_image(path)) for path in (target, FOLDER / "deep.png"))
    assert found[0] == expected[0] == "RGBA"
    assert np.array_equal(found[1], expected[1])
    assert run("-m", "decoder", FOLDER / "stored.dfc", target).returncode == 0
    with Image.open(target) as image:
        assert image.mode == "LA"
    result = run("-m", "decoder", FOLDER / "drawing.dfc", target)
    assert (result.returncode, result.stderr) == (1, "This decoder does not know codec 3.\n")


def test_it_shares_nothing_with_diffcodec():
    code = "import sys, decoder; print({'diffcodec', 'torch', 'numba'} & set(sys.modules))"
    assert run("-c", code).stdout == "set()\n"
