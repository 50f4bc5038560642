"""Where exact layers compute, and what their integers must not depend on.

A backend is a type of operands on a kind of device. What it sums must be exact, whatever kernels
and settings the libraries below have: so each backend has to pass conformance vectors, with sums
as large as a model may have, before it is used. Of those that pass, a fast one serves.
`exactly` shuts out what else surrounds a call.
"""

import inspect
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from diffcodec.errors import DeviceError
from diffcodec.exact.forks import is_fork

ACCUMULATOR_LIMIT = 1 << 24
"""Integers up to here are exact in float32."""

STRICT = torch.float64
"""Operands that no setting of a library makes less precise; every kind of device has them."""

DEVICES = ("auto", "cpu", "cuda")
"""What a caller may ask for: "auto" is CUDA where there is a device whose sums are exact."""

_FAST = dict.fromkeys(("cpu", "cuda"), (torch.bfloat16, torch.float32))
"""Faster types of operands by kind of device, the shortest first."""

_CPU = torch.device("cpu")
_RUNS = 4  # of each conformance vector, of which the shortest counts
_EMULATED = 1.4  # times a longer type's seconds: a type that the processor does not know

P = ParamSpec("P")
R = TypeVar("R")


# --- what surrounds a call ------------------------------------------------------------------------


@contextmanager
def exactly(threads: int | None = None, device: str = "auto") -> Iterator[None]:
    """Compute with nothing from outside: the same integers under any setting of the caller.

    Autocast, gradients, inference mode, the default device and numpy's errors as exceptions are
    off, and PyTorch uses the given number of threads. All is as before afterwards. What computes
    inside must name the types of the floats that it makes: the default one belongs to all threads
    of the process. Inside another call nothing changes.

    Args:
        threads: None for as many as PyTorch is set to use, but no more than there are
            processors for this process. A forked process computes with one in any case.
        device: one of DEVICES, which `device()` then names.

    Raises ValueError for other devices or if `threads` is less than 1, DeviceError if the device
    is not there or its sums are not exact.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}")
    if _here.choices is not None:
        yield
        return
    with ExitStack() as stack:
        # Tensors that are kept for later calls must not be those of inference mode.
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        for kind in _FAST:
            stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":  # to set a device slows every call
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(np.errstate(all="ignore"))
        stack.enter_context(_using(threads))
        _here.choices = {}
        try:
            _here.device = _found(device)
            yield
        finally:
            _here.choices, _here.device = None, _CPU


def exact_arithmetic(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function inside `exactly`, with its keyword arguments `threads` and `device`.

    A generator is inside while it makes an item, and outside while its caller has that.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with exactly(**_asked(kwargs)):
            return function(*args, **kwargs)

    @wraps(function)
    def generate(*args: P.args, **kwargs: P.kwargs) -> Iterator[Any]:
        items = cast(Iterator[Any], function(*args, **kwargs))
        while True:
            with exactly(**_asked(kwargs)):
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item

    return cast(Callable[P, R], generate) if inspect.isgeneratorfunction(function) else call


def _asked(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: kwargs[name] for name in ("threads", "device") if name in kwargs}


def device() -> torch.device:
    """The device of the call of `exactly` that this thread is in; the CPU outside."""
    return _here.device


def _found(name: str) -> torch.device:
    """The device that a caller asks for by one of DEVICES. Raises DeviceError."""
    if name not in DEVICES:
        raise ValueError(f"device is one of {', '.join(DEVICES)}, not {name!r}")
    usable = not is_fork() and torch.cuda.is_available()
    if name == "cuda" and not usable:
        raise DeviceError("There is no CUDA device that this process can use.")
    exact = name == "cuda" or (name == "auto" and usable and _exact_cuda())
    return torch.device("cuda") if exact else _CPU


@cache
def _exact_cuda() -> bool:
    """Whether sums on the CUDA device are exact; says once if they are not."""
    try:
        for dtype in _FAST["cuda"]:
            _chosen("cuda", dtype, _settings())
    except DeviceError as error:
        warnings.warn(f"{error} The CPU computes instead.", stacklevel=2)
        return False
    return True


def processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Here(threading.local):
    """Of this thread: the call of `exactly` that it is in, if any: its device and backends."""

    device = _CPU
    choices: dict[tuple[str, torch.dtype], torch.dtype] | None = None


class _Calls:
    """The calls that are under way in all threads, and PyTorch's number of threads before them."""

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget all calls: in a forked process there is none, and nobody to unlock the lock."""
        self.lock, self.number, self.threads = threading.Lock(), 0, 0


_here, _calls = _Here(), _Calls()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_calls.begin_anew)


@contextmanager
def _using(threads: int | None) -> Iterator[None]:
    """Let PyTorch use so many threads for this thread's work."""
    with _calls.lock:
        if _calls.number == 0:
            _calls.threads = torch.get_num_threads()
        _calls.number += 1
    usual = _calls.threads
    try:
        _set_threads(1 if is_fork() else threads or min(usual, processors()))
        yield
    finally:
        _set_threads(usual)
        with _calls.lock:
            _calls.number -= 1


def _set_threads(number: int) -> None:
    if torch.get_num_threads() != number:
        torch.set_num_threads(number)


# --- sums -----------------------------------------------------------------------------------------


def sums(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    operands: torch.dtype,
    *,
    stride: int = 1,
    padding: int = 0,
) -> Tensor:
    """The sums of a layer, rounded to the type of its operands.

    Args:
        x: integers of any type, [N, inputs, h, w], or rows [n, inputs] for a matrix.
        weight: integers of any type, [outputs, inputs, k, k], or a matrix [outputs, inputs].
        bias: integers of any type, [outputs].
        operands: the type in which they are multiplied.
        stride, padding: of the convolution.
    """
    x, weight = x.to(operands), weight.to(operands)
    bias = None if bias is None else bias.to(operands)
    if weight.ndim == 2:
        return F.linear(x, weight, bias)
    return F.conv2d(x, weight, bias, stride, padding)


