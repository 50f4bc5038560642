"""A model fitted to a folder: a difference from an installed one, which serves as a model file."""

import json
import lzma

import pytest
import tiny
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import diffcodec
from diffcodec.cli import main
from diffcodec.errors import ImageError, ModelError
from diffcodec.exact import differences, files
from diffcodec.exact.layers import check_bound
from diffcodec.quantized import model
from diffcodec.training import finetuning
from diffcodec.training.data import Draw
from diffcodec.training.export import with_ladder
from diffcodec.training.finetuning import Finetuning, difference
from diffcodec.training.integers import in_units

BASE = tiny.model_file()
TASK = Finetuning(BASE, [128])


@pytest.fixture(autouse=True)
def weights(tmp_path, monkeypatch):
    """The folder of the installed models, which has the tiny one alone."""
    folder = tmp_path / "weights"
    folder.mkdir()
    BASE.write(folder / "tiny.safetensors")
    monkeypatch.setattr(files, "WEIGHTS", folder)
    return folder


def trained(scale=1.0):
    """A network that has moved from the model by a few units in every weight and bias."""
    net = TASK.network()
    with torch.no_grad():
        TASK.restore(net, BASE)
        for parameter in net.parameters():
            if parameter.requires_grad:
                parameter += 0.01 * scale * torch.randn_like(parameter)
    return net


@pytest.fixture
def path(tmp_path):
    """A difference file."""
    path = tmp_path / "mine.safetensors"
    files.write_difference(path, BASE, difference(TASK, trained(), BASE), {"data": {}})
    return path


def parsed(path):
    return files.parse(files.read(path))


def test_without_training_it_is_the_model_itself(tmp_path):
    net = TASK.network()
    TASK.restore(net, BASE)
    path = tmp_path / "same.safetensors"
    files.write_difference(path, BASE, difference(TASK, net, BASE), {})
    assert parsed(path).digest() == BASE.digest()
    assert path.stat().st_size < 1000


def test_a_difference_is_of_weights_and_biases_and_as_near_as_their_units(path):
    net = trained()
    change = difference(TASK, net, BASE)
    changed = files.changed(BASE, change, {})
    assert changed.config == BASE.config
    old, new = (in_units(own, BASE.tensors, model.output_units) for own in (trained(scale=0), net))
    for name, value in BASE.tensors.items():
        if name not in old:
            assert torch.equal(changed.tensors[name], value)
            continue
        units = torch.ones(())
        if name.endswith(".bias"):
            units = differences.bias_units(BASE.tensors[name.replace(".bias", ".multiplier")])
        moved = (changed.tensors[name].long() - value).double()
        wanted = new[name] - old[name]
        assert moved.any()
        if name.endswith(".weight"):
            wanted = wanted.clamp(-127 - value.double(), 127 - value.double())
        assert ((moved - wanted).abs() <= units * 0.5 + 1e-3).all()


def test_bias_units_move_an_output_by_an_eighth_to_a_quarter():
    multiplier = torch.tensor([0.001, 0.0625, 0.07, -0.01, 0.125, 0.2, 3.0, 0.0, 1e-9])
    units = differences.bias_units(multiplier)
    moves = units * multiplier.abs()
    assert ((moves[:5] >= 0.125) & (moves[:5] < 0.25)).all()
    assert units[5:].tolist() == [1, 1, 1, 1 << 16]


def test_a_difference_file_codes_pictures_as_the_whole_model_does(path, weights, tmp_path):
    picture = Image.fromarray(tiny.pixels(20, 31).permute(1, 2, 0).numpy())
    whole = parsed(path)
    whole.write(tmp_path / "whole.safetensors")
    data = diffcodec.encode(picture, model=path)
    assert diffcodec.encode(picture, model=tmp_path / "whole.safetensors") == data
    assert diffcodec.info(data, rungs=False).model == whole.id.hex() != BASE.id.hex()
    assert diffcodec.decode(data, model=path).tobytes() == picture.tobytes()
    assert path.stat().st_size < (tmp_path / "whole.safetensors").stat().st_size / 2
    with pytest.raises(ModelError, match=whole.id.hex()):
        diffcodec.decode(data)
    path.rename(weights / "mine.safetensors")  # installed, it is found by its id
    assert diffcodec.decode(data).tobytes() == picture.tobytes()


