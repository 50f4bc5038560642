"""The absorbing process: drawings come back, and so does what a prefix knows of them."""

import io
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import diffcodec
from diffcodec import choice, container
from diffcodec.absorbing import blocks, grids, mixing, model, samples, state
from diffcodec.absorbing.step import walk
from diffcodec.entropy import BitSampler, RangeDecoder, RangeEncoder
from diffcodec.errors import CorruptError, ModelError
from diffcodec.exact import files

MODES = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}


def drawing(height=60, width=90, seed=0):
    """Rectangles, a checkerboard and a few lines in eight colours, uint8 [H, W, 3]."""
    random = np.random.default_rng(seed)
    colours = random.integers(0, 256, (8, 3), np.uint8)
    pixels = np.zeros((height, width), np.int64)
    for _ in range(12):
        top, left = random.integers(0, height), random.integers(0, width)
        pixels[top : top + 14, left : left + 20] = random.integers(8)
        pixels[top, :] = random.integers(8)
    y, x = np.mgrid[:20, :20]
    pixels[-20:, -20:] = ((x + y) % 2)[-height:, -width:]
    return colours[pixels]


def coded(pixels, **options):
    return diffcodec.encode(pixels, process="drawing", **options)


# --- grids ---------------------------------------------------------------------------------------


@given(st.integers(1, 70), st.integers(1, 70))
def test_the_phases_have_every_pixel_once(height, width):
    masked = np.ones((height, width), bool)
    for phase in grids.phases(height, width):
        for rows, columns in phase.waves(masked.copy()):
            assert masked[rows, columns].all()
            masked[rows, columns] = False
    assert not masked.any()


@pytest.mark.parametrize("kind", range(grids.KINDS))
def test_what_a_pixel_has_around_it_is_known_when_it_comes(kind):
    height, width = 41, 53
    masked = np.ones((height, width), bool)
    for phase in grids.phases(height, width):
        offsets = phase.spacing * grids.neighbours(phase.kind)
        for rows, columns in phase.waves(masked.copy()):
            if phase.kind == kind:
                for down, across in offsets:
                    r, c = rows + down, columns + across
                    inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
                    assert not masked[r[inside], c[inside]].any()
            masked[rows, columns] = False


def test_neighbours_are_the_nearest_ones_and_within_the_border():
    for kind in range(grids.KINDS):
        found = grids.neighbours(kind)
        distances = (found**2).sum(1)
        assert len(np.unique(found, axis=0)) == grids.NEIGHBOURS
        assert (np.diff(distances) >= 0).all()
        assert np.abs(found).max() * grids.phases(9, 9)[0].spacing <= grids.border(9, 9)
    # Between four known neighbours these are what is nearest.
    assert {tuple(place) for place in grids.neighbours(grids.REST)[:4]} == {
        (0, 1),
        (0, -1),
        (1, 0),
        (-1, 0),
    }


# --- blocks --------------------------------------------------------------------------------------


def test_blocks_are_asked_where_corners_agree_and_something_is_masked():
    image, masked = np.zeros((9, 9), np.int32), np.ones((9, 9), bool)
    image[4, 4] = 1
    masked[::4, ::4] = False
    masked[5:8, :4] = False
    found = blocks.Blocks.of(image, masked, 4)
    # All that touch the middle differ; the last one is a pixel that is known.
    assert found.open.tolist() == [[False, False, True], [False, False, True], [True, True, False]]
    assert found.uniform(image).tolist() == [1, 1, 1, 1]
    truth = image.copy()
    truth[2, 8] = 1
    assert found.uniform(truth).tolist() == [0, 1, 1, 1]
    spread = found.spread(np.arange(9).reshape(3, 3), (9, 9))
    assert spread[3, 8] == 2
    assert spread[4, 0] == 3


def test_a_large_flat_picture_costs_next_to_nothing():
    flat = np.full((600, 900, 3), 77, np.uint8)
    data = diffcodec.encode(flat)
    assert len(data) < 60
    assert np.array_equal(diffcodec.decode_array(data), flat)


# --- mixing --------------------------------------------------------------------------------------


def test_the_curves_are_inverse_to_each_other():
    stretch, squash = mixing.curves()
    assert (np.diff(stretch) >= 0).all()
    assert (np.diff(squash) >= 0).all()
    p = (np.arange(1 << mixing.STRETCHED) + 0.5) * 16
    back = squash[stretch + mixing.LOGITS]
    assert np.abs(back - p).max() < 70
    assert squash[0] == mixing.ONE - squash[-1] == mixing.SHARPEST


