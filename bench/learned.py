"""Learned codecs by CompressAI, where the package and weights are at hand.

`python -m bench.learned` downloads the zoo's weights.
"""

import hashlib
import importlib.util
import struct
from abc import abstractmethod
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from bench import BenchError
from bench.codecs import FileCodec, MissingError, Setting, load

ZOO = {
    "bmshj2018-factorized": 8,
    "bmshj2018-hyperprior": 8,
    "mbt2018": 8,
    "cheng2020-anchor": 6,
    "cheng2020-attn": 6,
}
"""Models and how many qualities each has; they were trained for MSE."""

_STRIDE = 64  # the pixels that one hyperlatent stands for, along each side

_OWN = "bench-hyperprior-{}.pth"


@dataclass(frozen=True)
class Learned(FileCodec):
    """A file is what a decoder needs that has the weights.

    That is width, height, the number of the setting, and the model's strings with their lengths.
    """

    @abstractmethod
    def model(self, setting: Setting) -> Any:
        """The model of a setting, ready to compress."""

    def encode(self, image: Image.Image, setting: Setting) -> bytes:
        samples = np.asarray(image.convert("RGB"), np.float32) / 255
        bottom, right = -image.height % _STRIDE, -image.width % _STRIDE
        samples = np.pad(samples, ((0, bottom), (0, right), (0, 0)), mode="edge")
        torch = load("torch")
        with torch.inference_mode():
            planes = torch.from_numpy(samples.transpose(2, 0, 1).copy())[None]
            out = self.model(setting).compress(planes)
        strings = [part[0] for part in out["strings"]]
        header = struct.pack("<HHB", image.width, image.height, self.settings.index(setting))
        return header + b"".join(struct.pack("<I", len(part)) + part for part in strings)

    def decode(self, data: bytes) -> Image.Image:
        width, height, index = struct.unpack_from("<HHB", data)
        position, strings = struct.calcsize("<HHB"), []
        while position < len(data):
            (length,) = struct.unpack_from("<I", data, position)
            strings.append([data[position + 4 : position + 4 + length]])
            position += 4 + length
        # The last string's shape: the hyperlatents', or the latents' of a factorised model.
        stride = _STRIDE if len(strings) > 1 else 16
        shape = [(side + -side % _STRIDE) // stride for side in (height, width)]
        with load("torch").inference_mode():
            out = self.model(self.settings[index]).decompress(strings, shape)["x_hat"]
        samples = out[0, :, :height, :width].clamp(0, 1).mul(255).round().byte()
        return Image.fromarray(samples.permute(1, 2, 0).numpy())


@dataclass(frozen=True)
class CompressAI(Learned):
    """A model of the zoo; a setting is its quality, 1 to 6 or 8."""

    def version(self) -> str:
        package = load("compressai")
        urls = load("compressai.zoo.image").model_urls[self.name]["mse"]
        for quality in self.settings:  # `pretrained` would download what is not there
            if quality not in urls or not (_folder() / Path(urls[quality]).name).exists():
                raise MissingError(f"weights of quality {quality} are not in PyTorch's hub folder")
        return f"CompressAI {package.__version__}"

    def model(self, setting: Setting) -> Any:
        return _pretrained(self.name, int(setting))


@dataclass(frozen=True)
class TrainedHyperprior(Learned):
    """The models that `python -m bench.hyperprior` has trained; a setting is its lambda."""

    name: str = "hyperprior trained here"
    settings: tuple[Setting, ...] = field(default_factory=lambda: _trained(), repr=False)

    def version(self) -> str:
        package = load("compressai")
        if not self.settings:
            raise MissingError("no model was trained by python -m bench.hyperprior")
        weights = b"".join(own_weights(float(s)).read_bytes() for s in self.settings)
        digest = hashlib.sha256(weights).hexdigest()[:12]
        return f"CompressAI {package.__version__}, weights {digest}"

    def model(self, setting: Setting) -> Any:
        return _own(float(setting))


def own_weights(lmbda: float) -> Path:
    """Where the weights lie that `bench.hyperprior` trained for a lambda."""
    return _folder() / _OWN.format(f"{lmbda:g}")


def _folder() -> Path:
    return Path(load("torch").hub.get_dir(), "checkpoints")


def _trained() -> tuple[Setting, ...]:
    """The lambdas of the models that were trained here."""
    if importlib.util.find_spec("compressai") is None:
        return ()
    start, end = _OWN.split("{}")
    names = (path.name for path in _folder().glob(_OWN.format("*")))
    return tuple(sorted(float(name.removeprefix(start).removesuffix(end)) for name in names))


@lru_cache(maxsize=2)
def _pretrained(name: str, quality: int) -> Any:
    model = load("compressai.zoo").image_models[name](
        quality=quality, metric="mse", pretrained=True
    )
    model.eval().update()
    return model


@lru_cache(maxsize=2)
def _own(lmbda: float) -> Any:
    weights = load("torch").load(own_weights(lmbda), map_location="cpu", weights_only=True)
    model = load("compressai.models").ScaleHyperprior.from_state_dict(weights)
    model.eval().update(force=True)
    return model


@click.command()
def download() -> None:
    """Download the zoo's weights into PyTorch's hub folder.

    Raises BenchError where they cannot be had.
    """
    hub, urls = load("torch").hub, load("compressai.zoo.image").model_urls
    for name, qualities in ZOO.items():
        for quality in range(1, qualities + 1):
            url = urls[name]["mse"][quality]
            click.echo(f"{name}, quality {quality}")
            try:
                hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True)
            except OSError as error:
                raise BenchError(f"{url}: {error}") from error


if __name__ == "__main__":
    download()
