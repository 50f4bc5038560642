"""Metadata: from each format into boxes and back, what is said of the rest, and stripping."""

import io
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import png as pypng
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, PngImagePlugin

import diffcodec
from diffcodec import container
from diffcodec.cli import main
from diffcodec.container import COLOUR, EXIF, ICC, IPTC, PALETTE, RESOLUTION, TEXT, XMP
from diffcodec.errors import DiffcodecError, ImageError
from diffcodec.pictures import metadata, orientation
from diffcodec.pictures.images import DeepImage, from_planes
from diffcodec.pictures.images import metadata as boxes_of
from diffcodec.pictures.reading import read_image
from diffcodec.pictures.writing import write_image

XML = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">\xc3\xa9</x:xmpmeta>'
RECORD = b"\x1c\x02\x05\x00\x05title"
SRGB = b"gAMA\4" + struct.pack(">I", 45455) + b"sRGB\1\0"
WIDE = b"cICP\4\x09\x10\x00\x01" + b"gAMA\4" + struct.pack(">I", 100000)


def exif(orientation=6, **more):
    """A block with directories below."""
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    tags[ExifTags.Base.Make] = "maker"
    tags[ExifTags.IFD.Exif] = {0x9003: "2020:02:03 04:05:06"}
    tags[ExifTags.IFD.GPSInfo] = {1: "N"}
    return tags.tobytes().removeprefix(b"Exif\0\0")


ALL = {
    ICC: b"a profile",
    COLOUR: WIDE,
    EXIF: exif(),
    XMP: XML,
    IPTC: RECORD,
    TEXT: "Author\0Zoë\0Long\0".encode() + b"word " * 500 + "\0Comment\0\u4e16\0".encode(),
    RESOLUTION: b"metre 2835 1417",
}


def picture(mode="RGB", boxes=None, size=(8, 6)):
    planes = np.random.default_rng(0).integers(0, 256, (len(mode), *size[::-1]), np.uint8)
    return from_planes(mode, planes, {} if boxes is None else boxes)


def deep(boxes):
    planes = np.random.default_rng(0).integers(0, 65536, (3, 6, 8), np.uint16)
    return from_planes("RGB", planes, boxes)


def there_and_back(image, suffix, tmp_path):
    """The metadata of a picture after a file of it, and what was said."""
    said = []
    path = tmp_path / f"a{suffix}"
    write_image(image, path, said.append)
    return boxes_of(read_image(path, said.append)), [line.replace(str(path), "a") for line in said]


def run(*arguments):
    result = CliRunner().invoke(main, arguments)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# --- boxes ---------------------------------------------------------------------------------------

TEXTS = st.dictionaries(
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1)
    .map(str)
    .filter(lambda key: key not in ("text", "comment", "compression", "xmp")),
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0")),
    max_size=4,
).filter(lambda text: not any("rofile type" in key or "adobe" in key for key in text))


@given(TEXTS)
def test_text_comes_back(text):
    content = "".join(f"{key}\0{value}\0" for key, value in text.items()).encode()
    boxes = {TEXT: content} if content else {}
    assert metadata.texts(boxes) == text
    assert metadata.of_info(metadata.to_info(boxes)) == boxes


@given(st.sampled_from([st.integers(2, 65535)]).flatmap(lambda each: st.tuples(each, each)))
def test_resolutions_come_back(pair):
    for unit, dpi in (("inch", pair), ("metre", tuple(each * 0.0254 for each in pair))):
        (box,) = metadata.of_info({"dpi": dpi}).values()
        one = metadata.resolution({RESOLUTION: box})
        assert metadata.of_info(metadata.to_info({RESOLUTION: box})) == {RESOLUTION: box}
        found = [float(each / one[0]) for each in one[1:]]
        assert found == pytest.approx(dpi, rel=1e-4), unit


@pytest.mark.parametrize(
    ("info", "box"),
    [
        ({"dpi": (72, 72)}, b"inch 72 72"),
        ({"dpi": (72.009, 36.0172)}, b"metre 2835 1418"),
        ({"dpi": (2835 * 0.0254, 2835 * 0.0254)}, b"metre 2835 2835"),
        ({"dpi": (72.5, 72.25)}, b"inch 145/2 289/4"),
        ({"jfif_unit": 0, "jfif_density": (4, 3), "dpi": (72, 72)}, b"none 4 3"),
        ({"jfif_unit": 0, "jfif_density": (1, 1), "dpi": (72, 72)}, None),
        ({"aspect": (3, 2)}, b"none 3 2"),
        *(
            ({"dpi": dpi}, None)
            for dpi in (72, None, (0, 0), (1,), (None, 2), (float("nan"), 1), (1, 1))
        ),
    ],
)
def test_resolution_is_written_exactly(info, box):
    assert metadata.of_info(info) == ({} if box is None else {RESOLUTION: box})


