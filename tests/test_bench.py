import csv
import importlib.util
import io
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import diffcodec
from bench import (
    BenchError,
    catalogue,
    codecs,
    decoded,
    jpeg2000,
    known,
    learned,
    ours,
    peers,
    rd,
    results,
    speed,
)
from bench.__main__ import main
from bench.codecs import FileCodec, Point
from bench.metrics import (
    Sample,
    bd_rate,
    bits_at,
    bits_per_dim,
    ms_ssim,
    pixels,
    psnr,
    psnr_y,
    ssimulacra2,
)
from bench.options import chosen
from bench.pictures import find
from bench.planes import Planes

PEERS = [codec for codec in catalogue.lossless_codecs() if codec.name != ours.NAME]
CURVES = [codec for codec in catalogue.rd_codecs() if not isinstance(codec, learned.Learned)]


def noise(width: int, height: int) -> Image.Image:
    samples = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(samples)


def waves(side: int) -> Image.Image:
    """Something like a photograph: smooth, with a little noise."""
    y, x = np.mgrid[:side, :side] / side
    smooth = np.stack((np.sin(9 * x + 4 * y), np.sin(6 * x * y), np.cos(7 * y)), -1)
    return Image.fromarray(np.uint8(127 + 90 * smooth + 0.05 * pixels(noise(side, side))))


def skip_if_missing(codec: codecs.Named) -> None:
    try:
        codec.version()
    except codecs.MissingError as error:
        pytest.skip(str(error))


PNG = peers.PillowCodec("PNG", format="PNG", feature="zlib")


@dataclass(frozen=True)
class Wrong(FileCodec):
    """The planted fault: one sample of one picture is off by one."""

    name: str = "wrong"

    def version(self) -> str:
        return "1"

    def encode(self, image: Image.Image, setting: codecs.Setting) -> bytes:
        return PNG.encode(image, "lossless")

    def decode(self, data: bytes) -> Image.Image:
        samples = pixels(PNG.decode(data)).copy()
        samples[-1, -1, -1] ^= 1
        return Image.fromarray(samples)


@dataclass(frozen=True)
class Missing(Wrong):
    name: str = "missing"

    def version(self) -> str:
        raise codecs.MissingError("libnothing is not installed")


@dataclass(frozen=True)
class Steps:
    """A codec whose file has one byte a brightness level that it keeps."""

    name: str
    cost: int
    settings: tuple[codecs.Setting, ...] = ("all",)

    def version(self) -> str:
        return "1"

    def points(self, image: Image.Image, setting: codecs.Setting) -> Iterator[Point]:
        for bits in range(1, 9):
            step = 256 >> bits
            kept = pixels(image) // step * step + step // 2
            yield Point(f"{bits} bits", self.cost << bits, Image.fromarray(kept), bits == 8)


@dataclass(frozen=True)
class Counting(Wrong):
    """A lossless codec that notes each call in a file."""

    name: str = "counting"
    notes: str = ""

    def encode(self, image: Image.Image, setting: codecs.Setting) -> bytes:
        with Path(self.notes).open("a") as file:
            file.write("x")
        return PNG.encode(image, setting)

    def decode(self, data: bytes) -> Image.Image:
        return PNG.decode(data)


