"""How a picture sharpens with its bytes: a page to play with, an animation, a contact sheet."""

import base64
import html
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import diffcodec
from diffcodec.errors import ImageError

TEMPLATE = Path(__file__).with_name("viewer.html")

SIDE = 1600
"""Longest side of the pictures that are shown; larger ones are reduced."""

REDUCED_QUALITY = 90
"""WebP's quality for reduced pictures: their pixels are not the file's in any case."""

FRAME_MS, LAST_MS = 400, 2000
"""How long an animation shows its frames, and the last one."""

COLUMNS, THUMBNAIL, GAP = 4, 320, 12
"""Contact sheet: columns, longest side of a thumbnail and spaces, in pixels."""


@dataclass(frozen=True)
class Frame:
    """What the first `bytes` of a file show, in 8 bits, and its PSNR (dB) against the last."""

    bytes: int
    bpp: float
    psnr: float
    image: Image.Image

    @property
    def label(self) -> str:
        """What stands below the picture."""
        quality = "final" if math.isinf(self.psnr) else f"{self.psnr:.1f} dB"
        return f"{self.bytes:,} bytes · {self.bpp:.2f} bpp · {quality}"


def write(data: bytes, path: Path, title: str = "", **computing: Any) -> None:
    """Write what the suffix of `path` asks for: .html, .gif, .webp or .png (a contact sheet).

    `title` stands over the page; `computing` is what `decode_progressive` takes. Raises
    ImageError for other suffixes or if the file cannot be written, and what `decode_progressive`
    raises.
    """
    writers = {".html": _page, ".gif": _gif, ".webp": _webp, ".png": _sheet}
    if path.suffix.lower() not in writers:
        raise ImageError(f"cannot write {path}: a preview is one of {' '.join(writers)}")
    diffcodec.write_atomically(path, writers[path.suffix.lower()](frames(data, **computing), title))


def frames(data: bytes, *, show: str = "mean", **computing: Any) -> list[Frame]:
    """The pictures at the ends of the rungs of a file; of several at one byte, the last.

    Those of a set at its milestones, in a grid. Raises as `decode_progressive` or
    `decode_set_progressive` does.
    """
    if diffcodec.is_set(data):
        return _set_frames(data, **computing)
    shown = diffcodec.decode_progressive(data, show=show, **computing)
    previews = {p.bytes_used: p.picture for p in shown}
    last = previews[max(previews)]
    pixels = last.width * last.height
    return [
        Frame(used, 8 * used / pixels, diffcodec.psnr(image, last), _shown(image))
        for used, image in sorted(previews.items())
    ]


def _set_frames(data: bytes, **computing: Any) -> list[Frame]:
    shown = diffcodec.decode_set_progressive(data, **computing)
    previews = {p.bytes_used: p.images for p in shown}
    last = _row(previews[max(previews)])
    return [
        Frame(
            used,
            8 * used / last.width,
            diffcodec.psnr(_row(images), last),
            diffcodec.grid(images),
        )
        for used, images in sorted(previews.items())
    ]


def _row(images: list[Image.Image]) -> Image.Image:
    """All pixels of pictures in one row: no part of a grid is empty."""
    rows = [np.asarray(image).reshape(1, -1, 3) for image in images]
    return Image.fromarray(np.concatenate(rows, 1))


def _shown(picture: diffcodec.Picture) -> Image.Image:
    """The picture as a screen shows it."""
    return diffcodec.to_pillow(diffcodec.upright(diffcodec.eight_bits(picture)))


def _page(shown: list[Frame], title: str) -> bytes:
    """One HTML page that needs nothing else."""
    last = shown[-1]
    width, height = _reduced(last).size
    content = {
        "pixels": round(8 * last.bytes / last.bpp),
        "width": width,
        "height": height,
        "frames": [
            {
                "bytes": frame.bytes,
                "psnr": None if math.isinf(frame.psnr) else frame.psnr,  # JSON has no infinity
                "src": _data_uri(frame),
            }
            for frame in shown
        ],
    }
    text = TEMPLATE.read_text(encoding="utf-8").replace("{{content}}", json.dumps(content))
    return text.replace("{{title}}", html.escape(title)).encode()


def _data_uri(frame: Frame) -> str:
    """The picture itself."""
    stream = io.BytesIO()
    image, options = _reduced(frame), _webp_options(frame)
    if image.info.get("icc_profile"):
        options["icc_profile"] = image.info["icc_profile"]
    image.save(stream, "WEBP", **options)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _webp_options(frame: Frame) -> dict[str, Any]:
    """Without loss, unless it is reduced: lossy WebP halves the resolution of colours."""
    return {"quality": REDUCED_QUALITY} if _is_large(frame) else {"lossless": True}


def _is_large(frame: Frame) -> bool:
    return max(frame.image.size) > SIDE


def _reduced(frame: Frame) -> Image.Image:
    """The frame's picture, no larger than SIDE."""
    image = frame.image
    if _is_large(frame):
        image = image.copy()
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return image


def _gif(shown: list[Frame], _: str) -> bytes:
    return _animation(shown, "GIF", {})


def _webp(shown: list[Frame], _: str) -> bytes:
    return _animation(shown, "WEBP", _webp_options(shown[0]))


def _animation(shown: list[Frame], format: str, options: dict[str, Any]) -> bytes:
    """The pictures one after the other, without end."""
    mode = "RGBA" if shown[0].image.mode.endswith("A") else "RGB"
    first, *rest = [_reduced(frame).convert(mode) for frame in shown]
    stream = io.BytesIO()
    first.save(
        stream,
        format,
        save_all=True,
        append_images=rest,
        duration=[FRAME_MS] * len(rest) + [LAST_MS],
        loop=0,
        **options,
    )
    return stream.getvalue()


def _sheet(shown: list[Frame], _: str) -> bytes:
    """All pictures in rows, each with its label below."""
    font = ImageFont.load_default(13)
    scale = THUMBNAIL / max(shown[-1].image.size)
    width, height = (max(1, round(scale * side)) for side in shown[-1].image.size)
    cell = max(width, math.ceil(max(font.getlength(frame.label) for frame in shown)))
    columns = min(COLUMNS, len(shown))
    line = 22
    size = (
        GAP + columns * (cell + GAP),
        GAP + math.ceil(len(shown) / columns) * (height + line + GAP),
    )
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    # Enlarged pictures show their pixels as they are.
    resample = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    for number, frame in enumerate(shown):
        left = GAP + number % columns * (cell + GAP)
        top = GAP + number // columns * (height + line + GAP)
        picture = _reduced(frame).convert("RGBA").resize((width, height), resample)
        sheet.paste(picture, (left, top), picture)
        draw.text((left, top + height + 4), frame.label, "#333", font)
    stream = io.BytesIO()
    sheet.save(stream, "PNG")
    return stream.getvalue()
