"""``prophy evaluate report | ablation | ablation-runs | readme | curves``: what prints what was measured."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path

from prophy.evaluation.flags import add_work
from prophy.evaluation.results import FOLDER
from prophy.flags import add_model, only_set, whole


def add_reports(commands: argparse._SubParsersAction) -> None:
    """Add the commands that print what the others measured."""
    report = commands.add_parser("report", help="everything measured in a work folder on one page, and as JSON")
    report.add_argument("work", type=Path, metavar="WORK", help="folder whose evaluation/ holds the results")
    report.add_argument("--out", type=Path, default=Path("report.html"), help="the page (default: report.html)")
    report.set_defaults(run=_report)

    ablation = commands.add_parser("ablation", help="the ablation table, from the results of finished runs")
    ablation.add_argument("runs", nargs="+", metavar="NAME=DIR", help="a recipe and a run's work folder; again: a seed")
    ablation.add_argument("--work", type=Path, required=True, help="folder for the table's own result")
    ablation.set_defaults(run=_ablation)

    together = commands.add_parser(
        "ablation-runs", help="train and measure every row of the ablation, and print its table; run again to resume"
    )
    together.add_argument(
        "--work", type=Path, default=Path("runs/ablation"), help="folder of the runs (default: runs/ablation)"
    )
    together.add_argument(
        "--caches",
        type=Path,
        default=Path("runs/tiny"),
        help="folder of encoded clips and of the recogniser (default: runs/tiny)",
    )
    add_model(together)
    together.add_argument("--row", action="append", metavar="RECIPE", help="repeat (default: the paper's rows)")
    together.add_argument("--seeds", type=whole, default=3, help="runs of each row (default: 3)")
    together.add_argument("--steps", type=whole, default=150, help="of each training (default: 150)")
    together.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change a field of every row's recipe, such as optimiser.warm_up=15. Repeat for more",
    )
    together.add_argument("--worlds", type=whole, help="clips to train on (default: 4000)")
    together.add_argument("--clips", type=whole, help="generated, for laws and recognition (default: 24)")
    together.add_argument("--latents", type=whole, help="held-out clips for localisation and flow loss (default: 64)")
    together.add_argument(
        "--batch", type=whole, help="clips at a time, measuring; the noise depends on it (default: 8)"
    )
    together.add_argument("--denoising-steps", type=whole, help="for trying out (default: the app's)")
    together.set_defaults(run=_ablation_runs)

    readme = commands.add_parser("readme", help="print what was measured in a work folder into documents")
    readme.add_argument("work", type=Path, metavar="WORK", help="folder whose evaluation/ holds the results")
    documents = [Path("README.md"), Path("docs/RESULTS.md")]
    readme.add_argument(
        "--readme", type=Path, nargs="+", default=documents, help="files to change (default: README.md docs/RESULTS.md)"
    )
    readme.set_defaults(run=_readme)


def add_curves(commands: argparse._SubParsersAction) -> None:
    """Add the page of training curves to ``prophy evaluate``."""
    curves = commands.add_parser("curves", help="the training curves of a work folder as one page")
    add_work(curves)
    curves.add_argument("--out", type=Path, help="the page (default: curves.html in the work folder)")
    curves.set_defaults(run=_curves)


def _report(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.report.page import write_report

    count = write_report(arguments.work, arguments.out)
    print(f"report   {arguments.out}, {arguments.out.with_suffix('.json')} ({count} results)")


def _ablation(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.measures.ablation import evaluate_ablation
    from prophy.evaluation.report.readers import as_text

    runs = []
    for pair in arguments.runs:
        name, _, folder = pair.partition("=")
        if not name or not folder:
            raise ValueError(f"{pair}: give NAME=DIR")
        runs.append((name, Path(folder)))
    print(as_text(evaluate_ablation(runs, arguments.work)))


def _ablation_runs(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.measures.ablation_runs import ROWS, AblationSettings, plan_runs, run_ablation
    from prophy.evaluation.report.readers import as_text
    from prophy.evaluation.results.ablation import AblationResult
    from prophy.training.cli import changed
    from prophy.training.recipes import recipe_named

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rows = {
        name: replace(changed(recipe_named(name), arguments.set), steps=arguments.steps)
        for name in arguments.row or ROWS
    }
    runs = plan_runs(rows, arguments.seeds, arguments.work)
    settings = AblationSettings(**only_set(arguments, "worlds", "clips", "latents", "batch", "denoising_steps"))
    try:
        run_ablation(runs, arguments.work, arguments.caches, arguments.model, settings)
    finally:  # stopped or not, what is there is shown
        if (arguments.work / FOLDER / f"{AblationResult.kind}.json").is_file():
            print(as_text(AblationResult.load(arguments.work)))


def _readme(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.report.readme import update_readme

    for document in arguments.readme:
        print(f"readme   {document} ({'changed' if update_readme(arguments.work, document) else 'the same'})")


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
