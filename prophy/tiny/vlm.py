"""A small vision-language model of Qwen2.5-VL's own class, trained from scratch on questions about the worlds.

It exists to prove the annotator: in a world the true masks are known, so targets read from this model's attention can
be checked. It is asked what the annotator asks, and no answer can be given without looking: which thing, in which
colour, where, and how it moves.

As in the models it stands for, the vision tower learns first: its tokens must name, word by word, what the answers
about a clip will hold, wherever in the clip that is. Without this, the decoder ignores the video for very long. Masks
are never shown to it.

    prophy tiny vlm --work runs/tiny-vlm
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from prophy import phenomena
from prophy.annotation.answering import answer_questions, read_video
from prophy.annotation.clips import PackedClip, frame_indices, pack_clip, pack_frames
from prophy.annotation.config import BACKGROUND_QUESTION, CONFIG_FILE, AnnotationConfig
from prophy.annotation.families import FAMILIES, TURN_END, VIDEO_TOKEN
from prophy.annotation.vlm import VisionLanguageModel
from prophy.files import replacing
from prophy.flags import whole
from prophy.schema import (
    AtLeastNone,
    AtLeastOne,
    BatchSize,
    LearningRate,
    LossWeight,
    Seed,
    ShareBelowOne,
    Width,
    check_fields,
)
from prophy.tiny.attention import fast_vlm_attention
from prophy.tiny.parts import stage_parser
from prophy.training.devices import autocast, chosen_device
from prophy.training.ema import Ema
from prophy.training.fit import fit
from prophy.training.optim import MuonAdamW
from prophy.worlds import COLOURS, Scenario, Stage, sample_clip, sample_scenario
from prophy.worlds.captions import TEMPLATES
from prophy.worlds.scope import SCOPE
from prophy.worlds.stage import BACKGROUNDS

log = logging.getLogger(__name__)

PATCH, TEMPORAL = 8, 2  #: a video token is 8×8 pixels of two frames: the token grid of the embedded video model
#: How the annotator shows a world to this model: half of its frames, at their own size.
ANNOTATION = AnnotationConfig(fps=4.0, min_frame_tokens=64, max_frame_tokens=64, max_answer_tokens=48)
WHICH_QUESTION = "Which phenomena are in the video?"
_GENERAL = (BACKGROUND_QUESTION, WHICH_QUESTION)
_SPECIAL = ("<|im_start|>", TURN_END, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", VIDEO_TOKEN)
_PLACES = {"left": "on the left", "right": "on the right", "centre": "in the middle"}
_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")
STAGE = Stage()  #: the clips it knows
_ROW_EDGES, _COLUMN_EDGES = (26.0, 42.0), (STAGE.height / 3, 2 * STAGE.height / 3)  # pixels
_TRENDS = ("shrinking", "steady", "growing")
_HELD_OUT = 50  # clips of the test split that answers are checked on
_BLOCK = 50  # clips rendered between two writes


@dataclass(frozen=True)
class VlmRecipe:
    """How the model is trained: the tower first, then all of it; constant rates, a linear cool-down at the end of each,
    an EMA that is what is saved.
    """

    clips: AtLeastOne = 1500
    tower_steps: AtLeastNone = 1500
    steps: AtLeastNone = 1500
    cool_down: AtLeastOne = 400
    warm_up: AtLeastOne = 50
    batch: BatchSize = 8
    width: Width = 96
    heads: Width = 3
    layers: Width = 3
    vision_width: Width = 64
    vision_layers: Width = 2
    muon_rate: LearningRate = 0.01
    adamw_rate: LearningRate = 2e-3
    weight_decay: LossWeight = 0.01
    ema: ShareBelowOne = 0.99
    precision: str = "bfloat16"
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def total_steps(self) -> int:
        return self.tower_steps + self.steps

    def share_of_peak(self, step: int) -> float:
        """Which share of the peak rates a step uses."""
        first, last = (0, self.tower_steps) if step < self.tower_steps else (self.tower_steps, self.total_steps)
        return min(1.0, (step + 1 - first) / self.warm_up, (last - step) / self.cool_down)


@dataclass(frozen=True)
class Course:
    """What can be seen of one event, from its mask.

    Attributes:
        start: row and column, of three each, where it is first seen.
        end: where it is last seen.
        trend: its area at the end against that at the start: 0 shrinking, 1 steady, 2 growing.
    """

    start: tuple[int, int]
    end: tuple[int, int]
    trend: int

    @classmethod
    def of(cls, mask_FHW: np.ndarray) -> Course:
        shown = np.flatnonzero(mask_FHW.any((1, 2)))
        places, areas = [], []
        for frame in shown[[0, -1]] if len(shown) else ():
            ys, xs = np.nonzero(mask_FHW[frame])
            places.append((int(np.digitize(ys.mean(), _ROW_EDGES)), int(np.digitize(xs.mean(), _COLUMN_EDGES))))
            areas.append(len(ys))
        if not places:
            return cls((1, 1), (1, 1), 1)
        return cls(places[0], places[1], int(np.digitize(areas[1] / areas[0], (0.8, 1.25))))

    def describe(self) -> str:
        start, end = (f"{_ROWS[row]} {_COLUMNS[column]}" for row, column in (self.start, self.end))
        path = f"staying at the {start}" if start == end else f"from the {start} to the {end}"
        return f"{path}, {_TRENDS[self.trend]}"


def sentence(phenomenon: str, variant: str, colours: tuple[str, ...]) -> str:
    """An event in the one wording that answers use: the first held-out sentence of the captions' grammar."""
    return TEMPLATES[phenomenon, variant][1][0].format(*colours)


