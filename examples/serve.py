"""Serve .dfc files over HTTP with Range requests, and fetch one while it arrives.

    python examples/serve.py FOLDER                 # http://127.0.0.1:8000/
    python examples/serve.py FOLDER --rate 20000    # at 20 kB/s, to watch a picture sharpen
    python examples/serve.py --fetch http://127.0.0.1:8000/photo.dfc
    curl -sN http://127.0.0.1:8000/photo.dfc | diffcodec decode - --live out.png
    curl -s -r 0-7999 http://127.0.0.1:8000/photo.dfc | diffcodec decode - -o rough.png

The server is the standard library's; Range is what it lacks. `fetch` needs diffcodec.
"""

import argparse
import re
import time
from collections.abc import Iterator
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

SLICES_PER_SECOND = 20


class Handler(SimpleHTTPRequestHandler):
    """Serves files, whole or the one range that a request asks for."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".dfc": "image/x-dfc"}
    rate: float | None = None  # bytes per second

    def do_GET(self) -> None:
        """Send a file; folders are left to the base class."""
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            super().do_GET()
            return
        data = path.read_bytes()
        wanted = byte_range(self.headers.get("Range", ""), len(data))
        if wanted is None:
            self.send_response(HTTPStatus.OK)
            wanted = range(len(data))
        elif wanted:
            self.send_response(HTTPStatus.PARTIAL_CONTENT)
            self.send_header("Content-Range", f"bytes {wanted[0]}-{wanted[-1]}/{len(data)}")
        else:
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self.send_header("Content-Range", f"bytes */{len(data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.send_header("Content-Length", str(len(wanted)))
        self.end_headers()
        self._send(data[wanted.start : wanted.stop])

    def _send(self, data: bytes) -> None:
        if self.rate is None:
            self.wfile.write(data)
            return
        size = max(1, int(self.rate / SLICES_PER_SECOND))
        for start in range(0, len(data), size):
            self.wfile.write(data[start : start + size])
            self.wfile.flush()
            time.sleep(1 / SLICES_PER_SECOND)


def byte_range(header: str, size: int) -> range | None:
    """The bytes that a Range header asks for; empty if there are none, None to ignore it."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header.strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:  # the last so many bytes
        return range(max(0, size - int(last)), size)
    stop = int(last) + 1 if last else size
    return range(int(first), max(int(first), min(stop, size)))


def fetch(url: str) -> Iterator[tuple[int, object]]:
    """Yield (bytes used, picture) as a picture arrives."""
    import diffcodec

    with urlopen(url) as response:
        for preview in diffcodec.decode_progressive(response):
            yield preview.bytes_used, preview.image


def main() -> None:
    """Serve a folder until interrupted, or fetch."""
    parser = argparse.ArgumentParser(description="Serve .dfc files over HTTP.")
    parser.add_argument("folder", nargs="?", default=".")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--rate", type=float, help="bytes per second")
    parser.add_argument("--fetch", metavar="URL", help="tell what arrives from there instead")
    options = parser.parse_args()
    if options.fetch:
        for used, image in fetch(options.fetch):
            print(f"{used:,} bytes: {image}", flush=True)
        return
    Handler.rate = options.rate

    def handler(*arguments: object) -> Handler:
        return Handler(*arguments, directory=options.folder)  # type: ignore[arg-type]

    with ThreadingHTTPServer(("127.0.0.1", options.port), handler) as server:
        print(f"http://127.0.0.1:{server.server_port}/")
        server.serve_forever()


if __name__ == "__main__":
    main()
