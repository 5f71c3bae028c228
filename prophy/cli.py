"""The command line: ``prophy app | generate | export | worlds | plan | train | publish | evaluate | data | …``.

Heavy imports happen inside the commands, so that ``prophy --help`` answers at once. An error of the user's is one line
on stderr and exit code 2; set ``PROPHY_DEBUG=1`` to see where it came from.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from prophy import __version__
from prophy.flags import add_model, add_sampling, branch_of, only_set, sampling_of, weights_of
from prophy.threads import wait_without_spinning

if TYPE_CHECKING:
    from prophy.runs.layer import OverlaySettings, ShownMode
    from prophy.runs.store import Run

# These commands have argument parsers of their own: everything after the name goes to that module's main(argv).
_FORWARDED = {
    "app": ("prophy.ui.cli", "open the app in a browser"),
    "train": ("prophy.training.cli", "train a branch on a base model"),
    "publish": ("prophy.training.publish", "make a model folder of a training run"),
    "evaluate": ("prophy.evaluation.cli", "measure what the model and its routing can do"),
    "annotate": ("prophy.annotation.cli", "token targets for clips, from a vision-language model"),
    "cache": ("prophy.training.caching", "latents, text embeddings and targets of annotated clips; check them"),
    "data": ("prophy.data.cli", "look at a data set for training: labels, faults, filters"),
    "tiny": ("prophy.tiny.cli", "for maintainers: make the embedded model from nothing, stage by stage"),
}
_MOST_GIB = 2**20  # of an accelerator: a slip, not a machine
# The extra of pyproject.toml that holds what a command needs beyond `pip install prophy`.
_EXTRA = {"app": "app", "worlds": "worlds", "annotate": "annotate"}


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the process's exit code: 0, 2 for a user's error, 130 when interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv:
        build_parser().print_help()
        return 0
    wait_without_spinning()
    try:
        if argv and argv[0] in _FORWARDED:
            importlib.import_module(_FORWARDED[argv[0]][0]).main(argv[1:])
        else:
            arguments = build_parser().parse_args(argv)
            arguments.run(arguments)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        if os.environ.get("PROPHY_DEBUG") or (error.name or "prophy").split(".")[0] == "prophy":
            raise
        extra = _EXTRA.get(argv[0], "train")
        print(f"prophy: {argv[0]} needs {error.name}: pip install 'prophy[{extra}]'", file=sys.stderr)
        return 2
    except (ValueError, OSError, KeyError) as error:
        if os.environ.get("PROPHY_DEBUG"):
            raise
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"prophy: {' '.join(str(message).split())}", file=sys.stderr)
        return 2
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Every command and flag. A test freezes what it says."""
    parser = argparse.ArgumentParser(prog="prophy", description="Token-level physics for text-to-video diffusion.")
    parser.add_argument("--version", action="version", version=f"prophy {__version__}", help="which release this is")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    generate = commands.add_parser("generate", help="make a clip and its routing from a prompt")
    what = generate.add_mutually_exclusive_group(required=True)
    what.add_argument("prompt", nargs="?", help="what should happen, in plain words")
    what.add_argument(
        "--again",
        type=Path,
        metavar="RUN_DIR",
        help="make a run again: its prompt, seed, settings and steering, save what the other flags replace",
    )
    generate.add_argument("--seed", type=int, help="of the noise: same prompt and seed, same frames (default: 0)")
    generate.add_argument(
        "--out", type=Path, default=Path("runs"), help="folder of runs; each gets its own inside (default: runs)"
    )
    add_model(generate, branch=True)
    generate.add_argument(
        "--profile",
        default="auto",
        help="memory profile, such as model or group+tiling, see prophy plan (default: auto, the fastest that fits)",
    )
    add_sampling(generate)
    generate.add_argument("--frames", type=int, help="video frames, 1 + 4k; CogVideoX 1 + 8k (default: the model's)")
    generate.add_argument("--height", type=int, help="pixels")
    generate.add_argument("--width", type=int, help="pixels")
    generate.add_argument("--fps", type=float, help="frames per second of the file (default: the model's)")
    generate.add_argument(
        "--steer",
        action="append",
        default=[],
        metavar="SPEC",
        help="scale an expert: refinement:3=0, semantic:5=-1 or 3=2; 0 is mute, 2 boost, -1 invert. Repeat for more",
    )
    generate.add_argument(
        "--force",
        action="append",
        default=[],
        metavar="SPEC",
        help="one expert on a region: expert=2,frames=0-4,box=0.1:0.2:0.5:0.6 (latent frames; left, top, right and "
        "bottom as shares of the picture). Repeat for more",
    )
    generate.add_argument(
        "--strength",
        type=float,
        metavar="X",
        help="multiply what the branch adds, 0 to 4: 0 is the backbone alone (default: 1, exactly the branch)",
    )
    generate.add_argument(
        "--branch-interval",
        metavar="LOW:HIGH",
        help="run the branch only at this noise, as shares, such as 0.3:1; 0 is clean, 1 pure noise (default: always)",
    )
    generate.add_argument(
        "--branch-conditional",
        action="store_true",
        help="leave the branch out of the unconditional pass of guidance: faster, but not as it was trained",
    )
    generate.add_argument(
        "--record-attention",
        action="store_true",
        help="record what the backbone attends to, words and places, for the app to show (Wan models; the clip is the "
        "same)",
    )
    generate.set_defaults(run=_generate)

    export = commands.add_parser("export", help="take a run out as a video with its routing, a picture, or a zip")
    export.add_argument("source", metavar="RUN", help="a run's folder, or the id of a shipped run")
    export.add_argument(
        "--what",
        required=True,
        choices=("overlay", "gif", "still", "trace", "zip", "side", "wipe"),
        help="overlay: .mp4 with the routing, or a word's map, laid over it; gif: the same as .gif; still: one frame "
        "of it, .png; trace: .npz; zip: all of it; side, wipe: .mp4 of two runs, see --beside",
    )
    export.add_argument("--beside", metavar="RUN", help="the other run of side (by side) and wipe")
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file to write")
    export.add_argument("--overwrite", action="store_true", help="replace an existing file")
    shown = export.add_mutually_exclusive_group()
    shown.add_argument(
        "--mode", help="phenomena, top1, expert, phenomenon, entropy or margin (default: phenomena, all of them)"
    )
    shown.add_argument(
        "--word", help="how much each token attends to this word of the prompt, where attention was recorded"
    )
    shown.add_argument(
        "--looks",
        type=_token,
        metavar="FRAME:ROW:COLUMN",
        help="where a token looks, by its latent frame, row and column, from 0; where attention was recorded",
    )
    shown.add_argument("--expert", type=int, metavar="N", help="only this expert, from 0")
    shown.add_argument("--phenomenon", metavar="ID", help="only this one, by its id, such as liquid_motion")
    export.add_argument("--index", type=int, metavar="N", help="which expert or phenomenon, for these two modes")
    export.add_argument("--step", type=int, metavar="N", help="denoising step, from 1 (default: the last)")
    export.add_argument("--opacity", type=float, help="of the routing, 0 to 1 (default: 0.9 for phenomena, else 0.55)")
    export.add_argument(
        "--frame", type=int, metavar="N", help="video frame of a still, from 1 (default: the middle one)"
    )
    export.set_defaults(run=_export)

    worlds = commands.add_parser("worlds", help="look at the synthetic worlds the embedded model was trained on")
    actions = worlds.add_subparsers(dest="action", required=True, metavar="action")
    preview = actions.add_parser("preview", help="write a contact sheet: frames, outlined masks, captions")
    preview.add_argument(
        "--out", type=Path, default=Path("worlds.png"), help="the picture to write (default: worlds.png)"
    )
    preview.add_argument("--seed", type=int, default=0, help="of the first clip (default: 0)")
    preview.add_argument("--phenomenon", help="only this one, by its id, such as liquid_motion (default: all)")
    preview.add_argument(
        "--size", default="64x64x17", metavar="WxHxF", help="of the clips, such as 832x480x81 (default: 64x64x17)"
    )
    preview.add_argument("--fps", type=int, default=8, help="frames a second (default: 8)")
    laws = preview.add_mutually_exclusive_group()
    laws.add_argument(
        "--unlawful",
        action="store_true",
        help="each event runs by a clock that obeys no law: its frames are possible, its motion is not",
    )
    laws.add_argument(
        "--twins",
        action="store_true",
        help="of every scene a lawful clip, an unlawful one, and one for each law, which breaks it alone",
    )
    preview.set_defaults(run=_worlds_preview)

    plan = commands.add_parser("plan", help="how much memory a model needs, and which memory profile to use")
    plan.add_argument(
        "--model",
        required=True,
        help="a published backbone by name, such as wan2.1-1.3b, or a diffusers folder or hub id",
    )
    plan.add_argument("--size", metavar="WxHxF", help="of the clip, such as 832x480x81 (default: as published)")
    plan.add_argument("--vram", type=float, metavar="GIB", help="memory of the accelerator, to choose a profile for")
    plan.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16", help="of the weights")
    branch = plan.add_mutually_exclusive_group()
    branch.add_argument("--branch", metavar="DIR", help="a branch's folder (default: the model's own, else our shape)")
    branch.add_argument("--no-branch", action="store_true", help="the backbone alone")
    plan.add_argument("--json", action="store_true", help="for machines; sizes in bytes")
    plan.set_defaults(run=_plan)

    for name, (_, text) in _FORWARDED.items():
        commands.add_parser(name, help=text, add_help=False)
    return parser


