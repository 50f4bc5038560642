"""Files of the format decode to the same pixels for ever (see make_golden.py)."""

import numpy as np
import pytest
from make_golden import CASES, FOLDER, SETS, encode, pictures, planes
from PIL import Image

import diffcodec
from diffcodec import container
from diffcodec.exact import files
from diffcodec.pictures.images import to_planes
from diffcodec.pictures.reading import read_image
from diffcodec.quantized import coding, tiles

cases = pytest.mark.parametrize("name", CASES)
sets = pytest.mark.parametrize("name", SETS)


def file(name):
    return (FOLDER / f"{name}.dfc").read_bytes()


def header(name):
    return container.read(file(name)).header


@cases
def test_a_golden_file_decodes_to_its_pixels(name):
    mode, decoded = to_planes(diffcodec.decode_picture(file(name)))
    shape, options = CASES[name]
    expected_mode, expected = to_planes(read_image(FOLDER / f"{name}.png"))
    assert mode == shape[0] == expected_mode
    assert decoded.dtype == expected.dtype
    assert np.array_equal(decoded, expected)
    if "max_bytes" not in options:
        error = np.abs(decoded.astype(int) - to_planes(planes(*shape))[1]).max()
        assert error == options.get("max_error", 0)


@cases
def test_a_golden_file_is_what_the_encoder_writes(name):
    assert encode(*CASES[name]) == file(name)


@sets
def test_a_golden_set_decodes_to_its_pixels_and_is_what_the_encoder_writes(name):
    decoded = diffcodec.decode_set(file(name))
    originals = pictures()
    assert len(decoded) == len(originals)
    for number, (image, original) in enumerate(zip(decoded, originals, strict=True)):
        with Image.open(FOLDER / name / f"{number}.png") as expected:
            assert image.tobytes() == expected.tobytes()
        assert (image.tobytes() == original.tobytes()) == (name == "bits-back")
    assert diffcodec.encode_set(originals, **SETS[name]).data == file(name)


def test_every_golden_file_is_tested_and_of_the_version():
    paths = list(FOLDER.glob("*.dfc"))
    assert {path.stem for path in paths} == {*CASES, *SETS}
    assert {path.read_bytes()[2] >> 4 for path in paths} == {container.VERSION}


@pytest.mark.parametrize("name", ["lossy", "tiles-lossy", "drawing-lossy"])
def test_a_lossy_file_keeps_its_limit(name):
    assert len(file(name)) == CASES[name][1]["max_bytes"]
    assert not header(name).lossless


@pytest.mark.parametrize("constant", ["FIRST_SET", "LARGEST_SET"])
def test_the_wide_file_has_many_sets(monkeypatch, constant):
    monkeypatch.setattr(coding, constant, getattr(coding, constant) // 2)
    shape, options = CASES["wide"]
    assert diffcodec.encode(planes(*shape), **options) != file("wide")


def test_the_golden_files_are_of_all_kinds():
    headers = {name: header(name) for name in CASES}
    assert {one.codec for one in headers.values()} == set(container.PICTURES)
    assert headers["stored"].codec == container.STORED
    assert headers["rgb"].mirrored != headers["mirrored"].mirrored
    assert headers["exchanged"].colours
    spaces = {"jpeg": 3, "webp": 5, "photo-cd": 8, "jpeg-doubled": 9, "webp-doubled": 11}
    spaces |= {"jpeg-cut": 17}
    assert {name: headers[name].colours for name in spaces} == spaces
    assert headers["photo-cd"].mirrored
    assert headers["wide"].codec == container.QUANTISED
    assert headers["drawing"].codec == headers["drawing-lossy"].codec == container.ABSORBING
    assert headers["tiles-fitted"].fitted and headers["tiles-fitted"].tile
    assert headers["tiles"].tile and headers["tiles-lossy"].tile and headers["steps"].step > 1
    assert headers["wide"].width > 2 * tiles.TILE
    assert headers["deep"].depth == headers["deep-grey"].depth == 16
    used = {one.model for one in headers.values() if one.model}
    assert used == {
        files.parse(files.read(path)).id
        for path in (files.PHOTO, files.CONVERTED, files.THUMBNAIL, files.DRAWING)
    }
