"""Reversible transforms: integers in, integers out."""

from diffcodec.transforms.colour import GREENS, exchanged, rgb_to_ycocg, ycocg_to_rgb

__all__ = ["GREENS", "exchanged", "rgb_to_ycocg", "ycocg_to_rgb"]
