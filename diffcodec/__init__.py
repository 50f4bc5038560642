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

from diffcodec.exact import forks  # noqa: F401 - it must be loaded before a fork
from diffcodec.pictures import plugin

if TYPE_CHECKING:
    from diffcodec.api import (
        Info,
        Preview,
        Rung,
        decode,
        decode_array,
        decode_cuts,
        decode_picture,
        decode_progressive,
        encode,
        info,
        psnr,
        sample,
    )
    from diffcodec.container import (
        is_set,
    )
    from diffcodec.density import (
        grid,
        model_likelihood,
        sample_set,
    )
    from diffcodec.pictures.formats import (
        check_suffix,
        check_target,
    )
    from diffcodec.pictures.images import (
        DeepImage,
        Picture,
        coded_kind,
        eight_bits,
        lean,
        picture_suffixes,
        to_pillow,
    )
    from diffcodec.pictures.orientation import (
        upright,
    )
    from diffcodec.pictures.reading import (
        read_image,
    )
    from diffcodec.pictures.writing import (
        write_atomically,
        write_image,
    )
    from diffcodec.sets import (
        CodedSet,
        Method,
        Milestone,
        SetGroup,
        SetInfo,
        SetPreview,
        decode_set,
        decode_set_progressive,
        encode_set,
        set_info,
    )

__version__ = "0.1.0"
__all__ = [
    "CodedSet",
    "DeepImage",
    "Info",
    "Method",
    "Milestone",
    "Picture",
    "Preview",
    "Rung",
    "SetGroup",
    "SetInfo",
    "SetPreview",
    "check_suffix",
    "check_target",
    "coded_kind",
    "decode",
    "decode_array",
    "decode_cuts",
    "decode_picture",
    "decode_progressive",
    "decode_set",
    "decode_set_progressive",
    "eight_bits",
    "encode",
    "encode_set",
    "grid",
    "info",
    "is_set",
    "lean",
    "model_likelihood",
    "picture_suffixes",
    "psnr",
    "read_image",
    "sample",
    "sample_set",
    "set_info",
    "to_pillow",
    "upright",
    "write_atomically",
    "write_image",
]

_MODULES = {
    "container": ("is_set",),
    "density": (
        "grid",
        "model_likelihood",
        "sample_set",
    ),
    "pictures.formats": (
        "check_suffix",
        "check_target",
    ),
    "pictures.images": (
        "DeepImage",
        "Picture",
        "coded_kind",
        "eight_bits",
        "lean",
        "picture_suffixes",
        "to_pillow",
    ),
    "pictures.orientation": ("upright",),
    "pictures.reading": ("read_image",),
    "pictures.writing": (
        "write_atomically",
        "write_image",
    ),
    "sets": (
        "CodedSet",
        "Method",
        "Milestone",
        "SetGroup",
        "SetInfo",
        "SetPreview",
        "decode_set",
        "decode_set_progressive",
        "encode_set",
        "set_info",
    ),
}
"""The names that are not in `api`."""

_MODULE = {name: module for module, names in _MODULES.items() for name in names}

plugin.register()


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(f"diffcodec.{_MODULE.get(name, 'api')}"), name)
    raise AttributeError(f"module 'diffcodec' has no attribute {name!r}")
