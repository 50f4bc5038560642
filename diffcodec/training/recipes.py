"""Recipes: all that decides what the weights of record become, in one place.

Shapes of networks, processes, crops and what their bits count, rates, pictures and budgets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from diffcodec.exact.networks import DenoiserShape, Expert, NoiseShape, StepShape
from diffcodec.quantized import model
from diffcodec.quantized.denoising import Config as DenoiserConfig
from diffcodec.quantized.features import FEATURES
from diffcodec.quantized.ladder import white
from diffcodec.quantized.pyramid import Process
from diffcodec.quantized.schedule import FINISH, LOW, PHASES, RUNGS
from diffcodec.training.converted import Conversion
from diffcodec.training.data import Draw
from diffcodec.training.denoising import RUNG_ODDS
from diffcodec.training.noise import Gaussian
from diffcodec.training.objective import Emphasis
from diffcodec.training.tasks import Codec, Denoiser, Task

Draws = Sequence[tuple[Draw, Emphasis]]
"""Crops, and what their bits count."""


@dataclass(frozen=True)
class Recipe:
    """How weights are made.

    Attributes:
        name: what users call it, and checkpoints and model cards.
        task: the network, its crops and its objective.
        data: the share of the crops that each folder of pictures has, by its name (`folders`).
            Those that are not there leave theirs to the others.
        calibration: the folders whose pictures set the ranges of the exact network's activations.
        rate: the highest learning rate from random weights.
        minutes: the budget if no other is given; of two cores of a CPU.
    """

    name: str
    task: Task[Any]
    data: Mapping[str, float]
    calibration: tuple[str, ...]
    rate: float
    minutes: float


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

LARGE_NETWORKS = replace(PHOTO_NETWORKS, width=128, half_width=128, hidden=96)

THUMBNAIL_NETWORKS = _networks((12, 2), (8, 2), (4, 0))

DENOISER_NETWORK = DenoiserShape(rungs=len(RUNG_ODDS), levels=LOW, width=96, blocks=12)

GAUSSIAN_32_NETWORK = NoiseShape(colours=3, outputs=3, widths=(128, 192, 256), blocks=(2, 3, 3))

GAUSSIAN_64_NETWORK = NoiseShape(colours=3, outputs=3, widths=(48, 64, 96), blocks=(1, 2, 2))

EARLY_EDGES = {
    **dict.fromkeys(range(2, LOW), (-1, -1, 0, 0, 0, 0, 0, 0, 0)),
    LOW: (-1, -1, -1, 0, 0, 0, 0, 0, 0),
}
"""Luma's edges (HL and LH) and low band, a rung early from level 2 on; as `white` takes it."""

PHOTO_PROCESS = Process(white(EARLY_EDGES, highest={1: 9, 2: 9}), interpolated=2)
"""Of photographs luma's edges come early, as the eye prefers. Chroma is interpolated at the two
finest levels, where a wavelet's rounding would be noise of its own. These levels are trained on
small crops, which have no rung above the ninth (`PHOTO_DRAWS`)."""

THUMBNAIL_PROCESS = Process(white())
"""Thumbnails are for whole files: their error is white, and all colours have wavelets."""

_FINEST_LEVELS = Emphasis(
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
)

_COARSE_LEVELS = Emphasis(
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
)

PHOTO_DRAWS = (
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
        _FINEST_LEVELS,
    ),
    (
        Draw(512, 2, every=2, half_chroma=0.3, drawn=0.1, edited=0.2, resized=0.25, exchanged=0.5),
        _COARSE_LEVELS,
    ),
)
"""For pictures of any size; crops of one size serve the levels at which they have enough positions.
The weights favour coarse levels and high rungs, that is the prefixes, which are a small part of
the lossless file."""

CONVERTED_DRAWS = tuple(
    (
        Draw(size, batch, every, drawn=0.1, edited=0.2, resized=0.25, conversion=how, uses=4),
        emphasis,
    )
    for how in Conversion
    for size, batch, every, emphasis in ((128, 16, 1, _FINEST_LEVELS), (512, 2, 4, _COARSE_LEVELS))
)
"""The same of what decoders of JPEG, WebP and Photo CD make RGB of."""

