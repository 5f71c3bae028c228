"""``prophy publish RUN``: a run's averaged weights as a model folder, with a card that says how they were made.

The branch lies in the folder itself, an adaptation of the backbone beside it as ``pytorch_lora_weights.safetensors``, a
backbone that was trained whole in ``transformer/``; ``training/`` holds recipe, log and curves.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch

from prophy.backbones import backbone_of
from prophy.branch import ProPhyBranch
from prophy.catalogue.check import check_branch, check_config
from prophy.files import exclusive, replace_folder, write_text
from prophy.training.about import RUN_FILE, About
from prophy.training.checkpoints import load_checkpoint
from prophy.training.curves import save_page
from prophy.training.log import LOG_FILE, Line, read_lines
from prophy.training.recipe import Recipe
from prophy.training.run_folder import CHECKPOINT
from prophy.training.trainable import lora_config

T = TypeVar("T")


@exclusive("publishing", beside=True)
def publish(run: Path, out: Path) -> Path:
    """Write the model folder of a run, whole or not at all; one that exists is replaced.

    Args:
        run: a folder that ``prophy train`` made; it may still be training.
        out: the folder to write.

    Raises:
        FileNotFoundError: the run has no checkpoint yet.
        ValueError: a damaged run, one of another release, weights that are not finite, or another process publishes
            there. One line.
    """
    run, out = Path(run), Path(out)
    about = About.read(run) if (run / RUN_FILE).is_file() else None
    if about is not None and about.transformer is None:
        raise ValueError(f"{run} trained no transformer: only backbones and branches are published")
    state = load_checkpoint(run / CHECKPOINT, ("recipe", "step", "still", "ema"))
    if about is None or about.transformer is None or state is None:
        raise FileNotFoundError(f"{run} holds no checkpoint: give a folder that prophy train wrote, once it has saved")
    recipe = Recipe.from_record(state["recipe"])
    _require_finite({**state["still"], **state["ema"]}, run)
    cure = "train into a new folder"
    check_config(about.transformer.config, run / RUN_FILE, cure)
    if about.branch is not None:
        check_branch(about.branch, run / RUN_FILE, cure)
    lines = read_lines(run)
    new = out.with_name(out.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    (new / "training").mkdir(parents=True)
    if about.branch is not None:
        branch = ProPhyBranch.from_config(about.branch)
        branch.load_state_dict(_part("branch.", {**state["still"], **state["ema"]}))
        branch.save_pretrained(new)
    backbone = _part("transformer.", state["ema"])
    family = backbone_of(about.transformer.class_name)
    if recipe.backbone == "lora":
        adapted = {name.replace(".default.", "."): tensor for name, tensor in backbone.items()}
        metadata = lora_config(family, recipe.lora_rank).to_dict()
        family.stock_pipeline_class.save_lora_weights(
            new, transformer_lora_layers=adapted, transformer_lora_adapter_metadata=metadata
        )
    elif recipe.backbone == "trained":
        transformer = family.transformer_class.from_config(about.transformer.config)
        transformer.load_state_dict(backbone)
        transformer.save_pretrained(new / "transformer")
    shutil.copy(run / RUN_FILE, new / "training")
    shutil.copy(run / LOG_FILE, new / "training")
    save_page(new / "training" / "curves.html", {about.recipe_name or run.name: lines})
    _write_card(new, about, recipe, state["step"], lines)
    replace_folder(new, out)
    return out


def _require_finite(weights: Mapping[str, torch.Tensor], run: Path) -> None:
    wrong = [name for name, tensor in weights.items() if not bool(torch.isfinite(tensor).all())]
    if wrong:
        raise ValueError(
            f"{len(wrong)} of {len(weights)} weights of {run} hold NaN or infinity, the first is {wrong[0]}: "
            "nothing was published; train again from the base, with lower learning rates"
        )


def _part(prefix: str, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


_BARE_HEADER = """---
library_name: diffusers
tags:
- text-to-video
- prophy
---

# A backbone trained without a branch

