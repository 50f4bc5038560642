"""Entropy coding: the only module that knows constriction.

A coder has one method, `code(probabilities, truth)`: the encoder writes the true bits and
returns them, the decoder ignores `truth` and returns what it reads. So one function describes a
stream for both sides. Range coding is first-in first-out, so a prefix of the bytes decodes to a
prefix of the bits: to those that are the same whatever follows it. Where a prefix ends is decided
on the integers of the coder's state, so it is the same on every machine.
"""

from copy import copy
from typing import Protocol

import constriction
import numpy as np
from numpy.typing import NDArray

from diffcodec.errors import CorruptError, FormatError

PROBABILITY_BITS = 16
"""Probabilities are multiples of 2^-16, exactly representable and never 0 or 1."""

STACK_PROBABILITY_BITS = 23
"""The same on a stack, where a latent's many decisions are nearly certain: what 16 bits round away
costs 0.01 bits/dim. constriction's own models have 24 bits."""

RESERVE_WORDS = 1 << 16
"""Words of 32 random bits at the bottom of a stack."""

_RESERVE_KEY = 0xD1FC
_BERNOULLI = constriction.stream.model.Bernoulli(perfect=False)
_WORD = np.dtype(">u4")

Bits = NDArray[np.int32]
Probabilities = NDArray[np.float64]


