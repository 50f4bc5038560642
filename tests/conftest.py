"""What all tests share."""

import os

import pytest

# One thread for each test process: the pictures are tiny, and the processes share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same random numbers in every run of a test."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory):
    """The file of a small random model of the quantised process (`tiny.CONFIG`)."""
    import tiny

    path = tmp_path_factory.mktemp("tiny") / "model.safetensors"
    tiny.model_file().write(path)
    return path


@pytest.fixture(scope="session")
def tiny_model(tiny_path):
    """The model of `tiny_path`."""
    from diffcodec.quantized import model

    return model.load(tiny_path)
