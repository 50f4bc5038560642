"""Files of this format version decode to the same pixels for ever (see make_golden.py)."""

import pytest
from make_golden import CASES, FOLDER, picture
from PIL import Image

import diffcodec


@pytest.mark.parametrize("name", CASES)
def test_a_golden_file_decodes_to_its_pixels(name):
    data = (FOLDER / f"{name}.dfc").read_bytes()
    image = diffcodec.decode(data)
    with Image.open(FOLDER / f"{name}.png") as expected:
        assert image.mode == expected.mode
        assert image.size == expected.size
        assert image.tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", [name for name, (_, options) in CASES.items() if not options])
def test_golden_pixels_are_those_of_the_picture(name):
    with Image.open(FOLDER / f"{name}.png") as expected:
        assert picture(*CASES[name][0]).tobytes() == expected.tobytes()


def test_the_lossy_file_keeps_its_limit():
    shape, options = CASES["lossy"]
    data = (FOLDER / "lossy.dfc").read_bytes()
    assert len(data) <= options["max_bytes"]
    assert not diffcodec.info(data, rungs=False).lossless
    assert diffcodec.decode(data).tobytes() != picture(*shape).tobytes()


def test_every_golden_file_is_tested():
    assert {path.stem for path in FOLDER.iterdir()} == set(CASES)
