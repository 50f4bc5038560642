"""The public API: whole pictures and files, and nothing of how they are coded."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffcodec import choice, container, quality, reduction, steps, stored
from diffcodec.absorbing import model as drawing_models
from diffcodec.absorbing import stream as absorbing
from diffcodec.choice import DRAWING, PHOTO
from diffcodec.container import ABSORBING, QUANTISED, STORED, Boxes, File, Header
from diffcodec.errors import ImageError
from diffcodec.exact import files
from diffcodec.exact.backends import exact_arithmetic
from diffcodec.limits import MAX_PIXELS, Cut, Progress, Region, check_pixels, ignore, part
from diffcodec.paths import StrPath
from diffcodec.pictures import orientation
from diffcodec.pictures.images import (
    Picture,
    from_planes,
    metadata,
    palette,
    to_pillow,
    to_planes,
)
from diffcodec.pictures.metadata import sizes
from diffcodec.quantized import colour, segments, tiled
from diffcodec.quantized import model as models
from diffcodec.quantized import stream as quantised
from diffcodec.streaming import Source, Stream

SHOWN = ("mean", "visual", "sample")
"""How a prefix can be shown: as the expectation of the picture, which has the best PSNR; with the
texture that it may have had; as a sample of all that it may have been. Drawings are shown as their
likeliest colours in place of the first two."""

PROCESSES = ("auto", PHOTO, DRAWING)
"""What a picture can be coded as: "photo" by the quantised process, "drawing" by the absorbing one;
"auto" is what makes the shorter file."""

_NAMES = {QUANTISED: PHOTO, ABSORBING: DRAWING, STORED: "stored"}


@dataclass(frozen=True)
class Preview:
    """A picture on the way: the first `bytes_used` bytes complete `rung`, which it shows.

    `picture` is a Pillow image, or a DeepImage where there are colours of 16 bits; `complete` says
    whether the whole file was there when it was made.
    """

    bytes_used: int
    rung: int
    picture: Picture
    complete: bool

    @property
    def image(self) -> Image.Image:
        """The picture as Pillow's; raises ImageError for a DeepImage."""
        return to_pillow(self.picture)


@dataclass(frozen=True)
class Rung:
    """Where a rung ends: bytes from the start of the file, and those in bits per pixel."""

    rung: int
    bytes: int
    bpp: float


@dataclass(frozen=True)
class Info:
    """What a file says of itself.

    `process` is "photo", "drawing" or "stored", `space` the name of that whose integers are coded
    ("RGB", "JPEG's YCbCr"...; of grey "L"), `fitted` whether the model is fitted to the picture,
    `depth` the bits per sample, `model` the id of the
    weights in hexadecimal (empty if the samples are stored as they are), `checksum` the CRC-32 of
    the samples that are coded; `max_error` how far a sample of the picture can be from the original
    (None if the file was cut, 0 if it is lossless), `tile` the longest side of its tiles (0: it has
    none); `bytes` are there of `total_bytes` (which leave out the metadata while a prefix does
    not give their length). `metadata` has the bytes of each kind that is there ("EXIF", "XMP"...).
    """

    width: int
    height: int
    mode: str
    depth: int
    process: str
    space: str
    fitted: bool
    model: str
    checksum: int
    lossless: bool
    max_error: int | None
    tile: int
    complete: bool
    bytes: int
    total_bytes: int
    rungs: list[Rung]
    metadata: dict[str, int] = field(default_factory=dict)


