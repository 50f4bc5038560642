"""The command line of the Gaussian process, with its real model on tiny pictures."""

import io
import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import diffcodec
from diffcodec.cli import main
from diffcodec.cli.sets import GAUSSIAN_SAMPLERS
from diffcodec.density import Sampler

WEIGHTS = Path(diffcodec.__file__).parent / "weights"
PHOTO, GAUSSIAN = str(WEIGHTS / "photo.safetensors"), str(WEIGHTS / "gaussian-32.safetensors")
SIZES = {"a.png": (12, 8), "b.png": (5, 7)}


def run(*arguments: str, stdin: bytes | None = None) -> Result:
    result = CliRunner().invoke(main, arguments, input=stdin)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception  # a traceback is no message
    return result


def done(*arguments: str, stdin: bytes | None = None) -> Result:
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.stderr
    return result


def refused(result: Result, *words: str, code: int = 1) -> None:
    """The command ended with this code and said these words on standard error only."""
    assert result.exit_code == code
    for word in words:
        assert word in result.stderr
    assert result.stdout == ""
    if code == 1:
        assert result.stderr.startswith("diffcodec: ")
        assert "Traceback" not in result.stderr


def picture(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    """A smooth picture: reverse channel coding of noise takes long."""
    y, x, c = np.mgrid[: size[1], : size[0], :3]
    return Image.fromarray((90 + 3 * x + 2 * y + 9 * c).astype(np.uint8)).convert(mode)


def pixels(path: Path | str) -> tuple[tuple[int, int], bytes]:
    with Image.open(path) as image:
        return image.size, image.convert("RGB").tobytes()


def damage(path: str, data: bytes, place: int) -> None:
    """Write a file with one bit that is wrong."""
    Path(path).write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])


