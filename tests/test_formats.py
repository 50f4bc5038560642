"""What each format of picture files can hold, told before the work; what of a file is not taken."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import diffcodec
from diffcodec import container, stored
from diffcodec.cli import main
from diffcodec.container import EXIF, IPTC, XMP
from diffcodec.errors import ImageError
from diffcodec.pictures import formats
from diffcodec.pictures.images import DeepImage, from_planes, metadata, to_planes
from diffcodec.pictures.reading import read_image
from diffcodec.pictures.writing import write_image


def run(*arguments, stdin=None):
    result = CliRunner().invoke(main, arguments, input=stdin)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def picture(mode="RGB", size=(8, 6), boxes=None):
    planes = np.zeros((len(mode), *size[::-1]), np.uint8)
    return from_planes(mode, planes, boxes or {})


# --- what a target cannot hold -------------------------------------------------------------------

REFUSALS = [
    (picture("RGBA"), "a.jpg", "JPEG has no alpha; write .png or .tif or .webp"),
    (picture("LA"), "a.ppm", "PPM has no alpha; write .png or .tif or .webp"),
    (picture("LA"), "a.bmp", "BMP has no alpha; write .png or .tif or .webp"),
    (picture(size=(17000, 4)), "a.webp", "WEBP has at most 16,383 pixels a side, not 17,000"),
    (picture("L", size=(1, 65501)), "a.jpg", "JPEG has at most 65,500 pixels a side, not 65,501"),
    (picture("L", size=(65537, 1)), "a.avif", "AVIF has at most 65,536 pixels a side, not 65,537"),
    (picture(boxes={EXIF: bytes(65528)}), "a.jpg", "JPEG has at most 65,527 bytes of EXIF"),
    (picture(boxes={XMP: bytes(65505)}), "a.jpg", "JPEG has at most 65,504 bytes of XMP"),
    (picture(boxes={IPTC: bytes(65507)}), "a.jpg", "JPEG has at most 65,506 bytes of IPTC"),
    (np.zeros((3, 3), np.uint16), "a.webp", "WEBP has no grey of 16 bits; write .png or .tif"),
    (np.zeros((3, 3, 3), np.uint16), "a.tif", "TIFF has no colours of 16 bits; write .png or .ppm"),
    (np.zeros((3, 3, 2), np.uint16), "a.ppm", "PPM has no alpha of 16 bits; write .png"),
]


def stored_file(image):
    """The file of a picture's samples as they are, which takes no time to make."""
    mode, planes = to_planes(image)
    header = container.Header(
        codec=container.STORED,
        mode=mode,
        width=planes.shape[2],
        height=planes.shape[1],
        model=b"",
        checksum=container.checksum(planes),
        stream_bytes=0,
        lossless=True,
        depth=8 * planes.itemsize,
    )
    boxes = {} if isinstance(image, np.ndarray) else metadata(image)
    return container.write(header, stored.encode(planes), boxes)


@pytest.mark.parametrize(("image", "name", "sentence"), REFUSALS)
def test_what_a_target_cannot_hold_is_refused_before_the_work(
    folder, monkeypatch, image, name, sentence
):
    Path("in").mkdir()
    Path("in/a.dfc").write_bytes(stored_file(image))
    original = diffcodec.decode_picture(Path("in/a.dfc").read_bytes())
    monkeypatch.setitem(vars(diffcodec), "decode_picture", None)
    result = run("decode", "in/a.dfc", "-o", name)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"diffcodec: cannot write {name}: {sentence}")
    assert "; write ." in result.stderr
    assert not Path(name).exists()
    with pytest.raises(ImageError, match="cannot write") as told:
        write_image(original, Path(name))
    assert str(told.value) == result.stderr.removeprefix("diffcodec: ").rstrip()


def test_many_files_are_checked_before_the_work_too(folder, monkeypatch):
    from diffcodec.cli import batch

    Path("a.dfc").write_bytes(diffcodec.encode(picture("RGBA")))
    monkeypatch.setitem(vars(diffcodec), "decode_picture", None)
    with pytest.raises(ImageError, match="JPEG has no alpha"):
        batch.decode_file(batch.Task(Path("a.dfc"), Path("b.jpg")))


def test_a_part_of_a_wide_picture_is_not_refused_for_the_whole():
    from diffcodec.cli import batch

    found = diffcodec.info(stored_file(picture(size=(17000, 4))), rungs=False)
    for options in ({"region": (0, 0, 8, 4)}, {"size": 100}):
        batch.check_target(Path("a.webp"), found, options)
    with pytest.raises(ImageError, match="at most 16,383"):
        batch.check_target(Path("a.webp"), found, {"region": None, "size": None})


