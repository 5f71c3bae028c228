"""Laws: do generated clips obey the physics they show? Tracked in pixels; real renders are measured alike.

    prophy evaluate laws --model runs/tiny/model --column LoRA=runs/lora/model --work runs/tiny

Every column gets the same held-out prompts and the same noise. A law error lies between 0 and 1; what cannot be
tracked, or does not happen, counts as 1, and as not obeyed. No prompt can ask for a speed or a size: on the
``parameters`` split the *real* column leaves the range of training, and shows that the trackers follow there too. What
the autoencoder alone does to real renders is a column as well: about the most that a transformer in its latents can
reach. Not a strict bound, since a generated scene may be easier to follow than the real one of the same prompt.

Shapes: n clips, L laws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from prophy.backbones.pipeline import ProPhyPipeline
from prophy.evaluation.clips import generated_frames, settings_of
from prophy.evaluation.judges.laws import TrackLost, capped
from prophy.evaluation.judges.pictures import through_autoencoder
from prophy.evaluation.judges.trackers import LAWS, law_errors
from prophy.evaluation.measures.metrics import bootstrap
from prophy.evaluation.prompts.held_out import FIRST_SCENE, HeldOutPrompt
from prophy.evaluation.results.laws import (
    AUTOENCODER,
    BACKBONE,
    REAL,
    UNLAWFUL,
    ClipErrors,
    ColumnScore,
    LawScore,
    LawsResult,
)
from prophy.generation.identity import model_hash
from prophy.phenomena import IDS
from prophy.worlds import Scenario, Stage, WorldSet, sample_scenario
from prophy.worlds.language import FIRST, Grammar
from prophy.worlds.scope import SCOPE

SPLITS_MEASURED = ("test", "combinations", "parameters")
FIRST_SEED = 9_000  #: of the noise
_DRAWS = 20  # scenes looked at for each one that shows as many phenomena as asked for


@dataclass(frozen=True)
class AskedClip:
    """A prompt whose scenario is known, so that a tracker knows what to look for.

    Attributes:
        scene: seed of the worlds' clip that the prompt describes.
        seed: of the noise.
    """

    split: str
    scene: int
    seed: int
    prompt: str
    scenario: Scenario


def asked_clips(
    split: str,
    count: int,
    phenomena: tuple[str, ...] = SCOPE,
    shown: int | None = None,
    grammar: Grammar = FIRST,
) -> tuple[AskedClip, ...]:
    """``count`` held-out scenes of a split with their captions; the same for the same arguments.

    Args:
        split: of the worlds.
        count: of scenes.
        phenomena: ids to draw from.
        shown: only scenes of so many phenomena, one or two; default: as they come.
        grammar: puts the scenes into words.

    Raises:
        ValueError: unknown split, or one that has no such scenes.
    """
    asked: list[AskedClip] = []
    for i in range(count if shown is None else _DRAWS * count):
        scenario, text = sample_scenario(FIRST_SCENE + i, split, phenomena, grammar)
        if shown is None or len(scenario.events) == shown:
            asked.append(AskedClip(split, FIRST_SCENE + i, FIRST_SEED + i, text, scenario))
        if len(asked) == count:
            return tuple(asked)
    raise ValueError(f"{split} has no {count} scenes of {shown} phenomena: ask for fewer, or another split")


def prompts_of(asked: Sequence[AskedClip]) -> tuple[HeldOutPrompt, ...]:
    """What the clips are generated from; the split stands for the wording."""
    return tuple(
        HeldOutPrompt(one.prompt, one.seed, tuple(IDS[i] for i in np.flatnonzero(one.scenario.labels)), one.split)
        for one in asked
    )


def clip_errors(frames_FHWC: np.ndarray, scenario: Scenario, stage: Stage = Stage()) -> ClipErrors:
    """Law errors of every event of a clip, uint8 ``(F, H, W, 3)``; a lost track makes all of its scene's errors 1."""
    errors: dict[str, float] = {}
    lost: dict[str, str] = {}
    for event in scenario.events:
        scene = f"{event.phenomenon}, {event.variant}"
        try:
            found = law_errors(frames_FHWC, event, scenario.setting, stage)
            measured = {name: capped(error) for name, error in found.items()}
        except TrackLost as reason:
            lost[scene] = str(reason)
            measured = {law.name: 1.0 for law in LAWS[event.phenomenon, event.variant]}
        errors |= {f"{scene}: {name}": error for name, error in measured.items()}
    return ClipErrors(errors, lost)


def clip_verdicts(clip: ClipErrors) -> dict[str, dict[str, bool]]:
    """Whether each law of a clip is obeyed, by phenomenon id and then by law."""
    limits = _tolerances()
    verdicts: dict[str, dict[str, bool]] = {}
    for law, error in clip.errors.items():
        verdicts.setdefault(law.partition(", ")[0], {})[law] = error <= limits[law]
    return verdicts