def test_an_adaptive_probability_finds_the_share_of_ones():
    table, seen = np.full(1, mixing.HALF, np.int32), np.zeros(1, np.uint8)
    random = np.random.default_rng(0)
    for bit in random.random(4000) < 0.2:
        mixing.adapt(table, seen, 0, int(bit), 255)
    assert table[0] / (2 * mixing.HALF) == pytest.approx(0.2, abs=0.06)
    assert seen[0] == 255


def test_weights_go_where_the_bits_are_cheaper():
    random, weights = np.random.default_rng(1), np.zeros(2, np.int64)
    curve = mixing.curves()
    for bit in random.integers(0, 2, 3000):
        inputs = np.array([700 if bit else -700, random.integers(-700, 700)])
        given = mixing.probability(mixing.weighted(inputs, weights), curve.squash)
        mixing.reweigh(inputs, weights, given, int(bit), 8)
    assert weights[0] > 1 << 16
    assert abs(weights[1]) < weights[0] / 3


# --- whole pictures ------------------------------------------------------------------------------


@given(
    st.sampled_from(sorted(MODES)),
    st.sampled_from([np.uint8, np.uint16]),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 300),
    st.integers(0, 1 << 30),
)
@settings(deadline=None, max_examples=40)
def test_any_picture_comes_back(mode, kind, height, width, colours, seed):
    random = np.random.default_rng(seed)
    palette = random.integers(0, np.iinfo(kind).max + 1, (colours, MODES[mode])).astype(kind)
    pixels = palette[random.integers(0, colours, (height, width))]
    pixels = pixels[..., 0] if mode == "L" else pixels
    data = coded(pixels)
    assert np.array_equal(diffcodec.decode_array(data), pixels)
    assert len(data) <= pixels.nbytes + 30


@pytest.mark.parametrize("mode", sorted(MODES))
@pytest.mark.parametrize("depth", [8, 16])
def test_the_bytes_of_a_pixel_are_all_there(mode, depth):
    found = [(own.plane, own.shift) for own in samples.layout(mode, depth)]
    expected = {(plane, shift) for plane in range(len(mode)) for shift in range(0, depth, 8)}
    assert len(found) == len(expected)
    assert set(found) == expected
    assert [own.role == samples.LOW for own in samples.layout("L", 16)] == [False, True]


def test_drawings_take_fewer_bytes_than_png_and_as_photographs():
    pixels = drawing(200, 300)
    data, png = diffcodec.encode(pixels), io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG", optimize=True)
    assert diffcodec.info(data, rungs=False).process == "drawing"
    assert len(data) < 0.8 * len(png.getvalue())
    assert len(data) < 0.5 * len(diffcodec.encode(pixels, process="photo"))


def test_what_repeats_is_cheap():
    tile = drawing(16, 16, seed=3)
    once, often = (len(coded(np.tile(tile, (n, n, 1)))) for n in (2, 16))
    assert often < 2.5 * once
    y, x = np.mgrid[:256, :256]
    assert len(diffcodec.encode(((x + y) % 2 * 255).astype(np.uint8))) < 100


def test_a_prefix_knows_pixels_and_shows_colours_of_the_picture_elsewhere():
    pixels = drawing()
    data = coded(pixels)
    palette = {tuple(colour) for colour in pixels.reshape(-1, 3)}
    right = []
    for share in (0.3, 0.6, 0.9, 1.0):
        shown = diffcodec.decode_array(data[: round(share * len(data))])
        assert {tuple(colour) for colour in shown.reshape(-1, 3)} <= palette
        right.append((shown == pixels).all(-1).mean())
    assert right == sorted(right)
    assert right[0] > 0.3
    assert right[-1] == 1


@given(st.data())
@settings(deadline=None, max_examples=15)
def test_every_prefix_is_a_picture_of_which_longer_ones_keep_what_is_known(data):
    pixels = drawing(24, 31)
    whole = coded(pixels)
    header = container.read(whole).header
    start = container.read(whole).start
    size = data.draw(st.integers(start, len(whole)))
    weights = model.find(header.model)

    def known(length):
        found = state.State.empty(weights, "RGB", 24, 31, 8)
        decoder = RangeDecoder(whole[start:length], complete=length == len(whole))
        for _ in walk(weights.curves, found, decoder):
            pass
        return found

    one, other = known(size), known(min(size + 20, len(whole)))
    assert not (other.masked & ~one.masked).any()
    exact = state.planes(one, 8)
    there = ~one.masked
    assert np.array_equal(np.moveaxis(exact, 0, -1)[there], pixels[there])


