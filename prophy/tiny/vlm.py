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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from prophy.annotation.answering import answer_questions, read_video
from prophy.annotation.clips import PackedClip, frame_indices, pack_frames
from prophy.annotation.config import BACKGROUND_QUESTION, CONFIG_FILE
from prophy.annotation.families import TURN_END, VIDEO_TOKEN
from prophy.annotation.vlm import VisionLanguageModel
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
from prophy.tiny.parts import stage_parser
from prophy.tiny.vlm_batches import Batches, Words, tower_loss, vlm_loss
from prophy.tiny.vlm_lessons import (
    ANNOTATION,
    SPECIAL,
    STAGE,
    TEMPORAL,
    WHICH_QUESTION,
    Lessons,
    build_tokenizer,
    thing,
)
from prophy.training.devices import chosen_device
from prophy.training.ema import Ema
from prophy.training.fit import fit
from prophy.training.optim import MuonAdamW

PATCH = 8  #: pixels on a side of a video token: tokens lie as those of the embedded video model do
_HELD_OUT = 50  # clips of the test split that answers are checked on


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
    precision: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.total_steps < 1:
            raise ValueError("tower_steps=0 and steps=0 leave nothing to train")

    @property
    def total_steps(self) -> int:
        return self.tower_steps + self.steps

    def share_of_peak(self, step: int) -> float:
        """Which share of the peak rates a step uses."""
        first, last = (0, self.tower_steps) if step < self.tower_steps else (self.tower_steps, self.total_steps)
        return min(1.0, (step + 1 - first) / self.warm_up, (last - step) / self.cool_down)


def build_vlm(recipe: VlmRecipe, tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLForConditionalGeneration:
    """The stock class with a small configuration and random weights."""
    ids = dict(zip(SPECIAL, tokenizer.convert_tokens_to_ids(list(SPECIAL)), strict=True))
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
                words = len(vlm.tokenizer(thing(answer), add_special_tokens=False)["input_ids"])
                right["thing"].append(ids[:words] == wanted[:words])
    return {kind: round(float(np.mean(values)), 4) for kind, values in right.items()}


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

    optimiser = build_optimiser(model, recipe)
    fit(
        model,
        loss_at,
        optimiser,
        steps=recipe.total_steps,
        name="vlm",
        pace=lambda step: optimiser.set_rate(recipe.share_of_peak(step)),
        recipe=recipe,
        folder=work / "vlm",
        ema=ema,
        minutes=minutes,
        measure=measure,
        checkpoint_every=checkpoint_every,
        data=lessons.drawn,
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
