"""Model files tell their whole shape, and what does not fit is refused with a sentence."""

import copy
import json
import re

import pytest
import tiny
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from diffcodec.absorbing import model as drawings
from diffcodec.errors import ModelError
from diffcodec.exact import files
from diffcodec.exact.files import ModelFile
from diffcodec.gaussian import chain
from diffcodec.quantized import denoising, model

INSTALLED = {path.stem: path for path in sorted(files.WEIGHTS.glob("*.safetensors"))}

BUILDERS = {
    "photo": model.build,
    "converted": model.build,
    "thumbnail": model.build,
    "drawing": drawings.build,
    "denoiser": denoising.build,
    "gaussian-32": chain.Chain,
    "gaussian-64": chain.Chain,
}


@pytest.fixture
def file():
    """A file of the tiny model that a test may change."""
    return copy.deepcopy(tiny.model_file())


def refused(file, *words):
    with pytest.raises(ModelError) as error:
        model.build(file)
    for word in words:
        assert word in str(error.value)


def test_every_installed_model_is_one_of_the_registry():
    assert INSTALLED.keys() == BUILDERS.keys()
    known = {
        files.PHOTO,
        files.CONVERTED,
        files.THUMBNAIL,
        files.DRAWING,
        files.DENOISER,
        files.GAUSSIAN_32,
        files.GAUSSIAN_64,
    }
    assert known == set(INSTALLED.values())


@pytest.mark.parametrize("name", BUILDERS)
def test_installed_models_build_and_have_a_card(name):
    file = files.parse(files.read(INSTALLED[name]))
    BUILDERS[name](file)
    assert files.find(file.id) == INSTALLED[name]
    card = file.card
    assert card.keys() >= {"data", "runs", "recipe", "calibration", "validation"}
    assert all(isinstance(licence, str) for licence in card["data"].values())
    for run in card["runs"]:
        assert run.keys() == {"data", "device", "steps", "minutes", "diffcodec"}
        assert set(run["data"].split(", ")) <= card["data"].keys()


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("other", ["photo", "denoiser", "gaussian-32"])
def test_a_model_of_another_process_is_refused(name, other):
    file = files.parse(files.read(INSTALLED[other]))
    if BUILDERS[name] is BUILDERS[other]:
        BUILDERS[name](file)
    else:
        with pytest.raises(ModelError, match=f"process {file.config['process']}"):
            BUILDERS[name](file)


def test_a_file_comes_back(tmp_path, file):
    file.card["task"] = "test"
    file.write(tmp_path / "model")
    again = files.parse(files.read(tmp_path / "model"))
    assert json.dumps(again.config) == json.dumps(file.config)
    assert again.card == file.card
    assert again.tensors.keys() == file.tensors.keys()
    assert all(torch.equal(again.tensors[name], value) for name, value in file.tensors.items())
    assert again.id == file.id == model.load(tmp_path / "model").id
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_digest_covers_configuration_and_tensors_but_not_the_card(file):
    before = file.digest()
    file.card["task"] = "another"
    assert file.digest() == before
    reordered = ModelFile(dict(reversed(file.config.items())), {}, file.tensors)
    assert reordered.digest() == before
    file.config["prior"] += 1
    assert (changed := file.digest()) != before
    file.tensors["level_odds"][0, 0] += 1
    assert file.digest() not in (before, changed)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"prior": 0}, "prior"),
        ({"prior": "20"}, "prior"),
        ({"prior": True}, "prior"),
        ({"prior": 2.0}, "prior"),
        ({"interpolated": 6}, "interpolated"),
        ({"significand": 11}, "significand: 11"),
        ({"side": -1}, "side"),
        ({"yields": 2}, "yields"),
        ({"colour": 1}, "configuration"),
        ({"network": []}, "network"),
    ],
)
def test_a_field_out_of_range_is_refused(file, change, word):
    file.config.update(change)
    refused(file, word)


