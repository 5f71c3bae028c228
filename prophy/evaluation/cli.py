"""``prophy evaluate recogniser | recognition | laws | sheet | localisation | flow | …``: behind every claim.

Each command prints a short table and writes everything it found as JSON under ``--work``.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path

from prophy.evaluation.benchmark_commands import add_benchmarks
from prophy.evaluation.metrics import Interval
from prophy.evaluation.report_commands import add_reports
from prophy.evaluation.results import running_command
from prophy.flags import given
from prophy.pipelines import ProPhyWanPipeline, load


def main(argv: list[str]) -> None:
    """Run one evaluation.

    Raises:
        ValueError, FileNotFoundError: an input is missing or does not fit; one line that names the cure.
    """
    arguments = build_parser().parse_args(argv)
    running = running_command.set(shlex.join(["prophy", "evaluate", *argv]))
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
    recogniser.set_defaults(run=_recogniser)

    recognition = commands.add_parser("recognition", help="held-out prompts: does the clip show what was asked for")
    _add_model(recognition)
    _add_work(recognition)
    recognition.add_argument("--prompts", type=int, default=400, help="how many (default: 400)")
    recognition.add_argument("--batch", type=int, default=8, help="prompts at a time (default: 8)")
    recognition.add_argument("--steps", type=int, help="denoising steps, for trying out (default: the app's)")
    recognition.set_defaults(run=_recognition)

    sheet = commands.add_parser("sheet", help="the fixed prompts on one contact sheet, every result shown")
    _add_model(sheet)
    sheet.add_argument("--out", type=Path, default=Path("docs/sheet.png"), help="the picture (default: docs/sheet.png)")
    sheet.add_argument("--routing", action="store_true", help="beneath each clip, the strongest expert of each token")
    sheet.add_argument("--columns", type=int, default=2, help="of the sheet (default: 2)")
    sheet.add_argument("--batch", type=int, default=8, help="prompts at a time (default: 8)")
    sheet.add_argument("--steps", type=int, help="denoising steps, for trying out (default: the app's)")
    sheet.set_defaults(run=_sheet)

    localisation = commands.add_parser("localisation", help="does the routing find the physics, token by token")
    _add_model(localisation)
    _add_work(localisation)
    localisation.add_argument("--clips", type=int, default=256, help="held-out clips (default: 256)")
    localisation.add_argument(
        "--match-clips", type=int, default=256, help="test clips to match experts on (default: 256)"
    )
    localisation.add_argument("--train-clips", type=int, help="for the image-free control (default: the branch's)")
    localisation.add_argument("--control-steps", type=int, help="of the image-free control (default: the branch's)")
    localisation.add_argument(
        "--batch", type=int, default=16, help="clips at a time; the noise depends on it (default: 16)"
    )
    localisation.set_defaults(run=_localisation)

    flow = commands.add_parser("flow", help="flow loss of backbone, branch and control on held-out clips")
    _add_model(flow)
    _add_work(flow)
    flow.add_argument("--control", type=Path, help="transformer folder: the backbone trained longer without a branch")
    flow.add_argument("--clips", type=int, default=256, help="held-out clips (default: 256)")
    flow.add_argument("--batch", type=int, default=16, help="clips at a time; the noise depends on it (default: 16)")
    flow.set_defaults(run=_flow)

    laws = commands.add_parser(
        "laws", help="do the clips obey the physics they show: real renders, backbone, ProPhy, …"
    )
    _add_model(laws)
    _add_work(laws)
    _add_columns(laws)
    laws.add_argument("--clips", type=int, default=64, help="of each split (default: 64)")
    laws.add_argument("--split", action="append", help="test, combinations or parameters; repeat (default: all three)")
    laws.add_argument("--batch", type=int, default=8, help="prompts at a time (default: 8)")
    laws.add_argument("--steps", type=int, help="denoising steps, for trying out (default: the app's)")
    laws.set_defaults(run=_laws)

    gallery = commands.add_parser("gallery", help="make the shipped runs anew")
    _add_model(gallery)
    gallery.add_argument(
        "--out", type=Path, default=Path("assets/gallery"), help="folder to replace (default: assets/gallery)"
    )
    gallery.set_defaults(run=_gallery)

    segmenter = commands.add_parser("segmenter", help="train what says where a generated clip shows each phenomenon")
    _add_work(segmenter)
    _add_recipe(segmenter)
    segmenter.set_defaults(run=_segmenter)

    generated = commands.add_parser(
        "generated-localisation", help="the routing at every denoising step against what the finished clip shows"
    )
    _add_model(generated)
    _add_work(generated)
    generated.add_argument("--prompts", type=int, default=64, help="how many (default: 64)")
    generated.add_argument("--batch", type=int, default=8, help="prompts at a time (default: 8)")
    generated.add_argument("--steps", type=int, help="denoising steps, for trying out (default: the app's)")
    generated.set_defaults(run=_generated_localisation)

    figures = commands.add_parser("figures", help="the paper's figures 6, 7 and 8 for this checkpoint")
    _add_model(figures)
    _add_work(figures)
    figures.add_argument("--figure", type=int, choices=(6, 7, 8), action="append", help="repeat (default: all three)")
    figures.add_argument("--prompts", type=int, default=400, help="of the worlds, for figure 6 (default: 400)")
    figures.add_argument(
        "--labelled", type=Path, metavar="JSON", help='for figure 6 instead: [{"prompt": …, "phenomena": [ids]}]'
    )
    figures.add_argument("--prompt", action="append", help="for figures 7 and 8; repeat (default: fixed prompts)")
    figures.add_argument("--clips", type=int, default=4, help="fixed prompts for figures 7 and 8 (default: 4)")
    figures.add_argument("--seed", type=int, default=0, help="of the first --prompt (default: 0)")
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
    annotation.add_argument("--clips", type=int, default=64, help="how many (default: 64)")
    annotation.add_argument(
        "--split", default="test", help="of the worlds; choose settings on another than they are reported on"
    )
    annotation.add_argument("--out", type=Path, default=Path("runs/tiny-vlm/annotation.json"), help="the numbers")
    annotation.set_defaults(run=_annotation)
    add_benchmarks(commands)
    add_reports(commands)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, help="a diffusers folder (default: the embedded model)")
    branch = parser.add_mutually_exclusive_group()
    branch.add_argument("--branch", type=Path, help="folder of the branch (default: the one inside the model's)")
    branch.add_argument("--no-branch", action="store_true", help="the backbone alone")


def _add_columns(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="another model beside --model, such as LoRA=runs/lora: a diffusers folder, or the folder of a transformer "
        "that replaces the model's. Repeat for more",
    )


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clips", type=int, help="training renders (default: the recipe's)")
    parser.add_argument("--test-clips", type=int, help="held-out renders (default: the recipe's)")
    parser.add_argument("--steps", type=int, help="training steps (default: the recipe's)")


def _add_work(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--work", type=Path, default=Path("runs/tiny"), help="folder of caches and results (default: runs/tiny)"
    )


def _load(arguments: argparse.Namespace) -> ProPhyWanPipeline:
    pipeline = load(arguments.model, branch=arguments.branch)
    if arguments.no_branch and pipeline.attachment is not None:
        pipeline.attachment.enabled = False
    return pipeline


def _columns(arguments: argparse.Namespace) -> dict[str, Callable[[], ProPhyWanPipeline]]:
    """What opens each column: the backbone, the other models, ProPhy."""
    from prophy.evaluation.lawfulness import BACKBONE, PROPHY

    def backbone() -> ProPhyWanPipeline:
        pipeline = load(arguments.model, branch=arguments.branch)
        if pipeline.attachment is not None:
            pipeline.attachment.enabled = False
        return pipeline

    columns = {BACKBONE: backbone}
    for column in arguments.column:
        name, _, folder = column.partition("=")
        if not name or not folder or name in (*columns, PROPHY):
            raise ValueError(f"--column {column}: give NAME=DIR, each name once and none of {BACKBONE}, {PROPHY}")
        columns[name] = partial(_load_column, arguments.model, Path(folder))
    if not arguments.no_branch and load(arguments.model, branch=arguments.branch).attachment is not None:
        columns[PROPHY] = partial(_load, arguments)
    return columns


def _load_column(model: Path | None, folder: Path) -> ProPhyWanPipeline:
    if (folder / "model_index.json").is_file():
        return load(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no model: merge a LoRA into its transformer and save that folder")
    from diffusers import WanTransformer3DModel

    pipeline = load(model, transformer=WanTransformer3DModel.from_pretrained(folder))
    if pipeline.attachment is not None:
        pipeline.attachment.enabled = False
    return pipeline


def _table(rows: list[tuple[str, ...]]) -> None:
    """Print aligned columns: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("  ".join([row[0].ljust(widths[0]), *cells]))


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _interval(interval: Interval) -> str:
    return f"{100 * interval.value:.1f} % ({100 * interval.low:.1f}–{100 * interval.high:.1f}, n={interval.n})"


