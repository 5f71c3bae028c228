"""Flags that several commands have, and what was given (no torch)."""

from __future__ import annotations

import argparse
from typing import Any, Literal


def add_model(parser: argparse.ArgumentParser, *, default: str = "the embedded model", branch: bool = False) -> None:
    """``--model``, and with ``branch`` also ``--variant``, ``--lora`` and ``--branch`` or ``--no-branch``.

    :func:`branch_of` and :func:`weights_of` read them.

    Args:
        parser: of the command.
        default: what is opened without the flag, in words.
        branch: whether the command opens a branch beside the model.
    """
    parser.add_argument("--model", metavar="ID_OR_DIR", help=f"a diffusers folder or hub id (default: {default})")
    if branch:
        parser.add_argument(
            "--variant",
            help="which of its weight files, such as fp16 (default: the plain ones, or the only ones there are)",
        )
        parser.add_argument(
            "--lora",
            action="append",
            default=[],
            metavar="FILE_OR_ID[:STRENGTH]",
            help="a LoRA of the backbone, such as motion.safetensors:0.8; before it high= or low= for one of Wan2.2 "
            "A14B's two transformers. Repeat for more",
        )
        which = parser.add_mutually_exclusive_group()
        which.add_argument(
            "--branch",
            metavar="ID_OR_DIR",
            help="a branch's folder or hub id (default: the model's own, in its branch/ folder)",
        )
        which.add_argument("--no-branch", action="store_true", help="the backbone alone: no physics, no routing")


def branch_of(arguments: argparse.Namespace) -> str | Literal[False] | None:
    """Which branch to open beside the model, as :func:`prophy.generation.pipelines.load` takes it."""
    return False if arguments.no_branch else arguments.branch


def weights_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Which weights to open besides the branch, as :func:`prophy.generation.pipelines.load` takes them."""
    return {"loras": arguments.lora, "variant": arguments.variant}


def only_set(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The flags among ``names`` that were set, by name; the others keep the defaults of what takes them."""
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}
