"""The command line as a person runs it.

Most tests put a toy codec (zlib behind a header) in place of the real one: they are about
arguments, files and messages. The tests at the end run the real codec on tiny pictures.
"""

import io
import itertools
import json
import os
import struct
import subprocess
import sys
import types
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import diffcodec
from diffcodec import container
from diffcodec.cli import journal, main
from diffcodec.errors import CorruptError, FormatError
from diffcodec.pictures.images import from_planes, metadata, to_planes

HEADER = struct.Struct(">3sHHBI")


@dataclass
class Info:
    width: int
    height: int
    mode: str
    bytes: int
    total_bytes: int
    rungs: list
    depth: int = 8
    process: str = "photo"
    space: str = "JPEG's YCbCr"
    fitted: bool = True
    model: str = "0123abcd"
    checksum: int = 0xBEEF
    lossless: bool = True
    max_error: int | None = 0
    tile: int = 0
    metadata: dict = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return self.bytes == self.total_bytes


class ToyCodec:
    """The API's shape around zlib: a truncated file is a grey picture."""

    def __init__(self) -> None:
        self.calls: list[dict] = []
        self.computing: list[tuple[int | None, str]] = []
        self.processes: list[str] = []

    def encode(
        self,
        image,
        *,
        bpp=None,
        max_bytes=None,
        psnr=None,
        max_error=None,
        process="auto",
        tile=None,
        fit=None,
        rgb=False,
        strip=False,
        model=None,
        progress=None,
        saved=None,
        threads=None,
        device="auto",
    ):
        self.calls.append({"bpp": bpp, "max_bytes": max_bytes, "psnr": psnr})
        self.processes.append(process)
        self.computing.append((threads, device))
        if progress:
            progress(1.0)
        mode, planes = to_planes(image)
        _, height, width = planes.shape
        payload = zlib.compress(planes.tobytes())
        total = HEADER.size + len(payload)
        return HEADER.pack(b"TOY", width, height, len(mode), total) + payload

    def is_set(self, data):
        return False

    def info(self, data, *, rungs=True, model=None, threads=None, device="auto"):
        if not data.startswith(b"TOY"):
            raise FormatError("this is no .dfc file")
        _, width, height, channels, total = HEADER.unpack_from(data)
        ladder = [
            types.SimpleNamespace(rung=rung, bytes=size, bpp=8 * size / width / height)
            for rung, size in ((7, HEADER.size), (0, total))
            if size <= len(data)
        ]
        mode = ("L", "LA", "RGB", "RGBA")[channels - 1]
        return Info(width, height, mode, len(data), total, ladder if rungs else [])

    def decode_picture(
        self,
        data,
        *,
        bpp=None,
        max_bytes=None,
        region=None,
        size=None,
        max_pixels=None,
        show="mean",
        seed=0,
        model=None,
        progress=None,
        threads=None,
        device="auto",
    ):
        self.calls.append({"bpp": bpp, "max_bytes": max_bytes, "show": show, "seed": seed})
        self.computing.append((threads, device))
        if progress:
            progress(1.0)
        return list(self.decode_progressive(data))[-1].picture

    def decode_progressive(
        self,
        source,
        *,
        show="mean",
        seed=0,
        max_pixels=None,
        model=None,
        threads=None,
        device="auto",
    ):
        header = self.info(source)
        shape = (len(header.mode), header.height, header.width)
        grey = from_planes(header.mode, np.full(shape, 128, np.uint8))
        yield types.SimpleNamespace(bytes_used=HEADER.size, rung=7, picture=grey)
        if header.complete:
            try:
                pixels = zlib.decompress(source[HEADER.size :])
            except zlib.error as error:
                raise CorruptError("the pixels do not match their checksum") from error
            planes = np.frombuffer(pixels, np.uint8).reshape(shape)
            image = from_planes(header.mode, planes)
            yield types.SimpleNamespace(bytes_used=len(source), rung=0, picture=image)

    def sample(
        self,
        width,
        height,
        mode="RGB",
        seed=0,
        model=None,
        progress=None,
        threads=None,
        device="auto",
    ):
        self.calls.append({"seed": seed})
        self.computing.append((threads, device))
        progress(1.0)
        return Image.new(mode, (width, height), (seed, seed, seed))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def toy(folder, monkeypatch):
    codec = ToyCodec()
    for name in ("encode", "decode_picture", "decode_progressive", "info", "is_set", "sample"):
        monkeypatch.setitem(vars(diffcodec), name, getattr(codec, name))
    return codec


