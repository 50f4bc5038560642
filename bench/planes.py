"""What peers would make of the integers that a picture was converted from.

It loads the transforms, and with them PyTorch, where it is used: timed peers must not have it.
"""

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.codecs import Setting
from bench.peers import ImagecodecsCodec


@dataclass(frozen=True)
class Planes(ImagecodecsCodec):
    """Grey files of luma and chroma where a picture has other colours than RGB, as diffcodec does.

    Where chroma was doubled, of what it was doubled from, and of the differences from that. A
    file has the number of the space (255: none), how it is turned and whether chroma is of half the
    size, and each length and grey file.
    """

    def encode(self, image: Image.Image, setting: Setting) -> bytes:
        import torch

        from diffcodec.transforms import spaces
        from diffcodec.transforms.clipping import unclip
        from diffcodec.transforms.interpolation import HALVED, INTERPOLATION

        rgb = np.ascontiguousarray(np.array(image).transpose(2, 0, 1))
        found = spaces.find(rgb)
        if found is None:
            return bytes((255, 0)) + super().encode(image, setting)
        number, planes = found
        space, turn = spaces.SPACES[number], (False, False)
        if space.chroma is HALVED:
            turn = spaces.halved_from(planes[1:])
        planes = _turned(planes, *turn)
        if space.halved is not None:
            unclip(space, _turned(rgb, *turn), planes)
        parts = list(planes)
        halves = False
        if space.chroma is not INTERPOLATION:
            chroma = torch.from_numpy(np.stack(parts[1:]).astype(np.int32))
            low, details = space.chroma.forward(chroma)
            if halves := torch.equal(low & 255, low):
                parts[1:] = [*low.numpy(), details.flatten(0, 2).numpy()]
        greys = (Image.fromarray((part & 255).astype(np.uint8)) for part in parts)
        files = [super(Planes, self).encode(grey, setting) for grey in greys]
        lengths = struct.pack(f"<{len(files)}I", *map(len, files))
        return bytes((number, 4 * halves + 2 * turn[0] + turn[1])) + lengths + b"".join(files)

    def decode(self, data: bytes) -> Image.Image:
        import torch

        from diffcodec.transforms import spaces

        number, turn = data[:2]
        if number == 255:
            return super().decode(data[2:])
        space = spaces.SPACES[number]
        count = 4 if turn & 4 else 3
        lengths, start = struct.unpack_from(f"<{count}I", data, 2), 2 + 4 * count
        parts = []
        for length in lengths:
            parts.append(np.array(super().decode(data[start : start + length])))
            start += length
        if count == 4:
            low = torch.from_numpy(np.stack(parts[1:3]).astype(np.int32))
            details = torch.from_numpy(parts[3].astype(np.int32)).view(2, 3, *low.shape[1:])
            chroma = space.chroma.inverse(low, details, *parts[0].shape) & 255
            parts[1:] = chroma.numpy()
        planes = _turned(np.stack(parts), bool(turn & 2), bool(turn & 1))
        rgb = spaces.to_rgb(space, torch.from_numpy(planes.astype(np.int32)))
        return Image.fromarray(rgb.numpy().astype(np.uint8).transpose(1, 2, 0))


def _turned(planes: NDArray, upwards: bool, mirrored: bool) -> NDArray:
    planes = planes[:, ::-1] if upwards else planes
    return np.ascontiguousarray(planes[..., ::-1] if mirrored else planes)