@pytest.mark.parametrize(
    ("image", "name"),
    [
        (picture(size=(16383, 4)), "a.webp"),
        (picture("L", size=(1, 65500)), "a.jpg"),
        (picture("L", size=(17000, 1)), "a.png"),
        (picture("L", size=(66000, 1)), "a.tif"),
        (picture("L", size=(66000, 1)), "a.bmp"),
        (picture("L", size=(66000, 1)), "a.ppm"),
        (picture("L", size=(66000, 1)), "a.jp2"),
        (picture(boxes={EXIF: bytes(65527)}), "a.jpg"),
        (picture(boxes={XMP: bytes(65504)}), "a.jpg"),
        (picture(boxes={IPTC: bytes(65506)}), "a.jpg"),
        (picture("RGBA"), "a.avif"),
    ],
)
def test_what_a_target_can_just_hold_is_written(tmp_path, image, name):
    write_image(image, tmp_path / name)
    assert read_image(tmp_path / name).size == image.size


def test_a_way_out_is_always_named():
    for format in {id(each): each for each in map(formats.of_suffix, map(Path, SUFFIXES))}.values():
        for mode in ("L", "LA", "RGB", "RGBA"):
            for depth in (8, 16):
                try:
                    formats.check(format, "a", mode, depth, (2**27, 1), {})
                except ImageError as error:
                    assert "; write ." in str(error)


SUFFIXES = ["a.png", "a.tif", "a.webp", "a.jpg", "a.bmp", "a.ppm", "a.jp2", "a.avif"]


# --- arrays --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["<u2", ">u2", "<u1", ">u1", "=u2"])
@pytest.mark.parametrize("view", [np.s_[:], np.s_[::-1], np.s_[:, ::-2], np.s_[1:, 2:]])
def test_arrays_of_any_byte_order_and_strides(kind, view):
    for shape in ((7, 9), (7, 9, 3)):
        array = (np.arange(np.prod(shape)) * 311 % 256).reshape(shape).astype(kind)[view]
        again = diffcodec.decode_array(diffcodec.encode(array, process="drawing"))
        assert np.array_equal(again, array)
        assert again.dtype == array.dtype.newbyteorder("=")
        assert to_planes(array)[1].dtype.isnative, "torch takes no other"


def test_a_transposed_array():
    array = np.asfortranarray(np.arange(60, dtype=np.uint8).reshape(4, 5, 3)).transpose(1, 0, 2)
    assert np.array_equal(diffcodec.decode_array(diffcodec.encode(array)), array)


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (bool, r"array.astype\(numpy.uint8\) \* 255"),
        *((kind, r"array.astype\(numpy.uint16\) if to 65535") for kind in "bhilqIL"),
        *((kind, r"\(array \* 255\).round\(\).astype\(numpy.uint8\)") for kind in "efd"),
        ("complex64", "it has no samples"),
        (object, "it has no samples"),
    ],
)
def test_arrays_of_other_kinds_are_refused_with_the_way_out(kind, sentence):
    with pytest.raises(
        ImageError, match=f"must be uint8 or uint16, not {np.dtype(kind)}.*{sentence}"
    ):
        diffcodec.encode(np.zeros((4, 4), kind))


def test_arrays_of_other_shapes_are_refused():
    for shape in ((4,), (1, 4, 4, 3)):
        with pytest.raises(ImageError, match=r"must be \[H, W\]"):
            diffcodec.encode(np.zeros(shape, np.uint8))


# --- depths --------------------------------------------------------------------------------------


def planes_of(data, said=None):
    return to_planes(read_image(io.BytesIO(data), (said if said is not None else []).append))[1]


