"""Selectivity: mute one phenomenon's expert. Does its own law break, and does the other one's hold?

    prophy evaluate selectivity --model runs/second/model --work runs/second --every-expert

Held-out prompts of two phenomena, and of one, each made from the same noise with the branch as it is, without it, and
with one thing done to it: the phenomenon's own expert muted; the tokens that this changes turned as far in a random
direction; another expert muted that the clip uses. An expert is the cause of a law where the first breaks its own law
and leaves the others, and the controls do not. Ours; the questions are those of RAVEL (arXiv 2402.17700): cause, and
isolation.

Shapes: n clips, F video frames of H×W pixels, P phenomena.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prophy.backbones.pipeline import ProPhyPipeline
from prophy.evaluation.clips import digest_of, settings_of
from prophy.evaluation.measures.budget import summarised
from prophy.evaluation.measures.causes import (
    PLACE,
    AreaFinder,
    ExpertNames,
    Verdicts,
    area_finder,
    backbone_frames,
    expert_names,
    expert_use,
    obeyed,
    pixel_change,
    steered_frames,
    turned_frames,
    verdicts,
)
from prophy.evaluation.measures.laws import AskedClip, asked_clips
from prophy.evaluation.measures.metrics import bootstrap, bootstrap_of
from prophy.evaluation.results import FOLDER
from prophy.evaluation.results.causes import (
    OTHER,
    OWN,
    RANDOM,
    ChangeScore,
    PairedClip,
    SelectivityCell,
    SelectivityResult,
    SelectivityScores,
    Trial,
)
from prophy.generation.identity import model_hash
from prophy.generation.settings import GenerationSettings
from prophy.routing.steering import Steering
from prophy.runs.pictures import evenly_spaced, resized, write_png
from prophy.runs.sheets import Block, Row, draw_sheet
from prophy.worlds import Stage, WorldSet

TWO, ONE = 64, 32  #: clips of two phenomena, and of one
_SHOWN, _TILE, _PER_SHEET = 5, 128, 2  # frames of a clip, their pixels, and clips on a picture


@dataclass(frozen=True)
class _Made:
    """Clips with the branch as it is.

    Attributes:
        asked: what was asked for.
        settings: of each.
        on: uint8 ``(n, F, H, W, 3)``.
        off: the same without the branch.
        verdicts: of ``on``.
        use: share of each expert, ``(n, E)``.
    """

    asked: tuple[AskedClip, ...]
    settings: list[GenerationSettings]
    on: np.ndarray
    off: np.ndarray
    verdicts: list[Verdicts]
    use: np.ndarray


def evaluate_selectivity(
    pipeline: ProPhyPipeline,
    work: Path,
    two: int = TWO,
    one: int = ONE,
    every_expert: bool = False,
    batch: int = 8,
    steps: int | None = None,
    areas: str = PLACE,
    pictures: bool = True,
    worlds: WorldSet = WorldSet(split="test"),
) -> SelectivityResult:
    """Do everything to every clip; writes ``selectivity.json``, and a picture for each phenomenon.

    Clips stay on disk; a killed run is resumed.

    Args:
        pipeline: with a branch.
        work: folder of results.
        two: clips of two phenomena.
        one: clips of one.
        every_expert: mute the experts of phenomena that a clip does not show too: the full matrix.
        batch: prompts at a time.
        steps: denoising steps, for trying out.
        areas: see :func:`prophy.evaluation.measures.causes.area_finder`.
        pictures: also draw them.
        worlds: that the prompts are of, split and all.

    Raises:
        ValueError: no branch, no expert for a phenomenon, no clips, or an unknown split.
        FileNotFoundError: fewer experts than phenomena, and localisation was not measured.
    """
    if not two + one:
        raise ValueError("--two 0 and --one 0: measure at least one clip")
    work = Path(work)
    phenomena, stage = worlds.phenomena, worlds.stage
    names, find = expert_names(pipeline, work, phenomena), area_finder(areas, work, worlds)
    asked = tuple(
        a
        for shown, count in ((2, two), (1, one))
        if count
        for a in asked_clips(worlds.split, count, phenomena, shown, worlds.words)
    )
    settings = settings_of(asked, steps, stage)
    on, use = expert_use(pipeline, work, settings, batch)
    off = backbone_frames(pipeline, work, settings, batch)
    made = _Made(asked, settings, on, off, verdicts(on, asked, stage), use)
    trials, drawn = _all_trials(pipeline, work, made, names, find, every_expert, batch, stage, pictures)
    without = verdicts(off, asked, stage)
    clips = tuple(
        PairedClip(digest_of(s), s.prompt, s.seed, _shares(v), _shares(w))
        for s, v, w in zip(settings, made.verdicts, without, strict=True)
    )
    return SelectivityResult(
        phenomena=phenomena,
        experts=dict(names.experts),
        by_name=names.by_name,
        matrix=matrix_of(phenomena, clips, trials, drawn),
        scores=scores_of(phenomena, clips, trials),
        clips=clips,
        trials=trials,
        areas=areas,
        split=worlds.split,
        steps=steps,
        size=stage.size,
        fps=stage.fps,
        model_sha256=model_hash(pipeline),
        grammar=worlds.grammar,
    ).save(work)


# --- doing ------------------------------------------------------------------------------------------------------------


def _all_trials(
    pipeline: ProPhyPipeline,
    work: Path,
    made: _Made,
    names: ExpertNames,
    find: AreaFinder,
    every_expert: bool,
    batch: int,
    stage: Stage,
    pictures: bool,
) -> tuple[tuple[Trial, ...], dict[str, str]]:
    """Every trial, phenomenon by phenomenon, so that only one one's clips are in memory; and the pictures' names."""
    trials: list[Trial] = []
    drawn = {}

    def judge(change: str, phenomenon: str, expert: int, rows: Sequence[int], frames: np.ndarray) -> None:
        asked = [made.asked[row] for row in rows]
        areas = find(made.on[rows], frames, asked)
        for row, clip, verdict, area in zip(rows, frames, verdicts(frames, asked, stage), areas, strict=True):
            nowhere = np.zeros(clip.shape[:3], bool)
            inside, outside = pixel_change(made.on[row], clip, area.get(phenomenon, nowhere))
            kept = {name: verdict[name] == laws for name, laws in made.verdicts[row].items()}
            trials.append(Trial(row, change, phenomenon, expert, _shares(verdict), kept, inside, outside))

    for phenomenon, expert in names.experts.items():
        shows = [row for row, verdict in enumerate(made.verdicts) if phenomenon in verdict]
        others = [row for row in range(len(made.asked)) if row not in shows] if every_expert else []
        rows = shows + others
        if not rows:
            continue
        settings = [made.settings[row] for row in rows]
        muted = steered_frames(pipeline, work, settings, batch, names.muting(phenomenon))
        judge(OWN, phenomenon, expert, rows, muted)
        if not shows:
            continue
        judge(RANDOM, phenomenon, expert, shows, turned_frames(pipeline, work, settings[: len(shows)], batch, expert))
        for other, theirs in _another_active(made.use, shows, expert).items():
            frames = steered_frames(
                pipeline, work, [made.settings[row] for row in theirs], batch, Steering(refinement={other: 0.0})
            )
            judge(OTHER, phenomenon, other, theirs, frames)
        if pictures:
            drawn[phenomenon] = _draw(work, phenomenon, made, shows, muted)
    return tuple(trials), drawn


def _another_active(use_nE: np.ndarray, rows: Sequence[int], expert: int) -> dict[int, list[int]]:
    """Of each clip, the most used expert but one: the clips by that expert; none where no other was ever used."""
    found: dict[int, list[int]] = {}
    for row in rows:
        use = use_nE[row].copy()
        use[expert] = 0
        if use.any():
            found.setdefault(int(use.argmax()), []).append(row)
    return found


def _draw(work: Path, phenomenon: str, made: _Made, rows: Sequence[int], muted: np.ndarray) -> str:
    """A picture of the first clips that show a phenomenon, those of two first: on, off, muted; returns its name."""
    blocks = []
    for row, frames in list(zip(rows, muted, strict=False))[:_PER_SHEET]:
        versions = {"branch on": made.on[row], "branch off": made.off[row], "expert muted": frames}
        chosen = evenly_spaced(len(frames), _SHOWN)
        shown = [Row(list(resized(clip[chosen], _TILE)), name) for name, clip in versions.items()]
        blocks.append(Block(shown, [made.asked[row].prompt]))
    path = work / FOLDER / f"{SelectivityResult.kind}-{phenomenon}.png"
    write_png(path, draw_sheet(blocks))
    return path.name


# --- counting ---------------------------------------------------------------------------------------------------------


def _shares(verdict: Verdicts) -> dict[str, float]:
    return {name: obeyed(laws) for name, laws in verdict.items()}


def matrix_of(
    phenomena: Sequence[str], clips: Sequence[PairedClip], trials: Sequence[Trial], pictures: dict[str, str]
) -> tuple[tuple[SelectivityCell | None, ...], ...]:
    """Laws broken by phenomenon muted (rows) and phenomenon looked at (columns)."""

    def cell(muted: str, looked_at: str) -> SelectivityCell | None:
        found = [t for t in trials if t.change == OWN and t.phenomenon == muted and looked_at in t.obeyed]
        if not found:
            return None
        broken = np.array([clips[t.clip].on[looked_at] - t.obeyed[looked_at] for t in found])
        shown = sum(muted in t.obeyed for t in found)
        return SelectivityCell(bootstrap(broken), shown, pictures.get(muted) if shown else None)

    return tuple(tuple(cell(p, q) for q in phenomena) for p in phenomena)


def scores_of(phenomena: Sequence[str], clips: Sequence[PairedClip], trials: Sequence[Trial]) -> SelectivityScores:
    """Sum the trials up; the rows of every table are clips, resampled whole."""
    shown = [trial for trial in trials if trial.phenomenon in trial.obeyed]
    own = [trial for trial in shown if trial.change == OWN]
    places = {name: i for i, name in enumerate(phenomena)}

    def table(found: Sequence[Trial], value: Callable[[Trial, str], float], own_laws: bool) -> np.ndarray:
        """``(n, P)`` of each phenomenon's own laws, or ``(n, P·P)`` of the others'; NaN where nothing was tried."""
        size = len(phenomena)
        filled = np.full((len(clips), size if own_laws else size * size), np.nan)
        for trial in found:
            for name in trial.obeyed:
                if (name == trial.phenomenon) == own_laws:
                    column = places[name] if own_laws else size * places[trial.phenomenon] + places[name]
                    filled[trial.clip, column] = value(trial, name)
        return filled

    def on(trial: Trial, name: str) -> float:
        return clips[trial.clip].on[name]

    def off(trial: Trial, name: str) -> float:
        return clips[trial.clip].off[name]

    def after(trial: Trial, name: str) -> float:
        return trial.obeyed[name]

    def score(change: str) -> ChangeScore:
        found = [trial for trial in shown if trial.change == change]
        isolated = [
            (trial.clip, float(all(kept for name, kept in trial.kept.items() if name != trial.phenomenon)))
            for trial in found
            if len(trial.kept) > 1
        ]
        inside = _by_clip(len(clips), [(trial.clip, trial.inside) for trial in found])
        outside = _by_clip(len(clips), [(trial.clip, trial.outside) for trial in found])
        return ChangeScore(
            own=bootstrap(table(found, after, True)),
            other=bootstrap(table(found, after, False)),
            isolation=bootstrap(_by_clip(len(clips), isolated)),
            pixels=summarised(list(zip(inside, outside, strict=True))),
        )

    own_on, own_off, own_muted = (table(own, value, True) for value in (on, off, after))
    other_on, other_muted = (table(own, value, False) for value in (on, after))
    absent = [
        (trial.clip, float(all(trial.kept.values())))
        for trial in trials
        if trial.change == OWN and trial.phenomenon not in trial.obeyed
    ]
    return SelectivityScores(
        own_on=bootstrap(own_on),
        own_off=bootstrap(own_off),
        other_on=bootstrap(other_on),
        changes={change: score(change) for change in (OWN, RANDOM, OTHER)},
        minus_off=bootstrap(own_muted - own_off),
        diagonal=bootstrap(own_on - own_muted),
        off_diagonal=bootstrap(other_on - other_muted),
        score=bootstrap_of(np.subtract, own_on - own_muted, other_on - other_muted),
        absent=bootstrap(_by_clip(len(clips), absent)) if absent else None,
    )


def _by_clip(clips: int, values: Sequence[tuple[int, float]]) -> np.ndarray:
    """The mean of each clip's values, float64 ``(n,)``; NaN where it has none."""
    found: list[list[float]] = [[] for _ in range(clips)]
    for clip, value in values:
        if not np.isnan(value):
            found[clip].append(value)
    return np.array([np.mean(one) if one else np.nan for one in found])
