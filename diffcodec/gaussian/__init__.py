"""The Gaussian process: a diffusion model of pictures, its objectives, likelihood and samplers.

The names below are loaded on first use; what is done with a model is in the modules `elbo`,
`likelihood` and `samplers`. docs/gaussian.md is their page.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffcodec.gaussian.chain import Chain, load
    from diffcodec.gaussian.decoder import to_data, to_pixels
    from diffcodec.gaussian.model import ByStep, GaussianModel
    from diffcodec.gaussian.parameterisation import Prediction
    from diffcodec.gaussian.process import (
        Gaussian,
        flow_time,
        from_alpha_bar,
        from_flow_time,
        from_ve_sigma,
        to_ve,
        to_vp,
        ve_sigma,
    )
    from diffcodec.gaussian.schedule import (
        Cosine,
        DiscreteBetas,
        Learned,
        LinearBeta,
        LinearLogSnr,
        Schedule,
        Tabulated,
        cosine_betas,
        linear_betas,
    )

__all__ = [
    "ByStep",
    "Chain",
    "Cosine",
    "DiscreteBetas",
    "Gaussian",
    "GaussianModel",
    "Learned",
    "LinearBeta",
    "LinearLogSnr",
    "Prediction",
    "Schedule",
    "Tabulated",
    "cosine_betas",
    "flow_time",
    "from_alpha_bar",
    "from_flow_time",
    "from_ve_sigma",
    "linear_betas",
    "load",
    "to_data",
    "to_pixels",
    "to_ve",
    "to_vp",
    "ve_sigma",
]

_MODULES = {
    "chain": ("Chain", "load"),
    "decoder": ("to_data", "to_pixels"),
    "model": ("ByStep", "GaussianModel"),
    "parameterisation": ("Prediction",),
    "process": (
        "Gaussian",
        "flow_time",
        "from_alpha_bar",
        "from_flow_time",
        "from_ve_sigma",
        "to_ve",
        "to_vp",
        "ve_sigma",
    ),
    "schedule": (
        "Cosine",
        "DiscreteBetas",
        "Learned",
        "LinearBeta",
        "LinearLogSnr",
        "Schedule",
        "Tabulated",
        "cosine_betas",
        "linear_betas",
    ),
}

_MODULE = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULE:
        return getattr(import_module(f"diffcodec.gaussian.{_MODULE[name]}"), name)
    raise AttributeError(f"module 'diffcodec.gaussian' has no attribute {name!r}")