@exact_arithmetic
def encode(
    image: Picture | NDArray,
    *,
    bpp: float | None = None,
    max_bytes: int | None = None,
    psnr: float | None = None,
    max_error: int | None = None,
    process: str = "auto",
    tile: int | None = None,
    fit: float | str | None = None,
    rgb: bool = False,
    strip: bool = False,
    model: StrPath | None = None,
    progress: Progress = ignore,
    saved: Callable[[int], None] = ignore,
    threads: int | None = None,
    device: str = "auto",
) -> bytes:
    """Encode a picture, bit for bit lossless unless one of the limits is given.

    What does not become smaller, such as noise, is stored as it is.

    Args:
        image: a picture of mode L, LA, RGB, RGBA, P, 1 or I;16 (a palette and a mode of one bit
            come back if the file is lossless), or an array uint8 or uint16
            [H, W] or [H, W, C] of grey, grey and alpha, RGB or RGBA, or a DeepImage, which is
            an array with metadata.
        bpp, max_bytes: the file, header and metadata included, is at most so large.
        psnr: the file is about the shortest whose picture reaches this quality, in dB over all
            samples.
        max_error: no sample of the picture differs by more than this (near-lossless); alpha by
            nothing. It goes with none of the other limits.
        strip: leave out all metadata but those without which it looks different: ICC profile,
            colour signalling, and which way up it is.
        process: one of PROCESSES. With a limit, "auto" takes a drawing only if all of it fits.
        tile: the longest side of the tiles of a photograph, from 64 to 2048, whose regions can be
            decoded alone then; 0 for none; None for tiles of 512 if it has more than four million
            pixels, which needs them.
        fit: fit the model to a photograph for about so many seconds, or "auto" for as long as
            usually pays: a smaller file, decoded about as fast. Of a picture in tiles it looks at
            some. It goes with no limit but `max_error`.
        model: a model file in place of the default one for pictures of that kind and size; it says
            by which process.
        progress: is called with the fraction of the work that is done.
        saved: is called with the bytes that the fit has saved so far, about.
        rgb: code a photograph as RGB even if all its colours are such that JPEG's, WebP's or Photo
            CD's conversion makes, so that integers of that space would tell it in fewer bytes.
            With a limit it always is: prefixes are better for it.
        threads: on which it computes; None for as many as PyTorch is set to use.
        device: where the network computes, "auto", "cpu" or "cuda".

    Raises ImageError for other modes, FormatError for a picture beyond the size limit, a byte
    limit that the header alone exceeds, impossible tiles or an impossible error, ModelError for an
    unusable model file.
    """
    mode, planes = to_planes(image)
    height, width = planes.shape[1:]
    cut = Cut(bpp, max_bytes, psnr)
    if max_error is not None and not cut.whole:
        raise ValueError("max_error goes with no other limit")
    if fit is not None and not (fit == "auto" or (isinstance(fit, int | float) and fit > 0)):
        raise ValueError(f"fit is a number of seconds or 'auto', not {fit!r}")
    if fit is not None and not cut.whole:
        raise ValueError("fit goes with no limit")
    boxes = {} if isinstance(image, np.ndarray) else metadata(image)
    if strip:
        boxes = orientation.stripped(boxes)
    if cut.whole and not max_error:  # other colours would have no entry
        boxes |= palette(image, planes)
    header = Header(
        codec=QUANTISED,
        mode=mode,
        width=width,
        height=height,
        model=b"",
        checksum=0,
        stream_bytes=0,
        lossless=True,
        depth=8 * planes.itemsize,
        step=2 * (max_error or 0) + 1,
    )
    container.check_size(width, height)
    if max_error:
        container.check_step(header.step, header.depth)
    if tile:
        container.check_tile(tile)
    planes = steps.numbers(header, planes)
    header = replace(header, checksum=container.checksum(planes))
    if process not in PROCESSES:
        raise ValueError(f"process is one of {', '.join(PROCESSES)}, not {process!r}")
    if process == "auto" and model is not None:
        process = DRAWING if files.process(model) == "absorbing" else PHOTO
    fitter = None if fit is None else _fitter(fit, saved)
    rgb = rgb or not cut.whole
    coded = _coded(header, planes, cut, boxes, process, tile, model, progress, fitter, rgb=rgb)
    progress(1.0)
    return container.write(
        *(coded or (replace(header, codec=STORED), stored.encode(planes))), boxes
    )


def decode(
    data: bytes,
    *,
    bpp: float | None = None,
    max_bytes: int | None = None,
    rung: int | None = None,
    region: tuple[int, int, int, int] | None = None,
    size: int | None = None,
    show: str = "mean",
    seed: int = 0,
    max_pixels: int | None = MAX_PIXELS,
    model: StrPath | None = None,
    progress: Progress = ignore,
    threads: int | None = None,
    device: str = "auto",
) -> Image.Image:
    """Decode a file or any prefix of one that has the header.

    Args:
        data: the bytes.
        bpp, max_bytes: use only so much of the file.
        rung: stop where this rung is done; what is stored has none, and is read whole.
        region: left, top, width and height in pixels of the part that is wanted. Of a picture in
            tiles only those that it meets are decoded, and the checksum is not looked at.
        size: the picture is reduced by the least whole factor that makes no side longer than so
            many pixels; only the rungs that it needs are decoded.
        show: how a prefix is shown, one of SHOWN; "sample" takes as long as a whole file.
        seed: of what "visual" and "sample" draw from the model's conditionals.
        max_pixels: a file that claims more is refused; None for no limit but the format's.
        model: the model file that the file was made with, if it is not an installed one.
        progress: is called with the fraction of the work that is done.
        threads: on which it computes; None for as many as PyTorch is set to use.
        device: where the network computes, "auto", "cpu" or "cuda".

    Raises FormatError if this is no .dfc file or has too many pixels, ModelError if its model is
    not there, CorruptError if a complete file does not decode to the pixels of its checksum,
    ImageError for a region outside the picture, or 16-bit samples in a mode that Pillow lacks (see
    `decode_picture` and `decode_array`).
    """
    planes, file = _read(
        data,
        bpp=bpp,
        max_bytes=max_bytes,
        rung=rung,
        region=region,
        size=size,
        show=show,
        seed=seed,
        max_pixels=max_pixels,
        model=model,
        progress=progress,
        threads=threads,
        device=device,
    )
    return to_pillow(_picture(file, planes))


