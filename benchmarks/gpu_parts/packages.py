"""What the benchmark imports that a machine may lack (no torch)."""

from __future__ import annotations

from importlib.util import find_spec

#: Modules of the packages that ``prophy`` needs for the parts, but for what every installation of torch brings.
NEEDED = (
    "torch",
    "diffusers",
    "transformers",
    "accelerate",
    "peft",
    "safetensors",
    "pydantic",
    "av",
    "cv2",
    "tqdm",
    "regex",
    "ftfy",
)


def missing_packages() -> list[str]:
    """Those of :data:`NEEDED` that cannot be imported here."""
    return [name for name in NEEDED if find_spec(name) is None]
