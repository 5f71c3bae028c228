"""Flags that several commands have, and what was given (no torch)."""

from __future__ import annotations

import argparse
import math
import re
from typing import Any, Literal


def add_model(parser: argparse.ArgumentParser, *, default: str = "the embedded model", branch: bool = False) -> None:
    """``--model``, and with ``branch`` also ``--variant``, ``--lora``, ``--device``, ``--branch`` and ``--no-branch``.

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
        parser.add_argument("--device", help="such as cpu or cuda:1 (default: the accelerator, if there is one)")
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


def add_sampling(parser: argparse.ArgumentParser, default: str = "the model's") -> None:
    """Steps, guidance and what belongs to them, which :func:`sampling_of` reads."""
    parser.add_argument("--steps", type=int, help=f"denoising steps (default: {default})")
    parser.add_argument("--guidance", type=float, help=f"classifier-free guidance scale (default: {default})")
    parser.add_argument(
        "--guidance-2", type=float, metavar="SCALE", help=f"guidance at low noise, of Wan2.2 A14B (default: {default})"
    )
    parser.add_argument(
        "--negative-prompt", metavar="TEXT", help=f"what guidance leads away from; '' for nothing (default: {default})"
    )
    parser.add_argument(
        "--flow-shift", type=float, metavar="SHIFT", help="of a flow such as Wan: higher, more steps at high noise"
    )
    parser.add_argument("--sampler", choices=("euler", "unipc"), help="of a flow (default: the model's scheduler)")
    parser.add_argument(
        "--few-steps",
        nargs="?",
        type=whole,
        const=4,
        metavar="N",
        help="for distilled models and LoRAs: N steps (default: 4), no guidance, hence one pass a step, shift 5, euler",
    )


def sampling_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the flags of :func:`add_sampling` chose, as ``GenerationSettings.changed`` takes it."""
    names = ("few_steps", "steps", "guidance", "guidance_2", "negative_prompt", "flow_shift", "sampler")
    return only_set(arguments, *names)


def weights_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Which weights to open besides the branch, and where, as :func:`prophy.generation.pipelines.load` takes them."""
    return {"loras": arguments.lora, "variant": arguments.variant, "device": arguments.device}


def whole(text: str) -> int:
    """The ``type`` of a flag that counts something: a whole number from 1.

    Raises:
        argparse.ArgumentTypeError: anything else.
    """
    return _whole(text, 1, 10**9)


def none_or_more(text: str) -> int:
    """The ``type`` of a flag that counts something of which there may be none.

    Raises:
        argparse.ArgumentTypeError: no whole number from 0.
    """
    return _whole(text, 0, 10**9)


def seeds(text: str) -> int:
    """The ``type`` of a seed: a whole number from 0 to 2^63 - 1.

    Raises:
        argparse.ArgumentTypeError: anything else.
    """
    return _whole(text, 0, 2**63 - 1)


def _whole(text: str, least: int, most: int) -> int:
    # at most 20 digits: Python refuses thousands of them with an error of its own
    if not re.fullmatch(r"-?[0-9]{1,20}", text) or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} must be a whole number from {least} to {most}")
    return int(text)


def time_limit(text: str) -> float:
    """The ``type`` of a time limit: minutes, from 0.

    Raises:
        argparse.ArgumentTypeError: anything else.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1e7:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} must be a number of minutes from 0")
    return value


def only_set(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The flags among ``names`` that were set, by name; the others keep the defaults of what takes them."""
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}
