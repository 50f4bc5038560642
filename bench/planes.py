"""What peers would make of the integers that a picture was converted from.

It loads the transforms, and with them PyTorch, where it is used: timed peers must not have it.
"""

import struct
from dataclasses import dataclass

import numpy as np
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

        from diffcodec.transforms import origin
        from diffcodec.transforms.interpolation import INTERPOLATION
        from diffcodec.transforms.spaces import SPACES

        found = origin.find(np.ascontiguousarray(np.array(image).transpose(2, 0, 1)))
        if found is None:
            return bytes((255, 0)) + super().encode(image, setting)
        space, parts = SPACES[found.number], list(found.turned(found.planes))
        halves = False
        if space.chroma is not INTERPOLATION:
            chroma = torch.from_numpy(np.stack(parts[1:]).astype(np.int32))
            low, details = space.chroma.forward(chroma)
            if halves := torch.equal(low & 255, low):
                parts[1:] = [*low.numpy(), details.flatten(0, 2).numpy()]
        greys = (Image.fromarray((part & 255).astype(np.uint8)) for part in parts)
        files = [super(Planes, self).encode(grey, setting) for grey in greys]
        lengths = struct.pack(f"<{len(files)}I", *map(len, files))
        turns = 4 * halves + 2 * found.upwards + found.mirrored
        return bytes((found.number, turns)) + lengths + b"".join(files)

    def decode(self, data: bytes) -> Image.Image:
        import torch

        from diffcodec.transforms import spaces
        from diffcodec.transforms.origin import Origin

        number, turns = data[:2]
        if number == 255:
            return super().decode(data[2:])
        space = spaces.SPACES[number]
        count = 4 if turns & 4 else 3
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
        planes = np.stack(parts).astype(np.int32)
        origin = Origin(number, bool(turns & 2), bool(turns & 1), planes)
        rgb = spaces.to_rgb(space, torch.from_numpy(origin.turned(planes).copy())).numpy()
        return Image.fromarray(rgb.astype(np.uint8).transpose(1, 2, 0))
