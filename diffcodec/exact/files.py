"""Model files: their form, their checks, the installed ones, and which of them a .dfc file needs.

A model file is a safetensors file. Its metadata hold three texts: `config`, JSON of the
forward process and the shape of everything; `card`, JSON for readers, which decides nothing; and
`digest`, over configuration and tensors. The first bytes of the digest are the model's id.

A *difference file* has a difference from an installed model, its base, in the place of tensors; its
configuration names the base by its digest. The digest in such a file is that of the whole model,
which is what `parse` gives of it.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save_file
from torch import Tensor

from diffcodec.errors import ModelError
from diffcodec.exact import backends, differences
from diffcodec.exact.differences import Difference
from diffcodec.paths import StrPath

WEIGHTS = Path(__file__).parent.parent / "weights"
"""The folder of the installed models."""

PHOTO, CONVERTED, THUMBNAIL, DRAWING, DENOISER, GAUSSIAN_32, GAUSSIAN_64 = (
    WEIGHTS / f"{name}.safetensors"
    for name in (
        *("photo", "converted", "thumbnail", "drawing"),
        *("denoiser", "gaussian-32", "gaussian-64"),
    )
)
"""The installed models."""

ID_BYTES = 4

_BASE, _DIFFERENCE = "base", "difference"
"""The field of the base's digest, and the only tensor, of a difference file."""

_DAMAGED = "The model file is damaged, or of another version of diffcodec."

Built = TypeVar("Built")

Shapes = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
"""Type and shape of each tensor."""


@dataclass(frozen=True)
class ModelFile:
    """What a model file holds.

    Attributes:
        config: as `config.to_json` makes it.
        card: what it was trained on, for how long, by which recipe, and what that gave.
        tensors: integers and tables.
    """

    config: dict[str, Any]
    card: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def id(self) -> bytes:
        """The first bytes of the digest, as they stand in the header of a .dfc file."""
        return bytes.fromhex(self.digest())[:ID_BYTES]

    def digest(self) -> str:
        """SHA-256 over configuration and tensors (names, types, shapes, contents), in hexadecimal.

        The configuration counts as JSON with sorted keys and without spaces.
        """
        text = json.dumps(self.config, sort_keys=True, separators=(",", ":"))
        state = hashlib.sha256(f"{text}\n".encode())
        for name in sorted(self.tensors):
            tensor = self.tensors[name].contiguous()
            state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            state.update(tensor.numpy().tobytes())
        return state.hexdigest()

    def check(self, shapes: Shapes) -> None:
        """Raise ModelError unless the tensors are exactly these, and their floats are finite."""
        for name in self.tensors.keys() ^ shapes.keys():
            what = "lacks" if name in shapes else "has an unknown tensor,"
            raise ModelError(f"The model file {what} {name}.")
        for name, (kind, shape) in shapes.items():
            tensor = self.tensors[name]
            if tensor.dtype != kind or tuple(tensor.shape) != shape:
                raise ModelError(
                    f"The tensor {name} of the model file has the wrong shape or type."
                )
            if kind.is_floating_point and not bool(tensor.isfinite().all()):
                raise ModelError(f"The tensor {name} of the model file is not finite.")

    def write(self, path: Path) -> None:
        """Write the file aside and put it in its place."""
        _write(path, self, self.digest())