def bench(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def measure_only(monkeypatch: pytest.MonkeyPatch, kind: str, *chosen: object) -> None:
    monkeypatch.setattr(catalogue, f"{kind}_codecs", lambda *_: list(chosen))


# Codecs


@pytest.mark.parametrize("codec", PEERS, ids=lambda codec: codec.name)
@pytest.mark.parametrize("size", [(1, 1), (37, 20), (32, 32)])
def test_peers_are_lossless(codec: FileCodec, size: tuple[int, int]) -> None:
    skip_if_missing(codec)
    image = noise(*size)
    (point,) = codec.points(image, codec.settings[0])
    assert point.exact
    assert np.array_equal(pixels(point.image), pixels(image))


@pytest.mark.parametrize("codec", PEERS, ids=lambda codec: codec.name)
def test_peers_code_a_constant_image_in_few_bytes(codec: FileCodec) -> None:
    skip_if_missing(codec)
    image = Image.new("RGB", (64, 48), (9, 80, 200))
    data = codec.encode(image, "lossless")
    assert len(data) < 300
    assert np.array_equal(pixels(codec.decode(data)), pixels(image))


@pytest.mark.parametrize("codec", CURVES, ids=lambda codec: codec.name)
def test_more_bytes_show_more(codec: codecs.Codec) -> None:
    skip_if_missing(codec)
    image = waves(48)
    ends = [list(codec.points(image, s)) for s in (codec.settings[0], codec.settings[-1])]
    points = sorted((p for points in ends for p in points), key=lambda point: point.bytes)
    assert psnr(image, points[0].image) < psnr(image, points[-1].image)
    assert all(np.array_equal(pixels(p.image), pixels(image)) for p in points if p.exact)


@pytest.mark.parametrize("codec", catalogue.progressive_codecs(), ids=lambda codec: codec.name)
def test_any_cut_shows_a_picture_or_nothing(codec: codecs.Progressive) -> None:
    skip_if_missing(codec)
    image = waves(48)
    data = codec.encode(image)
    assert codec.show(data, 1) is None
    for received in np.linspace(1, len(data), 12).astype(int).tolist():
        shown = codec.show(data, received)
        assert shown is None or shown.size == image.size
    assert codec.exact == np.array_equal(pixels(shown), pixels(image))


def test_progressive_jpeg_survives_a_cut_anywhere() -> None:
    image = waves(40)
    codec = peers.ProgressiveJpeg()
    data = codec.encode(image)
    shown = [codec.show(data, received) for received in range(1, len(data) + 1)]
    quality = [psnr(image, each) for each in shown if each is not None]
    first = next(i for i, each in enumerate(shown) if each is not None)
    assert None not in shown[first:]
    assert min(quality) > 5
    assert quality[-1] == max(quality) == psnr(image, codecs.open_image(data))


def test_diffcodec_prefixes_are_even_cuts() -> None:
    image = waves(48)
    data = diffcodec.encode(image)
    codec = ours.DiffcodecPrefixes(cuts=4)
    points = list(codec.points(image, codec.settings[0]))
    sizes = [int(len(data) * share) for share in (1 / 8, 1 / 4, 1 / 2, 3 / 4)]
    assert [p.bytes for p in points][-5:] == [*sizes, len(data)]
    assert [p.exact for p in points][-2:] == [False, True]
    for point in points:
        assert point.image.tobytes() == diffcodec.decode(data[: point.bytes]).tobytes()


def test_ladders_are_compared_at_equal_quality(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench import ladder

    picture = tmp_path / "waves.png"
    waves(96).save(picture)

    monkeypatch.setattr(ladder, "LADDERS", {"white": {}, "later": {1: 1}})
    outcome = bench("ladder", "--data", picture, "--jobs", 1, "--out", tmp_path)
    assert outcome.exit_code == 0, outcome.output
    cells = (line.split("|") for line in outcome.output.splitlines() if line.count("|") > 2)
    table = {name.strip(): [cell.strip() for cell in rest] for _, name, *rest, _ in cells}
    assert set(table["white"]) <= {"+0.0 %", "-"}
    assert table["later"] != table["white"]

    # Neither the models' temporary places nor anything else that changes counts.
    measured = (tmp_path / "cache.jsonl").read_text()
    assert bench("ladder", "--data", picture, "--jobs", 1, "--out", tmp_path).exit_code == 0
    assert (tmp_path / "cache.jsonl").read_text() == measured


def test_embedded_jpeg2000_is_one_file_that_grows_to_lossless() -> None:
    image = waves(128)
    codec = jpeg2000.Jpeg2000Embedded()
    points = list(codec.points(image, codec.settings[0]))
    curve = [(point.bytes, psnr(image, point.image)) for point in points]
    assert len(points) == len(jpeg2000.RATES) + 1
    assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in pairwise(curve))
    assert math.isinf(curve[-1][1])
    assert not math.isinf(curve[len(curve) // 2][1])
    # The quality layers cost little: the whole file is near the one without them.
    assert points[-1].bytes < 1.1 * len(jpeg2000.Jpeg2000("5/3").encode(image, "lossless"))


@pytest.mark.parametrize("irreversible", [False, True])
def test_jpeg2000_files_keep_to_their_rates(irreversible: bool) -> None:
    image = waves(128)
    codec = jpeg2000.Jpeg2000("JPEG 2000", irreversible=irreversible)
    sizes = [len(codec.encode(image, rate)) for rate in (48, 24)]
    assert sizes == pytest.approx([0.5 * 128**2 / 8, 128**2 / 8], rel=0.1)


# Metrics


def test_psnr_and_bits_per_dim_by_hand() -> None:
    black, grey = (Image.new("RGB", (4, 2), (v, v, v)) for v in (0, 16))
    assert psnr(black, black) == math.inf
    assert psnr(black, grey) == pytest.approx(10 * math.log10(255**2 / 256))
    assert psnr_y(black, grey) == pytest.approx(psnr(black, grey))
    blue = Image.new("RGB", (4, 2), (0, 0, 16))
    assert psnr_y(black, blue) == pytest.approx(20 * math.log10(255 / (16 * 0.114)))
    assert bits_per_dim(6, black) == 2
    with pytest.raises(ValueError, match="sizes differ"):
        psnr(black, Image.new("RGB", (2, 4)))


def test_perceptual_metrics_know_better_from_worse() -> None:
    pytest.importorskip("pytorch_msssim")
    pytest.importorskip("ssimulacra2")
    image = waves(161)
    near, far = (image.quantize(colours).convert("RGB") for colours in (128, 8))
    assert ms_ssim(image, image) == pytest.approx(1)
    assert ssimulacra2(image, image) == pytest.approx(100)
    assert ms_ssim(image, image) > ms_ssim(image, near) > ms_ssim(image, far)
    assert 100 > ssimulacra2(image, near) > ssimulacra2(image, far)
    assert ms_ssim(waves(160), waves(160)) is None


def test_bits_at_equal_psnr_by_hand() -> None:
    curve = [Sample(1000, 30), Sample(4000, 40), Sample(9000, math.inf)]
    assert bits_at(curve, 30) == pytest.approx(1000)
    assert bits_at(curve, 35) == pytest.approx(2000)  # halfway in dB: the geometric mean
    assert bits_at(curve, 40) == pytest.approx(4000)
    assert bits_at(curve, 29.9) is None
    assert bits_at(curve, 40.1) is None
    assert bits_at(curve, math.inf) == 9000
    assert bits_at(curve[:2], math.inf) is None
    assert bits_at([], 30) is None
    # Points that cost more and show no more change nothing.
    assert bits_at([*curve, Sample(1500, 25), Sample(5000, 40)], 35) == pytest.approx(2000)


def test_bd_rate_by_hand() -> None:
    pytest.importorskip("bjontegaard")
    anchor = [Sample(1000 * 2**i, 30 + 2 * i) for i in range(5)]
    cheaper = [Sample(0.8 * bits, level) for bits, level in anchor]
    assert bd_rate(anchor, anchor) == pytest.approx(1)
    assert bd_rate(cheaper, anchor) == pytest.approx(0.8)
    assert bd_rate(anchor, cheaper) == pytest.approx(1 / 0.8)
    # log2(bits / 1000) is level / 2 - 15 for the anchor, level / 4 - 7 for the other; they share
    # 30 to 36 dB, over which the mean of 8 - level / 4 is -0.25.
    flatter = [Sample(1000 * 2 ** (level / 4 - 7), level) for level in (28, 30, 33, 36)]
    assert bd_rate(flatter, anchor) == pytest.approx(2**-0.25)
    assert bd_rate([*cheaper, Sample(1e6, math.inf)], anchor) == pytest.approx(0.8)
    assert bd_rate([Sample(1, 50), Sample(2, 51), Sample(3, 52)], anchor) is None
    assert bd_rate(anchor[:2], anchor) is None


# Pictures


def test_tiles_are_cut_row_major(tmp_path: Path) -> None:
    mosaic = noise(12, 8)
    mosaic.save(tmp_path / "mosaic.png")
    tiles = find(tmp_path, tiles=4)
    assert [tile.name for tile in tiles[2:4]] == ["mosaic.png[0,2]", "mosaic.png[1,0]"]
    assert np.array_equal(pixels(tiles[5].load()), pixels(mosaic)[4:8, 8:12])
    assert len(tiles) == len({tile.digest() for tile in tiles}) == 6
    assert find(tmp_path, tiles=4, limit=2) == tiles[:2]
    assert find(tmp_path / "mosaic.png", tiles=4) == tiles
    with pytest.raises(BenchError, match="12x8 does not divide into 5x5"):
        find(tmp_path, tiles=5)


def test_a_folder_without_pictures_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing to see")
    with pytest.raises(BenchError, match="no pictures"):
        find(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"no PNG")
    with pytest.raises(BenchError, match="broken"):
        find(tmp_path)[0].load()


def test_metadata_is_not_measured(tmp_path: Path) -> None:
    noise(4, 4).save(tmp_path / "a.png", icc_profile=bytes(5000))
    assert len(PNG.encode(find(tmp_path)[0].load(), "lossless")) < 1000


# Runs


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    noise(16, 8).save(folder / "a.png")
    waves(16).save(folder / "b.png")
    return folder


def test_lossless_reports_and_saves(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = peers.PillowCodec("raw", format="PPM", feature="zlib")
    jpeg2000_as_ours = jpeg2000.Jpeg2000(ours.NAME)
    measure_only(monkeypatch, "lossless", jpeg2000_as_ours, raw, Missing())
    out = tmp_path / "out"
    outcome = bench("lossless", "--data", data, "--out", out, "--jobs", 1)
    assert outcome.exit_code == 0
    assert "skipped: missing (libnothing is not installed)" in outcome.output
    assert "Not measured: missing (libnothing is not installed)." in outcome.output
    saved = json.loads((out / "lossless.json").read_text())
    assert saved["skipped"] == {"missing": "libnothing is not installed"}
    assert saved["model"] == ours.model_id()
    sizes = {(r["codec"], r["picture"]): r["bytes"] for r in saved["rows"]}
    assert len(sizes) == 4
    assert sizes["raw", "a.png"] == 16 * 8 * 3 + len(b"P6\n16 8\n255\n")
    a, b = (sizes[ours.NAME, name] / sizes["raw", name] for name in ("a.png", "b.png"))
    assert f"{100 * ((a + b) / 2 - 1):+.1f} %" in outcome.output
    with (out / "lossless.csv").open() as file:
        assert [int(row["bytes"]) for row in csv.DictReader(file)] == [
            r["bytes"] for r in saved["rows"]
        ]
    pytest.importorskip("matplotlib")
    assert (out / "lossless.svg").exists()
    assert (out / "lossless.png").exists()


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_planted_fault_fails_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    measure_only(monkeypatch, "lossless", PNG, Wrong())
    out = tmp_path / "out"
    outcome = bench("lossless", "--data", data, "--out", out, "--jobs", jobs)
    assert outcome.exit_code == 1
    assert "Error: wrong is not lossless on" in outcome.output
    assert not (out / "lossless.json").exists()


def test_a_planted_fault_fails_rd_and_progressive(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclass(frozen=True)
    class WrongEnd(Steps):
        exact: bool = True

        def points(self, image: Image.Image, setting: codecs.Setting) -> Iterator[Point]:
            yield Point("whole file", 9, Wrong().decode(PNG.encode(image, setting)), True)

        def encode(self, image: Image.Image) -> bytes:
            return PNG.encode(image, "lossless")

        def show(self, data: bytes, received: int) -> Image.Image | None:
            return Wrong().decode(data)

    for kind in ("rd", "progressive"):
        measure_only(monkeypatch, kind, WrongEnd("wrong", 1))
        outcome = bench(kind, "--data", data, "--jobs", 1)
        assert outcome.exit_code == 1
        assert "Error: wrong is not lossless on a.png" in outcome.output


def test_a_run_goes_on_where_it_stopped(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes, out = tmp_path / "notes", tmp_path / "out"
    codec = Counting(notes=str(notes))
    measure_only(monkeypatch, "lossless", codec)
    run = ("lossless", "--data", data, "--out", out, "--jobs", 1)
    assert bench(*run, "--limit", 1).exit_code == 0
    assert notes.read_text() == "x"
    with (out / "cache.jsonl").open("a") as file:
        file.write('["broken o')  # as a machine that went down would leave it
    whole = bench(*run)
    assert whole.exit_code == 0
    assert notes.read_text() == "xx"
    assert bench(*run).stdout == whole.stdout
    assert notes.read_text() == "xx"
    measure_only(monkeypatch, "lossless", replace(codec, name="another"))
    assert bench(*run).exit_code == 0
    assert notes.read_text() == "xxxx"


def test_two_runs_give_the_same_bytes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_only(monkeypatch, "rd", Steps("ours", 3), Steps("theirs", 4))
    first, second = tmp_path / "first", tmp_path / "second"
    for out in (first, second):
        assert bench("rd", "--data", data, "--out", out, "--jobs", 1).exit_code == 0
    names = [path.relative_to(first) for path in first.rglob("*") if path.is_file()]
    assert Path("rd.json") in names
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


def test_processes_change_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_only(monkeypatch, "lossless", PNG, replace(PNG, name="again"))
    alone, pair = (
        bench("lossless", "--data", data, "--out", tmp_path / str(jobs), "--jobs", jobs)
        for jobs in (1, 2)
    )
    assert alone.exit_code == pair.exit_code == 0
    rows = [json.loads((tmp_path / n / "lossless.json").read_text())["rows"] for n in "12"]
    assert rows[0] == rows[1]


def test_a_constant_image_goes_through_everything(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (9, 80, 200)).save(tmp_path / "constant.png")
    out = tmp_path / "out"
    for arguments in (
        ("lossless", "--jobs", 1),
        ("rd", "--jobs", 1),
        ("progressive", "--jobs", 1),
        ("speed", "--runs", 1, "--codec", "PNG"),
        ("speed", "--runs", 1, "--codec", "PNG", "--sizes", "0.0001,0.0002"),
    ):
        outcome = bench(*arguments, "--data", tmp_path / "constant.png", "--out", out)
        assert outcome.exit_code == 0, outcome.output
    outcome = bench("report", "--out", out)
    assert outcome.exit_code == 0, outcome.output
    text = (out / "report.md").read_text()
    for heading in ("## Lossless", "## Rate", "## Progressive", "## Time"):
        assert heading in text
    assert str(tmp_path) not in text
    with Image.open(out / "progressive-pictures.png") as picture:
        assert picture.mode == "RGB"


def test_rd_compares_bits_at_equal_psnr(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("bjontegaard")
    measure_only(monkeypatch, "rd", Steps("ours", 3), Steps("theirs", 4), Missing())
    published = tmp_path / "stated.json"
    points = {"bpp": [1, 2, 4, 8], "psnr-rgb": [28, 32, 36, 40]}
    published.write_text(json.dumps({"name": "stated", "results": points}))
    out = tmp_path / "out"
    outcome = bench(
        "rd", "--data", data, "--out", out, "--jobs", 1, "--psnr-only", "--published", published
    )
    assert outcome.exit_code == 0, outcome.output
    lines = outcome.stdout.splitlines()
    row = next(line for line in lines if line.startswith("| theirs")).split(" | ")
    assert row[1:8] == ["-25.0 % (2)"] * 7
    assert row[8:] == ["-25.0 %", "-25.0 % (2) |"]
    rates = [line for line in lines if line.startswith("| theirs")][1].split(" | ")
    assert rates[1:] == ["-25.0 % (2)", "-25.0 % (2) |"]
    assert any(line.startswith("| stated (stated: stated.json) |") for line in lines)
    assert "Not measured: missing (libnothing is not installed)." in outcome.stdout
    saved = json.loads((out / "rd.json").read_text())
    last = [r for r in saved["rows"] if r["codec"] == "ours" and r["picture"] == "a.png"][-1]
    assert (last["bytes"], last["exact"], last["psnr"]) == (3 * 256, True, None)
    theirs = json.loads((out / "compressai" / "theirs.json").read_text())
    assert theirs["name"] == "theirs"
    assert theirs["results"]["bpp"] == sorted(theirs["results"]["bpp"])
    assert len(theirs["results"]["bpp"]) == len(theirs["results"]["psnr-rgb"]) == 7
    pytest.importorskip("matplotlib")
    assert (out / "rd-psnr.svg").exists()
    assert (out / "rd-psnr.png").exists()


def test_what_is_only_stated_of_kodak_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("bjontegaard")
    for number in range(1, 25):
        waves(16).save(tmp_path / f"kodim{number:02}.png")
    measure_only(monkeypatch, "lossless", replace(PNG, name=ours.NAME))
    measure_only(monkeypatch, "rd", Steps("ours", 3), Steps("theirs", 4))
    run = ("--data", tmp_path, "--jobs", 1)
    whole = bench("lossless", *run).stdout
    own = float(next(line for line in whole.splitlines() if "| diffcodec |" in line).split("|")[2])
    (emma,) = (line.split(" | ") for line in whole.splitlines() if "EMMA (stated)" in line)
    assert emma[1:4] == ["2.604", "9,214,201", "-"]
    assert float(emma[4].split(" %")[0]) == pytest.approx(100 * (own / 2.604 - 1), abs=0.1)
    assert "only stated: GraLIC 1.11, LEA 0.6, BMF 2.01 -s, EMMA by " in whole
    rates = bench("rd", *run, "--psnr-only")
    assert "| VTM (stated: CompressAI" in rates.stdout, rates.output
    # Of some of them, nothing that is a mean over all can be said.
    assert "(stated" not in bench("lossless", *run, "--limit", 8).stdout
    assert "(stated" not in bench("rd", *run, "--limit", 8, "--psnr-only").stdout


def test_a_missing_metric_is_named(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    gone = ("pytorch_msssim", "ssimulacra2", "bjontegaard")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in gone else find_spec(name)
    )
    measure_only(monkeypatch, "rd", Steps("ours", 3), Steps("theirs", 4))
    outcome = bench("rd", "--data", data, "--jobs", 1)
    assert outcome.exit_code == 0, outcome.output
    assert "Not measured: ms_ssim (pytorch-msssim is not installed)." in outcome.stdout
    assert "Not measured: ssimulacra2 (ssimulacra2 is not installed)." in outcome.stdout
    assert "No BD rates: bjontegaard is not installed." in outcome.stdout


def test_rd_leaves_out_pictures_that_do_not_reach_a_level() -> None:
    wide = [(1000, 27.0), (9000, 41.0)]
    rows = [
        {"codec": codec, "picture": picture, "bytes": size, "psnr": level, "exact": False}
        for codec, narrow in (("ours", ""), ("theirs", "b"))
        for picture in "ab"
        for size, level in (wide[:1] if picture == narrow else wide)
    ]
    text = rd.equal_psnr({"rows": rows})
    assert text.splitlines()[2].split(" | ")[1:] == ["+0.0 % (1)"] * 7 + ["+0.0 %", "- |"]


def test_processes_that_are_timed_load_no_more_than_their_codec() -> None:
    code = "import sys, bench.worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_an_unknown_codec_is_told_the_known_ones(data: Path) -> None:
    outcome = bench("lossless", "--data", data, "--codec", "nothing")
    assert outcome.exit_code == 2
    told = outcome.output.replace("\n", " ")
    assert "nothing is none of diffcodec, diffcodec fitted, diffcodec RGB, PNG" in told


def test_slow_peers_wait_until_they_are_asked_for() -> None:
    for every in (catalogue.lossless_codecs(), catalogue.rd_codecs()):
        names = [codec.name for codec in every]
        assert len(set(names)) == len(names)
        slow = sorted(catalogue.SLOW & set(names))
        assert slow
        assert [c.name for c in chosen(every, [])] == [n for n in names if n not in slow]
        assert [c.name for c in chosen(every, [], slow=True)] == names
        assert [c.name for c in chosen(every, slow[:1])] == slow[:1]


def test_an_encoder_without_a_tune_is_named() -> None:
    options = {"advanced": {"tune": "nothing"}}
    codec = peers.PillowCodec("AVIF", (50,), format="AVIF", feature="avif", options=options)
    with pytest.raises(codecs.MissingError, match=r"refuses .*nothing|without avif"):
        codec.version()


def test_speed_measures_a_process() -> None:
    held = bytes(range(256)) * 1_500_000  # what the bench itself holds must not count
    usage = speed.measure_process(
        [sys.executable, "-c", "import time; b = b'x' * 200_000_000; time.sleep(0.2); print('hi')"]
    )
    assert usage.seconds >= 0.2
    assert 200e6 < usage.peak_bytes < 300e6 < len(held)
    assert usage.output == "hi"
    with pytest.raises(BenchError, match="exit code 1 ValueError: no"):
        speed.measure_process([sys.executable, "-c", "raise ValueError('no')"])


def test_parts_that_a_small_picture_has_not_leave_their_places_empty() -> None:
    same = {"width": 9, "height": 9, "run": 1, "state": "cold", "peak_bytes": 1 << 20}
    rows = [
        {**same, "codec": codec, "picture": name, "task": task, "seconds": 2.0}
        for codec, name, task in (
            (ours.NAME, "small", "encode"),
            (ours.NAME, "large", "encode"),
            (ours.NAME, "large", "region"),
            ("PNG", "large", "encode"),
        )
    ]
    lines = [line.split(" | ") for line in speed.summary({"rows": rows}).splitlines()[2:5]]
    small, large, peer = ([cell.strip("| ") for cell in line[2:]] for line in lines)
    assert small == ["1", "-", "2", "-", "1", "-"]
    assert large == ["1", "1", "2", "2", "1", "1"]
    assert peer == ["1", "-", "2", "-", "1", "-"]


def test_sizes_are_made_by_cutting_and_mirroring() -> None:
    image = noise(20, 10)
    assert np.array_equal(pixels(speed.resized(image, 0.0002)), pixels(image))
    assert np.array_equal(pixels(speed.resized(image, 0.00005)), pixels(image)[:5, :10])
    wide = pixels(speed.resized(image, 0.0008))
    assert wide.shape == (20, 40, 3)
    assert np.array_equal(wide[:10, 20:], pixels(image)[:, ::-1])


# Reports


def test_report_renews_the_tables_of_a_readme(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_only(monkeypatch, "lossless", PNG)
    out = tmp_path / "out"
    bench("lossless", "--data", data, "--out", out / "small", "--jobs", 1)
    readme = tmp_path / "README.md"
    text = "before\n<!-- bench:small/lossless -->\nold\n<!-- /bench -->\nafter\n"
    readme.write_text(text)
    for _ in range(2):  # what was renewed can be renewed again
        outcome = bench("report", "--out", out, "--readme", readme)
        assert outcome.exit_code == 0, outcome.output
        lines = readme.read_text().splitlines()
        assert lines[:2] == ["before", "<!-- bench:small/lossless -->"]
        assert lines[-2:] == ["<!-- /bench -->", "after"]
        assert "old" not in lines
        assert sum(line.startswith("| PNG |") for line in lines) == 1
    readme.write_text(text.replace("small", "gone"))
    assert "no results in lossless.json" in bench("report", "--out", out, "--readme", readme).output
    readme.write_text("no place")
    assert "has no line" in bench("report", "--out", out, "--readme", readme).output


def test_commands_name_no_folders_of_this_machine() -> None:
    told = results.command(["rd", "--data", "/home/me/kodak", "--out", "out/kodak"])
    assert told == "python -m bench rd --data kodak --out out/kodak"


def test_known_counts_pixels_that_prefixes_show_right(tmp_path: Path) -> None:
    y, x = np.mgrid[:40, :56]
    image = Image.fromarray(np.stack([(x // 7 + y // 5) % 3 * 90] * 3, -1).astype(np.uint8))
    image.save(tmp_path / "drawing.png")
    for colours in (3, 300):
        many = np.asarray(image).copy()
        many[..., 0] += (np.arange(many[..., 0].size) % (colours // 3)).reshape(40, 56).astype("u1")
        data = known.interlaced(Image.fromarray(many))
        with Image.open(io.BytesIO(data)) as back:
            assert back.info["interlace"]
            assert np.array_equal(back.convert("RGB"), many)
        assert np.array_equal(known.partial(data, many.shape), many)
        right = [
            known._right(known.partial(data[:size], many.shape), many)
            for size in (40, len(data) // 2, len(data))
        ]
        assert right == sorted(right)
        assert right[0] < right[1] < right[2] == 1
    outcome = bench("known", "--jobs", 1, "--data", tmp_path, "--out", tmp_path / "out")
    assert outcome.exit_code == 0, outcome.output
    rows = json.loads((tmp_path / "out" / "known.json").read_text())["rows"]
    shares = [row["diffcodec"] for row in rows]
    assert len(shares) == len(known.SHARES)
    assert shares[0] < shares[-2] < shares[-1] == 1
    assert "interlaced PNG" in outcome.output


def test_only_the_named_pictures_are_measured(tmp_path: Path) -> None:
    for name in "abc":
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    (tmp_path / "names.txt").write_text("c.png\na.png\n")
    found = find(tmp_path, only=tmp_path / "names.txt")
    assert [picture.name for picture in found] == ["a.png", "c.png"]


def test_what_lossy_files_decode_to_is_measured_as_what_it_was_converted_from(
    tmp_path: Path,
) -> None:
    waves(128).save(tmp_path / "waves.png")
    outcome = bench("decoded", "--data", tmp_path, "--out", tmp_path / "decoded")
    assert outcome.exit_code == 0
    files = find(tmp_path / "decoded")
    assert [file.path.stem for file in files] == [f"waves-{kind}" for kind in decoded.KINDS]
    plain = peers.ImagecodecsCodec("plain", format="jpegxl", options={"lossless": True})
    planes = Planes("planes", format="jpegxl", options={"lossless": True})
    skip_if_missing(planes)
    for file in files:
        image = file.load()
        data = planes.encode(image, "lossless")
        assert planes.decode(data).tobytes() == image.tobytes()
        assert len(data) < len(plain.encode(image, "lossless"))
