"""Pillow opens and saves .dfc files as it does every other format."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

import diffcodec
from diffcodec import container
from diffcodec.pictures.images import metadata
from diffcodec.pictures.plugin import DfcImageFile
from diffcodec.quantized import stream as quantised

MODES = ["L", "LA", "RGB", "RGBA"]


def gradient(mode="RGB", width=20, height=14):
    y, x, c = np.mgrid[:height, :width, : len(mode)]
    noise = np.random.default_rng(0).integers(0, 5, y.shape)
    pixels = (6 * x + 8 * y + 20 * c + noise).astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if mode == "L" else pixels)


def same(one, other):
    return (one.mode, one.size, one.tobytes()) == (other.mode, other.size, other.tobytes())


@pytest.fixture
def no_decoding(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(quantised, "walk", refuse)


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A saved picture."""
    path = tmp_path_factory.mktemp("photo") / "photo.dfc"
    gradient(width=40, height=32).save(path)
    return path


@pytest.mark.parametrize("mode", MODES)
def test_a_saved_picture_opens_again(tmp_path, mode):
    path = tmp_path / "x.dfc"
    gradient(mode).save(path)
    assert path.read_bytes() == diffcodec.encode(gradient(mode))
    with Image.open(path) as image:
        assert (image.format, image.get_format_mimetype()) == ("DFC", "image/x-dfc")
        assert same(image, gradient(mode))
        assert image.info["complete"]


def test_opening_reads_the_header_only(photo, no_decoding):
    with Image.open(photo) as image:
        assert (image.mode, image.size) == ("RGB", (40, 32))
        with pytest.raises(AssertionError, match="decoded"):
            image.load()


