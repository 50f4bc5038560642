"""The same bytes whatever a program has set around a call, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = str(Path(__file__).parent.parent)

PROGRAM = """
import hashlib, os, signal
from concurrent.futures import ThreadPoolExecutor
import numpy as np, torch
from PIL import Image
import diffcodec
from diffcodec import container
from diffcodec.entropy import RangeEncoder
from diffcodec.exact.backends import exactly
from diffcodec.quantized import fitted, model, step, stream

y, x = np.mgrid[:32, :56]
noise = np.random.default_rng(0).normal(0, 6, (3, 32, 56))
planes = [120 + 60 * np.sin(x / 9 + c) + 40 * (x + y > 48) + noise[c] for c in range(3)]
picture = Image.fromarray(np.stack(planes, -1).clip(0, 255).astype(np.uint8))

def shifts(network, row):
    layers = fitted.layers(network, row, range(6))
    return {name: np.arange(own.bias.shape[-1]) % 7 - 3 for name, own in layers.items()}

def fitted_file(threads):
    array = np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))
    with exactly(threads):
        weights, encoder = model.load(model.default(32, 56)), RangeEncoder()
        own = {row: shifts(weights.network, row) for row in [(0, 0), (1, 0), (3, 1)]}
        crc = container.checksum(array)
        header = container.Header(0, "RGB", 56, 32, weights.id, crc, 0, True, fitted=True)
        states = stream.image_states(header, weights, torch.from_numpy(array).int(), own)
        for _ in step.walk(weights, states, encoder):
            pass
    return container.write(header, encoder.to_bytes(), {})

def digest(threads=None):
    data = diffcodec.encode(picture, threads=threads)
    other = fitted_file(threads)
    assert diffcodec.decode(other, threads=threads).tobytes() == picture.tobytes()
    coded = diffcodec.encode_set([picture.crop((0, 0, 8, 8))], threads=threads).data
    pictures = [
        diffcodec.decode(data[:600], threads=threads),
        diffcodec.sample(40, 24, threads=threads),
        *diffcodec.decode_set(coded, threads=threads),
        diffcodec.decode(data, threads=threads),
    ]
    assert pictures[-1].tobytes() == picture.tobytes()
    parts = [data, other, coded, *(each.tobytes() for each in pictures)]
    return hashlib.sha256(b"".join(parts)).hexdigest()

def show(threads=None):
    print(digest(threads), flush=True)
"""

CODE = {
    "autocast": "with torch.autocast('cpu', torch.bfloat16): show()",
    "types": "for kind in torch.float16, torch.float64: torch.set_default_dtype(kind); show()",
    "meta": "torch.set_default_device('meta'); show()",
    "inference mode, then none": "with torch.inference_mode(): show()\nshow()",
    "none, then inference mode": "show()\nwith torch.inference_mode(): show()",
    "low precision, then deterministic": """
torch.set_float32_matmul_precision('medium'); show()
torch.use_deterministic_algorithms(True); show()
""",
    "numbers of threads": "for threads in (2, 7): show(threads)",
    "errors of numpy, threads of a program": """
np.seterr(all='raise'); torch.set_num_threads(7); show()
""",
    "four at once": """
def both(_):
    data = diffcodec.encode(picture, threads=1)
    return data, diffcodec.decode(data[:600], threads=1).tobytes()
made = set(ThreadPoolExecutor(4).map(both, range(4)))
assert made == {both(0)}
show()
""",
    "fork": """
show(2)
child = os.fork()
if not child:
    signal.alarm(100)
    show(2)
    os._exit(0)
os.waitpid(child, 0)
""",
}
"""What a program does, and how often it shows its digest, which is the same each time."""

TIMES = {"numbers of threads": 2, "types": 2, "fork": 2} | {
    setting: 2 for setting in CODE if ", then" in setting
}

ENVIRONMENT = [
    {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    {"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"},
    {"ONEDNN_DEFAULT_FPMATH_MODE": "ANY"},
]


def digests(code: str, environment: dict[str, str] | None = None) -> list[str]:
    """What a program shows that does this."""
    usual = {"PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM + code],
        env=os.environ | usual | (environment or {}),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


@pytest.fixture(scope="module")
def usual() -> str:
    (digest,) = digests("show()")
    return digest


@pytest.mark.parametrize("setting", CODE)
def test_a_setting_of_the_program_does_not_matter(setting, usual):
    if setting == "fork" and not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    assert digests(CODE[setting]) == [usual] * TIMES.get(setting, 1)


@pytest.mark.parametrize("environment", ENVIRONMENT, ids=lambda each: "=".join(*each.items()))
def test_the_environment_does_not_matter(environment, usual):
    assert digests("show()", environment) == [usual]