def run(*arguments: str, stdin: bytes | None = None) -> Result:
    result = CliRunner().invoke(main, arguments, input=stdin)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception  # a traceback is no message
    return result


def refused(result: Result, *words: str, code: int = 1) -> None:
    """The command ended with this code and said these words on standard error only."""
    assert result.exit_code == code
    for word in words:
        assert word in result.stderr
    if code == 1:
        assert result.stderr.startswith("diffcodec: ")
        assert "Traceback" not in result.stderr


def picture(mode: str = "RGB", width: int = 24, height: int = 17) -> Image.Image:
    """A gradient with some noise, so that it is neither trivial nor incompressible."""
    y, x, c = np.mgrid[:height, :width, : len(mode)]
    noise = np.random.default_rng(1).integers(0, 9, y.shape)
    pixels = (5 * x + 7 * y + 30 * c + noise).clip(0, 255).astype(np.uint8)
    return from_planes(mode, np.moveaxis(pixels, -1, 0))


def save(name: str, mode: str = "RGB", **options: object) -> Path:
    path = Path(name)
    picture(mode).save(path, **options)
    return path


def same(path: str, image: Image.Image) -> bool:
    with Image.open(path) as other:
        return (other.mode, other.size, other.tobytes()) == (
            image.mode,
            image.size,
            image.tobytes(),
        )


def contents() -> set[str]:
    """All files but for the journals of batches."""
    found = (path for path in Path().rglob("*") if path.is_file())
    return {str(path) for path in found if path.name != journal.NAME}


# --- encode -------------------------------------------------------------------------------------


def test_encode_writes_beside_the_input_and_reports_one_line(toy):
    Path("photos").mkdir()
    save("photos/a.png")
    result = run("encode", "photos/a.png")
    assert result.exit_code == 0
    data = Path("photos/a.dfc").read_bytes()
    bpp = 8 * len(data) / (24 * 17)
    ratio = 3 * 24 * 17 / len(data)
    (line,) = result.stdout.splitlines()
    assert line.startswith(f"photos/a.dfc: {len(data):,} bytes, {bpp:.3f} bpp, {ratio:.2f}:1, ")
    assert line.endswith(" s")
    assert result.stderr == "", "no bar where there is no terminal"


