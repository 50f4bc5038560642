import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from torch import Tensor

import diffcodec
from bench import density
from bench.__main__ import main
from bench.likelihood import rmse
from diffcodec.container import BITS_BACK, SetHeader, write_set_header
from diffcodec.errors import ImageError
from diffcodec.gaussian.likelihood import Estimate, Likelihood
from diffcodec.gaussian.model import GaussianModel
from diffcodec.gaussian.process import alpha, sigma
from diffcodec.gaussian.schedule import LinearLogSnr

MODEL = "abcdef01"
GREY = 100
CUTS = {12: 20, 24: 10, 36: 5}  # bytes of a channel-coded prefix, and by how much it is off


def grey(value: int) -> Image.Image:
    return Image.new("RGB", (4, 4), (value, value, value))


class Fake:
    """The public API with figures that can be checked by hand; it notes what it is asked for."""

    def __init__(self, milestones: Sequence[int] = (*CUTS, 48)) -> None:
        self.milestones = milestones
        self.asked: list[tuple[int, dict[str, Any]]] = []

    def encode_set(
        self, images: list[Image.Image], *, method: str = "bits-back", progress: Any, **options: Any
    ) -> diffcodec.CodedSet:
        progress(0.5)
        progress(1.0)
        samples = 48 * len(images)
        sizes = tuple(image.size for image in images)
        header = SetHeader(BITS_BACK, sizes, bytes.fromhex(MODEL), 0, 0, 40)
        start = write_set_header(header)
        if method == "bits-back":
            self.chain = images
            seeds = len(images) - 2
            bits = 168 * 2 + 480 * seeds
            return diffcodec.CodedSet(start.ljust(60), samples, bits, 120, [], seeds, 480 * seeds)
        self.asked.append((len(images), options))
        stops = [diffcodec.Milestone(n, 8 * n, 8 * n - 48) for n in self.milestones]
        return diffcodec.CodedSet(start.ljust(self.milestones[-1] - 1), samples, 0, 0, stops)

    def decode_set(self, data: bytes, **_: Any) -> list[Image.Image]:
        return self.chain

    def decode_set_progressive(self, data: bytes, **_: Any) -> Iterator[diffcodec.SetPreview]:
        for used in (*(n for n in self.milestones if n <= len(data)), len(data)):
            yield diffcodec.SetPreview(used, [grey(GREY + CUTS.get(used, 0))], complete=True)

    def model_likelihood(
        self, images: list[Image.Image], *, seed: int = 0, **options: Any
    ) -> Likelihood:
        self.asked.append((len(images), options))
        noise = np.random.default_rng(seed).uniform(0, 1e-6)
        total = 2.5 if options["steps"] is None else 2.8
        terms = (0.001, total - 1.001, 1.0, total)
        return Likelihood(*(Estimate(term + noise, term / 100) for term in terms))


def stub(monkeypatch: pytest.MonkeyPatch, fake: Fake) -> Fake:
    for name in ("encode_set", "decode_set", "decode_set_progressive", "model_likelihood"):
        monkeypatch.setattr(diffcodec, name, getattr(fake, name))
    return fake


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three pictures of 4 x 4 pixels in one."""
    Image.new("RGB", (12, 4), (GREY, GREY, GREY)).save(tmp_path / "mosaic.png")
    return tmp_path / "mosaic.png"


def bench(data: Path, *arguments: str | Path) -> Result:
    words = ["likelihood", "--data", data, "--tiles", 4, "--chain", 2, "--progressive", 1]
    return CliRunner().invoke(main, list(map(str, (*words, *arguments))))


def cells(text: str, start: str) -> list[str]:
    """The line of a table that starts so."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {start}"))
    return line.strip("| ").split(" | ")


