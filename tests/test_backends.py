"""Backends whose sums are exact, and what a call shuts out."""

import os
import subprocess
import sys
import warnings
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

import diffcodec
from diffcodec.errors import DeviceError
from diffcodec.exact import backends
from diffcodec.exact.backends import ACCUMULATOR_LIMIT, STRICT, conformance, exactly, vectors
from diffcodec.exact.layers import SIGNIFICANDS, check_bound

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
DTYPES = pytest.mark.parametrize("dtype", SIGNIFICANDS.values())
BACKENDS = [
    pair
    for pair in product(SIGNIFICANDS.values(), (torch.bfloat16, torch.float32, STRICT))
    if pair != (torch.float32, torch.bfloat16)
]


@pytest.fixture
def anew():
    """A process in which no backend has been chosen yet, before and after."""
    choices = backends._chosen, backends._exact_cuda
    for chosen in choices:
        chosen.cache_clear()
    yield
    for chosen in choices:
        chosen.cache_clear()


@DTYPES
def test_the_vectors_are_layers_that_a_model_may_have(dtype):
    for vector in vectors(dtype):
        check_bound(vector.weight, vector.bias[None, None])
        assert int(vector.weight.abs().max()) <= 127
        for part in (vector.x, vector.weight, vector.bias):
            assert torch.equal(part.to(dtype).long(), part)


@DTYPES
def test_the_vectors_know_their_sums(dtype):
    for vector in vectors(dtype):
        matrix = vector.weight.flatten(1).numpy()
        for place in (0, 17, -1):
            expected = np.sum(vector.rows[place].numpy() * matrix, 1) + vector.bias.numpy()
            assert np.array_equal(vector.sums[place].numpy(), expected)


@DTYPES
def test_the_vectors_reach_the_bound_and_come_back(dtype):
    for vector in vectors(dtype):
        reached, left = vector.sums[:, ::2].abs(), vector.sums[:, 1::2].abs()
        assert ACCUMULATOR_LIMIT * 0.95 < int(reached.max()) < ACCUMULATOR_LIMIT
        assert int(left.median()) < 1 << 9


@pytest.mark.parametrize(("dtype", "operands"), BACKENDS)
def test_a_backend_passes(dtype, operands):
    assert conformance(CPU, dtype, operands) is not None


def test_a_type_that_holds_less_than_the_activations_fails():
    assert conformance(CPU, torch.float32, torch.bfloat16) is None
    assert conformance(CPU, torch.float32, torch.float16) is None


@DTYPES
@pytest.mark.parametrize("rows", [False, True])
def test_a_unit_too_much_in_one_sum_fails(dtype, rows, monkeypatch):
    def wrong(x, weight, *rest, **options):
        y = exact_sums(x, weight, *rest, **options)
        if (weight.ndim == 2) == rows:
            y.view(-1)[int(y.abs().argmin())] += 1
        return y

    exact_sums = backends.sums
    monkeypatch.setattr(backends, "sums", wrong)
    assert conformance(CPU, dtype, torch.float32) is None


@DTYPES
def test_sums_in_half_precision_fail(dtype, monkeypatch):
    def sums(x, weight, bias, operands, *, stride=1, padding=0):
        half = exact_sums(
            x, weight / 256, bias / 256, torch.float32, stride=stride, padding=padding
        )
        return half.half().float() * 256

    exact_sums = backends.sums
    monkeypatch.setattr(backends, "sums", sums)
    assert conformance(CPU, dtype, torch.float32) is None


@DTYPES
def test_without_others_that_pass_the_strict_one_serves(dtype, anew, monkeypatch):
    monkeypatch.setattr(
        backends, "conformance", lambda device, dtype, operands: 1.0 if operands == STRICT else None
    )
    assert backends.operands(CPU, dtype) == STRICT
    with exactly():
        assert backends.operands(CPU, dtype) == STRICT


def test_an_emulated_type_does_not_serve(anew, monkeypatch):
    seconds = {torch.bfloat16: 2.0, torch.float32: 1.0}
    monkeypatch.setattr(backends, "conformance", lambda *key: seconds[key[2]])
    assert backends.operands(CPU, torch.bfloat16) == torch.float32
    seconds[torch.bfloat16] = 0.5
    backends._chosen.cache_clear()
    assert backends.operands(CPU, torch.bfloat16) == torch.bfloat16


def test_a_machine_without_exact_sums_is_an_error(anew, monkeypatch):
    monkeypatch.setattr(backends, "conformance", lambda *_: None)
    with pytest.raises(DeviceError, match="not exact"):
        backends.operands(CPU, torch.float32)


# --- what surrounds a call ------------------------------------------------------------------------


def surroundings():
    return (
        torch.is_autocast_enabled("cpu"),
        torch.get_default_device(),
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
        np.geterr(),
    )


def test_all_is_shut_out_and_comes_back():
    plain = surroundings()
    with (
        torch.autocast("cpu", torch.bfloat16),
        torch.device("meta"),
        torch.inference_mode(),
        np.errstate(all="raise"),
    ):
        around = surroundings()
        assert around != plain
        with exactly(1):
            ignored = dict.fromkeys(np.geterr(), "ignore")
            assert surroundings() == (False, CPU, False, False, 1, ignored)
        assert surroundings() == around
    assert surroundings() == plain


def test_a_call_inside_another_changes_nothing():
    with exactly(1):
        inside = surroundings()
        with exactly(2):
            assert surroundings() == inside
        assert surroundings() == inside


def test_what_takes_the_items_of_a_generator_is_outside():
    @backends.exact_arithmetic
    def items(*, threads=None):
        yield surroundings()
        yield surroundings()

    around = surroundings()
    for inside in items(threads=1):
        assert inside != around
        assert surroundings() == around


def test_after_an_error_all_is_as_before():
    around = surroundings()
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(diffcodec.errors.FormatError):
        diffcodec.decode(b"nothing", threads=1)
    assert surroundings() == around


def test_the_device_is_that_of_the_call(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert backends.device() == CPU
    for name in ("auto", "cpu"):
        with exactly(device=name):
            assert backends.device() == CPU
    with pytest.raises(ValueError, match="auto, cpu, cuda"):
        diffcodec.sample(8, 8, device="tpu")


def test_a_device_whose_sums_are_exact_serves_unasked(anew, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(backends, "conformance", lambda *_: 1.0)
    for name, kind in (("auto", "cuda"), ("cuda", "cuda"), ("cpu", "cpu")):
        with exactly(device=name):
            assert backends.device().type == kind


def test_the_cpu_serves_for_a_device_whose_sums_are_not_exact(anew, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(backends, "conformance", lambda *_: None)
    with pytest.warns(UserWarning, match="not exact on this machine's CUDA. The CPU"), exactly():
        assert backends.device() == CPU
    with warnings.catch_warnings(action="error"), exactly():  # it is said once
        assert backends.device() == CPU


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="no CUDA device"):
        diffcodec.sample(8, 8, device="cuda")
    assert backends.device() == CPU


def test_no_threads_are_refused():
    with pytest.raises(ValueError, match="threads"):
        diffcodec.sample(8, 8, threads=0)


def test_a_fork_is_known_before_torch_is_loaded():
    program = """
import os, sys
import diffcodec
assert "torch" not in sys.modules
if not (child := os.fork()):
    from diffcodec.exact.backends import exactly
    import torch
    torch.set_num_threads(2)
    with exactly(2):
        os._exit(torch.get_num_threads())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    if not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)
    assert result.returncode == 1
