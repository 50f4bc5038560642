"""Sets of pictures through the installed models: round trips, prefixes, refusals."""

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import diffcodec
from diffcodec import container, density, sets
from diffcodec.errors import CorruptError, FormatError, ImageError, ModelError
from diffcodec.exact import files


def picture(width, height, seed=0):
    """Waves and a little noise."""
    y, x = np.mgrid[:height, :width]
    random = np.random.default_rng(seed)
    planes = [
        128 + 80 * np.sin(x / 7 + seed) * np.cos(y / 5 + c) + random.normal(0, 3, x.shape)
        for c in range(3)
    ]
    return Image.fromarray(np.stack(planes, -1).clip(0, 255).astype(np.uint8))


def pixels(images):
    return [np.asarray(image) for image in images]


def same(images, others):
    return len(images) == len(others) and all(
        np.array_equal(a, b) for a, b in zip(pixels(images), pixels(others), strict=True)
    )


def rmse(images, others):
    errors = [
        (a.astype(float) - b).ravel() for a, b in zip(pixels(images), pixels(others), strict=True)
    ]
    return math.sqrt(np.square(np.concatenate(errors)).mean())


PICTURES = [picture(12, 8), picture(12, 8, seed=1), picture(7, 5, seed=2)]


@pytest.fixture(scope="module")
def bits_back():
    return diffcodec.encode_set(PICTURES)


@pytest.fixture(scope="module")
def channel():
    return diffcodec.encode_set(PICTURES[:2], method="channel", bpp=2.5)


# --- bits-back ------------------------------------------------------------------------------------


def test_pictures_of_any_sizes_come_back(bits_back):
    assert same(diffcodec.decode_set(bits_back.data), PICTURES)
    assert bits_back.samples == 3 * (2 * 96 + 35)
    assert bits_back.gross == pytest.approx(8 * len(bits_back.data) / bits_back.samples)
    overhead = 8 * len(bits_back.data) - bits_back.net_bits - bits_back.initial_bits
    assert 0 <= overhead < 8 * 48


def test_a_picture_larger_than_a_tile_comes_back(monkeypatch):
    monkeypatch.setattr(sets, "_PRICE", math.inf)  # no picture is a seed
    model = files.GAUSSIAN_32
    one = [picture(34, 7)]
    coded = diffcodec.encode_set(one, model=model)
    assert container.read_set(coded.data)[0].seeds == 0
    assert same(diffcodec.decode_set(coded.data), one)


def test_the_first_pictures_lend_the_others_their_bits(bits_back):
    seeds = container.read_set(bits_back.data)[0].seeds
    assert 0 < seeds < len(PICTURES)
    assert bits_back.seeds == seeds
    files = sum(len(diffcodec.encode(image)) for image in PICTURES[:seeds])
    assert 8 * files <= bits_back.seed_bits < 8 * files + 64
    assert bits_back.initial_bits < 0.1 * bits_back.net_bits


def test_one_picture_costs_its_own_file_and_a_header():
    one = picture(32, 32)
    data, own = diffcodec.encode_set([one]).data, diffcodec.encode(one)
    assert own in data
    assert len(data) <= len(own) + 32
    assert same(diffcodec.decode_set(data), [one])


@pytest.mark.parametrize("other", [picture(9, 9), picture(8, 12), Image.new("L", (9, 8))])
def test_seeds_of_other_pictures_are_refused(other):
    one = picture(9, 8)
    coded, own = diffcodec.encode_set([one]), diffcodec.encode(one)
    header, stream = container.read_set(coded.data)
    assert header.seeds == 1
    seed = diffcodec.encode(other)
    stream = seed + bytes(-len(seed) % 4) + stream[-4:]
    header = replace(header, stream_bytes=len(stream))
    with pytest.raises(CorruptError, match="other"):
        diffcodec.decode_set(container.write_set_header(header) + stream)
    assert own in coded.data


def test_bytes_do_not_depend_on_threads(bits_back, channel):
    before = torch.get_num_threads()
    torch.set_num_threads(1 if before > 1 else 2)
    try:
        assert diffcodec.encode_set(PICTURES).data == bits_back.data
        assert same(diffcodec.decode_set(bits_back.data), PICTURES)
        assert rmse(diffcodec.decode_set(channel.data), PICTURES[:2]) < 40
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("lost", [1, 100])
def test_bits_back_has_no_prefixes_and_says_so(bits_back, lost):
    with pytest.raises(FormatError, match="no previews"):
        diffcodec.decode_set(bits_back.data[:-lost])


def test_damage_is_noticed(bits_back):
    damaged = bytearray(bits_back.data)
    damaged[-40] ^= 4
    with pytest.raises(CorruptError):
        diffcodec.decode_set(bytes(damaged))


