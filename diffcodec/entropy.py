"""Entropy coding: the only module that knows constriction.

A coder has one method, `code(probabilities, truth)`: the encoder writes the true bits and
returns them, the decoder ignores `truth` and returns what it reads. So one function describes a
stream for both sides. Range coding is first-in first-out, so a prefix of the bytes decodes to a
prefix of the bits.
"""

import math
from typing import Protocol

import constriction
import numpy as np
from numpy.typing import NDArray

from diffcodec.errors import CorruptError, FormatError

PROBABILITY_BITS = 16
"""Probabilities are multiples of 2^-16, exactly representable and never 0 or 1."""

MARGIN_BITS = 24
"""Bits at the end of a prefix that are not trusted: they may belong to an unfinished symbol."""

RESERVE_WORDS = 1 << 16
"""Words of 32 random bits at the bottom of a stack."""

_RESERVE_KEY = 0xD1FC
_BERNOULLI = constriction.stream.model.Bernoulli(perfect=False)
_WORD = np.dtype(">u4")

Bits = NDArray[np.int32]
Probabilities = NDArray[np.float64]


def quantise_probabilities(numerator: NDArray, denominator: NDArray) -> Probabilities:
    """numerator / denominator of non-negative integers below 2^53, to PROBABILITY_BITS.

    An empty denominator gives one half. Division of such integers is rounded in one way only,
    so the result is the same on every machine.
    """
    one = 1 << PROBABILITY_BITS
    safe = np.maximum(denominator, 1).astype(np.float64)
    ratio = np.where(denominator > 0, numerator / safe, 0.5)
    return np.clip(np.rint(ratio * one), 1, one - 1) / one


class Coder(Protocol):
    """What the description of a stream needs of either side."""

    def code(self, probabilities: Probabilities, truth: Bits | None) -> Bits:
        """Pass bits, each with its probability of being 1; float64 and int32 [n].

        A decoder returns fewer than n bits when its data end; from then on it returns none.
        """


class RangeEncoder:
    """Writes bits; `bits_used` tells how much of the stream the bits so far determine."""

    def __init__(self) -> None:
        self._encoder = constriction.stream.queue.RangeEncoder()

    def code(self, probabilities: Probabilities, truth: Bits | None) -> Bits:
        """Write the true bits."""
        assert truth is not None
        self._encoder.encode(truth, _BERNOULLI, probabilities)
        return truth

    @property
    def bits_used(self) -> float:
        """Information written so far, in bits."""
        words, (_, width) = self._encoder.pos()
        return 32 * words + 64 - math.log2(width)

    def to_bytes(self) -> bytes:
        """The shortest stream that tells these bits, most significant byte first.

        Any number in the last interval of the coder does; this is the one with most zeros at its
        end, which are implied.
        """
        words, (lower, width) = self._encoder.pos()
        data = self._encoder.get_compressed().astype(_WORD).tobytes().ljust(4 * (words + 2), b"\0")
        # constriction's own choice lies above the lower edge, of which the state has the end.
        chosen = int.from_bytes(data)
        edge = chosen - (chosen - lower) % (1 << 64)
        for zeros in reversed(range(8)):
            number = -(-edge >> 8 * zeros) << 8 * zeros
            if number < edge + width:
                break
        return number.to_bytes(len(data)).rstrip(b"\0")


class RangeDecoder:
    """Reads bits from a whole stream or from a prefix of one.

    Args:
        data: the bytes.
        complete: whether they are all of the stream. If not, `code` returns only what the bytes
            determine.
        track: whether `bits_used` is wanted, which costs a second pass; a prefix needs it anyway.

    Raises CorruptError from `code` if the bytes of a complete stream cannot be decoded.
    """

    def __init__(self, data: bytes, *, complete: bool, track: bool = False) -> None:
        # The encoder has cut off zeros. It ends close above the lower edge of the last interval,
        # so ones for what a prefix lacks stay inside, where zeros might fall short of it.
        padded = data + (b"\0" if complete else b"\xff") * (-len(data) % 4 + 8)
        words = np.frombuffer(padded, _WORD).astype(np.uint32)
        self._decoder = constriction.stream.queue.RangeDecoder(words)
        self._limit = None if complete else 8 * len(data) - MARGIN_BITS
        self._shadow = RangeEncoder() if track or not complete else None
        self._ended = False

    def code(self, probabilities: Probabilities, truth: Bits | None = None) -> Bits:
        """Read bits; fewer than asked for once the data have ended."""
        if self._ended or len(probabilities) == 0:
            return np.empty(0, np.int32)
        if self._limit is None:
            try:
                bits = self._decoder.decode(_BERNOULLI, probabilities)
            except AssertionError as error:
                raise CorruptError("The stream is corrupt.") from error
        else:
            bits = self._decode_prefix(probabilities)
        if self._shadow is not None:
            before, read = self._shadow.bits_used, probabilities[: len(bits)]
            self._shadow.code(read, bits)
            after = self._shadow.bits_used
            if self._limit is not None and len(bits) and after > self._limit:
                bits = bits[: _count_within(bits, read, before, after, self._limit)]
        self._ended = len(bits) < len(probabilities)
        return bits

    @property
    def bits_used(self) -> float:
        """Information read so far, in bits; needs `track`, or a prefix that has not ended."""
        assert self._shadow is not None
        return self._shadow.bits_used

    @property
    def ended(self) -> bool:
        """Whether the data ended before the bits that were asked for."""
        return self._ended

    def _decode_prefix(self, probabilities: Probabilities) -> Bits:
        """Decode up to where garbage after the end first makes constriction refuse."""
        if len(probabilities) == 0:
            return np.empty(0, np.int32)
        start = self._decoder.clone()
        try:
            return self._decoder.decode(_BERNOULLI, probabilities)
        except AssertionError:
            self._decoder = start
            half = len(probabilities) // 2
            first = self._decode_prefix(probabilities[:half])
            if len(first) < half or half == 0:
                return first
            return np.concatenate([first, self._decode_prefix(probabilities[half:])])


