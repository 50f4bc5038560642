"""Files of every format version decode to the same pixels for ever (see make_golden.py)."""

import pytest
from make_golden import CASES, FOLDER, NEWEST, picture
from PIL import Image

import diffcodec
from diffcodec import bitstream
from diffcodec.bitstream import QUANTISED, VERSIONS
from diffcodec.quantized import model

VERSION_FOLDERS = sorted(FOLDER.iterdir())
FILES = sorted(FOLDER.glob("*/*.dfc"))

folders = pytest.mark.parametrize("folder", VERSION_FOLDERS, ids=lambda folder: folder.name)


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_golden_file_decodes_to_its_pixels(file):
    image = diffcodec.decode(file.read_bytes())
    (mode, *size), options = CASES[file.stem]
    assert (image.mode, *image.size) == (mode, *size)
    with Image.open(file.with_suffix(".png")) as expected:
        assert image.mode == expected.mode
        assert image.tobytes() == expected.tobytes()
    if not options:
        assert image.tobytes() == picture(mode, *size).tobytes()


@folders
def test_the_lossy_file_keeps_its_limit(folder):
    shape, options = CASES["lossy"]
    data = (folder / "lossy.dfc").read_bytes()
    assert len(data) <= options["max_bytes"]
    assert not diffcodec.info(data, rungs=False).lossless
    assert diffcodec.decode(data).tobytes() != picture(*shape).tobytes()


@folders
def test_every_golden_file_is_tested_and_of_its_version(folder):
    names = {path.stem for path in folder.iterdir()}
    assert names <= set(CASES)
    assert names == set(CASES) or folder != NEWEST
    version = int(folder.name.removeprefix("version-"))
    assert {path.read_bytes()[2] >> 4 for path in folder.glob("*.dfc")} == {version}


def test_every_version_has_its_files():
    assert [folder.name for folder in VERSION_FOLDERS] == [f"version-{VERSIONS[QUANTISED]}"]


@pytest.mark.parametrize("name", ["rgb", "larger", "exchanged"])
def test_the_newest_files_are_what_the_encoder_writes(name):
    shape, options = CASES[name]
    written = diffcodec.encode(picture(*shape), **options)
    assert written == (NEWEST / f"{name}.dfc").read_bytes()


def test_the_newest_files_are_of_all_the_default_models():
    used = {diffcodec.info(path.read_bytes(), rungs=False).model for path in NEWEST.glob("*.dfc")}
    assert used == {model.load(path).id.hex() for path in (model.PHOTO, model.THUMBNAIL)}


def test_a_newest_file_has_exchanged_colours():
    header = bitstream.read((NEWEST / "exchanged.dfc").read_bytes()).header
    assert header.green != bitstream.GREEN
