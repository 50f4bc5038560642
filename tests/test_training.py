"""Training: the objective is the length of the file, runs resume, exports are usable."""

import csv
import math
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

import diffcodec
from diffcodec.cli import training as command_line
from diffcodec.entropy import RangeEncoder
from diffcodec.errors import ImageError, ModelError
from diffcodec.exact import backends, files
from diffcodec.exact.graphs import Replayed
from diffcodec.quantized import denoising
from diffcodec.quantized import model as models
from diffcodec.quantized.corrections import Corrections, Odds
from diffcodec.quantized.schedule import FINISH, HIGHEST_TRAINED_RUNG, LEVELS, LOW, TOP_RUNG
from diffcodec.quantized.step import walk
from diffcodec.training import checkpoints, export, graphics, train
from diffcodec.training.curves import Figures
from diffcodec.training.data import (
    Crops,
    Draw,
    edit,
    exchange,
    halve_chroma,
    resize,
    smooth_chroma,
)
from diffcodec.training.folders import choose, licence, weights
from diffcodec.training.integers import quantise, restore
from diffcodec.training.networks import Experts
from diffcodec.training.objective import gaussian_bits, step_bits
from diffcodec.training.odds import block_odds, level_odds
from diffcodec.training.optimiser import Muon, Optimiser
from diffcodec.training.recipes import DENOISER, PHOTO, PHOTO_PROCESS, RECIPES, THUMBNAIL
from diffcodec.training.run import STARTED_RATE, Run
from diffcodec.training.sources import find, load, pack

RUNGS = range(HIGHEST_TRAINED_RUNG, FINISH - 1, -1)
ALL = [*range(1, LEVELS + 1), LOW]


def pixels(height, width, seed=0):
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    planes = [
        128 + 70 * np.sin(x / 13 + c) * np.cos(y / 9) + random.normal(0, 5, x.shape)
        for c in range(3)
    ]
    return np.stack(planes).clip(0, 255).astype(np.uint8)


def told(path):
    """The card of a model file, and its id in hexadecimal."""
    file = files.parse(files.read(path))
    return file.card, file.id.hex()


@pytest.mark.parametrize("interpolated", [0, 2])
def test_the_objective_is_the_length_of_the_stream(monkeypatch, interpolated):
    # Corrections would better the conditionals of an untrained network.
    monkeypatch.setattr(Corrections, "begin", lambda *_: None)
    monkeypatch.setattr(Odds, "learn", lambda *_: None)
    config = replace(tiny.CONFIG, interpolated=interpolated, significand=24)
    net = tiny.network(config)
    with torch.no_grad():
        for expert in net.experts:
            for head in expert.heads:
                head.out.weight *= 2  # conditionals that depend on what the network sees
    crop = torch.from_numpy(pixels(64, 64))
    file = tiny.model_file(config, net, crop)
    process = models.build(file).process
    file.tensors["level_odds"] = level_odds(process, [crop])
    model, pyramid = models.build(file), process.pyramid(64, 64)
    values = pyramid.analyse(crop[None])

    encoder, ends = RangeEncoder(), {}
    start = tiny.start(model, crop)
    for rung in walk(model, [start], encoder):
        ends[rung] = encoder.bits_used

    # The codec spends one bit with its own odds on a level while that is all zero.
    expected, left = dict.fromkeys(range(TOP_RUNG - 1, FINISH - 1, -1), 0.0), set()
    bits = {rung: step_bits(net, pyramid, values, rung, ALL) for rung in RUNGS}
    for rung in expected:
        for level in (LOW, *range(LEVELS, 0, -1)):
            if level not in left:
                leaves = (values[level].abs() >> pyramid.planes(rung, level)).any()
                odds = int(model.level_odds[rung, level - 1]) / (1 << 16)
                expected[rung] -= math.log2(odds if leaves else 1 - odds)
                left |= {level} if leaves else set()
            if level in left and level in bits[rung]:
                expected[rung] += float(bits[rung][level].sum())

    assert ends[FINISH] == pytest.approx(sum(expected.values()), rel=0.015)
    before = 0.0
    for rung, end in ends.items():
        assert end - before == pytest.approx(expected[rung], rel=0.05, abs=16)
        before = end


def test_a_mean_however_far_leaves_bits_finite():
    floors, old = torch.zeros(4, dtype=torch.int32), torch.full((4,), 3, dtype=torch.int32)
    refined, new = torch.tensor([-4, 0, 4, 0], dtype=torch.int32), old - 1
    means = torch.tensor([1e9, -1e9, 1e20, 30.0])
    bits = gaussian_bits(means, torch.full((4,), -5.0), floors, old, refined, new)
    assert bits.isfinite().all()
    assert (bits >= 0).all()


