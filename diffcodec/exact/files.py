"""Model files: where they lie, what is in them, and which one a .dfc file needs."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from diffcodec.errors import ModelError

WEIGHTS = Path(__file__).parent.parent / "weights"
"""The folder of the installed models."""

ID_BYTES = 4


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and contents of the tensors, in hexadecimal."""
    state = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        state.update(tensor.numpy().tobytes())
    return state.hexdigest()


def model_id(tensors: Mapping[str, Tensor]) -> bytes:
    """The first bytes of the digest, as they stand in a file's header."""
    return bytes.fromhex(digest(tensors))[:ID_BYTES]


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file. Raises ModelError if it is missing or damaged."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"The model file {path} cannot be read.") from error


def find(wanted: bytes) -> Path:
    """The installed model file with this id; raises ModelError if there is none."""
    for path in sorted(WEIGHTS.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            card = json.loads((file.metadata() or {}).get("card", "{}"))
        if card.get("digest", "").startswith(wanted.hex()):
            return path
    raise ModelError(
        f"The file needs the model {wanted.hex()}, which is not installed; "
        "name its file, or install the version of diffcodec that made the file."
    )


def check(made_with: bytes, held: bytes, path: Path) -> None:
    """Raise ModelError unless a model file that the user names is the one a file was made with."""
    if held != made_with:
        raise ModelError(
            f"The file was made with the model {made_with.hex()}, but {path} holds {held.hex()}."
        )