def questions_and_answers(scenario: Scenario, courses: list[Course]) -> dict[str, str]:
    """Everything the model is asked about a clip, and what it must say."""
    names = [phenomena.by_id(event.phenomenon) for event in scenario.events]
    answers = {
        BACKGROUND_QUESTION: f"a {scenario.setting} scene with {' and '.join(e.variant for e in scenario.events)}",
        WHICH_QUESTION: " and ".join(phenomenon.name for phenomenon in names),
    }
    for phenomenon, event, course in zip(names, scenario.events, courses, strict=True):
        said = sentence(event.phenomenon, event.variant, event.colours)
        answers[phenomenon.question] = f"{said} {_PLACES[event.place]}, {course.describe()}"
    return answers


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer of every word that is asked or answered; any other becomes ``<unk>``."""
    texts = [BACKGROUND_QUESTION, WHICH_QUESTION, "a scene with and", *BACKGROUNDS, *_PLACES.values(), *_TRENDS]
    texts += [f"staying at the from to {row} {column}" for row in _ROWS for column in _COLUMNS]
    texts += [text for p in phenomena.PHENOMENA for text in (p.name, p.question)]
    texts += [f"{variant} {sentence(p, variant, (c, c))}" for p, variant in TEMPLATES for c in COLOURS]
    texts += ["system user assistant", *(family.system for family in FAMILIES)]
    split = pre_tokenizers.Split(Regex(r"[^a-z]+"), "removed")
    words = sorted({word for text in texts for word, _ in split.pre_tokenize_str(text.lower())})
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["<unk>", *words])}, unk_token="<unk>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), split
    tokenizer.add_special_tokens(list(_SPECIAL))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token=TURN_END)


def build_vlm(recipe: VlmRecipe, tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLForConditionalGeneration:
    """The stock class with a small configuration and random weights."""
    ids = dict(zip(_SPECIAL, tokenizer.convert_tokens_to_ids(list(_SPECIAL)), strict=True))
    head = recipe.width // recipe.heads
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": recipe.width,
        "intermediate_size": recipe.width,
        "num_hidden_layers": recipe.layers,
        "num_attention_heads": recipe.heads,
        "num_key_value_heads": recipe.heads,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e4,
            "mrope_section": [head // 8, 3 * head // 16, 3 * head // 16],
        },
        "max_position_embeddings": 2048,
        "bos_token_id": None,
        "eos_token_id": ids[TURN_END],
    }
    vision = {
        "depth": recipe.vision_layers,
        "hidden_size": recipe.vision_width,
        "intermediate_size": 2 * recipe.vision_width,
        "num_heads": recipe.vision_width // 32,
        "out_hidden_size": recipe.width,
        "patch_size": PATCH,
        "spatial_merge_size": 1,
        "temporal_patch_size": TEMPORAL,
        "window_size": STAGE.height // 2,  # each token keeps to its own quarter of the frame
        "fullatt_block_indexes": [],
        "tokens_per_second": 2,
    }
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids[VIDEO_TOKEN],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
    )
    config._attn_implementation = "sdpa"
    torch.manual_seed(recipe.seed)
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = ids[TURN_END]
    return model


class Lessons:
    """Rendered clips of a split with their questions and answers, kept on disk so that a resumed run opens at once.

    Attributes:
        frames: uint8 ``(n, 8, H, W, 3)``: the frames that the annotator shows.
        answers: for each clip, question -> answer.
    """

    def __init__(self, folder: Path, count: int, split: str) -> None:
        folder = Path(folder) / f"{split}-fps{ANNOTATION.fps:g}"
        folder.mkdir(parents=True, exist_ok=True)
        blocks = []
        for start in tqdm(range(0, count, _BLOCK), f"render {split}", mininterval=10):
            seeds = range(start, min(start + _BLOCK, count))
            path = folder / f"{start:06d}-{len(seeds)}.npz"
            if not path.exists():
                frames, courses = _render(seeds, split)
                with replacing(path) as temporary, open(temporary, "wb") as file:
                    np.savez(file, frames=frames, courses=courses)
            with np.load(path) as file:
                blocks.append((file["frames"], file["courses"]))
        self.frames = np.concatenate([frames for frames, _ in blocks])[:count]
        courses_n25 = np.concatenate([courses for _, courses in blocks])[:count]
        self.answers = []
        for seed, rows in enumerate(courses_n25.tolist()):
            courses = [Course(tuple(row[:2]), tuple(row[2:4]), row[4]) for row in rows]
            scenario = sample_scenario(seed, split, SCOPE)[0]
            self.answers.append(questions_and_answers(scenario, courses[: len(scenario.events)]))

    def __len__(self) -> int:
        return len(self.answers)


def _render(seeds: range, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The shown frames of clips, and of each clip's first and second event the five numbers of its course."""
    shown = frame_indices(STAGE.frames, STAGE.fps, TEMPORAL, ANNOTATION)
    frames = np.empty((len(seeds), len(shown), STAGE.height, STAGE.height, 3), np.uint8)
    courses = np.ones((len(seeds), 2, 5), np.int64)
    for i, seed in enumerate(seeds):
        clip = sample_clip(seed, split, SCOPE)
        frames[i] = clip.frames[shown]
        for slot, event in enumerate(clip.scenario.events):
            course = Course.of(clip.masks[event.phenomenon])
            courses[i, slot] = (*course.start, *course.end, course.trend)
    return frames, courses


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
        left_out = [None] * len(rows) if generals is None else [_GENERAL[1 - g] for g in generals]
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


