"""Streams that are read while they arrive: a source that delivers, a decoder that waits."""

from collections.abc import Callable
from typing import BinaryIO

import numpy as np

from diffcodec.entropy import Bits, Probabilities, RangeDecoder

CHUNK = 1 << 16
"""Most bytes taken from a source at a time."""

GROWTH = 1 / 32
"""A decoder that has run dry tries again when the bytes have grown by so much."""


class Source:
    """What a source has delivered, `data`, and whether that is all, `ended`.

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


class Stream:
    """The stream of a file whose source may still deliver: `size` bytes of it from `start` on."""

    def __init__(self, source: Source, start: int, size: int) -> None:
        self._source, self._start, self.size = source, start, size

    def wait_for(self, size: int) -> bytes:
        """Return what there is of the stream, at least `size` bytes unless there are no more."""
        end = self._start + self.size
        return self._source.wait_for(min(self._start + size, end))[self._start : end]


class StreamDecoder:
    """A range decoder that tracks, and waits where it needs more of the stream.

    Args: the stream; whether it ends with all that was coded, or is a prefix even when it is whole.
    """

    def __init__(self, stream: Stream, *, complete: bool) -> None:
        self._stream, self._complete = stream, complete
        data = stream.wait_for(0)
        self._there = len(data)
        self._decoder = RangeDecoder(data, complete=self._is_complete, track=True)

    def code(self, probabilities: Probabilities, truth: Bits | None = None) -> Bits:
        """Read bits; fewer than asked for once the stream has ended."""
        parts = [self._decoder.code(probabilities)]
        missing = probabilities[len(parts[0]) :]
        while len(missing) and self._extend():
            parts.append(self._decoder.code(missing))
            missing = missing[len(parts[-1]) :]
        return np.concatenate(parts)

    @property
    def bytes_used(self) -> int:
        """As of `RangeDecoder`."""
        return self._decoder.bytes_used

    @property
    def ended(self) -> bool:
        """Whether the stream ended before the bits that were asked for."""
        return self._decoder.ended

    @property
    def _is_complete(self) -> bool:
        return self._complete and self._there == self._stream.size

    def _extend(self) -> bool:
        """Go on with more of the stream; False if there is no more."""
        data = self._stream.wait_for(self._there + max(1, int(GROWTH * self._there)))
        if len(data) == self._there:
            return False
        self._there = len(data)
        self._decoder = self._decoder.resumed(data, complete=self._is_complete)
        return True
