"""What the benchmark imports that a machine may lack (no torch)."""

from __future__ import annotations

from importlib.util import find_spec

#: Modules that every part imports, of packages besides torch's own needs.
NEEDED = (
    "torch",
    "diffusers",
    "transformers",
    "accelerate",
    "peft",
    "safetensors",
    "pydantic",
    "pymunk",
    "cv2",
    "tqdm",
    "regex",
)
WRITES_CLIPS = "av"  #: without it no clip can be written, and part f compares frames only


def missing_packages() -> list[str]:
    """Those of :data:`NEEDED` that cannot be imported here."""
    return [name for name in NEEDED if find_spec(name) is None]


def can_write_clips() -> bool:
    """Whether clips can be written here."""
    return find_spec(WRITES_CLIPS) is not None