def test_previews_come_grid_by_grid_and_rungs_end_where_info_says():
    pixels = drawing()
    data = coded(pixels)
    found = list(diffcodec.decode_progressive(data))
    assert [(one.rung, one.bytes_used) for one in found] == [
        (rung.rung, rung.bytes) for rung in diffcodec.info(data).rungs
    ]
    assert [one.rung for one in found] == [4, 3, 2, 1]
    for one in found:
        assert np.array_equal(diffcodec.decode(data, rung=one.rung), one.picture)
        grid = np.s_[:: 1 << one.rung - 1, :: 1 << one.rung - 1]
        prefix = diffcodec.decode_array(data[: one.bytes_used])
        assert np.array_equal(prefix[grid], pixels[grid])
    sizes = [len(data), found[1].bytes_used]
    cuts = list(diffcodec.decode_cuts(data, sizes))
    assert np.array_equal(cuts[0], diffcodec.decode(data[: sizes[1]]))
    assert np.array_equal(cuts[1], pixels)


def test_previews_of_a_prefix_end_with_what_is_left():
    pixels = drawing()
    data = coded(pixels)
    half = data[: len(data) // 2]
    *_, last = diffcodec.decode_progressive(half)
    assert last.bytes_used == len(half)
    assert np.array_equal(last.picture, diffcodec.decode(half))


def test_a_sample_has_what_is_known_and_is_drawn_by_its_seed():
    pixels = drawing()
    data = coded(pixels)
    half = data[: len(data) // 2]
    shown = [diffcodec.decode_array(half, show="sample", seed=seed) for seed in (1, 1, 2)]
    assert np.array_equal(shown[0], shown[1])
    assert not np.array_equal(shown[0], shown[2])
    rungs = diffcodec.info(half).rungs
    grid = np.s_[:: 1 << rungs[-1].rung - 1, :: 1 << rungs[-1].rung - 1]
    assert np.array_equal(shown[0][grid], pixels[grid])


def test_limits_are_kept():
    pixels = drawing(120, 150)
    whole = coded(pixels)
    for limit in (60, len(whole) // 2):
        data = coded(pixels, max_bytes=limit)
        assert len(data) <= limit
        assert not diffcodec.info(data, rungs=False).lossless
        assert diffcodec.decode(data).size == (150, 120)
    assert coded(pixels, max_bytes=len(whole)) == whole
    data = coded(pixels, psnr=22)
    assert len(data) < len(whole)
    assert diffcodec.psnr(diffcodec.decode(data), Image.fromarray(pixels)) >= 22
    # A drawing is taken by itself only if all of it fits.
    assert diffcodec.encode(pixels, max_bytes=len(whole)) == whole
    less = diffcodec.encode(pixels, max_bytes=len(whole) - 1)
    assert diffcodec.info(less, rungs=False).process == "photo"


def test_a_damaged_file_is_told_or_still_a_picture():
    pixels = drawing()
    data = coded(pixels)
    random = np.random.default_rng(3)
    start = container.read(data).start
    for _ in range(20):
        damaged = bytearray(data)
        damaged[random.integers(start, len(data))] ^= 1 << random.integers(8)
        with pytest.raises(CorruptError):
            diffcodec.decode(bytes(damaged))
        assert diffcodec.decode(bytes(damaged[:-1])).size == (90, 60)


# --- the choice ----------------------------------------------------------------------------------


def test_the_choice():
    random = np.random.default_rng(0)
    photo = random.normal(120, 30, (3, 64, 64)).clip(0, 255).astype(np.uint8)
    y, x = np.mgrid[:64, :64]
    checkerboard = ((x + y) % 2 * 255).astype(np.uint8)[None]
    flat = np.moveaxis(drawing(), -1, 0)
    mixed = np.concatenate([photo, np.zeros_like(photo)], 2)
    assert choice.processes(photo) == (choice.PHOTO,)
    assert choice.processes(checkerboard) == (choice.PHOTO, choice.DRAWING)
    assert choice.processes(flat) == (choice.DRAWING,)
    assert choice.processes(mixed) == (choice.PHOTO, choice.DRAWING)


def test_patches_decide_on_large_pictures(monkeypatch):
    pixels = drawing(90, 120)
    pixels[40:, 50:] += (np.arange(70) % 40)[:, None].astype(np.uint8)
    monkeypatch.setattr(choice, "processes", lambda planes: (choice.PHOTO, choice.DRAWING))
    both = diffcodec.encode(pixels)
    tried = []
    monkeypatch.setattr(choice, "LARGE", 100)
    monkeypatch.setattr(choice, "_PATCH", 30)
    code = diffcodec.api.quantised.encode
    monkeypatch.setattr(
        diffcodec.api.quantised,
        "encode",
        lambda *given, rgb: tried.append(given[2]) or code(*given, rgb=rgb),
    )
    assert diffcodec.encode(pixels) == both
    assert [planes.shape for planes in tried] == [(3, 30, 30)] * 4  # and no photograph of it all


@pytest.mark.parametrize("options", [{}, {"max_bytes": 900}])
def test_a_photograph_alone_has_all_of_the_progress(options):
    random = np.random.default_rng(0)
    photo = random.normal(120, 9, (64, 64, 3)).clip(0, 255).astype(np.uint8)
    seen = []
    diffcodec.encode(photo, **options, progress=seen.append)
    steps = [after - before for before, after in pairwise(sorted({0.0, *seen}))]
    assert seen[-1] == 1
    assert max(steps) < 0.9
    assert seen == sorted(seen)
    if not options:
        assert any(0.5 < one < 1 for one in seen)


def test_the_shorter_file_is_taken():
    y, x = np.mgrid[:48, :64]
    pixels = np.where(x % 24 < 14, 3 * x + 2 * y, 90).astype(np.uint8)
    sizes = {one: len(diffcodec.encode(pixels, process=one)) for one in ("photo", "drawing")}
    assert len(diffcodec.encode(pixels)) == min(sizes.values())
    with pytest.raises(ValueError, match="auto, photo, drawing"):
        diffcodec.encode(pixels, process="text")


# --- the model -----------------------------------------------------------------------------------


def test_a_model_of_ones_own_says_the_process():
    data = diffcodec.encode(drawing(), model=files.DRAWING)
    assert diffcodec.info(data, rungs=False).process == "drawing"
    with pytest.raises(ModelError, match="absorbing"):
        diffcodec.encode(drawing(), process="photo", model=files.DRAWING)


@pytest.mark.parametrize("name", ["flat", "weights", "histograms", "squash"])
def test_tables_out_of_range_are_refused(name):
    file = files.parse(files.read(files.DRAWING))
    file.tensors[name].fill_(0 if name in ("histograms", "squash") else 1 << 25)
    with pytest.raises(ModelError, match=name):
        model.build(file)


def test_a_picture_leaves_the_model_as_it_was():
    weights = model.load(files.DRAWING)
    before = {name: table.copy() for name, table in weights.tables.items()}
    coded(drawing())
    assert all(np.array_equal(table, before[name]) for name, table in weights.tables.items())


def test_learning_makes_pictures_like_those_smaller(tmp_path):
    from diffcodec.training.drawings import learn

    for seed in range(6):
        Image.fromarray(drawing(seed=seed)).save(tmp_path / f"{seed}.png")
    learn([tmp_path], tmp_path / "model.safetensors", without=["5.png"])
    pixels = np.moveaxis(drawing(seed=5), -1, 0)
    sizes = []
    for weights in (model.untrained(), model.load(tmp_path / "model.safetensors")):
        encoder = RangeEncoder()
        for _ in walk(weights.curves, state.State.of_image(weights, "RGB", pixels), encoder):
            pass
        sizes.append(len(encoder.to_bytes()))
    assert sizes[1] < 0.95 * sizes[0]
    card = files.parse(files.read(tmp_path / "model.safetensors")).card
    assert card["validation"].startswith(f"{sizes[1]} bytes")
    assert card["runs"][0]["steps"] == 5


def test_an_empty_prefix_samples_a_picture():
    weights = model.load(files.DRAWING)
    found = state.State.empty(weights, "RGB", 20, 30, 8)
    for _ in walk(weights.curves, found, BitSampler(0)):
        pass
    assert found.finished
    assert not found.masked.any()