@pytest.mark.parametrize(
    ("mode", "channels"), [("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4), ("P", 3), ("1", 1)]
)
def test_the_ratio_is_against_the_coded_planes(toy, mode, channels):
    (picture("L").convert(mode) if mode in ("P", "1") else picture(mode)).save("a.png")
    result = run("encode", "a.png")
    ratio = channels * 24 * 17 / Path("a.dfc").stat().st_size
    assert f" {ratio:.2f}:1," in result.stdout


def test_encode_to_a_named_file(toy):
    save("a.png")
    assert run("encode", "a.png", "-o", "other.bin").exit_code == 0
    assert contents() == {"a.png", "other.bin"}


def test_encode_several_inputs_beside_themselves_or_into_a_folder(toy):
    save("a.png")
    save("b.bmp")
    Path("out").mkdir()
    assert len(run("encode", "a.png", "b.bmp").stdout.splitlines()) == 3, "and a summary"
    assert run("encode", "a.png", "b.bmp", "-o", "out").exit_code == 0
    assert run("encode", "a.png", "-o", "out").exit_code == 0
    names = {"a.dfc", "b.dfc"}
    assert contents() == {"a.png", "b.bmp"} | names | {str(Path("out", name)) for name in names}


@pytest.mark.parametrize("output", ["missing", "a.png", "-"])
def test_several_inputs_need_a_folder(toy, output):
    original = save("a.png").read_bytes()
    save("b.png")
    refused(run("encode", "a.png", "b.png", "-o", output), "must be a folder", code=2)
    assert contents() == {"a.png", "b.png"}
    assert Path("a.png").read_bytes() == original


def test_standard_input_is_not_one_of_several(toy):
    save("a.png")
    refused(run("encode", "a.png", "-"), "standard input", code=2)


def test_inputs_that_would_share_an_output_are_refused(toy):
    for name in ("one", "two"):
        Path(name).mkdir()
        save(f"{name}/a.png")
    before = contents()
    names = "one/a.png and two/a.png would both be written to a.png.dfc"
    refused(run("encode", "one/a.png", "two/a.png", "-o", "."), names)
    assert contents() == before


def test_one_bad_input_does_not_stop_the_others(toy):
    save("a.png")
    Path("b.png").write_text("no picture")
    save("c.png")
    result = run("encode", "a.png", "b.png", "missing.png", "c.png")
    refused(result, "b.png is not a picture", "cannot read missing.png: No such file")
    assert len(result.stderr.splitlines()) == 2
    lines = [line.split(":")[0] for line in result.stdout.splitlines()]
    assert lines == ["a.dfc", "c.dfc", "2 done, 2 failed"]
    assert contents() == {"a.png", "b.png", "c.png", "a.dfc", "c.dfc"}


def test_encode_is_a_filter(toy):
    save("a.png")
    result = run("encode", "-", stdin=Path("a.png").read_bytes())
    assert result.exit_code == 0
    assert toy.info(result.stdout_bytes).complete
    assert " bytes, " in result.stderr, "the line must not get into the data"
    assert contents() == {"a.png"}
    assert run("encode", "a.png", "-o", "-").stdout_bytes == result.stdout_bytes
    assert run("encode", "-", "-o", "b.dfc", stdin=Path("a.png").read_bytes()).exit_code == 0
    assert Path("b.dfc").read_bytes() == result.stdout_bytes


def test_standard_input_has_no_name_for_a_folder(toy):
    refused(run("encode", "-", "-o", ".", stdin=b""), "standard input has no name", code=2)


def test_an_empty_standard_input_is_no_picture(toy):
    refused(run("encode", "-", stdin=b""), "is not a picture")


@pytest.mark.parametrize(
    ("option", "value", "name", "passed"),
    [
        ("--bpp", "0.5", "bpp", 0.5),
        ("--max-bytes", "1000", "max_bytes", 1000),
        ("--psnr", "40", "psnr", 40.0),
    ],
)
def test_encode_passes_its_limit_on(toy, option, value, name, passed):
    save("a.png")
    assert run("encode", "a.png", option, value).exit_code == 0
    assert toy.calls == [{"bpp": None, "max_bytes": None, "psnr": None, name: passed}]


LIMITS = ("--bpp", "--max-bytes", "--psnr")


@pytest.mark.parametrize("pair", list(itertools.combinations(LIMITS, 2)))
def test_limits_do_not_mix(toy, pair):
    save("a.png")
    refused(run("encode", "a.png", pair[0], "30", pair[1], "30"), "at most one", code=2)
    assert toy.calls == []


@pytest.mark.parametrize("option", LIMITS)
@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "many", ""])
def test_a_limit_is_a_positive_number(toy, option, value):
    save("a.png")
    refused(run("encode", "a.png", option, value), option, code=2)
    assert toy.calls == []
    assert contents() == {"a.png"}


@pytest.mark.parametrize("output", ["a.dfc", "./a.dfc", "link.dfc"])
def test_encode_never_writes_over_its_input(toy, output):
    save("a.dfc", format="PNG")  # a picture under a misleading name
    original = Path("a.dfc").read_bytes()
    Path("link.dfc").symlink_to("a.dfc")
    refused(run("encode", "a.dfc", "-o", output), "is an input")
    refused(run("encode", "a.dfc"), "is an input")
    assert Path("a.dfc").read_bytes() == original


def test_encode_never_writes_over_another_input(toy):
    save("a.png")
    save("a.dfc", format="PNG")
    original = Path("a.dfc").read_bytes()
    assert run("encode", "a.png", "a.dfc", "-o", ".").exit_code == 0
    assert contents() == {"a.png", "a.dfc", "a.png.dfc", "a.dfc.dfc"}
    assert Path("a.dfc").read_bytes() == original
    save("b.dfc", format="PNG")
    refused(run("encode", "a.png", "b.dfc"), "b.dfc is an input")
    assert Path("b.dfc").read_bytes() == original


def test_encode_names_what_it_cannot_read(toy):
    refused(run("encode", "missing.png"), "cannot read missing.png:")
    refused(run("encode", "."), "nothing to do in .", "--recursive")
    assert contents() == set()


def test_encode_refuses_other_modes_with_advice(toy):
    Image.new("CMYK", (4, 4)).save("a.tif")
    refused(run("encode", "a.tif"), "mode CMYK", "convert it")


def test_an_output_that_cannot_be_written_is_named(toy):
    save("a.png")
    refused(run("encode", "a.png", "-o", "missing/a.dfc"), "cannot write missing/a.dfc")


def test_a_failed_encode_leaves_the_old_file_whole(toy, monkeypatch):
    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    save("a.png")
    Path("a.dfc").write_bytes(b"precious")
    monkeypatch.setattr(os, "fsync", refuse)
    refused(run("encode", "a.png"), "cannot write a.dfc: No space left on device")
    assert Path("a.dfc").read_bytes() == b"precious"
    assert contents() == {"a.png", "a.dfc"}