def _generate(arguments: argparse.Namespace) -> None:
    chosen = only_set(arguments, "seed", "frames", "height", "width", "fps") | sampling_of(arguments)

    from tqdm import tqdm

    from prophy.catalogue.describe import describe_model
    from prophy.catalogue.limits import ClipSize, GenerationDefaults
    from prophy.files import check_writable
    from prophy.generation.checks import token_grid
    from prophy.generation.generate import generate
    from prophy.generation.identity import branch_switched
    from prophy.generation.remake import differences_from, dtype_of
    from prophy.generation.settings import GenerationSettings
    from prophy.routing.schedule import Schedule
    from prophy.routing.steering import parse_force, parse_scales
    from prophy.runs.store import read_run

    # All of this before the weights: a typo should not cost ten seconds.
    source = None if arguments.again is None else read_run(arguments.again)
    if source is None:
        defaults = None if arguments.model is None else describe_model(arguments.model).defaults
        settings = GenerationSettings(arguments.prompt, **asdict(defaults or GenerationDefaults()))
    else:
        settings = GenerationSettings.from_record(source.record)
    settings = settings.changed(**chosen)
    if arguments.branch_interval or arguments.branch_conditional:
        schedule = Schedule.parse(arguments.branch_interval, unconditional=not arguments.branch_conditional)
        settings = replace(settings, schedule=schedule)
    strength = only_set(arguments, "strength")
    scales = replace(parse_scales(arguments.steer), **strength)
    boxes = [parse_force(spec) for spec in arguments.force]
    without_then = source is not None and source.routing_path is None and settings.schedule.is_every_pass
    off = arguments.no_branch or (without_then and arguments.branch is None)
    branch = branch_of(arguments) if source is None else arguments.branch

    check_writable(arguments.out)
    from prophy.generation.pipelines import load

    clip = ClipSize(settings.width, settings.height, settings.frames, guided=settings.guidance > 1)
    dtype = None if source is None else dtype_of(source.record.computation)
    pipeline = load(arguments.model, branch, dtype, profile=arguments.profile, clip=clip, **weights_of(arguments))
    if source is not None:
        with branch_switched(pipeline, on=not off):
            differences = differences_from(source.record, pipeline)
        if differences.other_weights and arguments.model is None and not arguments.lora:
            cure = "open them with --model, which also lets any other model try"
            raise ValueError(
                f"run {source.id} {differences}: {'give its --lora, or ' if differences.loras else ''}{cure}"
            )
        if differences:
            print(f"run {source.id} {differences}: expect other frames")
        elif differences.device:
            print(f"run {source.id} is now made {differences.device}: frames may differ a little")
    steering = settings.steering
    if arguments.steer or arguments.force:
        grid = token_grid(pipeline, settings)
        steering = replace(scales, forced=tuple(box.on(grid) for box in boxes), strength=steering.strength)
    settings = replace(settings, steering=replace(steering, **strength))

    # The delay keeps the bar away from an error that comes before the first step.
    with (
        branch_switched(pipeline, on=not off),
        tqdm(total=settings.steps, unit="step", desc="denoising", delay=0.5) as bar,
    ):
        result = generate(
            pipeline,
            settings,
            on_step=lambda preview: bar.update(preview.step - bar.n),
            attention=arguments.record_attention,
        )
    run = result.save(arguments.out)

    if result.unknown_words:
        print(f"the model has never seen: {', '.join(result.unknown_words)}")
    print(f"video    {run.video_path}")
    if run.routing_path is not None:
        print(f"routing  {run.routing_path}")
        print(f"sheet    {run.sheet_path}")
    if result.attention is not None:
        print(f"attention of {len(result.attention.words)} words: shown in the app under Words")
    if not settings.steering.is_neutral:
        print(f"steered  {'; '.join(settings.steering.describe())}")
    if not settings.schedule.is_every_pass:
        print(f"branch   {settings.schedule.describe()}")
    seconds = sum(result.timings.values())
    print(f"made in {seconds:.1f} s with seed {settings.seed}; open it in the app: prophy app --runs {arguments.out}")