def score_columns(columns: Mapping[str, Sequence[ClipErrors]]) -> dict[str, ColumnScore]:
    """Means and intervals of every column, and its paired difference to the backbone.

    Args:
        columns: by name, each with the errors of the same clips in the same order.

    Raises:
        ValueError: columns of different clips.
    """
    keys = {name: [set(clip.errors) for clip in clips] for name, clips in columns.items()}
    if any(other != next(iter(keys.values())) for other in keys.values()):
        raise ValueError("the columns hold different clips: measure the same prompts in each")
    tolerances = _tolerances()
    tables = {name: _table(clips, tolerances) for name, clips in columns.items()}
    limits_L = np.array(list(tolerances.values()))
    verdicts = {name: np.where(np.isnan(table), np.nan, table <= limits_L) for name, table in tables.items()}
    scores = {}
    for name, clips in columns.items():
        table, obeyed = tables[name], verdicts[name]
        asked = [i for i in range(table.shape[1]) if not np.isnan(table[:, i]).all()]
        by_law = {}
        for i in asked:
            law = list(tolerances)[i]
            lost = sum(law in clip.errors and law.rpartition(": ")[0] in clip.lost for clip in clips)
            by_law[law] = LawScore(bootstrap(obeyed[:, i]), bootstrap(table[:, i]), lost, tolerances[law])
        scenes = [(len(clip.lost), len({law.rpartition(": ")[0] for law in clip.errors})) for clip in clips]
        paired = BACKBONE in tables and name not in (REAL, UNLAWFUL, AUTOENCODER, BACKBONE)
        scores[name] = ColumnScore(
            obeyed=bootstrap(obeyed),
            error=bootstrap(table),
            lost=bootstrap(np.array([lost / count for lost, count in scenes])),
            minus_backbone=bootstrap(table - tables[BACKBONE]) if paired else None,
            mended=bootstrap((obeyed - verdicts[BACKBONE]).clip(min=0)) if paired else None,
            broken=bootstrap((verdicts[BACKBONE] - obeyed).clip(min=0)) if paired else None,
            by_law=by_law,
        )
    return scores


def evaluate_laws(
    columns: Mapping[str, Callable[[], ProPhyPipeline]],
    work: Path,
    clips: int,
    batch: int = 8,
    steps: int | None = None,
    splits: Sequence[str] = SPLITS_MEASURED,
    worlds: WorldSet = WorldSet(),
    unlawful: bool = False,
) -> LawsResult:
    """Render or generate every column's clips, track them, and write ``laws.json`` under ``work/evaluation``.

    Generated clips stay on disk; a killed run is resumed.

    Args:
        columns: by name, what opens its pipeline with the branch as it shall be. ``real`` is added, and
            ``autoencoder``: the same renders encoded and decoded by that of the first column.
        work: folder of results.
        clips: of each split.
        batch: prompts at a time.
        steps: denoising steps, for trying out.
        splits: of the worlds.
        worlds: which phenomena, in which words, of what size, length and rate; any split.
        unlawful: add the column ``unlawful``: the same scenes, each event by a clock of its own that obeys no law. What
            they obey is chance: a backbone that learnt from such clips can be expected to obey as much.

    Raises:
        ValueError: a column that is named as one of the renders', an unknown split, or no clips.
    """
    if taken := {REAL, UNLAWFUL, AUTOENCODER} & set(columns):
        raise ValueError(f"{taken.pop()!r} is a column of the renders: give yours another name")
    if clips < 1:
        raise ValueError(f"--clips {clips}: measure at least one")
    work, stage = Path(work), worlds.stage
    of_split = {split: replace(worlds, split=split) for split in splits}
    asked = {split: asked_clips(split, clips, worlds.phenomena, grammar=worlds.words) for split in splits}
    verdicts: dict[str, dict[str, tuple[ClipErrors, ...]]] = {split: {} for split in splits}
    renders = {}
    for split in splits:
        progress = tqdm(asked[split], f"real, {split}", mininterval=5, unit="clip")
        renders[split] = np.stack([of_split[split].clip(one.scene).frames for one in progress])

    def judge(split: str, name: str, clips_nFHWC: np.ndarray) -> None:
        verdicts[split][name] = tuple(
            clip_errors(clip, one.scenario, stage) for clip, one in zip(clips_nFHWC, asked[split], strict=True)
        )

    for split in splits:
        judge(split, REAL, renders[split])
        if unlawful:
            progress = tqdm(asked[split], f"unlawful, {split}", mininterval=5, unit="clip")
            clocked = replace(of_split[split], lawful=False)
            judge(split, UNLAWFUL, np.stack([clocked.clip(one.scene).frames for one in progress]))
    hashes = {}
    for name, opened in columns.items():
        pipeline = opened()
        hashes[name] = model_hash(pipeline)
        for split in splits:
            if AUTOENCODER not in verdicts[split]:
                judge(split, AUTOENCODER, through_autoencoder(renders[split], pipeline.vae, batch))
            judge(split, name, generated_frames(pipeline, work, settings_of(asked[split], steps, stage), batch))
    return LawsResult(
        scores={split: score_columns(verdicts[split]) for split in splits},
        clips=clips,
        steps=steps,
        model_sha256=hashes,
        verdicts=verdicts,
        size=stage.size,
        fps=stage.fps,
        phenomena=worlds.phenomena,
        grammar=worlds.grammar,
    ).save(work)


def verdicts_of(clips: Sequence[ClipErrors]) -> tuple[tuple[str, ...], np.ndarray]:
    """Every law by name, and which of them each clip obeys: float64 ``(n, L)`` of 1, 0 and, not shown, NaN."""
    tolerances = _tolerances()
    table = _table(clips, tolerances)
    return tuple(tolerances), np.where(np.isnan(table), np.nan, table <= np.array(list(tolerances.values())))


def _tolerances() -> dict[str, float]:
    """Up to which error each law is obeyed, by ``scene: law``."""
    return {
        f"{phenomenon}, {variant}: {law.name}": law.tolerance
        for (phenomenon, variant), laws in LAWS.items()
        for law in laws
    }


def _table(clips: Sequence[ClipErrors], tolerances: Mapping[str, float]) -> np.ndarray:
    """Errors of every clip and law, float64 ``(n, L)``; NaN where a clip does not show the law's scene."""
    return np.array([[clip.errors.get(law, np.nan) for law in tolerances] for clip in clips], np.float64)
