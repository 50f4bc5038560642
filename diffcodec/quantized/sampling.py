"""Drawing what a stream leaves open from the model's conditionals.

Drawn as likely as they are, decisions add all the noise and all the texture that a picture may have
had. Drawn more likely than that, with a temperature below 1, they add the texture that the eye
expects and little else; chroma would only add blotches, and alpha holes.
"""

from diffcodec.entropy import BitSampler, Coder
from diffcodec.quantized.schedule import FINISH
from diffcodec.quantized.step import FIT

VISUAL_QUARTERS = (5, 12, 12, 12)
"""`BitSampler.quarters` of Y, Co, Cg and alpha for what looks best: temperatures of 0.8 and 1/3."""

VISIBLE_RUNG = 4
"""The rung, at 8 bits, below which nothing more is drawn for them: nobody would see it."""

CERTAIN = 64
"""So many quarters draw what is likelier: fitted biases that are missing are as they were."""


class Sampler(BitSampler):
    """Draws bits once a decoder has no more of them.

    Args: the seed; the decoder that comes first; whether the picture shall look best.
    """

    def __init__(
        self, seed: int | tuple[int, ...], first: Coder | None = None, *, visual: bool
    ) -> None:
        super().__init__(seed, first)
        self._visual, self._last = visual, VISIBLE_RUNG if visual else FINISH

    def begin(self, colour: int) -> None:
        """Take notice of the colour whose decisions follow, as of `step.walk`."""
        if colour == FIT:
            self.quarters = CERTAIN
        elif self._visual:
            self.quarters = VISUAL_QUARTERS[colour]
        else:
            self.quarters = 4

    def visible(self, rung: int, extra_bits: int) -> bool:
        """Whether anything need be drawn below a rung of a picture with so many bits beyond 8."""
        return rung - extra_bits > self._last