def test_what_is_exact_already_has_no_bits():
    net = PHOTO.task.network()
    pyramid = PHOTO_PROCESS.pyramid(64, 64)
    values = pyramid.analyse(torch.from_numpy(pixels(64, 64))[None])
    with torch.no_grad():
        counted = step_bits(net, pyramid, values, FINISH, ALL)
    assert 1 in counted
    for level in set(ALL) - set(counted):
        assert torch.equal(*(pyramid.planes(rung, level) for rung in (2, 1)))
    assert LOW not in counted


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A checkpoint of two steps and the pictures that it was trained on."""
    folder = tmp_path_factory.mktemp("training")
    (folder / "photos").mkdir()
    for seed in range(2):
        image = Image.fromarray(pixels(512, 512, seed).transpose(1, 2, 0))
        image.save(folder / "photos" / f"{seed}.png")
    train([folder / "photos"], folder / "run", PHOTO, steps=2, device="cpu")
    return folder


def same_weights(one, other):
    """Whether all tensors are equal; a step of training changes those of the drawn rung only."""
    return all(torch.equal(one[name], other[name]) for name in one)


def test_training_changes_the_weights_and_resumes(run, tmp_path):
    checkpoint = tmp_path / "run"
    shutil.copytree(run / "run", checkpoint)
    before = checkpoints.load(checkpoint)
    torch.manual_seed(0)
    start = PHOTO.task.network().state_dict()
    assert before["steps"] == 2
    assert not same_weights(before["net"], start)

    train([run / "photos"], checkpoint, PHOTO, steps=2, device="cpu")  # the budget is spent
    assert same_weights(checkpoints.load(checkpoint)["net"], before["net"])
    train([run / "photos"], checkpoint, PHOTO, steps=3, device="cpu")
    after = checkpoints.load(checkpoint)
    assert after["steps"] == 3
    assert after["seconds"] > before["seconds"]
    assert not torch.equal(after["generator"], before["generator"])
    assert not same_weights(after["net"], before["net"])
    assert not same_weights(after["ema"], after["net"])
    assert {path.name.partition("-")[0] for path in checkpoint.iterdir()} == {"index.json", "4"}


def test_low_precision_is_for_the_network_alone(run, tmp_path, monkeypatch):
    drawn, task = [], DENOISER.task

    class Watched(type(task)):
        def loss(self, net, draw, choice, crops, generator):
            drawn.append(crops)
            assert torch.is_autocast_enabled("cpu")
            return super().loss(net, draw, choice, crops, generator)

    draw = Draw(16, 4, half_chroma=1.0, edited=1.0)
    watched = Watched(task.config, task.process, (draw,), draw)
    monkeypatch.setattr(backends, "operands", lambda device, held: held)
    train(
        [run / "photos"],
        tmp_path / "run",
        replace(DENOISER, task=watched),
        steps=1,
        device="cpu",
    )
    images = load(find([run / "photos"]))
    whole = Crops(images, draw).draw(torch.Generator().manual_seed(0))
    assert torch.equal(drawn[0], whole)


def test_an_exported_model_codes_pictures(run, tmp_path, monkeypatch):
    monkeypatch.setattr(PHOTO.task, "calibration", Draw(64, 1))
    path = tmp_path / "model.safetensors"
    export(run / "run", path, calibration=[run / "photos"])
    card, name = told(path)
    assert (card["runs"][0]["steps"], card["runs"][0]["data"]) == (2, "photos")
    assert card["data"] == {"photos": "licence unknown"}
    assert card["calibration"] == "2 pictures in photos"
    assert card["recipe"] == "photo"

    image = Image.fromarray(pixels(9, 11).transpose(1, 2, 0))
    data = diffcodec.encode(image, model=path)
    assert diffcodec.info(data, rungs=False).model == name
    assert diffcodec.decode(data, model=path).tobytes() == image.tobytes()
    with pytest.raises(ModelError, match=name):
        diffcodec.decode(data)
    with pytest.raises(ModelError, match=name):
        diffcodec.decode(data, model=files.PHOTO)

    monkeypatch.setattr(files, "WEIGHTS", tmp_path)  # installed, it is found by its id
    assert diffcodec.decode(data).tobytes() == image.tobytes()


def test_the_denoiser_is_trained_and_exported_alike(run, tmp_path, monkeypatch):
    monkeypatch.setattr(DENOISER.task, "draws", (Draw(64, 1),))
    monkeypatch.setattr(DENOISER.task, "calibration", Draw(32, 1))
    train([run / "photos"], tmp_path / "run", DENOISER, steps=2, device="cpu")
    with pytest.raises(ModelError, match="denoiser"):
        train([run / "photos"], tmp_path / "run", PHOTO, steps=3, device="cpu")
    path = tmp_path / "denoiser.safetensors"
    export(tmp_path / "run", path, calibration=[run / "photos"], validation=run / "photos")
    card, _ = told(path)
    assert card["recipe"] == "denoiser"
    assert "dB" in card["validation"]

    shown = torch.from_numpy(pixels(20, 31))
    installed = denoising.denoise(shown, 5)
    monkeypatch.setattr(files, "DENOISER", path)
    assert not torch.equal(denoising.denoise(shown, 5), installed)


def test_validation_leaves_a_curve(run, tmp_path, capsys):
    task = DENOISER.task

    class Measured(type(task)):
        def validate(self, net, images):
            return Figures("dB gained", len(images) - 0.5, {"3": 1.0, "2": 2.0})

    measured = Measured(task.config, task.process, (Draw(16, 4),), Draw(16, 4))
    for steps in (1, 2):
        train(
            [run / "photos"],
            tmp_path / "run",
            replace(DENOISER, task=measured),
            steps=steps,
            validation=run / "photos",
            device="cpu",
        )
    with (tmp_path / "run.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["steps"], second["steps"]) == ("1", "2")
    assert 0 <= float(first["minutes"]) <= float(second["minutes"])
    assert math.isfinite(float(second["loss"]))
    assert (second["dB gained"], second["3"], second["2"]) == ("1.5", "1.0", "2.0")
    assert "step 2: 1.5000 dB gained (3:1.0000 2:2.0000)" in capsys.readouterr().out
    with Image.open(tmp_path / "run.png") as picture:
        assert picture.width > picture.height > 100


def test_a_file_that_is_no_checkpoint_is_refused(run, tmp_path):
    for name, content in (("garbage", b"garbage" * 9), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError):
            export(tmp_path / name, tmp_path / "out", calibration=[run / "photos"])
    torch.save({"ema": {}}, tmp_path / "other")
    with pytest.raises(ModelError):
        export(tmp_path / "other", tmp_path / "out", calibration=[run / "photos"])
    with pytest.raises(ModelError):
        export(tmp_path / "missing", tmp_path / "out", calibration=[run / "photos"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["photo", "converted", "thumbnail", "denoiser"])
def test_a_step_computes_on_the_device_of_its_crops(name):
    """What has no contents refuses to meet what is on the CPU, as what is on a GPU does."""
    task = RECIPES[name].task
    net = task.network().to("meta")
    generator = torch.Generator().manual_seed(0)
    for number in range(len(task.draws)):
        crops = torch.zeros((1, 3, 64, 64), dtype=torch.uint8, device="meta")
        loss = task.loss(net, number, task.choose(number, generator), crops, generator)
        assert loss.device.type == "meta"


def test_on_the_cpu_no_step_is_recorded():
    calls = []

    def step(kind, given):
        calls.append(kind)
        return given.sum()

    replayed = Replayed(step, torch.device("cpu"))
    for number in range(6):
        assert float(replayed("kind", torch.full((2,), float(number)))) == 2 * number
    assert len(calls) == 6


def test_training_needs_one_budget_and_large_pictures(tmp_path):
    with pytest.raises(ValueError, match="either"):
        train([tmp_path], tmp_path / "run", PHOTO, steps=1, minutes=1.0)
    with pytest.raises(ImageError, match="no pictures"):
        train([tmp_path], tmp_path / "run", PHOTO, steps=1)
    Image.new("RGB", (600, 511)).save(tmp_path / "small.png")
    with pytest.raises(ImageError, match="512"):
        train([tmp_path], tmp_path / "run", PHOTO, steps=1)
    assert not (tmp_path / "run").exists()


def test_pictures_are_loaded_in_the_order_of_their_names(tmp_path):
    (tmp_path / "sub").mkdir()
    for value, name in ((1, "sub/b.png"), (2, "a.webp"), (3, "z.PNG"), (4, "ignored.txt")):
        Image.new("RGB", (3, 2), (value, 0, 9)).save(tmp_path / name, "PNG")
    images = load(find([tmp_path]))
    assert [int(image[0, 0, 0]) for image in images] == [2, 1, 3]
    assert images[0].shape == (3, 2, 3)
    assert (images[0][2] == 9).all()


def test_a_packed_set_is_small_and_lossless_and_says_where_its_pictures_are_from(tmp_path):
    random = np.random.default_rng(0)
    for folder in ("one", "two"):
        (tmp_path / "set" / folder).mkdir(parents=True)
        for number in range(4):
            noise = random.integers(0, 256, (64, 64, 3), np.uint8)
            Image.fromarray(noise).save(tmp_path / "set" / folder / f"{number}.png")
    there = {p.name: np.array(p.read()) for p in find([tmp_path / "set"])}
    assert list(there) == [f"set/{folder}/{n}.png" for folder in ("one", "two") for n in range(4)]

    mib = 60_000 / 2**20  # of 100,000 bytes of noise
    assert pack([tmp_path / "set"], tmp_path / "some.zip", mib) == (4, 8)
    assert (tmp_path / "some.zip").stat().st_size <= 60_000
    packed = find([tmp_path / "some.zip"])
    for picture in packed:
        assert picture.folder in {"set/one", "set/two"}
        assert np.array_equal(picture.read(), there[picture.name.replace("webp", "png")])
    assert len(load(find([tmp_path / "some.zip", tmp_path / "set"]))) == 12

    pack([tmp_path / "set"], tmp_path / "again.zip", mib)
    pack([tmp_path / "set"], tmp_path / "other.zip", mib, seed=1)
    names = [[p.name for p in find([tmp_path / f"{n}.zip"])] for n in ("some", "again", "other")]
    assert names[0] == names[1] != names[2]


def test_of_a_very_large_picture_a_crop_is_packed(tmp_path):
    rows, columns = np.mgrid[:1100, :1030] % 256
    Image.fromarray(np.stack((rows, columns, rows), -1).astype(np.uint8)).save(tmp_path / "a.png")
    pack([tmp_path], tmp_path / "set.zip", 1.0)
    (crop,) = load(find([tmp_path / "set.zip"]))
    assert crop.shape == (3, 1024, 1024)
    top, left = int(crop[0, 0, 0]), int(crop[1, 0, 0])
    assert torch.equal(crop[0, :, 0].long(), (torch.arange(1024) + top) % 256)
    assert torch.equal(crop[1, 0].long(), (torch.arange(1024) + left) % 256)


def test_what_is_no_set_of_pictures_is_refused(tmp_path):
    (tmp_path / "garbage").write_bytes(b"garbage")
    with pytest.raises(ImageError, match="neither"):
        find([tmp_path / "garbage"])


def numbered(number, height, width):
    """A picture whose every pixel tells its number, row and column."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack((torch.full_like(rows, number), rows, columns)).to(torch.uint8)