def test_the_tables_have_the_right_figures(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = stub(monkeypatch, Fake())
    out = tmp_path / "out"
    outcome = bench(data, "--bpd", 0.25, "--steps", 64, "--out", out)
    assert outcome.exit_code == 0, outcome.output
    text = outcome.stdout
    diffusion = ["0.0010 ± 0.0000", "1.4990 ± 0.0150", "1.0000 ± 0.0100", "2.5000 ± 0.0250"]
    assert cells(text, "infinitely many steps")[1:] == diffusion
    assert cells(text, "64 steps")[4] == "2.8000 ± 0.0280"
    # 96 samples: 3.5 bits/dim against 2.8; 60 bytes, of whose 480 bits 120 are borrowed.
    assert cells(text, "2 pictures")[1:9] == [
        *("0", "3.5000", "3.5000", "2.8000", "+25.00 %", "5.0000", "120", "25.00 %")
    ]
    assert cells(text, "12") == ["12", "2.0000", "1.0000", "2.000", "20.00"]
    assert cells(text, "24") == ["24", "4.0000", "3.0000", "1.333", "10.00"]
    assert cells(text, "36") == ["36", "6.0000", "5.0000", "1.200", "5.00"]
    assert not any(line.startswith("| 48") for line in text.splitlines())  # the file ends before
    ddpm = cells(text, "DDPM")
    assert "published, not measured" in ddpm[0]
    assert ddpm[1:] == ["-", "1.78", "-", "0.95"]
    assert fake.asked == [
        (3, {"steps": None, "model": None}),
        (3, {"steps": 64, "model": None}),
        (2, {"steps": 64, "draws": 64, "model": None}),
        (1, {"bpp": 0.75, "model": None}),
    ]
    saved = json.loads((out / "likelihood.json").read_text())
    assert saved["model"] == MODEL
    assert saved["pictures"] == {"likelihood": 3, "bits_back": 2, "channel": 1}
    with (out / "likelihood.csv").open() as file:
        rows = [(int(row["bytes"]), float(row["rmse"])) for row in csv.DictReader(file)]
    assert rows == list(CUTS.items())
    pytest.importorskip("matplotlib")
    assert (out / "likelihood.svg").exists()
    assert (out / "likelihood.png").exists()


def test_seeds_do_not_count_against_the_bound(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = stub(monkeypatch, Fake())
    found = cells(bench(data, "--chain", 3).stdout, "3 pictures")
    # Of 144 samples 48 have 10 bits each, the others 3.5.
    assert found[1:6] == ["1", "5.6667", "3.5000", "2.8000", "+25.00 %"]
    assert fake.asked[2][0] == 2
    outcome = bench(data, "--chain", 1)
    assert "the chain needs two more" in outcome.output


def test_a_planted_fault_fails_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(monkeypatch, Fake())
    wrong = grey(GREY)
    wrong.putpixel((3, 3), (GREY, GREY, GREY + 1))
    monkeypatch.setattr(diffcodec, "decode_set", lambda data, **_: [grey(GREY), wrong])
    outcome = bench(data, "--out", tmp_path / "out")
    assert outcome.exit_code == 1
    assert "Error: diffcodec is not lossless on mosaic.png[0,1]" in outcome.output
    assert not (tmp_path / "out").exists()


def test_what_diffcodec_refuses_is_told(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Likelihood:
        raise ImageError("A likelihood needs two tiles.")

    stub(monkeypatch, Fake())
    monkeypatch.setattr(diffcodec, "model_likelihood", refuse)
    outcome = bench(data)
    assert outcome.exit_code == 1
    assert "Error: A likelihood needs two tiles." in outcome.output


def test_two_runs_give_the_same_figures(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(monkeypatch, Fake())
    first, second = tmp_path / "first", tmp_path / "second"
    figures = []
    for out in (first, second):
        assert bench(data, "--out", out).exit_code == 0
        document = json.loads((out / "likelihood.json").read_text())
        for task in ("encode", "decode"):
            assert document["bits_back"].pop(f"{task}_seconds") >= 0
        figures.append(document)
    assert figures[0] == figures[1]
    for kind in ("csv", "svg", "png"):
        name = f"likelihood.{kind}"
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_many_milestones_are_thinned_out(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(monkeypatch, Fake(range(100, 400)))
    assert bench(data, "--out", tmp_path / "out").exit_code == 0
    rows = json.loads((tmp_path / "out" / "likelihood.json").read_text())["rows"]
    sizes = [row["bytes"] for row in rows]
    assert sizes == sorted(set(sizes))
    assert (len(sizes), sizes[0], sizes[-1]) == (40, 100, 398)


def test_reports_have_the_tables(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(monkeypatch, Fake())
    results = tmp_path / "results"
    assert bench(data, "--out", results / "gaussian").exit_code == 0
    readme = tmp_path / "README.md"
    readme.write_text("<!-- bench:gaussian/likelihood -->\nold\n<!-- /bench -->\n")
    for arguments in (["--out", results, "--readme", readme], ["--out", results / "gaussian"]):
        outcome = CliRunner().invoke(main, ["report", *map(str, arguments)])
        assert outcome.exit_code == 0, outcome.output
    lines = readme.read_text().splitlines()
    assert "old" not in lines
    assert sum(line.startswith(("| 128 steps", "| 2 pictures")) for line in lines) == 2
    report = (results / "gaussian" / "report.md").read_text()
    assert "## Likelihood" in report
    assert cells(report, "36")[4] == "5.00"
    assert "![likelihood](likelihood.svg)" in report


def test_rmse_is_over_all_samples() -> None:
    assert rmse([grey(10), grey(10)], [grey(13), grey(9)]) == pytest.approx(5**0.5)
    assert rmse([grey(0)], [grey(255)]) == 255  # no wrap-around of bytes
    wide = Image.new("RGB", (4, 12), (1, 1, 1))
    assert rmse([grey(4), wide], [grey(0), wide]) == pytest.approx(2)


# --- the model as a density -----------------------------------------------------------------------


def linear(deviation: float = 0.1) -> GaussianModel:
    """The best model of white data of this deviation around mid-grey."""

    def network(z: Tensor, log_snr: Tensor) -> Tensor:
        level = log_snr[:, None, None, None]
        a, s = alpha(level), sigma(level)
        return deviation**2 * a / (deviation**2 * a**2 + s**2) * z

    return GaussianModel(network, LinearLogSnr(11.0, -5.0), kind="x")


@pytest.fixture
def white(tmp_path: Path) -> Path:
    """Six such pictures of 8 x 8 pixels in one."""
    values = 127.5 + 12.8 * np.random.default_rng(0).normal(size=(8, 48, 3))
    Image.fromarray(values.round().clip(0, 255).astype(np.uint8)).save(tmp_path / "white.png")
    return tmp_path / "white.png"


def test_the_bound_falls_to_the_flow(
    white: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the best model of data that it knows, both are their entropy."""
    monkeypatch.setattr(density, "differentiable", lambda file: linear())
    words = ["density", "--data", white, "--tiles", 8, "--steps", "10,200", "--flow-steps", 40]
    out = tmp_path / "out"
    outcome = CliRunner().invoke(main, list(map(str, (*words, "--out", out))))
    assert outcome.exit_code == 0, outcome.output
    document = json.loads((out / "density.json").read_text())
    rows = {row["estimate"]: row for row in document["rows"]}
    names = ["bound, 10 steps", "bound, 200 steps", "bound, infinitely many steps"]
    names += [f"flow, {count} steps" for count in ("20", "40", "infinitely many")]
    assert list(rows) == names
    entropy = np.log2(12.8 * np.sqrt(2 * np.pi * np.e))
    limit, flow = rows[names[2]], rows[names[5]]
    assert limit["bits_per_dim"] == pytest.approx(entropy, abs=5 * limit["error"] + 0.05)
    assert abs(flow["difference"]) < 4 * flow["difference_error"] + 0.01
    assert rows[names[0]]["difference"] > 3 * rows[names[1]]["difference"] > 0
    errors = [abs(rows[name]["bits_per_dim"] - flow["bits_per_dim"]) for name in names[3:5]]
    assert errors[0] == pytest.approx(4 * errors[1], rel=1e-3)
    for name in names:
        found = cells(outcome.stdout, name)
        assert found[1].startswith(f"{rows[name]['bits_per_dim']:.4f} ±")
        assert (found[2] == "-") == (name == names[2])
    assert cells(outcome.stdout, "iDDPM")[1:] == ["2.94", "-"]
    assert "stated" in cells(outcome.stdout, "VDM")[0]
    assert "2.951, real bits" in cells(outcome.stdout, "NeuralCompression")[1]
    pytest.importorskip("matplotlib")
    assert (out / "density.svg").exists()


def test_a_density_needs_pictures_of_one_size(white: Path, tmp_path: Path) -> None:
    Image.open(white).crop((0, 0, 8, 8)).save(tmp_path / "b.png")
    for data in (white, tmp_path):
        outcome = CliRunner().invoke(main, ["density", "--data", str(data)])
        assert "two pictures or more, all of one size" in outcome.output
    outcome = CliRunner().invoke(main, ["density", "--data", str(white), "--steps", "1,b"])
    assert "1,b is not a list of numbers" in outcome.output
