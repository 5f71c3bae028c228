"""The embedded model's text encoder: a small stock UMT5 encoder and its word-level tokenizer, trained from scratch.

A text encoder learnt only through a video model's loss learns slowly. This one first learns to *understand* captions:
three learned queries (what is in the centre, on the left, on the right?) attend to its output and must name the
phenomenon and the colours there. The queries are thrown away; the encoder is kept.

    prophy tiny text --work runs/tiny
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from prophy.data.encode import encode_text
from prophy.phenomena import IDS, by_id
from prophy.tiny.parts import finish_parts, stage_parser
from prophy.training.devices import chosen_device
from prophy.training.fit import fit
from prophy.training.optim import OneCycleAdamW
from prophy.worlds import COLOURS, Scenario, sample_scenario

log = logging.getLogger(__name__)

MAX_WORDS = 48  #: longest prompt, tokens; the longest caption of the worlds has 40
PLACES = ("centre", "left", "right")
#: Per head, how fast attention falls with distance at the start: binding "left" to its event needs neighbours first.
_LOCALITY = (0.0, 0.15, 0.4, 1.0)


@dataclass(frozen=True)
class TextRecipe:
    """How the text encoder is trained."""

    steps: int = 2500
    batch: int = 64
    width: int = 192
    layers: int = 3
    heads: int = 4
    learning_rate: float = 1e-3  # twice as much never learns to tell two events apart
    vocabulary_captions: int = 60000
    word_dropout: float = 0.05
    seed: int = 0


def build_tokenizer(captions: list[str]) -> PreTrainedTokenizerFast:
    """A word-level tokenizer of every word in ``captions``; any other word becomes ``<unk>``."""
    split = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"[^a-z]+"), "removed")])
    normal = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    words = sorted({w for text in captions for w, _ in split.pre_tokenize_str(normal.normalize_str(text))})
    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normal, split
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=MAX_WORDS,
        padding_side="right",
    )


def build_text_encoder(vocabulary: int, recipe: TextRecipe) -> UMT5EncoderModel:
    """A small stock UMT5 encoder."""
    config = UMT5Config(
        vocab_size=vocabulary,
        d_model=recipe.width,
        d_kv=recipe.width // recipe.heads,
        d_ff=2 * recipe.width,
        num_layers=recipe.layers,
        num_heads=recipe.heads,
        relative_attention_num_buckets=32,
        relative_attention_max_distance=48,
        dropout_rate=0.05,
        pad_token_id=0,
        eos_token_id=1,
        is_encoder_decoder=False,
        use_cache=False,
    )
    encoder = UMT5EncoderModel(config)
    with torch.no_grad():
        for block in encoder.encoder.block:
            bias = block.layer[0].SelfAttention.relative_attention_bias.weight  # (buckets, heads)
            distance = torch.arange(len(bias)) % (len(bias) // 2)
            bias.copy_(-distance[:, None] * torch.tensor(_LOCALITY[: recipe.heads]))
    return encoder


class _PlaceReader(nn.Module):
    """Asks the encoder's output what is at each place: a phenomenon, two colours, each possibly none."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(len(PLACES), 2, width) * width**-0.5)
        self.key = nn.Linear(width, width)
        self.phenomenon = nn.Linear(2 * width, len(IDS) + 1)
        self.colours = nn.ModuleList(nn.Linear(2 * width, len(COLOURS) + 1) for _ in range(2))

    def forward(self, text_BLD: torch.Tensor, mask_BL: torch.Tensor) -> list[torch.Tensor]:
        score = torch.einsum("pqd,bld->bpql", self.query, self.key(text_BLD))
        weight = score.masked_fill(~mask_BL[:, None, None], -torch.inf).softmax(-1)
        read = torch.einsum("bpql,bld->bpqd", weight, text_BLD).flatten(2)
        return [self.phenomenon(read), *(head(read) for head in self.colours)]


def answers(scenario: Scenario) -> np.ndarray:
    """What :class:`_PlaceReader` must say: ``(places, 3)`` class indices, 0 for none."""
    table = np.zeros((len(PLACES), 3), np.int64)
    names = list(COLOURS)
    for event in scenario.events:
        row = table[PLACES.index(event.place)]
        row[0] = 1 + by_id(event.phenomenon).index
        for i, colour in enumerate(event.colours):
            row[1 + i] = 1 + names.index(colour)
    return table


def _examples(split: str, seeds: range, tokenizer: PreTrainedTokenizerFast) -> tuple[torch.Tensor, torch.Tensor]:
    pairs = [sample_scenario(seed, split) for seed in seeds]
    ids = tokenizer([text for _, text in pairs], padding="max_length", truncation=True, return_tensors="pt").input_ids
    return ids, torch.from_numpy(np.stack([answers(scenario) for scenario, _ in pairs]))


def train_text(
    work: Path,
    recipe: TextRecipe,
    device: torch.device,
    minutes: float | None = None,
    checkpoint_every: int = 500,
) -> dict[str, float] | None:
    """Train tokenizer and encoder, resuming from ``work/text``, and save them under ``work/model``.

    Returns:
        The share of captions read exactly, by split; None if the time ended first.

    Raises:
        ValueError: the folder holds the training of another recipe. One line.
        TrainingStopped: the loss is no longer a number.
    """
    torch.manual_seed(recipe.seed)
    captions = [sample_scenario(seed)[1] for seed in range(recipe.vocabulary_captions)]
    tokenizer = build_tokenizer(captions)
    encoder = build_text_encoder(len(tokenizer), recipe)
    reader = _PlaceReader(recipe.width)
    model = nn.ModuleDict({"encoder": encoder, "reader": reader}).to(device).train()

    def loss_at(step: int) -> torch.Tensor:
        ids, target = _examples("train", range(step * recipe.batch, (step + 1) * recipe.batch), tokenizer)
        drop = (torch.rand(ids.shape) < recipe.word_dropout) & (ids > 2)
        ids = ids.masked_fill(drop, 2).to(device)  # <unk> is seen in training, so that an unknown word does little harm
        target = target.to(device)
        logits = reader(encode_text(encoder, ids), ids.ne(0))
        return sum(nn.functional.cross_entropy(x.flatten(0, 1), target[..., i].flatten()) for i, x in enumerate(logits))

    made = fit(
        model,
        loss_at,
        OneCycleAdamW(
            list(model.parameters()),
            recipe.learning_rate,
            steps=recipe.steps,
            warm_up=0.1,
            weight_decay=0.01,
            beta=0.98,
        ),
        steps=recipe.steps,
        name="text",
        recipe=recipe,
        folder=work / "text",
        minutes=minutes,
        checkpoint_every=checkpoint_every,
    )
    if made < recipe.steps:
        return None
    model.cpu().eval()
    exact = {}
    for split in ("test", "wordings", "combinations"):
        ids, target = _examples(split, range(1000), tokenizer)
        with torch.no_grad():
            logits = reader(encode_text(encoder, ids), ids.ne(0))
        said = torch.stack([x.argmax(-1) for x in logits], -1)
        exact[split] = float((said == target).flatten(1).all(1).float().mean())
    tokenizer.save_pretrained(work / "model" / "tokenizer")
    encoder.save_pretrained(work / "model" / "text_encoder")
    finish_parts(work / "model")
    (work / "text-result.json").write_text(json.dumps({"exact": exact, "recipe": asdict(recipe)}, indent=2))
    log.info("captions read exactly: %s", exact)
    return exact


def main(argv: list[str]) -> None:
    args = stage_parser("text", __doc__).parse_args(argv)
    train_text(args.work, TextRecipe(), chosen_device(args.device), args.minutes)
