"""``prophy evaluate sheet | gallery``: what the repository shows of the fixed prompts."""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from prophy.data.jobs import stage_of
from prophy.evaluation.flags import add_grammar, add_stage, add_steps, opened
from prophy.flags import add_model, whole


def add_pictures(commands: argparse._SubParsersAction) -> None:
    """Add the contact sheet and the shipped runs to ``prophy evaluate``."""
    sheet = commands.add_parser("sheet", help="the fixed prompts on one contact sheet, every result shown")
    add_model(sheet, branch=True)
    sheet.add_argument("--out", type=Path, default=Path("docs/sheet.png"), help="the picture (default: docs/sheet.png)")
    sheet.add_argument("--routing", action="store_true", help="beneath each clip, the strongest expert of each token")
    sheet.add_argument("--columns", type=whole, default=2, help="of the sheet (default: 2)")
    sheet.add_argument("--batch", type=whole, default=8, help="prompts at a time (default: 8)")
    add_steps(sheet)
    add_stage(sheet)
    add_grammar(sheet)
    sheet.set_defaults(run=_sheet)

    gallery = commands.add_parser("gallery", help="make the shipped runs anew")
    add_model(gallery, branch=True)
    gallery.add_argument(
        "--out", type=Path, default=Path("assets/gallery"), help="folder to replace (default: assets/gallery)"
    )
    gallery.set_defaults(run=_gallery)


def _sheet(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.clips import settings_of
    from prophy.evaluation.prompts.fixed import fixed_prompts
    from prophy.evaluation.prompts.sheet import MAX_BYTES, clips_sheet
    from prophy.generation.generate import Generation, batches, generate
    from prophy.runs.pictures import write_png

    pipeline, stage = opened(arguments), stage_of(arguments.size, arguments.fps)
    settings = settings_of(fixed_prompts(arguments.grammar), arguments.steps, stage)
    clips: list[Generation] = []
    for places in tqdm(batches(settings, arguments.batch), "fixed prompts", unit="batch"):
        clips += generate(pipeline, [settings[i] for i in places])
    size = write_png(arguments.out, clips_sheet(clips, columns=arguments.columns, routing=arguments.routing), MAX_BYTES)
    print(f"sheet    {arguments.out} ({size / 1e6:.2f} MB, {len(clips)} clips)")


def _gallery(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.prompts.gallery import make_gallery

    print(f"gallery  {arguments.out} ({make_gallery(opened(arguments), arguments.out)} runs)")
