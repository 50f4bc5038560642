"""The denoiser betters prefixes, and is no part of the format."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

import diffcodec
from diffcodec.exact.cdf import CdfTable
from diffcodec.exact.config import to_json
from diffcodec.exact.files import ModelFile
from diffcodec.quantized import denoising, preview
from diffcodec.quantized.corrections import Corrections
from diffcodec.quantized.schedule import HIGHEST_TRAINED_RUNG, LAST_RUNG, LOW
from diffcodec.quantized.state import State
from diffcodec.training import denoising as training
from diffcodec.training import recipes
from diffcodec.training.integers import quantise
from diffcodec.training.networks import Denoiser, FilmConv
from diffcodec.training.recipes import PHOTO_PROCESS, THUMBNAIL_PROCESS


@pytest.fixture(scope="module")
def photo():
    """A part of the example photograph, uint8 [3, 128, 192]."""
    with Image.open("examples/photo.png") as image:
        part = np.array(image.convert("RGB"))[150:278, 200:392]
    return torch.from_numpy(part).permute(2, 0, 1).contiguous()


def psnr(a, b):
    error = float((a.float() - b.float()).square().mean())
    return 10 * math.log10(255**2 / error) if error else math.inf


def state_at(picture, rung, level=LOW, process=PHOTO_PROCESS):
    """What a decoder knows when levels coarser than `level` are one rung further than `rung`."""
    pyramid = process.pyramid(*picture.shape[1:])
    state = State.empty(pyramid, 3, Corrections(CdfTable.gaussian(), 20))
    for own, values in pyramid.analyse(picture[None]).items():
        done = rung - (own > level)
        state.floors[own], state.planes[own] = pyramid.cells_at(values, done, own)
        state.rungs[own] = done
    return state


@pytest.mark.parametrize("process", [PHOTO_PROCESS, THUMBNAIL_PROCESS])
@pytest.mark.parametrize(("rung", "level"), [(2, LOW), (5, LOW), (5, 1), (2, 3), (9, 5)])
def test_training_sees_what_decoders_show(photo, rung, level, process):
    shown = training.prefixes(process, photo[None], rung, level)[0]
    state = state_at(photo, rung, level, process)
    assert torch.equal(shown, preview.plain(state).float())


@pytest.mark.parametrize("rung", range(3, 9))
def test_the_installed_denoiser_betters_prefixes(photo, rung):
    state = state_at(photo, rung)
    assert psnr(preview.picture(state), photo) > psnr(preview.plain(state), photo) + 0.1


def test_a_whole_picture_is_not_touched(photo, monkeypatch):
    monkeypatch.setattr(denoising, "denoise", None)
    assert torch.equal(preview.picture(state_at(photo, 1)), photo)


def test_files_do_not_depend_on_the_denoiser(photo, monkeypatch):
    image = Image.fromarray(photo[:, :40, :50].permute(1, 2, 0).numpy())
    data = diffcodec.encode(image, max_bytes=400)
    shown = diffcodec.decode(data)
    monkeypatch.setattr(denoising, "denoise", lambda pixels, *_: 255 - pixels)
    assert diffcodec.decode(data).tobytes() != shown.tobytes()  # and its checksum holds
    assert diffcodec.encode(image, max_bytes=400) == data


def test_deep_pictures_are_denoised_in_their_high_bits(photo):
    shown = preview.plain(state_at(photo, 5))
    deep = denoising.denoise(shown << 8, 13, depth=16)
    difference = (deep + 128 >> 8).clamp(max=255) - denoising.denoise(shown, 5)
    assert int(difference.abs().max()) <= 1  # halves may round either way
    assert torch.equal(denoising.denoise(shown << 8, 9, depth=16), shown << 8)


def test_what_is_too_rough_is_shown_as_it_is(photo):
    rung = HIGHEST_TRAINED_RUNG + 1
    shown = preview.plain(state_at(photo, rung))
    assert torch.equal(denoising.denoise(shown, rung), shown)


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (33, 20), (7, 5)])
@pytest.mark.parametrize("rung", [LAST_RUNG, HIGHEST_TRAINED_RUNG + 3])
def test_any_size_and_rung(size, rung):
    pixels = torch.randint(0, 256, (3, *size), dtype=torch.int32)
    denoised = denoising.denoise(pixels, rung)
    assert denoised.shape == pixels.shape
    assert denoised.dtype == torch.int32
    assert 0 <= int(denoised.min()) <= int(denoised.max()) <= 255


def test_the_exact_denoiser_agrees_with_the_float_one(photo):
    net = Denoiser(recipes.DENOISER_NETWORK).requires_grad_(False)
    torch.manual_seed(0)
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, FilmConv):
                layer.rung_bias += 0.1 * torch.randn_like(layer.rung_bias)
    shown = preview.plain(state_at(photo, 6))
    inputs = shown[None].float()

    def run():
        training.expected(net, inputs, 6)

    tensors = quantise(net, run, denoising.output_units)
    config = to_json(denoising.Config(recipes.DENOISER_NETWORK, significand=24))
    exact = denoising.build(ModelFile(config, {}, tensors))
    expected = training.expected(net, inputs, 6)[0].clamp(0, 255)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(denoising, "load", lambda _: exact)
        got = denoising.denoise(shown, 6)
    assert psnr(got, expected) > 45 > psnr(shown, expected)
