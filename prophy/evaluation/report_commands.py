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

    readme = commands.add_parser("readme", help="the README's results, from what was measured in a work folder")
    readme.add_argument("work", type=Path, metavar="WORK", help="folder whose evaluation/ holds the results")
    readme.add_argument("--readme", type=Path, default=Path("README.md"), help="file to change (default: README.md)")
    readme.set_defaults(run=_readme)


def _report(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.report import write_report

    count = write_report(arguments.work, arguments.out)
    print(f"report   {arguments.out}, {arguments.out.with_suffix('.json')} ({count} results)")


def _readme(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.report import update_readme

    print(
        f"readme   {arguments.readme} ({'changed' if update_readme(arguments.work, arguments.readme) else 'the same'})"
    )
