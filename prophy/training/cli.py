"""``prophy train --recipe NAME``: a branch on any base model; ``prophy train tiny-…``: a part of the embedded model.

    prophy train --recipe tiny --data cache --worlds 2000 --out runs/first
    torchrun --nproc_per_node 8 -m prophy train --recipe wan_1_3b --data cache --out runs/wan --shard

Run it again to go on where it stopped. Several processes are started by torchrun, one for each device.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

from prophy.clips import Clip
from prophy.training import tiny


def build_parser() -> argparse.ArgumentParser:
    """Every flag of ``prophy train --recipe``."""
    parser = argparse.ArgumentParser(
        prog="prophy train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", metavar="NAME", help="what to learn; --list names all")
    parser.add_argument("--list", action="store_true", help="print every recipe, and every stage of the embedded model")
    parser.add_argument("--data", type=Path, metavar="DIR", help="cache of encoded clips")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the run; one that exists is gone on with")
    parser.add_argument("--model", metavar="BASE", help="a diffusers folder or hub id (default: the recipe's)")
    parser.add_argument("--held-out", type=Path, metavar="DIR", help="cache of other clips, for validation losses")
    parser.add_argument(
        "--worlds", type=int, metavar="N", help="first encode N clips of the synthetic worlds into --data, if need be"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change a field of the recipe, such as steps=2000 or optimiser.rate=1e-5. Repeat for more",
    )
    how = parser.add_argument_group("where and how it runs; none of it changes what is learnt")
    how.add_argument("--shard", action="store_true", help="spread weights over the processes (FSDP2), not copies (DDP)")
    how.add_argument("--workers", type=int, default=2, help="processes that read clips ahead, for each (default: 2)")
    how.add_argument("--minutes", type=float, help="stop, resumable, after this long")
    how.add_argument("--checkpoint-every", type=int, default=500, metavar="STEPS", help="(default: 500)")
    how.add_argument("--validate-every", type=int, default=500, metavar="STEPS", help="(default: 500)")
    how.add_argument("--log-every", type=int, default=10, metavar="STEPS", help="(default: 10)")
    how.add_argument("--sample-every", type=int, default=500, metavar="STEPS", help="needs --prompt (default: 500)")
    how.add_argument(
        "--prompt", action="append", default=[], help="make a clip of it every --sample-every steps. Repeat for more"
    )
    how.add_argument("--size", metavar="WxHxF", help="of these clips (default: the base's recommended size)")
    how.add_argument(
        "--tracker", choices=("tensorboard", "trackio", "wandb"), help="beside log.jsonl, if it is installed"
    )
    return parser


def main(argv: list[str]) -> None:
    """Run one training, or a stage of the embedded model.

    Raises:
        ValueError, OSError: an input is missing or does not fit, or the training had to stop. One line.
    """
    if argv and argv[0] in tiny.STAGES:
        tiny.main(argv)
        return
    if not argv or not argv[0].startswith("-"):
        raise ValueError(f"choose a stage of the embedded model ({', '.join(tiny.STAGES)}), or give --recipe")
    parser = build_parser()
    arguments = parser.parse_args(argv)
    from prophy.training.recipes import RECIPES, recipe_named

    if arguments.list:
        print("\n".join((*RECIPES, *tiny.STAGES)))
        return
    if missing := [flag for flag in ("recipe", "data", "out") if getattr(arguments, flag) is None]:
        raise ValueError(f"give --{missing[0]} too: prophy train --recipe NAME --data DIR --out DIR")
    recipe = changed(recipe_named(arguments.recipe), arguments.set)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from accelerate import PartialState

    from prophy.training.bases import base_of, open_backbone, open_examples, sampler
    from prophy.training.trainer import Running, train

    running = Running(
        sharded=arguments.shard,
        workers=arguments.workers,
        minutes=arguments.minutes,
        checkpoint_every=arguments.checkpoint_every,
        log_every=arguments.log_every,
        validate_every=arguments.validate_every,
        sample_every=arguments.sample_every,
        tracker=arguments.tracker,
    )
    base = base_of(recipe, arguments.model)
    with PartialState().main_process_first():  # which may have to encode
        examples = open_examples(arguments.data, base, arguments.worlds)
        held_out = None if arguments.held_out is None else open_examples(arguments.held_out, base)
    transformer, objective = open_backbone(base, recipe)
    sample = sampler(base, sample_settings(arguments.prompt, arguments.size, transformer)) if arguments.prompt else None
    train(
        recipe,
        transformer,
        objective,
        examples,
        arguments.out,
        name=arguments.recipe,
        base=base,
        held_out=held_out,
        running=running,
        sample=sample,
    )


def changed(recipe, settings: list[str]):
    """A recipe with fields replaced, ``FIELD=VALUE`` each, the value of the field's own type.

    Raises:
        ValueError: no such field, or no such value.
    """
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"--set {setting}: write FIELD=VALUE, such as steps=2000")
        recipe = _with(recipe, path.split("."), text, setting)
    return recipe


def _with(value, path: list[str], text: str, setting: str):
    known = [f.name for f in fields(value)]
    if path[0] not in known:
        raise ValueError(f"--set {setting}: no field {path[0]!r}, use one of {', '.join(known)}")
    old = getattr(value, path[0])
    if len(path) > 1:
        if not is_dataclass(old):
            raise ValueError(f"--set {setting}: {path[0]} has no fields")
        return replace(value, **{path[0]: _with(old, path[1:], text, setting)})
    if isinstance(old, tuple):
        try:
            return replace(value, **{path[0]: tuple(int(number) for number in text.split(","))})
        except ValueError:
            raise ValueError(f"--set {setting}: write whole numbers with commas between") from None
    if not isinstance(old, bool | int | float | str):
        raise ValueError(f"--set {setting}: {path[0]} is no single value; name one of its fields")
    try:
        new = {"true": True, "false": False}[text.lower()] if isinstance(old, bool) else type(old)(text)
    except (KeyError, ValueError):
        raise ValueError(f"--set {setting}: {text!r} is not a {type(old).__name__}") from None
    return replace(value, **{path[0]: new})


def sample_settings(prompts: list[str], size: str | None, transformer) -> list:
    """What to generate on the way.

    Raises:
        ValueError: a size or a prompt that cannot be.
    """
    from prophy.generation import GenerationSettings
    from prophy.published import published_like

    chosen = {}
    known = published_like(type(transformer).__name__, transformer.config)
    if known is not None:
        names = ("width", "height", "frames", "fps", "steps", "guidance")
        chosen = {name: getattr(known, name) for name in names}
    if size is not None:
        clip = Clip.parse(size)
        chosen |= {"width": clip.width, "height": clip.height, "frames": clip.frames}
    return [GenerationSettings(prompt, seed, **chosen) for seed, prompt in enumerate(prompts)]