def test_crops_are_squares_of_the_pictures_in_all_eight_positions():
    sizes = {0: (20, 30), 1: (8, 8), 2: (7, 90)}  # the last one is too narrow
    crops = Crops([numbered(i, *size) for i, size in sizes.items()], Draw(8, 800))
    drawn = crops.draw(torch.Generator().manual_seed(0)).int()
    positions, corners, from_first = set(), set(), 0
    for number, rows, columns in drawn:
        assert number.unique().numel() == 1
        height, width = sizes[int(number[0, 0])]
        transposed = bool(rows[0, 0] == rows[1, 0])
        along, across = (columns, rows) if transposed else (rows, columns)
        down, right = (int(t) for t in (along[1, 0] - along[0, 0], across[0, 1] - across[0, 0]))
        assert {abs(down), abs(right)} == {1}
        steps = torch.arange(8)
        assert torch.equal(along, (along[0, 0] + down * steps)[:, None].expand(8, 8))
        assert torch.equal(across, (across[0, 0] + right * steps)[None].expand(8, 8))
        top, left = int(rows.min()), int(columns.min())
        assert rows.max() < height
        assert columns.max() < width
        positions.add((transposed, down, right))
        if int(number[0, 0]) == 0:
            corners.add((top, left))
            from_first += 1
    assert len(positions) == 8
    assert {top for top, _ in corners} == set(range(13))
    assert {left for _, left in corners} == set(range(23))
    assert from_first / 800 == pytest.approx(600 / 664, abs=0.04)  # in proportion to area


