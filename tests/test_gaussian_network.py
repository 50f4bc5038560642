"""The denoising network, and the task that trains it."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import diffcodec
from diffcodec.errors import ImageError, ModelError
from diffcodec.exact import files
from diffcodec.exact.networks import FEATURES, Layer, NoiseShape
from diffcodec.gaussian import elbo
from diffcodec.gaussian.chain import load
from diffcodec.gaussian.decoder import to_data
from diffcodec.gaussian.likelihood import likelihood
from diffcodec.gaussian.network import as_input, input_gain
from diffcodec.gaussian.process import alpha, marginal, normal, sigma
from diffcodec.gaussian.samplers import decode
from diffcodec.training import checkpoints, diffusion, export, recipes, train
from diffcodec.training import gaussian as network
from diffcodec.training.data import Draw
from diffcodec.training.gaussian import DenoisingNetwork, positions
from diffcodec.training.networks import FilmConv, NoiseConv
from diffcodec.training.noise import Gaussian, Options
from diffcodec.training.recipes import GAUSSIAN_32
from diffcodec.training.tasks import central_tiles
from diffcodec.training.times import low_discrepancy

SPACING = (network.HIGHEST_KNOT - network.LOWEST_KNOT) / (network.KNOTS - 1)
KNOTS = network.LOWEST_KNOT + SPACING * torch.arange(network.KNOTS)


@pytest.fixture
def small():
    """A small network whose tables are far from their start."""
    torch.manual_seed(0)
    net = DenoisingNetwork(NoiseShape(3, 3, (8, 12), (1, 1))).requires_grad_(False)
    for layer in net.modules():
        if isinstance(layer, NoiseConv):
            layer.rung_bias += 0.3 * torch.randn_like(layer.rung_bias)
            layer.rung_gain += 0.3 * torch.randn_like(layer.rung_gain)
            layer.level_bias += 0.1 * torch.randn_like(layer.level_bias)
    return net


def waves(size, count=4):
    """Smooth pictures with a little noise, uint8 [count, 3, size, size]."""
    random = np.random.default_rng(size)
    y, x = np.mgrid[:size, :size]
    planes = [
        128 + 90 * np.sin(x / 5 + c) * np.cos(y / 7 + n) + random.normal(0, 2, x.shape)
        for n in range(count)
        for c in range(3)
    ]
    return torch.from_numpy(np.stack(planes).clip(0, 255).astype(np.uint8)).unflatten(0, (-1, 3))


# --- noise levels --------------------------------------------------------------------------------


def test_a_layer_is_linear_between_its_knots_and_a_filmconv_at_them():
    torch.manual_seed(1)
    layer = NoiseConv(Layer(3, 5, 3, FEATURES, "b", rungs=4, levels=1)).requires_grad_(False)
    layer.rung_bias.normal_()
    layer.rung_gain.normal_()
    x = torch.randn(1, 3, 6, 6)
    for row in range(4):
        at_knot = FilmConv.forward(layer, x, (row, 0))
        torch.testing.assert_close(layer(x, torch.tensor([float(row)])), at_knot)
        torch.testing.assert_close(layer(x, (row, 0)), at_knot)
    layer.rung_gain.copy_(layer.rung_gain[1].clone())  # then outputs are linear in the bias
    ends = layer(x, (1, 0)), layer(x, (2, 0))
    between = layer(x, torch.tensor([1.25]))
    torch.testing.assert_close(between, torch.lerp(*ends, 0.25))
    assert (ends[0] - ends[1]).abs().max() > 0.1


def test_examples_have_levels_of_their_own(small):
    z, levels = torch.randn(3, 3, 8, 8), torch.tensor([-3.0, 2.2, 9.0])
    together = small(z, levels)
    for n in range(3):
        torch.testing.assert_close(together[n : n + 1], small(z[n : n + 1], levels[n : n + 1]))
    assert (small(z, levels.flip(0)) - together)[0].abs().max() > 0.01


def test_log_snrs_lie_between_the_knots():
    assert torch.equal(positions(KNOTS), torch.arange(network.KNOTS).float())
    assert positions(torch.tensor([-99.0, 99.0])).tolist() == [0, network.KNOTS - 1]


def test_fixed_steps_become_rows_of_plain_layers(small):
    levels = torch.tensor([-5.0, -1.3, 4.0, 4.1, 13.3])
    table = small.tabulated(levels)
    z = torch.randn(5, 3, 8, 8)
    expected = small(z, levels)
    for row, level in enumerate(levels):
        gain = input_gain(alpha(level), sigma(level))
        got = table(z[row : row + 1] * gain, (row, 0))
        torch.testing.assert_close(got[0], expected[row], rtol=1e-4, atol=1e-5)
    assert len(small.net.stem.rung_bias) == network.KNOTS  # the network itself is as before


def test_inputs_fit_ten_bits_and_use_them():
    for level in torch.linspace(-5, 11, 9):
        gain = input_gain(alpha(level), sigma(level))
        z = marginal(torch.ones(1, 3, 64, 64), level).draw(torch.randn(1, 3, 64, 64))
        units = as_input(z, float(gain))
        assert torch.equal(units, units.round())
        assert units.abs().max() <= 511
        inside = units.abs() < 511
        assert inside.float().mean() > 0.99
        assert ((units / gain - z)[inside]).abs().max() <= 0.5 / gain + 1e-6
        assert units.abs().max() > 300


# --- training ------------------------------------------------------------------------------------


def test_training_lowers_the_bound():
    torch.manual_seed(0)
    task = Gaussian(NoiseShape(3, 3, (16, 16), (1, 1)), (Draw(32, 32),), Draw(32, 32))
    generator = torch.Generator().manual_seed(0)
    net = task.network()
    optimiser = torch.optim.Adam(net.parameters(), lr=5e-3)
    pictures = waves(16, 8)
    losses = []
    for _ in range(60):
        loss = task.loss(net, 0, (), pictures, generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    odds = net.times.second_moments
    assert odds[:16].mean() > 2 * odds[-16:].mean()  # the bits are where there is little noise


SHAPE = NoiseShape(3, 3, (8, 8), (1, 1))

VARIATIONS = [
    {"objective": "simple", "kind": "eps", "variance": "beta", "schedule": "cosine"},
    {"objective": "hybrid", "kind": "eps", "variance": "learned"},
    {"objective": "hybrid", "variance": "learned", "steps": "50", "vlb_weight": "0.5"},
    {"objective": "vlb", "variance": "learned", "steps": "20", "schedule": "cosine"},
    {"objective": "vlb", "variance": "beta_tilde", "steps": "1000", "kind": "x"},
    {"kind": "score"},
    {"kind": "flow", "objective": "simple"},
    {"schedule": "learned"},
]


def task_of(options):
    return Gaussian(SHAPE, (Draw(32, 2),), Draw(32, 2)).varied(options)


@pytest.mark.parametrize("options", VARIATIONS, ids=lambda own: " ".join(own.values()))
def test_all_of_a_variation_is_trained(options):
    task = task_of(options)
    torch.manual_seed(0)
    net = task.network()
    task.loss(net, 0, (), waves(16), torch.Generator().manual_seed(0)).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert (net.kind, net.variance) == (task.options.kind, task.options.variance)
    start, quarter, end = net.schedule.log_snr(torch.tensor([0, 0.25, 1])).tolist()
    assert (start, end) == pytest.approx((11, -5), abs=1e-3)
    assert (quarter == pytest.approx(7, abs=0.3)) == (task.options.schedule != "cosine")
    assert task.validate(net, [waves(128, 1)[0]]).total > 0


@pytest.mark.parametrize("options", VARIATIONS[:4], ids=lambda own: " ".join(own.values()))
def test_a_variation_has_its_objective(options):
    """From the functions that the papers' formulas are tested on, at the same times and noise."""
    task, pictures = task_of(options), waves(16)
    torch.manual_seed(0)
    net, own = task.network(), task.options
    torch.nn.init.normal_(net.network.net.out.weight, std=0.05)
    generator = torch.Generator().manual_seed(0)
    x = to_data(pictures)
    times, weights = net.times.draw(len(x), generator)
    arguments = net, x, times, torch.randn(x.shape, generator=generator)
    losses = {
        ("simple", None): lambda: diffusion.simple(*arguments),
        ("hybrid", None): lambda: diffusion.hybrid(*arguments, 1000, 1e-3),
        ("hybrid", 50): lambda: diffusion.hybrid(*arguments, 50, 0.5),
        ("vlb", 20): lambda: elbo.discrete(*arguments, 20),
    }
    expected = (weights * losses[own.objective, own.steps]()).mean()
    loss = task.loss(net, 0, (), pictures, torch.Generator().manual_seed(0))
    assert loss.item() == pytest.approx(expected.item())


