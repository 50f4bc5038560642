"""The differentiable SSIMULACRA 2 is the reference's."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from diffcodec.training.ssimulacra2 import ssimulacra2

reference = pytest.importorskip("ssimulacra2")


@pytest.fixture(scope="module")
def photo():
    with Image.open("examples/photo.png") as image:
        return image.convert("RGB")


def planes(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]


def stored(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file


def damaged(image, kind, strength):
    if kind == "JPEG":
        return Image.open(stored(image, "JPEG", quality=strength)).convert("RGB")
    if kind == "blur":
        side = 8 * strength
        return image.resize((side, side)).resize(image.size)
    noise = np.random.default_rng(strength).normal(0, strength, (*image.size[::-1], 3))
    return Image.fromarray((np.array(image) + noise).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("corner", [(0, 0), (200, 150)])
@pytest.mark.parametrize("size", [(229, 250), (256, 234), (300, 227)])
@pytest.mark.parametrize(
    ("kind", "strength"),
    [("JPEG", 5), ("JPEG", 30), ("JPEG", 70), ("JPEG", 95), ("blur", 6), ("blur", 20)]
    + [("noise", strength) for strength in (1, 5, 20)],
)
def test_scores_are_those_of_the_reference(photo, corner, size, kind, strength):
    crop = photo.crop((*corner, corner[0] + size[0], corner[1] + size[1]))
    other = damaged(crop, kind, strength)
    expected = reference.compute_ssimulacra2(stored(crop, "PPM"), stored(other, "PPM"))
    assert float(ssimulacra2(planes(crop), planes(other))) == pytest.approx(expected, abs=0.05)


def test_the_same_picture_has_the_best_score_and_a_finite_gradient(photo):
    picture = planes(photo.crop((0, 0, 128, 128))).float()
    shown = picture.clone().requires_grad_()
    score = ssimulacra2(picture, shown)
    assert float(score) == pytest.approx(100, abs=0.2)
    score.sum().backward()
    assert shown.grad.isfinite().all()


def test_the_score_rises_along_its_gradient(photo):
    picture = planes(photo.crop((0, 0, 128, 128))).float()
    shown = planes(damaged(photo.crop((0, 0, 128, 128)), "JPEG", 30)).float().requires_grad_()
    before = ssimulacra2(picture, shown)
    (gradient,) = torch.autograd.grad(before.sum(), shown)
    after = ssimulacra2(picture, shown.detach() + 2 * gradient / gradient.abs().max())
    assert float(after) > float(before)
