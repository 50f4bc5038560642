"""Pictures through Pillow: modes, alpha, depths, ICC, EXIF, and writing without loss."""

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import png as pypng
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import diffcodec
from diffcodec import container
from diffcodec.errors import ImageError
from diffcodec.pictures.images import (
    MODES,
    DeepImage,
    from_planes,
    metadata,
    palette,
    to_planes,
)
from diffcodec.pictures.reading import read_image
from diffcodec.pictures.writing import write_atomically, write_image

ICC = b"an ICC profile, as far as a container can tell"


def random_planes(mode: str, width: int, height: int, seed: int = 0) -> np.ndarray:
    shape = (len(mode), height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def boxes(icc=b"", exif=b""):
    found = {container.ICC: icc, container.EXIF: exif}
    return {kind: content for kind, content in found.items() if content}


def exif_block(orientation: int = 6) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes().removeprefix(b"Exif\0\0")


def png(width: int, height: int, depth: int, colour: int, rows: bytes, trns: bytes = b"") -> bytes:
    """A PNG of any kind, also of those that Pillow does not write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
        + (chunk(b"tRNS", trns) if trns else b"")
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@given(
    mode=st.sampled_from(MODES),
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    seed=st.integers(0, 2**32),
    icc=st.binary(max_size=50),
    exif=st.binary(max_size=50),
)
def test_planes_and_metadata_survive_a_picture(mode, width, height, seed, icc, exif):
    planes = random_planes(mode, width, height, seed)
    image = from_planes(mode, planes, boxes(icc, exif))
    assert (image.mode, image.size) == (mode, (width, height))
    found_mode, found = to_planes(image)
    assert found_mode == mode
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, planes)
    assert metadata(image) == boxes(icc, exif)


def test_the_picture_owns_its_pixels():
    planes = random_planes("L", 5, 4)
    image = from_planes("L", planes)
    before = image.tobytes()
    planes += 1
    assert image.tobytes() == before


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".jp2", ".bmp", ".ppm", ".PNG", ""])
def test_a_lossless_format_keeps_every_sample_or_refuses(tmp_path, mode, suffix):
    planes = random_planes(mode, 24, 17)
    path = tmp_path / f"picture{suffix}"
    try:
        write_image(from_planes(mode, planes), path)
    except ImageError:
        assert mode.endswith("A"), "every one of these formats holds opaque pictures"
        assert suffix in (".bmp", ".ppm")
        assert not path.exists()
        return
    channels = [0, 1, 2, 3] if mode == "RGBA" else [0, 0, 0, 1] if mode == "LA" else [0, 1, 2]
    if mode == "L":
        channels = [0, 0, 0]
    again = read_image(path).convert("RGBA" if mode.endswith("A") else "RGB")
    np.testing.assert_array_equal(np.moveaxis(np.asarray(again), -1, 0), planes[channels])


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".jpg", ".avif"])
def test_icc_survives_the_file_formats_that_hold_it(tmp_path, suffix):
    path = tmp_path / f"picture{suffix}"
    write_image(from_planes("RGB", random_planes("RGB", 24, 17), boxes(ICC)), path)
    assert metadata(read_image(path)) == boxes(ICC)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg"])
def test_exif_survives_the_file_formats_that_hold_it(tmp_path, suffix):
    path = tmp_path / f"picture{suffix}"
    write_image(from_planes("RGB", random_planes("RGB", 24, 17), boxes(b"", exif_block())), path)
    image = read_image(path)
    assert image.size == (24, 17), "the orientation is a note, not applied"
    assert metadata(image) == boxes(b"", exif_block())
    assert image.getexif()[0x0112] == 6


def test_no_metadata_is_empty_bytes():
    assert metadata(Image.new("RGB", (2, 2))) == {}


def test_streams_are_read_and_written_as_png():
    image = from_planes("RGBA", random_planes("RGBA", 5, 3), boxes(ICC))
    stream = io.BytesIO()
    write_image(image, stream)
    assert stream.getvalue().startswith(b"\x89PNG")
    stream.seek(0)
    again = read_image(stream)
    assert again.tobytes() == image.tobytes()
    assert metadata(again) == boxes(ICC)


def test_a_path_may_be_text(tmp_path):
    path = str(tmp_path / "picture.png")
    picture = Image.new("RGB", (3, 2), (10, 20, 30))
    write_image(picture, path)
    assert read_image(path).tobytes() == picture.tobytes()


def test_bilevel_becomes_grey():
    image = Image.new("1", (9, 2))
    image.putpixel((8, 1), 1)
    mode, planes = to_planes(image)
    assert (mode, planes.sum(), planes[0, 1, 8]) == ("L", 255, 255)


def test_a_palette_becomes_rgb():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    mode, planes = to_planes(image)
    assert mode == "RGB"
    assert planes[:, 0].T.tolist() == [[10, 20, 30], [40, 50, 60]]


@pytest.mark.parametrize("transparency", [1, b"\xff\x00"])
def test_a_palette_with_a_transparent_entry_becomes_rgba(tmp_path, transparency):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "palette.png", transparency=transparency)
    mode, planes = to_planes(read_image(tmp_path / "palette.png"))
    assert mode == "RGBA"
    assert planes[:, 0].T.tolist() == [[10, 20, 30, 255], [40, 50, 60, 0]]


def test_a_palette_that_holds_alpha_becomes_rgba():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 255, 40, 50, 60, 70], "RGBA")
    image.putpixel((1, 0), 1)
    mode, planes = to_planes(image)
    assert mode == "RGBA"
    assert planes[:, 0].T.tolist() == [[10, 20, 30, 255], [40, 50, 60, 70]]


@pytest.mark.parametrize(
    ("depth", "row", "sample", "expected"),
    [
        (1, b"\xa0", 1, [[255, 0], [0, 255], [255, 0], [0, 255]]),
        (2, b"\x1b", 2, [[0, 255], [85, 255], [170, 0], [255, 255]]),
        (4, b"\x05\x6f", 5, [[0, 255], [85, 0], [102, 255], [255, 255]]),
        (8, b"\x00\x05\x60\xff", 5, [[0, 255], [5, 0], [96, 255], [255, 255]]),
    ],
)
@pytest.mark.parametrize("loaded", [True, False])
def test_a_transparent_grey_becomes_an_alpha_plane(depth, row, sample, expected, loaded):
    stream = io.BytesIO(png(4, 1, depth, 0, b"\0" + row, struct.pack(">H", sample)))
    mode, planes = to_planes(read_image(stream) if loaded else Image.open(stream))
    assert mode == "LA"
    assert planes[:, 0].T.tolist() == expected


def test_a_transparent_colour_becomes_an_alpha_plane():
    stream = io.BytesIO(png(2, 1, 8, 2, b"\0\x01\x02\x03\x04\x05\x06", struct.pack(">3H", 4, 5, 6)))
    mode, planes = to_planes(read_image(stream))
    assert mode == "RGBA"
    assert planes[:, 0].T.tolist() == [[1, 2, 3, 255], [4, 5, 6, 0]]


@pytest.mark.parametrize("mode", ["I", "F", "CMYK", "YCbCr", "LAB", "HSV", "RGBX", "PA"])
def test_other_modes_are_refused_with_advice(mode):
    with pytest.raises(ImageError, match=f"mode {mode} .*convert it"):
        to_planes(Image.new(mode, (4, 4)))


SIXTEEN_BITS = {
    "rgb.png": png(1, 1, 16, 2, b"\0" + b"\1\2" * 3),
    "rgba.png": png(1, 1, 16, 6, b"\0" + b"\1\2" * 4),
    "la.png": png(1, 1, 16, 4, b"\0" + b"\1\2" * 2),
    "rgb.ppm": b"P6 1 1 65535\n" + b"\1\2" * 3,
}


@pytest.mark.parametrize("name", SIXTEEN_BITS)
def test_sixteen_bits_are_never_cut_to_eight_in_silence(name):
    data = SIXTEEN_BITS[name]
    with pytest.raises(ImageError, match="16 bits"):
        to_planes(Image.open(io.BytesIO(data)))
    assert to_planes(read_image(io.BytesIO(data)))[1].ravel()[0] == 0x0102


@pytest.mark.parametrize("suffix", [".webp", ".avif", ".jpg", ".bmp"])
def test_grey_of_sixteen_bits_is_never_written_with_eight(tmp_path, suffix):
    grey = from_planes("L", np.full((1, 4, 4), 0x1234, np.uint16))
    with pytest.raises(ImageError, match="cannot write"):
        write_image(grey, tmp_path / f"grey{suffix}")
    assert list(tmp_path.iterdir()) == []


@given(
    mode=st.sampled_from(["LA", "RGB", "RGBA"]),
    width=st.integers(1, 20),
    height=st.integers(1, 20),
    seed=st.integers(0, 2**32),
    icc=st.binary(max_size=50),
    exif=st.binary(max_size=50),
)
@settings(deadline=None)
def test_a_deep_picture_survives_a_png(mode, width, height, seed, icc, exif):
    shape = (len(mode), height, width)
    planes = np.random.default_rng(seed).integers(0, 65536, shape, np.uint16)
    stream = io.BytesIO()
    write_image(from_planes(mode, planes, boxes(icc, exif)), stream)
    again = read_image(stream)
    found_mode, found = to_planes(again)
    assert (again.mode, again.width, again.height) == (found_mode, width, height)
    assert found_mode == mode
    np.testing.assert_array_equal(found, planes)
    assert metadata(again) == boxes(icc, exif)


def test_pillow_reads_what_is_written_of_a_deep_picture():
    stream = io.BytesIO()
    planes = random_planes("RGB", 5, 3).astype(np.uint16) << 8
    write_image(from_planes("RGB", planes, boxes(ICC, exif_block())), stream)
    with Image.open(stream) as image:
        np.testing.assert_array_equal(np.moveaxis(np.asarray(image), -1, 0), planes >> 8)
        assert metadata(image) == boxes(ICC, exif_block())
        assert image.getexif()[0x0112] == 6


@pytest.mark.parametrize("interlace", [False, True])
def test_a_deep_png_of_any_making_is_read(interlace):
    pixels = np.random.default_rng(0).integers(0, 65536, (11, 13, 3), np.uint16)
    stream = io.BytesIO()
    writer = pypng.Writer(13, 11, greyscale=False, bitdepth=16, interlace=interlace)
    writer.write(stream, pixels.reshape(11, -1))
    stream.seek(0)
    np.testing.assert_array_equal(read_image(stream).pixels, pixels)


@pytest.mark.parametrize(
    ("colour", "row", "trns", "expected"),
    [
        (0, (7, 8), (8,), [[7, 65535], [8, 0]]),
        (2, (1, 2, 3, 1, 2, 4), (1, 2, 3), [[1, 2, 3, 0], [1, 2, 4, 65535]]),
    ],
)
def test_a_transparent_deep_colour_becomes_an_alpha_plane(colour, row, trns, expected):
    row, trns = (struct.pack(f">{len(numbers)}H", *numbers) for numbers in (row, trns))
    image = read_image(io.BytesIO(png(2, 1, 16, colour, b"\0" + row, trns)))
    assert image.pixels[0].tolist() == expected


@given(position=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
@settings(deadline=None)
def test_a_damaged_deep_picture_is_read_or_refused_but_never_crashes(position, value):
    stream = io.BytesIO()
    write_image(
        from_planes("RGB", np.full((3, 5, 6), 999, np.uint16), boxes(ICC, exif_block())), stream
    )
    data = bytearray(stream.getvalue())
    data[int(position * len(data))] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read_image(io.BytesIO(bytes(data)))
        except ImageError as error:
            assert str(error)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"cannot read .*gone\.png: No such file"):
        read_image(tmp_path / "gone.png")


def test_a_folder_is_no_picture(tmp_path):
    with pytest.raises(ImageError, match="cannot read"):
        read_image(tmp_path)


@pytest.mark.parametrize("data", [b"", b"just text\n", b"\0" * 100])
def test_other_files_are_no_pictures(tmp_path, data):
    path = tmp_path / "notes.png"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"notes\.png is not a picture"):
        read_image(path)


def photo_bytes(format: str) -> bytes:
    stream = io.BytesIO()
    from_planes("RGB", random_planes("RGB", 24, 17)).save(stream, format)
    return stream.getvalue()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_a_truncated_picture_is_an_error(format):
    data = photo_bytes(format)
    with pytest.raises(ImageError):
        read_image(io.BytesIO(data[: len(data) // 2]))


def test_a_truncated_picture_that_was_only_opened_is_an_error():
    data = photo_bytes("PNG")
    image = Image.open(io.BytesIO(data[: len(data) // 2]))
    with pytest.raises(ImageError, match="damaged"):
        to_planes(image)


@given(
    format=st.sampled_from(["PNG", "GIF", "BMP", "TIFF"]),
    position=st.floats(0, 1, exclude_max=True),
    value=st.integers(0, 255),
)
def test_a_damaged_picture_is_read_or_refused_but_never_crashes(format, position, value):
    data = bytearray(photo_bytes(format))
    data[int(position * len(data))] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on what it could mend
        try:
            mode, planes = to_planes(read_image(io.BytesIO(bytes(data))))
        except ImageError as error:
            assert str(error)
        else:
            assert len(mode) == len(planes)


def test_an_absurd_size_is_refused_before_it_is_allocated():
    with pytest.raises(ImageError, match="absurd size"):
        read_image(io.BytesIO(png(60000, 60000, 8, 2, b"")))


def test_a_large_photograph_is_read_without_a_warning(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(io.BytesIO(photo_bytes("PNG"))).size == (24, 17)


def test_an_unknown_suffix_is_refused(tmp_path):
    with pytest.raises(ImageError, match=r"suffix \.xyz is unknown.*\.png"):
        write_image(Image.new("L", (2, 2)), tmp_path / "out.xyz")
    assert list(tmp_path.iterdir()) == []


def test_a_format_that_cannot_hold_the_picture_leaves_the_file_alone(tmp_path):
    path = tmp_path / "out.jpg"
    path.write_bytes(b"precious")
    with pytest.raises(
        ImageError, match=r"cannot write .*out\.jpg: JPEG has no alpha; write \.png or \.tif"
    ):
        write_image(Image.new("RGBA", (2, 2)), path)
    assert path.read_bytes() == b"precious"


def test_a_file_is_written_and_replaced(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_permissions_follow_the_old_file_or_the_umask(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    write_atomically(tmp_path / "new", b"")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "new").chmod(0o640)
    write_atomically(tmp_path / "new", b"again")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.name == "nt", reason="symbolic links")
def test_a_symbolic_link_stays_one(tmp_path):
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="no such device")
def test_a_device_is_written_to_and_not_replaced(monkeypatch):
    monkeypatch.setattr(os, "fsync", refuse)  # the path of regular files; it would fail here
    write_atomically(Path("/dev/null"), b"data")
    assert Path("/dev/null").is_char_device()


def refuse(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("target", [(os, "fsync"), (Path, "replace")])
@pytest.mark.parametrize("old", [b"precious", None])
def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch, target, old):
    path = tmp_path / "out.dfc"
    if old is not None:
        path.write_bytes(old)
    monkeypatch.setattr(*target, refuse)
    with pytest.raises(ImageError, match=r"cannot write .*out\.dfc: No space left on device"):
        write_atomically(path, b"new")
    assert list(tmp_path.iterdir()) == ([] if old is None else [path])
    assert old is None or path.read_bytes() == old


def test_an_interrupted_write_leaves_no_temporary(tmp_path, monkeypatch):
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "out", b"new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["missing/out.png", "file/out.png", ""])
def test_a_place_where_nothing_can_be_written_is_named(tmp_path, place):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ImageError, match="cannot write"):
        write_atomically(tmp_path / place, b"data")


# --- palettes and bilevel pictures ---------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"", b"P", b"P12", b"P" + bytes(257 * 3), b"Q" + bytes(3), b"1", b"11"]
)
def test_a_box_that_does_not_fit_its_picture_is_left_out(content):
    planes = np.array([[[1, 2]]] * 3, np.uint8)
    picture = from_planes("RGB", planes, {container.PALETTE: content})
    assert picture.mode == "RGB"
    assert np.array_equal(to_planes(picture)[1], planes)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".webp", ".jp2", ".ppm", ".jpg"])
@pytest.mark.parametrize("mode", ["1", "P"])
def test_every_format_takes_few_colours(tmp_path, mode, suffix):
    image = Image.new(mode, (16, 16))
    if mode == "P":
        image.putpalette([255, 255, 255, 0, 0, 0])
    image.paste(1, (0, 0, 16, 8))
    write_image(image, tmp_path / f"a{suffix}")
    with Image.open(tmp_path / f"a{suffix}") as back:
        assert back.mode == mode or suffix not in (".png", ".tif")
        difference = np.asarray(back.convert("L"), int) - np.asarray(image.convert("L"))
        assert np.abs(difference).max() < 9


def test_a_palette_keeps_entries_that_are_not_in_use():
    image = Image.fromarray(np.array([[0, 3]], np.uint8), "P")
    image.putpalette([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
    _, planes = to_planes(image)
    back = from_planes("RGB", planes, palette(image, planes))
    assert back.mode == "P"
    assert np.array_equal(back, image)
    assert back.getpalette()[:12] == image.getpalette()[:12]


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1"])
def test_a_lean_picture_is_coded_alike(mode):
    image = Image.linear_gradient("L").resize((20, 9)).convert(mode)
    image.info["dpi"], image.info["icc_profile"] = (72.0, 144.0), b"a profile"
    lean = diffcodec.lean(image)
    assert isinstance(lean, DeepImage) == (mode in MODES)
    assert diffcodec.encode(lean) == diffcodec.encode(image)
    if mode in MODES:
        assert np.shares_memory(to_planes(lean)[1], lean.pixels)


def test_a_picture_with_a_transparent_colour_is_left_as_it_is():
    image = Image.new("RGB", (4, 3))
    image.info["transparency"] = (0, 0, 0)
    assert diffcodec.lean(image) is image