def test_encode_needs_an_input(toy):
    refused(run("encode"), "IN...", code=2)


def test_an_interruption_ends_cleanly(toy, monkeypatch):
    def interrupt(*_: object, **__: object) -> bytes:
        raise KeyboardInterrupt

    save("a.png")
    save("b.png")
    monkeypatch.setitem(vars(diffcodec), "encode", interrupt)
    result = run("encode", "a.png", "b.png")
    assert (result.exit_code, result.stderr) == (130, "diffcodec: interrupted\n")
    assert contents() == {"a.png", "b.png"}


def test_a_terminal_gets_a_progress_bar(toy, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    from diffcodec.cli.common import progress_bar

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar("photo.png") as progress:
        progress(0.0)
        progress(1.0)
    assert "photo.png" in terminal.getvalue()
    assert "100%" in terminal.getvalue()


# --- decode -------------------------------------------------------------------------------------


@pytest.fixture
def coded(toy):
    """A toy file a.dfc, its original out of the way."""
    save("a.png")
    assert run("encode", "a.png").exit_code == 0
    Path("a.png").unlink()
    toy.calls.clear()
    return Path("a.dfc")


def test_decode_writes_beside_the_input_and_reports_one_line(coded):
    result = run("decode", "a.dfc")
    assert result.exit_code == 0
    assert result.stdout.startswith("a.png: 24x17 RGB, ")
    assert len(result.stdout.splitlines()) == 1
    assert result.stderr == ""
    assert same("a.png", picture())


def test_decode_to_a_named_file_a_folder_or_another_format(coded):
    Path("out").mkdir()
    for output, written in (("b.png", "b.png"), ("b.tif", "b.tif"), ("out", "out/a.png")):
        assert run("decode", "a.dfc", "-o", output).exit_code == 0
        assert same(written, picture())


def test_decode_is_a_filter(coded):
    result = run("decode", "-", stdin=coded.read_bytes())
    assert result.exit_code == 0
    assert Image.open(io.BytesIO(result.stdout_bytes)).tobytes() == picture().tobytes()
    assert run("decode", "a.dfc", "-o", "-").stdout_bytes == result.stdout_bytes
    assert contents() == {"a.dfc"}


def test_decode_passes_its_options_on(toy, coded):
    for options in (["--bpp", "0.5"], ["--max-bytes", "99"], ["--show", "sample", "--seed", "7"]):
        assert run("decode", "a.dfc", "-o", "b.png", *options).exit_code == 0
    default = {"bpp": None, "max_bytes": None, "show": "mean", "seed": 0}
    assert toy.calls == [
        default | {"bpp": 0.5},
        default | {"max_bytes": 99},
        default | {"show": "sample", "seed": 7},
    ]


@pytest.mark.parametrize(
    "options",
    [
        ["--bpp", "1", "--max-bytes", "9"],
        ["--bpp", "0"],
        ["--bpp", "nan"],
        ["--max-bytes", "0"],
        ["--max-bytes", "1.5"],
        ["--show", "median"],
        ["--seed", "-1"],
        ["--seed", "x"],
    ],
)
def test_decode_refuses_bad_options(toy, coded, options):
    refused(run("decode", "a.dfc", *options), code=2)
    assert toy.calls == []
    assert contents() == {"a.dfc"}


def test_a_truncated_file_is_a_preview_and_says_so(coded):
    data = coded.read_bytes()
    Path("short.dfc").write_bytes(data[:20])
    result = run("decode", "short.dfc")
    assert result.exit_code == 0
    assert f"short.dfc is truncated, 20 of {len(data):,} bytes" in result.stderr
    assert "preview" in result.stderr
    assert Image.open("short.png").getextrema() == ((128, 128),) * 3


def test_decode_does_not_replace_a_file_that_was_not_named(coded):
    original = save("a.png").read_bytes()
    refused(run("decode", "a.dfc"), "a.png exists", "-o")
    assert Path("a.png").read_bytes() == original
    assert run("decode", "a.dfc", "-o", "a.png").exit_code == 0


def test_decode_never_writes_over_its_input(coded):
    data = coded.read_bytes()
    refused(run("decode", "a.dfc", "-o", "a.dfc"), "is an input")
    coded.rename("a.png")
    refused(run("decode", "a.png"), "is an input")
    assert Path("a.png").read_bytes() == data


def test_decode_names_what_it_cannot_read(toy):
    refused(run("decode", "missing.dfc", "-o", "b.png"), "cannot read missing.dfc:")
    refused(run("decode", "."), "nothing to do in .")


def test_an_animation_gives_its_first_frame_and_says_so(toy):
    frames = [Image.new("L", (4, 3), grey) for grey in (10, 20, 30)]
    for name in ("a.gif", "b.webp", "c.png", "d.tif"):
        frames[0].save(name, save_all=True, append_images=frames[1:])
        result = run("encode", name)
        assert result.exit_code == 0
        assert result.stderr == f"diffcodec: {name} has 3 frames: the first one is taken\n"
        assert run("decode", f"{name[0]}.dfc", "-o", "out.png").exit_code == 0
        assert abs(Image.open("out.png").convert("L").getpixel((0, 0)) - 10) < 3
    result = run("encode", "a.gif", "b.webp", "--force")
    assert result.stderr.count("the first one is taken") == 2


def test_decode_passes_on_what_the_codec_says(coded):
    Path("other.dfc").write_bytes(b"no such thing")
    refused(run("decode", "other.dfc"), "this is no .dfc file")
    data = bytearray(coded.read_bytes())
    data[-5] ^= 1
    coded.write_bytes(data)
    refused(run("decode", "a.dfc"), "the pixels do not match their checksum")
    assert contents() == {"a.dfc", "other.dfc"}


def test_an_unknown_suffix_is_refused_before_the_work(toy, coded):
    refused(run("decode", "a.dfc", "-o", "b.xyz"), "suffix .xyz is unknown")
    refused(run("sample", "-o", "b.xyz"), "suffix .xyz is unknown")
    assert toy.calls == []


def test_live_writes_each_better_picture_whole(folder):
    image = picture("L", 12, 9)
    data = diffcodec.encode(image)
    previews = list(diffcodec.decode_progressive(data))
    result = run("decode", "-", "--live", "out.png", stdin=data)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.splitlines() == [
        f"out.png: rung {p.rung}, {p.bytes_used:,} bytes" for p in previews
    ]
    assert same("out.png", image)
    assert contents() == {"out.png"}


def test_live_says_that_the_input_was_truncated(folder):
    data = diffcodec.encode(picture("L", 12, 9))
    result = run("decode", "-", "--live", "out.png", stdin=data[:70])
    assert result.exit_code == 0
    assert "truncated" in result.stderr
    assert same("out.png", diffcodec.decode(data[:70]))


@pytest.mark.parametrize(
    "options",
    [["-o", "b.png"], ["--bpp", "1"], ["--max-bytes", "9"], ["--show", "sample"]],
)
def test_live_stands_alone(toy, coded, options):
    refused(run("decode", "a.dfc", "--live", "out.png", *options), "--live", code=2)
    assert contents() == {"a.dfc"}


def test_live_refuses_what_cannot_be(toy, coded):
    refused(run("decode", "a.dfc", "--live", "a.dfc"), "is an input")
    refused(run("decode", "a.dfc", "--live", "x.xyz"), "suffix .xyz is unknown")
    refused(run("decode", "missing.dfc", "--live", "x.png"), "cannot read missing.dfc:")


# --- sample -------------------------------------------------------------------------------------


def test_sample_draws_a_picture_of_the_size_and_seed(toy):
    result = run("sample", "-o", "s.png", "--size", "20x10", "--seed", "3")
    assert result.exit_code == 0
    assert result.stdout.startswith("s.png: 20x10 RGB, ")
    assert same("s.png", Image.new("RGB", (20, 10), (3, 3, 3)))


@pytest.mark.parametrize("size", ["20", "x", "20x", "0x5", "5x0", "-1x5", "2.5x3", "1x2x3", "²x3"])
def test_a_size_is_two_positive_numbers(toy, size):
    refused(run("sample", "-o", "s.png", "--size", size), "--size", code=2)
    assert contents() == set()


def test_sample_needs_an_output(toy):
    refused(run("sample"), "--output", code=2)


# --- info ---------------------------------------------------------------------------------------


def test_info_prints_the_header_and_the_rungs(coded):
    size = coded.stat().st_size
    result = run("info", "a.dfc")
    assert result.exit_code == 0
    fields = dict(line.split(maxsplit=1) for line in result.stdout.split("\n\n")[0].splitlines())
    assert fields == {
        "picture": "24x17 RGB",
        "process": "photo",
        "colours": "JPEG's YCbCr",
        "model": "0123abcd, fitted to the picture",
        "checksum": "0000beef",
        "coding": "lossless",
        "file": f"complete, {size:,} bytes, {8 * size / (24 * 17):.3f} bpp",
    }
    table = [line.split() for line in result.stdout.split("\n\n")[1].splitlines()]
    assert table[0] == ["rung", "bytes", "bpp"]
    assert [row[:2] for row in table[1:]] == [["7", str(HEADER.size)], ["0", f"{size:,}"]]


def test_info_reads_standard_input(coded):
    assert run("info", "-", stdin=coded.read_bytes()).stdout == run("info", "a.dfc").stdout


def test_info_says_that_a_file_is_truncated(coded):
    data = coded.read_bytes()
    coded.write_bytes(data[:20])
    assert f"truncated, 20 of {len(data):,} bytes" in run("info", "a.dfc").stdout


def test_info_against_the_original_adds_psnr(coded):
    save("original.png")
    result = run("info", "a.dfc", "--against", "original.png")
    assert result.exit_code == 0
    error = np.asarray(picture(), float) - 128
    table = [line.split() for line in result.stdout.split("\n\n")[1].splitlines()]
    assert table[0][-1] == "PSNR"
    assert float(table[1][-1]) == pytest.approx(
        10 * np.log10(255**2 / np.mean(error**2)), abs=0.006
    )
    assert table[2][-1] == "inf"


def test_info_says_what_follows_the_end(coded, monkeypatch):
    info = diffcodec.info(coded.read_bytes())
    info.bytes += 1234
    monkeypatch.setitem(vars(diffcodec), "info", lambda *_, **__: info)
    assert "1,234 bytes after its end are ignored" in run("info", "a.dfc").stdout


def test_info_as_json(folder):
    image = picture("L", 12, 9)
    image.save("a.png")
    data = diffcodec.encode(image)
    Path("a.dfc").write_bytes(data)
    found = json.loads(run("info", "a.dfc", "--json").stdout)
    assert found == asdict(diffcodec.info(data))
    assert found["rungs"][-1]["bytes"] == len(data) == found["total_bytes"]
    rungs = json.loads(run("info", "a.dfc", "--json", "--against", "a.png").stdout)["rungs"]
    assert rungs[-1]["psnr"] is None
    assert 5 < rungs[0]["psnr"] < rungs[-2]["psnr"] < 99


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (picture("L"), "24x17 L"),
        (picture("RGBA"), "24x17 RGBA"),
        (picture(width=17, height=24), "17x24 RGB"),
    ],
)
def test_info_compares_like_with_like_only(coded, other, found):
    other.save("other.png")
    refused(run("info", "a.dfc", "--against", "other.png"), "other.png", found, "24x17 RGB")


