"""ProPhy: token-level physics for text-to-video diffusion transformers (arXiv 2512.05564).

The names below are found on first use: importing this package alone imports nothing else of it, and no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prophy.backbones.cogvideox import ProPhyCogVideoXPipeline
    from prophy.backbones.wan import ProPhyWanPipeline
    from prophy.branch.attach import Attachment, attach
    from prophy.branch.model import ProPhyBranch
    from prophy.generation.generate import Generation, generate
    from prophy.generation.pipelines import load
    from prophy.generation.settings import GenerationSettings
    from prophy.grid import TokenGrid
    from prophy.routing.attention import AttentionTrace
    from prophy.routing.schedule import Schedule
    from prophy.routing.steering import Steering
    from prophy.routing.targets import TokenTargets
    from prophy.routing.trace import RoutingTrace
    from prophy.runs.record import RunRecord
    from prophy.runs.store import Run, list_runs, read_run

__version__ = "0.1.0"

__all__ = [
    "Attachment",
    "AttentionTrace",
    "Generation",
    "GenerationSettings",
    "ProPhyBranch",
    "ProPhyCogVideoXPipeline",
    "ProPhyWanPipeline",
    "RoutingTrace",
    "Run",
    "RunRecord",
    "Schedule",
    "Steering",
    "TokenGrid",
    "TokenTargets",
    "__version__",
    "attach",
    "generate",
    "list_runs",
    "load",
    "read_run",
]

_FOUND_IN = {
    "prophy.branch.attach": ("Attachment", "attach"),
    "prophy.generation.generate": ("Generation", "generate"),
    "prophy.generation.settings": ("GenerationSettings",),
    # Importing anything of backbones/ registers the families, which a branch that is opened by its class needs too.
    "prophy.backbones.pipeline": ("ProPhyBranch",),
    "prophy.backbones.cogvideox": ("ProPhyCogVideoXPipeline",),
    "prophy.backbones.wan": ("ProPhyWanPipeline",),
    "prophy.generation.pipelines": ("load",),
    "prophy.grid": ("TokenGrid",),
    "prophy.routing.attention": ("AttentionTrace",),
    "prophy.routing.schedule": ("Schedule",),
    "prophy.routing.steering": ("Steering",),
    "prophy.routing.targets": ("TokenTargets",),
    "prophy.routing.trace": ("RoutingTrace",),
    "prophy.runs.record": ("RunRecord",),
    "prophy.runs.store": ("Run", "list_runs", "read_run"),
}
_MODULE_OF = {name: module for module, names in _FOUND_IN.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'prophy' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
