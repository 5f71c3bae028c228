"""``prophy cache fill | verify``: latents, text embeddings and targets of annotated clips, for any pipeline.

prophy cache fill --model MODEL --annotations annotations --data folder --path DIR --out cache --shard 3/16
prophy cache fill --model MODEL --data worlds --split train --clips 2000 --size 832x480x81 --fps 16 --cell 16
prophy cache verify cache
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from tqdm import tqdm

from prophy import phenomena
from prophy.annotation.pipeline import CLIPS, RECIPE, ClipInputs
from prophy.annotation.record import TARGETS
from prophy.backbones.autoencoder import scale_of
from prophy.backbones.pipeline import rules_of
from prophy.data.cache import TensorCache, verify
from prophy.data.encode import encode_caption, encode_clip, readable, vocabulary_sha256
from prophy.data.jobs import Geometry, Job, Shard, add_data, add_geometry, add_shard, read_jobs
from prophy.data.latents import cache_note, is_worlds_cache, verify_worlds
from prophy.files import check_writable, exclusive, read_regular, sha256, some_of
from prophy.flags import add_model
from prophy.generation.identity import model_hash
from prophy.routing.targets import MAX_BYTES, TokenTargets
from prophy.schema import read_object
from prophy.training.cached_examples import keep_empty_text, kept_empty_text
from prophy.training.encoders import encoders_of

log = logging.getLogger(__name__)


@exclusive("encoding")
def fill(
    pipeline: DiffusionPipeline,
    jobs: Sequence[Job],
    annotations: Path | None,
    out: Path,
    geometry: Geometry,
    shard: Shard,
    clips_per_shard: int = 64,
) -> tuple[int, int]:
    """Encode the annotated clips of a shard that are not in the cache yet; its list then names exactly these clips.

    An annotation of another video or of other labels than a clip has now counts as none, and is named. A clip whose
    caption is longer than the model reads is left out and named before the first is encoded.

    Args:
        pipeline: whose autoencoder and text encoder are used.
        jobs: of all workers, in the same order for each.
        annotations: what :func:`prophy.annotation.pipeline.annotate_all` filled; None: the jobs know their masks.
        out: the cache's folder.
        geometry: of the clips, as they were annotated.
        shard: this worker's.
        clips_per_shard: entries in a file.

    Returns:
        How many were encoded now, and how many of this shard have no annotation.

    Raises:
        ValueError: the cache or the annotations were made otherwise, or the model's tokens are of another size.
    """
    if annotations is None and (cell := rules_of(pipeline).cell) != geometry.cell:
        raise ValueError(f"a token of this model is {cell} pixels wide, not {geometry.cell}: give --cell {cell}")
    annotated = {"masks": asdict(geometry)} if annotations is None else _recipe_of(annotations, geometry)
    recipe = {
        "model": model_hash(pipeline),
        "dtype": str(pipeline.vae.dtype),
        "annotations": sha256(json.dumps(annotated, sort_keys=True))[:16],
        "phenomena": phenomena.VERSION,
        "scale": sha256(json.dumps(scale_of(pipeline.vae)))[:16],
        "vocabulary": vocabulary_sha256(pipeline.tokenizer),
    }
    read_whole = readable(pipeline, {job.id: (job.caption,) for job in jobs})
    jobs = [job for job in jobs if job.id in read_whole]
    cache = TensorCache(out, recipe)
    cache.expect(job.id for job in jobs if annotations is None or _targets(annotations, job).exists())
    workers = [f"{index + 1:04d}-of-{shard.count:04d}" for index in range(shard.count)]
    cache.begin(workers, workers[shard.index])
    if kept_empty_text(cache.folder, cache.recipe) is None:
        keep_empty_text(cache.folder, cache.recipe, encode_caption(pipeline, ""), encoders_of(pipeline))
    done = without = 0
    stale = []
    with cache.writer(workers[shard.index], clips_per_shard) as writer:
        for job in tqdm(shard.take(jobs), f"encode {shard}", unit="clip"):
            if annotations is not None:
                then = ClipInputs.read(_targets(annotations, job).parent)
                if not ClipInputs.of(job).targets_fit(then):
                    without += 1
                    stale += [job.id] if then is not None else []
                    continue
            frames, caption = job.read(), job.caption.encode(errors="replace")
            if annotations is None:
                targets = TokenTargets.from_masks(job.masks(), geometry.grid, "worlds")
                content = targets.values.tobytes()
            else:
                targets = TokenTargets.load(_targets(annotations, job))
                content = read_regular(_targets(annotations, job), MAX_BYTES)
            key = cache.key(sha256(frames.tobytes() + caption + content))
            if key in cache:
                writer.keep(job.id, key)
                continue
            tensors = {
                "latents": encode_clip(pipeline, frames),
                "text": encode_caption(pipeline, job.caption),
                "targets": torch.from_numpy(targets.values).half(),
                "labelled": torch.from_numpy(targets.labelled),
            }
            writer.add(job.id, key, tensors)
            done += 1
    if stale:
        log.warning(
            "left out %d clips whose annotation is of another video or other labels: %s; run prophy annotate again",
            len(stale),
            some_of(stale),
        )
    return done, without


def _recipe_of(annotations: Path, geometry: Geometry) -> dict[str, object]:
    """How clips were annotated."""
    recipe_file = Path(annotations) / RECIPE
    if not recipe_file.exists():
        raise FileNotFoundError(f"{annotations} holds no annotations ({RECIPE} is missing)")
    annotated = read_object(recipe_file, "annotate the clips again")
    if Geometry.of_recipe(annotated, recipe_file) != geometry:
        raise ValueError(f"{annotations} was made for other clips ({annotated['geometry']}): give the same sizes")
    return annotated


def _targets(annotations: Path, job: Job) -> Path:
    return Path(annotations) / CLIPS / job.folder / TARGETS


def main(argv: list[str]) -> None:
    """Run one command.

    Raises:
        ValueError, OSError: an input is missing or does not fit; one line that names the cure.
    """
    arguments = build_parser().parse_args(argv)
    arguments.run(arguments)


def build_parser() -> argparse.ArgumentParser:
    """Every command and its flags."""
    parser = argparse.ArgumentParser(prog="prophy cache", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    filling = commands.add_parser("fill", help="encode annotated clips; run it again to resume")
    add_data(filling)
    add_geometry(filling)
    add_model(filling)
    filling.add_argument("--device", help="such as cuda:1 (default: the accelerator, if there is one)")
    filling.add_argument(
        "--annotations", type=Path, metavar="DIR", help="made by prophy annotate (default, in the worlds: their masks)"
    )
    filling.add_argument("--out", type=Path, default=Path("cache"), help="folder to fill (default: cache)")
    add_shard(filling)
    filling.set_defaults(run=_fill)
    verifying = commands.add_parser("verify", help="check every shard: hashes, shapes, values, missing clips")
    verifying.add_argument("folder", type=Path, metavar="DIR", help="a cache")
    verifying.set_defaults(run=_verify)
    return parser


def _fill(arguments: argparse.Namespace) -> None:
    from prophy.generation.pipelines import load

    if arguments.annotations is None and arguments.data != "worlds":
        raise ValueError("only the worlds know where their phenomena are: give --annotations, made by prophy annotate")
    shard = Shard.of(arguments.shard, os.environ)
    jobs, _, geometry = read_jobs(arguments)
    check_writable(arguments.out)
    pipeline = load(arguments.model, device=arguments.device)
    done, without = fill(pipeline, jobs, arguments.annotations, arguments.out, geometry, shard)
    print(f"shard {shard}: {done} clips encoded, {without} without annotation")


def _verify(arguments: argparse.Namespace) -> None:
    folder = arguments.folder
    held = cache_note(folder) if is_worlds_cache(folder) else None
    problems = verify(folder) if held is None else verify_worlds(folder)
    for problem in problems:
        print(problem)
    if wrong := [problem for problem in problems if not problem.harmless]:
        raise ValueError(f"{len(wrong)} things are wrong with {folder}")
    clips = len(TensorCache(folder).entries()) if held is None else held.count
    print(f"{folder}: {clips} clips, nothing wrong")
