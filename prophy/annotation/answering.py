"""Many questions about one clip: the video is read once, the questions are answered together.

The prompt up to the end of the video is run once; its cache is copied for each question. Questions differ in length,
and no padding is used: padding would decay the state of linear-attention layers and shift their convolutions. Instead
all rows start at the same index, and a row whose question is longer is fed the rest of it token by token while the
others already answer. All rows are then equally long at any time, every token sees exactly what it would see alone, and
the last row of a forward pass is the only one that can predict a token.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import Cache

from prophy.annotation.capture import AnswerAttention
from prophy.annotation.clips import PackedClip
from prophy.annotation.config import AnnotationConfig
from prophy.annotation.vlm import VisionLanguageModel


@dataclass(frozen=True)
class VideoPrefix:
    """A clip that the model has read.

    Attributes:
        ids: the prompt up to the end of the video.
        clip: what was packed.
        cache: keys, values and states after ``ids``, batch 1.
        columns_V: indices of the video tokens, in the order of the clip's grid.
    """

    ids: list[int]
    clip: PackedClip
    cache: Cache
    columns_V: torch.Tensor


@torch.inference_mode()
def read_video(vlm: VisionLanguageModel, clip: PackedClip) -> VideoPrefix:
    """Run the vision tower and the prompt up to the end of the video."""
    ids = vlm.prefix_ids(clip)
    device = vlm.model.device
    ids_1L = torch.tensor([ids], device=device)
    out = vlm.model.model(
        input_ids=ids_1L,
        position_ids=vlm.positions(ids, clip)[0][:, None].to(device),
        pixel_values_videos=torch.from_numpy(clip.patches).to(device),
        video_grid_thw=torch.tensor([clip.patch_grid], device=device),
        use_cache=True,
    )
    columns_V = (ids_1L[0] == vlm.video_id).nonzero()[:, 0]
    return VideoPrefix(ids, clip, out.past_key_values, columns_V)


@torch.inference_mode()
def answer_questions(
    vlm: VisionLanguageModel,
    prefix: VideoPrefix,
    questions: Sequence[str],
    config: AnnotationConfig,
    recorder: AnswerAttention | None = None,
) -> list[list[int]]:
    """Generate the answers to one batch of questions.

    Args:
        recorder: where attention goes; its :meth:`~prophy.annotation.capture.AnswerAttention.recording` must be open.

    Returns:
        Token ids of each answer, without the token that ended it; empty where the model ended at once.
    """
    device = vlm.model.device
    prompts = [vlm.question_ids(question) for question in questions]
    positions_3BL = _positions(vlm, prefix, prompts, config.max_answer_tokens).to(device)
    generators = [_generator(config.seed, question, device) for question in questions]
    cache = copy.deepcopy(prefix.cache)
    # Selects the only row as often as there are questions; unlike batch_repeat_interleave, all kinds of layers have it.
    cache.reorder_cache(torch.zeros(len(questions), dtype=torch.long, device=device))

    fed = min(len(prompt) for prompt in prompts)
    step_BL = torch.tensor([prompt[:fed] for prompt in prompts], device=device)
    answers: list[list[int]] = [[] for _ in prompts]
    done = [False] * len(prompts)
    while True:
        out = vlm.model(
            input_ids=step_BL,
            position_ids=positions_3BL[:, :, fed - step_BL.shape[1] : fed],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        answering = [fed >= len(prompt) and not done[row] for row, prompt in enumerate(prompts)]
        picked = _pick(out.logits[:, -1], config.temperature, generators, answering)
        counts, following = [], []
        for row, (prompt, token) in enumerate(zip(prompts, picked, strict=True)):
            stops = token in vlm.stop_ids
            counts.append(answering[row] and not stops)
            if counts[-1]:
                answers[row].append(token)
            if answering[row] and (stops or len(answers[row]) == config.max_answer_tokens):
                done[row] = True
            following.append(token if fed >= len(prompt) else prompt[fed])
        if recorder is not None:
            recorder.commit(counts)
        if all(done):
            return answers
        step_BL = torch.tensor(following, device=device)[:, None]
        fed += 1


def _positions(
    vlm: VisionLanguageModel, prefix: VideoPrefix, prompts: list[list[int]], answer_tokens: int
) -> torch.Tensor:
    """Positions of every token behind the video, ``(3, B, longest question + answer)``."""
    start = len(prefix.ids)
    end = start + max(len(prompt) for prompt in prompts) + answer_tokens
    rows = []
    for prompt in prompts:
        known_3L, delta = vlm.positions([*prefix.ids, *prompt], prefix.clip)
        later = torch.arange(known_3L.shape[1], end) + delta
        rows.append(torch.cat([known_3L[:, start:], later.expand(3, -1)], 1))
    return torch.stack(rows, 1)


def _generator(seed: int, question: str, device: torch.device) -> torch.Generator:
    """A question draws the same numbers whatever it is batched with."""
    return torch.Generator(device).manual_seed(seed + zlib.crc32(question.encode()))


def _pick(
    logits_BX: torch.Tensor, temperature: float, generators: list[torch.Generator], answering: list[bool]
) -> list[int]:
    """The next token of each row. A row that does not answer draws nothing: its answer would depend on the others."""
    picked = logits_BX.argmax(-1).tolist()
    if temperature:
        for row in (row for row, answers in enumerate(answering) if answers):
            probs_X = (logits_BX[row].float() / temperature).softmax(-1)
            picked[row] = int(torch.multinomial(probs_X, 1, generator=generators[row]))
    return picked
