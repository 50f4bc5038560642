"""Decode a .dfc file, or as much of one as there is, to a PNG.

python -m decoder PHOTO.dfc MODEL.safetensors PICTURE.png
python -m decoder STORED.dfc PICTURE.png
"""

import sys
from pathlib import Path

import png

from . import container, decode


def main() -> None:
    """Decode the file that the command line names."""
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    source, *model, target = map(Path, sys.argv[1:])
    data = source.read_bytes()
    try:
        picture = decode(data, *model, progress=lambda rung: print(f"rung {rung} is done"))
    except ValueError as error:
        sys.exit(str(error))
    file = container.read(data)
    rows = picture.reshape(len(picture), -1)
    png.from_array(rows, f"{file.mode};{file.depth}").save(str(target))


main()
