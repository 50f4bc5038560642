"""Training: imports torch, numpy, Pillow and safetensors only."""

from diffcodec.training.export import export
from diffcodec.training.loop import train

__all__ = ["export", "train"]