BROKEN = st.dictionaries(st.sampled_from(container.KINDS), st.binary(max_size=60))


@given(BROKEN, st.sampled_from([b"", b"P", b"1", b"inch ", b"none 0 1", b"gAMA\4", b"Exif\0\0II*"]))
@settings(deadline=None)
def test_boxes_that_make_no_sense_are_passed_over(tmp_path_factory, boxes, start):
    boxes = {kind: start + content for kind, content in boxes.items()}
    image = picture(boxes=boxes)
    assert image.size == (8, 6)
    orientation.upright(image)
    orientation.upright(deep(boxes))
    orientation.stripped(boxes)
    path = tmp_path_factory.getbasetemp()
    for suffix in (".png", ".jpg", ".tif", ".bmp"):
        write_image(image, path / f"broken{suffix}")
    write_image(deep(boxes), path / "broken.png")


@given(st.integers(0, 200), st.integers(0, 255), st.sampled_from([EXIF, RESOLUTION, COLOUR, TEXT]))
@settings(deadline=None)
def test_damaged_boxes_are_passed_over(tmp_path_factory, place, value, kind):
    content = bytearray(ALL[kind])
    content[place % len(content)] = value
    image = picture(boxes=ALL | {kind: bytes(content)})
    orientation.upright(image)
    path = tmp_path_factory.getbasetemp()
    for suffix in (".png", ".jpg", ".tif"):
        write_image(image, path / f"damaged{suffix}")


def test_a_file_has_all_of_it_and_says_so():
    data = diffcodec.encode(picture(boxes=ALL))
    assert container.read(data).boxes == ALL
    assert boxes_of(diffcodec.decode(data)) == ALL
    found = diffcodec.info(data, rungs=False).metadata
    assert found == {metadata.NAMES[kind]: len(content) for kind, content in ALL.items()}
    assert diffcodec.info(diffcodec.encode(picture()), rungs=False).metadata == {}


def test_info_lists_metadata(folder):
    Path("a.dfc").write_bytes(diffcodec.encode(picture(boxes={XMP: XML, TEXT: b"a\0b\0"})))
    (line,) = [line for line in run("info", "a.dfc").stdout.splitlines() if "metadata" in line]
    assert line == f"metadata  XMP {len(XML)} bytes, text 4 bytes"
    assert '"XMP": ' in run("info", "a.dfc", "--json").stdout


# --- EXIF in all its shapes ----------------------------------------------------------------------


def test_exif_as_pillow_has_it_is_taken():
    image = picture()
    image.info["exif"] = exif()
    image.info["exif"] = image.getexif()
    assert isinstance(image.info["exif"], Image.Exif)
    found = boxes_of(diffcodec.decode(diffcodec.encode(image)))[EXIF]
    assert dict(read_exif(found)) == dict(read_exif(exif()))
    assert boxes_of(picture()).keys() == set()
    image.info["exif"] = Image.Exif()
    assert boxes_of(image) == {}
    image.info["exif"] = Image.Exif()
    image.info["exif"][ExifTags.Base.Make] = object()
    with pytest.raises(ImageError, match="EXIF cannot be written"):
        diffcodec.encode(image)


def read_exif(block):
    tags = Image.Exif()
    tags.load(block)
    for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        if directory in tags:
            tags[directory] = dict(tags.get_ifd(directory))
    return tags


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("pages", [1, 2])
def test_exif_of_a_tiff_is_taken(tmp_path, compression, pages):
    tags = read_exif(exif())
    options = {"exif": tags.tobytes(), "dpi": (300, 300), "icc_profile": b"profile"}
    more = [picture()] * (pages - 1)
    path = tmp_path / "a.tif"
    if compression != "raw":  # Pillow cannot write the directories then
        del tags[ExifTags.IFD.Exif], tags[ExifTags.IFD.GPSInfo]
        options["exif"] = tags.tobytes()
    picture().save(path, compression=compression, save_all=True, append_images=more, **options)
    image = read_image(path)
    assert image.size == (6, 8), "Pillow turns what a TIFF file holds"
    found = boxes_of(image)
    assert found.keys() == {EXIF, ICC, RESOLUTION}
    expected = dict(tags)
    del expected[ExifTags.Base.Orientation]
    assert dict(read_exif(found[EXIF])) == expected
    assert boxes_of(Image.open(path)) == found
    assert container.read(diffcodec.encode(Image.open(path))).boxes == found


