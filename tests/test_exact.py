"""The same integers everywhere, and integers that stand for the float network."""

import copy
import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

import diffcodec
from diffcodec.errors import ModelError
from diffcodec.exact import backends, files
from diffcodec.exact.cdf import MEAN_UNITS, SCALE_UNITS, SCALES, TAIL, CdfTable
from diffcodec.exact.layers import (
    ACCUMULATOR_LIMIT,
    SIGNIFICANDS,
    ExactConv,
    check_bound,
)
from diffcodec.exact.networks import (
    ExactNoiseNetwork,
    NoiseShape,
    exact_layers,
    noise_layers,
)
from diffcodec.quantized import denoising, tiles
from diffcodec.quantized import model as models
from diffcodec.quantized.features import FEATURES, LIMIT
from diffcodec.quantized.schedule import HIGHEST_TRAINED_RUNG, LOW, PHASES, RUNGS
from diffcodec.training import integers
from diffcodec.training.networks import FilmConv, NoiseNetwork

STEP = 2, 0  # rows of the embedding tables


def picture(width, height, mode="L"):
    """Waves, an edge, and noise."""
    random = np.random.default_rng(width)
    y, x = np.mgrid[:height, :width]
    planes = [
        120 + 60 * np.sin(x / 9 + c) + 40 * (x + y > height) + random.normal(0, 6, x.shape)
        for c in range(len(mode))
    ]
    return Image.fromarray(np.stack(planes, -1).clip(0, 255).astype(np.uint8).squeeze())


def features(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * 120).round().clamp(-LIMIT, LIMIT)


def outputs(network, x):
    """The trunk and the rows of every head, on the network's device."""
    device = next(network.buffers()).device
    trunk = network.trunk(x.to(device), STEP)
    rows = trunk.flatten(2)[0].T
    made = [trunk]
    for number, phase in enumerate(PHASES):
        known = features(number, len(rows), 9 * phase.known).to(device) if phase.known else None
        made.append(network.head(number, rows, known, STEP))
    return [part.cpu() for part in made]


def assert_equal(a, b):
    for one, other in zip(a, b, strict=True):
        assert torch.equal(one, other)


# --- the same bytes ------------------------------------------------------------------------------


def test_threads_and_kernels_do_not_matter():
    image, threads = picture(41, 33, "RGB"), torch.get_num_threads()
    files = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            files.append(diffcodec.encode(image))
    finally:
        torch.set_num_threads(threads)
    with torch.backends.mkldnn.flags(enabled=False):
        files.append(diffcodec.encode(image))
        assert diffcodec.decode(files[0]).tobytes() == image.tobytes()
    assert files[0] == files[1] == files[2]


def test_tiles_do_not_matter(monkeypatch):
    image = picture(150, 110)
    whole = diffcodec.encode(image)
    preview = diffcodec.decode(whole[:900])
    monkeypatch.setattr(tiles, "TILE", 32)
    assert diffcodec.encode(image) == whole
    assert diffcodec.decode(whole[:900]).tobytes() == preview.tobytes()


