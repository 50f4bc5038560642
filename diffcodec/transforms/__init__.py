"""Reversible transforms: integers in, integers out."""

from diffcodec.transforms.colour import exchanged, rgb_to_ycocg, ycocg_to_rgb

__all__ = ["exchanged", "rgb_to_ycocg", "ycocg_to_rgb"]