def raw_profile(kind, data):
    return f"Raw profile type {kind}", f"\n{kind}\n{len(data):8}\n{data.hex()}\n"


@pytest.mark.parametrize(
    ("kind", "data", "boxes"),
    [
        ("exif", b"Exif\0\0" + exif(), {EXIF: exif()}),
        ("APP1", b"Exif\0\0" + exif(), {EXIF: exif()}),
        ("APP1", b"http://ns.adobe.com/xap/1.0/\0" + XML, {XMP: XML}),
        ("xmp", XML, {XMP: XML}),
        ("iptc", RECORD, {IPTC: RECORD}),
        ("8bim", b"8BIM\x03\xed\x01a\0\0\0\2xx8BIM\4\4\0\0\0\0\0\x0a" + RECORD, {IPTC: RECORD}),
    ],
)
def test_profiles_in_hexadecimal_are_taken(tmp_path, kind, data, boxes):
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text(*raw_profile(kind, data), zip=True)
    picture().save(tmp_path / "a.png", pnginfo=chunks)
    assert boxes_of(read_image(tmp_path / "a.png")) == boxes
    assert boxes_of(Image.open(tmp_path / "a.png")) == boxes


def test_a_broken_profile_in_hexadecimal_is_text(tmp_path):
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("Raw profile type exif", "\nexif\n   3\nno hex\n")
    picture().save(tmp_path / "a.png", pnginfo=chunks)
    assert boxes_of(read_image(tmp_path / "a.png")).keys() == {TEXT}


# --- formats -------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [picture, deep])
def test_a_png_holds_all(tmp_path, make):
    assert there_and_back(make(boxes=ALL), ".png", tmp_path) == (ALL, [])
    srgb = {COLOUR: SRGB, RESOLUTION: b"none 3 2"}
    assert there_and_back(make(boxes=srgb), ".png", tmp_path) == (srgb, [])


def test_what_a_png_holds_is_read_from_its_own_chunks(tmp_path):
    def chunks():
        yield b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
        yield b"cICP", b"\x09\x10\0\1"
        yield b"bKGD", b"\0\0"
        yield b"tEXt", b"Title\0caf\xe9"
        yield b"zTXt", b"Packed\0\0" + zlib.compress(b"text")
        yield b"iTXt", "Other\0\0\0de\0Anderes\0\u00fc".encode()
        yield b"tIME", b"\x07\xe4\1\1\1\1\1"
        yield b"IDAT", zlib.compress(b"\0\x55")
        yield b"iTXt", b"Last\0\1\0\0\0" + zlib.compress(b"end")
        yield b"IEND", b""

    stream, said = io.BytesIO(), []
    pypng.write_chunks(stream, chunks())
    found = boxes_of(read_image(stream, said.append))
    text = {"Title": "café", "Packed": "text", "Other": "ü", "Last": "end"}
    assert metadata.texts(found) == text
    assert found[COLOUR] == b"cICP\4\x09\x10\0\1"
    assert said == ["the input: left out is bKGD, tIME, the language of text"]


def without(*kinds, **changes):
    return {kind: content for kind, content in ALL.items() if kind not in kinds}


@pytest.mark.parametrize(
    ("suffix", "kept", "sentence"),
    [
        (".jpg", (ICC, EXIF, XMP, IPTC, TEXT, RESOLUTION), "colour signalling, text"),
        (".tif", (ICC, EXIF, XMP, IPTC, RESOLUTION), "colour signalling, text"),
        (".webp", (ICC, EXIF, XMP), "colour signalling, IPTC, text, resolution"),
        (".avif", (ICC, EXIF, XMP), "colour signalling, IPTC, text, resolution"),
        (".bmp", (RESOLUTION,), "ICC profile, colour signalling, EXIF, XMP, IPTC, text"),
        (".jp2", (TEXT,), "ICC profile, colour signalling, EXIF, XMP, IPTC, text, resolution"),
        (".ppm", (), "ICC profile, colour signalling, EXIF, XMP, IPTC, text, resolution"),
    ],
)
def test_other_formats_hold_what_they_can_and_a_line_says_the_rest(
    tmp_path, suffix, kept, sentence
):
    found, said = there_and_back(picture(boxes=ALL), suffix, tmp_path)
    (line,) = said
    assert line.startswith(f"a: left out is {sentence}, which ")
    assert found.keys() == set(kept)
    for kind in {ICC, XMP, IPTC} & set(kept):
        assert found[kind] == ALL[kind]
    if TEXT in kept:
        assert metadata.texts(found) == {"Comment": "\u4e16"}
    if RESOLUTION in kept:
        unit, *numbers = metadata.resolution(found)
        dpi = [float(each / unit) for each in numbers]
        assert dpi == pytest.approx([72.009, 35.992], abs=0.5 if suffix == ".jpg" else 1e-3)
    if EXIF in kept:
        expected, tags = dict(read_exif(ALL[EXIF])), dict(read_exif(found[EXIF]))
        if suffix == ".tif":  # what Pillow reads of it is turned
            del expected[ExifTags.Base.Orientation]
        assert tags == expected


