"""The integers that a picture was converted from, where there are some, as they cost least."""

from typing import NamedTuple

from numpy.typing import NDArray

from diffcodec.transforms import spaces
from diffcodec.transforms.clipping import unclip
from diffcodec.transforms.interpolation import HALVED
from diffcodec.transforms.spaces import SPACES


class Origin(NamedTuple):
    """What a picture was converted from.

    Attributes:
        number: of its space, in SPACES.
        upwards, mirrored: whether rows, and columns, are to be coded in the opposite order, so that
            the first, the third and so on are those from which chroma was interpolated.
        planes: Y, Cr and Cb uint8 [3, H, W], in the picture's order.
    """

    number: int
    upwards: bool
    mirrored: bool
    planes: NDArray

    def turned(self, planes: NDArray) -> NDArray:
        """Planes [C, H, W] in the order in which they are to be coded, or back; a view."""
        down, across = (slice(None, None, -1 if turn else 1) for turn in self[1:3])
        return planes[:, down, across]


def find(rgb: NDArray, *, turned: bool = True) -> Origin | None:
    """The integers of which RGB uint8 [3, H, W] was made, if there are some for all pixels.

    `turned` says whether the picture may be coded in another order than its own.
    """
    found = spaces.find(rgb)
    if found is None:
        return None
    number, planes = found
    space, turns = SPACES[number], (False, False)
    if space.chroma is HALVED and turned:
        turns = spaces.halved_from(planes[1:])
    origin = Origin(number, *turns, planes)
    if space.halved is not None:
        unclip(space, origin.turned(rgb), origin.turned(planes))
    return origin