def test_info_names_what_it_cannot_read(coded):
    refused(run("info", "missing.dfc"), "cannot read missing.dfc:")
    refused(run("info", "a.dfc", "--against", "missing.png"), "cannot read missing.png:")
    save("original.png")
    refused(run("info", "original.png"), "this is no .dfc file")


# --- train, export and fit ----------------------------------------------------------------------


def varied(recipe, options):
    """In the place of `training.varied`."""
    if "w" in options.values():
        raise ValueError("kind is one of some, not w")
    return f"{recipe}, varied: {options}"


@pytest.fixture
def training(folder, monkeypatch):
    """The training module replaced by one that notes what it is asked to do."""
    calls: list[tuple] = []
    module = types.ModuleType("diffcodec.training")
    module.RECIPES = {"photo": "the first", "denoiser": "the third"}
    module.varied = lambda recipe, options: varied(recipe, options)
    module.train = lambda *a, **k: calls.append(("train", a, k))
    module.export = lambda *a, **k: calls.append(("export", a, k))
    module.fit = lambda data, out, **k: (
        calls.append(("fit", (data, out), k)),
        out.write_bytes(b"..."),
    )
    module.pack = lambda *a: calls.append(("pack", a)) or (3, 4)
    monkeypatch.setitem(sys.modules, "diffcodec.training", module)
    monkeypatch.setattr(diffcodec, "training", module, raising=False)
    Path("photos").mkdir()
    Path("checks").mkdir()
    return calls


