"""``prophy evaluate recogniser | recognition | laws | sheet | localisation | flow | …``: behind every claim.

Each command prints a short table and writes everything it found as JSON under ``--work``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from prophy.assets import default_model
from prophy.backbones.pipeline import ProPhyPipeline
from prophy.data.jobs import Geometry, scope_of, stage_of
from prophy.evaluation.benchmarks.cli import add_benchmarks
from prophy.evaluation.columns import add_columns, columns_of, transformer_in
from prophy.evaluation.measures.cli import add_causes
from prophy.evaluation.measures.looks_cli import add_grammar, add_looks, add_phenomena
from prophy.evaluation.report.cli import add_reports
from prophy.evaluation.report.readers import as_text
from prophy.evaluation.results import as_typed, running_command
from prophy.files import check_writable
from prophy.flags import add_model, branch_of, only_set, seeds, time_limit, weights_of, whole
from prophy.generation.pipelines import load
from prophy.worlds import SPLITS
from prophy.worlds.language import GRAMMARS


def main(argv: list[str]) -> None:
    """Run one evaluation.

    Raises:
        ValueError, FileNotFoundError: an input is missing or does not fit; one line that names the cure.
    """
    arguments = build_parser().parse_args(argv)
    for name in ("out", "work") if "measures" in arguments else ("out",):  # a report only reads its work folder
        if (path := getattr(arguments, name, None)) is not None:
            check_writable(path.parent if path.suffix else path)
    running = running_command.set(as_typed("prophy evaluate", argv))
    try:
        arguments.run(arguments)
    finally:
        running_command.reset(running)


def build_parser() -> argparse.ArgumentParser:
    """Every evaluation and its flags."""
    parser = argparse.ArgumentParser(prog="prophy evaluate", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    recogniser = commands.add_parser("recogniser", help="train the classifier that recognition is measured with")
    _add_work(recogniser)
    recogniser.add_argument("--model", type=Path, help="also measure it on renders decoded by this model's autoencoder")
    _add_recipe(recogniser)
    _add_stage(recogniser)
    recogniser.set_defaults(run=_recogniser)

    autoencoder = commands.add_parser("autoencoder", help="what real renders keep of their laws behind an autoencoder")
    add_model(autoencoder)
    _add_work(autoencoder)
    autoencoder.add_argument("--clips", type=whole, default=96, help="of each split (default: 96)")
    autoencoder.add_argument("--batch", type=whole, default=4, help="clips at a time (default: 4)")
    autoencoder.add_argument("--split", action="append", choices=SPLITS, help="repeat (default: the held-out ones)")
    autoencoder.add_argument("--device", help="cpu, cuda or another accelerator (default: one, if there is one)")
    _add_stage(autoencoder)
    autoencoder.set_defaults(run=_autoencoder)

    recognition = commands.add_parser("recognition", help="held-out prompts: does the clip show what was asked for")
    add_model(recognition, branch=True)
    _add_work(recognition)
    recognition.add_argument("--prompts", type=whole, default=400, help="how many (default: 400)")
    recognition.add_argument("--batch", type=whole, default=8, help="prompts at a time (default: 8)")
    recognition.add_argument("--steps", type=whole, help="denoising steps, for trying out (default: the app's)")
    recognition.set_defaults(run=_recognition)

    sheet = commands.add_parser("sheet", help="the fixed prompts on one contact sheet, every result shown")
    add_model(sheet, branch=True)
    sheet.add_argument("--out", type=Path, default=Path("docs/sheet.png"), help="the picture (default: docs/sheet.png)")
    sheet.add_argument("--routing", action="store_true", help="beneath each clip, the strongest expert of each token")
    sheet.add_argument("--columns", type=whole, default=2, help="of the sheet (default: 2)")
    sheet.add_argument("--batch", type=whole, default=8, help="prompts at a time (default: 8)")
    sheet.add_argument("--steps", type=whole, help="denoising steps, for trying out (default: the app's)")
    _add_stage(sheet)
    add_grammar(sheet)
    sheet.set_defaults(run=_sheet)

    localisation = commands.add_parser("localisation", help="does the routing find the physics, token by token")
    add_model(localisation, branch=True)
    _add_work(localisation)
    localisation.add_argument("--clips", type=whole, default=256, help="held-out clips (default: 256)")
    localisation.add_argument(
        "--match-clips", type=whole, default=256, help="test clips to match experts on (default: 256)"
    )
    localisation.add_argument("--train-clips", type=whole, help="for the image-free control (default: the branch's)")
    localisation.add_argument("--control-steps", type=whole, help="of the image-free control (default: the branch's)")
    localisation.add_argument(
        "--batch", type=whole, default=16, help="clips at a time; the noise depends on it (default: 16)"
    )
    _add_stage(localisation)
    localisation.set_defaults(run=_localisation)

    experts = commands.add_parser("experts", help="what each expert does: names for the page, beside the branch")
    add_model(experts, branch=True)
    _add_work(experts)
    experts.add_argument("--clips", type=whole, default=128, help="held-out clips (default: 128)")
    experts.add_argument("--batch", type=whole, default=16, help="clips at a time (default: 16)")
    _add_stage(experts)
    experts.set_defaults(run=_experts)

    flow = commands.add_parser("flow", help="flow loss of backbone, branch and control on held-out clips")
    add_model(flow, branch=True)
    _add_work(flow)
    flow.add_argument("--control", type=Path, help="transformer folder: the backbone trained longer without a branch")
    flow.add_argument("--clips", type=whole, default=256, help="held-out clips (default: 256)")
    flow.add_argument("--batch", type=whole, default=16, help="clips at a time; the noise depends on it (default: 16)")
    _add_stage(flow)
    flow.set_defaults(run=_flow)

    laws = commands.add_parser(
        "laws", help="do the clips obey the physics they show: real renders, autoencoder, backbone, ProPhy, …"
    )
    add_model(laws, branch=True)
    _add_work(laws)
    add_columns(laws)
    laws.add_argument("--clips", type=whole, default=64, help="of each split (default: 64)")
    laws.add_argument("--split", action="append", help="test, combinations or parameters; repeat (default: all three)")
    laws.add_argument("--batch", type=whole, default=8, help="prompts at a time (default: 8)")
    laws.add_argument("--steps", type=whole, help="denoising steps, for trying out (default: the app's)")
    laws.add_argument("--unlawful", action="store_true", help="renders by clocks that obey no law are a column too")
    _add_stage(laws)
    add_phenomena(laws)
    add_grammar(laws)
    laws.set_defaults(run=_laws)

    gallery = commands.add_parser("gallery", help="make the shipped runs anew")
    add_model(gallery, branch=True)
    gallery.add_argument(
        "--out", type=Path, default=Path("assets/gallery"), help="folder to replace (default: assets/gallery)"
    )
    gallery.set_defaults(run=_gallery)

    segmenter = commands.add_parser("segmenter", help="train what says where a generated clip shows each phenomenon")
    _add_work(segmenter)
    _add_recipe(segmenter)
    _add_stage(segmenter)
    segmenter.add_argument("--cell", type=whole, help="pixels on a side of a token (default: 8)")
    segmenter.set_defaults(run=_segmenter)

    generated = commands.add_parser(
        "generated-localisation", help="the routing at every denoising step against what the finished clip shows"
    )
    add_model(generated, branch=True)
    _add_work(generated)
    generated.add_argument("--prompts", type=whole, default=64, help="how many (default: 64)")
    generated.add_argument("--batch", type=whole, default=8, help="prompts at a time (default: 8)")
    generated.add_argument("--steps", type=whole, help="denoising steps, for trying out (default: the app's)")
    generated.set_defaults(run=_generated_localisation)

    figures = commands.add_parser("figures", help="the paper's figures 6, 7 and 8 for this checkpoint")
    add_model(figures, branch=True)
    _add_work(figures)
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

    curves = commands.add_parser("curves", help="the training curves of a work folder as one page")
    _add_work(curves)
    curves.add_argument("--out", type=Path, help="the page (default: curves.html in the work folder)")
    curves.set_defaults(run=_curves)
    annotation = commands.add_parser("annotation", help="a vision-language model's targets against the worlds' masks")
    annotation.add_argument("--vlm", required=True, metavar="ID_OR_DIR", help="as for prophy annotate")
    annotation.add_argument(
        "--config", type=Path, metavar="FILE", help="JSON of settings (default: the model's, else ours)"
    )
    annotation.add_argument("--clips", type=whole, default=64, help="how many (default: 64)")
    annotation.add_argument(
        "--split", default="test", help="of the worlds; choose settings on another than they are reported on"
    )
    _add_stage(annotation)
    annotation.add_argument("--cell", type=whole, default=8, help="pixels on a side of a token (default: 8)")
    _add_work(annotation)
    annotation.set_defaults(run=_annotation)
    add_looks(commands)
    add_causes(commands)
    add_benchmarks(commands)
    add_reports(commands)
    return parser


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clips", type=whole, help="training renders (default: the recipe's)")
    parser.add_argument("--test-clips", type=whole, help="held-out renders (default: the recipe's)")
    parser.add_argument("--steps", type=whole, help="training steps (default: the recipe's)")
    parser.add_argument("--minutes", type=time_limit, help="stop, resumable, after this long")
    parser.add_argument("--device", help="cpu, cuda or another accelerator (default: one, if there is one)")


def _add_stage(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", metavar="WxHxF", help="of the clips (default: 64x64x17)")
    parser.add_argument("--fps", type=whole, help="frames a second of the clips (default: 8)")


def _add_work(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--work", type=Path, default=Path("runs/tiny"), help="folder of caches and results (default: runs/tiny)"
    )
    parser.set_defaults(measures=True)


def _load(arguments: argparse.Namespace) -> ProPhyPipeline:
    return load(arguments.model, branch=branch_of(arguments), **weights_of(arguments))


def _load_whole(arguments: argparse.Namespace) -> ProPhyPipeline:
    """In float32 on an accelerator too: a cache of the worlds is known by its autoencoder's weights, unrounded."""
    return load(arguments.model, branch=branch_of(arguments), dtype=torch.float32, **weights_of(arguments))


