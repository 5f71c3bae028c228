"""Renders for the judge of looks (:mod:`prophy.evaluation.judges.looks`), and what should be read of them.

What is read of a place is a row of four numbers, 0 for none: scene, colour, second colour, number, as in
:func:`prophy.tiny.text.answers`. Of two colours the first is that of the left thing.

Shapes: n clips, F' frames looked at of h×w pixels, 3 places, 4 questions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from tqdm import tqdm

from prophy.evaluation.judges.pictures import seen
from prophy.evaluation.results.looks import LooksRecipe, Shown
from prophy.tiny.text import PLACES, SCENES, answers
from prophy.worlds import COLOURS, Scenario, WorldClip, sample_clip, sample_scenario
from prophy.worlds.event import Event
from prophy.worlds.language import Telling, Told

LOOKED_AT = 5  #: frames the judge sees, from the first to the last: what a thing looks like needs no more
QUESTIONS = ("scene", "colour", "second colour", "number")
PAIRS = frozenset({("collision", "balls"), ("interference_and_diffraction", "ripples")})  #: scenes of two like things
BALLS = 1 + SCENES.index(("collision", "balls"))  #: the one scene that has a second colour, as it is read
_OUT_OF_SIGHT = -1e4  # units


def truth_of(scenario: Scenario) -> np.ndarray:
    """What should be read of a scenario's clip, int64 ``(3, 4)``."""
    told = tuple(
        Told(e.phenomenon, e.variant, e.place, e.colours, 1 + ((e.phenomenon, e.variant) in PAIRS))
        for e in scenario.events
    )
    return answers(Telling("", told, None))[:-1].reshape(len(PLACES), len(QUESTIONS))


def shown_in(row_34: np.ndarray) -> tuple[Shown, ...]:
    """The scenes in what was read of a clip, int64 ``(3, 4)``."""
    names, found = list(COLOURS), []
    for place, (scene, first, second, number) in zip(PLACES, row_34.tolist(), strict=True):
        if scene:
            colours = tuple(names[colour - 1] for colour in (first, second) if colour)
            phenomenon, variant = SCENES[scene - 1]
            found.append(Shown(phenomenon, variant, place, colours, number))
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
        if lawful is None and rng.random() < recipe.lone and (truth[row, :, 0] == BALLS).any():
            clip, truth[row] = hide_a_ball(made, truth[row], int(rng.integers(2)))
        else:
            whole_clip = made()
            clip, truth[row] = whole_clip.frames, without_lost_balls(whole_clip, truth[row])
        frames.append(clip if whole else seen(clip[None], LOOKED_AT)[0])
    return np.stack(frames), truth


def hide_a_ball(made: Callable[..., WorldClip], truth_34: np.ndarray, hidden: int) -> tuple[np.ndarray, np.ndarray]:
    """A clip's frames with one ball of each collision out of sight, and what should be read of them.

    Args:
        made: makes the clip; takes what :func:`~prophy.worlds.sample.sample_clip` takes besides.
        truth_34: what should be read of it as it is.
        hidden: 0 the left ball, 1 the right one.
    """

    def changed(number: int, event: Event) -> None:
        if (event.phenomenon, event.variant) == ("collision", "balls"):
            event.state["position"][:, hidden, 0] = _OUT_OF_SIGHT

    return made(changed=changed).frames, _without(truth_34, truth_34[:, 0] == BALLS, hidden)


def without_lost_balls(clip: WorldClip, truth_34: np.ndarray) -> np.ndarray:
    """What should be read of a clip in which a ball may have left its part of the stage in all frames looked at.

    A clock that obeys no law may show no moment before that. A ball counts as seen of which a quarter is.
    """
    looked = np.linspace(0, clip.stage.frames - 1, LOOKED_AT).round().astype(int)
    truth = truth_34
    for event, state in zip(clip.scenario.events, clip.states, strict=True):
        if (event.phenomenon, event.variant) != ("collision", "balls"):
            continue
        region = clip.stage.region(event.place)
        x, margin = state["position"][looked, :, 0], state["radius"] / 2
        lost = ((x > region.left - margin) & (x < region.right + margin)).sum(0) == 0
        if lost.any():
            truth = _without(truth, np.array(PLACES) == event.place, int(lost[1]))
    return truth


def _without(truth_34: np.ndarray, places: np.ndarray, hidden: int) -> np.ndarray:
    """The same with one ball less at some places: 0 the left one, 1 the right one."""
    truth = truth_34.copy()
    truth[places, 1] = truth[places, 2 - hidden]
    truth[places, 2:] = 0, 1
    return truth


def mirrored(truth_n34: np.ndarray) -> np.ndarray:
    """What should be read of mirrored clips."""
    truth = truth_n34[:, [PLACES.index(place) for place in ("centre", "right", "left")]].copy()
    turned = truth[..., 2] > 0
    truth[turned, 1], truth[turned, 2] = truth[turned, 2], truth[turned, 1]
    return truth
