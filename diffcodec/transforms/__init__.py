"""Reversible transforms: integers in, integers out."""

from diffcodec.transforms.colour import exchanged, rgb_to_ycocg, ycocg_to_rgb
from diffcodec.transforms.wavelet import forward, inverse

__all__ = ["exchanged", "forward", "inverse", "rgb_to_ycocg", "ycocg_to_rgb"]