def contents() -> set[str]:
    return {str(path) for path in Path().rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with two pictures of different sizes."""
    monkeypatch.chdir(tmp_path)
    for name, size in SIZES.items():
        picture(size).save(name)


@pytest.fixture(scope="module")
def coded() -> dict[str, bytes]:
    """The files of both methods, of the pictures in the folder."""
    images = [picture(size) for size in SIZES.values()]
    return {
        "bits-back": diffcodec.encode_set(images).data,
        "channel": diffcodec.encode_set(images, method="channel", bpp=3).data,
    }


@pytest.fixture
def lossless(coded) -> Path:
    path = Path("lossless.dfc")
    path.write_bytes(coded["bits-back"])
    return path


@pytest.fixture
def rough(coded) -> Path:
    path = Path("rough.dfc")
    path.write_bytes(coded["channel"])
    return path


# --- encode and decode ----------------------------------------------------------------------------


def test_bits_back_gives_all_pictures_back(coded):
    result = done("encode", "--method", "bits-back", "b.png", "a.png", "b.png", "-o", "set.dfc")
    (line,) = result.stdout.splitlines()
    size = Path("set.dfc").stat().st_size
    samples = 3 * (12 * 8 + 2 * 5 * 7)
    gross = f"set.dfc: 3 pictures, {size:,} bytes, {8 * size / samples:.3f} bits/dim, "
    assert line.startswith(gross)
    assert "initial bits" not in line  # the first pictures have lent them
    assert result.stderr == ""

    result = done("decode", "set.dfc")
    assert result.stdout.startswith("set: 3 pictures, ")
    assert contents() - set(SIZES) == {"set.dfc", *(f"set/000{number}.png" for number in range(3))}
    for number, name in enumerate(("b.png", "a.png", "b.png")):
        assert pixels(f"set/000{number}.png") == pixels(name)


def test_exact_samples_on_request():
    arguments = ["encode", "--method", "channel", "--bpp", "2", "a.png", "-o", "set.dfc"]
    done(*arguments, "--exact")
    assert "channel, exact" in done("info", "set.dfc").stdout
    exact = Path("set.dfc").read_bytes()
    done(*arguments)
    assert "exact" not in done("info", "set.dfc").stdout
    assert Path("set.dfc").read_bytes() != exact
    for method in ("single", "bits-back"):
        refused(
            run("encode", "--method", method, "--exact", "a.png", "-o", "set.dfc"),
            f"--exact does not go with --method {method}",
            code=2,
        )


def test_a_channel_set_has_at_most_the_bytes_of_its_limit():
    arguments = ["encode", "--method", "channel", "--bpp", "3", "*.png", "-o", "set.dfc"]
    (line,) = done(*arguments).stdout.splitlines()
    size = Path("set.dfc").stat().st_size
    assert size <= 3 * (12 * 8 + 5 * 7) / 8
    assert line.startswith(f"set.dfc: 2 pictures, {size:,} bytes, ")
    ratio = float(line.split("actual over ideal bits ")[1].split(",")[0])
    assert 1 < ratio < 3
    done("decode", "set.dfc", "-o", "out")
    found = [pixels(f"out/000{number}.png") for number in range(2)]
    assert [size for size, _ in found] == list(SIZES.values())
    for name, (_, shown) in zip(SIZES, found, strict=True):
        error = np.frombuffer(pixels(name)[1], np.uint8) - np.frombuffer(shown, np.uint8).astype(
            int
        )
        assert np.abs(error).mean() < 32, "a rough picture, but that one"


def test_folders_are_searched():
    Path("photos/deep").mkdir(parents=True)
    Path("photos/note.txt").write_text("no picture")
    picture((4, 4)).save("photos/deep/c.png")
    encode = ["encode", "--method", "channel", "--bpp", "16", "photos", "-o", "set.dfc"]
    refused(run(*encode), "nothing to do in photos", "--recursive")
    assert "1 picture," in done(*encode, "--recursive").stdout
    assert diffcodec.set_info(Path("set.dfc").read_bytes()).groups[0].width == 4


def test_one_picture_may_go_to_a_file_or_through_pipes():
    data = Path("b.png").read_bytes()
    result = done("encode", "--method", "bits-back", "-", "-o", "-", stdin=data)
    assert " bits/dim, " in result.stderr, "the line must not get into the data"
    Path("one.dfc").write_bytes(result.stdout_bytes)

    assert done("decode", "one.dfc", "-o", "out.png").stdout.startswith("out.png: 5x7 RGB, ")
    assert pixels("out.png") == pixels("b.png")
    refused(run("decode", "one.dfc", "-o", "out.gif"), "suffix .gif is unknown")
    shown = done("decode", "-", stdin=result.stdout_bytes).stdout_bytes
    assert Image.open(io.BytesIO(shown)).tobytes() == pixels("b.png")[1]

    done("decode", "one.dfc")
    assert pixels("one/0000.png") == pixels("b.png")


def test_what_the_state_leaves_open_can_be_drawn(rough):
    shown = {}
    for name, *options in (
        ("mean",),
        ("sample", "--show", "sample"),
        ("other", "--show", "sample", "--seed", "1"),
        ("again", "--show", "sample", "--seed", "1"),
        ("flow", "--show", "flow"),
        ("less", "--bpp", "2"),
    ):
        result = done("decode", "rough.dfc", "-o", name, *options)
        assert result.stderr == "", "a limit was asked for: no preview by accident"
        shown[name] = pixels(f"{name}/0000.png")
    assert shown["other"] == shown["again"]
    assert len(set(shown.values())) == 5


def test_cut_sets(rough, lossless, coded):
    total = len(coded["channel"])
    rough.write_bytes(coded["channel"][:-8])
    result = done("decode", "rough.dfc")
    assert f"truncated, {total - 8} of {total} bytes: this is a preview" in result.stderr
    assert [pixels(f"rough/000{n}.png")[0] for n in range(2)] == list(SIZES.values())
    lossless.write_bytes(coded["bits-back"][:-8])
    refused(run("decode", "lossless.dfc"), "The set is cut", "no previews")
    assert not Path("lossless").exists()


@pytest.mark.parametrize("method", ["bits-back", "channel"])
def test_a_wrong_checksum_is_refused(coded, method):
    damage("set.dfc", coded[method], 4)
    refused(run("decode", "set.dfc"), "corrupt")
    assert not Path("set").exists()


def test_a_damaged_bits_back_stream_is_refused(coded):
    damage("set.dfc", coded["bits-back"], len(coded["bits-back"]) // 2)
    refused(run("decode", "set.dfc"), "corrupt")


def test_a_damaged_channel_stream_is_refused(coded):
    damage("set.dfc", coded["channel"], len(coded["channel"]) // 2)
    refused(run("decode", "set.dfc"), "corrupt")


def test_pictures_that_were_not_named_are_not_replaced(lossless):
    Path("lossless").mkdir()
    picture((3, 3)).save("lossless/0001.png")
    before = contents()
    refused(run("decode", "lossless.dfc"), "lossless/0001.png exists", "-o", "--force")
    assert contents() == before
    assert pixels("lossless/0001.png")[0] == (3, 3)
    done("decode", "lossless.dfc", "--force")
    assert pixels("lossless/0001.png") == pixels("b.png")
    picture((3, 3)).save("lossless/0001.png")
    done("decode", "lossless.dfc", "-o", "lossless")
    assert pixels("lossless/0001.png") == pixels("b.png")


def test_a_set_is_never_written_over_what_it_is_made_of(lossless):
    data = lossless.read_bytes()
    refused(run("encode", "--method", "bits-back", "a.png", "-o", "a.png"), "is an input")
    Path("0000.png").write_bytes(data)
    refused(run("decode", "0000.png", "-o", "."), "is an input")
    assert Path("0000.png").read_bytes() == data


@pytest.mark.parametrize("output", ["out.png", "-", "a.txt"])
def test_several_pictures_need_a_folder(lossless, output):
    Path("a.txt").write_text("a note")
    before = contents()
    result = run("decode", "lossless.dfc", "-o", output)
    refused(result, "folder", code=2)
    assert contents() == before


def test_a_set_among_many_files_is_left_to_a_run_of_its_own(lossless):
    done("encode", "a.png")
    Path("a.png").unlink()
    result = run("decode", "a.dfc", "lossless.dfc")
    assert result.exit_code == 1
    assert "lossless.dfc is a set of pictures: decode it by itself" in result.stderr
    assert pixels("a.png")[0] == SIZES["a.png"]


# --- what does not go together --------------------------------------------------------------------


@pytest.mark.parametrize("method", ["bits-back", "channel"])
@pytest.mark.parametrize(
    "options",
    [
        ["--max-bytes", "99"],
        ["--psnr", "30"],
        ["--jobs", "2"],
        ["--scheduler", "tcp://host:1"],
        ["--force"],
    ],
)
def test_a_set_refuses_options_of_many_files(method, options):
    arguments = ["encode", "--method", method, "a.png", "b.png", "-o", "set.dfc"]
    refused(run(*arguments, *options), f"{options[0]} does not go with --method {method}", code=2)
    assert contents() == set(SIZES)


def test_encode_refuses_what_a_set_cannot_be():
    bits_back = ["encode", "--method", "bits-back", "a.png"]
    refused(run(*bits_back, "--bpp", "2", "-o", "set.dfc"), "--bpp does not go with", code=2)
    refused(run(*bits_back), "name it with -o", code=2)
    refused(run(*bits_back, "-o", "."), "must not be a folder", code=2)
    refused(run("encode", "--method", "other", "a.png"), "other", code=2)
    refused(run(*bits_back, "missing.png", "-o", "set.dfc"), "cannot read missing.png")
    small = ["encode", "--method", "channel", "--bpp", "0.1", "a.png", "-o", "set.dfc"]
    refused(run(*small), "too small: header and metadata take")
    assert contents() == set(SIZES)


def test_decode_refuses_what_a_file_has_not(lossless):
    refused(run("decode", "lossless.dfc", "--bpp", "2"), "--bpp does not go with", code=2)
    refused(run("decode", "lossless.dfc", "--max-bytes", "9"), "--max-bytes does not", code=2)
    refused(run("decode", "lossless.dfc", "--live", "x.png"), "set of pictures")
    done("encode", "a.png")
    flow = ["--show", "flow"]
    refused(run("decode", "a.dfc", "-o", "x.png", *flow), "--show flow", "a.dfc", code=2)
    refused(run("decode", "a.dfc", "lossless.dfc", *flow), "--show flow", code=2)
    visual = run("decode", "lossless.dfc", "--show", "visual")
    refused(visual, "--show visual", "lossless.dfc", code=2)
    assert contents() == {*SIZES, "a.dfc", "lossless.dfc"}


@pytest.mark.parametrize("method", ["bits-back", "channel"])
def test_the_wrong_kind_of_model_is_refused(method):
    arguments = ["encode", "a.png", "-o", "x.dfc", "--method", method]
    refused(run(*arguments, "--model", PHOTO), "The model file is of the process")
    assert contents() == set(SIZES)


def test_the_wrong_kind_of_model_is_refused_elsewhere_too(rough):
    refused(run("encode", "a.png", "--model", GAUSSIAN), "The model file is of the process")
    refused(run("decode", "rough.dfc", "--model", PHOTO), "The model file is of the process")
    refused(
        run("sample", "-o", "s.png", "--sampler", "ddim", "--model", PHOTO),
        "of the process quantised",
    )
    refused(run("sample", "-o", "s.png", "--model", GAUSSIAN), "The model file is of the process")
    refused(run("likelihood", "a.png", "--model", PHOTO), "The model file is of the process")
    assert contents() == {*SIZES, "rough.dfc"}


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("L", "odd.tif is L"),
        ("RGBA", "odd.tif is RGBA"),
        ("CMYK", "odd.tif: pictures of mode CMYK"),
    ],
)
@pytest.mark.parametrize(
    "command", [["encode", "--method", "bits-back", "-o", "x"], ["likelihood"]]
)
def test_other_kinds_of_pictures_are_named(mode, words, command):
    picture((4, 4), mode).save("odd.tif")
    refused(run(*command, "a.png", "odd.tif"), words)


def test_samples_of_16_bits_are_refused():
    done("encode", "a.png")
    deep = np.full((4, 4, 3), 999, np.uint16)
    Path("deep.dfc").write_bytes(diffcodec.encode(deep))
    done("decode", "deep.dfc")
    refused(run("encode", "--method", "channel", "deep.png", "-o", "x"), "deep.png is RGB", "16")


# --- info -----------------------------------------------------------------------------------------


def test_info_tells_of_a_set(lossless, rough):
    for path, method in ((lossless, "bits-back"), (rough, "channel")):
        result = done("info", str(path))
        fields = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
        size = path.stat().st_size
        found = diffcodec.set_info(path.read_bytes())
        assert fields == {
            "set": "2 pictures: 1 of 12x8, 1 of 5x7",
            "model": found.model,
            "checksum": f"{found.checksum:08x}",
            "coding": method,
            "file": f"complete, {size:,} bytes, {8 * size / (12 * 8 + 5 * 7):.3f} bpp",
        }


def test_info_of_a_set_as_json(coded):
    total = len(coded["channel"])
    found = json.loads(done("info", "-", "--json", stdin=coded["channel"][:-5]).stdout)
    assert (len(found.pop("model")), type(found.pop("checksum"))) == (8, int)
    assert found == {
        "method": "channel",
        "exact": False,
        "pictures": 2,
        "groups": [
            {"count": 1, "width": 12, "height": 8},
            {"count": 1, "width": 5, "height": 7},
        ],
        "complete": False,
        "bytes": total - 5,
        "total_bytes": total,
    }


def test_info_of_a_set_that_is_cut_or_longer(rough, coded):
    total = len(coded["channel"])
    rough.write_bytes(coded["channel"][:-5])
    assert f"truncated, {total - 5} of {total} bytes" in done("info", "rough.dfc").stdout
    rough.write_bytes(coded["channel"] + b"more")
    assert "4 bytes after its end are ignored" in done("info", "rough.dfc").stdout
    rough.write_bytes(coded["channel"][:14])
    refused(run("info", "rough.dfc"), "ends inside its header")


def test_a_set_has_no_original(rough):
    refused(run("info", "rough.dfc", "--against", "a.png"), "--against does not go", code=2)


# --- likelihood and samples -----------------------------------------------------------------------


def test_likelihood_prints_the_terms():
    picture((64, 40)).save("c.png")
    arguments = ["likelihood", "c.png", "--model", GAUSSIAN, "--draws", "2"]
    table, note = done(*arguments, "--steps", "8").stdout.split("\n\n")
    assert note == "negative ELBO of 1 picture for 8 steps\n"
    heading, *rows = table.splitlines()
    assert heading.split() == ["term", "bits/dim", "std.", "error"]
    terms = {row.split()[0]: [float(number) for number in row.split()[1:]] for row in rows}
    assert list(terms) == ["prior", "diffusion", "reconstruction", "total"]
    *parts, total = (mean for mean, _ in terms.values())
    assert total == pytest.approx(sum(parts), abs=2e-4)
    assert all(error >= 0 for _, error in terms.values())

    limit = done(*arguments).stdout
    assert "in the limit of infinitely many steps" in limit
    assert done(*arguments).stdout == limit
    assert done(*arguments, "--seed", "1").stdout != limit


def test_likelihood_refuses_too_little():
    refused(run("likelihood", "a.png", "b.png"), "two tiles of 32 x 32 pixels")
    refused(run("likelihood", "a.png", "--steps", "0"), "--steps", code=2)
    refused(run("likelihood"), "PICTURES", code=2)


def test_all_samplers_are_offered():
    assert get_args(Sampler) == GAUSSIAN_SAMPLERS


def test_samples_come_in_a_grid():
    options = ["--sampler", "ancestral", "--count", "3", "--steps", "1"]
    assert done("sample", "-o", "s.png", *options).stdout.startswith("s.png: 64x64 RGB, ")
    done("sample", "-o", "same.png", *options)
    done("sample", "-o", "other.png", *options, "--seed", "1")
    assert pixels("s.png") == pixels("same.png") != pixels("other.png")


def test_a_folder_takes_single_samples():
    options = ["--sampler", "ddim", "--count", "3", "--steps", "1"]
    assert done("sample", "-o", "drawn/deep", *options).stdout.startswith("drawn/deep: 3 pictures,")
    done("sample", "-o", "grid.png", *options)
    with Image.open("grid.png") as grid:
        for number in range(3):
            place = number % 2 * 32, number // 2 * 32
            part = grid.crop((*place, place[0] + 32, place[1] + 32))
            assert pixels(f"drawn/deep/000{number}.png") == (part.size, part.tobytes())
    done("sample", "-o", "noisy", *options, "--eta", "1")
    assert pixels("noisy/0000.png") != pixels("drawn/deep/0000.png")
    Path("note").write_text("a note")
    refused(run("sample", "-o", "note", *options), "note is no folder", code=2)
    refused(run("sample", "-o", "s.gif", *options), "suffix .gif is unknown")


def test_samplers_have_options_of_their_own():
    for option in (["--count", "2"], ["--steps", "2"]):
        message = f"{option[0]} does not go with --sampler quantised"
        refused(run("sample", "-o", "s.png", *option), message, code=2)
    gaussian = ["sample", "-o", "s.png", "--sampler", "flow"]
    refused(run(*gaussian, "--eta", "0.5"), "--eta does not go with --sampler flow", code=2)
    refused(run(*gaussian, "--size", "32x32"), "--size does not go with --sampler flow", code=2)
    refused(run(*gaussian, "--count", "0"), "--count", code=2)
    assert contents() == set(SIZES)
