"""The whole codec: pictures come back, prefixes are pictures, damage is told."""

import io
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

import diffcodec
from diffcodec import container
from diffcodec.api import SHOWN
from diffcodec.errors import CorruptError, DiffcodecError, FormatError, ImageError, ModelError
from diffcodec.pictures.images import metadata
from diffcodec.quantized import coding, colour
from diffcodec.quantized import stream as quantised
from diffcodec.transforms import GREENS

PHOTO = Path(__file__).parent.parent / "examples" / "photo.png"


def smooth(width, height, mode="RGB"):
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(width * height).normal(0, 3, (height, width))
    planes = [
        120 + 80 * np.sin(x / 6 + c / 2) * np.cos(y / 8) + 30 * (x > y) + noise
        for c in range(len(mode))
    ]
    return picture(np.stack(planes, -1).clip(0, 255))


def picture(pixels):
    pixels = np.asarray(pixels, np.uint8)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def psnr(one, other):
    error = np.mean((np.asarray(one, float) - np.asarray(other, float)) ** 2)
    return np.inf if error == 0 else 10 * np.log10(255**2 / error)


def same(one, other):
    return (one.mode, one.size, one.tobytes()) == (other.mode, other.size, other.tobytes())


@pytest.fixture(scope="module")
def coded():
    """A piece of the example photograph and its file."""
    with Image.open(PHOTO) as photo:
        left, top = photo.width // 3, photo.height // 3
        image = photo.convert("RGB").crop((left, top, left + 40, top + 28))
    image.info.clear()
    return image, diffcodec.encode(image)


@pytest.fixture(scope="module")
def tiny():
    """A very small picture and its file."""
    image = smooth(6, 5)
    return image, diffcodec.encode(image)


# --- lossless ------------------------------------------------------------------------------------


@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.sampled_from(["L", "LA", "RGB", "RGBA"]),
    st.integers(0, 999),
    st.sampled_from([0, 20, 255]),
)
@settings(deadline=None, max_examples=8, derandomize=True)
def test_pictures_come_back(width, height, mode, seed, spread):
    random = np.random.default_rng(seed)
    base = random.integers(0, 256 - spread, len(mode))
    pixels = base + random.integers(0, spread + 1, (height, width, len(mode)))
    image = picture(pixels)
    assert same(diffcodec.decode(diffcodec.encode(image)), image)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (7, 1), (1, 7), (17, 33), (32, 32)])
def test_sizes_come_back(width, height):
    image = smooth(width, height, "L")
    assert same(diffcodec.decode(diffcodec.encode(image)), image)


def test_black_and_white_noise_comes_back():
    image = picture(255 * np.random.default_rng(0).integers(0, 2, (11, 13, 3)))
    assert same(diffcodec.decode(diffcodec.encode(image)), image)


def test_constant_pictures_come_back_and_are_small():
    for value in ((0, 0, 0), (255, 255, 255), (255, 0, 128)):
        image = Image.new("RGB", (32, 24), value)
        data = diffcodec.encode(image)
        assert same(diffcodec.decode(data), image)
        assert len(data) < 200


def test_constant_alpha_costs_little():
    image = smooth(16, 12)
    opaque = image.copy()
    opaque.putalpha(255)
    data = diffcodec.encode(opaque)
    assert same(diffcodec.decode(data), opaque)
    assert len(data) <= len(diffcodec.encode(image)) + 40


@pytest.mark.parametrize("process", ["photo", "drawing"])
def test_palettes_and_bilevel_pictures_come_back_as_they_were(process):
    palette = smooth(9, 8).quantize(16)
    palette.putpalette([*palette.getpalette(), 1, 2, 3])
    clear = palette.copy()
    clear.info["transparency"] = 3
    bilevel = smooth(9, 8).convert("1")
    for image in (palette, clear, bilevel):
        data = diffcodec.encode(image, process=process)
        back = diffcodec.decode(data)
        assert back.mode == image.mode
        assert np.array_equal(back, image)
        assert same(back.convert("RGBA"), image.convert("RGBA"))
        # Before the box is there, they come converted.
        mode = {"1": "L"}.get(image.mode, "RGBA" if image is clear else "RGB")
        assert same(diffcodec.decode(data[:-1]), image.convert(mode))


