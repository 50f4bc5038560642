"""The page that shows codecs at the same bytes: what is on it, and in a real browser."""

import base64
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path

import browser
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import diffcodec
from bench import catalogue, codecs, look, ours, peers
from bench.__main__ import main
from bench.codecs import FileCodec, Point
from bench.metrics import pixels, psnr
from diffcodec.api import SHOWN

PEERS = [codec for codec in catalogue.look_codecs() if isinstance(codec, FileCodec)]
JPEG = peers.PillowCodec(
    "JPEG", settings=tuple(range(1, 101)), format="JPEG", feature="libjpeg_turbo"
)
BPP = (1.5, 3.0, 40.0)


def waves(width: int, height: int, phase: float = 0) -> Image.Image:
    y, x = np.mgrid[:height, :width] / width
    smooth = np.stack((np.sin(9 * x + 4 * y + phase), np.sin(6 * x * y), np.cos(7 * y)), -1)
    noise = np.random.default_rng(0).normal(0, 4, smooth.shape)
    return Image.fromarray(np.uint8(127 + 90 * smooth + noise))


# What is looked at


@pytest.mark.parametrize("codec", PEERS, ids=lambda codec: codec.name)
def test_peers_are_as_large_as_they_may_be(codec: FileCodec) -> None:
    try:
        codec.version()
    except codecs.MissingError as error:
        pytest.skip(str(error))
    image = waves(64, 48)
    sizes = [10, 700, 1400]
    none, *points = codec.fitted(image, sizes)
    assert none is None
    for size, point in zip(sizes[1:], points, strict=True):
        assert point.bytes <= size
        (setting,) = (s for s in codec.settings if str(s) == point.setting)
        assert codec.decode(codec.encode(image, setting)).tobytes() == point.image.tobytes()
        following = codec.settings.index(setting) + 1
        if following < len(codec.settings):
            assert len(codec.encode(image, codec.settings[following])) > size
    assert psnr(image, points[0].image) < psnr(image, points[1].image)


def test_our_prefixes_have_exactly_the_bytes_in_every_way_of_showing() -> None:
    image = waves(48, 32)
    data = diffcodec.encode(image)
    assert ours.WAYS == SHOWN
    shown = [c for c in catalogue.look_codecs() if isinstance(c, ours.DiffcodecShown)]
    assert [codec.way for codec in shown] == list(SHOWN)
    for codec in shown:
        none, prefix, whole = codec.fitted(image, [1, 300, 10**6])
        assert none is None
        assert prefix.bytes == 300
        expected = diffcodec.decode(data[:300], show=codec.way)
        assert prefix.image.tobytes() == expected.tobytes()
        assert whole.bytes == len(data)
        assert whole.image.tobytes() == image.tobytes()


def test_the_middle_is_shown() -> None:
    image = waves(40, 20)
    assert look.middle(image, None) is image
    cut = pixels(look.middle(image, 16))
    assert np.array_equal(cut, pixels(image)[2:18, 12:28])
    assert look.middle(image, 30).size == (30, 20)


# The page


@dataclass(frozen=True)
class TooLarge(peers.PillowCodec):
    def fitted(self, image: Image.Image, sizes: list[int]) -> list[Point | None]:
        return [Point("1", size + 1, image, False) for size in sizes]


def run(folder: Path, *options: str) -> dict:
    """What is inside the page that the command writes."""
    rates = [word for bpp in reversed(BPP) for word in ("--bpp", str(bpp))]
    arguments = ["look", "--data", str(folder), "--out", str(folder / "out"), "--jobs", "1"]
    outcome = CliRunner().invoke(main, [*arguments, *rates, *options])
    assert outcome.exit_code == 0, outcome.output
    assert "look.html" in outcome.output
    return inside(folder / "out" / "look.html")


def inside(path: Path) -> dict:
    (line,) = re.findall(r"const content = (.*);\n", path.read_text(encoding="utf-8"))
    return json.loads(line)


