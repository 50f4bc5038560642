"""Files of every format version decode to the same pixels for ever (see make_golden.py)."""

import pytest
from make_golden import CASES, FOLDER, NEWEST, picture
from PIL import Image

import diffcodec
from diffcodec.bitstream import QUANTISED, VERSIONS

VERSION_FOLDERS = sorted(FOLDER.iterdir())

folders = pytest.mark.parametrize("folder", VERSION_FOLDERS, ids=lambda folder: folder.name)


@folders
@pytest.mark.parametrize("name", CASES)
def test_a_golden_file_decodes_to_its_pixels(folder, name):
    data = (folder / f"{name}.dfc").read_bytes()
    image = diffcodec.decode(data)
    with Image.open(folder / f"{name}.png") as expected:
        assert image.mode == expected.mode
        assert image.size == expected.size
        assert image.tobytes() == expected.tobytes()


@folders
@pytest.mark.parametrize("name", [name for name, (_, options) in CASES.items() if not options])
def test_golden_pixels_are_those_of_the_picture(folder, name):
    with Image.open(folder / f"{name}.png") as expected:
        assert picture(*CASES[name][0]).tobytes() == expected.tobytes()


@folders
def test_the_lossy_file_keeps_its_limit(folder):
    shape, options = CASES["lossy"]
    data = (folder / "lossy.dfc").read_bytes()
    assert len(data) <= options["max_bytes"]
    assert not diffcodec.info(data, rungs=False).lossless
    assert diffcodec.decode(data).tobytes() != picture(*shape).tobytes()


@folders
def test_every_golden_file_is_tested_and_of_its_version(folder):
    assert {path.stem for path in folder.iterdir()} == set(CASES)
    version = int(folder.name.removeprefix("version-"))
    assert {path.read_bytes()[2] >> 4 for path in folder.glob("*.dfc")} == {version}


def test_every_version_has_its_files():
    names = [f"version-{n}" for n in range(1, VERSIONS[QUANTISED] + 1)]
    assert [folder.name for folder in VERSION_FOLDERS] == names


def test_the_newest_files_are_what_the_encoder_writes():
    shape, options = CASES["rgb"]
    written = diffcodec.encode(picture(*shape), **options)
    assert written == (NEWEST / "rgb.dfc").read_bytes()
