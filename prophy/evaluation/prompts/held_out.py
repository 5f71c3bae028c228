"""Held-out prompts: scenes of the test split, in words that no part of the embedded model was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from prophy.data.latents import CAPTIONS
from prophy.phenomena import IDS
from prophy.tiny.parts import CLIPS
from prophy.tiny.text import TextRecipe
from prophy.worlds import WorldSet, sample_scenario
from prophy.worlds.scope import SCOPE

FIRST_SCENE = 10_000  #: of the test split; validation during training and the classifier's test look at earlier ones
FIRST_SEED = 5_000  #: of the noise
_DRAWS = 200

USUAL, NEW = "usual wording", "held-out wording"


@dataclass(frozen=True)
class HeldOutPrompt:
    """A prompt, its seed, the phenomena it asks for, and which sentences it is made of."""

    prompt: str
    seed: int
    phenomena: tuple[str, ...]
    wording: str


def training_captions(
    clips: int = CLIPS,
    text_captions: int = max(TextRecipe.steps * TextRecipe.batch, TextRecipe.vocabulary_captions),
) -> frozenset[str]:
    """Every caption the video model (first ``clips`` clips, all wordings) or the text encoder was trained on."""
    seen = set()
    for seed in tqdm(range(text_captions), "training captions", mininterval=5, unit="caption"):
        seen.add(sample_scenario(seed)[1])
    for seed in range(clips):
        seen.update(WorldSet().captions(seed, CAPTIONS))  # as the latent cache has them
    return frozenset(seen)


def held_out_prompts(
    count: int, seen: frozenset[str], phenomena: tuple[str, ...] = SCOPE, first_scene: int = FIRST_SCENE
) -> tuple[HeldOutPrompt, ...]:
    """``count`` different prompts, none of them in ``seen``; the same for the same arguments.

    Every other one uses only sentences that are never seen in training; the rest use the usual ones, worded anew until
    the whole caption is new. Scenes that cannot be worded anew are passed over.
    """
    prompts: list[HeldOutPrompt] = []
    used: set[str] = set()
    scene = first_scene
    while len(prompts) < count:
        wording = (USUAL, NEW)[len(prompts) % 2]
        scenario, text = sample_scenario(scene, "test", phenomena)
        words = np.random.default_rng([scene, 11])
        if wording == NEW:
            text = scenario.describe(words, held_out=True)
        for _ in range(_DRAWS):
            if text not in seen and text not in used:
                break
            text = scenario.describe(words, held_out=wording == NEW)
        else:
            scene += 1
            continue
        used.add(text)
        shown = tuple(IDS[i] for i in np.flatnonzero(scenario.labels))
        prompts.append(HeldOutPrompt(text, FIRST_SEED + len(prompts), shown, wording))
        scene += 1
    return tuple(prompts)