def test_train_passes_its_budget_on(training):
    assert run("train", "photos", "run", "--minutes", "1.5").exit_code == 0
    options = ["--steps", "9", "--validation", "checks", "--device", "cpu", "--recipe", "denoiser"]
    options += ["--processes", "2"]
    assert run("train", "photos", "run", *options).exit_code == 0
    assert run("train", "photos", "run").exit_code == 0
    paths = (Path("photos"),), Path("run")
    names = ("minutes", "steps", "validation", "start", "device")
    none = dict.fromkeys(names) | {"processes": 1}
    assert training == [
        ("train", (*paths, "the first"), none | {"minutes": 1.5}),
        (
            "train",
            (*paths, "the third"),
            none | {"steps": 9, "validation": Path("checks"), "device": "cpu", "processes": 2},
        ),
        ("train", (*paths, "the first"), none),
    ]


def test_train_varies_a_recipe(training):
    options = ["--set", "kind=eps", "--set", "objective=simple"]
    assert run("train", "photos", "run", "--steps", "9", *options).exit_code == 0
    asked = {"kind": "eps", "objective": "simple"}
    assert training[0][1][2] == f"the first, varied: {asked}"
    refused(run("train", "photos", "run", "--set", "kind=w"), "--set: kind is one of some", code=2)
    refused(run("train", "photos", "run", "--set", "kind"), "NAME=VALUE", code=2)


