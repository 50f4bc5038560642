"""The state of a chain: which pixels are known, and what they have taught."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from diffcodec.absorbing import memory
from diffcodec.absorbing.grids import FINISH, border, phases
from diffcodec.absorbing.memory import Memory
from diffcodec.absorbing.model import Learnt, Model
from diffcodec.absorbing.samples import Byte, layout


@dataclass
class Truth:
    """What an encoder knows.

    Attributes:
        colours: of every pixel, by a number of the encoder's own, int32 [H, W].
        samples: the bytes of each such colour, uint8 [colours, bytes].
        met: the number that each has in the palette of the state; -1 if it is not there yet.
    """

    colours: NDArray[np.int32]
    samples: NDArray[np.uint8]
    met: NDArray[np.int32]


@dataclass
class State:
    """What is known of one picture.

    Attributes:
        height, width: in pixels.
        layout: the bytes of a pixel, in the order of the stream.
        learnt: what the picture has taught.
        memory: what followed which surroundings.
        image: colours by their numbers in the palette, -1 where masked and outside: with a border,
            int32 [height + 2 * border, width + 2 * border].
        masked: which pixels are not known, bool [height, width].
        palette: the bytes of each colour, uint8 [room, bytes], of which `met` has the numbers.
        truth: what an encoder knows.
        rung: the last grid that is known; None before the first.
    """

    height: int
    width: int
    layout: list[Byte]
    learnt: Learnt
    memory: Memory
    image: NDArray[np.int32]
    masked: NDArray[np.bool_]
    palette: NDArray[np.uint8]
    met: dict[bytes, int] = field(default_factory=dict)
    truth: Truth | None = None
    rung: int | None = None

    @classmethod
    def empty(cls, model: Model, mode: str, height: int, width: int, depth: int) -> "State":
        """Nothing known but the size, the mode and the bits per sample."""
        edge, own = 2 * border(height, width), layout(mode, depth)
        return cls(
            height,
            width,
            own,
            model.begin(height * width),
            memory.empty(height * width),
            np.full((height + edge, width + edge), -1, np.int32),
            np.ones((height, width), np.bool_),
            np.zeros((16, len(own)), np.uint8),
        )

    @classmethod
    def of_image(cls, model: Model, mode: str, planes: NDArray) -> "State":
        """The start of an encoder that knows the picture, uint8 or uint16 [C, H, W]."""
        height, width = planes.shape[1:]
        state = cls.empty(model, mode, height, width, 8 * planes.itemsize)
        samples = np.stack([planes[own.plane] >> own.shift & 255 for own in state.layout], -1)
        packed = np.zeros(planes.shape[1:], np.uint64)
        for number in range(len(state.layout)):
            packed = packed << np.uint64(8) | samples[..., number].astype(np.uint64)
        # Of a run one pixel is enough: there are few to sort then.
        begins = np.flatnonzero(np.diff(packed.ravel(), prepend=~packed[0, 0]))
        _, first, colours = np.unique(
            packed.ravel()[begins], return_index=True, return_inverse=True
        )
        first, colours = begins[first], np.repeat(colours, np.diff(begins, append=packed.size))
        flat = samples.reshape(-1, len(state.layout)).astype(np.uint8)
        state.truth = Truth(
            colours.reshape(packed.shape).astype(np.int32),
            flat[first],
            np.full(len(first), -1, np.int32),
        )
        return state

    @property
    def picture(self) -> NDArray[np.int32]:
        """The image without its border, [height, width]; a view."""
        edge = border(self.height, self.width)
        return self.image[edge : edge + self.height, edge : edge + self.width]

    def colour_of(self, samples: NDArray[np.uint8]) -> int:
        """The number of a colour with these bytes; a new one, if it was not met."""
        key = samples.tobytes()
        number = self.met.setdefault(key, len(self.met))
        if number == len(self.palette):
            self.palette = np.concatenate([self.palette, np.zeros_like(self.palette)])
        self.palette[number] = samples
        return number

    @property
    def rungs(self) -> list[int]:
        """Those that the chain has, downwards."""
        return [phase.rung for phase in phases(self.height, self.width) if phase.rung is not None]

    @property
    def finished(self) -> bool:
        """Whether the whole picture is known."""
        return self.rung == FINISH


def planes(state: State, depth: int) -> NDArray:
    """The picture, uint8 or uint16 [C, H, W]; masked pixels have the likeliest of the colours
    around them."""
    count = 1 + max(own.plane for own in state.layout)
    found = np.zeros((count, state.height, state.width), np.dtype(f"<u{depth // 8}"))
    if state.masked.all():
        return found + found.dtype.type(1 << depth - 1)
    colours = _filled(state)
    for number, own in enumerate(state.layout):
        values = state.palette[:, number].astype(found.dtype)
        found[own.plane] |= values[colours] << own.shift
    return found


def _filled(state: State) -> NDArray[np.int32]:
    """The picture with the colour that most of the nearest pixels have wherever it is masked."""
    image = state.picture.copy()
    for phase in phases(state.height, state.width):
        rows, columns = phase.pixels(image < 0)
        if not len(rows):
            continue
        if not phase.around:  # of the coarsest grid the commonest colour stands in
            known = image[image >= 0]
            image[rows, columns] = np.bincount(known).argmax()
            continue
        edge = phase.spacing
        bordered = np.pad(image, edge, constant_values=-1)
        near = np.stack([bordered[rows + edge + r, columns + edge + c] for r, c in phase.around])
        votes = [((near == one) & (one >= 0)).sum(0) for one in near]
        image[rows, columns] = np.take_along_axis(near, np.argmax(votes, 0)[None], 0)[0]
    return image
