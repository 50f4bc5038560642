"""JPEG XL by libjxl's own programs, for what imagecodecs does not offer, and by a newer libjxl."""

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from PIL import Image

from bench.codecs import (
    LOSSLESS,
    FileCodec,
    MissingError,
    Setting,
    load,
    open_image,
    save_image,
)


@dataclass(frozen=True)
class Cjxl(FileCodec):
    """A lossless file that `cjxl` makes with these options, and `djxl` reads."""

    options: tuple[str, ...] = ()

    def version(self) -> str:
        return _version()

    def encode(self, image: Image.Image, setting: Setting) -> bytes:
        return _cjxl(image, "--distance=0", *self.options)

    def decode(self, data: bytes) -> Image.Image:
        shown = _djxl(data)
        if shown is None:
            raise OSError("djxl cannot read what cjxl wrote")
        return shown


@dataclass(frozen=True)
class PluginJpegXL(FileCodec):
    """What pillow-jxl-plugin writes; a setting is its `quality`."""

    effort: int = 7

    def version(self) -> str:
        load("pillow_jxl")
        return f"pillow-jxl-plugin {version('pillow-jxl-plugin')}"

    def encode(self, image: Image.Image, setting: Setting) -> bytes:
        load("pillow_jxl")
        how = {"lossless": True} if setting in LOSSLESS else {"quality": setting}
        return save_image(image, "JXL", effort=self.effort, num_threads=1, **how)

    def decode(self, data: bytes) -> Image.Image:
        load("pillow_jxl")
        return open_image(data)


@dataclass(frozen=True)
class ProgressiveJpegXL:
    """A progressive file, cut where its reader likes; a distance of 0 is lossless."""

    distance: float

    @property
    def name(self) -> str:
        return "JPEG XL progressive " + (f"d{self.distance:g}" if self.distance else "lossless")

    @property
    def exact(self) -> bool:
        return self.distance == 0

    def version(self) -> str:
        return _version()

    def encode(self, image: Image.Image) -> bytes:
        return _cjxl(image, "--progressive", f"--distance={self.distance}")

    def show(self, data: bytes, received: int) -> Image.Image | None:
        return _djxl(data[:received], "--allow_partial_files")


def _version() -> str:
    for tool in ("cjxl", "djxl"):
        if shutil.which(tool) is None:
            raise MissingError(f"the program {tool} (libjxl-tools) is not installed")
    lines = subprocess.run(["cjxl", "--version"], capture_output=True, text=True).stdout
    return lines.partition("\n")[0]


def _cjxl(image: Image.Image, *options: str) -> bytes:
    """The file of a picture, made on one thread."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.ppm"), Path(folder, "out.jxl")
        image.save(source)
        run = ["cjxl", str(source), str(target), *options, "--num_threads=0"]
        subprocess.run(run, check=True, capture_output=True)
        return target.read_bytes()


def _djxl(data: bytes, *options: str) -> Image.Image | None:
    """The picture in a file, or None where djxl sees none."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.jxl"), Path(folder, "out.ppm")
        source.write_bytes(data)
        run = ["djxl", str(source), str(target), *options, "--num_threads=0"]
        if subprocess.run(run, capture_output=True).returncode:
            return None
        return open_image(target.read_bytes())