@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("plain", [False, True])
def test_netpbm_of_16_bits(bands, plain):
    samples = np.random.default_rng(0).integers(0, 65536, (4, 5, bands))
    magic = {(1, False): b"P5", (3, False): b"P6", (1, True): b"P2", (3, True): b"P3"}
    body = samples.astype(">u2").tobytes()
    if plain:
        body = b"# a comment 7\n" + " ".join(map(str, samples.ravel())).encode()
    data = magic[bands, plain] + b"\n# made\n5 4\n65535\n" + body
    said = []
    assert np.array_equal(planes_of(data, said), np.moveaxis(samples, -1, 0))
    assert said == []
    for damaged in (data.rsplit(b" ", 1)[0] if plain else data[:-1], data[: len(data) // 2]):
        with pytest.raises(ImageError, match="damaged"):
            read_image(io.BytesIO(damaged))


@pytest.mark.parametrize(("maximum", "to"), [(1, 255), (100, 255), (1023, 65535), (4095, 65535)])
@pytest.mark.parametrize("plain", [False, True])
def test_other_maxima_are_scaled_and_a_line_says_so(maximum, to, plain):
    samples = np.arange(12).reshape(3, 4) * maximum // 11
    body = samples.astype("u1" if maximum < 256 else ">u2").tobytes()
    if plain:
        body = " ".join(map(str, samples.ravel())).encode()
    said = []
    data = (b"P2" if plain else b"P5") + f"\n4 3\n{maximum}\n".encode() + body
    assert np.array_equal(planes_of(data, said)[0], np.round(samples * to / maximum))
    assert said == [f"the input has samples from 0 to {maximum:,}: they are scaled to {to:,}"]


def test_samples_above_their_maximum_are_damage():
    with pytest.raises(ImageError, match="damaged: a sample is above 1023"):
        read_image(io.BytesIO(b"P5 1 1 1023\n\xff\xff"))


def test_a_picture_of_integers_has_a_way_out():
    data = b"P5 2 1 65535\n\1\2\3\4"
    with pytest.raises(ImageError, match=r"numpy.asarray\(image\).astype\(numpy.uint16\)"):
        diffcodec.encode(Image.open(io.BytesIO(data)))
    way_out = np.asarray(Image.open(io.BytesIO(data))).astype(np.uint16)
    assert np.array_equal(to_planes(way_out)[1], planes_of(data))


def tiff(samples, bits, photometric=1, order="<", sample_format=1, colours=1):
    """An uncompressed TIFF file of packed samples."""
    height, width = samples.shape[:2]
    if bits >= 8:
        body = samples.astype(f"{order}u{bits // 8}").tobytes()
    else:
        each = samples[..., None] >> np.arange(bits - 1, -1, -1) & 1
        body = np.packbits(each.reshape(height, -1), axis=1).tobytes()
    tags = [
        *((256, 3, width), (257, 3, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric)),
        *((273, 4, 8), (277, 3, colours), (278, 3, height), (279, 4, len(body))),
        (339, 3, sample_format),
    ]
    start = 8 + len(body) + len(body) % 2
    directory = struct.pack(f"{order}H", len(tags))
    for tag, kind, value in tags:
        packed = struct.pack(f"{order}{'H' if kind == 3 else 'I'}", value).ljust(4, b"\0")
        directory += struct.pack(f"{order}HHI", tag, kind, 1) + packed
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    return head + body + bytes(len(body) % 2) + directory + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_tiffs_have_the_right_samples(order, photometric, bits):
    samples = np.random.default_rng(bits).integers(0, 1 << bits, (5, 8))
    data = tiff(samples, bits, photometric, order)
    most = (1 << bits) - 1
    meant = (samples if photometric else most - samples) * ((65535 if bits == 16 else 255) // most)
    try:
        opened = Image.open(io.BytesIO(data))
    except OSError:  # Pillow knows none of 16 bits, white is zero, in this order
        assert (order, photometric, bits) == (">", 0, 16)
        with pytest.raises(ImageError, match="in a format that Pillow reads"):
            read_image(io.BytesIO(data))
        return
    assert np.array_equal(planes_of(data)[0], meant)
    assert np.array_equal(to_planes(opened)[1][0], meant)
    stream = io.BytesIO()
    Image.open(io.BytesIO(data)).save(stream, "DFC", process="drawing")
    assert np.array_equal(diffcodec.decode_array(stream.getvalue()), meant)


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiffs_have_the_right_samples(photometric, compression):
    samples = np.random.default_rng(0).integers(0, 256, (5, 8))
    stream = io.BytesIO()
    original = Image.fromarray(samples.astype(np.uint8))
    original.save(stream, "TIFF", compression=compression, tiffinfo={262: photometric})
    assert np.array_equal(planes_of(stream.getvalue())[0], samples)


def test_tiffs_that_pillow_would_change_are_refused_with_the_way_out():
    colours = np.arange(60).reshape(4, 5, 3)
    for order in "<>":
        with pytest.raises(ImageError, match=r"colours of 16 bits.* PNG or PPM file"):
            read_image(io.BytesIO(tiff(colours, 16, 2, order, colours=3)))
    grey = np.arange(20).reshape(4, 5)
    with pytest.raises(ImageError, match="below zero: add 128"):
        read_image(io.BytesIO(tiff(grey, 8, sample_format=2)))
    twelve = tiff(np.arange(32).reshape(4, 8), 4).replace(
        struct.pack("<HHIHH", 258, 3, 1, 4, 0), struct.pack("<HHIHH", 258, 3, 1, 12, 0)
    )
    with pytest.raises(ImageError, match="12 bits: multiply"):
        read_image(io.BytesIO(twelve))


def test_jpeg_2000_with_colours_of_more_bits_is_refused():
    imagecodecs = pytest.importorskip("imagecodecs", reason="imagecodecs is not installed")
    colours = np.arange(16 * 16 * 3, dtype=np.uint16).reshape(16, 16, 3) * 80
    with pytest.raises(ImageError, match="colours of 16 bits"):
        read_image(io.BytesIO(imagecodecs.jpeg2k_encode(colours, level=0)))
    data = imagecodecs.jpeg2k_encode(colours[..., 0], level=0)
    assert np.array_equal(planes_of(data)[0], colours[..., 0])


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_png_of_few_bits(bits):
    from test_images import png

    samples = np.arange(4) * ((1 << bits) - 1) // 3
    row = np.packbits((samples[:, None] >> np.arange(bits - 1, -1, -1) & 1).ravel()).tobytes()
    found = planes_of(png(4, 1, bits, 0, b"\0" + row))
    assert np.array_equal(found[0, 0], samples * (255 // ((1 << bits) - 1)))


def test_a_deep_picture_survives_a_ppm(tmp_path):
    image = DeepImage(np.random.default_rng(0).integers(0, 65536, (4, 5, 3), np.uint16))
    write_image(image, tmp_path / "a.ppm")
    assert np.array_equal(read_image(tmp_path / "a.ppm").pixels, image.pixels)


# --- several pictures in a file ------------------------------------------------------------------


def colour(shade):
    return Image.new("RGB", (9, 7), (shade, 255 - shade, shade // 2))


@pytest.mark.parametrize("suffix", [".mpo", ".gif", ".png", ".webp", ".tif", ".avif"])
def test_the_first_of_several_pictures_is_taken_and_a_line_says_so(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    options = {"lossless": True} if suffix == ".webp" else {}
    colour(10).save(path, save_all=True, append_images=[colour(200), colour(100)], **options)
    said = []
    image = read_image(path, said.append)
    assert said == [f"{path} has 3 frames: the first one is taken"]
    difference = np.asarray(image.convert("RGB"), int) - np.asarray(colour(10))
    assert np.abs(difference).max() < 12


def test_a_gain_map_is_left_out_and_a_line_says_so(tmp_path):
    path = tmp_path / "a.jpg"
    packet = b'<rdf:Description hdrgm:Version="1.0"/>'
    colour(10).save(path, "MPO", save_all=True, append_images=[colour(200)], xmp=packet)
    said = []
    assert read_image(path, said.append).format == "JPEG"
    assert said == [f"{path} has a gain map for brighter screens: it is left out"]


# --- lossy sources -------------------------------------------------------------------------------


def noisy():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8))


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_a_lossless_file_larger_than_a_lossy_source_is_said_to_be(folder, suffix):
    Path("in").mkdir()
    noisy().save(f"in/a{suffix}", quality=20)
    kind = "JPEG" if suffix == ".jpg" else "WEBP"
    for arguments in (("encode", f"in/a{suffix}"), ("encode", "in", "--force")):
        result = run(*arguments)
        times = Path("in/a.dfc").stat().st_size / Path(f"in/a{suffix}").stat().st_size
        sentence = f"in/a{suffix}: the lossless file is {times:.1f} times as large as this {kind}"
        assert result.stderr == f"diffcodec: {sentence}\n"
    result = run("encode", "-", stdin=Path(f"in/a{suffix}").read_bytes())
    assert f"diffcodec: -: the lossless file is {times:.1f} times" in result.stderr


def test_nothing_is_said_where_it_is_smaller_or_lossy_itself(folder):
    Image.new("RGB", (40, 40)).save("a.jpg", quality=100)
    noisy().save("b.jpg", quality=20)
    noisy().save("c.bmp")
    assert run("encode", "a.jpg").stderr == ""
    assert run("encode", "b.jpg", "--max-bytes", "800").stderr == ""
    assert run("encode", "c.bmp").stderr == ""