def test_what_says_nothing_of_the_colours_is_left_out_without_a_word(tmp_path):
    assert there_and_back(picture(boxes={COLOUR: SRGB}), ".jpg", tmp_path)[1] == []


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
@pytest.mark.parametrize("mode", ["P", "1", "L", "RGBA"])
def test_metadata_do_not_depend_on_the_mode(tmp_path, suffix, mode):
    if mode == "RGBA" and suffix == ".jpg":
        return
    image = picture("RGBA" if mode == "RGBA" else "RGB").convert(mode)
    image.info |= metadata.to_info({ICC: b"profile", XMP: XML})
    assert there_and_back(image, suffix, tmp_path)[0].items() >= {ICC: b"profile", XMP: XML}.items()
    with Image.open(tmp_path / f"a{suffix}") as back:
        assert back.mode == mode or suffix == ".jpg"


def test_exif_that_says_how_samples_lie_does_not_mislead_a_tiff(tmp_path):
    tags = read_exif(exif(1))
    tags[262], tags[256], tags[259] = 6, 4000, 7  # as cameras write them
    image = picture(boxes={EXIF: tags.tobytes().removeprefix(b"Exif\0\0")})
    write_image(image, tmp_path / "a.tif")
    again = read_image(tmp_path / "a.tif")
    assert np.array_equal(again, image)
    assert again.getexif()[ExifTags.Base.Make] == "maker"


@pytest.mark.parametrize("suffix", [".tif", ".avif"])
def test_damaged_exif_does_not_keep_a_file_from_being_written(tmp_path, suffix):
    found, said = there_and_back(picture(boxes={EXIF: b"damaged", XMP: XML}), suffix, tmp_path)
    assert found == {XMP: XML}
    (line,) = said
    assert line.startswith("a: left out is EXIF, which ")


def test_segments_of_a_jpeg_that_are_left_out_are_named(tmp_path):
    def segment(number, content):
        return bytes([0xFF, 0xE0 + number]) + struct.pack(">H", len(content) + 2) + content

    extra = segment(1, b"http://ns.adobe.com/xmp/extension/\0...") + segment(2, b"FPXR\0..")
    extra += segment(13, b"Photoshop 3.0\x008BIM\4\x0c\0\0\0\0\0\2xx") + segment(9, b"\1\2\3")
    picture().save(tmp_path / "a.jpg", extra=extra)
    said = []
    read_image(tmp_path / "a.jpg", said.append)
    names = "http://ns.adobe.com/xmp/extension/, FPXR, APP9, Photoshop's resources"
    assert said == [f"{tmp_path / 'a.jpg'}: left out is {names}"]


@pytest.mark.parametrize("resource", [True, False])
def test_iptc_of_a_tiff_is_taken(tmp_path, resource):
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    record = RECORD + b"\0"
    tags = ImageFileDirectory_v2()
    if resource:
        tags[34377] = metadata.iptc_resource(record)
        tags.tagtype[34377] = 1
    else:
        tags[33723] = record
        tags.tagtype[33723] = 7
    picture().save(tmp_path / "a.tif", tiffinfo=tags)
    assert boxes_of(read_image(tmp_path / "a.tif"))[IPTC] == record


def test_too_much_metadata_has_a_sentence(monkeypatch):
    monkeypatch.setattr(container, "MAX_METADATA", 100)
    image = picture(boxes={XMP: bytes(101)})
    with pytest.raises(DiffcodecError, match="too large to be kept: strip them"):
        diffcodec.encode(image)
    assert diffcodec.encode(image, strip=True)


