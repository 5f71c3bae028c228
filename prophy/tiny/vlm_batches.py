"""Batches for the small vision-language model, and the two losses that it learns from.

Shapes: B clips, L tokens of a row, V video tokens of a clip, D width, X words of the vocabulary, n clips of a split.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

from prophy.annotation.clips import pack_clip, pack_frames
from prophy.annotation.vlm import VisionLanguageModel
from prophy.tiny.attention import fast_vlm_attention
from prophy.tiny.vlm_lessons import ANNOTATION, GENERAL, STAGE, Lessons
from prophy.training.devices import autocast


@dataclass(frozen=True)
class VlmBatch:
    """Clips with all their questions and answers, one row a clip. A question sees the clip and itself, no other one.

    Attributes:
        ids_BL: the prompt up to the end of the video, then question and answer, question and answer…
        positions_3BL: rotary positions; each question starts right behind the video.
        sees_B1LL: which token attends to which.
        targets_BL: the token that each position must predict; -100 outside answers.
        patches: ``pixel_values_videos`` of all clips.
        grid_B3: ``video_grid_thw``.
    """

    ids_BL: torch.Tensor
    positions_3BL: torch.Tensor
    sees_B1LL: torch.Tensor
    targets_BL: torch.Tensor
    patches: torch.Tensor
    grid_B3: torch.Tensor

    def to(self, device: torch.device) -> VlmBatch:
        return VlmBatch(*(getattr(self, f.name).to(device) for f in fields(self)))


class Batches:
    """Makes batches for one model and its tokenizer."""

    def __init__(self, vlm: VisionLanguageModel) -> None:
        self._vlm = vlm
        blank = np.zeros((STAGE.frames, STAGE.height, STAGE.height, 3), np.uint8)
        clip = pack_clip(blank, STAGE.fps, vlm.sizes, vlm.family, ANNOTATION)
        self._prefix = vlm.prefix_ids(clip)
        positions_3L, _ = vlm.positions([*self._prefix, 0], clip)
        self._positions_3P, self._next = positions_3L[:, :-1], int(positions_3L[0, -1])

    def make(self, lessons: Lessons, rows: np.ndarray, generals: np.ndarray | None = None) -> VlmBatch:
        """Pack clips ``rows`` with their questions.

        Args:
            generals: for each clip, which of the two questions about the whole video is asked (0: describe it, 1:
                which phenomena), to save time; None: both.
        """
        vlm, prefix = self._vlm, self._prefix
        packed = [pack_frames(lessons.frames[row], vlm.sizes, vlm.family) for row in rows]
        left_out = [None] * len(rows) if generals is None else [GENERAL[1 - g] for g in generals]
        examples = [
            list(self._segments({q: a for q, a in lessons.answers[row].items() if q != out}))
            for row, out in zip(rows, left_out, strict=True)
        ]
        length = len(prefix) + max(sum(len(ids) for ids, _ in segments) for segments in examples)
        ids_BL = torch.full((len(rows), length), vlm.tokenizer.eos_token_id)
        targets_BL = torch.full((len(rows), length), -100)
        part_BL = torch.full((len(rows), length), -1)
        ids_BL[:, : len(prefix)], part_BL[:, : len(prefix)] = torch.tensor(prefix), 0
        positions_3BL = torch.full((3, len(rows), length), self._next)
        positions_3BL[:, :, : len(prefix)] = self._positions_3P[:, None]
        for b, segments in enumerate(examples):
            at = len(prefix)
            for number, (ids, answer) in enumerate(segments, 1):
                end = at + len(ids)
                ids_BL[b, at:end], part_BL[b, at:end] = torch.tensor(ids), number
                targets_BL[b, end - answer - 1 : end - 1] = ids_BL[b, end - answer : end]
                positions_3BL[:, b, at:end] = self._next + torch.arange(len(ids))
                at = end
        same_BLL = (part_BL[:, None] == 0) | (part_BL[:, None] == part_BL[:, :, None])
        sees_BLL = same_BLL & torch.ones(length, length, dtype=torch.bool).tril()
        patches = torch.from_numpy(np.concatenate([patches for patches, _ in packed]))
        grid_B3 = torch.tensor([grid for _, grid in packed])
        return VlmBatch(ids_BL, positions_3BL, sees_BLL[:, None], targets_BL, patches, grid_B3)

    def _segments(self, answers: dict[str, str]) -> Iterator[tuple[list[int], int]]:
        """Ids of each question with its answer and end mark, and how many of them are the answer's."""
        for question, answer in answers.items():
            said = [
                *self._vlm.tokenizer(answer, add_special_tokens=False)["input_ids"],
                self._vlm.tokenizer.eos_token_id,
            ]
            yield [*self._vlm.question_ids(question), *said], len(said)


def vlm_loss(
    model: Qwen2_5_VLForConditionalGeneration, batch: VlmBatch, precision: torch.dtype = torch.bfloat16
) -> torch.Tensor:
    """Mean cross-entropy of the answers' tokens."""
    with fast_vlm_attention(model), autocast(model.device, precision):
        hidden_BLD = model.model(
            input_ids=batch.ids_BL,
            position_ids=batch.positions_3BL,
            attention_mask=batch.sees_B1LL,
            pixel_values_videos=batch.patches,
            video_grid_thw=batch.grid_B3,
            use_cache=False,
        ).last_hidden_state
        answers_BL = batch.targets_BL >= 0
        logits = model.lm_head(hidden_BLD[answers_BL])
    return nn.functional.cross_entropy(logits.float(), batch.targets_BL[answers_BL])


class Words:
    """Which words the answers about each clip hold: what the vision tower learns from.

    Attributes:
        held_nX: 1 where the answers hold a word, float32 ``(n, vocabulary)``.
        usual_X: log-odds of each word over the clips: what can be said without looking.
        told_X: words that tell clips apart.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, lessons: Lessons) -> None:
        self.held_nX = torch.zeros(len(lessons), len(tokenizer))
        for held_X, answers in zip(self.held_nX, lessons.answers, strict=True):
            held_X[tokenizer(" ".join(answers.values()), add_special_tokens=False)["input_ids"]] = 1
        share_X = self.held_nX.mean(0)
        self.usual_X = torch.logit(share_X.clamp(1e-3, 1 - 1e-3))
        self.told_X = (share_X > 0) & (share_X < 1)


def tower_loss(
    model: Qwen2_5_VLForConditionalGeneration,
    batch: VlmBatch,
    words: Words,
    rows: np.ndarray,
    precision: torch.dtype = torch.bfloat16,
) -> torch.Tensor:
    """Cross-entropy of which words the answers hold: a word counts as seen where any video token names it.

    Each video token is read by the decoder's own output layer, so that it speaks the decoder's language.
    """
    with fast_vlm_attention(model), autocast(model.device, precision):
        seen = model.model.visual(batch.patches, grid_thw=batch.grid_B3).pooler_output
        logits_BVX = model.lm_head(seen.reshape(len(rows), -1, seen.shape[-1]))
    usual_X, told_X, held_BX = (x.to(model.device) for x in (words.usual_X, words.told_X, words.held_nX[rows]))
    named_BX = logits_BVX.float().logsumexp(1) - np.log(logits_BVX.shape[1]) + usual_X
    return nn.functional.binary_cross_entropy_with_logits(named_BX[:, told_X], held_BX[:, told_X])
