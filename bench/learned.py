"""Learned codecs of CompressAI's zoo, where the package and its weights are at hand."""

import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.codecs import FileCodec, MissingError, Setting, load

_STRIDE = 64  # the pixels that one hyperlatent stands for, along each side


@dataclass(frozen=True)
class CompressAI(FileCodec):
    """A model of the zoo that was trained for MSE; a setting is its quality, 1 to 6 or 8.

    A file is what a decoder needs that has the weights: width, height, quality, and the model's
    strings with their lengths.
    """

    def version(self) -> str:
        package = load("compressai")
        urls = load("compressai.zoo.image").model_urls[self.name]["mse"]
        folder = Path(load("torch").hub.get_dir(), "checkpoints")
        for quality in self.settings:  # `pretrained` would download what is not there
            if quality not in urls or not (folder / Path(urls[quality]).name).exists():
                raise MissingError(f"weights of quality {quality} are not in PyTorch's hub folder")
        return f"CompressAI {package.__version__}"

    def encode(self, image: Image.Image, setting: Setting) -> bytes:
        samples = np.asarray(image.convert("RGB"), np.float32) / 255
        bottom, right = -image.height % _STRIDE, -image.width % _STRIDE
        samples = np.pad(samples, ((0, bottom), (0, right), (0, 0)), mode="edge")
        torch = load("torch")
        with torch.inference_mode():
            planes = torch.from_numpy(samples.transpose(2, 0, 1).copy())[None]
            out = _model(self.name, int(setting)).compress(planes)
        strings = [part[0] for part in out["strings"]]
        header = struct.pack("<HHB", image.width, image.height, int(setting))
        return header + b"".join(struct.pack("<I", len(part)) + part for part in strings)

    def decode(self, data: bytes) -> Image.Image:
        width, height, quality = struct.unpack_from("<HHB", data)
        position, strings = struct.calcsize("<HHB"), []
        while position < len(data):
            (length,) = struct.unpack_from("<I", data, position)
            strings.append([data[position + 4 : position + 4 + length]])
            position += 4 + length
        # The last string's shape: the hyperlatents', or the latents' of a factorised model.
        stride = _STRIDE if len(strings) > 1 else 16
        shape = [(side + -side % _STRIDE) // stride for side in (height, width)]
        with load("torch").inference_mode():
            out = _model(self.name, quality).decompress(strings, shape)["x_hat"]
        samples = out[0, :, :height, :width].clamp(0, 1).mul(255).round().byte()
        return Image.fromarray(samples.permute(1, 2, 0).numpy())


@lru_cache(maxsize=2)
def _model(name: str, quality: int) -> Any:
    model = load("compressai.zoo").image_models[name](
        quality=quality, metric="mse", pretrained=True
    )
    model.eval().update()
    return model
