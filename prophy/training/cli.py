"""``prophy train --recipe NAME``: a branch on any base model, or a small backbone from nothing.

    prophy train --recipe tiny --data cache --worlds 2000 --out runs/first
    torchrun --nproc_per_node 8 -m prophy train --recipe wan_1_3b --data cache --out runs/wan --fsdp

Run it again to resume where it stopped. Several processes are started by torchrun, one for each device.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prophy.catalogue.limits import ClipSize, GenerationDefaults
from prophy.flags import add_model, only_set, time_limit, whole
from prophy.worlds import WorldSet
from prophy.worlds.language import GRAMMARS

if TYPE_CHECKING:
    from torch import nn

    from prophy.training.recipe import Recipe


def build_parser() -> argparse.ArgumentParser:
    """Every flag of ``prophy train --recipe``."""
    parser = argparse.ArgumentParser(
        prog="prophy train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", metavar="NAME", help="what to learn; --list names all")
    parser.add_argument("--list", action="store_true", help="print every recipe")
    data = parser.add_mutually_exclusive_group()
    data.add_argument("--data", type=Path, metavar="DIR", help="cache of encoded clips")
    data.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="clips with a table of captions, encoded as they are read: slower, and without token targets",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the run; an existing run is resumed")
    add_model(parser, default="the recipe's")
    parser.add_argument(
        "--initial",
        type=Path,
        metavar="DIR",
        help="a new run starts from this published model's branch, and from its backbone if that is trained too",
    )
    parser.add_argument("--held-out", type=Path, metavar="DIR", help="cache of other clips, for validation losses")
    parser.add_argument(
        "--worlds", type=whole, metavar="N", help="first encode N clips of the synthetic worlds into --data, if need be"
    )
    parser.add_argument(
        "--held-out-worlds", type=whole, metavar="N", help="the same for --held-out, of clips that are never trained on"
    )
    parser.add_argument(
        "--annotations",
        type=Path,
        metavar="DIR",
        help="of the worlds' clips in --data, to learn from instead of their masks",
    )
    parser.add_argument(
        "--unlawful", action="store_true", help="of --worlds: each event runs by a clock that obeys no law"
    )
    parser.add_argument(
        "--phenomena",
        metavar="IDS",
        help="of --worlds: all, or ids with commas between (default: those of the embedded model)",
    )
    parser.add_argument(
        "--grammar", choices=GRAMMARS, help="of --worlds: the words of captions (default: the embedded model's)"
    )
    parser.add_argument(
        "--size", metavar="WxHxF", help="of --folder, --worlds and --prompt (default: as the base recommends)"
    )
    parser.add_argument("--fps", type=float, help="of --folder and --worlds (default: as the base recommends)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change a field of the recipe, such as steps=2000 or optimiser.rate=1e-5. Repeat for more",
    )
    how = parser.add_argument_group("where and how it runs; none of it changes what is learnt")
    how.add_argument("--device", help="cpu, or an accelerator such as cuda (default: an accelerator if there is one)")
    how.add_argument("--compile", action="store_true", help="compile the blocks: faster steps; needs a C++ compiler")
    how.add_argument(
        "--plain-attention",
        action="store_true",
        help="attention as plain matrix products: faster steps on a CPU, for clips of a few hundred tokens",
    )
    how.add_argument("--fsdp", action="store_true", help="shard weights over the processes instead of copying them")
    how.add_argument(
        "--deepspeed",
        type=Path,
        metavar="FILE",
        help="shard optimiser states and gradients: a configuration of DeepSpeed's ZeRO 1 or 2",
    )
    how.add_argument("--workers", type=int, default=2, help="processes that read clips ahead, for each (default: 2)")
    how.add_argument("--minutes", type=time_limit, help="stop, resumable, after this long")
    how.add_argument("--checkpoint-every", type=whole, default=500, metavar="STEPS", help="(default: 500)")
    how.add_argument("--validate-every", type=whole, default=500, metavar="STEPS", help="(default: 500)")
    how.add_argument("--validation-clips", type=whole, default=64, metavar="N", help="of --held-out (default: 64)")
    how.add_argument("--log-every", type=whole, default=10, metavar="STEPS", help="(default: 10)")
    how.add_argument("--sample-every", type=whole, default=500, metavar="STEPS", help="needs --prompt (default: 500)")
    how.add_argument(
        "--prompt", action="append", default=[], help="make a clip of it every --sample-every steps. Repeat for more"
    )
    how.add_argument(
        "--tracker", choices=("tensorboard", "trackio", "wandb"), help="beside log.jsonl, if it is installed"
    )
    return parser


def main(argv: list[str]) -> None:
    """Run one training.

    Raises:
        ValueError, OSError: an input is missing or does not fit, or the training had to stop. One line.
    """
    parser = build_parser()
    arguments = parser.parse_args(argv)
    from prophy.training.recipes import RECIPES, recipe_named

    if arguments.list:
        print("\n".join(RECIPES))
        return
    needed = ("recipe", "data", "out") if arguments.folder is None else ("recipe", "out")
    if missing := [flag for flag in needed if getattr(arguments, flag) is None]:
        raise ValueError(f"give --{missing[0]} too: prophy train --recipe NAME --data DIR --out DIR")
    if arguments.folder is not None:
        for flag in ("worlds", "annotations"):
            if getattr(arguments, flag) is not None:
                raise ValueError(f"--{flag} belongs to --data: leave it out")
    if arguments.held_out_worlds is not None and arguments.held_out is None:
        raise ValueError("--held-out-worlds needs a folder: give --held-out DIR too")
    worlds = arguments.worlds is not None or arguments.held_out_worlds is not None
    if arguments.fps is not None and arguments.folder is None and not worlds:
        raise ValueError("--fps belongs to --folder and --worlds: leave it out")
    for flag in ("unlawful", "phenomena", "grammar"):
        if getattr(arguments, flag) and not worlds:
            raise ValueError(f"--{flag} belongs to --worlds: leave it out")
    recipe = changed(recipe_named(arguments.recipe), arguments.set)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from prophy.backbones.backbone import token_patch
    from prophy.files import check_writable
    from prophy.generation.settings import GenerationSettings
    from prophy.training.base_config import base_config_of
    from prophy.training.bases import base_of, check_samples, open_backbone, open_examples, open_folder, sampler
    from prophy.training.devices import join_processes
    from prophy.training.trainer import Running, train

    running = Running(
        device=arguments.device,
        compiled=arguments.compile,
        plain_attention=arguments.plain_attention,
        sharded=arguments.fsdp,
        deepspeed=arguments.deepspeed,
        # models that encode stay in the training's own process: a worker cannot share an accelerator
        workers=arguments.workers if arguments.folder is None else 0,
        minutes=arguments.minutes,
        checkpoint_every=arguments.checkpoint_every,
        log_every=arguments.log_every,
        validate_every=arguments.validate_every,
        validation_clips=arguments.validation_clips,
        sample_every=arguments.sample_every,
        tracker=arguments.tracker,
    )
    check_writable(arguments.out)
    processes = join_processes(arguments.device)
    device = processes.device
    base = base_of(recipe, arguments.model)
    transformer, objective = open_backbone(base, recipe)
    defaults = defaults_for(transformer, arguments.size)
    sample, patch = None, token_patch(transformer)
    if arguments.prompt:
        wanted = [GenerationSettings(prompt, seed, **asdict(defaults)) for seed, prompt in enumerate(arguments.prompt)]
        check_samples(base, transformer, wanted)
        sample = sampler(base, wanted, recipe.precision)
    with processes.main_process_first():  # which may have to encode
        if arguments.folder is None:
            clips = _worlds(arguments, arguments.data, "train") if worlds else None
            targets = arguments.annotations
            examples = open_examples(arguments.data, base, arguments.worlds, clips, targets, device, patch)
        else:
            fps = defaults.fps if arguments.fps is None else arguments.fps
            examples = open_folder(arguments.folder, base, defaults.clip, fps, device)
        held_out = None
        if arguments.held_out is not None:
            others = _worlds(arguments, arguments.held_out, "test") if worlds else None
            held_out = open_examples(
                arguments.held_out, base, arguments.held_out_worlds, others, device=device, patch=patch
            )
    train(
        recipe,
        transformer,
        objective,
        examples,
        arguments.out,
        name=arguments.recipe,
        base=base,
        base_config=base_config_of(base),
        initial=arguments.initial,
        held_out=held_out,
        running=running,
        sample=sample,
    )


def _worlds(arguments: argparse.Namespace, folder: Path, split: str) -> WorldSet:
    """Which clips of the worlds: as the flags say, and where they say nothing as those that are cached."""
    from prophy.data.jobs import scope_of, stage_of
    from prophy.data.latents import cache_note

    held = cache_note(folder)
    known = WorldSet(split=split) if held is None else held.worlds
    given = only_set(arguments, "grammar")
    if arguments.unlawful:
        given["lawful"] = False
    if arguments.phenomena:
        given["phenomena"] = scope_of(arguments.phenomena)
    if arguments.size or arguments.fps:
        given["stage"] = stage_of(arguments.size, arguments.fps)
    return replace(known, **given)


def changed(recipe: Recipe, settings: list[str]) -> Recipe:
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


def _with(value: Any, path: list[str], text: str, setting: str) -> Any:
    known = {f.name: str(f.type) for f in fields(value)}
    if path[0] not in known:
        raise ValueError(f"--set {setting}: no field {path[0]!r}, use one of {', '.join(known)}")
    old = getattr(value, path[0])
    if len(path) > 1:
        if not is_dataclass(old):
            what = "is not part of this recipe" if old is None else "has no fields"
            raise ValueError(f"--set {setting}: {path[0]} {what}")
        return replace(value, **{path[0]: _with(old, path[1:], text, setting)})
    if known[path[0]].startswith("tuple"):
        try:
            return replace(value, **{path[0]: tuple(int(number) for number in text.split(","))})
        except ValueError:
            raise ValueError(f"--set {setting}: write whole numbers with commas between") from None
    if not isinstance(old, bool | int | float | str):
        what = "is not part of this recipe" if old is None else "is no single value; name one of its fields"
        raise ValueError(f"--set {setting}: {path[0]} {what}")
    try:
        new = {"true": True, "false": False}[text.lower()] if isinstance(old, bool) else type(old)(text)
    except (KeyError, ValueError):
        raise ValueError(f"--set {setting}: {text!r} is not a {type(old).__name__}") from None
    return replace(value, **{path[0]: new})


def defaults_for(transformer: nn.Module, size: str | None) -> GenerationDefaults:
    """Default settings for a base with this transformer, at another size if one is given.

    Raises:
        ValueError: text that is no size.
    """
    from prophy.catalogue.published import published_like

    known = published_like(type(transformer).__name__, transformer.config)
    defaults = GenerationDefaults() if known is None else known.defaults
    if size is None:
        return defaults
    clip = ClipSize.parse(size)
    return replace(defaults, width=clip.width, height=clip.height, frames=clip.frames)