THUMBNAIL_DRAWS = (
    (
        Draw(32, 32, grid=32),
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

SIGNIFICAND = 8
"""Bits of the exact networks' activations: bfloat16 costs the codec next to nothing."""

PHOTOS = {"photos/cid22": 0.35, "photos/imagenet": 0.3, "photos/clic": 0.15, "photos/free": 0.2}
"""Photographs in about the shares that their pixels have."""

MOSAICS = {"cifar10/train_[01]*": 1.0}
"""Pictures of 32 x 32; the mosaic train_24 is held out, to validate on."""


def _photo(name: str, networks: StepShape, minutes: float, draws: Draws = PHOTO_DRAWS) -> Recipe:
    config = model.Config(
        networks, PHOTO_PROCESS.interpolated, prior=100, significand=SIGNIFICAND, side=0, yields=1
    )
    codec = Codec(
        config, PHOTO_PROCESS, draws, calibration=Draw(256, 8, conversion=draws[0][0].conversion)
    )
    return Recipe(name, codec, PHOTOS, calibration=("photos/cid22",), rate=3e-3, minutes=minutes)


PHOTO = _photo("photo", PHOTO_NETWORKS, 720)

PHOTO_LARGE = _photo("photo-large", LARGE_NETWORKS, 2880)
"""Four times the multiplications, for GPUs. It can start from the other's weights."""

CONVERTED = _photo("converted", PHOTO_NETWORKS, 240, CONVERTED_DRAWS)
"""For pictures that were converted from another space. It can start from `photo`'s weights."""

THUMBNAIL = Recipe(
    "thumbnail",
    Codec(
        model.Config(
            THUMBNAIL_NETWORKS,
            THUMBNAIL_PROCESS.interpolated,
            prior=300,  # so small a picture has few decisions to learn from
            significand=SIGNIFICAND,
            side=model.LARGEST_THUMBNAIL,
        ),
        THUMBNAIL_PROCESS,
        THUMBNAIL_DRAWS,
        calibration=Draw(32, 512, grid=32),
    ),
    MOSAICS,
    calibration=tuple(MOSAICS),
    rate=3e-3,
    minutes=240,
)

DENOISER = Recipe(
    "denoiser",
    Denoiser(
        DenoiserConfig(DENOISER_NETWORK, SIGNIFICAND),
        PHOTO_PROCESS,
        draws=(Draw(128, 8, half_chroma=0.3, resized=0.25),),
        calibration=Draw(128, 8),
    ),
    PHOTOS,
    calibration=("photos/cid22",),
    rate=2e-3,
    minutes=240,
)

GAUSSIAN_32 = Recipe(
    "gaussian-32",
    Gaussian(
        GAUSSIAN_32_NETWORK,
        draws=(Draw(32, 32, grid=32),),
        calibration=Draw(32, 64, grid=32),
    ),
    MOSAICS,
    calibration=tuple(MOSAICS),
    rate=1.5e-3,
    minutes=480,
)

GAUSSIAN_64 = Recipe(
    "gaussian-64",
    Gaussian(GAUSSIAN_64_NETWORK, draws=(Draw(64, 8),), calibration=Draw(64, 16)),
    PHOTOS,
    calibration=tuple(PHOTOS),
    rate=1.5e-3,
    minutes=120,
)

RECIPES = {
    recipe.name: recipe
    for recipe in (PHOTO, PHOTO_LARGE, CONVERTED, THUMBNAIL, DENOISER, GAUSSIAN_32, GAUSSIAN_64)
}


def named(name: str) -> Recipe:
    """A recipe by its name, or by that of a variation of it. Raises KeyError if there is none."""
    first, *options = name.split()
    recipe = RECIPES[first]
    return varied(recipe, dict(one.split("=", 1) for one in options)) if options else recipe


def varied(recipe: Recipe, options: Mapping[str, str]) -> Recipe:
    """A recipe of the Gaussian process with other options (`noise.Options`) by name.

    Raises ValueError for impossible ones, or if it is another recipe.
    """
    if not isinstance(recipe.task, Gaussian):
        raise ValueError(f"the recipe {recipe.name} has no options")
    name = " ".join([recipe.name, *(f"{key}={word}" for key, word in sorted(options.items()))])
    return replace(recipe, name=name, task=recipe.task.varied(options))
