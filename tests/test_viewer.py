"""Previews: the page in a real browser, animations and contact sheets."""

import base64
import io
import json
import math
import re
from pathlib import Path

import browser
import numpy as np
import pytest
from PIL import Image, ImageSequence

import diffcodec
from diffcodec.cli import viewer
from diffcodec.errors import ImageError

PHOTO = Path(__file__).parent.parent / "examples" / "photo.png"


@pytest.fixture(scope="module")
def original():
    with Image.open(PHOTO) as photo:
        return photo.convert("RGB").resize((36, 24), Image.Resampling.LANCZOS)


@pytest.fixture(scope="module")
def data(original):
    return diffcodec.encode(original)


@pytest.fixture(scope="module")
def frames(data):
    return viewer.frames(data)


@pytest.fixture(autouse=True)
def decoded_once(monkeypatch, data, frames):
    """The page of the module's file does not decode it again."""
    whole = viewer.frames

    def known(given, **computing):
        return frames if given == data else whole(given, **computing)

    monkeypatch.setattr(viewer, "frames", known)


def test_frames_are_the_rungs(data, frames, original):
    rungs = {p.bytes_used: p.image for p in diffcodec.decode_progressive(data)}
    assert [frame.bytes for frame in frames] == sorted(rungs)
    for frame in frames:
        assert frame.image.tobytes() == rungs[frame.bytes].tobytes()
        assert frame.bpp == 8 * frame.bytes / (36 * 24)
        assert frame.psnr == diffcodec.psnr(frame.image, original)
    assert frames[-1].image.tobytes() == original.tobytes()
    assert math.isinf(frames[-1].psnr)


def test_a_set_is_a_grid_at_each_of_its_milestones(original):
    images = [original.crop(box) for box in ((0, 0, 12, 8), (9, 4, 21, 12), (3, 9, 11, 13))]
    coded = diffcodec.encode_set(images, method="channel", bpp=3)
    shown = viewer.frames(coded.data)
    assert {end.bytes for end in coded.milestones} <= {frame.bytes for frame in shown}
    assert {frame.image.size for frame in shown} == {(24, 16)}
    assert math.isinf(shown[-1].psnr)
    assert shown[-1].image.tobytes() == diffcodec.grid(diffcodec.decode_set(coded.data)).tobytes()
    assert shown[-1].bpp == 8 * len(coded.data) / (2 * 96 + 32)
    first = diffcodec.decode_set(coded.data[: shown[0].bytes])
    errors = [
        (np.asarray(a).astype(float) - np.asarray(b)).ravel() ** 2
        for a, b in zip(first, diffcodec.decode_set(coded.data), strict=True)
    ]
    error = float(np.concatenate(errors).mean())
    assert shown[0].psnr == pytest.approx(10 * math.log10(255**2 / error))


def test_a_prefix_and_a_lossy_file_have_frames(data):
    assert viewer.frames(data[:200])[-1].image.tobytes() == diffcodec.decode(data[:200]).tobytes()


def test_a_page_needs_nothing_else(tmp_path, data, frames, original):
    viewer.write(data, tmp_path / "x.html", title="a <b> & </script> c")
    text = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert "<title>a &lt;b&gt; &amp; &lt;/script&gt; c</title>" in text
    assert not re.search(r"""(?:src|href)=["']?https?:|url\(|@import|{{""", text)
    (line,) = re.findall(r"const content = (.*);\n", text)
    content = json.loads(line)
    assert (content["width"], content["height"]) == original.size
    assert [frame["bytes"] for frame in content["frames"]] == [frame.bytes for frame in frames]
    kind, _, body = content["frames"][-1]["src"].partition(",")
    assert kind == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(body))) as last:
        assert last.convert("RGB").tobytes() == original.tobytes()


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_an_animation_has_the_frames(tmp_path, data, frames, suffix):
    viewer.write(data, tmp_path / f"x{suffix}")
    with Image.open(tmp_path / f"x{suffix}") as animation:
        shown = [frame.convert("RGB") for frame in ImageSequence.Iterator(animation)]
    assert len(shown) == len(frames)
    for frame, image in zip(frames, shown, strict=True):
        # A GIF reduces the colours.
        assert diffcodec.psnr(image, frame.image) > (20 if suffix == ".gif" else 99)
    assert animation.info["loop"] == 0


