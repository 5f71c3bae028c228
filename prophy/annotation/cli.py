"""``prophy annotate``: token targets for many clips from a vision-language model; ``… show``: one of them drawn.

prophy annotate --data wisa --path wisa-80k.json --videos DIR --vlm Qwen/Qwen2.5-VL-32B-Instruct --shard 3/16
torchrun --nproc_per_node 8 -m prophy annotate --data folder --path DIR --vlm ID_OR_DIR
prophy annotate show annotations/clips/CLIP
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

from prophy.data.jobs import add_data, add_geometry, add_shard, read_jobs
from prophy.flags import whole
from prophy.schema import read_object


def main(argv: list[str]) -> None:
    """Annotate, or show.

    Raises:
        ValueError, OSError: an input is missing or does not fit; one line that names the cure.
    """
    if argv and argv[0] == "show":
        _show(build_show_parser().parse_args(argv[1:]))
    else:
        _annotate(build_parser().parse_args(argv))


def build_parser() -> argparse.ArgumentParser:
    """Every flag of ``prophy annotate``."""
    parser = argparse.ArgumentParser(
        prog="prophy annotate",
        description="Token targets for many clips; run it again to resume. To see one: prophy annotate show CLIP.",
    )
    add_data(parser)
    add_geometry(parser)
    parser.add_argument("--vlm", required=True, metavar="ID_OR_DIR", help="Qwen2.5-VL, Qwen3-VL or Qwen3.5")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="JSON of settings (default: the model's, else ours)"
    )
    parser.add_argument("--out", type=Path, default=Path("annotations"), help="folder to fill (default: annotations)")
    add_shard(parser)
    parser.add_argument("--dtype", default="auto", help="of the model's weights (default: as saved)")
    parser.add_argument("--device", help="default: the worker's own accelerator, or the CPU")
    return parser


def build_show_parser() -> argparse.ArgumentParser:
    """Every flag of ``prophy annotate show``."""
    parser = argparse.ArgumentParser(prog="prophy annotate show", description="Draw a clip's maps over its frames.")
    parser.add_argument("clip", type=Path, metavar="CLIP", help="folder of an annotated clip")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the picture (default: CLIP.png)")
    parser.add_argument("--rows", type=whole, default=5, help="frames shown (default: 5)")
    return parser


def _annotate(arguments: argparse.Namespace) -> None:
    from prophy.annotation.config import read_config
    from prophy.annotation.pipeline import annotate_all
    from prophy.data.jobs import Shard
    from prophy.files import check_writable, some_of

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    # All of this before the weights: a typo should not cost minutes.
    shard = Shard.of(arguments.shard, os.environ)
    config = read_config(arguments.config or arguments.vlm)
    jobs, left_out, geometry = read_jobs(arguments)
    if not jobs:
        raise ValueError(f"no clip to annotate: {left_out} have no phenomenon or no video")
    check_writable(arguments.out)

    from prophy.annotation.annotator import Annotator

    annotator = Annotator.from_pretrained(
        arguments.vlm, config, dtype=arguments.dtype, device=arguments.device or own_device()
    )
    outcome = annotate_all(annotator, jobs, arguments.out, geometry, shard)
    print(
        f"shard {shard} of {len(jobs)} clips: {outcome.annotated} annotated, {outcome.before} before, "
        f"{outcome.skipped} skipped; {left_out} without phenomenon or video"
    )
    if outcome.changed:
        print(f"changed  {some_of(outcome.changed)}: annotated anew, for the video or the labels are others now")
    if outcome.recaptioned:
        print(f"caption  {some_of(outcome.recaptioned)}: the new one is noted, the targets stay")
    if outcome.foreign and not shard.index:
        print(f"unused   {len(outcome.foreign)} clips in {arguments.out} are not asked for: {some_of(outcome.foreign)}")
    if outcome.skipped:
        print(f"reasons  {arguments.out / 'skipped.jsonl'}")


def own_device() -> str:
    """The accelerator of this process's own rank; without torchrun ``auto``, all there are; or the CPU."""
    from prophy.generation.pipelines import accelerator

    kind = accelerator().type
    if kind == "cpu":
        return kind
    return f"{kind}:{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else "auto"


def _show(arguments: argparse.Namespace) -> None:
    from prophy.annotation.record import TARGETS, Annotation
    from prophy.annotation.show import sheet
    from prophy.runs.pictures import write_png
    from prophy.video import read_video

    folder = arguments.clip
    if not (folder / TARGETS).is_file():
        raise FileNotFoundError(f"{folder} is not the folder of an annotated clip: look into the clips/ of an --out")
    if arguments.rows < 1:
        raise ValueError(f"--rows {arguments.rows} must be at least 1")
    annotation = Annotation.load(folder)
    caption = str(read_object(folder / "clip.json", "annotate the clip again").get("caption", ""))
    out = arguments.out or folder.with_name(folder.name + ".png")
    write_png(out, sheet(annotation, read_video(folder / "clip.mp4").frames, caption, arguments.rows))
    print(f"sheet    {out}")