def test_pack_passes_its_folders_on(training):
    result = run("pack", "photos", "checks", "-o", "set.zip", "--mib", "52.5", "--seed", "2")
    assert result.exit_code == 0
    assert "set.zip: 3 of 4 pictures" in result.output
    assert training == [("pack", ((Path("photos"), Path("checks")), Path("set.zip"), 52.5, 2))]
    refused(run("pack", "photos", "-o", "set.zip"), "--mib", code=2)
    refused(run("pack", "missing", "-o", "set.zip", "--mib", "1"), "missing", code=2)


@pytest.mark.parametrize(
    "arguments",
    [
        ["photos", "run", "--minutes", "1", "--steps", "1"],
        ["photos", "run", "--minutes", "0"],
        ["photos", "run", "--steps", "0"],
        ["photos", "run", "--steps", "9", "--recipe", "other"],
        ["missing", "run", "--steps", "1"],
        ["photos", "file", "--steps", "1"],
        ["photos", "run", "--processes", "0"],
        ["photos", "run", "--steps", "1", "--validation", "missing"],
    ],
)
def test_train_refuses_bad_arguments(training, arguments):
    Path("file").touch()
    refused(run("train", *arguments), "Error", code=2)
    assert training == []


def test_export_passes_its_paths_on(training):
    Path("run").mkdir()
    paths = (Path("run"), Path("model.safetensors"))
    arguments = ["export", "run", "model.safetensors", "--calibration", "photos"]
    assert run(*arguments).exit_code == 0
    assert run(*arguments, "--validation", "checks").exit_code == 0
    assert training == [
        ("export", paths, {"calibration": (Path("photos"),), "validation": None}),
        ("export", paths, {"calibration": (Path("photos"),), "validation": Path("checks")}),
    ]


def test_export_refuses_bad_arguments(training):
    Path("run").mkdir()
    refused(run("export", "missing", "out", "--calibration", "photos"), "missing", code=2)
    refused(run("export", "run", "out"), "--calibration", code=2)
    refused(run("export", "run", "run", "--calibration", "photos"), "is a directory", code=2)
    assert training == []


def test_fit_passes_its_options_on(training):
    Path("base").touch()
    assert run("fit", "photos", "-o", "mine").exit_code == 0
    options = ["--model", "base", "--minutes", "2", "--validation", "checks", "--device", "cuda"]
    result = run("fit", "photos", "-o", "mine", *options)
    assert "mine: 3 bytes" in result.output
    default = {"minutes": 15.0, "validation": None, "device": None}
    given = {"model": Path("base"), "minutes": 2.0, "validation": Path("checks"), "device": "cuda"}
    paths = (Path("photos"), Path("mine"))
    assert training == [("fit", paths, default), ("fit", paths, given)]


def test_fit_refuses_bad_arguments(training):
    refused(run("fit", "missing", "-o", "mine"), "missing", code=2)
    refused(run("fit", "photos"), "--output", code=2)
    refused(run("fit", "photos", "-o", "mine", "--model", "missing"), "missing", code=2)
    refused(run("fit", "photos", "-o", "mine", "--minutes", "0"), "--minutes", code=2)
    assert training == []


# --- the program itself -------------------------------------------------------------------------


def program(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "diffcodec", *arguments]
    root = str(Path(diffcodec.__file__).parent.parent)  # found also where it is not installed
    environment = os.environ | {"PYTHONPATH": root}
    return subprocess.run(command, input=stdin, capture_output=True, env=environment, check=False)


def test_threads_and_device_reach_the_codec(toy):
    save("a.png")
    run("encode", "a.png", "--threads", "3")
    run("decode", "a.dfc", "-o", "b.png", "--threads", "2", "--device", "cuda")
    run("sample", "-o", "c.png", "--device", "cpu")
    assert toy.computing == [(3, "auto"), (2, "cuda"), (None, "cpu")]
    assert run("encode", "a.png", "--threads", "0").exit_code == 2


