"""Pillow's view of a .dfc file: `Image.open("x.dfc")` and `image.save("x.dfc")`.

Opening reads the header and the metadata, nothing else; pixels are decoded when they are first
needed. Errors surface as OSError, as with every format of Pillow's.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from PIL import Image, ImageFile

from diffcodec import container
from diffcodec.errors import DiffcodecError, ImageError
from diffcodec.pictures.metadata import COMMENT, of_image, to_info

FORMAT = "DFC"
OPTIONS = (
    *("bpp", "max_bytes", "psnr", "max_error", "process", "tile", "strip", "fit"),
    *("model", "threads", "device"),
)
"""Those of `save` that `diffcodec.encode` takes."""

METADATA = ("icc_profile", "exif", "xmp", "dpi", "comment")
"""Those of `save` that take the place of the picture's own metadata."""


def register() -> None:
    """Make Pillow know the format."""
    Image.register_open(FORMAT, DfcImageFile, lambda prefix: prefix.startswith(container.MAGIC))
    Image.register_save(FORMAT, _save)
    Image.register_extension(FORMAT, ".dfc")
    Image.register_mime(FORMAT, "image/x-dfc")


class DfcImageFile(ImageFile.ImageFile):
    """A .dfc file, whole or a prefix: `info["complete"]` says which; a prefix is a preview."""

    format = FORMAT
    format_description = "diffcodec"
    _header: container.Header
    _rung: int | None = None
    _loaded = False

    def _open(self) -> None:
        assert self.fp is not None
        with _as_os_error():
            header, start = container.read_header(self.fp.read(container.MAX_HEADER))
            if header.depth == 16 and header.mode != "L":
                raise ImageError(
                    f"Pillow has no {header.mode} pictures of 16 bits: use diffcodec.decode_array"
                )
            end: int | None = start + header.stream_bytes
            boxes: container.Boxes = {}
            if header.has_boxes:
                self.fp.seek(start + header.stream_bytes)
                boxes, length = container.read_boxes(self.fp.read())
                end = None if length is None else start + header.stream_bytes + length
        self._header = header
        self._mode = header.mode if header.depth == 8 else "I;16"
        self._size = header.width, header.height
        self.info.update(to_info(boxes))
        self.info["complete"] = end is not None and self.fp.seek(0, os.SEEK_END) >= end

    def draft(
        self, mode: str | None, size: tuple[int, int] | None
    ) -> tuple[str, tuple[int, int, float, float]] | None:
        """Decode no more than a picture reduced to `size` needs; `thumbnail` asks for it.

        The picture keeps its size. `mode` is ignored.
        """
        if self._loaded or size is None:
            return None
        from diffcodec import reduction

        factor = min(self.width // max(1, size[0]), self.height // max(1, size[1]))
        if factor < 2:
            return None
        self._rung = reduction.rung(self._header, factor)
        return self.mode, (0, 0, *self.size)

    def load(self) -> Any:
        """Decode, if that has not been done. Raises OSError if the file is damaged."""
        if not self._loaded:
            self.im = self._decode(self._rung).im
            self._loaded = True
            if self._exclusive_fp and self.fp:
                self.fp.close()
            self.fp = None
        return Image.Image.load(self)

    def verify(self) -> None:
        """Raise OSError unless the file is complete and its pixels match their checksum.

        Only decoding can tell, so this takes as long as loading. As with all formats it comes
        right after opening, and the file must be opened again to be used.
        """
        self._decode(None)
        if not self.info["complete"]:
            raise OSError("The file is truncated.")
        super().verify()

    def load_seek(self, pos: int) -> None:
        """Tell Pillow's incremental parser that this format does not load piece by piece."""

    def _decode(self, rung: int | None) -> Image.Image:
        import diffcodec

        assert self.fp is not None
        self.fp.seek(0)
        with _as_os_error():
            # Pillow has looked at the size by its own limit.
            return diffcodec.decode(self.fp.read(), rung=rung, max_pixels=None)


def _save(im: Image.Image, fp: IO[bytes], filename: str | bytes) -> None:
    """Encode, with OPTIONS and METADATA; Pillow's own options are not taken for others."""
    import diffcodec
    from diffcodec.pictures.loading import load

    options = im.encoderinfo
    with _as_os_error():
        if unknown := options.keys() - {*OPTIONS, *METADATA}:
            raise ImageError(
                f"a .dfc file is saved without the option {min(unknown)!r}: "
                f"there are {', '.join(OPTIONS + METADATA)}"
            )
        image = load(im, "the picture").copy()
        info = to_info(of_image(im))
        if "comment" in options:
            info.get("text", {}).pop(COMMENT, None)
        image.info = {key: image.info[key] for key in image.info if key == "transparency"}
        image.info |= info | {key: options[key] for key in METADATA if key in options}
        data = diffcodec.encode(image, **{key: options[key] for key in OPTIONS if key in options})
    fp.write(data)
    if not isinstance(fp, io.BytesIO):
        fp.flush()


@contextmanager
def _as_os_error() -> Iterator[None]:
    try:
        yield
    except DiffcodecError as error:
        raise OSError(str(error)) from error
