"""ProPhy: token-level physics for text-to-video diffusion transformers (arXiv 2512.05564).

The names below are found on first use: importing this package alone imports nothing else of it, and no torch.
"""

from importlib import import_module

_FOUND_IN = {
    "load": "prophy.generation.pipelines",
    "ProPhyWanPipeline": "prophy.backbones.wan",
    "ProPhyCogVideoXPipeline": "prophy.backbones.cogvideox",
    "ProPhyBranch": "prophy.backbones.pipeline",
}

__all__ = ["ProPhyBranch", "ProPhyCogVideoXPipeline", "ProPhyWanPipeline", "load"]


def __getattr__(name: str):
    if name not in _FOUND_IN:
        raise AttributeError(f"module 'prophy' has no attribute {name!r}")
    return getattr(import_module(_FOUND_IN[name]), name)