def test_another_ladder_makes_it_whole(path, tmp_path):
    with_ladder(path, tmp_path / "ladder", model.load(path).process.ladder)
    assert parsed(tmp_path / "ladder").digest() == parsed(path).digest()
    assert len(load_file(tmp_path / "ladder")) > 1


def rewritten(path, config=None, tensors=None, digest=None):
    """The bytes of a difference file with other contents."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    metadata["config"] = json.dumps(config or json.loads(metadata["config"]))
    metadata["digest"] = digest or metadata["digest"]
    save_file(load_file(path) if tensors is None else tensors, path, metadata)
    return files.read(path)


def refused(content, *words):
    with pytest.raises(ModelError) as error:
        files.parse(content)
    for word in words:
        assert word in str(error.value)


def test_damaged_difference_files_are_refused(path):
    whole = files.read(path)
    for content in (whole[:100], whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), whole + b"x"):
        refused(content, "damaged")
    middle = len(whole) - 1000
    refused(whole[:middle] + bytes([whole[middle] ^ 4]) + whole[middle + 1 :], "model file")
    base, packed = BASE.digest(), load_file(path)["difference"]
    for config in (
        {"process": "quantised", "base": base[:-1]},
        {"process": "quantised", "base": ""},
        {"process": "quantised", "base": 5},
        {"process": "absorbing", "base": base},
        {"process": "quantised", "base": base, "prior": 20},
    ):
        refused(rewritten(path, config), "damaged")
    path.write_bytes(whole)
    for tensors in (
        {},
        {"difference": packed, "more": packed.clone()},
        {"difference": packed.short()},
        {"difference": packed[None]},
    ):
        refused(rewritten(path, tensors=tensors), "damaged")
    refused(rewritten(path, digest=base, tensors={"difference": packed}), "digest")


def test_a_difference_is_unpacked_to_the_size_of_its_base_and_no_farther(path, monkeypatch):
    size, made = len(unpacked(load_file(path)["difference"])), []

    class Watched:
        def __init__(self, *arguments, **options):
            self.own = decompressor(*arguments, **options)

        def __getattr__(self, name):
            return getattr(self.own, name)

        def decompress(self, data, most):
            made.append(len(raw := self.own.decompress(data, most)))
            return raw

    decompressor = lzma.LZMADecompressor
    monkeypatch.setattr(lzma, "LZMADecompressor", Watched)
    for raw in (bytes(size - 1), bytes(size + 1), bytes(1 << 26), b""):
        content = rewritten(path, tensors={"difference": packed(raw)})
        refused(content, "from another model")
    refused(rewritten(path, tensors={"difference": packed(bytes(size))[:-1]}), "from another")
    more = torch.cat((packed(bytes(size)), torch.zeros(1, dtype=torch.uint8)))
    refused(rewritten(path, tensors={"difference": more}), "from another")
    refused(rewritten(path, tensors={"difference": torch.full((9,), 255).byte()}), "damaged")
    assert max(made) == size + 1


def packed(raw):
    data = lzma.compress(raw, lzma.FORMAT_RAW, filters=differences.FILTERS)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def unpacked(difference):
    data = difference.numpy().tobytes()
    return lzma.decompress(data, lzma.FORMAT_RAW, filters=differences.FILTERS)


def test_a_base_that_is_not_installed_is_told(path, weights):
    content = files.read(path)
    (weights / "tiny.safetensors").unlink()
    refused(content, BASE.id.hex(), "not installed")
    tiny.model_file(net=tiny.network(seed=5)).write(weights / "tiny.safetensors")
    refused(content, BASE.id.hex(), "not installed")


def test_a_difference_from_a_difference_is_refused(path, weights, tmp_path):
    first = parsed(path)
    zero = {name: torch.zeros_like(value) for name, value in unpack(path).items()}
    files.write_difference(tmp_path / "second", first, zero, {})
    second = files.read(tmp_path / "second")
    refused(second, first.id.hex(), "not installed")
    path.rename(weights / "mine.safetensors")
    refused(second, "another difference")


def unpack(path):
    return differences.unpack(load_file(path)["difference"], BASE.tensors)


def test_a_damaged_base_is_refused(path, weights):
    target = weights / "tiny.safetensors"
    data = bytearray(target.read_bytes())
    data[-1] ^= 1
    target.write_bytes(data)
    refused(files.read(path), "damaged")


def test_sums_stay_in_their_range(tmp_path):
    change = difference(TASK, trained(scale=1e6), BASE)
    tensors = differences.added(BASE.tensors, change)
    kept = 0
    for name in (own.removesuffix("weight") for own in tensors if own.endswith(".weight")):
        check_bound(tensors[name + "weight"], tensors[name + "bias"])
        assert int(tensors[name + "weight"].long().abs().max()) <= 127
        kept += int((~change[name + "weight"].flatten(1).any(1)).sum())
    assert kept
    model.build(files.changed(BASE, change, {}))


def test_readers_refuse_a_difference_that_breaks_the_bound(tmp_path, weights):
    base = tiny.model_file()
    base.tensors["experts.0.up.multiplier"][:] = 1e-6
    base.write(weights / "tiny.safetensors")
    change = {
        name: torch.zeros_like(value, dtype=torch.int8 if name.endswith("weight") else torch.short)
        for name, value in base.tensors.items()
        if name.endswith((".weight", ".bias"))
    }
    change["experts.0.up.bias"][0, 0, 0] = 1000
    files.write_difference(tmp_path / "mine", base, change, {})
    with pytest.raises(ModelError, match="range"):
        model.load(tmp_path / "mine")


def test_gains_stay_and_crops_are_the_pictures_own():
    for name, parameter in TASK.network().named_parameters():
        assert parameter.requires_grad == (not name.endswith("_gain"))
    assert TASK.draws == (Draw(128, 16, exchanged=0.5),)
    assert [draw.size for draw in Finetuning(BASE, [90]).draws] == [128, 512]
    assert [draw.size for draw in Finetuning(BASE, [90, 512]).draws] == [128, 512]
    thumbnails = files.ModelFile({**BASE.config, "side": 48}, {}, BASE.tensors)
    assert [draw.size for draw in Finetuning(thumbnails, [40]).draws] == [32]


@pytest.fixture
def photos(tmp_path):
    """A folder of two pictures."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed, sides in enumerate(((128, 130), (40, 50))):
        picture = tiny.pixels(*sides, seed=seed).permute(1, 2, 0).numpy()
        Image.fromarray(picture).save(folder / f"{seed}.png")
    return folder


