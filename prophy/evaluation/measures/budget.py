"""The causal budget: what the branch changes at all, before anything is said about its parts.

    prophy evaluate budget --model runs/second/model --work runs/second

Every prompt is made twice from the same noise, with the branch off and on: laws fixed and regressed, and pixels changed
where the phenomena are and elsewhere. Where the two clips are the same, no map of the routing says anything about them.

Shapes: n clips, F video frames of H×W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from prophy.backbones.pipeline import ProPhyPipeline
from prophy.evaluation.clips import generated_frames, settings_of
from prophy.evaluation.judges.pictures import through_autoencoder
from prophy.evaluation.measures.causes import (
    PLACE,
    AreaFinder,
    area_finder,
    attachment_of,
    backbone_frames,
    pixel_change,
    union,
)
from prophy.evaluation.measures.laws import asked_clips, clip_errors, score_columns, verdicts_of
from prophy.evaluation.measures.metrics import bootstrap, bootstrap_of
from prophy.evaluation.results.causes import BudgetScore, CausalBudgetResult, PixelChange
from prophy.evaluation.results.laws import AUTOENCODER, BACKBONE, PROPHY
from prophy.generation.identity import model_hash
from prophy.worlds import WorldSet

SPLITS = ("test", "combinations")
CLIPS = 64  #: of each split


def evaluate_budget(
    pipeline: ProPhyPipeline,
    work: Path,
    clips: int = CLIPS,
    batch: int = 8,
    steps: int | None = None,
    splits: Sequence[str] = SPLITS,
    areas: str = PLACE,
    worlds: WorldSet = WorldSet(),
) -> CausalBudgetResult:
    """Make every clip off and on, judge both; writes ``budget.json`` under ``work/evaluation``.

    Clips stay on disk, the same that ``prophy evaluate laws`` makes; a killed run is resumed.

    Args:
        pipeline: with a branch.
        work: folder of results.
        clips: of each split.
        batch: prompts at a time.
        steps: denoising steps, for trying out.
        splits: of the worlds.
        areas: see :func:`prophy.evaluation.measures.causes.area_finder`.
        worlds: which phenomena, in which words, of what size, length and rate; any split.

    Raises:
        ValueError: the pipeline has no branch, an unknown split, or no clips.
    """
    attachment_of(pipeline)
    if clips < 1:
        raise ValueError(f"--clips {clips}: measure at least one")
    find, of_splits = area_finder(areas, work, worlds), [replace(worlds, split=split) for split in splits]
    scores = {one.split: _score(pipeline, Path(work), one, clips, batch, steps, find) for one in of_splits}
    return CausalBudgetResult(
        scores=scores,
        areas=areas,
        clips=clips,
        steps=steps,
        size=worlds.stage.size,
        fps=worlds.stage.fps,
        model_sha256=model_hash(pipeline),
        phenomena=worlds.phenomena,
        grammar=worlds.grammar,
    ).save(work)


def _score(
    pipeline: ProPhyPipeline,
    work: Path,
    worlds: WorldSet,
    clips: int,
    batch: int,
    steps: int | None,
    find: AreaFinder,
) -> BudgetScore:
    asked, stage = asked_clips(worlds.split, clips, worlds.phenomena, grammar=worlds.words), worlds.stage
    progress = tqdm(asked, f"real, {worlds.split}", mininterval=5, unit="clip")
    renders = np.stack([worlds.clip(one.scene).frames for one in progress])
    settings = settings_of(asked, steps, stage)
    frames = {
        AUTOENCODER: through_autoencoder(renders, pipeline.vae, batch),
        BACKBONE: backbone_frames(pipeline, work, settings, batch),
        PROPHY: generated_frames(pipeline, work, settings, batch),
    }
    errors = {
        name: tuple(clip_errors(clip, one.scenario, stage) for clip, one in zip(made, asked, strict=True))
        for name, made in frames.items()
    }
    off, on = frames[BACKBONE], frames[PROPHY]
    table = {name: verdicts_of(clips)[1] for name, clips in errors.items()}
    return BudgetScore(
        columns=score_columns(errors),
        gain=bootstrap(table[PROPHY] - table[BACKBONE]),
        of_autoencoder=bootstrap_of(np.divide, table[PROPHY], table[AUTOENCODER]),
        pixels=summarised(
            [pixel_change(a, b, union(area)) for a, b, area in zip(off, on, find(off, on, asked), strict=True)]
        ),
    )


def summarised(changes: Sequence[tuple[float, float]]) -> PixelChange:
    """Means over clips of ``(inside, outside)``; the ratio is of the two means, over clips that have both."""
    inside, outside = np.array(changes, np.float64).reshape(-1, 2).T
    both = np.where(np.isnan(inside) | np.isnan(outside), np.nan, 1.0)
    return PixelChange(
        bootstrap(inside), bootstrap(outside), bootstrap_of(lambda a, b: b / a, inside * both, outside * both)
    )