def test_a_contact_sheet_holds_all_frames(tmp_path, data, frames):
    viewer.write(data, tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    corner = frames[0].image.getpixel((0, 0))
    assert tuple(pixels[viewer.GAP, viewer.GAP]) == corner
    rows = math.ceil(len(frames) / viewer.COLUMNS)
    assert pixels.shape[0] > rows * viewer.THUMBNAIL * 24 / 36
    labels = pixels[viewer.GAP + math.floor(viewer.THUMBNAIL * 24 / 36) + 4 :][:20]
    assert labels.min() < 100 < labels.max(), "there is writing below the pictures"


def test_transparent_and_single_pixels(tmp_path):
    for size in ((1, 1), (5, 3)):
        data = diffcodec.encode(Image.new("LA", size, (90, 40)))
        for suffix in (".html", ".gif", ".webp", ".png"):
            viewer.write(data, tmp_path / f"x{suffix}")
            assert (tmp_path / f"x{suffix}").stat().st_size > 0


def test_grey_of_16_bits(tmp_path):
    pixels = np.arange(0, 60000, 250, np.uint16).reshape(12, 20)
    data = diffcodec.encode(pixels)
    for suffix in (".html", ".webp", ".png"):
        viewer.write(data, tmp_path / f"x{suffix}")
    with Image.open(tmp_path / "x.webp") as animation:
        animation.seek(animation.n_frames - 1)
        found = np.asarray(animation.convert("L"))
    np.testing.assert_array_equal(found, pixels >> 8)


def test_large_pictures_are_reduced_for_the_page(tmp_path, data, frames, monkeypatch):
    monkeypatch.setattr(viewer, "SIDE", 18)
    for suffix in (".html", ".webp"):
        viewer.write(data, tmp_path / f"x{suffix}")
    with Image.open(tmp_path / "x.webp") as animation:
        assert animation.size == (18, 12)
    (line,) = re.findall(r"const content = (.*);\n", (tmp_path / "x.html").read_text())
    content = json.loads(line)
    assert (content["pixels"], content["width"], content["height"]) == (36 * 24, 18, 12)
    body = base64.b64decode(content["frames"][0]["src"].partition(",")[2])
    with Image.open(io.BytesIO(body)) as first:
        assert first.size == (18, 12)
    assert b"VP8L" not in body, "what is reduced need not be without loss"
    assert frames[0].image.size == (36, 24), "figures are those of the whole picture"


def test_other_suffixes_are_refused(tmp_path, data):
    with pytest.raises(ImageError, match=r"\.html \.gif \.webp \.png"):
        viewer.write(data, tmp_path / "x.mp4")
    assert list(tmp_path.iterdir()) == []


# --- in a browser --------------------------------------------------------------------------------


needs_browser = pytest.mark.skipif(
    browser.CHROMIUM is None or browser.DRIVER is None,
    reason="needs Chromium and chromedriver on the path",
)

SHOWN = (
    "[...document.querySelectorAll('#stage img:not(#final)')].findIndex("
    "i => getComputedStyle(i).visibility == 'visible')"
)
BYTES = "Number(document.getElementById('bytes').textContent.replace(/,/g, ''))"


@pytest.fixture(scope="module")
def page(tmp_path_factory, data, frames):
    path = tmp_path_factory.mktemp("page") / "x.html"
    path.write_bytes(viewer._page(frames, "photo.dfc"))
    with browser.Browser() as session:
        session.open(path.as_uri())
        session.wait("[...document.images].every(i => i.complete && i.naturalWidth == 36)")
        yield session
        assert session.errors() == []


@needs_browser
def test_the_slider_moves_over_bytes(page, frames):
    for position in (0, 2500, 6000, 10000):
        page.run(
            f"const s = document.getElementById('slider'); s.value = {position};"
            "s.dispatchEvent(new Event('input'))"
        )
        low, high = (math.log(frame.bytes) for frame in (frames[0], frames[-1]))
        received = page.run(f"return {BYTES}")
        assert received == pytest.approx(math.exp(low + (high - low) * position / 10000), abs=0.6)
        expected = max(i for i, frame in enumerate(frames) if frame.bytes <= received)
        assert page.run(f"return {SHOWN}") == expected
        text = page.run("return document.getElementById('psnr').textContent")
        quality = frames[expected].psnr
        assert text == ("identical" if math.isinf(quality) else f"{quality:.1f} dB")


@needs_browser
def test_keys_step_and_play(page, frames):
    last = len(frames) - 1
    page.press("home")
    assert page.run(f"return {SHOWN}") == 0
    page.press("right", "right", "left")
    assert page.run(f"return {SHOWN}") == 1
    page.press("end", "right")
    assert page.run(f"return {SHOWN}") == last
    page.press("space")
    page.wait(f"{SHOWN} < {last}")  # it starts again
    page.press("space")  # pause
    assert "Play" in page.run("return document.getElementById('play').textContent")
    page.press("end", "left")
    page.press("space")
    page.wait(f"{SHOWN} == {last} && started === null")


@needs_browser
def test_the_divider_compares(page):
    visible = "getComputedStyle(document.getElementById('final')).visibility == 'visible'"
    assert not page.run(f"return {visible}")
    page.press("c")
    assert page.run(f"return {visible}")
    box = page.run("return document.getElementById('stage').getBoundingClientRect().toJSON()")
    middle = box["top"] + box["height"] / 2
    page.drag((box["left"] + box["width"] / 2, middle), (box["left"] + box["width"] / 4, middle))
    assert page.run("return split") == pytest.approx(25, abs=1)
    assert re.search(r" 2[456](\.\d+)?%", page.run("return final.style.clipPath"))
    page.press("c")
    assert not page.run(f"return {visible}")


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_a_phone_in_either_light(tmp_path, data, frames, dark):
    path = tmp_path / "x.html"
    viewer.write(data, path, title="photo.dfc")
    with browser.Browser(390, 844, dark) as phone:
        phone.open(path.as_uri())
        assert phone.run("return document.documentElement.scrollWidth <= innerWidth")
        inside = "document.getElementById('panel').getBoundingClientRect().bottom <= innerHeight"
        assert phone.run(f"return {inside}")
        brightness = phone.run(
            "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
        )
        assert (max(brightness) < 60) == dark
        (tmp_path / "shot.png").write_bytes(phone.screenshot())
        assert Image.open(tmp_path / "shot.png").width >= 390