def read(path: StrPath) -> bytes:
    """The bytes of a model file. Raises ModelError if there are none."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ModelError(f"The model file {path} cannot be read.") from error


def parse(content: bytes) -> ModelFile:
    """The model that the bytes of a model file or of a difference file hold.

    Raises ModelError if they are damaged, or the base of a difference is not installed.
    """
    file, digest = _stored(content)
    whole = _resolved(file) if _BASE in file.config else file
    if whole.digest() != digest:
        raise ModelError("The model file is damaged: its digest is another one.")
    return whole


def changed(base: ModelFile, difference: Difference, card: dict[str, Any]) -> ModelFile:
    """The model that differs so from another one."""
    return ModelFile(base.config, card, differences.added(base.tensors, difference))


def write_difference(
    path: Path, base: ModelFile, difference: Difference, card: dict[str, Any]
) -> None:
    """Write a difference file aside and put it in its place.

    Args: where to; the installed model; how the new model differs from it; the card of that.
    """
    tensors = {_DIFFERENCE: differences.pack(difference)}
    digest = changed(base, difference, card).digest()
    _write(path, ModelFile(_difference_config(base), card, tensors), digest)


def installed(digest: str) -> Path | None:
    """The installed model file whose digest begins so, in hexadecimal, if there is one."""
    for path in sorted(WEIGHTS.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("digest", "").startswith(digest):
                return path
    return None


def _write(path: Path, file: ModelFile, digest: str) -> None:
    """Write a file as it is, with the digest of the model that it stands for."""
    metadata = {
        "config": json.dumps(file.config),
        "card": json.dumps(file.card),
        "digest": digest,
    }
    aside = path.with_name(path.name + ".part")
    save_file({k: v.contiguous() for k, v in file.tensors.items()}, aside, metadata)
    aside.replace(path)


def _stored(content: bytes) -> tuple[ModelFile, str]:
    """What stands in a file, and the digest that it states."""
    try:
        metadata = _metadata(content)
        config, card = json.loads(metadata["config"]), json.loads(metadata["card"])
        if not isinstance(config, dict) or not isinstance(card, dict):
            raise TypeError
        return ModelFile(config, card, load(content)), metadata["digest"]
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ModelError(_DAMAGED) from error


def _resolved(file: ModelFile) -> ModelFile:
    """The model of a difference file."""
    digest, shapes = file.config[_BASE], {_DIFFERENCE: (torch.uint8, 1)}
    found = {name: (each.dtype, each.ndim) for name, each in file.tensors.items()}
    if not isinstance(digest, str) or found != shapes:
        raise ModelError(_DAMAGED)
    path = installed(digest)
    if path is None:
        raise ModelError(
            f"The model file is a difference from the model {digest[: 2 * ID_BYTES]}, which is not "
            "installed; install the version of diffcodec that made it."
        )
    base, _ = _stored(read(path))
    if _BASE in base.config:
        raise ModelError("The model file is a difference from another difference.")
    if file.config != _difference_config(base):
        raise ModelError(_DAMAGED)
    return changed(base, differences.unpack(file.tensors[_DIFFERENCE], base.tensors), file.card)


def _difference_config(base: ModelFile) -> dict[str, Any]:
    """The configuration of a difference file."""
    return {"process": base.config["process"], _BASE: base.digest()}


def loader(build: Callable[[ModelFile], Built]) -> Callable[[StrPath], Built]:
    """What loads a model file: `build` makes it, once for each content and device.

    What is returned raises ModelError if the file is missing or damaged, and what `build` raises.
    """

    @lru_cache(maxsize=8)
    def made(content: bytes, _: torch.device) -> Built:
        return build(parse(content))

    return lambda path: made(read(path), backends.device())


def _metadata(content: bytes) -> dict[str, str]:
    """The texts in the header of a safetensors file."""
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    if not isinstance(metadata, dict):
        raise TypeError
    return metadata


def process(path: StrPath) -> str:
    """The forward process that a model file names. Raises ModelError if it cannot be read."""
    try:
        return str(dict(json.loads(_metadata(read(path))["config"])).get("process"))
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(_DAMAGED) from error


def find(wanted: bytes) -> Path:
    """The installed model file with this id; raises ModelError if there is none."""
    path = installed(wanted.hex())
    if path is not None:
        return path
    raise ModelError(
        f"The file needs the model {wanted.hex()}, which is not installed; "
        "name its file, or install the version of diffcodec that made the file."
    )


def check(made_with: bytes, found: bytes, path: StrPath) -> None:
    """Raise ModelError unless a model file that the user names is the one a file was made with."""
    if found != made_with:
        raise ModelError(
            f"The file was made with the model {made_with.hex()}, but {path} holds {found.hex()}."
        )