def test_crops_follow_the_generator():
    crops = Crops([numbered(0, 40, 40)], Draw(8, 4, half_chroma=0.5))
    first, second, other = (crops.draw(torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_crops_on_a_grid_are_whole_pictures_of_a_mosaic():
    mosaic = torch.cat([numbered(i, 8, 8) for i in range(5)], 2)
    drawn = Crops([mosaic], Draw(8, 100, grid=8)).draw(torch.Generator().manual_seed(0))
    assert {len(picture[0].unique()) for picture in drawn} == {1}
    assert {int(picture[0, 0, 0]) for picture in drawn} == set(range(5))
    assert all(torch.equal(picture[1], numbered(0, 8, 8)[1]) for picture in drawn)  # upright


def test_some_crops_are_of_drawings():
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8))
    drawn = Crops([noise], Draw(16, 1000, drawn=0.2)).draw(torch.Generator().manual_seed(0))
    colours = torch.tensor([len(crop.flatten(1).unique(dim=1).T) for crop in drawn])
    assert float((colours < 200).float().mean()) == pytest.approx(0.2, abs=0.04)


def test_drawings_follow_their_seed_and_are_mostly_flat():
    first, again, other = (graphics.drawings.__wrapped__(4, seed) for seed in (1, 1, 2))
    for one, two, three in zip(first, again, other, strict=True):
        assert one.dtype == torch.uint8
        assert one.shape == (3, graphics.SIDE, graphics.SIDE)
        assert torch.equal(one, two)
        assert not torch.equal(one, three)
    flat = [(one[:, :, 1:] == one[:, :, :-1]).all(0).float().mean() for one in first + other]
    assert min(flat) > 0.5
    assert max(flat) < 1


@pytest.mark.parametrize("cosited", [False, True])
def test_half_chroma_keeps_luma_grey_and_slow_colour(cosited):
    noise = torch.from_numpy(np.random.default_rng(0).integers(90, 166, (2, 3, 16, 24), np.uint8))
    halved = halve_chroma(noise, cosited=cosited)
    weights = torch.tensor([0.299, 0.587, 0.114])
    before, after = (torch.einsum("c,nchw->nhw", weights, x.float()) for x in (noise, halved))
    assert float((before - after).abs().max()) < 1  # but for the rounding of the pixels
    assert (halved[:, 0].int() - halved[:, 1].int()).float().std() < 15  # was 31: chroma is smooth
    grey = noise[:, :1].expand(-1, 3, -1, -1)
    assert torch.equal(halve_chroma(grey, cosited=cosited), grey)
    ramp = torch.arange(24).expand(16, 24)
    slow = torch.stack((100 + 2 * ramp, 100 + ramp, 150 - ramp)).byte()[None]
    inside = (..., slice(2, -2))
    assert torch.equal(halve_chroma(slow, cosited=cosited)[inside], slow[inside])


