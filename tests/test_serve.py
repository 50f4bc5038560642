"""The example server: ranges, and pictures that sharpen on the way over loopback."""

import importlib.util
import threading
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from PIL import Image

import diffcodec

FILE = Path(__file__).parent.parent / "examples" / "serve.py"


@pytest.fixture(scope="module")
def serve():
    spec = importlib.util.spec_from_file_location("serve", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data():
    return diffcodec.encode(Image.effect_noise((16, 12), 30))


@pytest.fixture
def url(serve, data, tmp_path):
    class Handler(serve.Handler):
        rate = 4000

        def log_message(self, *_):
            pass

    (tmp_path / "x.dfc").write_bytes(data)
    handler = partial(Handler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/x.dfc"
        server.shutdown()
        thread.join()


def test_a_whole_file(url, data):
    with urlopen(url) as response:
        assert response.read() == data
        assert response.headers["Content-Type"] == "image/x-dfc"
        assert response.headers["Accept-Ranges"] == "bytes"


def test_a_range_is_a_preview(url, data):
    with urlopen(Request(url, headers={"Range": "bytes=0-59"})) as response:
        prefix = response.read()
        assert response.status == 206
        assert response.headers["Content-Range"] == f"bytes 0-59/{len(data)}"
    assert prefix == data[:60]
    assert diffcodec.decode(prefix).size == (16, 12)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", None),
        ("bytes=0-0", (0, 1)),
        ("bytes=5-", (5, 10)),
        ("bytes=5-99", (5, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-99", (0, 10)),
        ("bytes=0-1,4-5", None),
        ("bytes=-", None),
        ("lines=1-2", None),
    ],
)
def test_ranges(serve, header, expected):
    found = serve.byte_range(header, 10)
    assert (found and (found.start, found.stop)) == expected


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=50-60", "bytes=5-3"])
def test_ranges_beyond_the_file_are_refused(serve, url, data, header):
    assert len(serve.byte_range(header, 10)) == 0
    with pytest.raises(HTTPError) as error:
        urlopen(Request(url, headers={"Range": f"bytes={len(data)}-"}))
    assert error.value.code == 416


def test_other_things_are_not_found(url):
    with pytest.raises(HTTPError) as error:
        urlopen(url.replace("x.dfc", "y.dfc"))
    assert error.value.code == 404


def test_a_picture_sharpens_on_the_way(serve, url, data):
    expected = [(p.bytes_used, p.image.tobytes()) for p in diffcodec.decode_progressive(data)]
    found = [(used, image.tobytes()) for used, image in serve.fetch(url)]
    assert found == expected


def test_what_arrives_is_told(serve, url, data, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["serve.py", "--fetch", url])
    serve.main()
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{len(data)} bytes: <PIL.Image")
