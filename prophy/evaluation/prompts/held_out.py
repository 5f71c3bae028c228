"""Held-out prompts: scenes of the test split, in words that no part of the embedded model was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from prophy.data.latents import CAPTIONS
from prophy.phenomena import IDS
from prophy.tiny.parts import CLIPS
from prophy.tiny.text import RECIPES
from prophy.worlds import Scenario, WorldSet
from prophy.worlds.language import GRAMMARS, Telling
from prophy.worlds.sample import sample_telling
from prophy.worlds.scope import SCOPE

FIRST_SCENE = 10_000  #: of the test split; validation during training and the classifier's test look at earlier ones
FIRST_SEED = 5_000  #: of the noise
_DRAWS = 200

USUAL, NEW, PAIR = "usual wording", "held-out wording", "held-out combination"  #: kinds of prompts
#: kind -> the split that its scenes are of
_SPLITS = {USUAL: "test", NEW: "test", PAIR: "combinations"}


@dataclass(frozen=True)
class HeldOutPrompt:
    """A prompt, its seed, the phenomena it asks for, and which sentences it is made of."""

    prompt: str
    seed: int
    phenomena: tuple[str, ...]
    wording: str


@dataclass(frozen=True)
class ToldPrompt(HeldOutPrompt):
    """A prompt, with what it says and what a clip of the worlds would show.

    Attributes:
        telling: scenes, places, colours and numbers, as far as the prompt says them.
        scenario: all of it.
    """

    telling: Telling
    scenario: Scenario


def training_captions(
    clips: int = CLIPS,
    text_captions: int | None = None,
    grammar: str = "first",
    phenomena: tuple[str, ...] = SCOPE,
) -> frozenset[str]:
    """Every caption that a video model or its text encoder was trained on.

    Args:
        clips: of the worlds that the video model saw, in all their wordings.
        text_captions: that the text encoder saw; default: as many as its recipe says.
        grammar: whose captions.
        phenomena: of the video model's clips; the text encoder knows all.
    """
    recipe = RECIPES[grammar]
    if text_captions is None:
        text_captions = max(recipe.steps * recipe.batch, recipe.vocabulary_captions)
    seen = set()
    for seed in tqdm(range(text_captions), "training captions", mininterval=5, unit="caption"):
        seen.add(sample_telling(seed, grammar=GRAMMARS[grammar], twins=recipe.twins)[1].text)
    worlds = WorldSet(phenomena, grammar=grammar)
    for seed in range(clips):
        seen.update(worlds.captions(seed, CAPTIONS))  # as the latent cache has them
    return frozenset(seen)


def held_out_prompts(
    count: int,
    seen: frozenset[str],
    phenomena: tuple[str, ...] = SCOPE,
    first_scene: int = FIRST_SCENE,
    grammar: str = "first",
    kinds: tuple[str, ...] = (USUAL, NEW),
) -> tuple[ToldPrompt, ...]:
    """``count`` different prompts, none of them in ``seen``; the same for the same arguments.

    The kinds take turns. A held-out wording uses only sentences that are never seen in training; the others use the
    usual ones, worded anew until the whole caption is new, of scenes of the test split, or of pairs of phenomena never
    seen together. Scenes that cannot be worded anew are passed over.
    """
    prompts: list[ToldPrompt] = []
    used: set[str] = set()
    scene, words_of = first_scene, GRAMMARS[grammar]
    while len(prompts) < count:
        wording = kinds[len(prompts) % len(kinds)]
        scenario, telling = sample_telling(scene, _SPLITS[wording], phenomena, words_of)
        words = np.random.default_rng([scene, 11])
        if wording == NEW:
            telling = words_of.tell(scenario.events, scenario.setting, words, held_out=True)
        for _ in range(_DRAWS):
            if telling.text not in seen and telling.text not in used:
                break
            telling = words_of.tell(scenario.events, scenario.setting, words, held_out=wording == NEW)
        else:
            scene += 1
            continue
        used.add(telling.text)
        shown = tuple(IDS[i] for i in np.flatnonzero(scenario.labels))
        prompts.append(ToldPrompt(telling.text, FIRST_SEED + len(prompts), shown, wording, telling, scenario))
        scene += 1
    return tuple(prompts)
