"""What makes a result current: a batch leaves out what was done before, and nothing else."""

import os
import shutil
import time
from pathlib import Path

import pytest
from batches import assert_whole, done, files, make_photos, picture, run, same, set_age, start

import diffcodec
from diffcodec.cli import journal
from diffcodec.exact import files as model_files


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos():
    make_photos()


def test_what_was_done_before_is_left_out(photos):
    for command in (("encode", "photos", "-o", "coded"), ("decode", "coded", "-o", "again")):
        assert done(*command) == (2, 0)
        before = {name: Path(name).stat().st_mtime_ns for name in files(command[-1])}
        assert done(*command) == (0, 2)
        assert {name: Path(name).stat().st_mtime_ns for name in before} == before
        assert done(*command, "--force") == (2, 0)
        assert done(*command, "--jobs", "2", "--threads", "1", "--device", "cpu") == (0, 2)


def test_what_two_processes_at_once_did_is_left_out(photos):
    command = ("encode", "photos", "--recursive", "-o", "out")
    together = [start(*command), start(*command)]
    for process in together:
        process.communicate()
    assert [process.returncode for process in together] == [0, 0]
    assert done(*command) == (0, 3)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (["--bpp", "14"], []),
        ([], ["--bpp", "14"]),
        (["--bpp", "14"], ["--bpp", "16"]),
        (["--psnr", "20"], ["--max-bytes", "40"]),
        (["--process", "photo"], ["--process", "drawing"]),
    ],
)
def test_options_belong_to_what_is_current(photos, first, then):
    assert done("encode", "photos", "-o", "out", *first) == (2, 0)
    assert done("encode", "photos", "-o", "out", *then) == (2, 0)
    assert done("encode", "photos", "-o", "out", *then) == (0, 2)
    assert Path("out/a.dfc").read_bytes() == encoded_by_itself("photos/a.png", then)


def encoded_by_itself(name, options):
    assert run("encode", name, "-o", "itself.dfc", *options).exit_code == 0
    return Path("itself.dfc").read_bytes()


def test_options_of_decoding_belong_to_what_is_current(photos):
    run("encode", "photos", "-o", "coded")
    limit = ("--max-bytes", "30", "--show", "sample", "--seed")
    for options in ((*limit, "1"), (*limit, "2"), ()):
        assert done("decode", "coded", "-o", "out", *options) == (2, 0)
        assert done("decode", "coded", "-o", "out", *options) == (0, 2)
    assert same("out/a.png", picture(0))


def test_options_that_change_no_byte_do_not_count(tiny_path):
    options = {"bpp": None, "strip": False, "seed": 0, "threads": 3, "device": "cpu"}
    assert journal.relevant(options) == {"seed": 0}
    assert journal.relevant({"model": tiny_path}) == {"model": journal.digest(tiny_path)}


def test_a_model_is_what_is_in_its_file(photos, tiny_path):
    model = Path("model.safetensors")
    for path, expected in ((tiny_path, (2, 0)), (tiny_path, (0, 2)), (model_files.PHOTO, (2, 0))):
        shutil.copy(path, model)
        assert done("encode", "photos", "-o", "out", "--model", str(model)) == expected


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"),
        lambda path: path.write_bytes(path.with_name(f"b{path.suffix}").read_bytes()),
        lambda path: path.unlink(),
    ],
    ids=["empty", "short", "damaged", "another", "missing"],
)
@pytest.mark.parametrize("command", ["encode", "decode"])
def test_a_harmed_target_is_made_again(photos, command, harm):
    run("encode", "photos", "-o", "coded")
    run("decode", "coded", "-o", "again")
    source, target, name = {
        "encode": ("photos", "coded", "a.dfc"),
        "decode": ("coded", "again", "a.png"),
    }[command]
    path = Path(target, name)
    whole, moment = path.read_bytes(), path.stat()
    harm(path)
    if path.exists():
        os.utime(path, ns=(moment.st_atime_ns, moment.st_mtime_ns))
    assert done(command, source, "-o", target) == (1, 1)
    assert path.read_bytes() == whole


def test_a_source_is_its_bytes_not_its_date(photos):
    assert done("encode", "photos", "-o", "out") == (2, 0)
    moment = Path("photos/a.png").stat()
    picture(5).save("photos/a.png")
    os.utime("photos/a.png", ns=(moment.st_atime_ns, moment.st_mtime_ns))
    set_age("photos/b.bmp", -1000)
    assert done("encode", "photos", "-o", "out") == (1, 1), "other bytes, and another date only"
    picture(6).save("photos/a.png")
    set_age("photos/a.png", 10**6)
    assert done("encode", "photos", "-o", "out") == (1, 1), "an older file took its place"
    assert diffcodec.decode(Path("out/a.dfc").read_bytes()).tobytes() == picture(6).tobytes()


def test_a_journal_that_is_lost_or_torn_costs_work_only(photos):
    book = Path("out", journal.NAME)
    assert done("encode", "photos", "-o", "out") == (2, 0)
    book.write_bytes(book.read_bytes()[:-20])
    assert done("encode", "photos", "-o", "out") == (1, 1)
    book.write_bytes(os.urandom(100))
    assert done("encode", "photos", "-o", "out") == (2, 0)
    book.unlink()
    assert done("encode", "photos", "-o", "out") == (2, 0)
    Path("out").rename("moved")
    assert done("encode", "photos", "-o", "moved") == (0, 2)


def test_a_journal_that_cannot_be_written_is_said(photos):
    Path("out", journal.NAME).mkdir(parents=True)
    result = run("encode", "photos", "-o", "out")
    assert result.exit_code == 1
    assert f"photos/a.png: cannot write out/{journal.NAME}: " in result.stderr
    assert_whole(Path("out/a.dfc"))


def test_a_batch_that_was_killed_goes_on():
    Path("photos").mkdir()
    for number in range(12):
        picture(number, (24, 24)).save(f"photos/{number:02}.png")
    process = start("encode", "photos", "-o", "out")
    book = Path("out", journal.NAME)
    deadline = time.time() + 120
    while time.time() < deadline and not (book.exists() and book.read_bytes().count(b"\n") > 1):
        time.sleep(0.01)
    process.kill()
    process.communicate()
    left = len(files("out"))
    assert 1 < left < 12
    again, before = done("encode", "photos", "-o", "out")
    assert again + before == 12
    assert before in (left - 1, left), "the last one may not have been entered yet"
    for path in Path("out").glob("*.dfc"):
        assert_whole(path)
