"""Dose and sufficiency: how much of the branch the laws need, and whether one expert is enough for its own.

    prophy evaluate dose --model runs/second/model --work runs/second

The same prompts from the same noise with the branch at strength 0, ½, 1 and 2; and with the experts of all phenomena
muted but one. A cause has a dose: what half of it does not begin and all of it does not complete is no cause.

Shapes: n clips, L laws, P phenomena.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from prophy.backbones.pipeline import ProPhyPipeline
from prophy.evaluation.clips import generated_frames, settings_of
from prophy.evaluation.measures.causes import (
    ExpertNames,
    Verdicts,
    backbone_frames,
    expert_names,
    obeyed,
    steered_frames,
    verdicts,
)
from prophy.evaluation.measures.laws import AskedClip, asked_clips, clip_errors, verdicts_of
from prophy.evaluation.measures.metrics import bootstrap
from prophy.evaluation.results.causes import Dose, DoseResult, Sufficiency
from prophy.generation.identity import model_hash
from prophy.generation.settings import GenerationSettings
from prophy.phenomena import IDS
from prophy.routing.distance import pixel_difference
from prophy.routing.steering import Steering
from prophy.worlds import Stage, WorldSet

STRENGTHS = (0.0, 0.5, 1.0, 2.0)
CLIPS = 64
_LEVELS = 255


def evaluate_dose(
    pipeline: ProPhyPipeline,
    work: Path,
    clips: int = CLIPS,
    batch: int = 8,
    steps: int | None = None,
    strengths: Sequence[float] = STRENGTHS,
    worlds: WorldSet = WorldSet(split="test"),
) -> DoseResult:
    """Make every clip at every strength and with each expert alone; writes ``dose.json`` under ``work/evaluation``.

    Clips stay on disk; a killed run is resumed.

    Args:
        pipeline: with a branch.
        work: folder of results.
        clips: of the split.
        batch: prompts at a time.
        steps: denoising steps, for trying out.
        strengths: 0 to 4, 0 among them.
        worlds: that the prompts are of, split and all.

    Raises:
        ValueError: no branch, no expert for a phenomenon, no clips, strengths without 0, or an unknown split.
        FileNotFoundError: fewer experts than phenomena, and localisation was not measured.
    """
    if clips < 1:
        raise ValueError(f"--clips {clips}: measure at least one")
    strengths = sorted(set(strengths))
    if 0 not in strengths:
        raise ValueError(f"strengths {', '.join(f'{s:g}' for s in strengths)}: 0 must be among them, to compare with")
    work, stage = Path(work), worlds.stage
    names = expert_names(pipeline, work, worlds.phenomena)
    asked = asked_clips(worlds.split, clips, worlds.phenomena, grammar=worlds.words)
    settings = settings_of(asked, steps, stage)
    frames = [steered_frames(pipeline, work, settings, batch, Steering(strength=s)) for s in strengths]
    tables = [
        verdicts_of([clip_errors(c, a.scenario, stage) for c, a in zip(f, asked, strict=True)])[1] for f in frames
    ]
    doses = tuple(
        Dose(
            strength=strength,
            obeyed=bootstrap(table),
            more=bootstrap(table - before) if before is not None else None,
            pixels=bootstrap(
                np.array([pixel_difference(*pair).mean() for pair in zip(frames[0], f, strict=True)]) * _LEVELS
            ),
        )
        for strength, table, before, f in zip(strengths, tables, (None, *tables), frames, strict=False)
    )
    return DoseResult(
        doses=doses,
        monotone=bootstrap(monotone([t for s, t in zip(strengths, tables, strict=True) if s <= 1])),
        sufficiency=_sufficiency(pipeline, work, asked, settings, names, batch, stage),
        clips=clips,
        split=worlds.split,
        by_name=names.by_name,
        steps=steps,
        size=stage.size,
        fps=stage.fps,
        model_sha256=model_hash(pipeline),
        phenomena=worlds.phenomena,
        grammar=worlds.grammar,
    ).save(work)


def monotone(tables: Sequence[np.ndarray]) -> np.ndarray:
    """Whether no law that a clip obeys at one strength is broken at the next, 1 or 0, float64 ``(n,)``.

    Args:
        tables: laws obeyed by rising strength, each ``(n, L)``; NaN where a clip does not show the law's scene.
    """
    falls = [np.nan_to_num(before - after, nan=0.0) > 0 for before, after in pairwise(tables)]
    return 1.0 - np.any(falls, axis=(0, 2)) if falls else np.ones(len(tables[0]))


def _sufficiency(
    pipeline: ProPhyPipeline,
    work: Path,
    asked: Sequence[AskedClip],
    settings: Sequence[GenerationSettings],
    names: ExpertNames,
    batch: int,
    stage: Stage,
) -> Sufficiency:
    on = _own(verdicts(generated_frames(pipeline, work, settings, batch), asked, stage))
    off = _own(verdicts(backbone_frames(pipeline, work, settings, batch), asked, stage))
    none = None
    if len(names.every) < pipeline.branch.config.num_refinement_experts:  # one is left
        none = _own(verdicts(steered_frames(pipeline, work, settings, batch, names.leaving()), asked, stage))
    alone = np.full_like(on, np.nan)
    for name in names.experts:
        rows = np.flatnonzero(~np.isnan(on[:, IDS.index(name)])).tolist()
        if rows:
            chosen = [settings[row] for row in rows]
            frames = steered_frames(pipeline, work, chosen, batch, names.leaving(name))
            judged = _own(verdicts(frames, [asked[row] for row in rows], stage))
            alone[rows, IDS.index(name)] = judged[:, IDS.index(name)]
    return Sufficiency(
        off=bootstrap(off),
        none=None if none is None else bootstrap(none),
        alone=bootstrap(alone),
        on=bootstrap(on),
        enough=None if none is None else bootstrap(alone - none),
        by_phenomenon={name: bootstrap(alone[:, IDS.index(name)]) for name in names.experts},
    )


def _own(judged: Sequence[Verdicts]) -> np.ndarray:
    """Share of the laws obeyed, float64 ``(n, P)``; NaN where a clip does not show the phenomenon."""
    table = np.full((len(judged), len(IDS)), np.nan)
    for row, verdict in enumerate(judged):
        for name, laws in verdict.items():
            table[row, IDS.index(name)] = obeyed(laws)
    return table
