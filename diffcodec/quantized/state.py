"""The state of a chain: what the decoder knows of a picture before a step."""

import copy
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from diffcodec.quantized import cells
from diffcodec.quantized.corrections import Corrections
from diffcodec.quantized.fitted import Fitted
from diffcodec.quantized.pyramid import Pyramid
from diffcodec.quantized.schedule import CHANNELS, LOW, Phase, phases


@dataclass
class State:
    """What is known of one picture: three colours, or one for grey and for alpha.

    `floors` and `planes` hold for each level the cells of its coefficients, int32 [1, 9, h, w]
    and [1, 9, 1, 1]; after a cut inside a step the planes differ from position to position.
    `rungs` is the last rung that each level has completed; `significant` the levels with a
    significant coefficient. `values` are the exact coefficients, which the encoder knows; `low`
    is the low band that level `low_level` of a rung works on; `corrections` are those that the
    chain has learnt so far; `fitted` is the network as the stream changes it, if it does.
    """

    pyramid: Pyramid
    colours: int
    corrections: Corrections
    floors: dict[int, Tensor]
    planes: dict[int, Tensor]
    rungs: dict[int, int]
    low: Tensor
    low_level: int = LOW
    values: dict[int, Tensor] | None = None
    significant: set[int] = field(default_factory=set)
    fitted: Fitted | None = None

    @classmethod
    def empty(cls, pyramid: Pyramid, colours: int, corrections: Corrections) -> "State":
        """Nothing known but the size and the bits per sample."""
        levels = pyramid.coarse_to_fine
        return cls(
            pyramid,
            colours,
            corrections,
            floors={
                level: torch.zeros(
                    (1, CHANNELS, *pyramid.size(level)), dtype=torch.int32, device="cpu"
                )
                for level in levels
            },
            planes={level: pyramid.planes(pyramid.top, level) for level in levels},
            rungs=dict.fromkeys(levels, pyramid.top),
            low=pyramid.no_low(),
        )

    @classmethod
    def of_image(cls, pyramid: Pyramid, planes: Tensor, corrections: Corrections) -> "State":
        """The start of an encoder that knows the picture, integers [1 or 3, H, W]."""
        state = cls.empty(pyramid, len(planes), corrections)
        state.values = pyramid.analyse(planes.expand(3, -1, -1)[None])
        return state

    def clone(self) -> "State":
        """A copy from which the chain can go on on its own; tensors are shared, as none changes."""
        return replace(
            self,
            corrections=self.corrections.clone(),
            floors=dict(self.floors),
            planes=dict(self.planes),
            rungs=dict(self.rungs),
            significant=copy.copy(self.significant),
            fitted=copy.copy(self.fitted),
        )

    def advance(self, rung: int) -> None:
        """Let an encoder's state know all that the rungs down to this one say."""
        assert self.values is not None
        for level, values in self.values.items():
            floors, planes = self.pyramid.cells_at(values, rung, level)
            self.floors[level], self.planes[level], self.rungs[level] = floors, planes, rung
            if bool(floors.any()):
                self.significant.add(level)

    def refine_low(self, level: int) -> None:
        """Make `low` that of a level, all of whose coarser ones have completed the rung."""
        while self.low_level != level:
            at = self.low_level
            known = cells.reconstruct(self.floors[at], self.planes[at])
            self.low = self.pyramid.finer_low(self.low, at, known)
            finer = self.pyramid.finer(at)
            assert finer is not None
            self.low_level = finer

    def phases(self) -> list[tuple[int, Phase]]:
        """The phases of a step with their numbers."""
        return phases(self.colours)
