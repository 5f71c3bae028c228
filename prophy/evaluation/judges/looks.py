"""Looks: an independent classifier reads what stands where in a clip: which scene, its colours, how many things.

It is for clips of every kind: trained half on lawful renders and half on renders whose clocks obey no law, frozen ones
among them, and it looks at the frames one by one, so how things move tells it nothing. It learns that an empty stage
shows nothing, and that of two balls one may be missing: a classifier that has only seen pairs finds one everywhere.

    prophy evaluate looks-judge --work runs/wide --size 192x128x17 --phenomena all --model runs/wide/model

Only the collision has a second colour, and only there the number can be another than the scene's own: in all other
scenes it says no more than the scene.

Shapes: n or B clips, F' frames looked at of h×w pixels, 3 places, 4 questions, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import ModelMixin
from torch import nn
from torch.nn import functional

from prophy.evaluation.judges.fit import Chance, answers_of, fit_judge, fitted, fitted_recipe, save_fitted
from prophy.evaluation.judges.looks_renders import (
    BALLS,
    LOOKED_AT,
    QUESTIONS,
    hide_a_ball,
    mirrored,
    render_looks,
    truth_of,
)
from prophy.evaluation.judges.pictures import (
    Residual,
    degraded,
    empty_stages,
    seen_of,
    stacked,
    through_autoencoder,
)
from prophy.evaluation.measures.metrics import bootstrap
from prophy.evaluation.results.looks import (
    AUTOENCODER,
    LAWFUL,
    UNLAWFUL,
    LooksError,
    LooksJudgeResult,
    LooksRecipe,
)
from prophy.tiny.text import SCENES
from prophy.worlds import COLOURS, Stage, sample_clip, sample_scenario
from prophy.worlds.event import kind_of

NAME = "looks-judge"
GATE = 0.98  #: exact share on held-out renders of each kind below which no number of the judge's counts
_OPEN = -100  # no answer is asked for: cross-entropy leaves it out
_ANSWERS = (1 + len(SCENES), 1 + len(COLOURS), 1 + len(COLOURS), 3)


class LooksJudge(nn.Module):
    """Convolutions over each frame, their maximum and mean over the frames, convolutions over those, then each place.

    Args:
        width: channels of the first layer.
        stage: size, length and rate of the clips it is for.
    """

    def __init__(self, width: int = LooksRecipe.width, stage: Stage = Stage()) -> None:
        super().__init__()
        self.stage = stage

        def halved(before: int, after: int) -> list[nn.Module]:
            down = nn.Conv2d(before, after, 3, stride=2, padding=1)
            return [down, nn.GroupNorm(8, after), nn.SiLU(), Residual(after)]

        self.frame = nn.Sequential(nn.PixelUnshuffle(2), *halved(4 * 3, width))
        self.body = nn.Sequential(*halved(2 * width, 2 * width), *halved(2 * width, 4 * width))
        both, hidden = 8 * width, 4 * width
        self.centre = nn.Sequential(nn.Linear(both, hidden), nn.SiLU())
        self.side = nn.Sequential(nn.Linear(both, hidden), nn.SiLU())
        self.heads = nn.ModuleList(nn.Linear(hidden, count) for count in _ANSWERS)

    def forward(self, frames_BCHW: torch.Tensor) -> list[torch.Tensor]:
        """Frames as channels, from -1 to 1 ``(B, 3F', h, w)``, to logits of each question ``(B, 3, answers)``."""
        batch = len(frames_BCHW)
        x = self.frame(frames_BCHW.unflatten(1, (LOOKED_AT, 3)).flatten(0, 1)).unflatten(0, (batch, LOOKED_AT))
        x = self.body(torch.cat([x.amax(1), x.mean(1)], 1))
        half = -(-x.shape[-1] // 2)
        left_BD, right_BD = x[..., :half].amax((2, 3)), x[..., -half:].amax((2, 3))
        here, there = torch.cat([left_BD, right_BD], -1), torch.cat([right_BD, left_BD], -1)
        places = torch.stack([self.centre(here), self.side(here), self.side(there)], 1)
        return [head(places) for head in self.heads]


# --- training ---------------------------------------------------------------------------------------------------------


def train_looks_judge(
    work: Path,
    recipe: LooksRecipe,
    vae: ModelMixin | None = None,
    decoded_clips: int = 64,
    device: torch.device | None = None,
    minutes: float | None = None,
) -> LooksJudgeResult:
    """Train and save ``work/looks-judge.safetensors``; measure on held-out renders and save the error as JSON.

    A function of the recipe and the number of threads alone.

    Args:
        work: folder of results.
        recipe: what to train.
        vae: also measure it on ``decoded_clips`` held-out renders of each kind that went through this autoencoder.
        decoded_clips: how many.
        device: to train on; default: the CPU.
        minutes: stop, resumable, after this long.

    Raises:
        TrainingStopped: the time ended before the training did.
    """
    work = Path(work)
    frames, truth = render_looks(range(recipe.clips), "train", recipe)
    model = fit(frames, truth, recipe, device, work, minutes)
    save_fitted(model, recipe, work, NAME)
    return measure(model, recipe, vae, decoded_clips).save(work)


def fit(
    frames_nFHWC: np.ndarray,
    truth_n34: np.ndarray,
    recipe: LooksRecipe,
    device: torch.device | None = None,
    work: Path | None = None,
    minutes: float | None = None,
) -> LooksJudge:
    """Train the judge on rendered frames; see :func:`train_looks_judge`. Without ``work`` it cannot be resumed."""
    empty = empty_stages(recipe.stage, LOOKED_AT)

    def spoilt(chance: Chance, batch: np.ndarray, target: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        bare = np.flatnonzero(chance.rng.random(recipe.batch) < recipe.nothing)
        batch[bare], target[bare] = empty[chance.rng.integers(len(empty), size=len(bare))], 0
        turned = chance.rng.random(recipe.batch) < 0.5
        batch[turned], target[turned] = batch[turned][..., ::-1, :], mirrored(target[turned])
        return degraded(stacked(batch), chance.generator), torch.from_numpy(target)

    return fit_judge(
        lambda: LooksJudge(recipe.width, recipe.stage),
        frames_nFHWC,
        truth_n34,
        recipe,
        NAME,
        spoilt,
        loss_of,
        device,
        work,
        minutes,
    )


def loss_of(logits: Sequence[torch.Tensor], truth_B34: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of every answer that there is, mean over clips: nothing has no colour, most have no second."""
    asked = truth_B34.clone()
    there = truth_B34[..., :1] > 0
    asked[..., 1:] = torch.where(there, truth_B34[..., 1:], _OPEN)
    asked[..., 1][asked[..., 1] == 0] = _OPEN  # a scene without colours
    asked[..., 2][truth_B34[..., 0] != BALLS] = _OPEN
    losses = [
        functional.cross_entropy(
            one.float().flatten(0, 1), asked[..., i].flatten(), ignore_index=_OPEN, reduction="sum"
        )
        for i, one in enumerate(logits)
    ]
    return torch.stack(losses).sum() / len(truth_B34)


# --- reading ----------------------------------------------------------------------------------------------------------


def read_looks(model: LooksJudge, frames_nFHWC: np.ndarray) -> np.ndarray:
    """What stands where, int64 ``(n, 3, 4)``, see the module.

    Args:
        frames_nFHWC: uint8 clips of the judge's stage, whole or what is seen of them.

    Raises:
        ValueError: clips of another size.
    """
    frames_nFHWC = seen_of(frames_nFHWC, model.stage, LOOKED_AT)
    parts = []
    for logits in answers_of(model, frames_nFHWC):
        scene, first, second, number = (x.cpu() for x in logits)
        found = scene.argmax(-1)
        coloured = torch.tensor([False, *(kind_of(*each).colour_count > 0 for each in SCENES)])[found]
        rows = (
            found,
            torch.where(coloured, 1 + first[..., 1:].argmax(-1), 0),
            torch.where(found == BALLS, second.argmax(-1), 0),
            torch.where(found > 0, 1 + number[..., 1:].argmax(-1), 0),
        )
        parts.append(torch.stack(rows, -1))
    return torch.cat(parts).numpy()


def measure(
    model: LooksJudge, recipe: LooksRecipe, vae: ModelMixin | None = None, decoded_clips: int = 64
) -> LooksJudgeResult:
    """The judge's error on renders it was not trained on; arguments as for :func:`train_looks_judge`."""
    errors = {}
    for kind, lawful in ((LAWFUL, True), (UNLAWFUL, False)):
        errors[kind] = error_of(model, *render_looks(range(recipe.test_clips), "test", recipe, lawful))
        if vae is not None:
            seeds = range(min(decoded_clips, recipe.test_clips))
            frames, truth = render_looks(seeds, "test", recipe, lawful, whole=True)
            decoded = error_of(model, through_autoencoder(frames, vae), truth)
            errors[f"{kind}, {AUTOENCODER.removeprefix('real renders ')}"] = decoded
    empty = read_looks(model, empty_stages(recipe.stage, LOOKED_AT))[..., 0] == 0
    return LooksJudgeResult(
        errors=errors, lone=_lone_share(model, recipe), empty=float(empty.all(1).mean()), recipe=recipe
    )


def error_of(model: LooksJudge, frames_nFHWC: np.ndarray, truth_n34: np.ndarray) -> LooksError:
    """How the judge reads renders it was not trained on."""
    found = read_looks(model, frames_nFHWC)
    right = found == truth_n34
    asked = truth_n34 > 0
    asked[..., 0] = True
    asked[..., 2] = truth_n34[..., 0] == BALLS
    by_scene = {}
    for i, scene in enumerate(SCENES, 1):
        shown = truth_n34[..., 0] == i
        if shown.any():
            by_scene[", ".join(scene)] = bootstrap(right.all(-1)[shown].astype(np.float64))
    return LooksError(
        exact=bootstrap(right.all((1, 2)).astype(np.float64)),
        by_question={
            question: bootstrap(right[..., i][asked[..., i]].astype(np.float64)) for i, question in enumerate(QUESTIONS)
        },
        by_scene=by_scene,
    )


def _lone_share(model: LooksJudge, recipe: LooksRecipe, clips: int = 64) -> float:
    """Share of held-out collisions with one ball hidden of which this is read exactly; NaN: no such scene."""
    if "collision" not in recipe.phenomena:
        return float("nan")
    alone = replace(recipe, phenomena=("collision",))
    right = []
    for seed in range(min(clips, recipe.test_clips)):
        made = partial(sample_clip, seed, "test", alone.phenomena, alone.stage, seed % 2 == 0)
        whole = truth_of(sample_scenario(seed, "test", alone.phenomena)[0])
        clip, truth = hide_a_ball(made, whole, seed // 2 % 2)
        right.append(bool((read_looks(model, clip[None])[0] == truth).all()))
    return float(np.mean(right))


def load_looks_judge(work: Path) -> LooksJudge:
    """Open the judge trained in ``work``.

    Raises:
        FileNotFoundError: it has not been trained.
        ValueError: its file is damaged.
    """
    recipe = looks_recipe(work)
    return fitted(work, NAME, lambda _: LooksJudge(recipe.width, recipe.stage))


def looks_recipe(work: Path) -> LooksRecipe:
    """How the judge in ``work`` was trained: its phenomena and its stage.

    Raises:
        FileNotFoundError: it has not been trained.
    """
    return fitted_recipe(work, NAME, LooksRecipe)