def test_bits_back_takes_no_limit():
    with pytest.raises(ValueError, match="lossless"):
        diffcodec.encode_set(PICTURES, bpp=1.0)


# --- reverse channel coding -----------------------------------------------------------------------


def test_every_prefix_of_a_channel_set_decodes_and_more_is_better(channel):
    errors = []
    for end in channel.milestones[2:-1:6]:
        shown = diffcodec.decode_set(channel.data[: end.bytes])
        assert [image.size for image in shown] == [(12, 8)] * 2
        errors.append(rmse(shown, PICTURES[:2]))
    assert errors[-1] < 0.6 * errors[0]
    start = len(channel.data) - container.read_set(channel.data)[0].stream_bytes
    grey = diffcodec.decode_set(channel.data[:start])
    assert set(np.unique(pixels(grey))) == {128}
    with pytest.raises(FormatError, match="header"):
        diffcodec.decode_set(channel.data[: start - 1])


def test_a_milestone_needs_its_last_byte(channel):
    for end in channel.milestones[3:-1:5]:
        whole, less = (diffcodec.decode_set(channel.data[: end.bytes - lost]) for lost in (0, 1))
        assert not same(whole, less)


def test_a_limit_holds(channel):
    assert len(channel.data) <= 2.5 * 2 * 96 / 8
    again = diffcodec.encode_set(PICTURES[:2], method="channel", bpp=2.5)
    assert again.data == channel.data
    with pytest.raises(FormatError, match="too small"):
        diffcodec.encode_set(PICTURES[:2], method="channel", bpp=0.01)


def test_milestones_tell_actual_and_ideal_bits(channel):
    ends = channel.milestones
    assert [end.bytes for end in ends] == sorted(end.bytes for end in ends)
    ideal = [end.ideal_bits for end in ends]
    assert ideal[0] > 0 and ideal == sorted(ideal)
    assert 1.1 < ends[-1].bits / ends[-1].ideal_bits < 2


def test_exact_samples_are_another_kind_of_set(channel):
    exact = diffcodec.encode_set(PICTURES[:1], method="channel", bpp=2.5, exact=True)
    assert diffcodec.set_info(exact.data).exact
    assert not diffcodec.set_info(channel.data).exact
    assert rmse(diffcodec.decode_set(exact.data), PICTURES[:1]) < 60
    wrong = bytearray(exact.data)
    wrong[3] = 0
    with pytest.raises(CorruptError):
        diffcodec.decode_set(bytes(wrong))
    with pytest.raises(ValueError, match="channel"):
        diffcodec.encode_set(PICTURES, exact=True)


# --- previews -------------------------------------------------------------------------------------


def test_each_milestone_is_shown_as_its_bytes_are_there(channel):
    shown = list(diffcodec.decode_set_progressive(channel.data))
    assert [one.bytes_used for one in shown[:-1]] == [end.bytes for end in channel.milestones]
    assert shown[-1].bytes_used == len(channel.data)
    assert all(one.complete for one in shown)
    for one in shown[::8]:
        assert same(one.images, diffcodec.decode_set(channel.data[: one.bytes_used]))


def test_previews_come_while_a_set_arrives(channel):
    pipe = Pipe(channel.data[:-3], 7)
    sizes = []
    for one in diffcodec.decode_set_progressive(pipe):
        sizes.append((one.bytes_used, pipe.read))
        assert not one.complete
    assert sizes[-1] == (len(channel.data) - 3,) * 2
    assert all(used <= read <= used + 28 for used, read in sizes)
    last = diffcodec.decode_set(channel.data[:-3])
    assert same(one.images, last)
    with pytest.raises(FormatError, match="header"):
        list(diffcodec.decode_set_progressive(Pipe(channel.data[:10], 7)))


def test_a_bits_back_set_is_shown_once_it_is_there(bits_back):
    (shown,) = diffcodec.decode_set_progressive(Pipe(bits_back.data, 500))
    assert shown.complete
    assert shown.bytes_used == len(bits_back.data)
    assert same(shown.images, PICTURES)
    with pytest.raises(FormatError, match="no previews"):
        list(diffcodec.decode_set_progressive(bits_back.data[:-1]))


class Pipe(io.RawIOBase):
    """Delivers so many bytes at a time, and counts them."""

    def __init__(self, data, size):
        self.data, self.size, self.read = data, size, 0

    def seekable(self):
        return False

    def read1(self, size):
        chunk = self.data[self.read : self.read + min(size, self.size)]
        self.read += len(chunk)
        return chunk