def test_as_many_crops_have_half_chroma_as_the_draw_says():
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8))
    drawn = Crops([noise], Draw(8, 1000, half_chroma=0.3)).draw(torch.Generator().manual_seed(0))
    roughness = (drawn[:, 0].int() - drawn[:, 2].int()).float().flatten(1).std(1)
    assert float((roughness < 70).float().mean()) == pytest.approx(0.3, abs=0.05)


def test_smoothed_chroma_is_flat_but_for_noise_and_leaves_luma():
    noise = torch.from_numpy(np.random.default_rng(0).integers(60, 196, (40, 3, 32, 32), np.uint8))
    smoothed = smooth_chroma(noise, torch.Generator().manual_seed(0))
    weights = torch.tensor([0.299, 0.587, 0.114])
    before, after = (torch.einsum("c,nchw->nhw", weights, x.float()) for x in (noise, smoothed))
    difference = (before - after).flatten(1).std(1)
    assert float(difference.min()) < 0.3  # rounding alone
    assert 0.4 < float(difference.max()) < 0.7  # and noise, of which luma has two thirds
    steps = (smoothed[:, 0].int() - smoothed[:, 2].int()).diff(dim=2).float()
    assert 0 < float(steps.std()) < 20  # was 78


def test_as_many_crops_have_smooth_chroma_as_the_draw_says():
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8))
    drawn = Crops([noise], Draw(8, 1000, smoothed=0.3)).draw(torch.Generator().manual_seed(0))
    roughness = (drawn[:, 0].int() - drawn[:, 2].int()).diff(dim=2).float().flatten(1).std(1)
    assert float((roughness < 100).float().mean()) == pytest.approx(0.3, abs=0.05)


def test_edits_narrow_every_colour_and_keep_flat_areas_flat():
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (50, 3, 16, 16), np.uint8))
    edited = edit(noise, torch.Generator().manual_seed(0))
    before, after = (x.float().flatten(2) for x in (noise, edited))
    ratio = after.std(2) / before.std(2)
    assert 0.45 < float(ratio.min()) < 0.7
    assert 0.85 < float(ratio.max()) < 1
    flat = edit(noise[:, :, :1, :1].expand(-1, -1, 4, 4), torch.Generator().manual_seed(0))
    assert torch.equal(flat, flat[:, :, :1, :1].expand_as(flat))
    assert not torch.equal(flat, noise[:, :, :1, :1].expand_as(flat))


def test_as_many_crops_are_edited_as_the_draw_says():
    grey = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 64, 64), np.uint8))
    drawn = Crops([grey.expand(3, -1, -1)], Draw(8, 1000, edited=0.3))
    crops = drawn.draw(torch.Generator().manual_seed(0)).float()
    coloured = (crops[:, 0] - crops[:, 1]).flatten(1).any(1)
    assert float(coloured.float().mean()) == pytest.approx(0.3, abs=0.05)


def test_resized_crops_are_of_larger_and_of_smaller_parts():
    ramp = (torch.arange(250, dtype=torch.uint8)).expand(3, 250, 250)
    crops = Crops([ramp], Draw(64, 200, resized=0.5)).draw(torch.Generator().manual_seed(0))
    rise = (crops[:, 0, 32].int().diff(dim=1), crops[:, 0, :, 32].int().diff(dim=1))
    slopes = torch.stack([r[:, 8:-8].float().mean(1).abs() for r in rise]).amax(0)
    assert float((slopes != 1).float().mean()) == pytest.approx(0.5, abs=0.1)
    assert 0.68 < float(slopes.min()) < 0.8
    assert 1.4 < float(slopes.max()) < 1.62


def test_a_picture_that_is_resized_keeps_its_mean_and_its_range():
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 40, 40), np.uint8))
    for side in (28, 64):
        resized = resize(noise, side)
        assert resized.shape == (3, side, side)
        assert resized.dtype == torch.uint8
        assert float(resized.float().mean()) == pytest.approx(float(noise.float().mean()), abs=3)
    flat = torch.full((3, 40, 40), 77, dtype=torch.uint8)
    assert torch.equal(resize(flat, 23), flat[:, :23, :23])


def test_the_colour_that_leaves_least_detail_takes_the_place_of_green():
    noise = torch.from_numpy(pixels(64, 64)[0])
    flat = torch.full_like(noise, 90)
    alike = torch.stack((noise, noise, noise))
    assert torch.equal(exchange(alike), alike)
    assert torch.equal(
        exchange(torch.stack((noise, noise, flat))), torch.stack((noise, flat, noise))
    )
    assert torch.equal(
        exchange(torch.stack((flat, noise, noise))), torch.stack((noise, flat, noise))
    )
    odd = torch.stack((noise, noise, flat))[:, None].expand(-1, 9, -1, -1).reshape(3, 9 * 64, 64)
    crops = Crops([odd], Draw(32, 500, exchanged=0.3)).draw(torch.Generator().manual_seed(0))
    flat_green = (crops[:, 1] == 90).flatten(1).all(1)
    assert float(flat_green.float().mean()) == pytest.approx(0.3, abs=0.06)