def decode_picture(data: bytes, **options: Any) -> Picture:
    """Decode as `decode` does, with its options; colours of 16 bits come as a DeepImage."""
    planes, file = _read(data, **options)
    return _picture(file, planes)


def decode_array(data: bytes, **options: Any) -> NDArray:
    """Decode as `decode` does, with its options, to uint8 or uint16 [H, W] or [H, W, C]."""
    planes, _ = _read(data, **options)
    return planes[0] if len(planes) == 1 else np.ascontiguousarray(np.moveaxis(planes, 0, -1))


@exact_arithmetic
def decode_cuts(
    data: bytes,
    sizes: Iterable[int],
    *,
    show: str = "mean",
    seed: int = 0,
    max_pixels: int | None = MAX_PIXELS,
    model: StrPath | None = None,
    threads: int | None = None,
    device: str = "auto",
) -> Iterator[Picture]:
    """Decode many prefixes of a file, for little more than one decode.

    Args:
        data: the bytes.
        sizes: in bytes, of the prefixes; each has the header.
        show: how they are shown, "mean" or "visual".
        seed: as `decode` takes it.
        max_pixels, model, threads, device: as `decode` takes them.

    Yields the pictures, of shorter prefixes first. Raises as `decode` does.
    """
    _check_shown(show, SHOWN[:2])
    file = container.read(data)
    header = file.header
    check_pixels(header.pixels, max_pixels)
    lengths = [size - file.start for size in sizes]
    shown: Iterator[NDArray]
    if header.codec == STORED:
        shown = (stored.decode(header, file.stream[:length]) for length in sorted(lengths))
    else:
        codec, weights = _codec(header, model)
        shown = codec.cuts(weights, header, file.stream, lengths, **_visual(header, show, seed))
    for planes in shown:
        yield _picture(file, steps.values(header, planes))


@exact_arithmetic
def decode_progressive(
    source: bytes | BinaryIO,
    *,
    show: str = "mean",
    seed: int = 0,
    max_pixels: int | None = MAX_PIXELS,
    model: StrPath | None = None,
    threads: int | None = None,
    device: str = "auto",
) -> Iterator[Preview]:
    """Decode once and yield the picture after each rung, and after what is left of a prefix.

    A pipe, a socket's file or an HTTP response is read as its bytes arrive, and each picture
    comes as soon as its bytes are there, at the latest when a thirtieth more than those are: that
    is when a decoder that has run dry tries again. The network computes each step once.

    The last picture of a complete file is the original, with its metadata, which it waits for.
    `show` is "mean" or "visual"; the texture of the second differs from rung to rung, and takes
    about as long again. `seed`, `max_pixels`, `model`, `threads` and `device` are as `decode`
    takes them, and it raises what that does.
    """
    _check_shown(show, SHOWN[:2])
    delivery = Source(source)
    header, start = container.read_header(delivery.wait_for(container.MAX_HEADER))
    check_pixels(header.pixels, max_pixels)
    stream = Stream(delivery, start, header.stream_bytes)
    for used, rung, last, planes in _previews(header, stream, model, show, seed):
        if last:
            _wait_for_boxes(delivery)
        file = container.read(delivery.data)
        shown = _picture(file, steps.values(header, planes))
        yield Preview(start + used, rung, shown, file.complete)


