"""Flags that several commands have, and what was given (no torch)."""

from __future__ import annotations

import argparse
from typing import Any, Literal


def add_model(parser: argparse.ArgumentParser, *, default: str = "the embedded model", branch: bool = False) -> None:
    """``--model``, and with ``branch`` also ``--branch`` or ``--no-branch``, which :func:`branch_of` reads.

    Args:
        parser: of the command.
        default: what is opened without the flag, in words.
        branch: whether the command opens a branch beside the model.
    """
    parser.add_argument("--model", metavar="ID_OR_DIR", help=f"a diffusers folder or hub id (default: {default})")
    if branch:
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


def only_set(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The flags among ``names`` that were set, by name; the others keep the defaults of what takes them."""
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}