def test_the_command_fits_a_model_to_a_folder(photos, weights, tmp_path):
    out = tmp_path / "mine.safetensors"
    arguments = ["fit", photos, "-o", out, "--model", weights / "tiny.safetensors"]
    options = ["--minutes", "0.0001", "--device", "cpu", "--validation", photos.parent / "photos"]
    result = CliRunner().invoke(main, [str(word) for word in arguments + options[:4]])
    assert result.exit_code == 0, result.output
    assert f"{out}: {out.stat().st_size:,} bytes" in result.stdout
    file = parsed(out)
    assert file.card["base"] == BASE.digest()
    assert file.card["data"] == {"photos": "licence unknown"}
    assert file.card["runs"][-1]["steps"] >= 1
    model.build(file)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_what_cannot_be_fitted_is_told(photos, path, tmp_path, weights):
    tiny.model_file(net=tiny.network(seed=5)).write(tmp_path / "other")
    for name in (path, tmp_path / "other"):
        with pytest.raises(ModelError, match="none of the installed"):
            finetuning.fit(photos, tmp_path / "out", minutes=1.0, model=name)
    (photos / "0.png").unlink()
    with pytest.raises(ImageError, match="128 x 128"):
        finetuning.fit(photos, tmp_path / "out", minutes=1.0, model=weights / "tiny.safetensors")
    assert not (tmp_path / "out").exists()
