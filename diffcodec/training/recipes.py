"""What is trained: the shapes of the networks, the crops, and what the bits of each count."""

from diffcodec.exact.networks import DenoiserShape, Expert, NoiseShape, StepShape
from diffcodec.quantized.features import FEATURES
from diffcodec.quantized.ladder import white
from diffcodec.quantized.pyramid import Process
from diffcodec.quantized.schedule import FINISH, LOW, PHASES, RUNGS
from diffcodec.training.data import Draw
from diffcodec.training.denoising import RUNG_ODDS
from diffcodec.training.objective import Emphasis

Recipe = tuple[tuple[Draw, Emphasis], ...]
"""Crops of one size serve the levels at which they have enough positions."""


def _networks(*blocks: tuple[int, int]) -> StepShape:
    """Networks with so many residual blocks at half and at full resolution.

    The finish has most of the bits, but is only one rung; the lossy rungs have the fewest bits,
    and are most.
    """
    experts = tuple(Expert(n, *own) for n, own in zip((1, 2, RUNGS - 3), blocks, strict=True))
    known = tuple(phase.known for phase in PHASES)
    return StepShape(
        features=FEATURES,
        known=known,
        outputs=6,
        levels=LOW,
        width=64,
        half_width=64,
        hidden=48,
        experts=experts,
    )


PHOTO_NETWORKS = _networks((10, 1), (7, 0), (3, 0))

THUMBNAIL_NETWORKS = _networks((12, 2), (8, 2), (4, 0))

DENOISER = DenoiserShape(rungs=len(RUNG_ODDS), levels=LOW, width=96, blocks=12)

GAUSSIAN_32 = NoiseShape(colours=3, outputs=3, widths=(128, 192, 256), blocks=(2, 3, 3))

GAUSSIAN_64 = NoiseShape(colours=3, outputs=3, widths=(48, 64, 96), blocks=(1, 2, 2))

EARLY_EDGES = {
    **dict.fromkeys(range(2, LOW), (-1, -1, 0, 0, 0, 0, 0, 0, 0)),
    LOW: (-1, -1, -1, 0, 0, 0, 0, 0, 0),
}
"""Luma's edges (HL and LH) and low band, a rung early from level 2 on; as `white` takes it."""

PHOTO_PROCESS = Process(white(EARLY_EDGES, highest={1: 9, 2: 9}), interpolated=2)
"""Of photographs luma's edges come early, as the eye prefers. Chroma is interpolated at the two
finest levels, where a wavelet's rounding would be noise of its own. These levels are trained on
small crops, which have no rung above the ninth (`PICTURES`)."""

THUMBNAIL_PROCESS = Process(white())
"""Thumbnails are for whole files: their error is white, and all colours have wavelets."""

THUMBNAIL = 32
"""The side of the pictures that the thumbnails' model is trained on."""

PICTURES: Recipe = (
    (
        Draw(
            128,
            16,
            half_chroma=0.3,
            smoothed=0.1,
            drawn=0.1,
            edited=0.2,
            resized=0.25,
            exchanged=0.5,
        ),
        Emphasis(
            {1: 1.0, 2: 0.35},
            {
                FINISH: (0.36, 1.0),
                2: (0.17, 1.0),
                3: (0.15, 1.2),
                4: (0.11, 1.5),
                5: (0.08, 2.0),
                6: (0.06, 2.5),
                7: (0.04, 3.0),
                8: (0.02, 3.0),
                9: (0.01, 3.0),
            },
        ),
    ),
    (
        Draw(512, 2, every=2, half_chroma=0.3, drawn=0.1, edited=0.2, resized=0.25, exchanged=0.5),
        Emphasis(
            {3: 0.15, 4: 0.06, 5: 0.03, LOW: 0.02},
            {
                FINISH: (0.06, 1.0),
                2: (0.06, 1.0),
                3: (0.08, 1.2),
                4: (0.10, 1.5),
                5: (0.12, 2.0),
                6: (0.13, 2.5),
                7: (0.13, 3.0),
                8: (0.12, 3.0),
                9: (0.09, 3.0),
                10: (0.06, 3.0),
                11: (0.03, 3.0),
                12: (0.02, 3.0),
            },
        ),
    ),
)
"""For pictures of any size. The weights favour coarse levels and high rungs, that is the prefixes,
which are a small part of the lossless file."""

THUMBNAILS: Recipe = (
    (
        Draw(THUMBNAIL, 32, grid=THUMBNAIL),
        Emphasis(
            {1: 1.0, 2: 0.33, 3: 0.1, 4: 0.04, 5: 0.02, LOW: 0.01},
            {
                FINISH: (0.30, 1.0),
                2: (0.13, 1.0),
                3: (0.12, 1.0),
                4: (0.11, 1.0),
                5: (0.10, 1.0),
                6: (0.08, 1.0),
                7: (0.06, 1.0),
                8: (0.04, 1.0),
                9: (0.025, 1.0),
                10: (0.015, 1.0),
                11: (0.01, 1.0),
                12: (0.01, 1.0),
            },
        ),
    ),
)
"""For very small pictures, of which the lossless file is all that counts."""
