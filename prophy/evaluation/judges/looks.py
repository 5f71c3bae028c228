"""Looks: an independent classifier reads what stands where in a clip: which scene, its colours, how many things.

It is for clips of every kind: trained half on lawful renders and half on renders whose clocks obey no law, frozen ones
among them, and it looks at the frames one by one, so how things move tells it nothing. It learns that an empty stage
shows nothing, and that of two balls one may be missing: a classifier that has only seen pairs finds one everywhere.

    prophy evaluate looks-judge --work runs/wide --size 192x128x17 --phenomena all --model runs/wide/model

What is read of a place is a row of four numbers, 0 for none: scene, colour, second colour, number, as in
:func:`prophy.tiny.text.answers`. Of two colours the first is that of the left thing. A second colour has only the
collision; where another scene has a number other than its own, nothing can be seen of it, so it is never asked.

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
from tqdm import tqdm

from prophy.evaluation.judges.fit import fitted_recipe, fitted_weights, save_fitted, train_judge
from prophy.evaluation.judges.recogniser import (
    LOOKED_AT,
    Residual,
    degraded,
    empty_stages,
    seen,
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
    Shown,
)
from prophy.tiny.text import PLACES, SCENES, answers
from prophy.training.devices import autocast
from prophy.worlds import COLOURS, Scenario, Stage, sample_clip, sample_scenario
from prophy.worlds.event import Event, kind_of
from prophy.worlds.language import Telling, Told

NAME = "looks-judge"
GATE = 0.98  #: exact share on held-out renders of each kind below which no number of the judge's counts
QUESTIONS = ("scene", "colour", "second colour", "number")
OPEN = -100  #: an answer that the pixels cannot give: cross-entropy leaves it out
PAIRS = frozenset({("collision", "balls"), ("interference_and_diffraction", "ripples")})  #: scenes of two like things
#: Scenes whose things may lose their colour in time: what has burst, what has turned to ice.
FADING = frozenset({("explosion", "bomb"), ("solidification", "freeze")})
_SEEN_APART, _SEEN_PIXELS = 40, 4  # levels of 255 by which so many pixels must tell a colour from another
_ANSWERS = (1 + len(SCENES), 1 + len(COLOURS), 1 + len(COLOURS), 3)
_BALLS = 1 + SCENES.index(("collision", "balls"))
_OUT_OF_SIGHT = -1e4  # units


class LooksJudge(nn.Module):
    """Convolutions over each frame, what is strongest in any frame, convolutions over that, and then each place.

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


# --- what is there ----------------------------------------------------------------------------------------------------


def truth_of(scenario: Scenario) -> np.ndarray:
    """What should be read of a scenario's clip, int64 ``(3, 4)``."""
    told = (
        Told(e.phenomenon, e.variant, e.place, e.colours, _number(e.phenomenon, e.variant)) for e in scenario.events
    )
    return answers(Telling("", tuple(told), None))[:-1].reshape(len(PLACES), len(QUESTIONS))


def _number(phenomenon: str, variant: str) -> int:
    return 2 if (phenomenon, variant) in PAIRS else 1


def shown_in(row_34: np.ndarray) -> tuple[Shown, ...]:
    """The scenes in what was read of a clip, int64 ``(3, 4)``."""
    names, found = list(COLOURS), []
    for place, (scene, first, second, number) in zip(PLACES, row_34.tolist(), strict=True):
        if scene:
            colours = tuple(names[colour - 1] for colour in (first, second) if colour)
            found.append(Shown(*SCENES[scene - 1], place, colours, number))
    return tuple(found)


