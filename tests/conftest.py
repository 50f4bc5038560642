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
