"""The commands that measure what a model makes, and what its routing finds.

prophy evaluate recognition | laws | localisation | generated-localisation | flow | experts | figures | autoencoder |
annotation
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from prophy.assets import default_model
from prophy.backbones.pipeline import ProPhyPipeline
from prophy.data.jobs import Geometry, stage_of
from prophy.evaluation.columns import add_columns, columns_of, transformer_in
from prophy.evaluation.flags import (
    add_batch,
    add_device,
    add_measure,
    add_stage,
    add_steps,
    add_work,
    add_worlds,
    gated,
    opened,
    opened_in_float32,
    worlds_of,
)
from prophy.evaluation.report.readers import as_text
from prophy.flags import add_model, only_set, seeds, weights_of, whole
from prophy.generation.pipelines import load
from prophy.worlds import SPLITS


def add_measures(commands: argparse._SubParsersAction) -> None:
    """Add these measures to ``prophy evaluate``."""
    recognition = add_measure(commands, "recognition", "held-out prompts: does the clip show what was asked for")
    recognition.add_argument("--prompts", type=whole, default=400, help="how many (default: 400)")
    add_batch(recognition)
    add_steps(recognition)
    recognition.set_defaults(run=_recognition)

    laws = add_measure(
        commands, "laws", "do the clips obey the physics they show: real renders, autoencoder, backbone, ProPhy, …"
    )
    add_columns(laws)
    laws.add_argument("--clips", type=whole, default=64, help="of each split (default: 64)")
    laws.add_argument("--split", action="append", help="test, combinations or parameters; repeat (default: all three)")
    add_batch(laws)
    add_steps(laws)
    laws.add_argument("--unlawful", action="store_true", help="renders by clocks that obey no law are a column too")
    add_worlds(laws)
    laws.set_defaults(run=_laws)

    localisation = add_measure(commands, "localisation", "does the routing find the physics, token by token")
    localisation.add_argument("--clips", type=whole, default=256, help="held-out clips (default: 256)")
    localisation.add_argument(
        "--match-clips", type=whole, default=256, help="test clips to match experts on (default: 256)"
    )
    localisation.add_argument("--train-clips", type=whole, help="for the image-free control (default: the branch's)")
    localisation.add_argument("--control-steps", type=whole, help="of the image-free control (default: the branch's)")
    add_batch(localisation, 16, "clips at a time; the noise depends on it")
    add_worlds(localisation)
    localisation.set_defaults(run=_localisation)

    generated = add_measure(
        commands, "generated-localisation", "the routing at every denoising step against what the finished clip shows"
    )
    generated.add_argument("--prompts", type=whole, default=64, help="how many (default: 64)")
    add_batch(generated)
    add_steps(generated)
    generated.set_defaults(run=_generated_localisation)

    flow = add_measure(commands, "flow", "flow loss of backbone, branch and control on held-out clips")
    flow.add_argument("--control", type=Path, help="transformer folder: the backbone trained longer without a branch")
    flow.add_argument("--clips", type=whole, default=256, help="held-out clips (default: 256)")
    add_batch(flow, 16, "clips at a time; the noise depends on it")
    add_worlds(flow)
    flow.set_defaults(run=_flow)

    experts = add_measure(commands, "experts", "what each expert does: names for the page, beside the branch")
    experts.add_argument("--clips", type=whole, default=128, help="held-out clips (default: 128)")
    add_batch(experts, 16, "clips at a time")
    add_worlds(experts)
    experts.set_defaults(run=_experts)

    figures = add_measure(commands, "figures", "the paper's figures 6, 7 and 8 for this checkpoint")
    figures.add_argument("--figure", type=int, choices=(6, 7, 8), action="append", help="repeat (default: all three)")
    figures.add_argument("--prompts", type=whole, default=400, help="of the worlds, for figure 6 (default: 400)")
    figures.add_argument(
        "--labelled", type=Path, metavar="JSON", help='for figure 6 instead: [{"prompt": …, "phenomena": [ids]}]'
    )
    figures.add_argument("--prompt", action="append", help="for figures 7 and 8; repeat (default: fixed prompts)")
    figures.add_argument("--clips", type=whole, default=4, help="fixed prompts for figures 7 and 8 (default: 4)")
    figures.add_argument("--seed", type=seeds, default=0, help="of the first --prompt (default: 0)")
    for name, kind in (("steps", int), ("guidance", float), ("frames", int), ("height", int), ("width", int)):
        figures.add_argument(f"--{name}", type=kind, help="as for prophy generate (default: the embedded model's)")
    figures.set_defaults(run=_figures)

    autoencoder = commands.add_parser("autoencoder", help="what real renders keep of their laws behind an autoencoder")
    add_model(autoencoder)
    add_work(autoencoder)
    autoencoder.add_argument("--clips", type=whole, default=96, help="of each split (default: 96)")
    add_batch(autoencoder, 4, "clips at a time")
    autoencoder.add_argument("--split", action="append", choices=SPLITS, help="repeat (default: the held-out ones)")
    add_device(autoencoder)
    add_stage(autoencoder)
    autoencoder.set_defaults(run=_autoencoder)

    annotation = commands.add_parser("annotation", help="a vision-language model's targets against the worlds' masks")
    annotation.add_argument("--vlm", required=True, metavar="ID_OR_DIR", help="as for prophy annotate")
    annotation.add_argument(
        "--config", type=Path, metavar="FILE", help="JSON of settings (default: the model's, else ours)"
    )
    annotation.add_argument("--clips", type=whole, default=64, help="how many (default: 64)")
    annotation.add_argument(
        "--split", default="test", help="of the worlds; choose settings on another than they are reported on"
    )
    add_stage(annotation)
    annotation.add_argument("--cell", type=whole, default=8, help="pixels on a side of a token (default: 8)")
    add_work(annotation)
    annotation.set_defaults(run=_annotation)


def _recognition(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.measures.recognition import BOTH_GATE, SINGLE_GATE, evaluate_recognition
    from prophy.evaluation.prompts.held_out import held_out_prompts, training_captions

    pipeline = opened(arguments)
    prompts = held_out_prompts(arguments.prompts, training_captions())
    result = evaluate_recognition(pipeline, arguments.work, prompts, arguments.batch, arguments.steps)
    print(as_text(result))
    print(f"one phenomenon: {gated(result.score.single.value, SINGLE_GATE)}")
    print(f"two phenomena, both: {gated(result.score.both.value, BOTH_GATE)}")


def _laws(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.measures.laws import SPLITS_MEASURED, evaluate_laws

    splits = tuple(arguments.split or SPLITS_MEASURED)
    result = evaluate_laws(
        law_columns(arguments),
        arguments.work,
        arguments.clips,
        arguments.batch,
        arguments.steps,
        splits,
        worlds_of(arguments),
        unlawful=arguments.unlawful,
    )
    print(as_text(result))


def law_columns(arguments: argparse.Namespace) -> dict[str, Callable[[], ProPhyPipeline]]:
    """What opens each column: the backbone, the other models, ProPhy."""
    from prophy.evaluation.results.laws import AUTOENCODER, BACKBONE, PROPHY, REAL, UNLAWFUL

    weights = weights_of(arguments)
    columns: dict[str, Callable[[], ProPhyPipeline]] = {
        BACKBONE: partial(load, arguments.model, branch=False, **weights)
    }
    columns |= columns_of(arguments, (REAL, UNLAWFUL, AUTOENCODER, BACKBONE, PROPHY))
    if not arguments.no_branch and opened(arguments).attachment is not None:
        columns[PROPHY] = partial(opened, arguments)
    return columns


def _localisation(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.measures.image_free import ImageFreeRecipe
    from prophy.evaluation.measures.localisation import LEAST_SHARE, evaluate_localisation
    from prophy.tiny.parts import CLIPS

    if arguments.no_branch:
        raise ValueError("localisation measures the branch: leave --no-branch out")
    result = evaluate_localisation(
        opened_in_float32(arguments),
        arguments.work,
        clips=arguments.clips,
        match_clips=arguments.match_clips,
        train_clips=arguments.train_clips or CLIPS,
        recipe=ImageFreeRecipe(steps=arguments.control_steps or ImageFreeRecipe.steps),
        batch=arguments.batch,
        worlds=worlds_of(arguments),
    )
    print(as_text(result))
    print(f"smallest share of top-k: {gated(min(result.use.topk), LEAST_SHARE)}")


def _generated_localisation(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.measures.generated_localisation import evaluate_generated_localisation
    from prophy.evaluation.prompts.held_out import held_out_prompts

    if arguments.no_branch:
        raise ValueError("localisation measures the branch: leave --no-branch out")
    prompts = held_out_prompts(arguments.prompts, frozenset(), first_scene=20_000)
    pipeline, work = opened(arguments), arguments.work
    print(as_text(evaluate_generated_localisation(pipeline, work, prompts, arguments.batch, arguments.steps)))


def _flow(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.measures.flow_loss import evaluate_flow

    if arguments.no_branch and arguments.control is None:
        raise ValueError("--no-branch leaves only the backbone: give a --control to compare it with")
    control = None
    if arguments.control is not None:
        folder = arguments.control
        folder = folder / "transformer" if (folder / "transformer").is_dir() else folder
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} holds no transformer (config.json is missing): give a --control folder")
        control = transformer_in(folder)
    name = control and arguments.control.name
    worlds, work = worlds_of(arguments), arguments.work
    pipeline = opened_in_float32(arguments)
    if control is not None:
        control.to(pipeline.transformer.device)
    print(as_text(evaluate_flow(pipeline, work, control, arguments.clips, arguments.batch, name, worlds)))


def _experts(arguments: argparse.Namespace) -> None:
    from prophy.catalogue.describe import BRANCH_FOLDER
    from prophy.evaluation.measures.experts import evaluate_experts

    if arguments.no_branch:
        raise ValueError("this measures the experts of the branch: leave --no-branch out")
    folder = Path(arguments.branch or Path(arguments.model or default_model()) / BRANCH_FOLDER)
    pipeline, worlds = opened(arguments), worlds_of(arguments)
    measured = evaluate_experts(pipeline, arguments.work, folder, arguments.clips, arguments.batch, worlds=worlds)
    for expert, (name, used) in enumerate(zip(measured.names, measured.used, strict=True)):
        print(f"expert {expert:<3} {name or 'no phenomenon dominates':32} {100 * used:.0f} % of all weight")


def _figures(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.measures.figures import LabelledPrompt, figure_6, figure_7, figure_8, read_prompts
    from prophy.evaluation.prompts.fixed import FIXED_PROMPTS
    from prophy.evaluation.prompts.held_out import held_out_prompts
    from prophy.generation.settings import GenerationSettings

    wanted = arguments.figure or [6, 7, 8]
    pipeline = opened(arguments)
    chosen = only_set(arguments, "steps", "guidance", "frames", "height", "width")
    asked = [(text, arguments.seed + i) for i, text in enumerate(arguments.prompt or ())]
    asked = asked or [(p.prompt, p.seed) for p in FIXED_PROMPTS[: arguments.clips]]
    settings = [GenerationSettings(text, seed, **chosen) for text, seed in asked]
    if 6 in wanted:
        if arguments.labelled is not None:
            prompts = read_prompts(arguments.labelled)
        else:
            prompts = tuple(
                LabelledPrompt(p.prompt, p.phenomena) for p in held_out_prompts(arguments.prompts, frozenset())
            )
        print(as_text(figure_6(pipeline, arguments.work, prompts)))
    if 7 in wanted:
        print(f"figure 7 {', '.join(figure_7(pipeline, arguments.work, settings).pictures)}")
    if 8 in wanted:
        print(as_text(figure_8(pipeline, arguments.work, settings)))


def _autoencoder(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.measures.autoencoder import GATE_KEPT, GATE_PSNR, evaluate_autoencoder, open_autoencoder
    from prophy.evaluation.measures.laws import SPLITS_MEASURED
    from prophy.training.devices import chosen_device

    vae = open_autoencoder(Path(arguments.model or default_model()), chosen_device(arguments.device))
    stage = stage_of(arguments.size, arguments.fps)
    splits = tuple(arguments.split or SPLITS_MEASURED)
    result = evaluate_autoencoder(vae, arguments.work, arguments.clips, splits, stage=stage, batch=arguments.batch)
    print(as_text(result))
    for split, one in result.splits.items():
        verdict = "passed" if one.psnr.value >= GATE_PSNR else "NOT passed"
        print(f"{split}: {gated(one.kept.value, GATE_KEPT)}; {one.psnr.value:.1f} dB (gate {GATE_PSNR:g}: {verdict})")


def _annotation(arguments: argparse.Namespace) -> None:
    from prophy.annotation.annotator import Annotator
    from prophy.annotation.config import read_config
    from prophy.evaluation.measures.annotation import evaluate_annotation

    config = read_config(arguments.config or arguments.vlm)
    annotator = Annotator.from_pretrained(arguments.vlm, config, dtype="float32")
    geometry = Geometry.of_worlds(stage_of(arguments.size, arguments.fps), arguments.cell)
    result = evaluate_annotation(annotator, arguments.work, arguments.clips, arguments.split, geometry=geometry)
    print(as_text(result))
