"""Folders and patterns of files, in one process and in several."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from batches import ROOT, assert_whole, done, files, make_photos, picture, run, same, set_age, start
from click.testing import CliRunner
from PIL import Image

import diffcodec
from diffcodec.cli import batch, main, tasks
from diffcodec.errors import DiffcodecError, ImageError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos():
    make_photos()


def test_a_folder(photos):
    before = files("photos")
    result = run("encode", "photos")
    assert result.exit_code == 0
    assert files("photos") - before == {"photos/a.dfc", "photos/b.dfc"}
    *lines, summary = result.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["photos/a.dfc", "photos/b.dfc"]
    raw, coded = 2 * 20, sum(Path(f"photos/{name}.dfc").stat().st_size for name in "ab")
    assert summary.startswith(f"2 done: {raw / coded:.2f}:1, ")


def test_a_tree_there_and_back(photos):
    assert run("encode", "photos", "--recursive", "-o", "coded").exit_code == 0
    assert files("coded") == {"coded/a.dfc", "coded/b.dfc", "coded/deep/c.dfc"}
    assert run("decode", "coded", "--recursive", "-o", "again").exit_code == 0
    assert files("again") == {"again/a.png", "again/b.png", "again/deep/c.png"}
    for number, name in enumerate(("a", "b", "deep/c")):
        assert same(f"again/{name}.png", picture(number))


def test_patterns(photos):
    assert run("encode", "photos/*", "-o", "one").exit_code == 0
    assert files("one") == {"one/a.dfc", "one/b.dfc"}
    assert run("encode", "photos/**/*.png", "-o", "two").exit_code == 0
    assert files("two") == {"two/a.dfc", "two/deep/c.dfc"}
    assert run("encode", str(Path("photos/[b-c].*").absolute()), "-o", "three").exit_code == 0
    assert files("three") == {"three/b.dfc"}
    assert run("encode", "photos/a.png", "photos/deep", "-o", "four").exit_code == 0
    assert files("four") == {"four/a.dfc", "four/c.dfc"}


@pytest.mark.parametrize("place", [None, Path("out")])
@pytest.mark.parametrize(
    ("sources", "names"),
    [
        ("IMG.jpg IMG.png other.png", "IMG.jpg.dfc IMG.png.dfc other.dfc"),
        ("IMG.JPG img.png", "IMG.JPG.dfc img.png.dfc"),
        ("a.jpg a.png b/a.png", "a.jpg.dfc a.png.dfc b/a.dfc"),
        ("A/a.jpg a/a.png", "A/a.jpg.dfc a/a.png.dfc"),
        ("a.png a.jpg a.png.bmp b.bmp", "a.png.dfc a.jpg.dfc a.png.bmp.dfc b.dfc"),
        ("a.b.png a.c.png", "a.b.dfc a.c.dfc"),
    ],
)
def test_results_of_one_name_keep_their_suffix(sources, names, place):
    for source in sources.split():
        path = Path("photos", source)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    kinds = {".jpg", ".png", ".bmp"}
    found = tasks.collect(["photos"], place, kinds, ".dfc", recursive=True)
    expected = {
        Path("photos", source): Path(place or "photos", name)
        for source, name in zip(sources.split(), names.split(), strict=True)
    }
    assert {task.source: task.target for task in found} == expected


def test_names_that_differ_in_case_only_share_no_folder():
    Path("photos").mkdir()
    for name in ("a.png", "A.png"):
        Path("photos", name).touch()
    if len(files("photos")) < 2:
        pytest.skip("case does not count here")
    found = tasks.collect(["photos"], None, {".png"}, ".dfc", recursive=False)
    assert [task.target.name for task in found] == ["A.png.dfc", "a.png.dfc"]
    with pytest.raises(ImageError, match=r"A\.png and photos/a\.png would both be written to"):
        tasks.collect(["photos"], Path("elsewhere"), {".png"}, ".dfc", recursive=False)


def test_two_of_one_name_there_and_back():
    Path("photos").mkdir()
    picture(0).save("photos/IMG.bmp")
    picture(1).save("photos/img.png")
    for _ in range(2):
        assert run("encode", "photos", "-o", "coded").exit_code == 0
        assert files("coded") == {"coded/IMG.bmp.dfc", "coded/img.png.dfc"}
    assert run("decode", "coded", "-o", "again").exit_code == 0
    assert files("again") == {"again/IMG.bmp.png", "again/img.png.png"}
    assert same("again/IMG.bmp.png", picture(0))
    assert same("again/img.png.png", picture(1))


def test_a_name_with_brackets_is_no_pattern():
    picture(0).save("a[1].png")
    assert run("encode", "a[1].png").exit_code == 0
    assert files(".") == {"a[1].png", "a[1].dfc"}


@pytest.mark.parametrize("name", ["photos/*.jpg", "photos/deep/deeper", "empty"])
def test_nothing_to_do_is_an_error(photos, name):
    Path("empty").mkdir()
    result = run("encode", name)
    assert result.exit_code == 1
    assert name in result.stderr


def test_a_named_file_is_always_done(photos):
    run("encode", "photos")
    set_age("photos/a.dfc", 50)
    before = Path("photos/a.dfc").stat().st_mtime_ns
    assert run("encode", "photos/a.png").exit_code == 0
    assert Path("photos/a.dfc").stat().st_mtime_ns > before


def test_originals_beside_the_files_are_kept(photos):
    run("encode", "photos")
    for name in ("a.png", "b.bmp"):
        set_age(f"photos/{name}", 100)
    original = Path("photos/a.png").read_bytes()
    result = run("decode", "photos")
    assert result.exit_code == 1
    assert "photos/a.png exists: --force replaces it" in result.stderr
    assert Path("photos/a.png").read_bytes() == original
    assert same("photos/b.png", picture(1))
    assert run("decode", "photos", "--force").exit_code == 0


def test_failures_come_last_and_do_not_stop_the_rest(photos):
    Path("photos/a.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    Image.new("CMYK", (3, 3)).save("photos/aa.tif")
    result = run("encode", "photos", "-o", "out")
    assert result.exit_code == 1
    assert files("out") == {"out/b.dfc"}
    assert result.stdout.splitlines()[-1].startswith("1 done, 2 failed: ")
    one, two = result.stderr.splitlines()
    assert one.startswith("diffcodec: photos/a.png ")
    assert "CMYK" in two
    assert "photos/aa.tif" in two


def changed(path):
    return Path(path).stat().st_mtime_ns


def test_results_have_the_times_of_their_sources(photos):
    set_age("photos/a.png", 10**6)
    set_age("photos/b.bmp", -(10**4))
    run("encode", "photos", "-o", "coded", "--jobs", "2")
    run("decode", "coded", "-o", "again")
    assert done("encode", "photos", "-o", "coded") == (0, 2), "processes keep the journal too"
    for source, *results in (
        ("photos/a.png", "coded/a.dfc", "again/a.png"),
        ("photos/b.bmp", "coded/b.dfc", "again/b.png"),
    ):
        assert {changed(result) for result in results} == {changed(source)}


def test_times_are_kept_on_demand_only(photos):
    set_age("photos/a.png", 10**6)
    run("encode", "photos", "-o", "coded", "--no-keep-times")
    assert changed("coded/a.dfc") > changed("photos/a.png")
    assert "0 done, 2 done before" in run("encode", "photos", "-o", "coded").stdout
    assert changed("coded/a.dfc") == changed("photos/a.png")
    for command in (("encode", "photos/a.png"), ("decode", "coded/a.dfc")):
        run(*command, "-o", "one")
        assert changed("one") > changed("photos/a.png")
        assert run(*command, "-o", "one", "--keep-times").exit_code == 0
        assert changed("one") == changed("photos/a.png")


def test_times_belong_to_files(photos):
    run("encode", "photos/a.png")
    picture(0).convert("RGB").save("a.png")
    run("encode", "a.png", "--method", "bits-back", "-o", "set.dfc")
    for arguments in (
        ["encode", "photos/a.png", "-o", "-"],
        ["encode", "-", "-o", "out"],
        ["encode", "photos/a.png", "-o", "out", "--method", "bits-back"],
        ["decode", "-", "-o", "out"],
        ["decode", "photos/a.dfc", "-o", "-"],
        ["decode", "photos/a.dfc", "--live", "out.png"],
        ["decode", "set.dfc", "-o", "out"],
    ):
        data = Path("photos/a.dfc").read_bytes()
        result = CliRunner().invoke(main, [*arguments, "--keep-times"], input=data)
        assert result.exit_code == 2
        assert "--keep-times" in result.stderr
        assert not list(Path().glob("out*"))


@pytest.mark.skipif(os.name == "nt", reason="POSIX terminals")
def test_a_terminal_sees_the_rate_and_the_ratio(photos):
    import fcntl
    import pty
    import struct
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    command = [sys.executable, "-m", "diffcodec", "encode", "photos", "-o", "out"]
    result = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=slave,
        env=os.environ | {"PYTHONPATH": ROOT, "TQDM_MININTERVAL": "0"},  # every update is drawn
        check=True,
    )
    seen = os.read(master, 1 << 16).decode()
    os.close(master)
    os.close(slave)
    assert "2/2" in seen
    assert ":1, " in seen
    assert "MB/s" in seen
    assert len(result.stdout.splitlines()) == 3, "results go to standard output all the same"


def test_an_input_is_never_an_output(photos):
    Path("other").mkdir()
    picture(0).save("photos/d.dfc", "PNG")  # a picture under a misleading name
    picture(0).save("other/d.png")
    original = Path("photos/d.dfc").read_bytes()
    Path("photos/d.dfc").rename("d.dfc")
    assert run("encode", "other/d.png", "photos/a.png", "-o", ".", "./d.dfc").exit_code == 0
    assert {"d.png.dfc", "d.dfc.dfc"} < files("."), "and not d.dfc"
    assert Path("d.dfc").read_bytes() == original
    Path("d.dfc").rename("photos/d.dfc")
    result = run("encode", "photos/d.dfc", "photos/a.png", "--force")
    assert result.exit_code == 1
    assert "photos/d.dfc is an input" in result.stderr
    assert Path("photos/d.dfc").read_bytes() == original
    assert Path("photos/a.dfc").exists()


def test_where_many_results_go(photos):
    Path("file").write_bytes(b"")
    for output in ("file", "-"):
        result = run("encode", "photos", "-o", output)
        assert result.exit_code == 2
        assert "must be a folder" in result.stderr
    result = run("encode", "photos", "photos/a.png", "-o", "out", "--recursive")
    assert result.exit_code == 0, "what two inputs name is done once"
    assert files("out") == {"out/a.dfc", "out/b.dfc", "out/deep/c.dfc"}


def test_several_processes_give_the_same(photos):
    Path("photos/deep/bad.png").write_text("no picture")
    alone = run("encode", "photos", "--recursive", "-o", "one")
    together = run("encode", "photos", "--recursive", "-o", "two", "--jobs", "2", "--threads", "2")
    assert alone.exit_code == together.exit_code == 1
    assert alone.stderr == together.stderr
    assert len(files("one")) == 3
    for name in files("one"):
        assert Path(name).read_bytes() == Path(name.replace("one/", "two/")).read_bytes()


# --- a cluster -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """The address of a local cluster of two workers."""
    distributed = pytest.importorskip("distributed", reason="Dask is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", ROOT)
        patch.setenv("OMP_NUM_THREADS", "1")
        with distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=None,
            local_directory=tmp_path_factory.mktemp("dask"),
        ) as cluster:
            yield cluster.scheduler_address


def test_a_cluster_gives_the_same(photos, scheduler):
    Path("photos/deep/bad.png").write_text("no picture")
    alone = run("encode", "photos", "--recursive", "-o", "one")
    together = run("encode", "photos", "--recursive", "-o", "two", "--scheduler", scheduler)
    assert alone.exit_code == together.exit_code == 1
    assert "3 done, 1 failed" in together.stdout
    assert "bad.png is not a picture" in together.stderr
    for name in files("one"):
        assert Path(name).read_bytes() == Path(name.replace("one/", "two/")).read_bytes()
    assert run("decode", "two", "-o", "three", "--scheduler", scheduler).exit_code == 0
    assert done("decode", "two", "-o", "three", "--scheduler", scheduler) == (0, 2)
    assert same("three/a.png", picture(0))


def test_a_cluster_needs_dask_and_an_address(photos, monkeypatch):
    result = run("encode", "photos", "--scheduler", "tcp://127.0.0.1:1", "--jobs", "2")
    assert result.exit_code == 2
    monkeypatch.setitem(sys.modules, "distributed", None)
    result = run("encode", "photos", "--scheduler", "tcp://127.0.0.1:1")
    assert result.exit_code == 1
    assert "extra `distributed`" in result.stderr


# --- ends that come early ------------------------------------------------------------------------


def deaf(task):
    """Whether interruptions are kept from the process that does a task."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    return batch.Outcome(task, line=str(signal.SIGINT in blocked))


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_processes_leave_interruptions_to_their_parent():
    todo = [tasks.Task(Path("a"), Path("b")), tasks.Task(Path("c"), Path("d"))]
    assert [outcome.line for outcome in batch.run(deaf, todo, 2)] == ["True", "True"]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_interruption_leaves_whole_files_only(jobs):
    Path("photos").mkdir()
    for number in range(12):
        picture(number, (24, 24)).save(f"photos/{number}.png")
    process = start(
        *("encode", "photos", "-o", "out", "--jobs", jobs),
        start_new_session=True,  # as a terminal does: the signal goes to all of the group
        # These tests may run in the background, where shells have it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.time() + 120
    while not list(Path().glob("out/*.dfc")) and time.time() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip().endswith("diffcodec: interrupted")
    assert "Traceback" not in errors
    found = [Path(name) for name in files("out")]
    assert 0 < len(found) < 12
    for path in found:
        assert path.suffix == ".dfc", "no temporary file stays"
        assert_whole(path)


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
from PIL import Image
from diffcodec.pictures import images
from diffcodec.cli import main

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def encode_for_ever():
    while True:
        for seed in range(3):
            arguments = ["encode", f"{seed}.png", "-o", "out.dfc"]
            main(arguments, standalone_mode=False)

main(["encode", "0.png", "-o", "out.dfc"], standalone_mode=False)
for moment in [*sys.argv[1:], "write", "fsync", "replace"]:
    child = os.fork()
    if not child:
        if moment == "fsync":
            os.fsync = die
        elif moment == "replace":
            Path.replace = die
        elif moment == "write":
            opened = Path.open
            class Half:
                def __init__(self, file): self.file = file
                def __enter__(self): return self
                def __exit__(self, *_): pass
                def write(self, data):
                    self.file.write(data[: len(data) // 2])
                    self.file.flush()
                    die()
            Path.open = lambda path, mode="r": (
                Half(opened(path, mode)) if mode == "xb" else opened(path, mode)
            )
        encode_for_ever()
    if moment[0].isdigit():
        time.sleep(float(moment))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (moment, status)
    print(Path("out.dfc").read_bytes().hex())
"""


@pytest.mark.skipif(os.name == "nt", reason="needs fork")
def test_a_killed_encoder_leaves_no_half_file():
    for seed in range(3):
        picture(seed, (9, 8)).save(f"{seed}.png")
    moments = np.random.default_rng(0).uniform(0.05, 0.7, 6)
    result = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, moments)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found = [line for line in result.stdout.splitlines() if ":" not in line]
    assert len(found) == 9
    whole = {diffcodec.encode(picture(seed, (9, 8))).hex() for seed in range(3)}
    assert set(found) <= whole


def test_what_the_codec_raises_is_an_outcome():
    def work(_):
        raise MemoryError

    task = tasks.Task(Path("x"), Path("y"))
    assert "memory" in batch.attempt(work, task).error

    def bug(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        batch.attempt(bug, task)
    assert not issubclass(ZeroDivisionError, DiffcodecError)