# --- stripping -----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(1, 9))
def test_stripping_keeps_colours_and_which_way_is_up(number):
    image = picture(boxes=ALL | {EXIF: exif(number)})
    found = boxes_of(diffcodec.decode(diffcodec.encode(image, strip=True)))
    expected = {ICC: ALL[ICC], COLOUR: ALL[COLOUR]}
    if number == 1:
        assert found == expected
        return
    assert found.items() >= expected.items()
    assert dict(read_exif(found[EXIF])) == {ExifTags.Base.Orientation: number}
    assert len(found) == 3


def test_stripping_keeps_a_palette():
    image = picture().convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    image.info["xmp"] = XML
    found = container.read(diffcodec.encode(image, strip=True)).boxes
    assert found.keys() == {PALETTE}


def test_the_command_line_strips(folder):
    write_image(picture(boxes=ALL), Path("a.png"))
    assert run("encode", "a.png", "--strip").exit_code == 0
    assert container.read(Path("a.dfc").read_bytes()).boxes.keys() == {ICC, COLOUR, EXIF}
    assert run("encode", "a.png", "--strip", "--method", "bits-back", "-o", "s").exit_code == 2


def test_lines_on_metadata_go_to_standard_error(folder):
    Path("in").mkdir()
    write_image(picture(boxes=ALL), Path("in/a.png"))
    run("encode", "in/a.png", "-o", "a.dfc")
    result = run("decode", "a.dfc", "-o", "b.bmp")
    words = "ICC profile, colour signalling, EXIF, XMP, IPTC, text, which BMP does not hold"
    assert result.stderr == f"diffcodec: b.bmp: left out is {words}\n"
    result = run("decode", "a.dfc", "-o", "b.png")
    assert (result.exit_code, result.stderr) == (0, "")
    assert boxes_of(read_image(Path("b.png"))) == ALL


# --- upright -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(1, 9))
def test_pictures_are_turned_as_pillow_turns_them(number):
    from PIL import ImageOps

    boxes = {EXIF: exif(number)}
    image = picture(boxes=boxes)
    turned = orientation.upright(image)
    assert np.array_equal(turned, ImageOps.exif_transpose(image))
    assert orientation.upright(turned).tobytes() == turned.tobytes()
    wide = DeepImage(np.asarray(image).astype(np.uint16), image.info)
    turned_wide = orientation.upright(wide)
    assert np.array_equal(turned_wide.pixels, turned)
    assert np.array_equal(orientation.upright(turned_wide).pixels, turned)


def test_orientation_in_xmp_counts():
    packet = b'<rdf:Description tiff:Orientation="6"/>'
    assert orientation.orientation({XMP: packet}) == 6
    assert orientation.orientation({XMP: packet, EXIF: exif(3)}) == 3
    assert orientation.orientation({EXIF: exif(77)}) == 1


def test_what_decoding_gives_is_not_turned():
    image = picture(boxes={EXIF: exif(6)})
    again = diffcodec.decode(diffcodec.encode(image))
    assert again.size == (8, 6)
    assert again.getexif()[ExifTags.Base.Orientation] == 6


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".html"])
def test_previews_are_upright(folder, suffix):
    from diffcodec.cli import viewer

    image = picture(boxes={EXIF: exif(6)}, size=(40, 10))
    data = diffcodec.encode(image)
    assert {frame.image.size for frame in viewer.frames(data)} == {(10, 40)}
    viewer.write(data, Path(f"x{suffix}"))
    if suffix == ".html":
        assert '"width": 10, "height": 40' in Path("x.html").read_text()
    else:
        with Image.open(f"x{suffix}") as shown:
            assert not shown.getexif()
            if suffix != ".png":
                assert shown.size == (10, 40)


@pytest.mark.parametrize("make", [picture, deep])
def test_live_pictures_are_upright(folder, make):
    image = make(boxes={EXIF: exif(6)})
    Path("a.dfc").write_bytes(diffcodec.encode(image))
    result = run("decode", "a.dfc", "--live", "b.png")
    assert result.exit_code == 0
    shown = read_image(Path("b.png"))
    assert (shown.width, shown.height) == (6, 8)
    assert orientation.orientation(boxes_of(shown)) == 1


def test_fractions_are_those_of_the_format():
    assert metadata.resolution({RESOLUTION: b"inch 145/2 300"}) == (
        Fraction(1),
        Fraction(145, 2),
        Fraction(300),
    )
    for content in (
        b"inch 1/0 1",
        b"foot 1 1",
        b"inch 1",
        b"inch 1e9 1",
        b"inch 1 1 ",
        b"inch 0 1",
    ):
        assert metadata.resolution({RESOLUTION: content}) is None
