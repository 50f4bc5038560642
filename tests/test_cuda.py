"""CUDA computes what the CPU does: the same bytes, the same pictures."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

import diffcodec
from diffcodec.exact import backends
from diffcodec.exact.graphs import Replayed

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


def pixels(height, width, seed=0):
    """Waves, a hard edge and a little noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [128 + 70 * np.sin(x / 13 + c) * np.cos(y / 9) for c in range(3)]
    noisy = np.stack(waves, -1) + random.normal(0, 4, (height, width, 3)) + 30 * (x > y)[..., None]
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_fast_type_of_operands_is_exact(dtype):
    assert backends.operands(torch.device("cuda"), dtype) is not backends.STRICT


@pytest.mark.parametrize("size", [(31, 32), (64, 50), (301, 417), (700, 900)])
def test_the_same_bytes_and_pictures(size):
    image = pixels(*size)
    file = diffcodec.encode(image, device="cuda")
    assert file == diffcodec.encode(image, device="cpu")
    assert np.array_equal(diffcodec.decode(file, device="cuda"), image)
    half = file[: len(file) // 2]
    shown = [np.asarray(diffcodec.decode(half, device=d)) for d in ("cpu", "cuda")]
    assert np.array_equal(*shown)


def test_the_same_bytes_at_a_lower_quality():
    image = pixels(200, 300)
    files = [diffcodec.encode(image, psnr=34, device=device) for device in ("cpu", "cuda")]
    assert files[0] == files[1]


@pytest.mark.parametrize("how", [{"method": "bits-back"}, {"method": "channel", "bpp": 0.3}])
def test_a_set_of_the_gaussian_process_has_the_same_bytes(how):
    """Most calls of the network are of its model's own size, and so replayed."""
    pictures = [pixels(*size, seed) for seed, size in enumerate([(32, 32)] * 3 + [(20, 36)])]
    files = [diffcodec.encode_set(pictures, device=device, **how) for device in ("cpu", "cuda")]
    assert files[0] == files[1]


def test_a_recorded_function_goes_on_as_it_began():
    weight = torch.ones(4, device="cuda")

    def step(kind, given):
        weight.add_(given, alpha=kind)
        return weight.sum()

    replayed, total = Replayed(step, weight.device), 4.0
    for number in range(1, 9):
        for kind in (1, 2):
            given = torch.full((4,), float(number), device="cuda")
            total += 4 * kind * number
            assert float(replayed(kind, given)) == total


def test_a_recorded_function_draws_new_numbers_at_each_call():
    place = torch.device("cuda")
    generator = torch.Generator(place).manual_seed(0)

    def step(kind, given):
        return given * torch.rand((), generator=generator, device=place)

    replayed = Replayed(step, place, generator)
    drawn = [float(replayed("any", torch.ones((), device=place))) for _ in range(8)]
    assert len(set(drawn)) == 8


def test_threads_do_not_get_the_results_of_others():
    place = torch.device("cuda")
    replayed = Replayed(lambda kind, given: given.sin().cos(), place)

    def work(seed):
        generator = torch.Generator(place).manual_seed(seed)
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(50):
                given = torch.rand(100_000, generator=generator, device=place)
                if not torch.equal(replayed("any", given), given.sin().cos()):
                    return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))