@exact_arithmetic
def info(
    data: bytes,
    *,
    rungs: bool = True,
    model: StrPath | None = None,
    threads: int | None = None,
    device: str = "auto",
) -> Info:
    """Read what a file says of itself; with `rungs`, decode it to find where its rungs end.

    `model`, `threads` and `device` are for that, as `decode` takes them.

    Raises FormatError if this is no .dfc file, ModelError if `rungs` needs a model that is not
    there.
    """
    file = container.read(data)
    header = file.header
    return Info(
        width=header.width,
        height=header.height,
        mode=header.mode,
        depth=header.depth,
        process=_NAMES[header.codec],
        space=_space(header),
        fitted=header.fitted,
        model=header.model.hex(),
        checksum=header.checksum,
        lossless=header.lossless and header.step == 1,
        max_error=header.step // 2 if header.lossless else None,
        tile=header.tile,
        complete=file.complete,
        bytes=len(data),
        total_bytes=file.total_bytes,
        rungs=[
            Rung(rung, file.start + end, 8 * (file.start + end) / header.pixels)
            for rung, end in (_ends(file, model) if rungs else ())
        ],
        metadata=sizes(file.boxes),
    )


@exact_arithmetic
def sample(
    width: int,
    height: int,
    mode: str = "RGB",
    seed: int = 0,
    *,
    model: StrPath | None = None,
    progress: Progress = ignore,
    threads: int | None = None,
    device: str = "auto",
) -> Image.Image:
    """Draw a picture from the model: what a decoder finds in an empty prefix.

    `model`, `progress`, `threads` and `device` are as `decode` takes them.

    Raises FormatError for a size beyond the limit, ValueError for a mode that is not coded.
    """
    if mode not in container.MODES:
        raise ValueError(f"mode is one of {', '.join(container.MODES)}, not {mode!r}")
    container.check_size(width, height)
    weights = models.load(model or models.default(height, width))
    planes = quantised.sample(weights, mode, height, width, seed, progress)
    return to_pillow(from_planes(mode, planes))


def psnr(image: Picture, original: Picture) -> float:
    """PSNR in dB over all samples; infinite if they are equal.

    Raises ImageError unless both are of one size and depth and are coded in one mode.
    """
    mode, planes = to_planes(image)
    other_mode, other = to_planes(original)
    if (mode, planes.dtype, planes.shape) != (other_mode, other.dtype, other.shape):
        raise ImageError(
            f"cannot compare a picture of {original.width}x{original.height} {other_mode} "
            f"with one of {image.width}x{image.height} {mode}"
        )
    return quality.psnr(planes, other)


def _fitter(fit: float | str, saved: Callable[[int], None]) -> quantised.Fitter:
    """What fits a model to a picture; who does not ask for it does not load what trains."""
    from diffcodec.training import fitting

    seconds = None if isinstance(fit, str) else fit
    return partial(fitting.fit, seconds=seconds, saved=saved)


def _coded(
    header: Header,
    planes: NDArray,
    cut: Cut,
    boxes: Boxes,
    process: str,
    tile: int | None,
    model: StrPath | None,
    progress: Progress,
    fit: quantised.Fitter | None,
    *,
    rgb: bool,
) -> tuple[Header, bytes] | None:
    """Header and stream of a picture; None if its samples as they are take no more room."""

    own = model if process == DRAWING and model is not None else drawing_models.default()

    def photo(
        header: Header, planes: NDArray, progress: Progress, fit: quantised.Fitter | None = fit
    ) -> tuple[Header, bytes] | None:
        weights = None if model is None else models.load(model)
        header = replace(header, tile=tiled.side(header, tile))
        module: Any = tiled if header.tile else quantised
        return module.encode(weights, header, planes, cut, boxes, progress, fit, rgb=rgb)

    def drawing(
        header: Header, planes: NDArray, most: int, progress: Progress
    ) -> tuple[Header, bytes] | None:
        return absorbing.encode(drawing_models.load(own), header, planes, most, progress)

    if process == PHOTO:
        return photo(header, planes, progress)
    if process == DRAWING:
        made = drawing(header, planes, planes.nbytes, progress)
        if made is None or cut.whole:
            return made
        return absorbing.cut(drawing_models.load(own), *made, planes, cut, boxes)
    tried = choice.processes(planes)
    if not cut.whole:
        if DRAWING not in tried or cut.psnr is not None:
            return photo(header, planes, progress)
        full = replace(header, model=bytes(files.ID_BYTES))
        most = min(container.room(full, boxes, cut.size(header.pixels)), planes.nbytes)
        made = drawing(header, planes, most, part(progress, 0, 2))
        return made or photo(header, planes, part(progress, 1, 2))
    if len(tried) > 1 and header.pixels > choice.LARGE:
        sizes = dict.fromkeys(tried, 0)
        for patch in choice.patches(planes):
            small = replace(header, height=patch.shape[1], width=patch.shape[2])
            for one, coded in (
                (PHOTO, photo(small, patch, ignore, None)),
                (DRAWING, drawing(small, patch, patch.nbytes, ignore)),
            ):
                sizes[one] += patch.nbytes if coded is None else len(coded[1])
        tried = tuple(one for one in tried if sizes[one] <= choice.CLEAR * min(sizes.values()))
    shares = {one: part(progress, n, len(tried)) for n, one in enumerate(tried)}
    made = photo(header, planes, shares[PHOTO]) if PHOTO in tried else None
    most = planes.nbytes if made is None else len(made[1]) - 1
    return (drawing(header, planes, most, shares[DRAWING]) if DRAWING in tried else None) or made


