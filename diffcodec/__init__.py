"""diffcodec: a progressive, bit-for-bit lossless image codec with a diffusion model inside.

    import diffcodec
    data = diffcodec.encode(Image.open("photo.png"))
    image = diffcodec.decode(data)             # identical pixels
    rough = diffcodec.decode(data[:5000])      # any prefix is a picture

The names below are loaded on first use, so that `diffcodec.training` runs where the entropy
coder is not installed and the command line can print its help without loading torch. Importing
the package makes Pillow open and save .dfc files.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from diffcodec import pillow_plugin
from diffcodec.exact import forks  # noqa: F401 - it must be loaded before a fork

if TYPE_CHECKING:
    from diffcodec.api import (
        Info,
        Preview,
        Rung,
        decode,
        decode_array,
        decode_picture,
        decode_progressive,
        encode,
        info,
        sample,
    )
    from diffcodec.bitstream import is_set
    from diffcodec.sets import (
        CodedSet,
        Milestone,
        SetGroup,
        SetInfo,
        decode_set,
        encode_set,
        model_likelihood,
        sample_set,
        set_info,
    )

__version__ = "0.1.0"
__all__ = [
    "CodedSet",
    "Info",
    "Milestone",
    "Preview",
    "Rung",
    "SetGroup",
    "SetInfo",
    "decode",
    "decode_array",
    "decode_picture",
    "decode_progressive",
    "decode_set",
    "encode",
    "encode_set",
    "info",
    "is_set",
    "model_likelihood",
    "sample",
    "sample_set",
    "set_info",
]

_ELSEWHERE = {"is_set": "bitstream"} | dict.fromkeys(
    (
        "CodedSet",
        "Milestone",
        "SetGroup",
        "SetInfo",
        "decode_set",
        "encode_set",
        "model_likelihood",
        "sample_set",
        "set_info",
    ),
    "sets",
)
"""The modules of names that are not in `api`."""

pillow_plugin.register()


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(f"diffcodec.{_ELSEWHERE.get(name, 'api')}"), name)
    raise AttributeError(f"module 'diffcodec' has no attribute {name!r}")
