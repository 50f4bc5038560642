"""Write the golden files: `python tests/make_golden.py`, only when the format or weights change.

The folder of the format's version in tests/golden/ gets a .dfc of each picture, and beside it what
it decodes to as .png. Folders of earlier versions stay as they are, but for what the denoiser
shows of their lossy files.
"""

from pathlib import Path

import numpy as np
from PIL import Image

import diffcodec
from diffcodec.bitstream import QUANTISED, VERSIONS

FOLDER = Path(__file__).parent / "golden"
NEWEST = FOLDER / f"version-{VERSIONS[QUANTISED]}"

CASES = {
    "grey": (("L", 9, 7), {}),
    "rgb": (("RGB", 24, 17), {}),
    "rgba": (("RGBA", 8, 8), {}),
    "larger": (("RGB", 60, 49), {}),
    "exchanged": (("RGB", 181, 2), {}),
    "calm": (("RGB", 50, 150), {}),
    "lossy": (("RGB", 24, 17), {"max_bytes": 120}),
}
"""Mode and size of each picture, and the options that it is encoded with."""


def picture(mode: str, width: int, height: int) -> Image.Image:
    """Integer arithmetic alone, so that it is the same wherever it is made; calm far down."""
    y, x = np.mgrid[:height, :width]
    planes = [
        (7 * x + (5 + c) * y + 40 * ((x - y) // 5 % 2) + (x * y * (3 + c)) % 11 + 30 * c) % 256
        for c in range(len(mode))
    ]
    pixels = np.where(y[..., None] < 64, np.stack(planes, -1), 90)
    return Image.fromarray(pixels.astype(np.uint8).squeeze())


def main() -> None:
    """Encode the cases."""
    NEWEST.mkdir(parents=True, exist_ok=True)
    for name, (shape, options) in CASES.items():
        data = diffcodec.encode(picture(*shape), **options)
        (NEWEST / f"{name}.dfc").write_bytes(data)
        diffcodec.decode(data).save(NEWEST / f"{name}.png")
    for lossy in FOLDER.glob("*/lossy.dfc"):
        diffcodec.decode(lossy.read_bytes()).save(lossy.with_suffix(".png"))


if __name__ == "__main__":
    main()