def test_a_learned_schedule_is_trained_with_the_terms_at_its_ends():
    task, pictures = task_of({"schedule": "learned"}), waves(16)
    net = task.network()
    loss = task.loss(net, 0, (), pictures, torch.Generator().manual_seed(0)).item()
    generator = torch.Generator().manual_seed(0)
    x = to_data(pictures)
    times = low_discrepancy(len(x), generator)
    terms = [elbo.continuous(net, x, times, torch.randn(x.shape, generator=generator))]
    terms.append(elbo.reconstruction(net, pictures, torch.randn(x.shape, generator=generator)))
    assert loss == pytest.approx((sum(terms).mean() + elbo.prior(net, x).mean()).item(), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variance": "learned"}, "learned variance"),
        ({"variance": "learned", "objective": "simple"}, "learned variance"),
        ({"objective": "hybrid"}, "hybrid"),
        ({"steps": "10"}, "calibrated"),
        ({"objective": "simple", "variance": "beta", "steps": "10"}, "no steps"),
        ({"variance": "beta", "steps": "0"}, "no step"),
        ({"schedule": "learned", "objective": "simple"}, "schedule"),
        ({"schedule": "learned", "variance": "beta", "steps": "10"}, "schedule"),
        ({"kind": "w"}, "kind is one of x, eps, v"),
        ({"betas": "linear"}, "there is no betas"),
        ({"steps": "many"}, "many"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Options.of(options)


def test_a_variation_trains_but_codes_only_if_it_predicts_v(tmp_path):
    pictures = [tmp_path / "pictures"]
    pictures[0].mkdir()
    Image.fromarray(waves(32, 1)[0].permute(1, 2, 0).numpy()).save(pictures[0] / "a.png")
    small = replace(GAUSSIAN_32, task=Gaussian(SHAPE, (Draw(32, 2),), Draw(32, 2)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(recipes.RECIPES, "gaussian-32", small)
        patch.setattr(network, "STEPS", 12)
        for options, kept in (({"kind": "eps", "objective": "simple"}, False), (COSINE, True)):
            recipe, run = recipes.varied(small, options), tmp_path / options["objective"]
            train(pictures, run, recipe, steps=1, device="cpu")
            if kept:
                export(run, tmp_path / "model", calibration=pictures)
                file = files.parse(files.read(tmp_path / "model"))
                assert file.card["recipe"] == recipe.name
                assert load(tmp_path / "model").steps == 12
            else:
                with pytest.raises(ModelError, match="predicts eps"):
                    export(run, tmp_path / "model", calibration=pictures)
                with pytest.raises(ModelError, match="is a checkpoint of the recipe"):
                    train(pictures, run, small, steps=2, device="cpu")
    assert recipe.name == "gaussian-32 objective=vlb schedule=cosine steps=30 variance=beta"
    with pytest.raises(ValueError, match="denoiser has no options"):
        recipes.varied(recipes.DENOISER, COSINE)


COSINE = {"schedule": "cosine", "variance": "beta", "steps": "30", "objective": "vlb"}


@pytest.fixture(scope="module")
def narrow():
    """Makes the networks of a module's tests small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GAUSSIAN_32.task, "shape", NoiseShape(3, 3, (16, 16, 16), (1, 1, 1)))
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory, narrow):
    """A checkpoint of two steps, and its pictures: a mosaic and one that is just large enough."""
    folder = tmp_path_factory.mktemp("gaussian")
    (folder / "pictures").mkdir()
    for size in (160, 32):
        pixels = waves(size, 1)[0].permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / "pictures" / f"{size}.png")
    train([folder / "pictures"], folder / "run", GAUSSIAN_32, steps=2, device="cpu")
    return folder


def test_the_task_trains_validates_and_samples(run):
    state = checkpoints.load(run / "run")
    assert (state["recipe"], state["steps"]) == ("gaussian-32", 2)
    torch.manual_seed(0)
    start = GAUSSIAN_32.task.network().state_dict()
    for name in ("network.net.stem.weight", "times.second_moments"):
        assert not torch.equal(state["net"][name], start[name])

    net = GAUSSIAN_32.task.network()
    net.load_state_dict(state["ema"])
    found = GAUSSIAN_32.task.validate(net, [waves(128, 1)[0]])
    error = found.parts.pop("standard error")
    assert found.total == pytest.approx(sum(found.parts.values()), abs=2e-4)
    assert 5 < found.total < 20
    assert 0 < error < 1
    noise = torch.randn(1, 3, 32, 32)
    samples = decode(net, noise, 1.0, "ancestral", steps=2, generator=torch.Generator())
    assert samples.shape == (1, 3, 32, 32)


def test_small_pictures_are_refused(tmp_path):
    Image.new("RGB", (31, 99)).save(tmp_path / "small.png")
    with pytest.raises(ImageError, match="32"):
        train([tmp_path], tmp_path / "run", GAUSSIAN_32, steps=1)


def test_an_exported_model_is_as_good_as_the_network(run, tmp_path, monkeypatch):
    monkeypatch.setattr(network, "STEPS", 24)
    export(run / "run", tmp_path / "model", calibration=[run / "pictures"])
    chain = load(tmp_path / "model")
    assert (chain.steps, chain.side) == (24, 32)

    net = GAUSSIAN_32.task.network()
    net.load_state_dict(checkpoints.load(run / "run")["ema"])
    tiles = central_tiles(waves(160, 1)[0], 32)
    exact, real = (
        likelihood(model, tiles, None, draws=8, generator=torch.Generator().manual_seed(0))
        for model in (chain.model(), net)
    )
    assert exact.diffusion.mean == pytest.approx(real.diffusion.mean, rel=0.03)

    # The chain predicts at its rows what the model predicts there.
    x, model = to_data(tiles[:2]), chain.model()
    for row in (0, 5, 24):
        level = model.schedule.levels[row].float()
        z = marginal(x, level).draw(normal(x.shape, x, torch.Generator().manual_seed(1)))
        predicted = model(z, level[None])[0].x
        torch.testing.assert_close(
            chain.predict(z.double(), row).float(), predicted, rtol=0, atol=0.02
        )


def test_a_model_file_has_derivatives_as_floats(run, tmp_path, monkeypatch):
    monkeypatch.setattr(network, "STEPS", 24)
    export(run / "run", tmp_path / "model", calibration=[run / "pictures"])
    exact = load(tmp_path / "model").model()
    floats = network.differentiable(files.parse(files.read(tmp_path / "model")))
    assert torch.equal(exact.errors, floats.errors)
    x, levels = to_data(central_tiles(waves(160, 1)[0], 32)[:4]), torch.tensor([-4.7, 0.3, 3, 10.5])
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    z = marginal(x, levels[:, None, None, None]).draw(noise).requires_grad_()
    found = floats(z, levels)[0].x
    with torch.no_grad():
        torch.testing.assert_close(found, exact(z, levels)[0].x, rtol=0, atol=0.03)
    found.square().sum().backward()
    assert z.grad.abs().amax((1, 2, 3)).min() > 0


def test_training_starts_from_an_exported_model(run, tmp_path, monkeypatch):
    monkeypatch.setattr(network, "STEPS", 40)
    export(run / "run", tmp_path / "model", calibration=[run / "pictures"])
    real, again = GAUSSIAN_32.task.network(), GAUSSIAN_32.task.network()
    real.load_state_dict(checkpoints.load(run / "run")["ema"])
    GAUSSIAN_32.task.restore(again, files.parse(files.read(tmp_path / "model")))
    z, levels = torch.randn(4, 3, 32, 32), torch.tensor([-4.7, 0.3, 3.0, 10.5])
    with torch.no_grad():
        expected, got = (net.network(z, levels) for net in (real, again))
    assert (got - expected).abs().mean() < 0.02 * expected.abs().mean()


@pytest.mark.parametrize(("height", "width", "corner"), [(128, 128, (0, 0)), (320, 200, (3, 1))])
def test_validation_is_on_whole_tiles(height, width, corner):
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    picture = torch.stack((rows // 32, columns // 32, rows % 32)).to(torch.uint8)
    tiles = central_tiles(picture, 32)
    assert tiles.shape == (16, 3, 32, 32)
    for number, tile in enumerate(tiles):
        assert (tile[0] == corner[0] + number // 4).all()
        assert (tile[1] == corner[1] + number % 4).all()
        assert torch.equal(tile[2, :, 5], torch.arange(32, dtype=torch.uint8))


def test_the_two_processes_do_not_know_each_other():
    root = Path(diffcodec.__file__).parent
    for room, other in (("gaussian", "quantized"), ("quantized", "gaussian")):
        sources = [path.read_text() for path in (root / room).glob("*.py")]
        assert len(sources) > 5
        assert not any(re.search(rf"(from|import) diffcodec\.{other}", text) for text in sources)