def test_icc_and_exif_are_there_on_opening(tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "x.dfc"
    gradient("L").save(path, icc_profile=b"a profile", exif=exif)
    monkeypatch.setattr(quantised, "walk", None)
    with Image.open(path) as image:
        assert metadata(image) == {
            container.ICC: b"a profile",
            container.EXIF: exif.tobytes().removeprefix(b"Exif\0\0"),
        }
        assert image.getexif()[0x0112] == 6


def test_the_metadata_of_the_picture_itself_are_kept_unless_others_are_given():
    image = gradient("L", 4, 4)
    image.info["icc_profile"] = b"its own"
    for options, kept in (
        ({}, b"its own"),
        ({"icc_profile": b"x"}, b"x"),
        ({"icc_profile": b""}, b""),
    ):
        stream = io.BytesIO()
        image.save(stream, "DFC", **options)
        stream.seek(0)
        assert metadata(Image.open(stream)).get(container.ICC, b"") == kept
    assert image.info["icc_profile"] == b"its own"


@pytest.mark.parametrize("options", [{"max_bytes": 150}, {"bpp": 2}, {"psnr": 30}])
def test_limits_pass_through(options):
    stream = io.BytesIO()
    gradient().save(stream, "DFC", **options)
    assert stream.getvalue() == diffcodec.encode(gradient(), **options)
    assert not diffcodec.info(stream.getvalue(), rungs=False).lossless


def test_a_prefix_is_a_preview_and_says_so(photo):
    data = photo.read_bytes()
    with Image.open(io.BytesIO(data[:300])) as image:
        assert not image.info["complete"]
        assert same(image, diffcodec.decode(data[:300]))


def test_verify(photo):
    Image.open(photo).verify()
    data = bytearray(photo.read_bytes())
    with pytest.raises(OSError, match="truncated"):
        Image.open(io.BytesIO(data[:300])).verify()
    data[len(data) // 2] ^= 4
    for act in (DfcImageFile.verify, DfcImageFile.load):
        with pytest.raises(OSError, match="corrupt"):
            act(Image.open(io.BytesIO(data)))


def test_a_file_of_another_version_is_refused_with_a_sentence(photo):
    data = bytearray(photo.read_bytes())
    data[2] = 0xF0
    with pytest.raises(OSError, match="version 15"):
        Image.open(io.BytesIO(data))
    with pytest.raises(OSError, match="ends inside its header"):
        Image.open(io.BytesIO(data[:2] + b"\x10"))
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(b"\xd1" + data[2:]))


def test_grey_of_16_bits(tmp_path):
    path = tmp_path / "x.dfc"
    grey = Image.fromarray(np.arange(0, 60000, 200, np.uint16).reshape(12, 25))
    grey.save(path)
    with Image.open(path) as image:
        assert same(image, grey)
    with Image.open(path) as image:
        image.draft(None, (6, 3))
        assert same(image, diffcodec.decode(path.read_bytes(), rung=12))


def test_colours_of_16_bits_are_beyond_pillow(tmp_path):
    data = diffcodec.encode(np.zeros((2, 3, 3), np.uint16))
    with pytest.raises(OSError, match="decode_array"):
        Image.open(io.BytesIO(data))


def test_modes_that_are_not_coded_are_refused(tmp_path):
    with pytest.raises(OSError, match="CMYK"):
        Image.new("CMYK", (4, 4)).save(tmp_path / "x.dfc")
    assert list(tmp_path.iterdir()) == []


# --- keywords of save -----------------------------------------------------------------------------


def saved(image, **options):
    """What a picture's file holds."""
    stream = io.BytesIO()
    image.save(stream, "DFC", **options)
    return stream.getvalue()


def test_keywords_of_save_are_heeded():
    exif = Image.Exif()
    exif[0x010F] = "maker"
    options = {
        "icc_profile": b"profile",
        "exif": exif,
        "xmp": b"<xmp/>",
        "dpi": (300, 300),
        "comment": "a word",
    }
    expected = {
        container.ICC: b"profile",
        container.EXIF: exif.tobytes().removeprefix(b"Exif\0\0"),
        container.XMP: b"<xmp/>",
        container.TEXT: b"Comment\0a word\0",
        container.RESOLUTION: b"inch 300 300",
    }
    image = gradient("L", 4, 4)
    assert container.read(saved(image, **options)).boxes == expected
    assert container.read(saved(image, xmp="<xmp/>")).boxes == {container.XMP: b"<xmp/>"}
    assert image.info == {}


@pytest.mark.parametrize("key", ["icc_profile", "exif", "xmp", "dpi", "comment"])
def test_keywords_of_save_take_the_place_of_what_the_picture_has(tmp_path, key):
    exif = Image.Exif()
    exif[0x010F] = "maker"
    own = {"icc_profile": b"own", "exif": exif, "xmp": b"own", "dpi": (99, 99), "comment": "own"}
    gradient("L", 4, 4).save(tmp_path / "a.jpg", **own)
    with Image.open(tmp_path / "a.jpg") as image:
        assert len(container.read(saved(image)).boxes) == 5
        assert len(container.read(saved(image, **{key: None})).boxes) == 4
        assert image.info["xmp"] == b"own"


def test_options_of_encode_are_heeded():
    image = gradient("L", 6, 4)
    image.info["xmp"] = b"own"
    assert container.read(saved(image, strip=True)).boxes == {}
    assert diffcodec.info(saved(image, process="drawing"), rungs=False).process != "photo"


@pytest.mark.parametrize("option", [{"quality": 90}, {"lossless": True}, {"pnginfo": None}])
def test_other_keywords_of_save_are_refused(tmp_path, option):
    with pytest.raises(OSError, match=f"without the option '{min(option)}': there are bpp, "):
        gradient().save(tmp_path / "x.dfc", **option)
    assert list(tmp_path.iterdir()) == []


def test_exif_of_a_tiff_is_saved(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "maker"
    gradient("L", 4, 4).save(tmp_path / "a.tif", exif=exif)
    Image.open(tmp_path / "a.tif").save(tmp_path / "x.dfc")
    with Image.open(tmp_path / "x.dfc") as image:
        assert image.getexif()[0x010F] == "maker"


# --- thumbnails ----------------------------------------------------------------------------------


@pytest.fixture
def walked(monkeypatch):
    """The rungs that decoding has taken."""
    rungs, walk = [], quantised.walk

    def spy(*arguments):
        for rung in walk(*arguments):
            rungs.append(rung)
            yield rung

    monkeypatch.setattr(quantised, "walk", spy)
    return rungs


def test_a_thumbnail_decodes_as_far_as_its_size_needs(photo, walked):
    with Image.open(photo) as image:
        image.thumbnail((5, 4))  # a quarter of its sides after Pillow's gap of two
    assert walked[-1] == 4
    with Image.open(photo) as whole:
        whole.load()
    assert walked[-1] == 1
    exact = whole.copy()
    exact.thumbnail((5, 4))
    assert image.size == exact.size
    difference = np.asarray(image, float) - np.asarray(exact, float)
    assert np.sqrt(np.mean(difference**2)) < 2


def test_draft_ends_with_the_reduction_and_with_the_file(photo):
    image = Image.open(photo)
    assert image.draft(None, (30, 30)) is None
    assert image.draft("L", (20, 16)) == ("RGB", (0, 0, 40, 32))
    data = photo.read_bytes()
    assert same(image, diffcodec.decode(data, rung=3))
    assert image.draft(None, (5, 4)) is None, "it is loaded"
    short = Image.open(io.BytesIO(data[:60]))
    short.draft(None, (20, 16))
    assert same(short, diffcodec.decode(data[:60]))


def test_a_damaged_end_does_not_matter_to_a_thumbnail(photo):
    data = bytearray(photo.read_bytes())
    data[-9] ^= 1
    image = Image.open(io.BytesIO(data))
    image.thumbnail((8, 8))
    assert max(image.size) == 8


# --- company -------------------------------------------------------------------------------------


def test_imageio_reads_and_writes_through_pillow(tmp_path):
    imageio = pytest.importorskip("imageio.v3", reason="imageio is not installed")
    pixels = np.asarray(gradient())
    imageio.imwrite(tmp_path / "x.dfc", pixels)
    np.testing.assert_array_equal(imageio.imread(tmp_path / "x.dfc"), pixels)
    assert container.read((tmp_path / "x.dfc").read_bytes()).complete


def test_importing_the_package_does_not_load_torch():
    script = "import sys, diffcodec; print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"