def test_version_and_help():
    assert program("--version").stdout.split() == [b"diffcodec", diffcodec.__version__.encode()]
    result = program("--help")
    assert result.returncode == 0
    commands = "encode decode sample info preview likelihood train export fit"
    for command in commands.encode().split():
        assert command in result.stdout
        assert program(command.decode(), "--help").returncode == 0


def test_help_says_in_a_line_what_each_command_does():
    lines = run("--help").stdout.split("Commands:\n")[1].splitlines()
    assert [line.split()[0] for line in lines] == list(main.commands)
    for line in lines:
        assert line.endswith("."), "a sentence"
        assert not line.endswith("..."), "a whole one"


@pytest.mark.parametrize(
    ("words", "found"),
    [("en", "plain,encode"), ("encode ", "file,"), ("decode -o ", "file,"), ("info ", "file,")],
)
def test_shells_complete_commands_and_files(words, found):
    line = f"diffcodec {words}"
    environment = {
        "_DIFFCODEC_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
    }
    result = CliRunner(env=environment).invoke(main, prog_name="diffcodec")
    assert result.stdout.splitlines() == [found]


def test_help_does_not_load_torch():
    script = (
        "import sys; from diffcodec.cli import main; main(['encode', '--help'], standalone_mode=0);"
        "print(sorted({'torch', 'numpy', 'tqdm'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "[]"


def test_an_unknown_command_is_refused():
    result = program("transmogrify")
    assert result.returncode == 2
    assert b"transmogrify" in result.stderr


# --- the real codec -----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_encode_and_decode_give_the_picture_back(folder, mode):
    exif = Image.Exif()
    exif[0x0112] = 6
    save("a.png", mode, icc_profile=b"a profile", exif=exif)
    assert run("encode", "a.png").exit_code == 0
    assert run("decode", "a.dfc", "-o", "b.png").exit_code == 0
    assert same("b.png", picture(mode))
    with Image.open("a.png") as before, Image.open("b.png") as after:
        assert metadata(after) == metadata(before)
        assert metadata(after)[container.ICC] == b"a profile"


def test_the_program_is_a_filter_both_ways(folder):
    coded = program("encode", "-", stdin=save("a.png").read_bytes())
    assert coded.returncode == 0, coded.stderr
    decoded = program("decode", "-", stdin=coded.stdout)
    assert decoded.returncode == 0, decoded.stderr
    assert Image.open(io.BytesIO(decoded.stdout)).tobytes() == picture().tobytes()


def test_limits_truncation_and_info(folder):
    save("a.png")
    assert run("encode", "a.png", "--max-bytes", "200").exit_code == 0
    assert Path("a.dfc").stat().st_size <= 200
    assert "lossy" in run("info", "a.dfc").stdout

    assert run("encode", "a.png").exit_code == 0
    table = run("info", "a.dfc", "--against", "a.png").stdout.split("\n\n")[1].splitlines()
    quality = [float(line.split()[-1]) for line in table[1:]]
    assert quality[0] < quality[-1] == float("inf")

    Path("short.dfc").write_bytes(Path("a.dfc").read_bytes()[:100])
    result = run("decode", "short.dfc")
    assert result.exit_code == 0
    assert "truncated" in result.stderr
    with Image.open("short.png") as preview:
        assert preview.size == (24, 17)


def test_samples_follow_their_seed(folder):
    for name, seed in (("a.png", "1"), ("b.png", "1"), ("c.png", "2")):
        assert run("sample", "-o", name, "--size", "24x17", "--seed", seed).exit_code == 0
    with Image.open("a.png") as first, Image.open("c.png") as other:
        assert same("b.png", first)
        assert first.tobytes() != other.tobytes()


def test_files_that_are_no_dfc_or_damaged_are_refused(folder):
    save("a.png")
    for data in (b"", b"D", b"no such thing", Path("a.png").read_bytes()):
        Path("bad.dfc").write_bytes(data)
        refused(run("decode", "bad.dfc"), "diffcodec: ")
        refused(run("info", "bad.dfc"), "diffcodec: ")
    assert run("encode", "a.png").exit_code == 0
    data = bytearray(Path("a.dfc").read_bytes())
    data[len(data) // 2] ^= 0x10
    Path("bad.dfc").write_bytes(data)
    refused(run("decode", "bad.dfc"), "diffcodec: ")
    assert not Path("bad.png").exists()
