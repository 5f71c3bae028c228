"""``prophy evaluate recogniser | recognition | sheet | localisation | flow``: the numbers behind every claim.

Each command prints a short table and writes everything it found as JSON under ``--work``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from prophy.pipelines import ProPhyWanPipeline, load


def main(argv: list[str]) -> None:
    """Run one evaluation.

    Raises:
        ValueError, FileNotFoundError: an input is missing or does not fit; one line that names the cure.
    """
    arguments = build_parser().parse_args(argv)
    arguments.run(arguments)


def build_parser() -> argparse.ArgumentParser:
    """Every evaluation and its flags."""
    parser = argparse.ArgumentParser(prog="prophy evaluate", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    sheet = commands.add_parser("sheet", help="the fixed prompts on one contact sheet, every result shown")
    _add_model(sheet)
    sheet.add_argument("--out", type=Path, default=Path("docs/sheet.png"), help="the picture (default: docs/sheet.png)")
    sheet.add_argument("--routing", action="store_true", help="beneath each clip, the strongest expert of each token")
    sheet.add_argument("--columns", type=int, default=2, help="of the sheet (default: 2)")
    sheet.add_argument("--batch", type=int, default=8, help="prompts at a time (default: 8)")
    sheet.add_argument("--steps", type=int, help="denoising steps, for trying out (default: the app's)")
    sheet.set_defaults(run=_sheet)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, help="a diffusers folder (default: the embedded model)")
    branch = parser.add_mutually_exclusive_group()
    branch.add_argument("--branch", type=Path, help="folder of the branch (default: the one inside the model's)")
    branch.add_argument("--no-branch", action="store_true", help="the backbone alone")


def _load(arguments: argparse.Namespace) -> ProPhyWanPipeline:
    pipeline = load(arguments.model, branch=arguments.branch)
    if arguments.no_branch and pipeline.attachment is not None:
        pipeline.attachment.enabled = False
    return pipeline


def _table(rows: list[tuple[str, ...]]) -> None:
    """Print aligned columns: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("  ".join([row[0].ljust(widths[0]), *cells]))


def _sheet(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.prompts import FIXED_PROMPTS
    from prophy.evaluation.sheet import draw_sheet, generate_fixed, save_sheet

    clips = generate_fixed(_load(arguments), batch=arguments.batch, steps=arguments.steps)
    picture = draw_sheet(FIXED_PROMPTS, clips, columns=arguments.columns, routing=arguments.routing)
    size = save_sheet(arguments.out, picture)
    print(f"sheet    {arguments.out} ({size / 1e6:.2f} MB, {len(clips.frames)} clips)")
