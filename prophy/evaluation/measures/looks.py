"""Looks of generated clips: of held-out prompts, how many become clips that look as asked, whatever the laws do.

    prophy evaluate looks --model runs/wide/shipped --no-branch --grammar plain --work runs/wide

Beside the model's score stand those of real renders of the same prompts, and of the same renders through the model's
autoencoder: what the judge itself misses, and what no transformer behind that autoencoder could show.

Shapes: n prompts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
from tqdm import tqdm

from prophy.backbones.pipeline import ProPhyPipeline
from prophy.evaluation.clips import generated_frames, settings_of
from prophy.evaluation.judges.looks import load_looks_judge, read_looks
from prophy.evaluation.judges.looks_renders import shown_in
from prophy.evaluation.judges.pictures import through_autoencoder
from prophy.evaluation.measures.metrics import bootstrap
from prophy.evaluation.prompts.held_out import ToldPrompt
from prophy.evaluation.results.looks import (
    AUTOENCODER,
    BACKBONE,
    PROPHY,
    REAL,
    LooksJudgeResult,
    LooksResult,
    LooksScore,
    PromptLooks,
    Shown,
)
from prophy.generation.identity import branch_is_on, model_hash
from prophy.worlds import Stage
from prophy.worlds.sample import render

GATE = 0.95  #: share of prompts whose things are shown in the asked colours at the asked places

Fits = Callable[[Shown, Shown], bool]


def evaluate_looks(
    pipeline: ProPhyPipeline,
    work: Path,
    prompts: Sequence[ToldPrompt],
    batch: int = 8,
    steps: int | None = None,
    *,
    renders: int = 128,
    grammar: str = "first",
) -> LooksResult:
    """Generate every prompt's clip, read it, and write ``looks.json`` (or ``looks-no-branch.json``).

    Clips stay on disk; a killed run is resumed.

    Args:
        pipeline: with the branch as it shall be.
        work: folder of results, in which the judge was trained.
        prompts: what to ask for.
        batch: prompts at a time.
        steps: denoising steps, for trying out.
        renders: of so many of the prompts, the first, real renders are read too.
        grammar: whose words the prompts are, for the record.

    Raises:
        FileNotFoundError: the judge has not been trained.
    """
    work = Path(work)
    model, own = load_looks_judge(work), LooksJudgeResult.load(work)
    settings = settings_of(prompts, steps, model.stage)
    branch = branch_is_on(pipeline)
    verdicts = verdicts_of(prompts, read_looks(model, generated_frames(pipeline, work, settings, batch)))
    scores = {PROPHY if branch else BACKBONE: score(verdicts)}
    if rendered := list(prompts[:renders]):
        real = renders_of(rendered, model.stage)
        scores[REAL] = score(verdicts_of(rendered, read_looks(model, real)))
        decoded = through_autoencoder(real, pipeline.vae, batch)
        scores[AUTOENCODER] = score(verdicts_of(rendered, read_looks(model, decoded)))
    return LooksResult(
        scores=scores,
        judge={kind: error.exact for kind, error in own.errors.items()},
        model_sha256=model_hash(pipeline),
        branch=branch,
        grammar=grammar,
        steps=settings[0].steps,
        guidance=settings[0].guidance,
        size=model.stage.size,
        fps=model.stage.fps,
        verdicts=verdicts,
    ).save(work)


def renders_of(prompts: Sequence[ToldPrompt], stage: Stage) -> np.ndarray:
    """Real clips of what is asked for, uint8 ``(n, F, H, W, 3)``; every second one by clocks that obey no law."""
    made = []
    for i, one in enumerate(tqdm(prompts, "real renders", mininterval=5, unit="clip")):
        physics, clocks = np.random.default_rng([one.seed, 12]).spawn(2)
        made.append(render(one.scenario, physics, stage=stage, clocks=clocks if i % 2 else None)[0])
    return np.stack(made)


def verdicts_of(prompts: Sequence[ToldPrompt], read_n34: np.ndarray) -> tuple[PromptLooks, ...]:
    """What each prompt asks for, and what was read of its clip by :func:`prophy.evaluation.judges.looks.read_looks`."""
    return tuple(
        PromptLooks(
            one.prompt,
            one.seed,
            one.wording,
            tuple(Shown(e.phenomenon, e.variant, e.place, e.colours, e.number) for e in one.telling.events),
            shown_in(row),
        )
        for one, row in zip(prompts, read_n34, strict=True)
    )


def score(verdicts: Sequence[PromptLooks]) -> LooksScore:
    """Compare what was found with what was asked for.

    What a prompt leaves open fits everything. Of two colours the order is left open: no prompt says which of two balls
    comes from where.
    """
    whole = np.array([_shows(one, _entirely) for one in verdicts], np.float64)
    events = np.array([len(one.asked) for one in verdicts])
    wordings = np.array([one.wording for one in verdicts])
    by_phenomenon: dict[str, list[bool]] = {}
    for one in verdicts:
        for asked in one.asked:
            shown = any(_entirely(asked, found) for found in one.found)
            by_phenomenon.setdefault(asked.phenomenon, []).append(shown)

    def share(fits: Fits) -> np.ndarray:
        return np.array([_shows(one, fits) for one in verdicts], np.float64)

    more = np.array([len(one.found) > len(one.asked) for one in verdicts])
    return LooksScore(
        things=bootstrap(share(_thing)),
        colours=bootstrap(share(lambda asked, found: _thing(asked, found) and _coloured(asked, found))),
        places=bootstrap(share(lambda asked, found: _thing(asked, found) and asked.place == found.place)),
        all=bootstrap(whole),
        exactly=bootstrap(whole * ~more),
        single=bootstrap(whole[events == 1]),
        both=bootstrap(whole[events == 2]),
        by_phenomenon={name: bootstrap(np.array(shown, np.float64)) for name, shown in sorted(by_phenomenon.items())},
        by_wording={str(kind): bootstrap(whole[wordings == kind]) for kind in np.unique(wordings)},
    )


def _shows(one: PromptLooks, fits: Fits) -> bool:
    """Whether each event asked for is another one of those found."""
    return any(
        all(fits(asked, found) for asked, found in zip(one.asked, chosen, strict=True))
        for chosen in permutations(one.found, len(one.asked))
    )


def _thing(asked: Shown, found: Shown) -> bool:
    same = (asked.phenomenon, asked.variant) == (found.phenomenon, found.variant)
    return same and asked.number in (0, found.number)


def _coloured(asked: Shown, found: Shown) -> bool:
    said, seen = (Counter(colour for colour in one.colours if colour) for one in (asked, found))
    return not said - seen


def _entirely(asked: Shown, found: Shown) -> bool:
    return _thing(asked, found) and _coloured(asked, found) and asked.place == found.place
