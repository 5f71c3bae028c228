"""Annotation targets against the truth: where a vision-language model looks, and where the worlds' masks are.

    prophy evaluate annotation --vlm runs/tiny-vlm/model

The annotator runs as it does on real clips; only here the true masks are known. Its targets are measured beside what
they are made of (each answer's attention with no background subtracted, each layer alone) and beside everything that
could score without looking. A token is positive when the phenomenon covers more than half of it.

Shapes: n clips, N tokens, P phenomena, K decoder layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from prophy.annotation import maps
from prophy.annotation.annotator import Annotator
from prophy.data.jobs import WORLDS, Geometry
from prophy.evaluation.measures.localisation import Truth, centre_prior, score_maps
from prophy.evaluation.results.annotation import ANSWER, BACKGROUND, OTHER_CLIP, TARGETS, WRONG, AnnotationResult
from prophy.evaluation.results.localisation import CENTRE, UNIFORM
from prophy.grid import TokenGrid
from prophy.phenomena import IDS, by_id
from prophy.worlds import Stage, sample_clip
from prophy.worlds.scope import SCOPE

CLIPS = 64
FIRST_SEED = 1000  #: of the held-out clips: apart from those a training looks at


@dataclass(frozen=True)
class LayerMaps:
    """Attention of every layer on the model's own video tokens (V of them), float32, and how to get to the token grid.

    Attributes:
        answer_nKVP: of the answers about the phenomena shown; zero elsewhere.
        wrong_nKV: of the answer about one phenomenon that the clip does not show.
        background_nKV: of the brief description.
        shape: V as time, rows, columns.
        centres: where each temporal patch lies, in frames.
        num_frames: of each clip.
        grid: the tokens' grid.
    """

    answer_nKVP: np.ndarray
    wrong_nKV: np.ndarray
    background_nKV: np.ndarray
    shape: tuple[int, int, int]
    centres: np.ndarray
    num_frames: int
    grid: TokenGrid

    def pick(self, slots: Sequence[int]) -> LayerMaps:
        """The mean of some layers, as K = 1."""
        names = ("answer_nKVP", "wrong_nKV", "background_nKV")
        return replace(self, **{name: getattr(self, name)[:, list(slots)].mean(1, keepdims=True) for name in names})

    def on_grid(self, map_V: np.ndarray) -> np.ndarray:
        """One map on the token grid, ``(N,)``."""
        return maps.resample(map_V.reshape(self.shape), self.centres, self.num_frames, self.grid)

    def answers(self) -> np.ndarray:
        """Attention of the answers, of K = 1 maps, ``(n, N, P)``."""
        return self._each(lambda row, map_V: self.on_grid(map_V))

    def differences(self, *, relative: bool) -> np.ndarray:
        """Answers minus background, of K = 1 maps, ``(n, N, P)``."""
        return self._each(
            lambda row, map_V: self.on_grid(maps.subtract(map_V, self.background_nKV[row, 0], relative=relative))
        )

    def backgrounds(self) -> np.ndarray:
        """Attention of the brief descriptions, of K = 1 maps, ``(n, N)``."""
        return np.stack([self.on_grid(map_V) for map_V in self.background_nKV[:, 0]])

    def wrong_differences(self, *, relative: bool) -> np.ndarray:
        """What a phenomenon that is not shown would get, ``(n, N)``."""
        pairs = zip(self.wrong_nKV[:, 0], self.background_nKV[:, 0], strict=True)
        return np.stack([self.on_grid(maps.subtract(a, b, relative=relative) if a.any() else 0 * b) for a, b in pairs])

    def _each(self, measure: Callable[[int, np.ndarray], np.ndarray]) -> np.ndarray:
        answer_nVP = self.answer_nKVP[:, 0]
        found = np.zeros((len(answer_nVP), self.grid.num_tokens, answer_nVP.shape[2]), np.float32)
        for row, p in zip(*np.nonzero(answer_nVP.any(1)), strict=True):
            found[row, :, p] = measure(row, answer_nVP[row, :, p])
        return found


def evaluate_annotation(
    annotator: Annotator,
    work: Path,
    clips: int = CLIPS,
    split: str = "test",
    phenomena: tuple[str, ...] = SCOPE,
    geometry: Geometry = WORLDS,
) -> AnnotationResult:
    """Annotate held-out clips and score the targets; writes ``annotation.json`` under ``work/evaluation``.

    Args:
        annotator: as it annotates anything.
        work: folder of results.
        clips: how many.
        split: of the worlds.
        phenomena: ids to draw from.
        geometry: of the worlds' clips, see :meth:`prophy.data.jobs.Geometry.of_worlds`.
    """
    chosen = annotator.layers
    every = replace(annotator.config, keep_layers=True, layers=annotator.vlm.attention_layers)
    reader = Annotator(annotator.vlm.model, annotator.vlm.tokenizer, every, name=annotator.name)
    layers, truth, answers, share = read_layers(reader, clips, split, phenomena, geometry)
    relative = annotator.config.relative
    used = layers.pick([reader.layers.index(layer) for layer in chosen])
    targets = used.differences(relative=relative)
    shape = targets.shape
    found = {
        TARGETS: targets,
        ANSWER: used.answers(),
        BACKGROUND: np.broadcast_to(used.backgrounds()[:, :, None], shape),
        WRONG: np.broadcast_to(used.wrong_differences(relative=relative)[:, :, None], shape),
        OTHER_CLIP: of_other_clips(targets, truth.shown_nP),
        CENTRE: np.broadcast_to(centre_prior(truth.grid)[None, :, None], shape),
        UNIFORM: np.ones_like(targets),
    }
    for slot, layer in enumerate(reader.layers):
        alone = layers.pick([slot])
        found[f"layer {layer}"] = alone.differences(relative=relative)
        found[f"layer {layer}, nothing subtracted"] = alone.answers()
    seen = np.flatnonzero(truth.shown_nP.any(0)).tolist()
    return AnnotationResult(
        scores={name: score_maps(values, truth) for name, values in found.items()},
        by_phenomenon={IDS[p]: score_maps(targets, _only(truth, p)) for p in seen},
        answers=tuple(answers[:8]),
        share_answered=share,
        layers=chosen,
        model=f"{annotator.name}@{annotator.revision}",
        clips=clips,
        split=split,
    ).save(work)


def read_layers(
    annotator: Annotator, clips: int, split: str, phenomena: tuple[str, ...], geometry: Geometry = WORLDS
) -> tuple[LayerMaps, Truth, list[dict[str, str]], float]:
    """Annotate clips, keeping every layer's attention.

    Each clip is also asked about one phenomenon that it does not show.

    Returns:
        The maps, the truth, what was said, and the share of phenomena to which anything was said.
    """
    answer, wrong, background = [], [], []
    grid, stage = geometry.grid, Stage(geometry.width, geometry.height, geometry.frames, round(geometry.fps))
    cover, shown = np.zeros((clips, grid.num_tokens, len(IDS)), np.float32), np.zeros((clips, len(IDS)), bool)
    said, spoken = [], []
    for row in tqdm(range(clips), "annotate", mininterval=5, unit="clip"):
        seed = FIRST_SEED + row
        clip = sample_clip(seed, split, phenomena, stage)
        names = list(clip.masks)
        absent = str(np.random.default_rng([seed, 5]).choice([p for p in phenomena if p not in names]))
        annotation = annotator.annotate(clip.frames, geometry.fps, [*names, absent], grid)
        record, layers = annotation.record, len(annotator.layers)
        answers_KVP = np.zeros((layers, annotation.background.attention.size, len(IDS)), np.float32)
        for name in names:
            p = by_id(name).index
            answers_KVP[:, :, p] = annotation.answers[name].by_layer()
            cover[row, :, p] = grid.pool_masks(clip.masks[name][None])[0]
            shown[row, p] = True
            spoken.append(annotation.answers[name].num_tokens > 0)
        answer.append(answers_KVP)
        wrong.append(annotation.answers[absent].by_layer())
        background.append(annotation.background.by_layer())
        answers = (annotation.background, *(annotation.answers[name] for name in names))
        said.append({one.question: one.text for one in answers})
    shape = annotation.background.attention.shape
    centres = np.array(record.frame_indices, float).reshape(shape[0], -1).mean(1)
    stacks = np.stack(answer), np.stack(wrong), np.stack(background)
    maps = LayerMaps(*stacks, shape, centres, record.num_frames, grid)
    return maps, Truth(cover, shown, grid), said, float(np.mean(spoken))


def of_other_clips(maps_nNP: np.ndarray, shown_nP: np.ndarray) -> np.ndarray:
    """Each phenomenon's map from the next clip that shows it: what is left is where it usually is.

    A phenomenon that only one clip shows gets a constant.
    """
    other = np.zeros_like(maps_nNP)
    for p in np.flatnonzero(shown_nP.any(0)):
        rows = np.flatnonzero(shown_nP[:, p])
        if len(rows) > 1:
            other[rows, :, p] = maps_nNP[np.roll(rows, 1), :, p]
    return other


def _only(truth: Truth, p: int) -> Truth:
    shown = np.zeros_like(truth.shown_nP)
    shown[:, p] = truth.shown_nP[:, p]
    return replace(truth, shown_nP=shown)
