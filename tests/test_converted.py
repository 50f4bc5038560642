"""Crops as integers of luma and chroma, as decoders of JPEG have them."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from diffcodec.quantized.schedule import LOW
from diffcodec.training import converted
from diffcodec.training.converted import JPEG_420, JPEG_444, convert
from diffcodec.training.data import Crops, Draw
from diffcodec.training.recipes import CONVERTED, PHOTO_PROCESS


def photographs(count: int = 3, side: int = 64) -> torch.Tensor:
    """Pixels uint8 [count, 3, side, side], smooth with some noise."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand((count, 3, 8, 8), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")
    noise = 4 * torch.randn(smooth.shape, generator=generator)
    return (40 + 170 * smooth + noise).round().clamp(0, 255).byte()


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def through(image: Image.Image, **options: object) -> Image.Image:
    """What a JPEG file of an image decodes to, before it is RGB."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    file = Image.open(buffer)
    file.draft("YCbCr", file.size)
    return file


@pytest.mark.parametrize("quality", [75, 92, 100])
@pytest.mark.parametrize(("space", "subsampling"), [(JPEG_444, "4:4:4"), (JPEG_420, "4:2:0")])
def test_planes_are_those_of_a_decoder(monkeypatch, quality, space, subsampling):
    monkeypatch.setattr(converted, "WORST", quality)
    monkeypatch.setattr(converted, "BEST", quality)
    crop = photographs(1)
    image = Image.fromarray(crop[0].movedim(0, -1).numpy())
    luma, red, blue = convert(crop, space, generator())[0].numpy()
    grey = through(image.convert("YCbCr").getchannel(0), quality=quality)
    assert np.array_equal(luma, np.asarray(grey))
    # libjpeg rounds what it converts itself in another way, and interpolates chroma.
    decoded = through(image, quality=quality, subsampling=subsampling).split()
    for plane, other in ((blue, decoded[1]), (red, decoded[2])):
        away = np.abs(plane.astype(float) - np.asarray(other)).mean()
        assert away < (1.2 if space is JPEG_444 else 4)


def test_lower_qualities_are_further_from_the_picture(monkeypatch):
    pixels, errors = photographs(), []
    for quality in (100, 90, 75):
        monkeypatch.setattr(converted, "WORST", quality)
        monkeypatch.setattr(converted, "BEST", quality)
        made = convert(pixels, JPEG_444, generator())
        monkeypatch.setattr(converted, "_through", lambda plane, *_: plane)
        original = convert(pixels, JPEG_444, generator())
        monkeypatch.undo()
        errors.append(float((made.float() - original.float()).square().mean()))
    assert errors[0] < errors[1] < errors[2]


def test_qualities_are_drawn_and_a_share_is_the_best(monkeypatch):
    seen = []
    monkeypatch.setattr(
        converted, "_converted", lambda crop, _, quality: seen.append(quality) or crop
    )
    convert(torch.zeros((3000, 3, 2, 2), dtype=torch.uint8), JPEG_444, generator())
    assert set(seen) == set(range(converted.WORST, converted.BEST + 1))
    others = 1 / (converted.BEST - converted.WORST + 1)
    share = converted.BEST_SHARE + (1 - converted.BEST_SHARE) * others
    assert seen.count(converted.BEST) / len(seen) == pytest.approx(share, abs=0.03)


def test_doubled_chroma_has_no_details():
    made = convert(photographs(), JPEG_420, generator())
    values = PHOTO_PROCESS.pyramid(64, 64, space=JPEG_420).analyse(made)
    assert not values[1][:, 3:].any()
    assert values[1][:, :3].any()
    assert values[2][:, 3:].any()
    low = made[:, 1:].int()
    halved, details = JPEG_420.chroma.forward(low)
    assert torch.equal(JPEG_420.chroma.inverse(halved, details, 64, 64), low)


def test_without_a_space_pixels_stay():
    pixels = photographs()
    assert convert(pixels, None, generator()) is pixels


def test_crops_are_converted_last():
    images = list(photographs())
    plain = Crops(images, Draw(32, 4)).draw(generator())
    made = Crops(images, Draw(32, 4, space=JPEG_444)).draw(generator())
    luma = torch.einsum("c,nchw->nhw", torch.tensor([0.299, 0.587, 0.114]), plain.float())
    assert float((made[:, 0] - luma).abs().mean()) < 4


def test_the_recipe_has_all_levels_of_both_spaces():
    task = CONVERTED.task
    drawn = zip(task.draws, task.emphases, strict=True)
    levels = {space: set() for space in (JPEG_444, JPEG_420)}
    for draw, emphasis in drawn:
        levels[draw.space] |= set(emphasis.levels)
    assert all(own == set(range(1, LOW + 1)) for own in levels.values())
    assert task.calibration.space is JPEG_444