def render_looks(
    seeds: Sequence[int], split: str, recipe: LooksRecipe, lawful: bool | None = None, whole: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Render clips: what is seen of them, uint8 ``(n, F', h, w, 3)``, and what should be read, int64 ``(n, 3, 4)``.

    Args:
        seeds: of the clips.
        split: of the worlds.
        recipe: whose phenomena and stage they have.
        lawful: all, or none of them; default: every second one, and in some a ball is hidden, for training.
        whole: give all frames of the clips.
    """
    frames, truth = [], np.empty((len(seeds), len(PLACES), len(QUESTIONS)), np.int64)
    kind = {None: "every kind", True: "lawful", False: "unlawful"}[lawful]
    for row, seed in enumerate(tqdm(seeds, f"render {split}, {kind}", mininterval=5, unit="clip")):
        scenario, _ = sample_scenario(seed, split, recipe.phenomena)
        truth[row] = truth_of(scenario)
        made = partial(
            sample_clip, seed, split, recipe.phenomena, recipe.stage, seed % 2 == 0 if lawful is None else lawful
        )
        rng = np.random.default_rng([recipe.seed, seed])
        if lawful is None and rng.random() < recipe.lone and (truth[row, :, 0] == _BALLS).any():
            clip, truth[row] = hide_a_ball(made, truth[row], int(rng.integers(2)))
        else:
            clip = made().frames
            for i, event in enumerate(scenario.events):
                if (event.phenomenon, event.variant) in FADING and not _colour_is_seen(made, clip, i, event.colours):
                    truth[row, PLACES.index(event.place), 1] = OPEN
        frames.append(clip if whole else seen(clip[None])[0])
    return np.stack(frames), truth


def hide_a_ball(made: partial, truth_34: np.ndarray, hidden: int) -> tuple[np.ndarray, np.ndarray]:
    """A clip's frames with one ball of each collision out of sight, and what should be read of them.

    Args:
        made: :func:`prophy.worlds.sample_clip` of the clip.
        truth_34: what should be read of it as it is.
        hidden: 0 the left ball, 1 the right one.
    """

    def changed(number: int, event: Event) -> None:
        if (event.phenomenon, event.variant) == ("collision", "balls"):
            event.state["position"][:, hidden, 0] = _OUT_OF_SIGHT

    truth = truth_34.copy()
    balls = truth[:, 0] == _BALLS
    truth[balls, 1] = truth[balls, 2 - hidden]
    truth[balls, 2:] = 0, 1
    return made(changed=changed).frames, truth


def _colour_is_seen(made: partial, clip_FHWC: np.ndarray, number: int, colours: tuple[str, ...]) -> bool:
    """Whether the frames looked at would be others, were the event of another colour."""
    named = np.array(COLOURS[colours[0]])
    other = max(COLOURS, key=lambda name: np.abs(named - COLOURS[name]).sum())

    def changed(i: int, event: Event) -> None:
        if i == number:
            event.colours = (other,)

    return tells_apart(clip_FHWC, made(changed=changed).frames)


def tells_apart(a_FHWC: np.ndarray, b_FHWC: np.ndarray) -> bool:
    """Whether enough pixels of what is seen of two clips differ enough to say which is which. Ours."""
    a, b = (seen(frames[None])[0].astype(int) for frames in (a_FHWC, b_FHWC))
    return bool((np.abs(a - b).max(-1) >= _SEEN_APART).sum((1, 2)).max() >= _SEEN_PIXELS)


def mirrored(truth_n34: np.ndarray) -> np.ndarray:
    """What should be read of mirrored clips."""
    truth = truth_n34[:, [PLACES.index(place) for place in ("centre", "right", "left")]].copy()
    turned = truth[..., 2] > 0
    truth[turned, 1], truth[turned, 2] = truth[turned, 2], truth[turned, 1]
    return truth


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
    errors = {}
    for kind, lawful in ((LAWFUL, True), (UNLAWFUL, False)):
        frames, truth = render_looks(range(recipe.test_clips), "test", recipe, lawful)
        errors[kind] = error_of(model, frames, truth)
        if vae is not None:
            seeds = range(min(decoded_clips, recipe.test_clips))
            frames, truth = render_looks(seeds, "test", recipe, lawful, whole=True)
            errors[f"{kind}, {AUTOENCODER.removeprefix('real renders ')}"] = error_of(
                model, through_autoencoder(frames, vae), truth
            )
    return LooksJudgeResult(
        errors=errors,
        lone=_lone_share(model, recipe),
        empty=float((read_looks(model, empty_stages(recipe.stage))[..., 0] == 0).all(1).mean()),
        recipe=recipe,
    ).save(work)


def fit(
    frames_nFHWC: np.ndarray,
    truth_n34: np.ndarray,
    recipe: LooksRecipe,
    device: torch.device | None = None,
    work: Path | None = None,
    minutes: float | None = None,
) -> LooksJudge:
    """Train the judge on rendered frames; see :func:`train_looks_judge`. Without ``work`` it cannot be resumed."""
    device = device or torch.device("cpu")
    torch.manual_seed(recipe.seed)
    model = LooksJudge(recipe.width, recipe.stage).train().to(device, memory_format=torch.channels_last)
    empty = empty_stages(recipe.stage)

    def loss_at(step: int) -> torch.Tensor:
        rng = np.random.default_rng([recipe.seed, step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        rows = rng.integers(len(frames_nFHWC), size=recipe.batch)
        batch, target = frames_nFHWC[rows], truth_n34[rows]
        bare = np.flatnonzero(rng.random(recipe.batch) < recipe.nothing)
        batch[bare], target[bare] = empty[rng.integers(len(empty), size=len(bare))], 0
        turned = rng.random(recipe.batch) < 0.5
        batch[turned], target[turned] = batch[turned][..., ::-1, :], mirrored(target[turned])
        x = degraded(stacked(batch), generator).to(device)
        with autocast(x.device, torch.bfloat16):
            logits = model(x)
        return loss_of(logits, torch.from_numpy(target).to(device))

    train_judge(model, loss_at, recipe, NAME, work, minutes)
    return model.eval()


def loss_of(logits: Sequence[torch.Tensor], truth_B34: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of every answer that the pixels can give, mean over clips."""
    asked = truth_B34.clone()
    there = truth_B34[..., :1] > 0
    asked[..., 1:] = torch.where(there, truth_B34[..., 1:], OPEN)
    asked[..., 1][asked[..., 1] == 0] = OPEN  # a scene without colours
    asked[..., 2][truth_B34[..., 0] != _BALLS] = OPEN
    return sum(
        functional.cross_entropy(one.float().flatten(0, 1), asked[..., i].flatten(), ignore_index=OPEN, reduction="sum")
        for i, one in enumerate(logits)
    ) / len(truth_B34)


# --- reading ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def read_looks(model: LooksJudge, frames_nFHWC: np.ndarray) -> np.ndarray:
    """What stands where, int64 ``(n, 3, 4)``, see the module.

    Args:
        frames_nFHWC: uint8 clips of the judge's stage, whole or what is seen of them.

    Raises:
        ValueError: clips of another size.
    """
    frames_nFHWC = seen_of(frames_nFHWC, model.stage)
    model.eval()
    device, parts = model.heads[0].weight.device, []
    for i in range(0, len(frames_nFHWC), 64):
        scene, first, second, number = (x.cpu() for x in model(stacked(frames_nFHWC[i : i + 64]).to(device)))
        found = scene.argmax(-1)
        coloured = torch.tensor([False, *(kind_of(*each).colour_count > 0 for each in SCENES)])[found]
        rows = (
            found,
            torch.where(coloured, 1 + first[..., 1:].argmax(-1), 0),
            torch.where(found == _BALLS, second.argmax(-1), 0),
            torch.where(found > 0, 1 + number[..., 1:].argmax(-1), 0),
        )
        parts.append(torch.stack(rows, -1))
    return torch.cat(parts).numpy()


def error_of(model: LooksJudge, frames_nFHWC: np.ndarray, truth_n34: np.ndarray) -> LooksError:
    """How the judge reads renders it was not trained on."""
    found = read_looks(model, frames_nFHWC)
    right = (found == truth_n34) | (truth_n34 == OPEN)
    asked = truth_n34 > 0
    asked[..., 0] = True
    asked[..., 2] = truth_n34[..., 0] == _BALLS
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
        unseen=int((truth_n34 == OPEN).sum()),
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
    """
    recipe = looks_recipe(work)
    model = LooksJudge(recipe.width, recipe.stage)
    model.load_state_dict(fitted_weights(work, NAME))
    return model.eval()


def looks_recipe(work: Path) -> LooksRecipe:
    """How the judge in ``work`` was trained: its phenomena and its stage.

    Raises:
        FileNotFoundError: it has not been trained.
    """
    return fitted_recipe(work, NAME, LooksRecipe)
