"""Crops as integers of luma and chroma, of which decoders make RGB."""

import io
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from diffcodec.quantized.schedule import LOW
from diffcodec.training import converted
from diffcodec.training.converted import SPLIT, Conversion, convert
from diffcodec.training.data import Crops, Draw, batches
from diffcodec.training.recipes import CONVERTED, PHOTO_PROCESS
from diffcodec.transforms.spaces import SPACES, to_rgb

JPEG_444, JPEG_420, WEBP_420, PHOTO_CD = Conversion

FILES = {
    JPEG_444: (SPACES[0], {"format": "JPEG", "subsampling": "4:4:4"}),
    JPEG_420: (SPACES[3], {"format": "JPEG", "subsampling": "4:2:0"}),
    WEBP_420: (SPACES[4], {"format": "WEBP", "method": 2}),
}


def photographs(count: int = 3, side: int = 64) -> torch.Tensor:
    """Pixels uint8 [count, 3, side, side], smooth with some noise."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand((count, 3, 8, 8), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")
    noise = 4 * torch.randn(smooth.shape, generator=generator)
    return (40 + 170 * smooth + noise).round().clamp(0, 255).byte()


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def levels(planes: torch.Tensor, how: Conversion) -> dict[int, torch.Tensor]:
    return PHOTO_PROCESS.pyramid(*planes.shape[-2:], space=how.space).analyse(planes)


@pytest.fixture
def quality(monkeypatch, request):
    monkeypatch.setattr(converted, "WORST", request.param)
    monkeypatch.setattr(converted, "BEST", request.param)
    return request.param


@pytest.mark.parametrize("quality", [75, 92, 100], indirect=True)
@pytest.mark.parametrize("space", FILES)
def test_a_crop_becomes_what_an_encoder_makes_of_its_file(quality, space):
    pixels = photographs(1)
    pixels[0, :, :20, :20] = torch.tensor([255, 240, 200], dtype=torch.uint8)[:, None, None]
    made = convert(pixels, space, generator())
    own, options = FILES[space]
    buffer = io.BytesIO()
    Image.fromarray(pixels[0].movedim(0, -1).numpy()).save(buffer, quality=quality, **options)
    rgb = torch.from_numpy(np.array(Image.open(buffer).convert("RGB"))).movedim(-1, 0)
    pyramid = PHOTO_PROCESS.pyramid(64, 64, space=own)
    values = levels(made, space)
    assert torch.equal(pyramid.rebuild(values)[0], rgb.int())


@pytest.mark.parametrize("space", [JPEG_420, WEBP_420])
def test_doubled_chroma_has_few_details(space):
    values = levels(convert(photographs(), space, generator()), space)
    assert (values[1][:, 3:] != 0).float().mean() < 0.05
    assert values[1][:, :3].any()
    assert values[2][:, 3:].any()


@pytest.mark.parametrize("space", FILES)
def test_lower_qualities_have_less_detail(monkeypatch, space):
    pixels, sizes = photographs(), []
    for quality in (100, 90, 75):
        monkeypatch.setattr(converted, "WORST", quality)
        monkeypatch.setattr(converted, "BEST", quality)
        finest = levels(convert(pixels, space, generator()), space)[1]
        sizes.append(float((finest.abs() + 1).log2().mean()))
    assert sizes[0] > sizes[1] > sizes[2]


def test_crops_have_all_qualities(monkeypatch):
    seen = []
    monkeypatch.setattr(converted, "_through_file", lambda crop, *_: seen.append(_[-1]) or crop)
    convert(torch.zeros((1000, 3, 2, 2), dtype=torch.uint8), JPEG_444, generator())
    assert set(seen) == set(range(converted.WORST, converted.BEST + 1))


def test_photo_cd_s_integers_are_the_nearest():
    pixels = photographs().float().mean(1, keepdim=True).round().byte().expand(-1, 3, -1, -1)
    made = convert(pixels, PHOTO_CD, generator())
    assert (to_rgb(PHOTO_CD.space, made) - pixels.int()).abs().max() <= 1
    made = convert(photographs(), PHOTO_CD, generator())
    assert not levels(made, PHOTO_CD)[1][:, 3:].any()
    # Chroma of half the size loses noise, but no brightness; what makes RGB cuts fractions off.
    away = (to_rgb(PHOTO_CD.space, made) - photographs().int()).float().mean()
    assert -0.5 < float(away) < 0.1


def test_planes_are_split_and_joined():
    plane = torch.arange(48).reshape(6, 8)
    low, details = SPLIT.forward(plane)
    assert torch.equal(low, plane[::2, ::2])
    assert torch.equal(SPLIT.inverse(low, details, 6, 8), plane)


def test_without_a_space_pixels_stay():
    pixels = photographs()
    assert convert(pixels, None, generator()) is pixels


def test_crops_are_converted_last():
    images = list(photographs())
    plain = Crops(images, Draw(32, 4)).draw(generator())
    made = Crops(images, Draw(32, 4, conversion=JPEG_444)).draw(generator())
    luma = torch.einsum("c,nchw->nhw", torch.tensor([0.299, 0.587, 0.114]), plain.float())
    assert float((made[:, 0] - luma).abs().mean()) < 4


def test_the_recipe_has_all_levels_of_all_spaces():
    task = CONVERTED.task
    drawn = zip(task.draws, task.emphases, strict=True)
    levels = {how: set() for how in Conversion}
    for draw, emphasis in drawn:
        levels[draw.conversion] |= set(emphasis.levels)
    assert all(own == set(range(1, LOW + 1)) for own in levels.values())
    assert task.calibration.conversion is JPEG_444


@pytest.mark.parametrize("how", Conversion)
def test_another_process_converts_in_the_same_way(how):
    again = pickle.loads(pickle.dumps(Draw(32, 4, conversion=how))).conversion
    made = [convert(photographs(1), one, generator()) for one in (how, again)]
    assert torch.equal(*made)
    assert again.space is how.space


def test_a_batch_is_taken_as_often_as_it_is_used():
    taken = batches(Crops(list(photographs()), Draw(32, 4, uses=2)), seed=0)
    first, again, second = (next(taken) for _ in range(3))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