def test_lossy_files_and_doubled_entries_have_no_palette():
    doubled = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    doubled.putpalette([1, 2, 3, 9, 9, 9, 1, 2, 3])
    assert same(diffcodec.decode(diffcodec.encode(doubled)), doubled.convert("RGB"))
    large = smooth(90, 80).quantize(16)
    assert diffcodec.decode(diffcodec.encode(large, max_bytes=300)).mode == "RGB"


def test_modes_that_are_not_coded_are_refused():
    with pytest.raises(ImageError, match="CMYK"):
        diffcodec.encode(Image.new("CMYK", (3, 3)))


def test_icc_and_exif_survive_and_never_delay_the_picture():
    image = smooth(6, 5, "L")
    plain = diffcodec.encode(image)
    exif = Image.Exif()
    exif[0x010E] = "a description"
    image.info["icc_profile"] = b"profile" * 30
    image.info["exif"] = exif.tobytes()
    data = diffcodec.encode(image)
    start = container.read(data).start
    decoded = diffcodec.decode(data)
    assert metadata(decoded) == metadata(image)
    assert decoded.getexif()[0x010E] == "a description"
    assert data[start : len(plain)] == plain[start:]
    cut = diffcodec.decode(data[:-1])  # all pixels, but not the metadata
    assert cut.tobytes() == image.tobytes()
    assert metadata(cut).keys() <= {container.ICC}


def test_progress_goes_up_to_one():
    encoding, decoding = [], []
    data = diffcodec.encode(smooth(6, 5, "L"), progress=encoding.append)
    diffcodec.decode(data, progress=decoding.append)
    diffcodec.encode(smooth(50, 1, "L"), progress=(longer := []).append)
    for told in (encoding, decoding, longer):
        assert told == sorted(told)
        assert told[-1] == 1


# --- prefixes ------------------------------------------------------------------------------------


def test_a_cut_at_every_byte_gives_a_picture(tiny):
    image, data = tiny
    start = container.read(data).start
    for length in range(len(data)):
        if length < start:
            with pytest.raises(FormatError):
                diffcodec.decode(data[:length])
        else:
            preview = diffcodec.decode(data[:length])
            assert (preview.mode, preview.size) == (image.mode, image.size)
            assert not diffcodec.info(data[:length], rungs=False).complete


def test_random_cuts_give_pictures_that_get_better(coded):
    image, data = coded
    start = container.read(data).start
    random = np.random.default_rng(0)
    cuts = sorted(random.choice(np.arange(start, len(data)), 6, replace=False))
    quality = [psnr(diffcodec.decode(data[:cut]), image) for cut in cuts]
    assert all(b > a - 0.5 for a, b in pairwise(quality))
    assert quality[-1] > quality[0] + 3


def test_rungs_climb_to_the_original(coded):
    image, data = coded
    previews = list(diffcodec.decode_progressive(io.BytesIO(data)))
    start = container.read(data).start
    rungs = [preview.rung for preview in previews]
    assert rungs == list(range(rungs[0], rungs[-1] - 1, -1))
    quality = [psnr(preview.image, image) for preview in previews]
    assert all(b > a - 0.5 for a, b in pairwise(quality))
    used = [preview.bytes_used for preview in previews]
    assert used == sorted(used)
    assert start < used[0]
    assert used[-2] < used[-1] == len(data)
    assert same(previews[-1].image, image)
    assert sum(20 < q < 45 for q in quality) >= 3  # the ladder has rungs that are worth showing


def test_bytes_used_are_the_fewest_that_give_a_rung(coded):
    _, data = coded
    previews = list(diffcodec.decode_progressive(data))
    for preview in (previews[-5], previews[-3]):
        used = preview.bytes_used
        enough = {p.rung: p for p in diffcodec.decode_progressive(data[:used])}
        # The last bits of the last byte may tell more, so that one more picture follows.
        first = next(p for p in diffcodec.decode_progressive(data[:used]) if p.rung == preview.rung)
        assert same(first.image, preview.image)
        assert min(enough) == preview.rung
        quality = psnr(diffcodec.decode(data[:used]), preview.image)
        assert quality > 38  # nearly the same picture
        fewer = list(diffcodec.decode_progressive(data[: used - 1]))
        assert not any(same(p.image, preview.image) for p in fewer)
        assert fewer[-1].rung > preview.rung