def quantise_probabilities(
    numerator: NDArray, denominator: NDArray, bits: int = PROBABILITY_BITS
) -> Probabilities:
    """numerator / denominator of non-negative integers below 2^53, to so many bits.

    An empty denominator gives one half. Division of such integers is rounded in one way only,
    so the result is the same on every machine.
    """
    one = 1 << bits
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
    """Writes bits."""

    def __init__(self) -> None:
        self._encoder = constriction.stream.queue.RangeEncoder()

    def code(self, probabilities: Probabilities, truth: Bits | None) -> Bits:
        """Write the true bits."""
        assert truth is not None
        self._encoder.encode(truth, _BERNOULLI, probabilities)
        return truth

    @property
    def state(self) -> tuple[int, int, int]:
        """Whole words of the stream; lower edge (mod 2^64) and width of the interval after them."""
        words, (lower, width) = self._encoder.pos()
        return words, lower, width

    @property
    def bits_used(self) -> int:
        """Information written so far, in whole bits, rounded down."""
        words, _, width = self.state
        return 32 * words + 64 - width.bit_length()

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been written."""
        return self._encoder.is_empty()

    def clone(self) -> "RangeEncoder":
        """An encoder that goes on from here by itself."""
        other = RangeEncoder()
        other._encoder = self._encoder.clone()
        return other

    def to_bytes(self, *, complete: bool = True) -> bytes:
        """The shortest stream that gives these bits, most significant byte first.

        Any number in the last interval of the coder does; this is the one with most zeros at its
        end, which are implied if the stream is complete. If it is not, whatever follows must stay
        inside the interval.
        """
        words, lower, width = self.state
        data = self._encoder.get_compressed().astype(_WORD).tobytes().ljust(4 * (words + 2), b"\0")
        # constriction's own choice lies above the lower edge, of which the state has the end.
        chosen = int.from_bytes(data)
        edge = chosen - (chosen - lower) % (1 << 64)
        for zeros in reversed(range(8)):
            number = -(-edge >> 8 * zeros) << 8 * zeros
            following = 0 if complete else (1 << 8 * zeros) - 1
            if number + following < edge + width:
                break
        stream = number.to_bytes(len(data))
        return stream.rstrip(b"\0") if complete else stream[: len(stream) - zeros]


class RangeDecoder:
    """Reads bits from a whole stream or from a prefix of one.

    Args:
        data: the bytes.
        complete: whether they are all of the stream. If not, `code` returns only the bits that
            every continuation of the bytes would give.
        track: whether `bytes_used`, `cut` and `resumed` are wanted, which costs a second pass; a
            prefix needs it anyway.

    Raises CorruptError from `code` if the bytes of a complete stream cannot be decoded.
    """

    def __init__(self, data: bytes, *, complete: bool, track: bool = False) -> None:
        # The encoder has cut off zeros. For what a prefix lacks anything will do.
        self._padded = data + (b"\0" if complete else b"\xff") * (-len(data) % 4 + 8)
        words = np.frombuffer(self._padded, _WORD).astype(np.uint32)
        self._decoder = constriction.stream.queue.RangeDecoder(words)
        self._size, self._complete = len(data), complete
        # It writes again what is read: its state is the decoder's, which constriction hides.
        self._shadow = RangeEncoder() if track or not complete else None
        self._ended = False

    def code(self, probabilities: Probabilities, truth: Bits | None = None) -> Bits:
        """Read bits; fewer than asked for once the data have ended."""
        if self._ended or len(probabilities) == 0:
            return np.empty(0, np.int32)
        if not self._complete:
            bits = self._determined(probabilities)
            self._ended = len(bits) < len(probabilities)
            return bits
        try:
            bits = self._decoder.decode(_BERNOULLI, probabilities)
        except AssertionError as error:
            raise CorruptError("The stream is corrupt.") from error
        if self._shadow is not None:
            self._shadow.code(probabilities, bits)
        return bits

    @property
    def bytes_used(self) -> int:
        """The fewest bytes from which a decoder reads the bits read so far; needs `track`.

        They may be all that there are, and those only as a complete stream.
        """
        assert self._shadow is not None
        fewest = self._shadow.bits_used // 8
        enough = (size for size in range(fewest, self._size) if self._determine(size))
        return next(enough, self._size)

    @property
    def ended(self) -> bool:
        """Whether the data ended before the bits that were asked for."""
        return self._ended

    def clone(self) -> "RangeDecoder":
        """A decoder that goes on from here by itself."""
        other = copy(self)
        other._decoder = self._decoder.clone()
        other._shadow = None if self._shadow is None else self._shadow.clone()
        return other

    def cut(self, size: int) -> "RangeDecoder | None":
        """A decoder of the first `size` bytes alone that has read what this one has.

        None if those bytes do not determine the bits read so far. Needs `track`.
        """
        if not self._determine(size):
            return None
        return self.resumed(self._padded[: min(size, self._size)], complete=False)

    def resumed(self, data: bytes, *, complete: bool) -> "RangeDecoder":
        """A decoder of other bytes that has read what this one has; needs `track`.

        The bytes determine those bits, as all do that begin with the bytes of a prefix.
        """
        assert self._shadow is not None
        return RangeDecoder.after(self._shadow, data, complete=complete)

    @classmethod
    def after(cls, encoder: RangeEncoder, data: bytes, *, complete: bool) -> "RangeDecoder":
        """A tracking decoder of a stream that has read what an encoder of it had written."""
        decoder = cls(data, complete=complete, track=True)
        decoder._stand_at(encoder.clone())
        return decoder

    def _stand_at(self, shadow: RangeEncoder) -> None:
        words, lower, width = shadow.state
        self._decoder.seek(words, (lower, width))
        self._shadow = shadow

    def _determine(self, size: int) -> bool:
        """Whether the first `size` bytes, whatever follows them, give the bits read so far.

        They do if every number that begins with them lies in the coder's interval.
        """
        assert self._shadow is not None
        words, lower, width = self._shadow.state
        point = int.from_bytes(self._padded[4 * words : 4 * words + 8])
        unknown = (1 << 8 * max(0, 4 * words + 8 - size)) - 1
        least = (point - lower) % (1 << 64) - (point & unknown)
        return self._shadow.is_empty or (least >= 0 and least + unknown < width)

    def _determined(self, probabilities: Probabilities) -> Bits:
        """The bits of a prefix, up to the first that its bytes do not determine.

        constriction refuses some numbers that no encoder writes; they may follow a prefix.
        """
        if len(probabilities) == 0:
            return np.empty(0, np.int32)
        assert self._shadow is not None
        before = self._shadow.clone()
        try:
            bits = self._decoder.decode(_BERNOULLI, probabilities)
            self._shadow.code(probabilities, bits)
            if self._determine(self._size):
                return bits
        except AssertionError:
            pass
        self._stand_at(before)
        half = len(probabilities) // 2
        first = self._determined(probabilities[:half])
        if len(first) < half or half == 0:
            return first
        return np.concatenate([first, self._determined(probabilities[half:])])


class Stack:
    """Bits on a stack, for bits-back coding: the last ones pushed are the first ones popped.

    Below whatever is pushed lies a reserve of random words, the same on every machine, so that
    there is something to pop at first. The bytes of a stack leave out what nobody has touched.

    Args: a seed, bytes to be kept, which lie above the reserve: what is popped at first is lent by
    them, and costs nothing.
    """

    def __init__(self, seed: bytes = b"") -> None:
        self._reserve = np.random.Philox(_RESERVE_KEY).random_raw(RESERVE_WORDS) >> 32
        words = np.concatenate([self._reserve, _words(seed)]).astype(np.uint32)
        self._coder = constriction.stream.stack.AnsCoder(words, seal=True)

    @classmethod
    def from_bytes(cls, data: bytes, untouched: int) -> "Stack":
        """A stack from its bytes and the number of words that these leave out.

        Raises CorruptError if no stack has such bytes.
        """
        stack = cls()
        words = _words(data)
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

    def seed(self) -> bytes:
        """The seed, with zeros to a whole word, once everything that was pushed has been popped.

        Raises CorruptError if anything is left, or missing, as far as one can see.
        """
        words = self._coder.get_compressed()
        whole = len(words) > RESERVE_WORDS and words[-1] == 1
        if not whole or (words[:RESERVE_WORDS] != self._reserve).any():
            raise CorruptError("The file is corrupt: something is left of its stream.")
        return words[RESERVE_WORDS:-1].astype(_WORD).tobytes()

    def to_bytes(self) -> tuple[bytes, int]:
        """The seed and what was pushed, and how many words of the reserve are untouched below it.

        Raises FormatError if the reserve was too small.
        """
        words = self._coder.get_compressed()
        shared = min(len(words) - 1, RESERVE_WORDS)
        changed = (words[:shared] != self._reserve[:shared]).nonzero()[0]
        untouched = int(changed[0]) if len(changed) else shared
        if untouched == 0:
            raise FormatError("The pictures are too large for bits-back coding.")
        return words[untouched:].astype(_WORD).tobytes(), untouched


def _words(data: bytes) -> NDArray:
    """Bytes as big-endian words, the last one filled with zeros."""
    return np.frombuffer(data + b"\0" * (-len(data) % 4), _WORD)


class BitSampler:
    """Draws bits from their probabilities, once a decoder has no more of them.

    Args: seed of the drawn bits, of one number or several, the same on every machine; the decoder
    that comes first.
    Attributes: `quarters` makes what is drawn more likely than it is, if there are more than four:
    the odds of a bit are raised to so many quarters. (A temperature of 4 / quarters.) `drawn` says
    whether any bit has been.
    """

    def __init__(self, seed: int | tuple[int, ...], first: Coder | None = None) -> None:
        self._random = np.random.Generator(np.random.PCG64(seed))
        self._first = first
        self.quarters, self.drawn = 4, False

    def code(self, probabilities: Probabilities, truth: Bits | None = None) -> Bits:
        """Bits from the decoder, then drawn ones."""
        bits = (
            np.empty(0, np.int32) if self._first is None else self._first.code(probabilities, None)
        )
        rest = probabilities[len(bits) :]
        self.drawn |= len(rest) > 0
        if self.quarters != 4:
            one, zero = (_power(np.asarray(p, np.float64), self.quarters) for p in (rest, 1 - rest))
            rest = one / (one + zero)
        return np.concatenate([bits, (self._random.random(len(rest)) < rest).astype(np.int32)])


def _power(values: NDArray[np.float64], quarters: int) -> NDArray[np.float64]:
    """values^(quarters / 4), by roots and products, which IEEE 754 rounds in one way only."""
    root = np.sqrt(np.sqrt(values))
    return np.multiply.reduce([root] * quarters)
