"""``prophy annotate``: token targets for many clips from a vision-language model; ``… show``: one of them drawn.

prophy annotate --data wisa --path wisa-80k.json --videos DIR --vlm Qwen/Qwen2.5-VL-32B-Instruct --shard 3/16
torchrun --nproc_per_node 8 -m prophy annotate --data folder --path DIR --vlm ID_OR_DIR
prophy annotate show annotations/clips/CLIP
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from prophy.clips import Clip
from prophy.flags import given

if TYPE_CHECKING:
    from prophy.annotation.pipeline import Geometry, Job


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
        description="Token targets for many clips; run it again to go on. To see one: prophy annotate show CLIP.",
    )
    add_data(parser)
    add_geometry(parser)
    parser.add_argument("--vlm", required=True, metavar="ID_OR_DIR", help="Qwen2.5-VL, Qwen3-VL or Qwen3.5")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="JSON of settings (default: the model's, else ours)"
    )
    parser.add_argument("--out", type=Path, default=Path("annotations"), help="folder to fill (default: annotations)")
    parser.add_argument("--shard", metavar="I/N", help="only this part of the clips, from 1/N to N/N")
    parser.add_argument("--dtype", default="auto", help="of the model's weights (default: as saved)")
    parser.add_argument("--device", help="default: the worker's own accelerator, or the CPU")
    return parser


def add_data(parser: argparse.ArgumentParser) -> None:
    """The flags that say which clips; :func:`read_jobs` reads them."""
    parser.add_argument("--data", required=True, choices=("wisa", "folder", "worlds"), help="what the clips are")
    parser.add_argument("--path", type=Path, help="wisa: metadata; folder: the clips with their table of captions")
    parser.add_argument("--videos", type=Path, metavar="DIR", help="wisa: folder of the videos")
    parser.add_argument("--sample", type=int, metavar="N", help="a random subset; the paper's is 20000")
    parser.add_argument("--seed", type=int, default=0, help="of the subset (default: 0)")
    parser.add_argument("--min-duration", type=float, metavar="S", help="seconds")
    parser.add_argument("--min-width", type=float, metavar="PX", help="pixels")
    parser.add_argument("--max-text-boxes", type=float, metavar="N", help="boxes of written text in the picture")
    parser.add_argument("--clips", type=int, default=64, help="worlds: how many (default: 64)")
    parser.add_argument("--split", default="test", help="worlds: of which split (default: test)")


def add_geometry(parser: argparse.ArgumentParser) -> None:
    """The flags that say which piece of each video."""
    parser.add_argument("--size", metavar="WxHxF", help="of the clips that will train (default: 832x480x49)")
    parser.add_argument("--fps", type=float, help="frames a second of those clips (default: 16)")
    parser.add_argument("--cell", type=int, help="pixels on a side of the diffusion model's token (default: 16)")


def build_show_parser() -> argparse.ArgumentParser:
    """Every flag of ``prophy annotate show``."""
    parser = argparse.ArgumentParser(prog="prophy annotate show", description="Draw a clip's maps over its frames.")
    parser.add_argument("clip", type=Path, metavar="CLIP", help="folder of an annotated clip")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the picture (default: CLIP.png)")
    parser.add_argument("--rows", type=int, default=5, help="frames shown (default: 5)")
    return parser


def _annotate(arguments: argparse.Namespace) -> None:
    from prophy.annotation.config import read_config
    from prophy.annotation.pipeline import Shard, annotate_all

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    # All of this before the weights: a typo should not cost minutes.
    shard = Shard.of(arguments.shard, os.environ)
    config = read_config(arguments.config or arguments.vlm)
    jobs, left_out, geometry = read_jobs(arguments)
    if not jobs:
        raise ValueError(f"no clip to annotate: {left_out} have no phenomenon or no video")

    from prophy.annotation.annotator import Annotator

    annotator = Annotator.from_pretrained(
        arguments.vlm, config, dtype=arguments.dtype, device=arguments.device or _own_device()
    )
    outcome = annotate_all(annotator, jobs, arguments.out, geometry, shard)
    print(
        f"shard {shard} of {len(jobs)} clips: {outcome.annotated} annotated, {outcome.before} before, "
        f"{outcome.skipped} skipped; {left_out} without phenomenon or video"
    )
    if outcome.skipped:
        print(f"reasons  {arguments.out / 'skipped.jsonl'}")


def read_jobs(arguments: argparse.Namespace) -> tuple[list[Job], int, Geometry]:
    """Jobs, how many clips were left out, and the geometry, as the flags say.

    Raises:
        ValueError, OSError: an input is missing or does not fit.
    """
    from prophy.annotation.pipeline import WORLDS, Geometry, jobs_of, jobs_of_worlds
    from prophy.data.folder import read_folder
    from prophy.data.records import Filters, apply_filters, random_subset
    from prophy.data.wisa import read_wisa

    if arguments.data == "worlds":
        for name in ("path", "videos", "size", "fps", "cell", "sample", "min_duration", "min_width", "max_text_boxes"):
            if getattr(arguments, name) is not None:
                raise ValueError(f"--{name.replace('_', '-')} changes nothing in the worlds: leave it out")
        from prophy.training.tiny_transformer import SCOPE

        return jobs_of_worlds(arguments.clips, arguments.split, SCOPE), 0, WORLDS
    if arguments.path is None:
        raise ValueError(f"--data {arguments.data} needs --path")
    sizes = {}
    if arguments.size is not None:
        clip = Clip.parse(arguments.size)
        sizes = {"width": clip.width, "height": clip.height, "frames": clip.frames}
    geometry = Geometry(**sizes, **given(arguments, "fps", "cell"))
    if arguments.data == "wisa":
        reading = read_wisa(arguments.path, videos=arguments.videos)
    elif arguments.videos is not None:
        raise ValueError("--videos changes nothing in a folder of clips: leave it out")
    else:
        reading = read_folder(arguments.path)
    filters = Filters(
        min_duration=arguments.min_duration, min_width=arguments.min_width, max_text_boxes=arguments.max_text_boxes
    )
    records, _ = apply_filters(reading.records, filters)
    if arguments.sample is not None:
        records = random_subset(records, arguments.sample, arguments.seed)
    jobs, left_out = jobs_of(records, geometry)
    return jobs, left_out + len(reading.faults), geometry


def _own_device() -> str:
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else "auto"


def _show(arguments: argparse.Namespace) -> None:
    from prophy.annotation.record import Annotation
    from prophy.annotation.show import save_png, sheet
    from prophy.video import read_video

    folder = arguments.clip
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not the folder of an annotated clip: look into the clips/ of an --out")
    if arguments.rows < 1:
        raise ValueError(f"--rows {arguments.rows} must be at least 1")
    annotation = Annotation.load(folder)
    about = json.loads((folder / "clip.json").read_text(encoding="utf-8"))
    out = arguments.out or folder.with_name(folder.name + ".png")
    save_png(out, sheet(annotation, read_video(folder / "clip.mp4").frames, about["caption"], arguments.rows))
    print(f"sheet    {out}")
