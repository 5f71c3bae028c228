"""Models that are measured beside ``--model``: what ``--column NAME=DIR`` names."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from diffusers import ModelMixin
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE

from prophy.backbones import backbone_of
from prophy.backbones.opening import part_opened
from prophy.backbones.pipeline import ProPhyPipeline
from prophy.backbones.variants import variant_beside
from prophy.branch.family import FAMILIES
from prophy.generation.pipelines import load
from prophy.schema import read_object

#: one of which every ``--column`` has: a pipeline's; a transformer's or a branch's; a published LoRA's or transformer's
_COLUMN_FILES = ("model_index.json", "config.json", LORA_WEIGHT_NAME_SAFE, "transformer/config.json")
_AGAIN = "copy or publish it again"


def add_columns(parser: argparse.ArgumentParser) -> None:
    """``--column``, which :func:`columns_of` reads."""
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="another model beside --model, such as LoRA=runs/lora/published: what prophy publish wrote, a diffusers "
        "folder, or the folder of a transformer that replaces the model's. Repeat for more",
    )


def columns_of(arguments: argparse.Namespace, taken: Sequence[str]) -> dict[str, Callable[[], ProPhyPipeline]]:
    """What opens each ``--column``, by its name.

    Args:
        arguments: with ``column`` and ``model``.
        taken: names of the measure's own columns.

    Raises:
        ValueError: no NAME=DIR, or a name that is taken.
        FileNotFoundError: a folder that holds no model.
    """
    columns: dict[str, Callable[[], ProPhyPipeline]] = {}
    for column in arguments.column:
        name, _, folder = column.partition("=")
        if not name or not folder or name in (*columns, *taken):
            raise ValueError(f"--column {column}: give NAME=DIR, each name once and none of {', '.join(taken)}")
        if not any((Path(folder) / file).is_file() for file in _COLUMN_FILES):  # before other columns take minutes
            raise FileNotFoundError(f"--column {column}: {folder} holds none of {', '.join(_COLUMN_FILES)}")
        columns[name] = partial(_load_column, arguments.model, Path(folder))
    return columns


def _load_column(model: str | None, folder: Path) -> ProPhyPipeline:
    """A whole model; a transformer instead of ``model``'s; or what ``prophy publish`` wrote, beside ``model``."""
    if (folder / "model_index.json").is_file():
        return load(folder)
    config = folder / "config.json"
    if config.is_file() and read_object(config, _AGAIN).get("_class_name") in FAMILIES:
        return load(model, branch=False, transformer=transformer_in(folder))
    return load(model, branch=folder)


def transformer_in(folder: Path) -> ModelMixin:
    """The transformer in a folder, of any registered family.

    Raises:
        ValueError: the folder holds a model of another class, or a damaged one.
    """
    name = read_object(folder / "config.json", _AGAIN).get("_class_name")
    with part_opened(folder):
        return backbone_of(str(name)).transformer_class.from_pretrained(folder, variant=variant_beside(folder))
