"""The networks of the codec, and what they learn from: crops, and what the bits of each count."""

from diffcodec.quantized.objective import Emphasis
from diffcodec.quantized.schedule import FINISH, LOW
from diffcodec.training.data import Draw

Diet = tuple[tuple[Draw, Emphasis], ...]
"""Crops of one size serve the levels at which they have enough positions."""

BLOCKS = ((12, 4), (8, 3), (4, 0))
"""The depths of the trunks of `schedule.EXPERTS`: the finish has most of the bits, but is only one
rung; the lossy rungs have the fewest, and are most."""

THUMBNAIL_BLOCKS = ((12, 2), (8, 2), (4, 0))
"""The same of the thumbnails' model."""

INTERPOLATED = 2
"""At how many levels photographs' chroma is interpolated; thumbnails' has wavelets alone."""

THUMBNAIL = 32
"""The side of the pictures that the thumbnails' model is trained on."""

PICTURES: Diet = (
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

THUMBNAILS: Diet = (
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
