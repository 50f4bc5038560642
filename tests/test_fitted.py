"""Fitted files: shifts of biases in the stream, what they cost, their limits, damage, prefixes."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import model_file, network, pixels

import diffcodec
from diffcodec import container
from diffcodec.entropy import RangeDecoder, RangeEncoder
from diffcodec.errors import DiffcodecError, FormatError, ModelError
from diffcodec.exact import files
from diffcodec.exact.backends import ACCUMULATOR_LIMIT, exactly
from diffcodec.quantized import model as models
from diffcodec.quantized import tiled
from diffcodec.quantized.fitted import LIMIT, Fitted, layers
from diffcodec.quantized.sampling import Sampler
from diffcodec.quantized.step import walk
from diffcodec.quantized.stream import empty_states, image_states
from diffcodec.training import fitting

ROW, PHASES = (0, 0), range(6)
SIDE = 40


def shifts_of(weights, seed=0, most=LIMIT, share=0.3, rows=(ROW,)):
    """Random shifts of some rows."""
    random = np.random.default_rng(seed)
    return {
        row: {
            name: (random.integers(-most, most + 1, layer.bias.shape[-1]))
            * (random.random(layer.bias.shape[-1]) < share).astype(np.int32)
            for name, layer in layers(weights.network, row, PHASES).items()
        }
        for row in rows
    }


def write(weights, planes, shifts, threads=None):
    """A file of uint8 [3, H, W] with these shifts; None: one without fitted biases."""
    header = container.Header(
        container.QUANTISED, "RGB", planes.shape[2], planes.shape[1], weights.id,
        container.checksum(planes), 0, True, fitted=shifts is not None,
    )  # fmt: skip
    encoder = RangeEncoder()
    with exactly(threads):
        states = image_states(header, weights, torch.from_numpy(planes).int(), shifts)
        for _ in walk(weights, states, encoder):
            pass
    return container.write(header, encoder.to_bytes(), {})


@pytest.fixture(scope="module")
def planes():
    return pixels(SIDE, SIDE + 3).numpy()


@pytest.fixture(scope="module")
def fitted(tiny_model, planes):
    """A file with shifts in three rows."""
    return write(tiny_model, planes, shifts_of(tiny_model, rows=[(0, 0), (1, 1), (3, 2)], most=2))


@given(st.integers(0, 1 << 30), st.sampled_from([1, 3, LIMIT]), st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_shifts_come_back(tiny_model, seed, most, share):
    shifts = shifts_of(tiny_model, seed, most, share)
    encoder, written = RangeEncoder(), Fitted(tiny_model.network, shifts)
    assert written.pass_row(ROW, PHASES, encoder)
    size = encoder.bits_used
    assert written.pass_row(ROW, PHASES, encoder)  # it is told once
    assert encoder.bits_used == size
    read = Fitted(tiny_model.network, None)
    assert read.pass_row(ROW, PHASES, RangeDecoder(encoder.to_bytes(), complete=True))
    for name, layer in layers(tiny_model.network, ROW, PHASES).items():
        one, other = (layers(each.network, ROW, PHASES)[name].bias for each in (written, read))
        assert torch.equal(one, other)
        moved = (one[ROW] != layer.bias[ROW]).numpy()
        assert not (moved & (shifts[ROW][name] == 0)).any()
    shared = zip(tiny_model.network.experts, read.network.experts, strict=True)
    assert [one is other for one, other in shared] == [False, True, True]


def test_a_shift_moves_an_output_by_its_unit(tiny_model):
    for layer in layers(tiny_model.network, ROW, PHASES).values():
        moved = layer.shift_units(ROW) * layer.multiplier[ROW].flatten().double().abs()
        units = layer.shift_units(ROW)
        assert bool((units.log2() % 1 == 0).all())
        assert bool(((moved >= 2) & (moved < 4) | (units == 1)).all())


@pytest.mark.parametrize("path", ["tiny", files.PHOTO, files.THUMBNAIL], ids=str)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_farthest_shifts_keep_sums_in_their_range(path, sign, tiny_path):
    with exactly(1):
        weights = models.load(tiny_path if path == "tiny" else path)
        row = (0, 0)
        farthest = {
            name: np.full(layer.bias.shape[-1], sign * LIMIT, np.int32)
            for name, layer in layers(weights.network, row, PHASES).items()
        }
        here = Fitted(weights.network, {row: farthest})
        assert here.pass_row(row, PHASES, RangeEncoder())
    for layer in layers(here.network, row, PHASES).values():
        reach = layer.weight.flatten(1).double().abs().sum(1) * 512
        assert float((reach + layer.bias[row].double().abs()).max()) < ACCUMULATOR_LIMIT


def test_a_bias_that_would_leave_the_range_stops_at_a_power_of_two(tiny_model):
    layer = layers(tiny_model.network, ROW, PHASES)["merge"]
    before = layer.bias.clone()
    try:
        layer.shift(ROW, torch.full(before.shape[-1:], 1 << 30))
        reach = layer.weight.flatten(1).double().abs().sum(1) * 512
        moved = layer.bias[ROW].double()
        assert bool((moved.log2() % 1 == 0).all())
        assert bool((reach + moved < ACCUMULATOR_LIMIT).all())
        assert bool((reach + 2 * moved >= ACCUMULATOR_LIMIT - 1).all())
    finally:
        layer.bias.copy_(before)


def test_a_fitted_file_decodes_and_its_prefixes_are_pictures(tiny_path, planes, fitted):
    original = planes.transpose(1, 2, 0)
    assert diffcodec.info(fitted[:30], rungs=False).process == "photo"
    whole = diffcodec.decode_array(fitted, model=tiny_path)
    assert np.array_equal(whole, original)
    *_, last = diffcodec.decode_progressive(fitted, model=tiny_path)
    assert np.array_equal(np.asarray(last.image), original)
    sizes = [*range(20, len(fitted), 397)]
    for size, shown in zip(
        sizes, diffcodec.decode_cuts(fitted, sizes, model=tiny_path), strict=True
    ):
        if size % 3 == 0:
            assert np.array_equal(
                np.asarray(shown), diffcodec.decode_array(fitted[:size], model=tiny_path)
            )
    diffcodec.decode_array(fitted[: len(fitted) // 3], model=tiny_path, show="sample")


def test_a_stream_may_end_in_any_bit_of_the_shifts(tiny_model):
    encoder = RangeEncoder()
    shifts = shifts_of(tiny_model)
    assert Fitted(tiny_model.network, shifts).pass_row(ROW, PHASES, encoder)
    data = encoder.to_bytes(complete=False)
    for size in range(len(data)):
        read = Fitted(tiny_model.network, None)
        assert not read.pass_row(ROW, PHASES, RangeDecoder(data[:size], complete=False))
        assert read == Fitted(tiny_model.network, None)
    assert read.pass_row(ROW, PHASES, RangeDecoder(data, complete=False))


@pytest.mark.parametrize("visual", [False, True])
def test_shifts_that_are_missing_are_not_drawn(tiny_model, fitted, visual):
    header = container.read(fitted).header
    states = empty_states(header, tiny_model)
    sampler = Sampler(3, visual=visual)
    for _ in walk(tiny_model, states, sampler, begin=sampler.begin):
        pass
    assert sampler.drawn
    assert states[0].fitted.told
    assert states[0].fitted.network is tiny_model.network


def test_damage_is_a_picture_or_an_error(tiny_path, fitted):
    start = container.read(fitted).start
    for place in range(start, len(fitted), len(fitted) // 6):
        data = bytearray(fitted)
        data[place] ^= 16
        with pytest.raises(DiffcodecError):
            diffcodec.decode(bytes(data), model=tiny_path)


def test_another_model_is_refused(tmp_path, fitted):
    model_file(net=network(seed=1)).write(tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="was made with"):
        diffcodec.decode(fitted, model=tmp_path / "other.safetensors")


def test_telling_nothing_costs_less_than_four_bytes(tiny_model, planes):
    assert len(write(tiny_model, planes, {})) - len(write(tiny_model, planes, None)) < 4


def test_threads_do_not_matter(tiny_model, planes, tiny_path):
    shifts = shifts_of(tiny_model, most=3)
    made = {write(tiny_model, planes, shifts, threads) for threads in (1, 2)}
    assert len(made) == 1
    shown = diffcodec.decode_array(*made, model=tiny_path, threads=2)
    assert np.array_equal(shown, planes.transpose(1, 2, 0))


@pytest.fixture(scope="module")
def biased(tmp_path_factory):
    """A model whose scales are two octaves off at the finish of level 1."""
    file = model_file()
    for phase in PHASES:
        name = f"experts.0.heads.{phase}.out"
        bias, multiplier = file.tensors[f"{name}.bias"], file.tensors[f"{name}.multiplier"]
        bias[ROW][3:] -= (32 / multiplier[ROW][3:]).round().int()
    path = tmp_path_factory.mktemp("biased") / "model.safetensors"
    file.write(path)
    return path


@pytest.mark.parametrize(("mode", "tile"), [("L", 0), ("LA", 64), ("RGBA", 0), ("RGB", 64)])
def test_a_fit_makes_files_smaller(mode, tile, biased, monkeypatch):
    monkeypatch.setattr(tiled, "LOOKED_AT", 2 * 64 * 64)  # two of four tiles
    for name, value in {"STEPS": 60, "RATE": 0.3, "RUNGS": (1,), "LEVELS": (1,)}.items():
        monkeypatch.setattr(fitting, name, value)
    array = pixels(128, 128, 1).numpy()[[0, 1, 2, 0]].transpose(1, 2, 0)
    array = array[..., 0] if mode == "L" else array[..., -len(mode) :]
    options = {"model": biased, "process": "photo", "tile": tile}
    counts, done = [], []
    watched = {"saved": counts.append, "progress": done.append}
    data = diffcodec.encode(array, fit="auto", **watched, **options)
    plain = diffcodec.encode(array, **options)
    header = container.read(data).header
    assert header.fitted
    assert (header.mode, header.tile) == (mode, tile)
    assert 0 < counts[-1] / 2 < len(plain) - len(data)
    assert counts == sorted(counts)
    assert done == sorted(done)
    assert done[-1] == 1
    assert np.array_equal(diffcodec.decode_array(data, model=biased), array)


def test_seconds_are_kept(tiny_model, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(fitting.time, "monotonic", lambda: next(clock))
    fractions = list(fitting._Budget(0.5, 100, 20, lambda _: None))
    assert fractions == [n / 10 for n in range(10)]


def test_more_pixels_take_more_steps_within_reason():
    steps = [fitting._steps(1 << bits) for bits in (10, 19, 21, 27)]
    assert steps == [800, 800, 1600, 2400]


def test_a_small_picture_is_not_fitted(tiny_path):
    array = pixels(60, 60).numpy().transpose(1, 2, 0)
    options = {"model": tiny_path, "process": "photo"}
    assert diffcodec.encode(array, fit=1000, **options) == diffcodec.encode(array, **options)


def test_what_a_fit_does_not_go_with():
    array = pixels(80, 80).numpy().transpose(1, 2, 0)
    for wrong in (0, -1, "long"):
        with pytest.raises(ValueError, match="seconds"):
            diffcodec.encode(array, fit=wrong)
    with pytest.raises(ValueError, match="no limit"):
        diffcodec.encode(array, fit=5, bpp=1)


def test_headers(fitted):
    header, start = container.read_header(fitted)
    assert header.fitted
    again = container.write_header(header)
    assert fitted.startswith(again)
    assert len(again) == start
    assert len(container.write_header(replace(header, fitted=False))) == start - 1
    stepped = replace(header, step=5)
    assert container.read_header(container.write_header(stepped))[0] == stepped
    with_tiles = replace(header, tile=64)
    assert container.read_header(container.write_header(with_tiles))[0] == with_tiles
    with pytest.raises(FormatError, match="fitted weights"):
        container.read_header(container.write_header(replace(header, codec=container.ABSORBING)))


def test_who_does_not_fit_does_not_load_what_trains():
    code = (
        "import sys, numpy as np, diffcodec\n"
        "diffcodec.decode(diffcodec.encode(np.zeros((9, 9), np.uint8), process='photo'))\n"
        "print([name for name in sys.modules if name.startswith('diffcodec.training')])"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