@exact_arithmetic
def _read(
    data: bytes,
    *,
    bpp: float | None = None,
    max_bytes: int | None = None,
    rung: int | None = None,
    region: tuple[int, int, int, int] | None = None,
    size: int | None = None,
    show: str = "mean",
    seed: int = 0,
    max_pixels: int | None = MAX_PIXELS,
    model: StrPath | None = None,
    progress: Progress = ignore,
    threads: int | None = None,
    device: str = "auto",
) -> tuple[NDArray, File]:
    """The planes [C, H, W] of as much of a file as the limits allow, and that."""
    _check_shown(show, SHOWN)
    if size is not None and size < 1:
        raise ValueError(f"size is 1 or more, not {size}")
    header, start = container.read_header(data)
    check_pixels(header.pixels, max_pixels)
    box = Region(0, 0, header.width, header.height) if region is None else Region(*region)
    box.check(header.width, header.height)
    factor = 1 if size is None else -(-max(box.width, box.height) // size)
    if factor > 1:
        rung = max(rung or 0, reduction.rung(header, factor))
    limit = Cut(bpp, max_bytes).size(header.pixels)
    if limit is not None:
        data = data[: max(limit, start)]  # without its header there is no picture at all
    file = container.read(data)
    options: dict[str, Any] = {
        "rung": rung,
        "seed": seed if show == "sample" else None,
        "progress": progress,
    }
    if header.codec == QUANTISED and show == "visual":
        options |= {"seed": seed, "visual": True}
    if header.codec == STORED:
        planes = stored.decode(header, file.stream)[:, *box.place]
    elif header.tile:
        _, weights = _codec(header, model)
        planes = tiled.decode(weights, header, file.stream, region=box, **options)
    else:
        codec, weights = _codec(header, model)
        planes = codec.decode(weights, header, file.stream, **options)[:, *box.place]
    return steps.values(header, reduction.reduced(planes, factor)), file


def _previews(
    header: Header, stream: Stream, model: StrPath | None, show: str, seed: int
) -> Iterator[tuple[int, int, bool, NDArray]]:
    """As of `quantised.previews`, for any codec."""
    if header.codec == STORED:
        return stored.previews(header, stream)
    codec, weights = _codec(header, model)
    return codec.previews(weights, header, stream, **_visual(header, show, seed))


def _visual(header: Header, show: str, seed: int) -> dict[str, int | None]:
    """What the codec of a file is to know of how its prefixes are shown."""
    return {"visual": seed if show == "visual" else None} if header.codec == QUANTISED else {}


def _check_shown(show: str, ways: Sequence[str]) -> None:
    if show not in ways:
        raise ValueError(f"show is one of {', '.join(ways)}, not {show!r}")


def _space(header: Header) -> str:
    space = colour.space(header)
    return header.mode.removesuffix("A") if space is None else space.name


def _ends(file: File, model: StrPath | None) -> Iterator[tuple[int, int]]:
    """As of `quantised.ends`, for any codec."""
    if file.header.codec == STORED:
        return stored.ends(file.header, file.stream)
    if file.header.tile:
        return segments.ends(file.header, file.stream)
    codec, weights = _codec(file.header, model)
    return codec.ends(weights, file.header, file.stream)


def _codec(header: Header, path: StrPath | None) -> tuple[Any, Any]:
    """The module that decodes a picture's stream, and the model that it needs."""
    module: Any = tiled if header.tile else quantised
    kind: Any = models
    if header.codec == ABSORBING:
        module, kind = absorbing, drawing_models
    if path is None:
        return module, kind.find(header.model)
    model = kind.load(path)
    files.check(header.model, model.id, path)
    return module, model


def _picture(file: File, planes: NDArray) -> Picture:
    """A picture with its metadata, from planes of its samples."""
    return from_planes(file.header.mode, planes, file.boxes)


def _wait_for_boxes(source: Source) -> None:
    """Read a source up to the end of the file in it."""
    while not source.ended and not (file := container.read(source.data)).complete:
        source.wait_for(max(file.total_bytes, len(source.data) + 1))