@pytest.mark.parametrize("name", ["network", "prior", "process"])
def test_a_missing_field_is_refused(file, name):
    del file.config[name]
    refused(file)


def test_a_field_that_older_files_lack_has_a_default(file):
    file.config["yields"] = 1
    assert model.build(file).yields
    del file.config["yields"]
    assert not model.build(file).yields


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("features", 34, "version"),
        ("levels", 5, "version"),
        ("known", [0, 3, 3, 6, 6, 6], "version"),
        ("known", 3, "known"),
        ("width", 0, "width"),
        ("experts", [], "version"),
        ("experts", [{"rungs": 12, "half_blocks": 0}], "experts"),
        ("experts", [{"rungs": 12, "half_blocks": 15, "full_blocks": 1}], "tiles"),
        ("hidden", 9, "heads.0"),
    ],
)
def test_a_network_of_another_shape_is_refused(file, field, value, word):
    file.config["network"] = {**file.config["network"], field: value}
    refused(file, word)


@pytest.mark.parametrize(
    "name",
    [
        "experts.0.merge.weight",
        "experts.2.heads.3.phase.bias",
        "experts.1.up.multiplier",
        "experts.1.up.step",
        "unit.experts.0.full",
        "cdf",
        "inverse_scales",
        "level_odds",
        "block_odds",
        "ladder.details",
        "ladder.low",
        "ladder.rows",
    ],
)
def test_a_tensor_that_is_missing_or_of_another_shape_or_type_is_refused(file, name):
    value = file.tensors[name]
    file.tensors[name] = value[:-1]
    refused(file, name)
    file.tensors[name] = value.double()
    refused(file, name)
    del file.tensors[name]
    refused(file, "lacks", name)


def test_an_unknown_tensor_is_refused(file):
    file.tensors["more"] = torch.zeros(1)
    refused(file, "unknown", "more")


def test_floats_that_are_not_finite_and_impossible_odds_are_refused(file):
    file.tensors["experts.0.up.multiplier"][0, 0, 0] = torch.inf
    refused(file, "finite")
    file.tensors["experts.0.up.multiplier"][0, 0, 0] = 0.0
    file.tensors["block_odds"][0, 0, 0, 0] = 1 << 16
    refused(file, "block_odds")


def test_damaged_files_are_refused(tmp_path, tiny_path):
    whole = tiny_path.read_bytes()
    for content in (b"", whole[:7], whole[:100], whole[:-1], whole[:-1] + b"\x55", b"x" * 99):
        with pytest.raises(ModelError, match=r"damaged"):
            files.parse(content)
    with pytest.raises(ModelError, match=re.escape(str(tmp_path / "missing"))):
        files.read(tmp_path / "missing")
    with safe_open(tiny_path, "pt") as opened:
        metadata = opened.metadata()
    for broken in ({}, metadata | {"config": "[]"}, metadata | {"card": "{"}):
        save_file({"x": torch.zeros(1)}, tmp_path / "broken", broken or None)
        with pytest.raises(ModelError, match="damaged"):
            files.parse(files.read(tmp_path / "broken"))


def test_models_are_kept_by_their_content(tmp_path, tiny_path):
    path = tmp_path / "model"
    path.write_bytes(tiny_path.read_bytes())
    first = model.load(path)
    assert model.load(tiny_path) is first
    other = tiny.model_file(net=tiny.network(seed=7))
    other.write(path)
    assert model.load(path).id == other.id != first.id
    assert model.load(tiny_path) is first


def test_a_model_that_is_not_installed_is_told():
    with pytest.raises(ModelError, match="00000000"):
        files.find(bytes(4))


def test_milestones_must_lead_down_the_rows():
    file = files.parse(files.read(files.GAUSSIAN_32))
    file.tensors["milestones"][-1] = 1
    with pytest.raises(ModelError, match="milestones"):
        chain.Chain(file)
