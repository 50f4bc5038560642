"""Bytes that are still arriving: a source that is read as it delivers, a decoder that waits."""

from collections.abc import Callable
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from diffcodec.entropy import PROBABILITY_BITS, Bits, Probabilities, RangeDecoder

CHUNK = 1 << 16
"""Most bytes taken from a source at a time."""

GROWTH = 1 / 8
"""A decoder that has run dry tries again when the bytes have grown by so much."""


class Arrival:
    """What has arrived of a source, `data`, and whether that is all, `ended`.

    A source that can seek is a file, which is all there; it is read at once. Others (pipes,
    sockets, HTTP responses) are read by `read1`, or else `read`, as they deliver.
    """

    def __init__(self, source: bytes | BinaryIO) -> None:
        self.data, self.ended = b"", False
        if isinstance(source, bytes):
            self.data, self.ended = source, True
        elif source.seekable():
            self.data, self.ended = source.read(), True
        else:
            self._read: Callable[[int], bytes] = getattr(source, "read1", None) or source.read

    def wait_for(self, size: int) -> bytes:
        """Return all bytes so far, at least `size` unless the source ends before."""
        chunks, there = [self.data], len(self.data)
        while there < size and not self.ended:
            chunks.append(self._read(CHUNK))
            there += len(chunks[-1])
            self.ended = not chunks[-1]
        self.data = b"".join(chunks)
        return self.data


class ArrivingDecoder:
    """A coder that reads a stream while it arrives, and waits where it needs more.

    A range decoder wants its words at the outset. So each time the bytes have grown by GROWTH a
    new one takes the place of the old and reads again, without the network, the bits that the
    old one had read; their probabilities are kept for that, two bytes for each bit.

    Args: the source; where in it the stream starts and ends; what makes a decoder of a prefix of
    the stream.
    """

    def __init__(
        self, arrival: Arrival, start: int, end: int, decoder: Callable[[bytes], RangeDecoder]
    ) -> None:
        self._arrival, self._start, self._end = arrival, start, end
        self._new = decoder
        self._past: list[NDArray[np.uint16]] = []
        self._size = len(arrival.data)
        self._decoder = decoder(arrival.data[start:end])

    def code(self, probabilities: Probabilities, truth: Bits | None = None) -> Bits:
        """Read bits; fewer than asked for once the source has ended."""
        bits = self._decoder.code(probabilities)
        while len(bits) < len(probabilities) and not self._all_there:
            self._extend()
            bits = self._decoder.code(probabilities)
        if self._all_there:
            self._past.clear()
        else:
            self._past.append((probabilities * (1 << PROBABILITY_BITS)).astype(np.uint16))
        return bits

    @property
    def bits_used(self) -> float:
        """Information read so far, in bits."""
        return self._decoder.bits_used

    @property
    def ended(self) -> bool:
        """Whether the data ended before the bits that were asked for."""
        return self._decoder.ended

    @property
    def _all_there(self) -> bool:
        """Whether no bytes of the stream can follow those that the decoder has."""
        return self._size >= self._end or self._arrival.ended

    def _extend(self) -> None:
        target = min(self._end, self._size + max(1, int(GROWTH * self._size)))
        data = self._arrival.wait_for(target)
        self._size = len(data)
        self._decoder = self._new(data[self._start : self._end])
        if self._past:
            self._decoder.code(np.concatenate(self._past) / (1 << PROBABILITY_BITS))
