"""A fuzzer of the decoder: hostile files end in a picture or a DiffcodecError, never else.

    python tests/fuzz_decoder.py --minutes 10

Files are changed both blindly and below the checksum: header fields that agree with each other
around a stream that is damaged, foreign or random. What a file costs is held to the size that
its header declares. A file that breaks the rules is kept in tests/corpus, which every run, and
the short one in the test suite, starts from.
"""

import argparse
import hashlib
import io
import sys
import time
import zlib
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

import diffcodec
from diffcodec import container, entropy, stored, streaming
from diffcodec.absorbing import model as drawings
from diffcodec.absorbing import state as drawing
from diffcodec.absorbing import stream as absorbing
from diffcodec.errors import DiffcodecError
from diffcodec.exact import files
from diffcodec.gaussian import stream as gaussian
from diffcodec.quantized import model, tile_state, tiled
from diffcodec.quantized import stream as quantised

CORPUS = Path(__file__).parent / "corpus"

FILES = 20
"""How many files a seed makes."""

MAX_PIXELS = 1 << 9
"""The size limit is lowered to this: a larger picture is only slower."""

SMALLEST_TILE = 5
"""So are tiles."""

MAX_METADATA = 1 << 12

STARTS = [
    *(b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0", b"MM\0*\0\0\0\x08", b"P", b"1"),
    *(b"inch 1/", b"none 4 3", b"gAMA\4\0\0\xb1\x8f", b"cHRM\x20", b"key\0value\0", b"\0"),
]
"""How the contents of boxes begin that make some sense."""

DECISIONS_PER_PIXEL, DECISIONS = 150, 1000
"""A decoder reads at most so many bits of a pixel, 28 planes of 4 samples, and of a tile, on which
levels are significant."""

FITTED_DECISIONS = 66 * 25_000
"""Rows of the networks, and bits that shift the biases of one: 1,350 by up to 17 bits."""

SET_DECISIONS_PER_PIXEL = 4000
"""The same of a set, whose pictures are padded: 3 samples of 129 latents by some 7 decisions."""


def corpus() -> list[bytes]:
    """The kept files, made to name the present models."""
    return [renewed(path.read_bytes()) for path in sorted(CORPUS.glob("*.dfc"))]


def renewed(data: bytes) -> bytes:
    """A file that names the present model, if it names one at all."""
    with suppress(DiffcodecError):
        if diffcodec.is_set(data) or len(data) < 4 or data[3] < 128:
            stored_samples = len(data) > 3 and data[2] & 15 == container.STORED
            return data if stored_samples else data[:8] + present_model(data) + data[12:]
        with limits():
            header, start = container.read_header(data)
        if header.model:
            header = replace(header, model=present_model(data))
        return container.write_header(header) + data[start:]
    return data


@cache
def present_model(data: bytes) -> bytes:
    """The id of the model that decodes files of this kind."""
    with suppress(DiffcodecError):
        if diffcodec.is_set(data):
            return files.parse(files.read(files.GAUSSIAN_32)).id
        header, _ = container.read_header(data)
        if header.codec == container.ABSORBING:
            return drawings.load(drawings.default()).id
        return model.load(model.default(header.height, header.width)).id
    return model.load(files.PHOTO).id


def parts(data: bytes) -> tuple[container.Header, bytes, bytes]:
    """Header, stream and what follows."""
    header, start = container.read_header(data)
    end = start + header.stream_bytes
    return header, data[start:end], data[end:]


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes with a few changed, cut out, put in or repeated."""
    result = bytearray(data)
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(result)))
        kind = draw(st.sampled_from(["flip", "cut", "insert", "repeat", "end"]))
        if kind == "flip" and place < len(result):
            result[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del result[place : place + draw(st.integers(1, 9))]
        elif kind == "insert":
            result[place:place] = draw(st.binary(min_size=1, max_size=9))
        elif kind == "repeat":
            result[place:place] = result[place : place + draw(st.integers(1, 30))]
        elif kind == "end":
            del result[place:]
    return bytes(result)


@st.composite
def hostile(draw: st.DrawFn) -> bytes:
    """A file made from one of the corpus."""
    data = draw(st.sampled_from(corpus()))
    if draw(st.integers(0, 3)) == 0:
        return draw(damaged(data))
    with suppress(DiffcodecError):
        return draw(hostile_set(data) if diffcodec.is_set(data) else hostile_picture(data))
    return draw(damaged(data))


@st.composite
def hostile_picture(draw: st.DrawFn, data: bytes) -> bytes:
    """A file made from one of a picture."""
    header, stream, rest = parts(data)
    sizes = st.integers(1, 30) | st.sampled_from([1, 2, 17, 64, 512, 1 << 27])
    if draw(st.booleans()):
        header = replace(
            header,
            width=draw(sizes),
            height=draw(sizes),
            mode=draw(st.sampled_from(container.MODES)),
            depth=draw(st.sampled_from([8, 16])),
            lossless=draw(st.booleans()),
            has_boxes=draw(st.booleans()),
            step=draw(st.sampled_from([1, 3, 9, 255])),
        )
        tile = draw(st.sampled_from([0, SMALLEST_TILE, 7, 64]))
        quantised_picture = header.codec == container.QUANTISED
        fitted = quantised_picture and draw(st.booleans())
        header = replace(header, tile=tile if quantised_picture else 0, fitted=fitted)
    stream = draw(damaged(stream) | st.binary(max_size=80))
    header = replace(header, stream_bytes=len(stream))
    if header.width * header.height <= MAX_PIXELS and draw(st.booleans()):
        header = with_checksum(header, stream)
    rest = draw(st.just(rest) | damaged(rest) | metadata())
    data = container.write_header(header) + stream + rest
    return data[: draw(st.just(len(data)) | st.integers(0, len(data)))]


@st.composite
def hostile_set(draw: st.DrawFn, data: bytes) -> bytes:
    """A file made from one of a set. Its checksum hides nothing: it is looked at last."""
    header, stream = container.read_set(data)
    sides = st.integers(1, 12) | st.just(40)
    if draw(st.booleans()):
        header = replace(
            header,
            codec=draw(st.sampled_from([container.BITS_BACK, container.CHANNEL])),
            sizes=tuple(draw(st.lists(st.tuples(sides, sides), min_size=1, max_size=3))),
            seeds=draw(st.integers(0, 3)),
            untouched=draw(st.just(header.untouched) | st.integers(0, (1 << 35) - 1)),
        )
    stream = draw(damaged(stream) | st.binary(max_size=80))
    length = draw(st.just(len(stream)) | st.integers(0, (1 << 35) - 1))
    return container.write_set_header(replace(header, stream_bytes=length)) + stream


@st.composite
def metadata(draw: st.DrawFn) -> bytes:
    """Metadata that unpack to anything, also to more than they may."""
    start = draw(st.sampled_from([b"", *STARTS]))
    raw = start + draw(st.binary(max_size=30) | st.just(b"\xff" * (MAX_METADATA + 100)))
    is_packed = draw(st.booleans())
    packed = zlib.compress(raw) if is_packed else raw[:100]
    length = draw(st.just(len(packed)) | st.integers(0, 127))
    box = bytes([2 * draw(st.integers(0, 9)) + is_packed, length]) + packed
    length = draw(st.just(len(box)) | st.integers(0, 127))
    return bytes([length]) + box


def with_checksum(header: container.Header, stream: bytes) -> container.Header:
    """The header with the checksum of what the stream tells, so that no check rejects it."""
    with suppress(DiffcodecError):
        unchecked = replace(header, stream_bytes=len(stream) + 1)
        if header.codec == container.STORED:
            planes = stored.decode(unchecked, stream)
            return replace(header, checksum=container.checksum(planes))
        if header.codec == container.ABSORBING:
            own = drawings.find(header.model)
            state = absorbing._empty(own, header)
            decoder = entropy.RangeDecoder(stream, complete=header.lossless)
            for _ in absorbing.walk(own.curves, state, decoder):
                pass
            found = container.checksum(drawing.planes(state, header.depth))
            return replace(header, checksum=found)
        weights = model.find(header.model)
        if header.tile:
            return replace(
                header, checksum=container.checksum(tiled._known(weights, header, stream))
            )
        states = quantised.empty_states(header, weights)
        for _ in quantised.walk(weights, states, quantised._decoder(header, stream)):
            pass
        return replace(header, checksum=quantised._checksum(header, states))
    return header


@contextmanager
def limits():
    """Lower the limits, and count the bits that decoders read."""
    read = [0]

    class Counting(entropy.RangeDecoder):
        def code(self, probabilities, truth=None):
            read[0] += len(probabilities)
            return super().code(probabilities, truth)

    class CountingStack(entropy.Stack):
        def pop(self, probabilities):
            read[0] += len(probabilities)
            return super().pop(probabilities)

    with (
        mock.patch.object(container, "MAX_PIXELS", MAX_PIXELS),
        mock.patch.object(container, "SMALLEST_TILE", SMALLEST_TILE),
        mock.patch.object(container, "MAX_METADATA", MAX_METADATA),
        mock.patch.object(quantised, "RangeDecoder", Counting),
        mock.patch.object(tile_state, "RangeDecoder", Counting),
        mock.patch.object(absorbing, "RangeDecoder", Counting),
        mock.patch.object(streaming, "RangeDecoder", Counting),
        mock.patch.object(gaussian, "RangeDecoder", Counting),
        mock.patch.object(gaussian, "Stack", CountingStack),
    ):
        yield read


class Slow(io.BytesIO):
    """A source that delivers a few bytes at a time."""

    def seekable(self):
        return False

    def read1(self, size=-1):
        return super().read1(97)


def check(data: bytes) -> None:
    """Raise AssertionError, or what came out, if a file breaks the rules."""
    with suppress(DiffcodecError):
        if diffcodec.is_set(data):
            check_set(data)
    declared, tiles, fitted = 0, 1, 0
    with suppress(DiffcodecError), mock.patch.object(container, "SMALLEST_TILE", SMALLEST_TILE):
        header, _ = container.read_header(data)
        declared = header.width * header.height
        fitted = FITTED_DECISIONS * header.fitted
        tiles = len(tiled.places(header)) if header.tile and declared <= MAX_PIXELS else 1
    acts = {
        "decode": lambda: diffcodec.decode(data).size,
        "sample": lambda: diffcodec.decode(data, show="sample").size,
        "rung": lambda: diffcodec.decode(data, rung=6).size,
        "reduced": lambda: diffcodec.decode(data, size=3).size,
        "region": lambda: diffcodec.decode(data, region=(0, 0, 1, 1)).size,
        "info": lambda: diffcodec.info(data),
        "progressive": lambda: [p.bytes_used for p in diffcodec.decode_progressive(data)],
    }
    for name, act in acts.items():
        with limits() as read, suppress(DiffcodecError):
            act()
        if declared > MAX_PIXELS:
            assert read[0] == 0, f"{name} worked on a picture beyond the limit"
        limit = DECISIONS_PER_PIXEL * declared + DECISIONS * tiles + fitted
        assert read[0] <= limit, f"{name} read {read[0]} bits"
    with limits():
        assert shown(Slow(data)) == shown(data)
    with limits(), suppress(OSError), Image.open(io.BytesIO(data)) as image:
        image.load()
    with limits(), suppress(DiffcodecError):
        picture = diffcodec.decode_picture(data)
        if diffcodec.info(data, rungs=False).metadata:
            check_metadata(picture)


def check_metadata(picture: diffcodec.Picture) -> None:
    """As `check`, for what shows, writes and strips metadata."""
    diffcodec.eight_bits(diffcodec.upright(picture))
    diffcodec.encode(picture, strip=True, max_bytes=200)
    with TemporaryDirectory() as folder:
        for name in ("a.png", "a.tif", "a.jpg", "a.webp", "a.bmp"):
            with suppress(DiffcodecError):
                diffcodec.write_image(picture, Path(folder) / name)


def check_set(data: bytes) -> None:
    """As `check`, for what reads sets."""
    declared, kinds = 0, ["mean"]
    with limits(), suppress(DiffcodecError):
        header, _ = container.read_set(data)
        declared = sum(-(-width // 4) * -(-height // 4) * 16 for width, height in header.sizes)
        if header.codec == container.CHANNEL:
            kinds += ["sample", "flow"]
    for show in kinds:
        with limits() as read, suppress(DiffcodecError):
            diffcodec.decode_set(data, show=show)
        limit = SET_DECISIONS_PER_PIXEL * declared
        assert read[0] <= limit, f"a set of {declared} pixels read {read[0]} bits"
    with limits(), suppress(DiffcodecError):
        assert diffcodec.set_info(data).pictures > 0


def shown(source):
    """The pictures that a source gives, or None if it ends with an error."""
    try:
        return [(p.image.mode, p.image.tobytes()) for p in diffcodec.decode_progressive(source)]
    except DiffcodecError:
        return None


def run(examples: int, number: int) -> None:
    """Check so many files; the number decides which. Keeps the file that fails."""
    last = [b""]

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(hostile())
    def fuzz(data: bytes) -> None:
        last[0] = data
        check(data)

    try:
        fuzz()
    except BaseException as error:
        if not isinstance(error, KeyboardInterrupt):
            name = hashlib.sha256(last[0]).hexdigest()[:12]
            (CORPUS / f"{name}.dfc").write_bytes(last[0])
        raise


def main() -> None:
    """Fuzz until the time is over."""
    parser = argparse.ArgumentParser(description="Fuzz the decoder.")
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=None, help="first seed; by default the clock's")
    options = parser.parse_args()
    number = time.time_ns() // 1_000_000 if options.seed is None else options.seed
    for data in corpus():
        check(data)
    end = time.monotonic() + 60 * options.minutes
    while time.monotonic() < end:
        run(FILES, number)
        print(f"seed {number}: {FILES} files, no complaints", file=sys.stderr)
        number += 1


if __name__ == "__main__":
    main()
