"""One codec, one call or two, in a process of its own: what `bench.speed` times.

`python -m bench.worker CODEC encode|decode SOURCE TARGET CALLS` prints the seconds of the last
call, without the reading and writing of files. Sources and targets of pictures are PNG.
"""

import sys
import time
from pathlib import Path

from PIL import Image

from bench.catalogue import lossless_codecs
from bench.codecs import LOSSLESS


def main(name: str, task: str, source: Path, target: Path, calls: int) -> float:
    """Encode or decode `source` into `target`; return the seconds of the last of the calls."""
    (codec,) = (codec for codec in lossless_codecs() if codec.name == name)
    if task == "encode":
        with Image.open(source) as opened:
            image = opened.convert("RGB")
        for _ in range(calls):
            start = time.perf_counter()
            coded = codec.encode(image, LOSSLESS[0])
            seconds = time.perf_counter() - start
        target.write_bytes(coded)
    else:
        data = source.read_bytes()
        for _ in range(calls):
            start = time.perf_counter()
            decoded = codec.decode(data)
            seconds = time.perf_counter() - start
        decoded.save(target)
    return seconds


if __name__ == "__main__":
    _, name, task, source, target, calls = sys.argv
    print(main(name, task, Path(source), Path(target), int(calls)))