What a ProPhy ablation compares a branch with.
"""


def _write_card(folder: Path, about: About, recipe: Recipe, step: int, lines: list[Line]) -> None:
    path = folder / "README.md"
    head = path.read_text() if about.branch is not None else _BARE_HEADER
    write_text(path, head + "\n" + "\n".join(_sections(about, recipe, step, lines)))


def _sections(about: About, recipe: Recipe, step: int, lines: list[Line]) -> list[str]:
    rows = {
        "recipe": f"`{about.recipe_name or 'unnamed'}`, all of it in `training/run.json`",
        "base model": f"`{about.base or 'not recorded'}`",
        "data": f"`{about.data}`",
        "steps": f"{step:,} of {recipe.steps:,}, {recipe.batch} clips each",
        "processes at the start": about.processes,
        "backbone": {"lora": f"LoRA of rank {recipe.lora_rank}"}.get(recipe.backbone, recipe.backbone),
        "trained parameters": f"{about.trained_parameters:,}",
        "λ of coarse, align, balance": ", ".join(map(str, vars(recipe.losses).values())),
        "weights": f"moving average, decay {recipe.ema}",
    }
    return [
        "## Opening it\n",
        '```python\nimport prophy\n\npipeline = prophy.load("the base model", branch="this folder")\n```\n',
        "## Training\n",
        "| | |\n|---|---|",
        *(f"| {name} | {value} |" for name, value in rows.items()),
        "",
        "## Curves and numbers\n",
        "`training/curves.html` shows all of `training/log.jsonl`.\n",
        *_numbers(lines),
        "## Limits\n",
        *_limits(about, recipe, step, lines),
        "",
    ]


def _numbers(lines: list[Line]) -> list[str]:
    checked = [(line["step"], line["diffusion"]) for line in lines if line["kind"] == "validation"]
    made = [line for line in lines if line["kind"] == "train"]
    text = []
    if checked:
        text += ["Diffusion loss of held-out clips, by noise level:\n", *_table(checked)]
    if made:
        text += ["Training loss and its terms:\n", *_table([(line["step"], line["losses"]) for line in made])]
    if made and (experts := made[-1]["experts"]) is not None:
        shares = ", ".join(f"{share:.2f}" for share in experts["refinement_E"])
        text.append(f"Share of the tokens' assignments that went to each refinement expert at the end: {shares}.\n")
    return text


def _table(found: list[tuple[int, dict[str, float]]]) -> list[str]:
    names = list(found[0][1])
    rows = [[str(step), *(f"{numbers[name]:.5f}" for name in names)] for step, numbers in _few(found)]
    return [f"| {' | '.join(row)} |" for row in (["step", *names], ["---"] * (1 + len(names)), *rows)] + [""]


def _few(found: list[T], count: int = 8) -> list[T]:
    """Evenly spaced, the first and the last among them."""
    if len(found) <= count:
        return found
    return [found[round(i * (len(found) - 1) / (count - 1))] for i in range(count)]


def _limits(about: About, recipe: Recipe, step: int, lines: list[Line]) -> list[str]:
    limits = []
    if step < recipe.steps:
        limits.append(f"The training is not finished: {step:,} of {recipe.steps:,} steps.")
    if not any(line["kind"] == "validation" for line in lines):
        limits.append("No held-out clips were given, so no loss here is of clips that it has not seen.")
    if about.branch is not None and recipe.losses.fine_align:
        limits.append("The routing is as good as its token targets, which were not checked by hand.")
    limits.append(
        "Losses are no measure of physics: nothing here says that generated clips obey laws more often. "
        "`prophy evaluate` measures what can be."
    )
    return [f"- {limit}" for limit in limits]


def main(argv: list[str]) -> None:
    """Publish one run.

    Raises:
        ValueError, OSError: see :func:`publish`.
    """
    parser = argparse.ArgumentParser(prog="prophy publish", description="A model folder from a run's checkpoint.")
    parser.add_argument("run", type=Path, metavar="RUN", help="folder that prophy train wrote")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write (default: RUN/published)")
    arguments = parser.parse_args(argv)
    out = publish(arguments.run, arguments.out or arguments.run / "published")
    print(f"published {out}")
