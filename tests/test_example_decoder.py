"""The decoder in plain numpy gives the pixels that diffcodec gives, from files and prefixes."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from make_golden import CASES, FOLDER
from PIL import Image
from test_fitted import shifts_of, write
from test_fitted_tiles import rows_of
from test_fitted_tiles import write as write_tiles

import diffcodec
from diffcodec import container, stored
from diffcodec.exact import files
from diffcodec.pictures.images import to_planes
from diffcodec.pictures.reading import read_image
from diffcodec.quantized import coding, colour, model, stream, tile_state
from diffcodec.quantized.fitted import LIMIT
from diffcodec.quantized.preview import plain
from diffcodec.transforms import spaces

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


def model_path(folder, config):
    """The file of a small model whose odds differ from case to case."""
    file, random = tiny.model_file(config), np.random.default_rng(0)
    for name in ("level_odds", "block_odds"):
        odds = random.integers(1 << 12, 1 << 15, file.tensors[name].shape, np.int32)
        file.tensors[name] = torch.from_numpy(odds)
    path = folder.mktemp("models") / "model.safetensors"
    file.write(path)
    return path


@pytest.fixture(scope="module")
def rounded(tmp_path_factory):
    """A model like that of photographs."""
    return model_path(tmp_path_factory, tiny.CONFIG)


@pytest.fixture(scope="module")
def unrounded(tmp_path_factory):
    """A model like that of thumbnails, in rounding, chroma and blocks at full resolution."""
    network = tiny.shape((1, 1), (1, 1), (1, 0))
    changes = {"network": network, "interpolated": 0, "significand": 24}
    return model_path(tmp_path_factory, replace(tiny.CONFIG, **changes))


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


@pytest.mark.parametrize(
    "name", ["mirrored", "deep", "webp", "photo-cd", "webp-doubled", "jpeg-cut"]
)
def test_prefixes_of_golden_files_decode_to_their_cells(decoder, cells, name):
    for prefix in cuts(golden(name), 0.6):
        assert same(decoder.decode(prefix, model_of(prefix)), cells(prefix, None))


def test_every_prefix_of_a_small_picture_decodes_to_its_cells(decoder, cells, rounded):
    data = diffcodec.encode(
        tiny.pixels(4, 5).permute(1, 2, 0).numpy(), model=rounded, process="photo"
    )
    start = container.read(data).start
    assert len(data) - start > 30
    for size in range(start, len(data), 7):
        assert same(decoder.decode(data[:size], rounded), cells(data[:size], rounded))


def test_blocks_and_sets_and_what_a_large_picture_teaches(decoder, cells, rounded, monkeypatch):
    waves = tiny.pixels(150, 240).numpy().astype(np.int64) - 128
    # Blocks leave zero at different rungs, colour by colour, and some never do.
    luma = np.array([[1, 1, 1, 0.3], [1, 0.02, 0, 0.1], [1, 1, 0, 0]])
    chroma = luma * np.random.default_rng(0).choice([0, 0.1, 1], (3, 3, 4))
    luma, chroma = (a.repeat(64, -2).repeat(64, -1)[..., :150, :240] for a in (luma, chroma))
    pixels = 128 + luma * waves[0] + chroma * waves
    pixels = np.moveaxis(pixels, 0, -1).clip(0, 255).astype(np.uint8)
    data = diffcodec.encode(pixels, model=rounded, process="photo")
    assert same(decoder.decode(data, rounded), pixels)
    for prefix in cuts(data, 0.7):
        assert same(decoder.decode(prefix, rounded), cells(prefix, rounded))
    # A phase has more than one set.
    monkeypatch.setattr(coding, "FIRST_SET", 1 << 13)
    assert diffcodec.encode(pixels, model=rounded, process="photo") != data


@pytest.mark.parametrize(("mode", "depth"), [("LA", 8), ("RGBA", 16)])
def test_modes_and_depths(decoder, cells, unrounded, mode, depth):
    planes = np.concatenate([tiny.pixels(9, 50).numpy(), tiny.pixels(9, 50, seed=1).numpy()])
    pixels = np.moveaxis(planes[: len(mode)], 0, -1)
    if depth == 16:
        pixels = pixels * np.uint16(200) + np.uint16(31)
    data = diffcodec.encode(pixels, model=unrounded, process="photo")
    assert container.read(data).header.codec == container.QUANTISED
    assert same(decoder.decode(data, unrounded), pixels)
    (prefix,) = cuts(data, 0.5)
    assert same(decoder.decode(prefix, unrounded), cells(prefix, unrounded))


@pytest.mark.parametrize("number", [1, 2])
def test_colour_transforms(decoder, cells, rounded, monkeypatch, number):
    monkeypatch.setattr(colour, "select", lambda *_: number)
    pixels = tiny.pixels(9, 60).permute(1, 2, 0).numpy()
    data = diffcodec.encode(pixels, model=rounded, process="photo")
    assert container.read(data).header.colours == number
    assert same(decoder.decode(data, rounded), pixels)
    (prefix,) = cuts(data, 0.5)
    assert same(decoder.decode(prefix, rounded), cells(prefix, rounded))


@pytest.mark.parametrize("number", range(3, 25))
@pytest.mark.parametrize("name", ["rounded", "unrounded"])
def test_spaces(decoder, cells, monkeypatch, number, name, request):
    path = request.getfixturevalue(name)
    space = spaces.SPACES[(number - 3) // 2]
    rgb = spaces.to_rgb(space, tiny.pixels(21, 60)).numpy().astype(np.uint8)
    planes = spaces.from_rgb(space, rgb)

    def prepare(model, header, *_, **__):
        mirrored = number % 3 == 0
        return model, replace(header, model=model.id, colours=number, mirrored=mirrored), planes

    monkeypatch.setattr(colour, "prepare", prepare)
    pixels = np.moveaxis(rgb, 0, -1)
    data = diffcodec.encode(pixels, model=path, process="photo")
    assert container.read(data).header.colours == number
    assert same(decoder.decode(data, path), pixels)
    for prefix in cuts(data, 0.2, 0.6):
        assert same(decoder.decode(prefix, path), cells(prefix, path))


def test_every_colour_is_made_as_diffcodec_makes_it(decoder):
    chroma = np.mgrid[:256, :256]
    for number, space in enumerate(spaces.SPACES):
        for luma in range(-20, 300, 20):
            planes = np.stack((np.full_like(chroma[0], luma), *chroma))
            middle = np.array([128, *space.grey[::-1]])[:, None, None]
            found = decoder.spaces.of(3 + 2 * number).picture(planes - middle)
            assert np.array_equal(found, spaces.to_rgb(space, torch.from_numpy(planes)))


def test_tiles(decoder, cells, rounded, monkeypatch):
    monkeypatch.setattr(tile_state, "shown_planes", tile_state.known_planes)
    pixels = tiny.pixels(20, 130).permute(1, 2, 0).numpy()[..., :2]
    data = diffcodec.encode(np.ascontiguousarray(pixels), model=rounded, process="photo", tile=64)
    assert same(decoder.decode(data, rounded), pixels)
    for prefix in cuts(data, 0.2, 0.7):
        assert same(decoder.decode(prefix, rounded), cells(prefix, rounded))
    lossy = diffcodec.encode(pixels, model=rounded, process="photo", tile=64, bpp=3.0)
    assert same(decoder.decode(lossy, rounded), cells(lossy, rounded))


@pytest.mark.parametrize("name", ["rounded", "unrounded"])
@pytest.mark.parametrize("most", [2, LIMIT])
def test_fitted_biases(decoder, cells, name, most, request):
    path = request.getfixturevalue(name)
    weights, planes = model.load(path), tiny.pixels(18, 21).numpy()
    shifts = shifts_of(weights, most=most, rows=[(0, 0), (1, 0), (2, 1), (4, 5)])
    data = write(weights, planes, shifts)
    assert same(decoder.decode(data, path), np.moveaxis(planes, 0, -1))
    for prefix in cuts(data, 0.1, 0.3, 0.5, 0.8):
        assert same(decoder.decode(prefix, path), cells(prefix, path))


@pytest.mark.parametrize(("mode", "depth"), [("RGBA", 8), ("L", 16)])
def test_fitted_biases_of_tiles(decoder, cells, rounded, monkeypatch, mode, depth):
    monkeypatch.setattr(tile_state, "shown_planes", tile_state.known_planes)
    weights = model.load(rounded)
    planes = tiny.pixels(9, 70).numpy()[[0, 1, 2, 0]][: len(mode)]
    planes = planes.astype(f"<u{depth // 8}") << depth - 8
    shifts = shifts_of(weights, most=2, rows=[(0, 0), (1, 0), (2, 1), (4, 5)])
    data = write_tiles(weights, planes, shifts)
    assert container.read(data).header.fitted
    assert same(decoder.decode(data, rounded), np.moveaxis(planes, 0, -1))
    start, end = rows_of(data)[1]
    for prefix in (*cuts(data, 0.3), data[: (start + end) // 2]):
        assert same(decoder.decode(prefix, rounded), cells(prefix, rounded))


def test_steps(decoder, rounded):
    pixels = tiny.pixels(9, 20).permute(1, 2, 0).numpy()[..., :2]
    data = diffcodec.encode(pixels, model=rounded, process="photo", max_error=4)
    found = decoder.decode(data, rounded)
    assert same(found, diffcodec.decode_array(data, model=rounded))
    assert np.abs(found.astype(int) - pixels).max((0, 1)).tolist() == [4, 0]


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 1)])
def test_pictures_of_a_few_pixels(decoder, rounded, size):
    pixels = np.full((*size, 4), 1 << 15, np.uint16)
    data = diffcodec.encode(pixels, model=rounded, process="photo")
    assert container.read(data).header.codec == container.QUANTISED
    assert same(decoder.decode(data, rounded), pixels)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_stored_samples_and_their_prefixes(decoder, kind):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (6, 11, 2), kind)
    data = diffcodec.encode(pixels)
    header = container.read(data).header
    assert header.codec == container.STORED
    start = len(data) - header.stream_bytes
    for size in range(start, len(data) + 1, 13):
        expected = stored.decode(header, data[start:size])
        assert same(decoder.decode(data[:size]), np.moveaxis(expected, 0, -1))


def test_what_it_cannot_decode_is_refused(decoder, rounded):
    data = golden("rgb")
    featured = data[:3] + bytes([data[3] | 128, 4]) + data[4:]
    changed = data[:-4] + bytes(4)
    other_sum = data[:4] + bytes(4) + data[8:]
    for wrong in (b"", b"P6", data[:9], featured, golden("drawing"), changed, other_sum):
        with pytest.raises(ValueError):
            decoder.decode(wrong, files.THUMBNAIL)
    for name, number in (("rgb", 25), ("grey", 1), ("deep", 3)):
        coded = golden(name)
        transformed = coded[:3] + bytes([coded[3] | 32]) + coded[4:14] + bytes([number])
        with pytest.raises(ValueError, match=f"no colour transform {number}"):
            decoder.decode(transformed + coded[14:], files.THUMBNAIL)
    with pytest.raises(ValueError, match="needs the model"):
        decoder.decode(data, rounded)
    with pytest.raises(ValueError, match="needs the model"):
        decoder.decode(data)


def test_a_difference_file_is_refused(decoder, rounded, tmp_path):
    base = files.parse(files.read(rounded))
    same = {
        name: torch.zeros_like(value, dtype=torch.int8 if name.endswith("weight") else torch.short)
        for name, value in base.tensors.items()
        if name.endswith((".weight", ".bias"))
    }
    files.write_difference(tmp_path / "mine", base, same, {})
    with pytest.raises(ValueError, match="is a difference"):
        decoder.decode(golden("rgb"), tmp_path / "mine")


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