def test_detail_draws_or_flows(channel):
    cut = channel.data[: channel.milestones[-1].bytes // 2]
    mean, flow = (diffcodec.decode_set(cut, show=show) for show in ("mean", "flow"))
    one, two, again = (diffcodec.decode_set(cut, show="sample", seed=seed) for seed in (1, 2, 1))
    assert same(one, again)
    assert not same(one, two)
    assert not same(mean, flow)
    assert rmse(mean, PICTURES[:2]) < rmse(one, PICTURES[:2])


def test_a_damaged_channel_set_is_noticed(channel):
    damaged = bytearray(channel.data)
    damaged[-9] ^= 4
    with pytest.raises(CorruptError):
        diffcodec.decode_set(bytes(damaged))


# --- models and pictures --------------------------------------------------------------------------


def test_other_pictures_are_refused():
    for image in (Image.new("L", (8, 8)), Image.new("RGBA", (8, 8))):
        with pytest.raises(ImageError, match="RGB"):
            diffcodec.encode_set([image])
    with pytest.raises(FormatError, match="without pictures"):
        diffcodec.encode_set([])


def test_models_of_another_kind_are_refused(bits_back):
    with pytest.raises(ModelError):
        diffcodec.encode_set(PICTURES, model=files.WEIGHTS / "photo.safetensors")
    with pytest.raises(ModelError):
        diffcodec.encode(PICTURES[0], model=files.GAUSSIAN_32)
    with pytest.raises(ModelError, match="was made with"):
        diffcodec.decode_set(bits_back.data, model=files.GAUSSIAN_64)


def test_the_other_reader_says_which_one_to_use(bits_back):
    with pytest.raises(FormatError, match="decode_set"):
        diffcodec.decode(bits_back.data)
    with pytest.raises(FormatError, match="decode reads it"):
        diffcodec.decode_set(diffcodec.encode(picture(4, 4)))


def test_the_default_model_depends_on_the_size():
    small, large = (
        container.read_set(diffcodec.encode_set([picture(*size)]).data)[0].model
        for size in ((8, 4), (36, 4))
    )
    assert small != large


def test_the_likelihood_of_tiles():
    image = picture(64, 40)
    first, again = (
        diffcodec.model_likelihood([image], draws=4, model=files.GAUSSIAN_32) for _ in range(2)
    )
    assert first == again
    assert first.total.mean == pytest.approx(
        first.prior.mean + first.diffusion.mean + first.reconstruction.mean
    )
    steps = diffcodec.model_likelihood([image], steps=16, draws=4, model=files.GAUSSIAN_32)
    assert steps.diffusion.mean > first.diffusion.mean
    with pytest.raises(ImageError, match="two tiles"):
        diffcodec.model_likelihood([picture(32, 32)], model=files.GAUSSIAN_32)


@pytest.mark.parametrize(
    "sampler", ["ancestral", "ddim", "flow", "langevin", "predictor-corrector"]
)
def test_samples_are_drawn(sampler):
    done: list[float] = []
    drawn = diffcodec.sample_set(2, sampler=sampler, steps=2, progress=done.append)
    assert done == sorted(done)
    assert done[-1] == 1
    assert [(image.size, image.mode) for image in drawn] == [((32, 32), "RGB")] * 2
    assert not same(drawn[:1], drawn[1:])
    assert same(drawn, diffcodec.sample_set(2, sampler=sampler, steps=2))


def test_eta_is_the_noise_of_ddim():
    still, noisy = (diffcodec.sample_set(1, sampler="ddim", steps=2, eta=eta) for eta in (0.0, 1.0))
    assert same(still, diffcodec.sample_set(1, sampler="ddim", steps=2))
    assert not same(still, noisy)


def test_many_samples_are_drawn_in_parts(monkeypatch):
    monkeypatch.setattr(density, "_BATCH", 2)
    done: list[float] = []
    drawn = diffcodec.sample_set(3, sampler="ddim", steps=1, progress=done.append)
    assert same(drawn[:2], diffcodec.sample_set(2, sampler="ddim", steps=1))
    assert len(drawn) == 3
    assert done == [0.25, 0.5, 0.75, 1.0]


def test_pictures_in_a_grid():
    images = [Image.new("RGB", (4, 3), (number, 0, 9)) for number in range(1, 6)]
    shown = diffcodec.grid(images)
    assert shown.size == (12, 6)
    found = np.asarray(shown)[::3, ::4, 0]
    assert found.tolist() == [[1, 2, 3], [4, 5, 0]]
    assert same([diffcodec.grid(images[:1])], images[:1])
    unlike = diffcodec.grid([Image.new("RGB", (2, 5)), Image.new("RGB", (4, 3))])
    assert unlike.size == (8, 5)
