"""Training: imports torch, numpy, Pillow and safetensors only, but for `drawings`, which codes."""

from diffcodec.training.export import export
from diffcodec.training.finetuning import fit
from diffcodec.training.loop import train
from diffcodec.training.recipes import RECIPES, varied
from diffcodec.training.sources import pack

__all__ = ["RECIPES", "export", "fit", "pack", "train", "varied"]