def embedded(src: str) -> Image.Image:
    kind, _, body = src.partition(",")
    assert kind == "data:image/webp;base64"
    return codecs.open_image(base64.b64decode(body)).convert("RGB")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures and their page, of diffcodec and of JPEG."""
    path = tmp_path_factory.mktemp("look")
    waves(48, 32).save(path / "a.png")
    waves(32, 48, 2).save(path / "b & <b>.png")
    with pytest.MonkeyPatch.context() as patch:
        way = ours.DiffcodecShown(ours.WAYS[0])
        patch.setattr(catalogue, "look_codecs", lambda: [way, JPEG])
        run(path)
    return path


def test_the_lowest_rate_is_also_side_by_side(folder: Path) -> None:
    with Image.open(folder / "out" / "look.webp") as sheet:
        assert sheet.format == "WEBP"
        assert sheet.width > 3 * 48 and sheet.height > 2 * 32
        assert len(sheet.convert("RGB").getcolors(1 << 24) or []) > 100  # not blank


def test_the_page_has_everything_inside(folder: Path) -> None:
    text = (folder / "out" / "look.html").read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href)=["']?https?:|url\(|@import|{{""", text)
    assert "<title>Codecs at the same bytes: 2 pictures</title>" in text
    content = inside(folder / "out" / "look.html")
    assert content["rates"] == list(BPP)
    ours_name = content["codecs"][0]["name"]
    assert ours_name == f"diffcodec {ours.WAYS[0]}"
    assert "libjpeg_turbo" in content["codecs"][1]["version"]
    assert str(folder.parent) not in content["command"]
    first = content["pictures"][0]
    original = waves(48, 32)
    data = diffcodec.encode(original)
    assert (first["name"], first["width"], first["height"]) == ("a.png", 48, 32)
    assert embedded(first["src"]).tobytes() == original.tobytes()
    assert first["bytes"] == [int(bpp * 48 * 32 / 8) for bpp in BPP]
    for size, shots in zip(first["bytes"], first["shots"], strict=True):
        mine = shots[ours_name]
        assert mine["bytes"] == min(size, len(data))
        shown = embedded(mine["src"])
        assert shown.tobytes() == diffcodec.decode(data[:size]).convert("RGB").tobytes()
        if mine["psnr"] is not None:
            assert mine["psnr"] == pytest.approx(psnr(original, shown))
    assert first["shots"][0]["JPEG"] == {
        "picture": "a.png",
        "codec": "JPEG",
        "rate": BPP[0],
        "bytes": None,
    }
    assert first["shots"][2]["JPEG"]["bytes"] <= first["bytes"][2]


def test_what_does_not_fit_ends_the_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        catalogue, "look_codecs", lambda: [TooLarge("large", format="PPM", feature="zlib")]
    )
    arguments = [
        "look",
        "--data",
        str(folder / "a.png"),
        "--out",
        str(folder / "no"),
        "--jobs",
        "1",
    ]
    outcome = CliRunner().invoke(main, arguments)
    assert outcome.exit_code == 1
    assert "large does not fit a.png" in outcome.output
    assert not (folder / "no" / "look.html").exists()


def test_crops_and_pictures_with_loss_make_a_smaller_page(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "look_codecs", lambda: [JPEG])
    (tmp_path / "a.png").write_bytes((folder / "a.png").read_bytes())
    content = run(tmp_path, "--crop", "24", "--embed-quality", "80")
    (only,) = content["pictures"]
    assert (only["width"], only["height"]) == (24, 24)
    assert embedded(only["src"]).size == (24, 24)
    assert b"VP8L" not in base64.b64decode(only["src"].partition(",")[2])


# In a browser


needs_browser = pytest.mark.skipif(
    browser.CHROMIUM is None or browser.DRIVER is None,
    reason="needs Chromium and chromedriver on the path",
)

READY = "[...document.images].every(i => i.hidden || (i.complete && i.naturalWidth))"


def text(page: browser.Browser, selector: str) -> str:
    return page.run(f"return document.querySelector({json.dumps(selector)}).innerText")


def choose(page: browser.Browser, identity: str, value: str) -> None:
    page.run(
        f"const s = document.getElementById('{identity}'); s.value = {json.dumps(value)};"
        "s.dispatchEvent(new Event('change')); s.blur()"
    )


@pytest.fixture
def page(folder: Path):
    with browser.Browser(1300, 900) as session:
        session.open((folder / "out" / "look.html").as_uri())
        session.wait(READY)
        yield session
        assert session.errors() == []