def _columns(arguments: argparse.Namespace) -> dict[str, Callable[[], ProPhyPipeline]]:
    """What opens each column: the backbone, the other models, ProPhy."""
    from prophy.evaluation.results.laws import AUTOENCODER, BACKBONE, PROPHY, REAL, UNLAWFUL

    weights = weights_of(arguments)
    columns: dict[str, Callable[[], ProPhyPipeline]] = {
        BACKBONE: partial(load, arguments.model, branch=False, **weights)
    }
    columns |= columns_of(arguments, (REAL, UNLAWFUL, AUTOENCODER, BACKBONE, PROPHY))
    if not arguments.no_branch and _load(arguments).attachment is not None:
        columns[PROPHY] = partial(_load, arguments)
    return columns


def _gate(value: float, least: float) -> str:
    return f"{100 * value:.1f} % (gate {100 * least:.0f} %: {'passed' if value >= least else 'NOT passed'})"


def _recogniser(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.judges.recogniser import GATE, train_recogniser
    from prophy.evaluation.results.judges import RecogniserRecipe
    from prophy.training.devices import chosen_device

    vae = None if arguments.model is None else load(arguments.model).vae
    recipe = RecogniserRecipe(**only_set(arguments, "clips", "test_clips", "steps", "size", "fps"))
    device = chosen_device(arguments.device)
    result = train_recogniser(arguments.work, recipe, vae, device=device, minutes=arguments.minutes)
    print(as_text(result))
    print(f"exact: {_gate(result.exact, GATE)}")


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
        print(f"{split}: {_gate(one.kept.value, GATE_KEPT)}; {one.psnr.value:.1f} dB (gate {GATE_PSNR:g}: {verdict})")


def _recognition(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.measures.recognition import BOTH_GATE, SINGLE_GATE, evaluate_recognition
    from prophy.evaluation.prompts.held_out import held_out_prompts, training_captions

    pipeline = _load(arguments)
    prompts = held_out_prompts(arguments.prompts, training_captions())
    result = evaluate_recognition(pipeline, arguments.work, prompts, arguments.batch, arguments.steps)
    print(as_text(result))
    print(f"one phenomenon: {_gate(result.score.single.value, SINGLE_GATE)}")
    print(f"two phenomena, both: {_gate(result.score.both.value, BOTH_GATE)}")


def _sheet(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.clips import settings_of
    from prophy.evaluation.prompts.fixed import fixed_prompts
    from prophy.evaluation.prompts.sheet import MAX_BYTES, clips_sheet
    from prophy.generation.generate import Generation, batches, generate
    from prophy.runs.pictures import write_png

    pipeline, stage = _load(arguments), stage_of(arguments.size, arguments.fps)
    settings = settings_of(fixed_prompts(arguments.grammar), arguments.steps, stage)
    clips: list[Generation] = []
    for places in tqdm(batches(settings, arguments.batch), "fixed prompts", unit="batch"):
        clips += generate(pipeline, [settings[i] for i in places])
    size = write_png(arguments.out, clips_sheet(clips, columns=arguments.columns, routing=arguments.routing), MAX_BYTES)
    print(f"sheet    {arguments.out} ({size / 1e6:.2f} MB, {len(clips)} clips)")


def _localisation(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.measures.image_free import ImageFreeRecipe
    from prophy.evaluation.measures.localisation import LEAST_SHARE, evaluate_localisation
    from prophy.tiny.parts import CLIPS

    if arguments.no_branch:
        raise ValueError("localisation measures the branch: leave --no-branch out")
    result = evaluate_localisation(
        _load_whole(arguments),
        arguments.work,
        clips=arguments.clips,
        match_clips=arguments.match_clips,
        train_clips=arguments.train_clips or CLIPS,
        recipe=ImageFreeRecipe(steps=arguments.control_steps or ImageFreeRecipe.steps),
        batch=arguments.batch,
        stage=stage_of(arguments.size, arguments.fps),
    )
    print(as_text(result))
    print(f"smallest share of top-k: {_gate(min(result.use.topk), LEAST_SHARE)}")


def _experts(arguments: argparse.Namespace) -> None:
    from prophy.assets import default_model
    from prophy.catalogue.describe import BRANCH_FOLDER
    from prophy.evaluation.measures.experts import evaluate_experts

    if arguments.no_branch:
        raise ValueError("this measures the experts of the branch: leave --no-branch out")
    folder = Path(arguments.branch or Path(arguments.model or default_model()) / BRANCH_FOLDER)
    pipeline, stage = _load(arguments), stage_of(arguments.size, arguments.fps)
    measured = evaluate_experts(pipeline, arguments.work, folder, arguments.clips, arguments.batch, stage=stage)
    for expert, (name, used) in enumerate(zip(measured.names, measured.used, strict=True)):
        print(f"expert {expert:<3} {name or 'no phenomenon dominates':32} {100 * used:.0f} % of all weight")


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
    stage, work = stage_of(arguments.size, arguments.fps), arguments.work
    pipeline = _load_whole(arguments)
    if control is not None:
        control.to(pipeline.transformer.device)
    print(as_text(evaluate_flow(pipeline, work, control, arguments.clips, arguments.batch, name, stage)))


def _laws(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.measures.laws import SPLITS_MEASURED, evaluate_laws

    splits = tuple(arguments.split or SPLITS_MEASURED)
    columns, work = _columns(arguments), arguments.work
    result = evaluate_laws(
        columns,
        work,
        arguments.clips,
        arguments.batch,
        arguments.steps,
        splits,
        scope_of(arguments.phenomena),
        stage_of(arguments.size, arguments.fps),
        GRAMMARS[arguments.grammar],
        unlawful=arguments.unlawful,
    )
    print(as_text(result))


def _gallery(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.prompts.gallery import make_gallery

    print(f"gallery  {arguments.out} ({make_gallery(_load(arguments), arguments.out)} runs)")


def _segmenter(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.judges.segmenter import train_segmenter
    from prophy.evaluation.results.judges import SegmenterRecipe
    from prophy.training.devices import chosen_device

    recipe = SegmenterRecipe(**only_set(arguments, "clips", "test_clips", "steps", "size", "fps", "cell"))
    device = chosen_device(arguments.device)
    print(as_text(train_segmenter(arguments.work, recipe, device, arguments.minutes)))


def _generated_localisation(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.measures.generated_localisation import evaluate_generated_localisation
    from prophy.evaluation.prompts.held_out import held_out_prompts

    if arguments.no_branch:
        raise ValueError("localisation measures the branch: leave --no-branch out")
    prompts = held_out_prompts(arguments.prompts, frozenset(), first_scene=20_000)
    pipeline, work = _load(arguments), arguments.work
    print(as_text(evaluate_generated_localisation(pipeline, work, prompts, arguments.batch, arguments.steps)))


def _figures(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.measures.figures import LabelledPrompt, figure_6, figure_7, figure_8, read_prompts
    from prophy.evaluation.prompts.fixed import FIXED_PROMPTS
    from prophy.evaluation.prompts.held_out import held_out_prompts
    from prophy.generation.settings import GenerationSettings

    wanted = arguments.figure or [6, 7, 8]
    pipeline = _load(arguments)
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


def _curves(arguments: argparse.Namespace) -> None:
    from prophy.training.curves import save_page
    from prophy.training.log import read_lines
    from prophy.training.run_folder import Trainings

    runs = {name: read_lines(run.path) for name, run in Trainings([arguments.work]).runs().items()}
    if not runs:
        raise FileNotFoundError(
            f"{arguments.work} holds no training: give what prophy train has as --out, or its parent"
        )
    out = arguments.out or arguments.work / "curves.html"
    out.parent.mkdir(parents=True, exist_ok=True)
    save_page(out, runs)
    print(f"curves   {out} ({len(runs)} {'training' if len(runs) == 1 else 'trainings'})")


def _annotation(arguments: argparse.Namespace) -> None:
    from prophy.annotation.annotator import Annotator
    from prophy.annotation.config import read_config
    from prophy.evaluation.measures.annotation import evaluate_annotation

    config = read_config(arguments.config or arguments.vlm)
    annotator = Annotator.from_pretrained(arguments.vlm, config, dtype="float32")
    geometry = Geometry.of_worlds(stage_of(arguments.size, arguments.fps), arguments.cell)
    result = evaluate_annotation(annotator, arguments.work, arguments.clips, arguments.split, geometry=geometry)
    print(as_text(result))