def operands(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """The type of operands that serves for activations of type `dtype` on a device.

    It is chosen at its first use in a process, and again under other settings of PyTorch.
    Raises DeviceError if no type gives exact sums.
    """
    if _here.choices is None:
        return _chosen(device.type, dtype, _settings())
    key = device.type, dtype
    if key not in _here.choices:
        _here.choices[key] = _chosen(*key, _settings())
    return _here.choices[key]


def _settings() -> tuple[object, ...]:
    """What PyTorch lets its users say about the kernels and the precision of products."""
    mkldnn: Any = torch.backends.mkldnn
    return mkldnn.enabled, mkldnn.conv.fp32_precision, mkldnn.matmul.fp32_precision


@cache
def _chosen(kind: str, dtype: torch.dtype, _: tuple[object, ...]) -> torch.dtype:
    """What `operands` returns, under the present settings."""
    # A type with a shorter significand does not hold the activations.
    fast = [o for o in _FAST.get(kind, ()) if torch.finfo(o).eps <= torch.finfo(dtype).eps]
    device = torch.device(kind)
    tried = {operands: conformance(device, dtype, operands) for operands in fast}
    seconds = {operands: taken for operands, taken in tried.items() if taken is not None}
    for operands, taken in seconds.items():
        if taken < _EMULATED * min(seconds.values()):
            return operands
    if conformance(device, dtype, STRICT) is None:
        raise DeviceError(f"Sums of integers are not exact on this machine's {kind.upper()}.")
    return STRICT


# --- conformance ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Vector:
    """A layer, an input, and the sums that it must give; int64.

    Attributes:
        x: [1, inputs, h, w].
        weight: [outputs, inputs, k, k].
        bias: [outputs].
        stride, padding: of the convolution.
        rows: the same input for a matrix [outputs, inputs * k * k], one row for each position.
        sums: [positions, outputs].
    """

    x: Tensor
    weight: Tensor
    bias: Tensor
    stride: int
    padding: int
    rows: Tensor
    sums: Tensor


@cache
def vectors(dtype: torch.dtype) -> list[Vector]:
    """Layers of every kind that there is, with sums up to the bound, for activations of a type.

    Half of the outputs add up to just below ACCUMULATOR_LIMIT; the others do so half way, and
    then subtract all but a few units.
    """
    return [_vector(dtype, *shape) for shape in ((3, 1), (2, 2), (1, 1))]


def _vector(dtype: torch.dtype, kernel: int, stride: int) -> Vector:
    random = np.random.Generator(np.random.PCG64(kernel))
    outputs, half, side = 64, 32, 16
    coarse = torch.finfo(dtype).eps > torch.finfo(torch.float32).eps
    largest, unit = (512, 2) if coarse else (511, 1)
    sign = random.choice([-1, 1], 2 * half)[:, None, None]
    room = ACCUMULATOR_LIMIT // (2 * half * kernel**2 * largest)
    magnitude = min(room - 2, 118) + random.integers(-9, 10, (outputs, half, kernel, kernel))
    weight = np.concatenate([magnitude, magnitude], 1) * sign
    weight[1::2, half:] *= -1
    x = largest - unit * random.integers(1, 9, (half, side, side))
    few = unit * random.choice([-1, 0, 1], x.shape, p=[1 / 128, 63 / 64, 1 / 128])
    x = np.concatenate([x, x + few]) * sign
    rest = ACCUMULATOR_LIMIT - 1 - np.abs(weight).sum((1, 2, 3)) * 512
    if coarse:  # down to eight bits, which bfloat16 holds
        lost = np.frexp(rest)[1] - 8
        rest = rest >> lost << lost
    bias = np.where(np.arange(outputs) % 2, random.integers(-255, 256, outputs), rest)
    padding = kernel // 2 if stride == 1 else 0
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (1, 2))
    windows = windows[:, ::stride, ::stride].transpose(1, 2, 0, 3, 4)
    rows = windows.reshape(-1, weight[0].size)
    # numpy's products of integers are slow; these are far below 2^53.
    totals = rows.astype(np.float64) @ weight.reshape(outputs, -1).T.astype(np.float64) + bias

    def tensor(values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(values.astype(np.int64))

    return Vector(
        tensor(x[None]), tensor(weight), tensor(bias), stride, padding, tensor(rows), tensor(totals)
    )


def conformance(device: torch.device, dtype: torch.dtype, operands: torch.dtype) -> float | None:
    """Whether `operands` pass the conformance vectors of activations of type `dtype` on a device.

    Returns the seconds that they take there; None if a sum is wrong or cannot be computed.
    """
    seconds = 0.0
    for vector in vectors(dtype):
        x, weight, bias, rows = (
            part.to(device, dtype) for part in (vector.x, vector.weight, vector.bias, vector.rows)
        )
        x, weight = (part.contiguous(memory_format=torch.channels_last) for part in (x, weight))
        expected = vector.sums.to(dtype)
        runs = []
        try:
            for _ in range(_RUNS):
                start = time.perf_counter()
                made = sums(x, weight, bias, operands, stride=vector.stride, padding=vector.padding)
                found = made[0].flatten(1).T.to("cpu", dtype)
                runs.append(time.perf_counter() - start)
            of_rows = sums(rows, weight.flatten(1), bias, operands).to("cpu", dtype)
        except RuntimeError:  # no kernel for it here
            return None
        if not (torch.equal(found, expected) and torch.equal(of_rows, expected)):
            return None
        seconds += min(runs)
    return seconds
