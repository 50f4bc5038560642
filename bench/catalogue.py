"""Who is measured in which comparison; diffcodec comes first."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from bench.codecs import Codec, FileCodec, Progressive, Setting
from bench.jpeg2000 import RATES, Jpeg2000, Jpeg2000Embedded
from bench.jpegxl import Cjxl, PluginJpegXL, ProgressiveJpegXL
from bench.learned import ZOO, CompressAI, TrainedHyperprior
from bench.ours import NAME, WAYS, Diffcodec, DiffcodecPrefixes, DiffcodecShown
from bench.peers import (
    Heic,
    ImagecodecsCodec,
    JpegLsOfDifferences,
    PillowCodec,
    ProgressiveJpeg,
)
from bench.planes import Planes

SLOW = frozenset(
    {
        f"{NAME} fitted",
        f"{NAME} RGB",
        "JPEG XL e9 planes",
        "JPEG XL e10",
        "JPEG XL e9 g3 E3 I100",
        "AVIF s1 tune psnr",
        "AVIF s1 tune ssimulacra2",
    }
)
"""Measured where they are named, or all slow ones are asked for."""

_JPEG_QUALITIES = (5, 10, 20, 35, 55, 75, 86, 93, 97, 99)
_JPEG_KINDS = {"": {"optimize": True}, " progressive": {"progressive": True}}
_WEBP_QUALITIES = (1, 15, 35, 55, 75, 85, 90, 95, 98, 100)
_AVIF_QUALITIES = (10, 25, 40, 55, 67, 77, 86, 92, 96, 99)
_AVIF_KINDS: dict[str, dict[str, Any]] = {
    "": {},
    " tune psnr": {"advanced": {"tune": "psnr"}},
    " s1 tune psnr": {"speed": 1, "advanced": {"tune": "psnr"}},
    " s1 tune ssimulacra2": {"speed": 1, "advanced": {"tune": "ssimulacra2"}},
}
_JXL_QUALITIES = (5, 15, 30, 45, 60, 72, 82, 90, 95, 98)
_JXL_DISTANCES = (0.1, 0.2, 0.35, 0.6, 1.0, 1.6, 2.5, 4.0, 6.5, 10.0)

_FINE: Mapping[str, tuple[Setting, ...]] = {
    "AVIF": tuple(range(101)),
    "AVIF s1 tune ssimulacra2": tuple(range(101)),
    "JPEG XL": tuple(np.geomspace(25, 0.05, 200).round(3).tolist()),
    "WebP": tuple(range(101)),
    "HEIC": tuple(range(101)),
    "JPEG 2000 9/7": tuple((24 / np.geomspace(0.01, 16, 400)).round(3).tolist()),
    "JPEG 4:2:0 progressive": tuple(range(1, 101)),
}
"""Settings of those that are looked at, from the smallest file to the largest."""


def lossless_codecs() -> list[FileCodec]:
    """Codecs that make one lossless file."""
    return [
        Diffcodec(),
        Diffcodec(f"{NAME} fitted", fit="auto"),
        Diffcodec(f"{NAME} RGB", rgb=True),
        PillowCodec("PNG", format="PNG", feature="zlib", options={"optimize": True}),
        # Method 6 is smaller on photographs, the default on tiny pictures. Quality 100 on top
        # gains under 1 % on Kodak, for twenty times the time.
        PillowCodec("WebP", format="WEBP", feature="webp", options={"lossless": True}),
        PillowCodec(
            "WebP m6", format="WEBP", feature="webp", options={"lossless": True, "method": 6}
        ),
        Jpeg2000("JPEG 2000"),
        ImagecodecsCodec("JPEG-LS", format="jpegls"),
        JpegLsOfDifferences(),
        # It has differences of colours of its own: a transform before it adds 23 % on Kodak.
        ImagecodecsCodec("QOI", format="qoi"),
        *(
            ImagecodecsCodec(
                f"JPEG XL e{effort}",
                format="jpegxl",
                options={"lossless": True, "effort": effort, "numthreads": 1},
            )
            for effort in (7, 9, 10)
        ),
        Planes(
            "JPEG XL e9 planes",
            format="jpegxl",
            options={"lossless": True, "effort": 9, "numthreads": 1},
        ),
        *(PluginJpegXL(f"JPEG XL plugin e{effort}", effort=effort) for effort in (7, 9)),
        # Larger groups, three earlier channels in the trees' contexts, which learn from all pixels.
        Cjxl("JPEG XL e9 g3 E3 I100", options=("-e", "9", "-g", "3", "-E", "3", "-I", "100")),
    ]


def rd_codecs() -> list[Codec]:
    """Codecs over their range of rates."""
    return [
        DiffcodecPrefixes(rgb=True),
        DiffcodecPrefixes(name=f"{NAME} as converted"),
        Jpeg2000Embedded(),
        Jpeg2000("JPEG 2000 5/3", settings=(*RATES, 1)),  # 1 is lossless
        Jpeg2000("JPEG 2000 9/7", settings=RATES, irreversible=True),
        *(
            PillowCodec(
                f"JPEG {subsampling}{kind}",
                settings=_JPEG_QUALITIES,
                format="JPEG",
                feature="libjpeg_turbo",
                options={"subsampling": subsampling, **options},
            )
            for subsampling in ("4:4:4", "4:2:0")
            for kind, options in _JPEG_KINDS.items()
        ),
        PillowCodec(
            "WebP",
            settings=_WEBP_QUALITIES,
            format="WEBP",
            feature="webp",
            options={"method": 6},
        ),
        # From libavif 1.4 on its default is a tune for the eye, "iq". Three crops of Kodak: against
        # it, "psnr" saves 9.9 % at equal PSNR and "ssimulacra2" 1.8 % at equal SSIMULACRA 2; speed
        # 1 saves another 3.7 and 4.9 %, speed 0 another 0.5 %. 4:2:0 saves nothing by either.
        *(
            PillowCodec(
                f"AVIF{name}",
                settings=_AVIF_QUALITIES,
                format="AVIF",
                feature="avif",
                options={"speed": 4, "subsampling": "4:4:4", "max_threads": 1, **options},
            )
            for name, options in _AVIF_KINDS.items()
        ),
        Heic(),
        ImagecodecsCodec(
            "JPEG XL",
            settings=_JXL_DISTANCES,
            format="jpegxl",
            options={"effort": 7, "numthreads": 1},
            varies="distance",
        ),
        PluginJpegXL("JPEG XL plugin", settings=_JXL_QUALITIES),
        *(CompressAI(name, tuple(range(1, qualities + 1))) for name, qualities in ZOO.items()),
        TrainedHyperprior(),
    ]


def look_codecs() -> list[DiffcodecShown | FileCodec]:
    """diffcodec in all its ways of showing, and codecs that can be set to so many bytes."""
    peers = [c for c in rd_codecs() if isinstance(c, FileCodec) and c.name in _FINE]
    fine = {codec.name: replace(codec, settings=_FINE[codec.name]) for codec in peers}
    return [*map(DiffcodecShown, WAYS), *(fine[name] for name in _FINE)]


def progressive_codecs() -> list[Progressive]:
    """Codecs whose one file shows a picture before it has arrived."""
    return [
        DiffcodecPrefixes(),
        Jpeg2000Embedded(),
        ProgressiveJpegXL(0),
        ProgressiveJpegXL(1),
        ProgressiveJpeg(),
    ]