def _difference(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval.value:+.5f} ({interval.low:+.5f} to {interval.high:+.5f})"


def _gate(value: float, least: float) -> str:
    return f"gate {100 * least:.0f} %: {'passed' if value >= least else 'NOT passed'}"


def _recogniser(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.recognition import GATE, RecogniserRecipe, train_recogniser

    vae = None if arguments.model is None else load(arguments.model).vae
    result = train_recogniser(arguments.work, RecogniserRecipe(**given(arguments, "clips", "test_clips", "steps")), vae)
    rows = [("on held-out renders", "recall", "false alarms")]
    rows += [(name, _share(value), _share(result.false_alarms[name])) for name, value in result.recall.items()]
    rows += [("an empty stage", "", _share(result.empty_false_alarms))]
    rows += [("a first frame that never moves", "", _share(result.frozen_false_alarms))]
    _table(rows)
    if result.exact_decoded is not None:
        print(f"exact after the autoencoder: {_share(result.exact_decoded)}")
    print(f"exact: {_share(result.exact)} ({_gate(result.exact, GATE)})")


def _recognition(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.held_out import held_out_prompts, training_captions
    from prophy.evaluation.prompted import BOTH_GATE, SINGLE_GATE, evaluate_recognition

    pipeline = _load(arguments)
    prompts = held_out_prompts(arguments.prompts, training_captions())
    result = evaluate_recognition(pipeline, arguments.work, prompts, arguments.batch, arguments.steps)
    score = result.score
    rows = [("recognised", "share (95 %)", "where not asked for")]
    rows += [(name, _interval(value), _share(score.unasked[name])) for name, value in score.recall.items()]
    rows += [(kind, _interval(value), "") for kind, value in score.by_wording.items()]
    rows += [
        ("exactly what was asked for", _interval(score.exact), ""),
        ("one phenomenon", _interval(score.single), _gate(score.single.value, SINGLE_GATE)),
        ("two phenomena, both", _interval(score.both), _gate(score.both.value, BOTH_GATE)),
    ]
    _table(rows)
    print(f"the classifier is exact on {_share(result.classifier_exact)} of held-out real renders")


def _sheet(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.prompts import FIXED_PROMPTS
    from prophy.evaluation.sheet import draw_sheet, generate_fixed, save_sheet

    clips = generate_fixed(_load(arguments), FIXED_PROMPTS, arguments.batch, arguments.steps)
    picture = draw_sheet(FIXED_PROMPTS, clips, columns=arguments.columns, routing=arguments.routing)
    size = save_sheet(arguments.out, picture)
    print(f"sheet    {arguments.out} ({size / 1e6:.2f} MB, {len(clips.frames)} clips)")


def _localisation(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.image_free import ImageFreeRecipe
    from prophy.evaluation.localisation import LEAST_SHARE, evaluate_localisation
    from prophy.training.tiny_branch import BranchRecipe

    if arguments.no_branch:
        raise ValueError("localisation measures the branch: leave --no-branch out")
    result = evaluate_localisation(
        _load(arguments),
        arguments.work,
        clips=arguments.clips,
        match_clips=arguments.match_clips,
        train_clips=arguments.train_clips or BranchRecipe.clips,
        recipe=ImageFreeRecipe(steps=arguments.control_steps or ImageFreeRecipe.steps),
        batch=arguments.batch,
    )
    for level in result.levels:
        rows = [
            (f"noise {level.noise}", "token AP (95 %)", "touched", "energy/area", "pointing", "told apart", "pooled")
        ]
        for name, s in level.scores.items():
            ap = f"{s.ap.value:.3f} ({s.ap.low:.3f}–{s.ap.high:.3f})"
            others = (s.ap_touched.value, s.energy.value, s.pointing.value, s.apart.value, s.ap_pooled)
            rows.append((name, ap, *(f"{value:.3f}" for value in others)))
        _table(rows)
        gain = level.map_minus_image_free
        print(f"P' minus the image-free control, token AP: {gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})\n")
    rows = [("expert", "of top-k", "of first choices")]
    rows += [
        (str(e), _share(a), _share(b)) for e, (a, b) in enumerate(zip(result.use.topk, result.use.top1, strict=True))
    ]
    _table(rows)
    print(f"smallest share of top-k: {_share(min(result.use.topk))} ({_gate(min(result.use.topk), LEAST_SHARE)})\n")
    rows = [("semantic router", "AUC", "coarse head as it is")]
    rows += [
        (name, f"{value:.3f}", f"{result.semantic_auc_head[name]:.3f}") for name, value in result.semantic_auc.items()
    ]
    _table(rows)


def _flow(arguments: argparse.Namespace) -> None:
    from diffusers import WanTransformer3DModel

    from prophy.evaluation.flow_gain import evaluate_flow

    if arguments.no_branch and arguments.control is None:
        raise ValueError("--no-branch leaves only the backbone: give a --control to compare it with")
    control = None
    if arguments.control is not None:
        folder = arguments.control
        folder = folder / "transformer" if (folder / "transformer").is_dir() else folder
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} holds no transformer (config.json is missing): give a --control folder")
        control = WanTransformer3DModel.from_pretrained(folder)
    result = evaluate_flow(
        _load(arguments), arguments.work, control, arguments.clips, arguments.batch, control and arguments.control.name
    )
    for title, which in (("whole latent", "everywhere"), ("where the phenomena are", "acting")):
        rows = [(title, "noise", "loss", "minus backbone (95 %)")]
        for level in result.levels:
            for name, part in getattr(level, which).items():
                rows.append((name, f"{level.noise}", f"{part.loss.value:.5f}", _difference(part.difference)))
            if which in level.branch_minus_control:
                rows.append(
                    ("branch minus control", f"{level.noise}", "", _difference(level.branch_minus_control[which]))
                )
        _table(rows)


def _laws(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.lawfulness import SPLITS_MEASURED, evaluate_laws

    result = evaluate_laws(
        _columns(arguments),
        arguments.work,
        arguments.clips,
        arguments.batch,
        arguments.steps,
        tuple(arguments.split or SPLITS_MEASURED),
    )
    for split, scores in result.scores.items():
        rows = [(f"{split}: laws obeyed (95 %)", *scores)]
        for law in next(iter(scores.values())).by_law:
            rows.append((law, *(_interval(score.by_law[law].obeyed) for score in scores.values())))
        rows.append(("mean over laws", *(_interval(score.obeyed) for score in scores.values())))
        rows.append(("mean error", *(f"{score.error.value:.3f}" for score in scores.values())))
        rows.append(("scenes without a track", *(_share(score.lost.value) for score in scores.values())))
        rows.append(("error minus backbone", *(_difference(score.minus_backbone) for score in scores.values())))
        _table(rows)
        print()


def _gallery(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.gallery import make_gallery

    print(f"gallery  {arguments.out} ({make_gallery(_load(arguments), arguments.out)} runs)")


def _segmenter(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.segmentation import SegmenterRecipe, train_segmenter

    result = train_segmenter(arguments.work, SegmenterRecipe(**given(arguments, "clips", "test_clips", "steps")))
    rows = [("on held-out renders", "overlap (95 %)")]
    rows += [(name, _interval(value)) for name, value in result.overlap.items()]
    _table(rows)
    print(f"token AP {result.ap.value:.3f} ({result.ap.low:.3f}–{result.ap.high:.3f})")
    print(f"missed altogether {_share(result.missed)}; tokens of what is not there {100 * result.alarms:.2f} %")


def _generated_localisation(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.generated_localisation import evaluate_generated_localisation
    from prophy.evaluation.held_out import held_out_prompts

    if arguments.no_branch:
        raise ValueError("localisation measures the branch: leave --no-branch out")
    prompts = held_out_prompts(arguments.prompts, frozenset(), first_scene=20_000)
    result = evaluate_generated_localisation(
        _load(arguments), arguments.work, prompts, arguments.batch, arguments.steps
    )
    names = list(result.steps[0].scores)
    rows = [("step", *(f"{name}: token AP (95 %)" for name in names))]
    for step in result.steps:
        aps = [step.scores[name].ap for name in names]
        rows.append((str(step.step), *(f"{ap.value:.3f} ({ap.low:.3f}–{ap.high:.3f})" for ap in aps)))
    _table(rows)
    print(", ".join(f"{name} {score.ap.value:.3f}" for name, score in result.baselines.items()))
    print(
        f"masks by the segmenter (token AP {result.segmenter_ap.value:.3f} on held-out renders); "
        f"it sees nothing of {result.without_tokens} of {result.asked} phenomena asked for"
    )


def _figures(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.figures import LabelledPrompt, figure_6, figure_7, figure_8, read_prompts
    from prophy.evaluation.held_out import held_out_prompts
    from prophy.evaluation.prompts import FIXED_PROMPTS
    from prophy.generation import GenerationSettings

    wanted = arguments.figure or [6, 7, 8]
    pipeline = _load(arguments)
    chosen = given(arguments, "steps", "guidance", "frames", "height", "width")
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
        result = figure_6(pipeline, arguments.work, prompts)
        off = [row[j].value for i, row in enumerate(result.logits) for j in range(i)]
        print(
            f"figure 6 {len(off)} pairs, correlations {min(off):+.2f} to {max(off):+.2f}, "
            f"agreement with the labels {result.agreement:+.2f}"
        )
    if 7 in wanted:
        print(f"figure 7 {', '.join(figure_7(pipeline, arguments.work, settings).pictures)}")
    if 8 in wanted:
        result = figure_8(pipeline, arguments.work, settings)
        rows = [("figure 8, change", "pixels, 0 to 1 (95 %)", "routing, bits")]
        rows += [
            (name, f"{v.value:.4f} ({v.low:.4f}–{v.high:.4f})", f"{result.routing[name].value:.3f}")
            for name, v in result.pixels.items()
        ]
        _table(rows)


def _curves(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.curves import save_curves

    out = arguments.out or arguments.work / "curves.html"
    count = save_curves(arguments.work, out)
    print(f"curves   {out} ({count} {'training' if count == 1 else 'trainings'})")


def _annotation(arguments: argparse.Namespace) -> None:
    from prophy.annotation.annotator import Annotator
    from prophy.annotation.config import read_config
    from prophy.evaluation.annotation import evaluate_annotation

    config = read_config(arguments.config or arguments.vlm)
    annotator = Annotator.from_pretrained(arguments.vlm, config, dtype="float32")
    result = evaluate_annotation(annotator, arguments.out, arguments.clips, arguments.split)
    heading = ("token AP (95 %)", "energy/area", "pointing", "told apart")
    for title, scores in (("map", result.scores), ("targets, by phenomenon", result.by_phenomenon)):
        rows = [(title, *heading)]
        for name, s in scores.items():
            ap = f"{s.ap.value:.3f} ({s.ap.low:.3f}–{s.ap.high:.3f})"
            rows.append((name, ap, *(f"{v.value:.3f}" for v in (s.energy, s.pointing, s.apart))))
        _table(rows)
        print()
    for said in result.answers[:3]:
        print("\n".join(f"{question} {text}" for question, text in said.items()))