def test_kernels_take_orthogonal_steps_of_the_size_of_adams():
    net = torch.nn.Conv2d(8, 16, 3).to(memory_format=torch.channels_last)
    before = [p.detach().clone() for p in net.parameters()]
    optimiser = Optimiser(net, 1e-2)
    assert all(torch.equal(p, start) for p, start in zip(net.parameters(), before, strict=True))
    net(torch.randn(4, 8, 9, 9)).square().mean().backward()
    optimiser.step()
    change = (net.weight - before[0]).flatten(1)
    sizes = torch.linalg.svdvals(change.detach()) / (1e-2 * 0.2 * 72**0.5)
    assert float(sizes.min()) > 0.5  # Newton and Schulz's iteration gets so close to one
    assert float(sizes.max()) < 1.4
    assert torch.allclose((net.bias - before[1]).abs(), torch.tensor(1e-2), rtol=1e-2)
    assert net.weight.grad is None
    assert net.bias.grad is None


@pytest.mark.parametrize("shape", [(16, 8, 3, 3), (64, 8, 1, 1), (6, 8, 1, 1)])
def test_kernels_take_the_steps_of_torchs_muon(shape):
    kernels = [torch.nn.Parameter(torch.randn(shape)) for _ in range(2)]
    matrices = [torch.nn.Parameter(kernel.detach().flatten(1)) for kernel in kernels]
    before = [kernel.detach().clone() for kernel in kernels]
    ours = Muon(kernels, torch.tensor(1e-2), weight_decay=0.1)
    theirs = torch.optim.Muon(
        matrices, lr=1e-2, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(3):
        for kernel, matrix in zip(kernels, matrices, strict=True):
            kernel.grad = torch.randn(shape)
            matrix.grad = kernel.grad.flatten(1)
        ours.step()
        theirs.step()
    for kernel, matrix, start in zip(kernels, matrices, before, strict=True):
        way = (kernel.detach() - start).flatten(1)
        assert (
            float((way - (matrix.detach() - start.flatten(1))).norm() / way.norm()) < 0.01
        )  # bfloat16


def test_the_optimiser_leaves_alone_what_has_no_gradient_and_resumes():
    def run(steps, state=None):
        torch.manual_seed(0)
        net = torch.nn.ModuleList([torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(3, 4, 3)])
        optimiser = Optimiser(net, 1e-2)
        if state is not None:
            net.load_state_dict(state[0])
            optimiser.load_state_dict(state[1])
        for x in steps:
            net[0](x).square().mean().backward()
            optimiser.step()
        return net, optimiser

    data = torch.randn(4, 2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    on_cuda = run(data[:2])[1].state_dict()
    for group in on_cuda["adamw"]["param_groups"]:
        group["capturable"] = True  # as a GPU saves it
    (start, _), (whole, _), (half, optimiser) = run([]), run(data), run(data[:2])
    for state in (optimiser.state_dict(), on_cuda):
        resumed, again = run(data[2:], (half.state_dict(), state))
        assert same_weights(resumed.state_dict(), whole.state_dict())
        assert again.state_dict()["adamw"]["param_groups"][0]["capturable"] is False
    assert not same_weights(whole[0].state_dict(), start[0].state_dict())
    assert same_weights(whole[1].state_dict(), start[1].state_dict())


def test_a_network_with_other_blocks_starts_from_a_model():
    process = PHOTO_PROCESS
    config = replace(tiny.CONFIG, network=tiny.shape((2, 1), (1, 0), (1, 1)))
    file = tiny.model_file(config, tiny.network(config))
    pyramid = process.pyramid(64, 64)
    values = pyramid.analyse(torch.from_numpy(pixels(64, 64))[None])

    def bits(*blocks):
        net = Experts(tiny.shape(*blocks)).requires_grad_(False)
        restore(net, file.tensors, models.output_units)
        return [float(step_bits(net, pyramid, values, rung, [1])[1].sum()) for rung in (1, 2, 4)]

    same = bits((2, 1), (1, 0), (1, 1))
    assert bits((3, 1), (4, 2), (1, 2)) == pytest.approx(same)  # what is new is the identity
    fewer = bits((1, 1), (1, 0), (0, 0))
    assert fewer[1] == pytest.approx(same[1])
    assert fewer[0] != pytest.approx(same[0])
    assert fewer[2] != pytest.approx(same[2])


def test_a_wider_network_starts_from_a_model():
    narrow = tiny.shape((1, 1), (1, 0), (1, 0))
    wide = replace(narrow, width=24, half_width=12, hidden=20)
    assert (narrow.width, narrow.half_width, narrow.hidden) < (24, 12, 20)
    config = replace(tiny.CONFIG, network=narrow)
    file = tiny.model_file(config, tiny.network(config))
    pyramid = PHOTO_PROCESS.pyramid(64, 64)
    values = pyramid.analyse(torch.from_numpy(pixels(64, 64))[None])
    nets = [Experts(shape) for shape in (narrow, wide)]
    bits = []
    for net in nets:
        restore(net, file.tensors, models.output_units)
        bits.append(sum(step_bits(net, pyramid, values, rung, [1])[1].sum() for rung in (1, 2, 4)))
    assert bits[1].item() == pytest.approx(bits[0].item())
    bits[1].backward()  # and what is new can learn, to be seen as well
    new = nets[1].experts[0].merge.weight.grad[: narrow.width, narrow.width :]
    assert float(new.abs().sum()) > 0
    wider = tiny.model_file(replace(config, network=wide), nets[1]).tensors
    with pytest.raises(ModelError, match="another shape"):
        restore(nets[0], wider, models.output_units)


def test_the_model_of_thumbnails_learns_from_mosaics(tmp_path, monkeypatch):
    task = THUMBNAIL.task
    monkeypatch.setattr(task, "draws", [replace(task.draws[0], batch=4)])
    monkeypatch.setattr(task, "calibration", replace(task.calibration, batch=4))
    (tmp_path / "mosaics").mkdir()
    mosaic = Image.fromarray(pixels(128, 160).transpose(1, 2, 0))
    mosaic.save(tmp_path / "mosaics" / "0.png")
    train([tmp_path / "mosaics"], tmp_path / "run", THUMBNAIL, steps=1, device="cpu")
    out = tmp_path / "model.safetensors"
    export(
        tmp_path / "run",
        out,
        calibration=[tmp_path / "mosaics"],
        validation=tmp_path / "mosaics",
    )
    card, _ = told(out)
    assert card["recipe"] == "thumbnail"
    image = mosaic.crop((0, 0, 32, 32))
    data = diffcodec.encode(image, model=out)
    assert diffcodec.decode(data, model=out).tobytes() == image.tobytes()
    # The first 16 of its tiles, four by four, are what validation measures.
    net = task.network()
    net.load_state_dict(checkpoints.load(tmp_path / "run")["ema"])
    tiles = [pixels(128, 160)[:, r : r + 32, c : c + 32] for r in RANGE for c in RANGE]
    pyramid, bits = task.process.pyramid(32, 32), 0.0
    values = pyramid.analyse(torch.from_numpy(np.stack(tiles)))
    with torch.no_grad():
        for rung in RUNGS:
            coded = step_bits(net, pyramid, values, rung, ALL)
            bits += sum(float(level.sum()) for level in coded.values())
    assert float(card["validation"].split()[0]) == pytest.approx(bits / 16 / 3072, abs=2e-4)


RANGE = range(0, 128, 32)


def test_exact_networks_lead_back_to_the_float_ones():
    net, again = tiny.network(seed=1), tiny.network(seed=2)
    tensors = tiny.model_file(net=net).tensors
    restore(again, tensors, models.output_units)
    tables = ("rung_bias", "level_bias", "rung_gain", "level_gain")
    for (name, one), other in zip(net.named_modules(), again.modules(), strict=True):
        if not hasattr(one, "rung_bias"):
            continue
        step = tensors[f"{name}.step"][:, None, None, None]
        assert ((one.weight - other.weight).abs() <= 0.5001 * step).all()
        for rung, level in (tables[:2], tables[2:]):
            real, got = (
                getattr(layer, rung)[:, None] + getattr(layer, level) for layer in (one, other)
            )
            torch.testing.assert_close(got, real, rtol=1e-2, atol=1e-2)
    # What is exact already stays so: a second round changes no weight.
    pyramid = PHOTO_PROCESS.pyramid(64, 64)
    values = pyramid.analyse(tiny.pixels(64, 64)[None])
    run = lambda: [step_bits(again, pyramid, values, rung, ALL) for rung in RUNGS]  # noqa: E731
    twice = quantise(again, run, models.output_units)
    weights = [name for name in tensors if name.endswith(".weight")]
    assert all(torch.equal(twice[name], tensors[name]) for name in weights)


def test_the_odds_of_blocks_are_counted():
    noise = torch.randint(0, 256, (3, 150, 150), dtype=torch.uint8)
    calm = torch.full_like(noise, 90)
    calm[:, :40, :40] = noise[:, :40, :40]
    busy, still = (block_odds(PHOTO_PROCESS, [picture]) for picture in (noise, calm))
    for odds in (busy, still):
        assert 0 < int(odds.min()) <= int(odds.max()) < 1 << 16
    # Luma blocks of the finest level with no significant neighbour stay zero to the end.
    assert int(still[FINISH, 0, 0, 0]) < 1 << 15
    assert int(busy.sum()) > int(still.sum())


def test_training_starts_from_a_model_file(run, tmp_path, monkeypatch):
    config = replace(PHOTO.task.config, network=tiny.CONFIG.network)
    monkeypatch.setattr(PHOTO.task, "config", config)
    file = tiny.model_file(config)
    file.card["data"] = {"others": "CC0"}
    file.card["runs"] = [{"data": "others", "steps": 7}]
    file.write(tmp_path / "model")
    checkpoint = tmp_path / "run"
    train([run / "photos"], checkpoint, PHOTO, steps=1, device="cpu", start=tmp_path / "model")
    state = checkpoints.load(checkpoint)
    start = tiny.network(config)
    restore(start, file.tensors, models.output_units)
    largest = max(
        float((state["net"][name] - value).abs().max())
        for name, value in start.state_dict().items()
    )
    assert 0 < largest < 0.01  # one step away from the model
    assert [part["steps"] for part in state["runs"]] == [7, 1]
    assert state["data"] == {"others": "CC0", "photos": "licence unknown"}
    assert state["rate"] == STARTED_RATE * PHOTO.rate

    train([run / "photos"], checkpoint, PHOTO, steps=2, device="cpu")  # goes on without the model
    assert [part["steps"] for part in checkpoints.load(checkpoint)["runs"]] == [7, 2]
    with pytest.raises(ModelError, match="another shape"):
        train([run / "photos"], tmp_path / "x.pt", PHOTO, steps=1, device="cpu", start=files.PHOTO)


def test_training_runs_without_the_entropy_coder():
    script = "import sys; sys.modules['constriction'] = None; import diffcodec.training"
    root = Path(diffcodec.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_nothing_that_decodes_knows_of_training():
    root = Path(diffcodec.__file__).parent
    others = [
        path for path in root.rglob("*.py") if "training" not in path.relative_to(root).as_posix()
    ]
    assert len(others) > 40
    for path in others:
        known = re.findall(r"^.*(?:from|import) diffcodec\.training.*$", path.read_text(), re.M)
        # An encoder that is asked to fit a model loads what trains then.
        asked = ["    from diffcodec.training import fitting"] if path.name == "api.py" else []
        assert known == asked, path


def test_the_card_names_every_folder_with_its_licence(tmp_path):
    run = Run(DENOISER, torch.device("cpu"))
    run.data = {"photos/a": "CC0"}
    run.note({"photos/cid22", "photos/a", "mine"})
    assert run.data == {
        "photos/a": "CC0",
        "photos/cid22": "CID22, CC BY-SA 4.0",
        "mine": "licence unknown",
    }
    assert [own["data"] for own in run.runs] == ["mine, photos/a, photos/cid22"]


@pytest.fixture
def folders(tmp_path):
    """Places with a picture each, of recipes and others."""
    for place in ("data/photos/cid22/x/1", "data/photos/clic/2", "data/kodak/3", "mine/4"):
        (tmp_path / place).parent.mkdir(parents=True)
        Image.new("RGB", (2, 2)).save(tmp_path / f"{place}.png")
    for mosaic in ("train_03", "train_24", "test_0"):
        (tmp_path / "data/cifar10").mkdir(exist_ok=True)
        Image.new("RGB", (2, 2)).save(tmp_path / f"data/cifar10/{mosaic}.png")
    return tmp_path


def test_a_recipe_takes_its_folders_and_all_of_a_source_that_has_none(folders):
    def chosen(*sources, recipe=PHOTO):
        found = choose([folders / source for source in sources], recipe.data)
        return {one.picture.name: one.folder for one in found}

    ours = {
        "data/photos/cid22/x/1.png": "photos/cid22",
        "data/photos/clic/2.png": "photos/clic",
    }
    assert chosen("data") == ours
    assert chosen("data", "mine") == ours | {"mine/4.png": "mine"}
    assert chosen("data/kodak") == {"kodak/3.png": "kodak"}
    assert list(chosen("data", recipe=THUMBNAIL)) == ["data/cifar10/train_03.png"]
    pack([folders / "data"], folders / "set.zip", 1.0)
    assert set(chosen("set.zip").values()) == {"photos/cid22", "photos/clic"}


def test_folders_have_their_shares_of_the_crops_however_large_they_are():
    images = [numbered(i, *size) for i, size in enumerate([(20, 20), (20, 30), (10, 10), (25, 40)])]
    names = ["a", "a", "b", None]
    counted = weights(images, names, {"a": 0.3, "b": 0.2, "missing": 0.5})
    crops = Crops(images, Draw(8, 4000), counted).draw(torch.Generator().manual_seed(0))
    drawn = torch.bincount(crops[:, 0, 0, 0].long(), minlength=4) / 4000
    # What has no name has as many as its pixels are of all: 1000 of 2100.
    assert float(drawn[3]) == pytest.approx(10 / 21, abs=0.02)
    assert drawn[:3].tolist() == pytest.approx(
        [11 / 21 * share for share in (0.6 * 0.4, 0.6 * 0.6, 0.4)], abs=0.02
    )
    assert weights(images, [None] * 4, {"a": 1.0}) == [1.0] * 4


def test_recipes_are_complete_and_their_pictures_have_licences():
    assert tuple(RECIPES) == command_line.RECIPES
    for name, recipe in RECIPES.items():
        assert name == recipe.name
        assert sum(recipe.data.values()) == pytest.approx(1)
        assert set(recipe.calibration) <= set(recipe.data)
        assert all(licence(folder) != "licence unknown" for folder in recipe.data)
        assert recipe.minutes > 0
    assert licence("photos/mine") == licence("drawings") == "licence unknown"