def _export(arguments: argparse.Namespace) -> None:
    what, out, overwrite = arguments.what, arguments.out, arguments.overwrite
    overlay_only = ("mode", "expert", "phenomenon", "word", "looks", "index", "step", "opacity")
    of_a_pair = what in ("side", "wipe")
    unused = {"overlay": ("frame", "beside"), "gif": ("frame", "beside"), "still": ("beside",)}
    for name in unused.get(what, (*overlay_only, "frame", *(() if of_a_pair else ("beside",)))):
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name} changes nothing in a {what}: leave it out")
    if of_a_pair and arguments.beside is None:
        raise ValueError(f"a {what} shows two runs: give the other one with --beside")

    from prophy.runs.export import export_gif, export_overlay, export_pair, export_still, export_trace, export_zip

    if of_a_pair:
        export_pair(_run_named(arguments.source), _run_named(arguments.beside), out, what, overwrite=overwrite)
    elif what in ("trace", "zip"):
        write = export_trace if what == "trace" else export_zip
        write(_run_named(arguments.source), out, overwrite=overwrite)
    else:
        run = _run_named(arguments.source)
        settings = _overlay_settings(arguments, run)
        if what in ("overlay", "gif"):
            write_moving = export_overlay if what == "overlay" else export_gif
            write_moving(run, out, settings, overwrite=overwrite)
        else:
            frames = run.record.settings["frames"]
            number = 1 + frames // 2 if arguments.frame is None else arguments.frame
            if not 1 <= number <= frames:
                raise ValueError(f"--frame {number} lies outside the clip: use 1 to {frames}")
            export_still(run, out, settings, number - 1, overwrite=overwrite)
    print(f"{what:8} {out}")


