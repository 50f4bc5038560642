"""The state of a chain: what the decoder knows of a picture before a step."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffcodec.quantized import chain
from diffcodec.quantized.adaptation import Adaptation
from diffcodec.quantized.calibration import Calibration
from diffcodec.quantized.chain import Geometry, plane_tensor
from diffcodec.quantized.schedule import CHANNELS, DEPTH, LOW, PHASES, TOP_RUNG, Phase


@dataclass
class State:
    """What is known of one picture: three colours, or one for grey and for alpha.

    `floors` and `planes` hold for each level the cells of its coefficients, int32 [1, 9, h, w]
    and [1, 9, 1, 1]; after a cut inside a step the planes differ from position to position.
    `rungs` is the last rung that each level has completed; `awake` the levels with a
    significant coefficient. `values` are the exact coefficients, which the encoder knows; `low`
    is the low band that the next level of the rung works on.
    """

    geometry: Geometry
    colours: int
    floors: dict[int, Tensor]
    planes: dict[int, Tensor]
    rungs: dict[int, int]
    low: Tensor
    values: dict[int, Tensor] | None = None
    awake: set[int] = field(default_factory=set)
    calibration: Calibration = field(default_factory=Calibration)
    adaptation: Adaptation = field(default_factory=Adaptation)

    @classmethod
    def empty(
        cls,
        height: int,
        width: int,
        colours: int,
        depth: int = DEPTH,
        interpolated: int = 0,
    ) -> "State":
        """Nothing known but the size and the bits per sample.

        `interpolated` is the number of levels at which the model has chroma interpolated.
        """
        geometry, top = Geometry(height, width, depth, interpolated), TOP_RUNG + depth - DEPTH
        levels = [LOW, *range(1, geometry.levels + 1)]
        return cls(
            geometry,
            colours,
            floors={
                level: torch.zeros((1, CHANNELS, *geometry.size(level)), dtype=torch.int32)
                for level in levels
            },
            planes={level: plane_tensor(top, level, geometry.levels) for level in levels},
            rungs=dict.fromkeys(levels, top),
            low=geometry.no_low(),
        )

    @classmethod
    def of_image(cls, planes: Tensor, depth: int = DEPTH, interpolated: int = 0) -> "State":
        """The start of an encoder that knows the picture, integers [1 or 3, H, W]."""
        colours, height, width = planes.shape
        state = cls.empty(height, width, colours, depth, interpolated)
        state.values = chain.analyse(planes.expand(3, -1, -1)[None], depth, interpolated)
        return state

    def advance(self, rung: int) -> None:
        """Tell an encoder's state all that the rungs down to this one tell."""
        assert self.values is not None
        for level, values in self.values.items():
            floors, planes = chain.cells_at(values, rung, level, self.geometry.levels)
            self.floors[level], self.planes[level], self.rungs[level] = floors, planes, rung
            if bool(floors.any()):
                self.awake.add(level)

    def phases(self) -> list[tuple[int, Phase]]:
        """The phases of a step with their numbers; grey pictures have none of colour."""
        return [(i, phase) for i, phase in enumerate(PHASES) if phase.colour < self.colours]
