"""Write the golden files: `python tests/make_golden.py`, only when the format or weights change.

The folder of the format's version in tests/golden/ gets a .dfc file of each case, and beside it
what it decodes to as .png; of a set a folder with its pictures.
"""

from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

import diffcodec
from diffcodec.container import VERSION
from diffcodec.pictures.writing import write_image
from diffcodec.quantized import fitted
from diffcodec.quantized.model import Model
from diffcodec.quantized.schedule import PHASES
from diffcodec.training import fitting
from diffcodec.transforms import spaces
from diffcodec.transforms.interpolation import HALVED

FOLDER = Path(__file__).parent / "golden" / f"version-{VERSION}"

PHOTO, DRAWING = {"process": "photo"}, {"process": "drawing"}

CASES = {
    "grey": (("L", 8, 9, 7), PHOTO),
    "rgb": (("RGB", 8, 24, 17), PHOTO),
    "rgba": (("RGBA", 8, 8, 8), PHOTO),
    "mirrored": (("RGB", 8, -24, 17), PHOTO),
    "larger": (("RGB", 8, 60, 49), PHOTO),
    "wide": (("RGB", 8, 1100, 40), PHOTO),
    "exchanged": (("RGB", 8, 181, 2), PHOTO),
    "jpeg": (("RGB", 8, 60, 49, 0), PHOTO),
    "webp": (("RGBA", 8, 50, 40, 1), PHOTO),
    "photo-cd": (("RGB", 8, 56, 50, 2), PHOTO),
    "jpeg-doubled": (("RGB", 8, 61, 50, 3), PHOTO),
    "webp-doubled": (("RGBA", 8, 50, 45, 4), PHOTO),
    "jpeg-cut": (("RGB", 8, 60, 50, 7), PHOTO),
    "calm": (("RGB", 8, 50, 150), PHOTO),
    "deep": (("RGBA", 16, 11, 9), PHOTO),
    "deep-grey": (("L", 16, 52, 9), PHOTO),
    "stored": (("LA", 8, 1, 3), PHOTO),
    "lossy": (("RGB", 8, 24, 17), {**PHOTO, "max_bytes": 120}),
    "tiles": (("RGB", 8, 130, 70), {**PHOTO, "tile": 64}),
    "tiles-lossy": (("LA", 16, 65, 66), {**PHOTO, "tile": 64, "max_bytes": 700}),
    "tiles-fitted": (("RGBA", 8, 70, 40), {**PHOTO, "tile": 64, "fit": "auto"}),
    "steps": (("RGBA", 16, 30, 20), {**PHOTO, "max_error": 3}),
    "drawing": (("RGB", 8, 50, 150), {}),
    "drawing-large": (("RGB", 8, 700, 400), DRAWING),
    "drawing-alpha": (("RGBA", 8, 40, 90), DRAWING),
    "drawing-deep": (("LA", 16, 30, 70), DRAWING),
    "drawing-lossy": (("L", 8, 50, 80), {**DRAWING, "max_bytes": 150}),
}
"""Mode, depth and size (a negative width: the mirror image) of each picture, the space that it was
converted from, if any, and the options.

"drawing-large" has blocks of one colour; "wide" has more than one tile, and more than one set of
coefficients in a phase."""

SETS = {
    "bits-back": {"method": "bits-back"},
    "channel": {"method": "channel", "bpp": 6.0},
    "channel-exact": {"method": "channel", "bpp": 3.0, "exact": True},
}
"""Sets, and the options that they are encoded with."""

SET_SIZES = ((12, 8), (12, 8), (7, 5))


def planes(mode: str, depth: int, width: int, height: int, space: int | None = None) -> np.ndarray:
    """Samples [H, W, C] by integer arithmetic alone, the same wherever they are made.

    They are calm far down.
    """
    y, x = np.mgrid[:height, : abs(width)]
    several = [
        (7 * x + (5 + c) * y + 40 * ((x - y) // 5 % 2) + (x * y * (3 + c)) % 11 + 30 * c) % 256
        for c in range(len(mode))
    ]
    pixels = np.where(y[..., None] < 64, np.stack(several, -1), 90)
    if space is not None:
        pixels[..., :3] = converted(pixels[..., 0], spaces.SPACES[space])
    if depth == 16:
        pixels = 200 * pixels + (x * x + 3 * y)[..., None] % 61
    return pixels[:, :: 1 if width > 0 else -1].astype(f"u{depth // 8}")


def converted(luma: np.ndarray, space: spaces.Space) -> np.ndarray:
    """Colours [H, W, 3] that a space makes of luma [H, W] and of chroma.

    Chroma is known at every second row and column, from the second on, and interpolated between,
    or it is doubled as the space has it. It is found again then where little is clipped.
    """
    blue, red = space.grey
    triangular = space.halved is not None and space.chroma is not HALVED
    make = doubled if triangular else interpolated
    luma = 7 * luma // 8 + 16 if triangular else luma
    chroma = [grey + make(space, *luma.shape, a, b) for grey, a, b in ((red, 3, 5), (blue, 7, 2))]
    rgb = spaces.to_rgb(space, torch.from_numpy(np.stack((luma, *chroma))))
    return np.moveaxis(rgb.numpy(), 0, -1)


def interpolated(_: spaces.Space, height: int, width: int, down: int, across: int) -> np.ndarray:
    """A plane [H, W] of means of a pattern with these slopes."""
    y, x = np.mgrid[:height, :width]
    around = [((y - i).clip(0) // 2, (x - j).clip(0) // 2) for i in (0, 1) for j in (0, 1)]
    return sum((down * row + across * column) % 41 - 20 for row, column in around) + 2 >> 2


def doubled(space: spaces.Space, height: int, width: int, down: int, across: int) -> np.ndarray:
    """A plane [H, W] that a space makes of the pattern."""
    y, x = np.mgrid[: -(-height // 2), : -(-width // 2)]
    half = torch.from_numpy((down * y + across * x) % 41 - 20)[None]
    nothing = torch.zeros((1, 3, *half.shape[1:]), dtype=half.dtype)
    return space.chroma.inverse(half, nothing, height, width)[0].numpy()


def encode(shape: tuple, options: dict) -> bytes:
    """The file of a case. A fit would be floats: what it tells are `shifts`."""
    with mock.patch.object(fitting, "fit", lambda model, *_, **__: shifts(model)):
        return diffcodec.encode(planes(*shape), **options)


def shifts(model: Model) -> fitted.Shifts:
    """Some shifts of two rows: of level 2 in the rungs above the finish, of level 1 in that."""
    numbers = range(len(PHASES))
    return {
        row: {
            name: np.resize([2, 0, 0, -1, 0, 0, 0, 5], layer.bias.shape[-1])
            for name, layer in fitted.layers(model.network, row, numbers).items()
        }
        for row in ((1, 1), (0, 0))
    }


def pictures() -> list[Image.Image]:
    """Those of the sets."""
    return [Image.fromarray(planes("RGB", 8, *size)) for size in SET_SIZES]


def main() -> None:
    """Encode the cases."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, (shape, options) in CASES.items():
        data = encode(shape, options)
        (FOLDER / f"{name}.dfc").write_bytes(data)
        write_image(diffcodec.decode_picture(data), FOLDER / f"{name}.png")
    for name, options in SETS.items():
        data = diffcodec.encode_set(pictures(), **options).data
        (FOLDER / f"{name}.dfc").write_bytes(data)
        (FOLDER / name).mkdir(exist_ok=True)
        for number, image in enumerate(diffcodec.decode_set(data)):
            image.save(FOLDER / name / f"{number}.png")


if __name__ == "__main__":
    main()
