"""What the versions of the format differ in, as far as the stream goes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """How a stream corrects the model's conditionals by what it has told already.

    Attributes:
        ordered: whether the bins of `Calibration` are in order.
        memory: what is left of the counts of `Calibration` after each further set of decisions.
        adaptive: whether means are corrected (`Adaptation`).
    """

    ordered: bool
    memory: float
    adaptive: bool


RULES = {
    1: Rules(ordered=False, memory=15 / 16, adaptive=False),
    2: Rules(ordered=True, memory=63 / 64, adaptive=True),
}

NEWEST = max(RULES)
