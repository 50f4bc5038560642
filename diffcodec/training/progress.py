"""How long work tells what it has reached: a bar on a terminal, lines elsewhere."""

import sys
import time

from tqdm import tqdm

BAR_SECONDS, LINE_SECONDS = 1.0, 30.0
"""How often a bar changes, and how often there is a line."""


class Progress:
    """A share from 0 to 1 with a text."""

    def __init__(self) -> None:
        self._bar = tqdm(
            total=1.0, bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}", disable=None
        )
        self._last = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time to show something."""
        seconds = LINE_SECONDS if self._bar.disable else BAR_SECONDS
        return time.monotonic() - self._last >= seconds

    def show(self, done: float, text: str) -> None:
        """Show how much is done."""
        self._last = time.monotonic()
        if self._bar.disable:
            print(f"{min(1.0, done):.1%}, {text}", file=sys.stderr, flush=True)
        else:
            self._bar.n = min(1.0, done)
            self._bar.set_postfix_str(text)

    def say(self, line: str) -> None:
        """Print a line on standard output, wherever that goes."""
        self._bar.write(line)
        sys.stdout.flush()

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
