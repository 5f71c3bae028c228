"""Annotation targets against the truth: where a vision-language model looks, and where the worlds' masks are.

    prophy evaluate annotation --vlm runs/tiny-vlm/model

The annotator runs as it does on real clips; only here the true masks are known. Its targets are measured beside what
they are made of (each answer's attention with no background subtracted, each layer alone) and beside everything that
could score without looking. A token is positive when the phenomenon covers more than half of it.

Shapes: n clips, N tokens, P phenomena, K decoder layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from prophy.annotation import maps
from prophy.annotation.annotator import Annotator
from prophy.annotation.record import Annotation, Answer
from prophy.data.latents import GRID
from prophy.evaluation.localisation import MapScore, Truth, centre_prior, score_maps
from prophy.evaluation.results import write_json
from prophy.phenomena import IDS, by_id
from prophy.training.tiny_transformer import SCOPE
from prophy.worlds import FPS, sample_clip

CLIPS = 64
FIRST_SEED = 1000  #: of the held-out clips: apart from those a training looks at
TARGETS, ANSWER = "targets", "answer alone, nothing subtracted"
BACKGROUND = "background alone"
WRONG, OTHER_CLIP = "targets of a phenomenon not shown", "targets of another clip"
CENTRE, UNIFORM = "centre prior", "uniform"


@dataclass(frozen=True)
class AnnotationResult:
    """How well targets find the phenomena.

    Attributes:
        scores: by map: the targets, what they are made of, single layers, baselines.
        by_phenomenon: of the targets, by phenomenon id: average precision, energy, pointing of that phenomenon alone.
        answers: what the model said about the first clips, by question.
        share_answered: of the phenomena asked about, those the model said anything to.
        layers: decoder layers that the targets average.
        model: the vision-language model's name and revision.
        clips: how many.
        split: of the worlds.
    """

    scores: dict[str, MapScore]
    by_phenomenon: dict[str, MapScore]
    answers: tuple[dict[str, str], ...]
    share_answered: float
    layers: tuple[int, ...]
    model: str
    clips: int
    split: str


@dataclass(frozen=True)
class LayerMaps:
    """Attention of every layer on the token grid, float32.

    Attributes:
        answer_nKNP: of the answers about the phenomena shown; zero elsewhere.
        wrong_nKN: of the answer about one phenomenon that the clip does not show.
        background_nKN: of the brief description.
    """

    answer_nKNP: np.ndarray
    wrong_nKN: np.ndarray
    background_nKN: np.ndarray

    def pick(self, slots: Sequence[int]) -> LayerMaps:
        """The mean of some layers, as K = 1."""
        parts = (self.answer_nKNP, self.wrong_nKN, self.background_nKN)
        return LayerMaps(*(part[:, list(slots)].mean(1, keepdims=True) for part in parts))

    def difference(self, *, relative: bool) -> np.ndarray:
        """Answers minus background, of K = 1 maps, ``(n, N, P)``."""
        found = np.zeros_like(self.answer_nKNP[:, 0])
        for i, p in zip(*np.nonzero(self.answer_nKNP[:, 0].any(1)), strict=True):
            found[i, :, p] = maps.subtract(self.answer_nKNP[i, 0, :, p], self.background_nKN[i, 0], relative=relative)
        return found

    def wrong_difference(self, *, relative: bool) -> np.ndarray:
        """The same for the phenomenon that is not shown, ``(n, N)``."""
        pairs = zip(self.wrong_nKN[:, 0], self.background_nKN[:, 0], strict=True)
        return np.stack([maps.subtract(a, b, relative=relative) if a.any() else 0 * b for a, b in pairs])


def evaluate_annotation(
    annotator: Annotator, out: Path, clips: int = CLIPS, split: str = "test", phenomena: tuple[str, ...] = SCOPE
) -> AnnotationResult:
    """Annotate held-out clips and score the targets; writes ``out``, a JSON.

    Args:
        annotator: as it annotates anything.
        out: where the numbers go.
        clips: how many.
        split: of the worlds.
        phenomena: ids to draw from.
    """
    chosen = annotator.layers
    every = replace(annotator.config, keep_layers=True, layers=annotator.vlm.attention_layers)
    reader = Annotator(annotator.vlm.model, annotator.vlm.tokenizer, every, name=annotator.name)
    layers, truth, answers, share = read_layers(reader, clips, split, phenomena)
    relative = annotator.config.relative
    used = layers.pick([reader.layers.index(layer) for layer in chosen])
    targets = used.difference(relative=relative)
    shape = targets.shape
    found = {
        TARGETS: targets,
        ANSWER: used.answer_nKNP[:, 0],
        BACKGROUND: np.broadcast_to(used.background_nKN[:, 0, :, None], shape),
        WRONG: np.broadcast_to(used.wrong_difference(relative=relative)[:, :, None], shape),
        OTHER_CLIP: of_other_clips(targets, truth.shown_nP),
        CENTRE: np.broadcast_to(centre_prior(truth.grid)[None, :, None], shape),
        UNIFORM: np.ones_like(targets),
    }
    for slot, layer in enumerate(reader.layers):
        alone = layers.pick([slot])
        found[f"layer {layer}"] = alone.difference(relative=relative)
        found[f"layer {layer}, nothing subtracted"] = alone.answer_nKNP[:, 0]
    result = AnnotationResult(
        scores={name: score_maps(values, truth) for name, values in found.items()},
        by_phenomenon={IDS[p]: score_maps(targets, _only(truth, p)) for p in np.flatnonzero(truth.shown_nP.any(0))},
        answers=tuple(answers[:8]),
        share_answered=share,
        layers=chosen,
        model=f"{annotator.name}@{annotator.revision}",
        clips=clips,
        split=split,
    )
    write_json(out, result)
    return result


def read_layers(
    annotator: Annotator, clips: int, split: str, phenomena: tuple[str, ...]
) -> tuple[LayerMaps, Truth, list[dict[str, str]], float]:
    """Annotate clips, keeping every layer's attention on the token grid.

    Each clip is also asked about one phenomenon that it does not show.

    Returns:
        The maps, the truth, what was said, and the share of phenomena to which anything was said.
    """
    count = len(annotator.layers)
    shape = (clips, count, GRID.num_tokens)
    answer, wrong, background = np.zeros((*shape, len(IDS)), np.float32), np.zeros(shape), np.zeros(shape)
    cover, shown = np.zeros((clips, GRID.num_tokens, len(IDS)), np.float32), np.zeros((clips, len(IDS)), bool)
    said, spoken = [], []
    for row in tqdm(range(clips), "annotate", mininterval=5, unit="clip"):
        seed = FIRST_SEED + row
        clip = sample_clip(seed, split, phenomena)
        names = list(clip.masks)
        absent = str(np.random.default_rng([seed, 5]).choice([p for p in phenomena if p not in names]))
        annotation = annotator.annotate(clip.frames, FPS, [*names, absent], GRID)
        for name in names:
            p = by_id(name).index
            answer[row, :, :, p] = _on_grid(annotation, annotation.answers[name])
            cover[row, :, p] = GRID.pool_masks(clip.masks[name][None])[0]
            shown[row, p] = True
            spoken.append(annotation.answers[name].num_tokens > 0)
        wrong[row] = _on_grid(annotation, annotation.answers[absent])
        background[row] = _on_grid(annotation, annotation.background)
        answers = (annotation.background, *(annotation.answers[name] for name in names))
        said.append({one.question: one.text for one in answers})
    return LayerMaps(answer, wrong, background), Truth(cover, shown, GRID), said, float(np.mean(spoken))


def _on_grid(annotation: Annotation, answer: Answer) -> np.ndarray:
    """Each layer's attention of an answer on the token grid, ``(K, N)``."""
    record, patches = annotation.record, len(answer.attention)
    centres = np.array(record.frame_indices, float).reshape(patches, -1).mean(1)
    return np.stack([maps.resample(layer, centres, record.num_frames, GRID) for layer in answer.layer_attention])


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