@needs_browser
def test_two_codecs_are_compared_at_the_same_bytes(page: browser.Browser, folder: Path) -> None:
    content = inside(folder / "out" / "look.html")
    first, name = content["pictures"][0], content["codecs"][0]["name"]
    assert [text(page, "#tag-left"), text(page, "#tag-right")] == [name, "JPEG"]
    shot = first["shots"][1][name]  # it starts in the middle
    assert page.run("return document.getElementById('left-image').src") == shot["src"]
    scores = text(page, "#left-scores")
    assert f"{shot['bytes']:,}" in scores
    assert f"{shot['psnr']:.2f}" in scores
    assert f"{first['bytes'][1]:,} bytes for 48 \u00d7 32" in text(page, "#budget")
    assert page.run("return document.querySelectorAll('#rows tr').length") == 2

    page.press("down")
    assert "has no file of so few bytes" in text(page, "#view")
    page.press("up", "up")
    jpeg = first["shots"][2]["JPEG"]
    assert page.run("return document.getElementById('right-image').src") == jpeg["src"]

    page.press("s")
    assert [text(page, "#tag-left"), text(page, "#tag-right")] == ["JPEG", name]
    choose(page, "right", "original")
    assert page.run("return document.getElementById('right-image').src") == first["src"]
    page.run("document.querySelector('#rows tr button').click()")
    assert text(page, "#tag-left") == name

    page.press("n")
    assert text(page, "#budget").endswith("32 \u00d7 48 pixels.")
    assert (
        page.run("return document.getElementById('picture').selectedOptions[0].text")
        == (content["pictures"][1]["name"])
    )
    page.press("n")  # round again
    choose(page, "picture", "1")
    assert text(page, "#budget").endswith("32 \u00d7 48 pixels.")


@needs_browser
@pytest.mark.parametrize("touch", [False, True])
def test_the_divider_follows_keys_and_pointer(page: browser.Browser, touch: bool) -> None:
    clip = "return document.getElementById('left-part').style.clipPath"
    page.press("right", "right", "left")
    assert page.run("return divider.getAttribute('aria-valuenow')") == "52"
    assert " 48%" in page.run(clip)
    page.press("home")
    assert " 100%" in page.run(clip)
    box = page.run("return document.getElementById('stage').getBoundingClientRect().toJSON()")
    across = box["top"] + box["height"] / 2
    points = [(box["left"] + box["width"] * share, across) for share in (0.5, 0.4, 0.25)]
    page.drag(*points, touch=touch)
    assert page.run("return state.split") == pytest.approx(25, abs=1)


@needs_browser
def test_the_original_shows_while_it_is_held(page: browser.Browser, folder: Path) -> None:
    original = inside(folder / "out" / "look.html")["pictures"][0]["src"]
    src = "return document.getElementById('left-image').src"
    before = page.run(src)
    for kind, shown in (("keydown", original), ("keyup", before)):
        event = f"new KeyboardEvent('{kind}', {{key: 'o', bubbles: true}})"
        page.run(f"document.body.dispatchEvent({event})")
        assert page.run(src) == shown


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_a_phone_in_either_light(folder: Path, tmp_path: Path, dark: bool) -> None:
    # The narrowest window of the browser is wider than a phone: a frame is not.
    inner = (folder / "out" / "look.html").as_uri()
    frame = tmp_path / "frame.html"
    frame.write_text(f'<iframe src="{inner}" style="width: 360px; height: 740px"></iframe>')
    with browser.Browser(500, 900, dark) as phone:
        phone.open(inner)
        brightness = phone.run(
            "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
        )
        assert (max(brightness) < 60) == dark
        unlabelled = phone.run(
            "return [...document.querySelectorAll('select, input, button')].filter("
            "e => !(e.labels?.length || e.ariaLabel || e.textContent.trim())).length"
        )
        assert unlabelled == 0
        phone.open(frame.as_uri())
        phone.enter("iframe")
        phone.wait(READY)
        assert phone.run("return innerWidth") <= 360
        assert phone.run("return document.documentElement.scrollWidth <= innerWidth")
        bottom = "document.getElementById('stage').getBoundingClientRect().bottom"
        assert phone.run(f"return {bottom} <= innerHeight"), "it is seen without scrolling"
        with Image.open(io.BytesIO(phone.screenshot())) as shot:
            assert shot.width >= 390
