"""Write the golden files: `python tests/make_golden.py`, only when the format or weights change.

The folder of the format's version in tests/golden/ gets a .dfc file of each case, and beside it
what it decodes to as .png; of a set a folder with its pictures.
"""

from pathlib import Path

import numpy as np
from PIL import Image

import diffcodec
from diffcodec.container import VERSION
from diffcodec.pictures.images import write_image

FOLDER = Path(__file__).parent / "golden" / f"version-{VERSION}"

CASES = {
    "grey": (("L", 8, 9, 7), {}),
    "rgb": (("RGB", 8, 24, 17), {}),
    "rgba": (("RGBA", 8, 8, 8), {}),
    "mirrored": (("RGB", 8, -24, 17), {}),
    "larger": (("RGB", 8, 60, 49), {}),
    "wide": (("RGB", 8, 1100, 40), {}),
    "exchanged": (("RGB", 8, 181, 2), {}),
    "calm": (("RGB", 8, 50, 150), {}),
    "deep": (("RGBA", 16, 11, 9), {}),
    "deep-grey": (("L", 16, 52, 9), {}),
    "stored": (("LA", 8, 1, 3), {}),
    "lossy": (("RGB", 8, 24, 17), {"max_bytes": 120}),
}
"""Mode, depth and size (a negative width: the mirror image), and the options of each picture.

"wide" has more than one tile, and more than one set of coefficients in a phase."""

SETS = {"bits-back": {}, "channel": {"bpp": 6.0}}
"""The methods of sets, and the options that they are encoded with."""

SET_SIZES = ((12, 8), (12, 8), (7, 5))


def planes(mode: str, depth: int, width: int, height: int) -> np.ndarray:
    """Samples [H, W, C] by integer arithmetic alone, the same wherever they are made.

    They are calm far down.
    """
    y, x = np.mgrid[:height, : abs(width)]
    several = [
        (7 * x + (5 + c) * y + 40 * ((x - y) // 5 % 2) + (x * y * (3 + c)) % 11 + 30 * c) % 256
        for c in range(len(mode))
    ]
    pixels = np.where(y[..., None] < 64, np.stack(several, -1), 90)
    if depth == 16:
        pixels = 200 * pixels + (x * x + 3 * y)[..., None] % 61
    return pixels[:, :: 1 if width > 0 else -1].astype(f"u{depth // 8}")


def pictures() -> list[Image.Image]:
    """Those of the sets."""
    return [Image.fromarray(planes("RGB", 8, *size)) for size in SET_SIZES]


def main() -> None:
    """Encode the cases."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, (shape, options) in CASES.items():
        data = diffcodec.encode(planes(*shape), **options)
        (FOLDER / f"{name}.dfc").write_bytes(data)
        write_image(diffcodec.decode_picture(data), FOLDER / f"{name}.png")
    for method, options in SETS.items():
        data = diffcodec.encode_set(pictures(), method=method, **options).data
        (FOLDER / f"{method}.dfc").write_bytes(data)
        (FOLDER / method).mkdir(exist_ok=True)
        for number, image in enumerate(diffcodec.decode_set(data)):
            image.save(FOLDER / method / f"{number}.png")


if __name__ == "__main__":
    main()
