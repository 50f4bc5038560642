"""What others have published of the 24 pictures of Kodak: stated beside the measured, never mixed.

`stated.json` has the figures, each with its source: of lossless files the bytes of all, or the mean
bits/dim; of lossy ones mean curves.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_suffix(".json")

KODAK = frozenset(f"kodim{number:02}" for number in range(1, 25))

_SAMPLES = len(KODAK) * 768 * 512 * 3


def of_lossless(names: Iterable[str]) -> list[dict[str, Any]]:
    """Name, bits/dim, bytes and source of each codec; none unless the pictures are Kodak's 24."""
    if not is_kodak(names):
        return []
    rows: list[dict[str, Any]] = json.loads(_FILE.read_text())["lossless"]
    for row in rows:
        row.setdefault("bytes", None)
        row.setdefault("bits_per_dim", 8 * (row["bytes"] or 0) / _SAMPLES)
    return rows


def of_rates(names: Iterable[str]) -> list[dict[str, Any]]:
    """Name, source, and lists of bpp, PSNR and MS-SSIM; none unless all pictures are Kodak's."""
    if not _stems(names) <= KODAK:
        return []
    curves: list[dict[str, Any]] = json.loads(_FILE.read_text())["rd"]
    return curves


def is_kodak(names: Iterable[str]) -> bool:
    """Whether pictures of these file names are the 24 of Kodak."""
    return _stems(names) == KODAK


def _stems(names: Iterable[str]) -> set[str]:
    return {Path(name).stem for name in names}
