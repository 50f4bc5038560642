import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from bench import BenchError, codecs, lossless, rd, speed
from bench.__main__ import main
from bench.metrics import Point, bits_at_psnr, bits_per_dim, pixels, psnr
from bench.pictures import find

PEERS = [codec for codec in codecs.LOSSLESS if codec.name != "diffcodec"]


def noise(width: int, height: int) -> Image.Image:
    samples = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(samples)


def waves(side: int) -> Image.Image:
    """Something like a photograph: smooth, with a little noise."""
    y, x = np.mgrid[:side, :side] / side
    smooth = np.stack((np.sin(9 * x + 4 * y), np.sin(6 * x * y), np.cos(7 * y)), -1)
    return Image.fromarray(np.uint8(127 + 90 * smooth + 0.05 * pixels(noise(side, side))))


def skip_if_missing(codec: codecs.Codec) -> None:
    if codec.name.startswith("JPEG XL"):
        pytest.importorskip("imagecodecs")


@dataclass(frozen=True)
class Wrong:
    """The planted fault: one sample of one picture is off by one."""

    name: str = "wrong"

    def version(self) -> str:
        return "0"

    def encode(self, image: Image.Image) -> bytes:
        return codecs.PillowCodec("PNG", "PNG", "zlib", {}).encode(image)

    def decode(self, data: bytes) -> Image.Image:
        samples = pixels(codecs.PillowCodec("PNG", "PNG", "zlib", {}).decode(data)).copy()
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

    def version(self) -> str:
        return "0"

    def points(self, image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
        for bits in range(1, 9):
            step = 256 >> bits
            kept = pixels(image) // step * step + step // 2
            yield self.cost << bits, Image.fromarray(kept)


@pytest.mark.parametrize("codec", PEERS, ids=lambda codec: codec.name)
@pytest.mark.parametrize("size", [(1, 1), (37, 20), (32, 32)])
def test_peers_are_lossless(codec: codecs.Codec, size: tuple[int, int]) -> None:
    skip_if_missing(codec)
    image = noise(*size)
    assert np.array_equal(pixels(codec.decode(codec.encode(image))), pixels(image))


@pytest.mark.parametrize("codec", PEERS, ids=lambda codec: codec.name)
def test_peers_code_a_constant_image_in_few_bytes(codec: codecs.Codec) -> None:
    skip_if_missing(codec)
    image = Image.new("RGB", (64, 48), (9, 80, 200))
    data = codec.encode(image)
    assert len(data) < 300
    assert np.array_equal(pixels(codec.decode(data)), pixels(image))


@pytest.mark.parametrize("size", [(1, 1), (37, 20)])
def test_diffcodec_is_lossless(size: tuple[int, int]) -> None:
    pytest.importorskip("diffcodec.api")
    image = noise(*size)
    codec = codecs.Diffcodec()
    assert np.array_equal(pixels(codec.decode(codec.encode(image))), pixels(image))


def test_diffcodec_prefixes_lie_between_the_rungs(monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise(4, 4)
    asked = []
    stub = SimpleNamespace(
        encode=lambda image: bytes(400),
        decode_progressive=lambda data: [
            SimpleNamespace(bytes_used=size, image=image) for size in (100, 400)
        ],
        decode=lambda data, max_bytes: asked.append(max_bytes) or image,
    )
    monkeypatch.setattr(codecs, "diffcodec", stub)
    points = list(codecs.DiffcodecPrefixes(cuts=1).points(image))
    assert [size for size, _ in points] == [100, 400, 200]
    assert asked == [200]


def test_embedded_jpeg2000_is_one_file_that_grows_to_lossless() -> None:
    image = waves(128)
    codec = codecs.Jpeg2000Embedded()
    points = [(size, psnr(image, decoded)) for size, decoded in codec.points(image)]
    assert len(points) == len(codec.rates)
    assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in pairwise(points))
    assert math.isinf(points[-1][1])
    assert not math.isinf(points[len(points) // 2][1])
    # The quality layers cost little: the whole file is near the one without them.
    assert points[-1][0] < 1.1 * len(codecs.Jpeg2000().encode(image))


@pytest.mark.parametrize("irreversible", [False, True])
def test_jpeg2000_files_keep_to_their_rates(irreversible: bool) -> None:
    image = waves(128)
    codec = replace(codecs.Jpeg2000Files(irreversible), rates=(48, 24))
    sizes = [size for size, _ in codec.points(image)]
    assert sizes == pytest.approx([0.5 * 128**2 / 8, 128**2 / 8], rel=0.1)


def test_psnr_and_bits_per_dim_by_hand() -> None:
    black, grey = (Image.new("RGB", (4, 2), (v, v, v)) for v in (0, 16))
    assert psnr(black, black) == math.inf
    assert psnr(black, grey) == pytest.approx(10 * math.log10(255**2 / 256))
    assert bits_per_dim(6, black) == 2
    with pytest.raises(ValueError, match="sizes differ"):
        psnr(black, Image.new("RGB", (2, 4)))


def test_bits_at_equal_psnr_by_hand() -> None:
    curve = [Point(1000, 30), Point(4000, 40), Point(9000, math.inf)]
    assert bits_at_psnr(curve, 30) == pytest.approx(1000)
    assert bits_at_psnr(curve, 35) == pytest.approx(2000)  # halfway in dB: the geometric mean
    assert bits_at_psnr(curve, 40) == pytest.approx(4000)
    assert bits_at_psnr(curve, 29.9) is None
    assert bits_at_psnr(curve, 40.1) is None
    assert bits_at_psnr(curve, math.inf) == 9000
    assert bits_at_psnr(curve[:2], math.inf) is None
    assert bits_at_psnr([], 30) is None
    # Points that cost more and show no more change nothing.
    assert bits_at_psnr([*curve, Point(1500, 25), Point(5000, 40)], 35) == pytest.approx(2000)


def test_tiles_are_cut_row_major(tmp_path: Path) -> None:
    mosaic = noise(12, 8)
    mosaic.save(tmp_path / "mosaic.png")
    tiles = find(tmp_path, tiles=4)
    assert [tile.name for tile in tiles[2:4]] == ["mosaic.png[0,2]", "mosaic.png[1,0]"]
    assert np.array_equal(pixels(tiles[5].load()), pixels(mosaic)[4:8, 8:12])
    assert len(tiles) == 6
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


def test_lossless_reports_and_saves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise(16, 8).save(tmp_path / "a.png")
    waves(16).save(tmp_path / "b.png")
    raw = codecs.PillowCodec("raw", "PPM", "zlib", {})
    ours = replace(codecs.Jpeg2000(), name=lossless.OURS)
    text = lossless.run(find(tmp_path), [ours, raw, Missing()], tmp_path / "out")
    assert "skipped: missing (libnothing is not installed)" in capsys.readouterr().err
    saved = json.loads((tmp_path / "out" / "lossless.json").read_text())
    sizes = {(r["codec"], r["picture"]): r["bytes"] for r in saved["results"]}
    assert len(sizes) == 4
    assert sizes["raw", "a.png"] == 16 * 8 * 3 + len(b"P6\n16 8\n255\n")
    a, b = (sizes[lossless.OURS, name] / sizes["raw", name] for name in ("a.png", "b.png"))
    assert f"{100 * ((a + b) / 2 - 1):+.1f} %" in text
    assert "2 pictures" in text


def test_a_planted_fault_fails_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise(8, 8).save(tmp_path / "a.png")
    chosen = [codecs.Jpeg2000(), Wrong()]
    monkeypatch.setattr("bench.__main__.LOSSLESS", chosen)
    outcome = CliRunner().invoke(main, ["lossless", "--data", str(tmp_path)])
    assert outcome.exit_code == 1
    assert "Error: wrong is not lossless on a.png" in outcome.output


def test_rd_compares_bits_at_equal_psnr(tmp_path: Path) -> None:
    waves(64).save(tmp_path / "a.png")
    noise(64, 64).save(tmp_path / "b.png")
    text = rd.run(find(tmp_path), [Steps("ours", 3), Steps("theirs", 4)], tmp_path / "out")
    row = text.splitlines()[2].split(" | ")
    assert row[0] == "| theirs"
    assert row[1:8] == ["-25.0 % (2)"] * 7
    assert row[8:] == ["-25.0 %", "-25.0 % (2) |"]
    saved = json.loads((tmp_path / "out" / "rd.json").read_text())
    assert saved["bits_and_psnr"]["ours"]["a.png"][-1] == [8 * 3 * 256, None]
    assert saved["pixels"] == {"a.png": 4096, "b.png": 4096}
    pytest.importorskip("matplotlib")
    assert (tmp_path / "out" / "rd.svg").exists()
    assert (tmp_path / "out" / "rd.png").exists()


def test_rd_leaves_out_pictures_that_do_not_reach_a_level() -> None:
    wide = [Point(1000, 27), Point(9000, 41)]
    text = rd.table({"ours": {"a": wide, "b": wide}, "theirs": {"a": wide, "b": wide[:1]}})
    assert text.splitlines()[2].split(" | ")[1:] == ["+0.0 % (1)"] * 7 + ["+0.0 %", "- |"]


def test_speed_measures_a_process() -> None:
    ours = bytes(range(256)) * 1_500_000  # what the bench itself holds must not count
    usage = speed.measure_process(
        [sys.executable, "-c", "import time; block = b'x' * 200_000_000; time.sleep(0.2)"]
    )
    assert 0.2 <= usage.seconds < 5
    assert 200e6 < usage.peak_bytes < 300e6 < len(ours)
    with pytest.raises(BenchError, match="exit code 1 ValueError: no"):
        speed.measure_process([sys.executable, "-c", "raise ValueError('no')"])