def exact_answers(vlm: VisionLanguageModel, lessons: Lessons, clips: int) -> dict[str, float]:
    """Share of answers that are right, every word: generated as the annotator does.

    Returns:
        ``brief``, ``which`` and ``phenomenon`` by kind of question; ``thing``: of the answers about a phenomenon, those
        that name the thing, its colours and what it does, whatever they say of its place.
    """
    right: dict[str, list[bool]] = {"brief": [], "which": [], "phenomenon": [], "thing": []}
    kinds = {BACKGROUND_QUESTION: "brief", WHICH_QUESTION: "which"}
    for row in range(clips):
        clip = _packed(vlm, lessons.frames[row])
        asked = lessons.answers[row]
        said = answer_questions(vlm, read_video(vlm, clip), list(asked), ANNOTATION)
        for (question, answer), ids in zip(asked.items(), said, strict=True):
            wanted = vlm.tokenizer(answer, add_special_tokens=False)["input_ids"]
            right[kinds.get(question, "phenomenon")].append(ids == wanted)
            if question not in kinds:
                words = len(vlm.tokenizer(_thing(answer), add_special_tokens=False)["input_ids"])
                right["thing"].append(ids[:words] == wanted[:words])
    return {kind: round(float(np.mean(values)), 4) for kind, values in right.items()}


