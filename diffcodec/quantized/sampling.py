"""Drawing what a stream leaves open from the model's conditionals.

Drawn as likely as they are, decisions add all the noise and all the texture that a picture may have
had. Drawn more likely than that, with a temperature below 1, they add the texture that the eye
expects and little else; chroma would only add blotches.
"""

from diffcodec.entropy import BitSampler, Coder

VISUAL_QUARTERS = (5, 12, 12)
"""`BitSampler.quarters` of Y, Co and Cg for what looks best: temperatures of 0.8 and 1/3."""


class Sampler(BitSampler):
    """Draws bits once a decoder has no more of them.

    Args: the seed; the decoder that comes first; whether the picture shall look best.
    """

    def __init__(
        self, seed: int | tuple[int, ...], first: Coder | None = None, *, visual: bool
    ) -> None:
        super().__init__(seed, first)
        self._visual = visual

    def begin(self, colour: int) -> None:
        """Take notice of the colour whose decisions follow."""
        if self._visual:
            self.quarters = VISUAL_QUARTERS[colour]