class Stack:
    """Bits on a stack, for bits-back coding: the last ones pushed are the first ones popped.

    Below whatever is pushed lies a reserve of random words, the same on every machine, so that
    there is something to pop at first. The bytes of a stack leave out what nobody has touched.
    """

    def __init__(self) -> None:
        self._reserve = np.random.Philox(_RESERVE_KEY).random_raw(RESERVE_WORDS) >> 32
        self._coder = constriction.stream.stack.AnsCoder(self._reserve.astype(np.uint32), seal=True)

    @classmethod
    def from_bytes(cls, data: bytes, untouched: int) -> "Stack":
        """A stack from its bytes and the number of words that these leave out.

        Raises CorruptError if no stack has such bytes.
        """
        stack = cls()
        words = np.frombuffer(data + b"\0" * (-len(data) % 4), _WORD)
        if untouched > RESERVE_WORDS or not (len(words) and words[-1]):
            raise CorruptError("The stream is corrupt.")
        stack._coder = constriction.stream.stack.AnsCoder(
            np.concatenate([stack._reserve[:untouched], words]).astype(np.uint32)
        )
        return stack

    def push(self, bits: Bits, probabilities: Probabilities) -> None:
        """Push bits, each with its probability of being 1."""
        self._coder.encode_reverse(bits, _BERNOULLI, probabilities)

    def pop(self, probabilities: Probabilities) -> Bits:
        """Pop as many bits as there are probabilities; they come in the order of `push`."""
        return self._coder.decode(_BERNOULLI, probabilities)

    @property
    def bits(self) -> int:
        """Size of the whole stack, the reserve included."""
        return self._coder.num_valid_bits()

    @property
    def is_fresh(self) -> bool:
        """Whether everything that was pushed has been popped, and nothing else."""
        words = self._coder.clone().get_compressed()
        return len(words) == RESERVE_WORDS + 1 and bool((words[:-1] == self._reserve).all())

    def to_bytes(self) -> tuple[bytes, int]:
        """What was pushed, and how many words of the reserve are untouched below it.

        Raises FormatError if the reserve was too small.
        """
        words = self._coder.get_compressed()
        shared = min(len(words) - 1, RESERVE_WORDS)
        changed = (words[:shared] != self._reserve[:shared]).nonzero()[0]
        untouched = int(changed[0]) if len(changed) else shared
        if untouched == 0:
            raise FormatError("The pictures are too large for bits-back coding.")
        return words[untouched:].astype(_WORD).tobytes(), untouched


class BitSampler:
    """Draws bits from their probabilities, once a decoder has no more of them.

    Args: seed of the drawn bits, the same on every machine; the decoder that comes first.
    """

    def __init__(self, seed: int, first: Coder | None = None) -> None:
        self._random = np.random.Generator(np.random.PCG64(seed))
        self._first = first

    def code(self, probabilities: Probabilities, truth: Bits | None = None) -> Bits:
        """Bits from the decoder, then drawn ones."""
        bits = (
            np.empty(0, np.int32) if self._first is None else self._first.code(probabilities, None)
        )
        rest = probabilities[len(bits) :]
        return np.concatenate([bits, (self._random.random(len(rest)) < rest).astype(np.int32)])


def bytes_for(bits: float) -> int:
    """Bytes of a prefix from which a decoder reads so much information."""
    return math.ceil((bits + MARGIN_BITS) / 8)


def _count_within(
    bits: Bits, probabilities: Probabilities, before: float, after: float, limit: int
) -> int:
    """How many of the bits just decoded lie before the limit."""
    cost = np.cumsum(-np.log2(np.where(bits, probabilities, 1 - probabilities)))
    # Rounding inside the coder makes each bit cost slightly more than its information.
    cost *= (after - before) / cost[-1]
    return int(np.searchsorted(before + cost, limit, side="right"))
