"""``prophy evaluate recognition | laws | localisation | flow | budget | …``: behind every claim.

Each command prints a short table and writes everything it found as JSON under ``--work``. Those listed last make what
the others need and the repository ships.
"""

from __future__ import annotations

import argparse

from prophy.evaluation.benchmarks.cli import add_benchmarks
from prophy.evaluation.judges.cli import add_judges
from prophy.evaluation.measures.causes_cli import add_causes
from prophy.evaluation.measures.cli import add_measures
from prophy.evaluation.measures.looks_cli import add_looks
from prophy.evaluation.prompts.cli import add_pictures
from prophy.evaluation.report.cli import add_curves, add_reports
from prophy.evaluation.results import as_typed, running_command
from prophy.files import check_writable


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
    for add in (add_measures, add_looks, add_causes, add_benchmarks, add_reports):
        add(commands)
    for add in (add_judges, add_pictures, add_curves):  # what only maintainers need
        add(commands)
    return parser