def _thing(answer: str) -> str:
    """An answer about a phenomenon without where it is."""
    return next(answer.split(f" {place},")[0] for place in _PLACES.values() if f" {place}," in answer)


def _packed(vlm: VisionLanguageModel, frames_FHW3: np.ndarray) -> PackedClip:
    patches, patch_grid = pack_frames(frames_FHW3, vlm.sizes, vlm.family)
    shown = frame_indices(STAGE.frames, STAGE.fps, TEMPORAL, ANNOTATION)
    return PackedClip(patches, patch_grid, patch_grid, tuple(shown.tolist()), STAGE.frames, STAGE.fps)


def build_optimiser(model: nn.Module, recipe: VlmRecipe) -> MuonAdamW:
    """Muon for the matrices inside blocks and layers, AdamW for the rest."""
    named = dict(model.named_parameters())
    inner = {n: p for n, p in named.items() if p.ndim == 2 and any(part in n for part in ("blocks.", "layers."))}
    others = [p for name, p in named.items() if name not in inner]
    return MuonAdamW(list(inner.values()), others, recipe.muon_rate, recipe.adamw_rate, recipe.weight_decay)


def train_vlm(
    work: Path,
    recipe: VlmRecipe,
    device: torch.device,
    minutes: float | None = None,
    checkpoint_every: int = 200,
) -> Path:
    """Train until the recipe's end or for ``minutes``, resuming exactly from ``work/vlm``; saves model and tokenizer in
    ``work/model``.

    Raises:
        ValueError: the folder holds the training of another recipe. One line.
        TrainingStopped: the loss is no longer a number.
    """
    work = Path(work)
    tokenizer = build_tokenizer()
    model = build_vlm(recipe, tokenizer).to(device)
    vlm = VisionLanguageModel(model, tokenizer)
    ema = Ema(model, recipe.ema)
    lessons = Lessons(work / "lessons", recipe.clips, "train")
    held_out = Lessons(work / "lessons", _HELD_OUT, "test")
    batches = Batches(vlm)
    words = Words(tokenizer, lessons)
    precision = getattr(torch, recipe.precision)

    def loss_at(step: int) -> torch.Tensor:
        rng = np.random.default_rng([recipe.seed, step])
        rows, generals = rng.integers(0, len(lessons), recipe.batch), rng.integers(0, 2, recipe.batch)
        batch = batches.make(lessons, rows, generals).to(device)
        if step < recipe.tower_steps:
            return tower_loss(model, batch, words, rows, precision)
        return vlm_loss(model, batch, precision)

    def measure(step: int) -> dict[str, float]:
        if step <= recipe.tower_steps:
            return {}
        return exact_answers(vlm, held_out, len(held_out) if step == recipe.total_steps else min(12, len(held_out)))

    fit(
        model,
        loss_at,
        build_optimiser(model, recipe),
        steps=recipe.total_steps,
        name="vlm",
        share_of_peak=recipe.share_of_peak,
        recipe=recipe,
        folder=work / "vlm",
        ema=ema,
        minutes=minutes,
        measure=measure,
        checkpoint_every=checkpoint_every,
    )
    with ema.averaged():
        model.save_pretrained(work / "model")
    tokenizer.save_pretrained(work / "model")
    (work / "model" / CONFIG_FILE).write_text(json.dumps(asdict(ANNOTATION), indent=2) + "\n")
    return work / "model"


def main(argv: list[str]) -> None:
    parser = stage_parser("vlm", __doc__)
    parser.set_defaults(work=Path("runs/tiny-vlm"))
    parser.add_argument("--clips", type=whole, default=VlmRecipe.clips, help="training clips to render")
    parser.add_argument("--steps", type=whole, default=VlmRecipe.steps, help="training steps after the tower's own")
    args = parser.parse_args(argv)
    recipe = VlmRecipe(clips=args.clips, steps=args.steps)
    train_vlm(args.work, recipe, chosen_device(args.device), args.minutes)