@pytest.mark.parametrize(("height", "width"), [(40, 56), (33, 21), (1, 5)])
def test_memory_formats_do_not_matter(height, width):
    network, x = models.load(files.PHOTO).network, features(0, 1, FEATURES, height, width)
    contiguous = copy.deepcopy(network)
    for layer in contiguous.modules():
        if isinstance(layer, ExactConv):
            layer.weight = layer.weight.contiguous()
    expected = outputs(network, x.contiguous(memory_format=torch.channels_last))
    assert expected[0].any()
    assert_equal(outputs(network, x), expected)
    assert_equal(outputs(contiguous, x), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tensor_chooses_a_row_as_its_number_does(dtype):
    random = np.random.default_rng(0)
    conv = ExactConv(
        torch.from_numpy(random.integers(-9, 10, (4, 3, 3, 3)).astype(np.int8)),
        torch.from_numpy(random.integers(-999, 1000, (5, 1, 4)).astype(np.int32)),
        torch.from_numpy(random.uniform(1e-3, 1e-1, (5, 1, 4)).astype(np.float32)),
        stride=1,
        relu=False,
        rows=False,
        limit=500,
        dtype=dtype,
    )
    x = torch.from_numpy(random.integers(-500, 501, (2, 3, 6, 6)).astype(np.float32))
    rows = [conv(x, (row, 0)) for row in range(5)]
    assert len({tuple(row.flatten().tolist()) for row in rows}) == 5
    for row, expected in enumerate(rows):
        assert torch.equal(conv(x, torch.tensor([row])), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_devices_do_not_matter():
    network, x = models.load(files.PHOTO).network, features(0, 1, FEATURES, 64, 96)
    assert_equal(outputs(copy.deepcopy(network).cuda(), x), outputs(network, x))


@pytest.mark.parametrize(("path", "most"), [(files.PHOTO, 512), (files.THUMBNAIL, 511)])
def test_activations_are_integers_within_their_limits(path, most):
    """In bfloat16 the limit of photographs' trunk is the next number that this type has."""
    trunk, *heads = outputs(models.load(path).network, features(1, 1, FEATURES, 20, 30) * 4)
    for part, limit in ((trunk, most), *((head, models.MEAN_LIMIT) for head in heads)):
        assert torch.equal(part, part.round())
        assert part.abs().max() <= limit


# --- one layer -----------------------------------------------------------------------------------


def layer(
    seed,
    *,
    stride=1,
    kernel=3,
    relu=False,
    rows=False,
    inputs=5,
    made=7,
    limit=511,
    dtype=torch.float32,
):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randint(-127, 128, (made, inputs, kernel, kernel), generator=generator)
    bias = torch.randint(-(1 << 20), 1 << 20, (3, 2, made), generator=generator)
    multiplier = torch.rand((3, 2, made), generator=generator) * 1e-3
    x = torch.randint(-511, 512, (2, inputs, 8, 10), generator=generator)
    exact = ExactConv(
        weight.to(torch.int8),
        bias.to(torch.int32),
        multiplier,
        stride=stride,
        relu=relu,
        rows=rows,
        limit=limit,
        dtype=dtype,
    )
    return exact, weight, bias[2, 1], multiplier[2, 1].numpy(), x


def requantised(sums, multiplier, low, high):
    """In numpy, from int64 sums [..., outputs]."""
    assert int(sums.abs().max()) < ACCUMULATOR_LIMIT
    return np.rint(sums.numpy().astype(np.float32) * multiplier).clip(low, high)


@pytest.mark.parametrize(("stride", "kernel"), [(1, 3), (1, 1), (2, 2)])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("inputs", [5, 32, 33])
@pytest.mark.parametrize("dtype", SIGNIFICANDS.values())
@pytest.mark.parametrize("operands", [None, torch.float32, torch.float64])
def test_a_convolution_is_an_integer_one(
    stride, kernel, relu, inputs, dtype, operands, monkeypatch
):
    """Whatever multiplies; None is the type of the activations."""
    monkeypatch.setattr(backends, "operands", lambda *_: operands or dtype)
    exact, weight, bias, multiplier, x = layer(
        4, stride=stride, kernel=kernel, relu=relu, inputs=inputs, made=32, dtype=dtype
    )
    got = exact(x.float(), (2, 1))
    x, bias = (part.to(dtype).long() for part in (x, bias))
    pad = kernel // 2 if stride == 1 else 0
    padded = torch.nn.functional.pad(x, (pad, pad, pad, pad))
    patches = padded.unfold(2, kernel, stride).unfold(3, kernel, stride)
    sums = (patches[:, None] * weight[:, :, None, None]).sum((2, 5, 6)) + bias[:, None, None]
    assert int(sums.abs().max()) < ACCUMULATOR_LIMIT
    products = sums.to(dtype) * torch.tensor(multiplier)[:, None, None].to(dtype)
    limit = 512 if dtype == torch.bfloat16 else 511
    expected = products.float().round().clamp(0 if relu else -limit, limit)
    assert torch.equal(got.float(), expected)
    assert len(expected.unique()) > 50


@pytest.mark.parametrize("dtype", SIGNIFICANDS.values())
@pytest.mark.parametrize("operands", [None, torch.float32, torch.float64])
def test_a_layer_of_rows_is_the_convolution_at_places(dtype, operands, monkeypatch):
    """Whatever multiplies; None is the type of the activations."""
    monkeypatch.setattr(backends, "operands", lambda *_: operands or dtype)
    exact, weight, bias, multiplier, x = layer(5, rows=True, limit=700, dtype=dtype)
    neighbours = x[0].unfold(1, 3, 1).unfold(2, 3, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
    rows = neighbours.permute(0, 2, 3, 1).flatten(1)  # the channels of a neighbour stand together
    got = exact(rows.to(torch.int16), (2, 1))
    assert got.dtype == torch.float32
    neighbours, bias = (part.to(dtype).long() for part in (neighbours, bias))
    sums = (weight * neighbours[:, None]).sum((2, 3, 4)) + bias
    expected = requantised(sums.to(dtype).long(), multiplier, -700, 700)
    assert np.array_equal(got.numpy(), expected)
    assert len(np.unique(expected)) > 50


# --- the bound -----------------------------------------------------------------------------------


def test_the_bound_is_sharp():
    weight = torch.full((1, 16, 3, 3), 100, dtype=torch.int8)
    room = ACCUMULATOR_LIMIT - 16 * 9 * 100 * 512
    check_bound(weight, torch.full((1, 1, 1), -(room - 1), dtype=torch.int32))
    with pytest.raises(ModelError, match="exact"):
        check_bound(weight, torch.full((1, 1, 1), -room, dtype=torch.int32))


def test_a_model_that_breaks_the_bound_is_refused():
    file = files.parse(files.read(files.PHOTO))
    models.build(file)
    name = "experts.1.merge.weight"
    file.tensors[name] = torch.full_like(file.tensors[name], 127)
    with pytest.raises(ModelError, match="exact"):
        models.build(file)


def quantised(net, x):
    """Integer tensors, with ranges from the steps of all rungs."""

    def run():
        for rung in range(RUNGS):
            float_outputs(net, x, (rung, 0))

    return integers.quantise(net, run, models.output_units)


def float_outputs(net, x, step=STEP):
    """As `outputs` gives them: rows of every head, in integer units."""
    trunk = net.trunk(x, step)
    made = []
    for number, phase in enumerate(PHASES):
        known = features(number, 1, phase.known, *x.shape[-2:]) if phase.known else None
        head = net.head(number, trunk, known, step)[0]
        made.append(head.flatten(1).T * models.output_units(len(head)))
    return made


def test_the_exporter_refuses_what_breaks_the_bound(monkeypatch):
    net, x = tiny.network(seed=0), features(0, 1, FEATURES, 16, 16)
    monkeypatch.setattr(integers, "_BIAS_SHARE", 2.0)
    with torch.no_grad():
        net.experts[0].merge.rung_bias += 1e6
    with pytest.raises(ModelError, match="exact"):
        quantised(net, x)


def test_every_rung_has_the_rows_of_its_expert():
    """With one bias apart in every row, the networks of all rungs and levels differ."""
    net = tiny.network(seed=2)
    x = features(3, 1, FEATURES, 8, 8)
    seen = [net.trunk(x, (rung, level)) for rung in range(RUNGS) for level in range(LOW)]
    assert not any(torch.equal(a, b) for a, b in combinations(seen, 2))
    with pytest.raises(IndexError):
        net.trunk(x, (RUNGS, 0))


@pytest.mark.parametrize("significand", SIGNIFICANDS)
def test_the_exact_network_agrees_with_the_float_one(significand):
    config = replace(tiny.CONFIG, significand=significand)
    net, x = tiny.network(config, seed=1), features(2, 1, FEATURES, 24, 20)
    file = tiny.model_file(config, net)
    file.tensors.update(quantised(net, x))
    exact = models.build(file).network
    trunk = exact.trunk(x, STEP).flatten(2)[0].T
    for number, expected in enumerate(float_outputs(net, x)):
        phase, known = PHASES[number], None
        if phase.known:
            plane = features(number, 1, phase.known, 24, 20)
            nine = torch.nn.functional.unfold(plane, 3, padding=1)[0]
            known = nine.view(phase.known, 9, -1).permute(2, 1, 0).flatten(1)
        got = exact.head(number, trunk, known, STEP)
        expected = expected.clamp(-models.MEAN_LIMIT, models.MEAN_LIMIT)
        for one, other in zip(got.chunk(2, 1), expected.chunk(2, 1), strict=True):
            error = float((one - other).square().mean().sqrt())
            assert error < 0.05 * float(other.square().mean().sqrt()) + 1


def test_each_step_has_a_range_of_its_own():
    torch.manual_seed(0)
    shape = NoiseShape(3, 4, widths=(16,), blocks=(2,))
    net = NoiseNetwork(shape, knots=3).requires_grad_(False)
    for layer in net.modules():
        if isinstance(layer, FilmConv):
            layer.rung_bias += 0.1 * torch.randn_like(layer.rung_bias)
    net.stem.rung_gain[1] *= 300  # beside it the activations of other steps are next to nothing
    x = features(4, 2, 3, 16, 16)
    met = [(row, 0) for row in (0, 1)]
    tensors = integers.quantise(
        net, lambda: [net(x, index) for index in met], lambda n: torch.full((n,), 256.0)
    )
    convs = exact_layers(noise_layers(shape, 3), tensors, significand=24, limit=1 << 20)
    exact = ExactNoiseNetwork(shape, convs)
    for index in met:
        expected = net(x, index) * 256
        error = (exact(x, index) - expected).square().mean().sqrt()
        assert float(error) < 0.02 * float(expected.square().mean().sqrt()) + 1
    widest = tensors["encoder.0.0.first.multiplier"][:, 0, 0]
    assert widest[0] != widest[1]
    assert bool(torch.isfinite(widest).all())  # also of the step that was not met


def test_odds_and_embeddings_have_a_row_for_every_step():
    model = models.load(files.PHOTO)
    rows = [expert.stem.bias.shape[:2] for expert in model.network.experts]
    assert sum(rungs for rungs, _ in rows) == RUNGS
    assert {levels for _, levels in rows} == {LOW}
    assert int(model.level_odds.min()) > 0
    assert int(model.level_odds.max()) < 1 << 16
    rows = denoising.load(files.DENOISER).stem.bias.shape
    assert denoising.index(HIGHEST_TRAINED_RUNG, LOW) == (rows[0] - 1, rows[1] - 1)


# --- the table -----------------------------------------------------------------------------------


def test_the_table_is_a_distribution():
    table = CdfTable.gaussian().values.long()
    assert (table.diff() > 0).all()  # so nothing is impossible
    assert table[0] == 0
    assert table[-1] == 1 << 30
    assert int((table + table.flip(0) - (1 << 30)).abs().max()) <= 1


def test_the_table_is_the_gaussian():
    table = CdfTable.gaussian()
    for mean in (-300, 0, 77):
        for scale in (16, 80, 100, SCALES - 1):
            edges = torch.arange(-1500, 1500, 37, dtype=torch.int32)
            got = table.at(edges, *torch.tensor([mean, scale], dtype=torch.int32))
            for edge, value in zip(edges.tolist(), got.tolist(), strict=True):
                sigma = 2 ** (scale / SCALE_UNITS - 5)
                z = min(8, max(-8, (edge - mean) / MEAN_UNITS / sigma))
                cdf = 0.5 * (1 + math.erf(z / math.sqrt(2)))
                ideal = (1 - 16 * TAIL) * cdf + TAIL * (z + 8)
                assert value / (1 << 30) == pytest.approx(ideal, abs=1.5e-3)