def test_large_phases_go_set_by_set(monkeypatch, tiny):
    image, data = tiny
    for size in ("FIRST_SET", "LARGEST_SET"):
        monkeypatch.setattr(coding, size, 7)
    sets = diffcodec.encode(image)
    assert sets != data
    assert same(diffcodec.decode(sets), image)
    for length in range(40, len(sets), 25):
        assert diffcodec.decode(sets[:length]).size == image.size


def test_cuts_are_decodes_of_prefixes(coded, tiny):
    for image, data in (coded, tiny):
        start = container.read(data).start
        sizes = [len(data), start, start + 1, len(data) // 2, len(data) // 3, len(data) - 1, 60]
        shown = diffcodec.decode_cuts(data, sizes)
        for size, picture in zip(sorted(sizes), shown, strict=True):
            assert same(picture, diffcodec.decode(data[:size]))
        assert same(picture, image)


def test_decode_with_a_limit_is_decode_of_a_prefix(coded):
    image, data = coded
    expected = diffcodec.decode(data[:100])
    assert same(diffcodec.decode(data, max_bytes=100), expected)
    assert same(diffcodec.decode(data, bpp=800.5 / (image.width * image.height)), expected)
    assert not same(expected, image)


# --- limits of the encoder -----------------------------------------------------------------------


@pytest.mark.parametrize("size", [40, 150, 400])
def test_max_bytes_is_kept(coded, size):
    image, whole = coded
    data = diffcodec.encode(image, max_bytes=size)
    assert size - 1 <= len(data) <= size
    info = diffcodec.info(data, rungs=False)
    assert info.complete
    assert not info.lossless
    decoded = diffcodec.decode(data)  # and so its checksum holds
    assert psnr(decoded, diffcodec.decode(whole[:size])) > 20
    bpp = 8 * size / (image.width * image.height)
    assert abs(len(diffcodec.encode(image, bpp=bpp)) - size) <= 1


def test_limits_at_the_ends_of_rungs_give_valid_files():
    image = smooth(7, 6, "L")
    whole = diffcodec.encode(image)
    ends = {rung.bytes for rung in diffcodec.info(whole).rungs}
    for size in sorted({end - back for end in ends for back in range(4)}):
        if size < container.read(whole).start:
            continue
        data = diffcodec.encode(image, max_bytes=size)
        assert len(data) <= size
        decoded = diffcodec.decode(data)  # raises if the checksum does not hold
        if diffcodec.info(data, rungs=False).lossless:
            assert same(decoded, image)


def test_a_generous_limit_changes_nothing(tiny):
    image, data = tiny
    assert diffcodec.encode(image, max_bytes=len(data) + 9) == data
    assert diffcodec.encode(image, max_bytes=len(data)) == data
    assert diffcodec.encode(image, psnr=200) == data


def test_a_limit_below_the_header_is_refused(tiny):
    with pytest.raises(FormatError, match="limit"):
        diffcodec.encode(tiny[0], max_bytes=11)


def test_limits_count_the_metadata(tiny):
    image = tiny[0].copy()
    image.info["icc_profile"] = np.random.default_rng(0).bytes(60)
    data = diffcodec.encode(image, max_bytes=110)
    assert len(data) <= 110
    assert metadata(diffcodec.decode(data)) == metadata(image)
    with pytest.raises(FormatError, match="metadata"):
        diffcodec.encode(image, max_bytes=60)


def test_psnr_is_reached_with_few_bytes(coded):
    image, whole = coded
    low, high = (diffcodec.encode(image, psnr=target) for target in (27, 36))
    assert len(low) < len(high) < len(whole)
    for data, target in ((low, 27), (high, 36)):
        assert target <= psnr(diffcodec.decode(data), image) < target + 2


def test_limits_together_are_all_kept(tiny):
    image, whole = tiny
    size = len(whole) // 2
    assert len(diffcodec.encode(image, max_bytes=size, psnr=70)) <= size
    data = diffcodec.encode(image, max_bytes=size, bpp=1000)
    assert len(data) <= size
    diffcodec.decode(data)


# --- damage --------------------------------------------------------------------------------------


def assert_told(data, image):
    """A damaged file is refused, says that it is not complete, or has the right pixels."""
    with suppress(DiffcodecError):
        decoded = diffcodec.decode(data)
        assert same(decoded, image) or not diffcodec.info(data, rungs=False).complete


def test_flipped_bytes_of_the_stream_are_told():
    image = smooth(6, 5, "L")
    data = diffcodec.encode(image)
    random = np.random.default_rng(0)
    start = container.read(data).start
    refused = 0
    for place in range(start, len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << random.integers(8)
        try:
            decoded = diffcodec.decode(bytes(flipped))
        except CorruptError:
            refused += 1
        else:  # the last bits that a coder writes are free
            assert place >= len(data) - 4
            assert same(decoded, image)
    assert refused >= len(data) - start - 4


def test_flipped_bits_of_the_header_are_told(monkeypatch):
    image = smooth(3, 2, "L")
    data = diffcodec.encode(image)
    # A damaged size may claim a picture that takes long to draw, but no more than this.
    monkeypatch.setattr(container, "MAX_PIXELS", 1 << 14)
    for place in range(container.read(data).start):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[place] ^= 1 << bit
            assert_told(bytes(flipped), image)


def test_a_damaged_lossy_file_is_told(tiny):
    image, whole = tiny
    data = diffcodec.encode(image, max_bytes=len(whole) // 2)
    shown = diffcodec.decode(data)
    damaged = bytearray(data)
    damaged[container.read(data).start + 2] ^= 0x10
    with pytest.raises(CorruptError):
        diffcodec.decode(bytes(damaged))
    assert same(list(diffcodec.decode_progressive(data))[-1].image, shown)
    with pytest.raises(CorruptError):
        list(diffcodec.decode_progressive(bytes(damaged)))


@pytest.mark.parametrize("show", SHOWN)
def test_a_damaged_lossless_file_is_told_however_it_is_shown(tiny, show):
    damaged = bytearray(tiny[1])
    damaged[len(damaged) // 2] ^= 0x10
    with pytest.raises(CorruptError):
        diffcodec.decode(bytes(damaged), show=show)
    with pytest.raises(CorruptError):
        list(diffcodec.decode_progressive(bytes(damaged)))


@pytest.mark.parametrize("process", ["photo", "drawing"])
@given(stream=st.binary(max_size=40))
@settings(deadline=None, max_examples=10)
def test_any_stream_is_an_error_or_a_picture(process, stream):
    header = container.read(diffcodec.encode(Image.new("L", (20, 9)), process=process)).header
    fields = vars(header) | {"width": 4, "height": 3, "stream_bytes": len(stream)}
    for lossless in (True, False):
        data = container.write(container.Header(**(fields | {"lossless": lossless})), stream, {})
        with suppress(CorruptError):
            diffcodec.decode(data)
        with suppress(CorruptError):
            assert diffcodec.decode(data[:-1] if stream else data, show="sample").size == (4, 3)


def test_damaged_prefixes_are_still_pictures(tiny):
    image, data = tiny
    random = np.random.default_rng(5)
    start = container.read(data).start
    for _ in range(15):
        damaged = bytearray(data[: random.integers(start + 1, len(data))])
        damaged[random.integers(start, len(damaged))] ^= 1 << random.integers(8)
        assert diffcodec.decode(bytes(damaged)).size == image.size


# --- mirror images -------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"max_bytes": 60}, {"psnr": 30}])
@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_a_small_picture_and_its_mirror_image_have_one_stream(mode, options):
    image = smooth(13, 8, mode)
    mirror = ImageOps.mirror(image)
    files = [container.read(diffcodec.encode(one, **options)) for one in (image, mirror)]
    assert files[0].stream == files[1].stream
    assert {file.header.mirrored for file in files} == {False, True}


def test_of_a_mirrored_file_everything_is_the_right_way_round():
    image = smooth(13, 8)
    data, other = (diffcodec.encode(one) for one in (image, ImageOps.mirror(image)))
    assert same(diffcodec.decode(data), image)
    for length in (40, 70, 100):
        told = diffcodec.decode(data[:length])
        assert same(told, ImageOps.mirror(diffcodec.decode(other[:length])))
        assert psnr(told, image) > psnr(told, ImageOps.mirror(image))
    for one, mirrored in zip(*map(diffcodec.decode_progressive, (data, other)), strict=True):
        assert same(one.image, ImageOps.mirror(mirrored.image))


def test_a_larger_picture_is_tried_one_way_only(monkeypatch):
    walks = []
    once = quantised.walk
    monkeypatch.setattr(quantised, "walk", lambda *args: walks.append(1) or once(*args))
    for width in (48, 49):
        diffcodec.encode(smooth(width, 2, "L"))
    assert len(walks) == 2 + 1


# --- exchanged colours ---------------------------------------------------------------------------


@pytest.fixture(params=range(len(GREENS)))
def colours(request, monkeypatch):
    """The colour transform that is selected."""
    monkeypatch.setattr(colour, "shortest", lambda *args: request.param)
    return request.param


@pytest.mark.parametrize("size", [(50, 9), (3, 60)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_pictures_with_exchanged_colours_come_back(mode, size, colours):
    image = smooth(*size, mode)
    data = diffcodec.encode(image)
    assert container.read(data).header.colours == colours
    assert same(diffcodec.decode(data), image)
    lossy = diffcodec.encode(image, max_bytes=len(data) // 2)
    assert container.read(lossy).header.colours == colours
    assert psnr(diffcodec.decode(lossy), image) > 20


def test_a_prefix_shows_exchanged_colours_in_their_places(colours):
    strong = np.zeros((12, 50, 3), np.uint8) + np.uint8([200, 120, 30])
    strong[3:9, 20:30] = 30, 40, 180
    data = diffcodec.encode(picture(strong), process="photo")
    for preview in list(diffcodec.decode_progressive(data))[-4:]:
        assert psnr(preview.image, strong) > 25


def test_colours_are_exchanged_where_that_is_shorter():
    # Two colours are alike; luma has more of them if one stands in green's place.
    random = np.random.default_rng(0)
    shared, own = random.normal(128, 12, (2, 52, 40))
    pixels = picture(np.stack([shared, own, shared], -1).clip(0, 255))
    swapped = picture(np.asarray(pixels)[..., [1, 0, 2]])
    files = [container.read(diffcodec.encode(one)) for one in (pixels, swapped)]
    assert files[0].header.colours != files[1].header.colours
    assert files[0].stream == files[1].stream


# --- samples, info, models -----------------------------------------------------------------------


def test_sampled_details_follow_the_seed_and_the_prefix(tiny):
    image, data = tiny
    start = container.read(data).start
    cut = data[: start + (len(data) - start) // 2]
    first, again, other = (diffcodec.decode(cut, show="sample", seed=s) for s in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)
    assert same(diffcodec.decode(data, show="sample", seed=1), image)
    with pytest.raises(ValueError, match="show"):
        diffcodec.decode(data, show="median")


def test_texture_that_is_added_follows_the_seed_and_ends_with_the_file(tiny):
    image, data = tiny
    start = container.read(data).start
    cut = data[: start + (len(data) - start) // 2]
    one, again, other = (diffcodec.decode(cut, show="visual", seed=s) for s in (1, 1, 2))
    assert same(one, again)
    assert not same(one, other)
    assert not same(one, diffcodec.decode(cut, show="sample", seed=1))
    assert same(diffcodec.decode(data, show="visual"), image)


def test_previews_and_cuts_can_have_texture(coded):
    _, data = coded
    shown = [(p.bytes_used, p.image) for p in diffcodec.decode_progressive(data, show="visual")]
    means = [(p.bytes_used, p.image) for p in diffcodec.decode_progressive(data)]
    assert [used for used, _ in shown] == [used for used, _ in means]
    different = [not same(one, other) for (_, one), (_, other) in zip(shown, means, strict=True)]
    assert any(different) and not any(different[-3:])  # nothing that is seen is missing then
    sizes = [len(data) // 9, len(data) // 3, len(data)]
    for size, cut in zip(sizes, diffcodec.decode_cuts(data, sizes, show="visual"), strict=True):
        assert same(cut, diffcodec.decode(data[:size], show="visual"))
    last = list(diffcodec.decode_progressive(data[: sizes[0]], show="visual"))[-1]
    assert same(last.image, diffcodec.decode(data[: sizes[0]], show="visual"))
    for call in (
        diffcodec.decode_progressive(data, show="sample"),
        diffcodec.decode_cuts(data, sizes, show="sample"),
    ):
        with pytest.raises(ValueError, match="show"):
            next(call)


def detail(image):
    """Mean square of the differences of luma across and down."""
    luma = np.asarray(image.convert("L")).astype(np.float64)
    return sum(np.square(np.diff(luma, axis=axis)).mean() for axis in (0, 1))


def test_what_looks_best_lies_between_expectation_and_sample(coded):
    image, data = coded
    used = [p.bytes_used for p in diffcodec.decode_progressive(data)][-5]
    mean, visual, sample = (diffcodec.decode(data[:used], show=show, seed=3) for show in SHOWN)
    assert psnr(sample, image) < psnr(visual, image) < psnr(mean, image)
    assert detail(mean) < detail(visual) < detail(sample)


def test_a_sample_agrees_with_what_the_prefix_tells(coded):
    image, data = coded
    used = [p.bytes_used for p in diffcodec.decode_progressive(data)][-3]
    mean = psnr(diffcodec.decode(data[:used]), image)
    sampled = psnr(diffcodec.decode(data[:used], show="sample", seed=3), image)
    assert mean - 6 < sampled < mean  # the mean has the least error; a sample about twice that


def test_samples_have_their_mode_size_and_seed():
    first = diffcodec.sample(9, 6, "LA", seed=4)
    assert (first.mode, first.size) == ("LA", (9, 6))
    assert same(diffcodec.sample(9, 6, "LA", seed=4), first)
    assert not same(diffcodec.sample(9, 6, "LA", seed=5), first)
    with pytest.raises(ValueError, match="mode"):
        diffcodec.sample(9, 6, "CMYK")
    with pytest.raises(FormatError):
        diffcodec.sample(0, 6)


def test_info_tells_what_the_file_says(tiny):
    image, data = tiny
    info = diffcodec.info(data)
    assert (info.width, info.height, info.mode) == (*image.size, image.mode)
    assert info.lossless
    assert info.complete
    assert info.bytes == info.total_bytes == len(data)
    ends = [rung.bytes for rung in info.rungs]
    assert ends == [p.bytes_used for p in diffcodec.decode_progressive(data)]
    assert info.rungs[-1].bpp == 8 * len(data) / (image.width * image.height)
    cut = diffcodec.info(data[:-5])
    assert not cut.complete
    assert cut.total_bytes == len(data)
    # Zeros take the place of the missing bytes, but rungs that they would make up do not count.
    assert [rung.bytes for rung in cut.rungs] == ends[: len(cut.rungs)]
    assert len(cut.rungs) < len(ends)


def test_a_file_of_an_unknown_model_is_refused(tiny):
    data = tiny[1][:8] + b"\xff\0\xff\0" + tiny[1][12:]
    for act in (diffcodec.decode, diffcodec.info, lambda d: list(diffcodec.decode_progressive(d))):
        with pytest.raises(ModelError, match="ff00ff00"):
            act(data)
    assert diffcodec.info(data, rungs=False).model == "ff00ff00"
    with pytest.raises(ModelError, match=r"missing\.safetensors"):
        diffcodec.encode(tiny[0], model="missing.safetensors")
