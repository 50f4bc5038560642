"""The range decoder: bits from bytes, each with its probability."""

from collections.abc import Iterable

import numpy as np

ONE = 1 << 16
"""Probabilities are integers: multiples of 2^-16."""

_SHARES = 1 << 24
"""The interval is cut into so many parts, which the two values of a bit share."""


class RangeDecoder:
    """Reads bits from a stream.

    Args: the bytes; whether they are a whole lossless stream. If not, `read` returns only those
    bits that are the same whatever follows the bytes.
    """

    def __init__(self, stream: bytes, *, complete: bool) -> None:
        self._stream, self._complete = stream, complete
        self._position = 0  # of the next word of 32 bits
        self._width = (1 << 64) - 1  # of the interval of all numbers that give the bits read so far
        self._offset = 0  # of the stream's number in that interval
        self._take_word()
        self._take_word()
        self.ended = False

    def _take_word(self) -> None:
        word = self._stream[self._position : self._position + 4].ljust(4, b"\0")
        self._offset = self._offset << 32 | int.from_bytes(word, "big")
        self._position += 4

    def read(self, probabilities: Iterable[int]) -> np.ndarray:
        """Read bits with these probabilities of being 1, in ONE; fewer once the data have ended.

        Returns int64. Raises ValueError if no encoder writes such a stream.
        """
        bits: list[int] = []
        for probability in map(int, () if self.ended else probabilities):
            bit = self._read(probability)
            self.ended = not (self._complete or self._determined())
            if self.ended:
                break
            bits.append(bit)
        return np.array(bits, np.int64)

    def _read(self, probability: int) -> int:
        share = self._width // _SHARES
        zeros = 1 + (ONE - probability) * (_SHARES - 2) // ONE
        if self._complete and self._offset >= share * _SHARES:
            raise ValueError("The stream is corrupt.")
        bit = int(self._offset >= share * zeros)
        if bit:
            self._offset -= share * zeros
            self._width = share * (_SHARES - zeros)
        else:
            self._width = share * zeros
        if self._width < 1 << 32:
            self._width <<= 32
            self._take_word()
        return bit

    def _determined(self) -> bool:
        """Whether the number stays in the interval, whatever bytes follow."""
        missing = max(0, self._position - len(self._stream))
        return self._offset + (1 << 8 * missing) - 1 < self._width
