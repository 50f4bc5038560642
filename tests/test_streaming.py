"""Pictures from bytes that are still on their way."""

import io
import itertools
import os
import socket
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import diffcodec
from diffcodec.container import MAX_HEADER
from diffcodec.errors import CorruptError, FormatError
from diffcodec.streaming import GROWTH


class Drip:
    """A source that delivers at most `size` bytes at a time, and notes how many it gave."""

    def __init__(self, data, size):
        self.data, self.size, self.given = data, size, 0

    def seekable(self):
        return False

    def read1(self, limit):
        chunk = self.data[self.given : self.given + min(limit, self.size)]
        self.given += len(chunk)
        return chunk


def shown(previews):
    return [(p.bytes_used, p.rung, p.image.mode, p.image.tobytes()) for p in previews]


@pytest.fixture(scope="module")
def data():
    y, x, c = np.mgrid[:20, :24, :3]
    noise = np.random.default_rng(0).integers(0, 9, y.shape)
    image = Image.fromarray((6 * x + 5 * y + 20 * c + noise).astype(np.uint8))
    image.info["icc_profile"] = b"profile" * 9
    return diffcodec.encode(image)


@pytest.fixture(scope="module")
def expected(data):
    return shown(diffcodec.decode_progressive(data))


@pytest.mark.parametrize("size", [7, 100])
def test_each_picture_comes_with_its_bytes(data, expected, size):
    source = Drip(data, size)
    seen = []
    for preview in diffcodec.decode_progressive(source):
        seen += shown([preview])
        if not preview.complete:
            assert source.given <= max(MAX_HEADER, preview.bytes_used * (1 + GROWTH)) + size
    assert seen == expected
    assert preview.complete
    assert preview.image.info["icc_profile"] == b"profile" * 9


@pytest.mark.parametrize("share", [0.2, 0.6, 0.97])
def test_a_source_that_ends_early_is_a_prefix(data, share):
    prefix = data[: int(share * len(data))]
    previews = list(diffcodec.decode_progressive(Drip(prefix, 50)))
    assert shown(previews) == shown(diffcodec.decode_progressive(prefix))
    assert not previews[-1].complete
    assert previews[-1].image.tobytes() == diffcodec.decode(prefix).tobytes()


@given(st.lists(st.integers(1, 40), min_size=1, max_size=9), st.integers(0, 200))
@settings(deadline=None, max_examples=8, derandomize=True)
def test_deliveries_of_any_size_make_no_difference(sizes, missing):
    data = diffcodec.encode(Image.linear_gradient("L").resize((9, 7)).rotate(30))
    data = data[: max(20, len(data) - missing)]
    sizes = itertools.cycle(sizes)

    class Uneven(Drip):
        def read1(self, limit):
            self.size = next(sizes)
            return super().read1(limit)

    source = Uneven(data, 1)
    assert shown(diffcodec.decode_progressive(source)) == shown(diffcodec.decode_progressive(data))


def test_a_lossy_file_is_streamed(data):
    lossy = diffcodec.encode(diffcodec.decode(data), max_bytes=400)
    previews = list(diffcodec.decode_progressive(Drip(lossy, 30)))
    assert shown(previews) == shown(diffcodec.decode_progressive(lossy))
    assert previews[-1].complete


def test_files_pipes_and_sockets(tmp_path, data, expected):
    path = tmp_path / "x.dfc"
    path.write_bytes(data)
    with path.open("rb") as file:
        assert shown(diffcodec.decode_progressive(file)) == expected
    for sender, receiver in (pipe(), sockets()):
        with sender, receiver:
            thread = threading.Thread(target=lambda out=sender: (out.write(data), out.close()))
            thread.start()
            assert shown(diffcodec.decode_progressive(receiver)) == expected
            thread.join()


def pipe():
    reader, writer = os.pipe()
    return open(writer, "wb"), open(reader, "rb")  # noqa: PTH123 - descriptors have no path


def sockets():
    one, other = socket.socketpair()
    files = one.makefile("wb"), other.makefile("rb")
    one.close()
    other.close()
    return files


def test_a_connection_that_stays_open_does_not_delay_the_last_picture(data, expected):
    sender, receiver = pipe()
    with sender, receiver:
        thread = threading.Thread(target=lambda: (sender.write(data), sender.flush()))
        thread.start()
        assert shown(diffcodec.decode_progressive(receiver)) == expected  # and does not hang
        thread.join()


def test_damage_is_shown(data):
    with pytest.raises(FormatError, match=r"not a \.dfc"):
        next(diffcodec.decode_progressive(Drip(b"no such thing", 3)))
    with pytest.raises(FormatError, match="ends inside"):
        next(diffcodec.decode_progressive(io.BytesIO(data[:10])))
    damaged = bytearray(data)
    damaged[len(data) // 3] ^= 1
    with pytest.raises(CorruptError):
        list(diffcodec.decode_progressive(Drip(bytes(damaged), 90)))
