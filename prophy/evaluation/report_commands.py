"""``prophy evaluate report`` and ``prophy evaluate readme``."""

from __future__ import annotations

import argparse
from pathlib import Path


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

    readme = commands.add_parser("readme", help="the README's results, from what was measured in a work folder")
    readme.add_argument("work", type=Path, metavar="WORK", help="folder whose evaluation/ holds the results")
    readme.add_argument("--readme", type=Path, default=Path("README.md"), help="file to change (default: README.md)")
    readme.set_defaults(run=_readme)


def _report(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.report import write_report

    count = write_report(arguments.work, arguments.out)
    print(f"report   {arguments.out}, {arguments.out.with_suffix('.json')} ({count} results)")


def _ablation(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.ablation import evaluate_ablation

    runs = []
    for given in arguments.runs:
        name, _, folder = given.partition("=")
        if not name or not folder:
            raise ValueError(f"{given}: give NAME=DIR")
        runs.append((name, Path(folder)))
    result = evaluate_ablation(runs, arguments.work)
    measures = list(next(iter(result.rows.values())))
    print(f"{'recipe':24}{'runs':>5}" + "".join(f"{measure:>28}" for measure in measures))
    for name, row in result.rows.items():
        cells = (
            "not measured" if v is None else f"{v.value:.3f} ({v.low:.3f}–{v.high:.3f}, n={v.n})" for v in row.values()
        )
        print(f"{name:24}{result.runs[name]:>5}" + "".join(f"{cell:>28}" for cell in cells))
    for name, missing in result.unmeasured.items():
        print(f"{name}: " + ", ".join(f"{measure} missing in {count}" for measure, count in missing.items()))


def _readme(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.report import update_readme

    print(
        f"readme   {arguments.readme} ({'changed' if update_readme(arguments.work, arguments.readme) else 'the same'})"
    )
