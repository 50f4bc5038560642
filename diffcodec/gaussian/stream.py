"""The streams of sets of pictures that the Gaussian process codes: bits-back and channel coding."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from diffcodec import container
from diffcodec.container import SetHeader
from diffcodec.entropy import RESERVE_WORDS, RangeDecoder, RangeEncoder, Stack
from diffcodec.errors import FormatError
from diffcodec.gaussian import bitsback, channel, samplers, tiles
from diffcodec.gaussian.chain import Chain
from diffcodec.gaussian.choices import BEST, SAMPLE, Choice
from diffcodec.gaussian.decoder import to_pixels
from diffcodec.limits import Cut, Progress, ignore
from diffcodec.streaming import Stream, StreamDecoder

Show = Literal["mean", "sample", "flow"]


@dataclass(frozen=True)
class Milestone:
    """Where a step of reverse channel coding ends.

    The bytes of the file so far; their information and the relative entropy that is the ideal,
    both in bits.
    """

    bytes: int
    bits: int
    ideal_bits: float


@dataclass(frozen=True)
class Coded:
    """Header and stream of a set, and what became of its bits (see `diffcodec.CodedSet`)."""

    header: SetHeader
    stream: bytes
    net_bits: int
    initial_bits: int
    milestones: list[Milestone]
    seed_bits: int = 0


def encode_bits_back(
    chain: Chain,
    header: SetHeader,
    pictures: list[Tensor],
    seed: bytes = b"",
    progress: Progress = ignore,
) -> Coded:
    """Encode pictures uint8 [3, H, W] without loss.

    Args: `seed` holds as many of the first pictures as the header says. Raises FormatError if
    pictures are too large for the stack's reserve.
    """
    stack = Stack(seed)
    start, seeded = Stack().bits, stack.bits
    left = pictures[header.seeds :]
    parts = [tile for pixels in left for tile in tiles.cut(pixels, chain.side)]
    for number, tile in enumerate(parts, 1):
        bitsback.push(stack, chain, tile)
        progress(number / len(parts))
    stream, untouched = stack.to_bytes()
    header = replace(header, untouched=untouched, stream_bytes=len(stream))
    header = replace(header, checksum=_checksum(pictures))
    initial = 32 * (RESERVE_WORDS - untouched)
    return Coded(header, stream, stack.bits - start, initial, [], seeded - start)


def decode_bits_back(
    chain: Chain,
    header: SetHeader,
    stream: bytes,
    seeds: Callable[[bytes], list[Tensor]],
    progress: Progress = ignore,
) -> list[Tensor]:
    """Pictures uint8 [3, H, W].

    Args: `seeds` gives those that the seed holds. Raises what it does, FormatError if the stream is
    cut, CorruptError if it is damaged.
    """
    if len(stream) < header.stream_bytes:
        raise FormatError(
            f"The set is cut, {len(stream):,} of {header.stream_bytes:,} bytes: "
            "bits-back coding decodes from its end, so it has no previews."
        )
    stack = Stack.from_bytes(stream, header.untouched)
    sizes = header.sizes[header.seeds :]
    shapes = tiles.shapes(sizes, chain.side)
    popped: list[Tensor] = []
    for number, shape in enumerate(reversed(shapes), 1):
        popped.append(bitsback.pop(stack, chain, shape))
        progress(number / len(shapes))
    pictures = seeds(stack.seed()) + tiles.joined(sizes, popped[::-1], chain.side)
    container.check(header.checksum, _checksum(pictures))
    return pictures


def encode_channel(
    chain: Chain, header: SetHeader, pictures: list[Tensor], cut: Cut, progress: Progress = ignore
) -> Coded:
    """Encode pictures uint8 [3, H, W], all of them from rough to fine, up to a limit.

    Raises FormatError if the header exceeds the limit.
    """
    room = container.set_room(header, cut.size(header.pixels))
    parts = [tile for pixels in pictures for tile in tiles.cut(pixels, chain.side)]
    coded = [channel.Tile(pixels.shape, pixels) for pixels in parts]
    encoder, marks = RangeEncoder(), [(RangeEncoder(), 0.0)]
    known = [replace(tile, pixels=None) for tile in coded]
    for row in channel.walk(chain, coded, encoder, _choice(header)):
        if len(encoder.to_bytes(complete=False)) > room:
            break
        marks.append((encoder.clone(), sum(tile.ideal_bits for tile in coded)))
        known = [replace(tile, pixels=None) for tile in coded]
        progress(max(1 - row / chain.steps, encoder.bits_used / (8 * room)))
    stream = encoder.to_bytes(complete=False)
    decoder = RangeDecoder.after(marks[-1][0], stream, complete=False).cut(room)
    stream = stream[:room]
    if decoder is None:  # it ends elsewhere, so that the last milestone fits
        stream = marks[-1][0].to_bytes(complete=False)
        decoder = RangeDecoder.after(marks[-1][0], stream, complete=False)
    for _ in channel.walk(chain, known, decoder, _choice(header)):
        pass  # the rest of a limit may hold a step of some tiles
    expected = _expected(chain, header, known)
    header = replace(header, checksum=_checksum(expected), stream_bytes=len(stream))
    start = len(container.write_set_header(header))
    milestones = [
        Milestone(start + _used(mark, stream), mark.bits_used, ideal) for mark, ideal in marks[1:]
    ]
    progress(1.0)
    return Coded(header, stream, encoder.bits_used, 0, milestones)


def decode_channel(
    chain: Chain,
    header: SetHeader,
    stream: bytes,
    show: Show = "mean",
    seed: int = 0,
    progress: Progress = ignore,
) -> list[Tensor]:
    """Pictures uint8 [3, H, W] from a stream or any prefix of one.

    Args: `show` and `seed` as of `diffcodec.decode_set`. Raises CorruptError if the stream is
    whole and its pixels do not match their checksum.
    """
    decoded = _unknown(chain, header)
    for row in channel.walk(chain, decoded, RangeDecoder(stream, complete=False), _choice(header)):
        progress(1 - row / chain.steps)
    shown = _expected(chain, header, decoded)
    if len(stream) == header.stream_bytes:
        container.check(header.checksum, _checksum(shown))
    if show != "mean":
        shown = tiles.joined(header.sizes, _detailed(chain, decoded, show, seed), chain.side)
    progress(1.0)
    return shown


def preview_channel(
    chain: Chain, header: SetHeader, stream: Stream
) -> Iterator[tuple[int, list[Tensor]]]:
    """Decode a stream once, while it arrives.

    Yields the bytes of it that each milestone needs, and the pictures there, uint8 [3, H, W]; at
    last all bytes that there are, and what they show. Raises as `decode_channel` does.
    """
    decoded, decoder = _unknown(chain, header), StreamDecoder(stream, complete=False)
    for _ in channel.walk(chain, decoded, decoder, _choice(header)):
        yield decoder.bytes_used, _expected(chain, header, decoded)
    size, shown = len(stream.wait_for(stream.size)), _expected(chain, header, decoded)
    if size == header.stream_bytes:
        container.check(header.checksum, _checksum(shown))
    yield size, shown


def _choice(header: SetHeader) -> Choice:
    return SAMPLE if header.exact else BEST


def _unknown(chain: Chain, header: SetHeader) -> list[channel.Tile]:
    """The tiles of a decoder that begins."""
    return [channel.Tile(shape) for shape in tiles.shapes(header.sizes, chain.side)]


def _used(mark: RangeEncoder, stream: bytes) -> int:
    """The bytes of a stream that give what an encoder of it had written."""
    return RangeDecoder.after(mark, stream, complete=False).bytes_used


def _expected(chain: Chain, header: SetHeader, known: list[channel.Tile]) -> list[Tensor]:
    """E[x | z] as pixels; mid-grey where nothing is known."""
    channel.expect(chain, known)
    nothing = torch.zeros((), dtype=torch.float32)
    shown = [to_pixels(nothing.expand(tile.shape) if tile.x is None else tile.x) for tile in known]
    return tiles.joined(header.sizes, shown, chain.side)


def _detailed(chain: Chain, decoded: Iterable[channel.Tile], show: Show, seed: int) -> list[Tensor]:
    """What may have been the pixels of tiles."""
    model, generator = chain.model(), torch.Generator().manual_seed(seed)
    method: samplers.Method = "ancestral" if show == "sample" else "flow"
    shown = []
    for tile in decoded:
        row = chain.steps if tile.row is None else tile.row
        z = tile.z
        if z is None:
            z = torch.randn(tile.shape, generator=generator, dtype=torch.float32)
        z = z.float()
        steps = max(1, row if show == "sample" else row // 2)
        shown.append(
            samplers.decode(
                model, z[None], row / chain.steps, method, steps=steps, generator=generator
            )[0]
        )
    return shown


def _checksum(pictures: list[Tensor]) -> int:
    return container.checksum(*(pixels.numpy() for pixels in pictures))
