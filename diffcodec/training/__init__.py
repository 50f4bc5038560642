"""Training: imports torch, numpy, Pillow and safetensors only."""

from diffcodec.training.drawings import learn
from diffcodec.training.export import export
from diffcodec.training.loop import train
from diffcodec.training.sources import pack

__all__ = ["export", "learn", "pack", "train"]
