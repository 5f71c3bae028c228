"""Variants of weight files, such as ``fp16``: which one is opened, where there are no plain ones."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from prophy.catalogue.describe import is_local
from prophy.files import visible

_NAME_IT = "say which with --variant, or variant= in Python"


def variant_in(folder: Path, index: dict[str, Any], variant: str | None, given: Collection[str]) -> str | None:
    """Which variant of a model's weight files to open; None for the plain ones.

    Args:
        folder: of the model.
        index: its ``model_index.json``.
        variant: asked for.
        given: parts that are not opened from there.

    Raises:
        ValueError: parts without plain ones have several, or not the one asked for.
    """
    needed: set[str] = set()
    offered: set[str] = set()
    for name in sorted(index.keys() - set(given)):
        variants = _variants(visible(folder / name))
        if variants and "" not in variants and variant not in variants:
            if len(variants) > 1 or variant is not None:
                raise ValueError(f"{folder / name} holds its weights as {' and '.join(sorted(variants))}: {_NAME_IT}")
            needed |= variants
        offered |= variants - {""}
    if len(needed) > 1:
        raise ValueError(f"the parts of {folder} need different variants ({', '.join(sorted(needed))}): {_NAME_IT}")
    if variant is not None and variant not in offered:
        has = f"it has {', '.join(sorted(offered))}" if offered else "it has the plain ones only"
        raise ValueError(f"{folder} holds no weights of the variant {variant}: {has}")
    return variant or next(iter(needed), None)


def variant_beside(
    folder: str | Path, variant: str | None = None, weights: str = "diffusion_pytorch_model"
) -> str | None:
    """Which variant of the weights in a folder of one part to open: the one asked for, else none, else the only one.

    Args:
        folder: of the part, or a hub id.
        variant: asked for.
        weights: how the names of its files begin; those of transformers' parts with ``model``.

    Returns:
        None for the plain ones, and for a hub id.

    Raises:
        ValueError: there are no plain ones but several variants, and none of them was asked for.
    """
    files = visible(Path(folder), f"{weights}*") if is_local(folder) else []
    variants = _variants(files)
    if variant in variants:
        return variant
    if not variants or "" in variants:
        return None
    if len(variants) > 1:
        raise ValueError(f"{folder} holds its weights as {' and '.join(sorted(variants))}: {_NAME_IT}")
    return next(iter(variants))


def _variants(files: Iterable[Path]) -> set[str]:
    """The variants of a part's weight files, such as ``fp16``; empty text for the plain ones."""
    names = (re.fullmatch(r"[^.]+?(?:\.([^.]+?))?(?:-\d+-of-\d+)?\.(?:safetensors|bin)", p.name) for p in files)
    return {name.group(1) or "" for name in names if name}