def _overlay_settings(arguments: argparse.Namespace, run: Run) -> OverlaySettings:
    from prophy.phenomena import by_id
    from prophy.runs.layer import OverlaySettings

    shown: tuple[ShownMode, int | None] = (arguments.mode or "phenomena", arguments.index)
    region = None
    if arguments.expert is not None:
        shown = "expert", arguments.expert
    elif arguments.phenomenon is not None:
        shown = "phenomenon", by_id(arguments.phenomenon).index
    elif arguments.word is not None:
        shown = "words", _word_of(run, arguments.word)
    elif arguments.looks is not None:
        latent, row, column = arguments.looks
        shown, region = ("looks", None), (latent, row, row, column, column)
    for name in ("expert", "phenomenon", "word", "looks"):
        if getattr(arguments, name) is not None and arguments.index is not None:
            raise ValueError(f"--{name} says which: leave --index out")
    return OverlaySettings(*shown, region=region, **only_set(arguments, "step", "opacity"))


def _word_of(run: Run, word: str) -> int:
    """The place of a word in a run's prompt; the first where nothing was recorded, which the export says."""
    if (attention := run.attention()) is None:
        return 0
    if word not in attention.words:
        raise ValueError(f"the prompt has no word {word!r}: use one of {', '.join(attention.words)}")
    return attention.words.index(word)


def _token(text: str) -> tuple[int, int, int]:
    parts = text.split(":")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no token: write FRAME:ROW:COLUMN, such as 2:4:3")
    return int(parts[0]), int(parts[1]), int(parts[2])


def _run_named(source: str) -> Run:
    """The run in a folder, or the shipped one with this id."""
    from prophy.assets import gallery_dir
    from prophy.runs.store import find_run, read_run

    if Path(source).is_dir():
        return read_run(Path(os.path.abspath(source)))  # "." has no name; links stay links, and are refused
    shipped = sorted(path.name for path in gallery_dir().iterdir())
    if source not in shipped:
        raise ValueError(f"no run {source!r}: give a run's folder, or one of the shipped {', '.join(shipped)}")
    return find_run(gallery_dir(), source)


def _worlds_preview(arguments: argparse.Namespace) -> None:
    from prophy.worlds import Stage
    from prophy.worlds.preview import write_contact_sheet, write_twins_sheet

    stage = Stage.parse(arguments.size, arguments.fps)
    if arguments.twins:
        write_twins_sheet(arguments.out, arguments.seed, arguments.phenomenon, stage=stage)
    else:
        write_contact_sheet(
            arguments.out, arguments.seed, arguments.phenomenon, stage=stage, lawful=not arguments.unlawful
        )
    print(f"sheet    {arguments.out}")


def _plan(arguments: argparse.Namespace) -> None:
    from prophy.catalogue.describe import describe_model
    from prophy.catalogue.limits import ClipSize

    clip = None if arguments.size is None else ClipSize.parse(arguments.size)
    described = describe_model(arguments.model, arguments.branch)
    if clip is None:
        if described.defaults is None:
            raise ValueError(f"{described.name} does not say what clip it was made for: give --size, as in 832x480x81")
        clip = described.defaults.clip

    import json

    import torch

    from prophy.memory.plan import GIB, plan
    from prophy.memory.plan_text import describe

    if arguments.vram is not None and not 0 < arguments.vram <= _MOST_GIB:
        raise ValueError(f"{arguments.vram:g} GiB of accelerator memory: give a number above 0, up to {_MOST_GIB:,}")
    made = plan(
        described,
        clip,
        dtype=getattr(torch, arguments.dtype),
        vram=None if arguments.vram is None else round(arguments.vram * GIB),
        branch=False if arguments.no_branch else None,
    )
    print(json.dumps(made.to_dict(), indent=2) if arguments.json else describe(made))
