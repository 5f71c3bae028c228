"""The embedded model's text encoder: a small stock UMT5 encoder and its word-level tokenizer, trained from scratch.

A text encoder learnt only through a video model's loss learns slowly. This one first learns to *understand* captions:
learned queries (what is in the centre, on the left, on the right? in which setting?) attend to its output and must name
the scene there, its colours and its number, as far as the caption says them. Every word must know the same about the
event that it helps to tell, which teaches the encoder to keep two events apart. The queries are thrown away; the
encoder is kept.

    prophy tiny text --work runs/tiny                     # the captions of the first generation
    prophy tiny text --work runs/plain --grammar plain    # plain words, as visitors type them
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from prophy.data.encode import encode_text
from prophy.schema import AtLeastOne, BatchSize, LearningRate, Seed, Share, ShareBelowOne, Width, check_fields
from prophy.tiny.parts import finish_parts, stage_parser
from prophy.training.devices import chosen_device
from prophy.training.fit import fit
from prophy.training.optim import OneCycleAdamW
from prophy.worlds import COLOURS, EVENTS
from prophy.worlds.language import GRAMMARS, Telling
from prophy.worlds.language.visitors import HELD_OUT, WIDENING, PlainPrompt
from prophy.worlds.sample import sample_telling
from prophy.worlds.stage import BACKGROUNDS

log = logging.getLogger(__name__)

_POOL = 16  #: steps whose captions are drawn at once
MAX_WORDS = 48  #: longest prompt, tokens; the longest caption of the worlds has 47
PLACES = ("centre", "left", "right")
SCENES = tuple((phenomenon, kind.variant) for phenomenon, kinds in EVENTS.items() for kind in kinds)

#: What is asked about each place, and how many answers there are: 0 is always "none" or "not said".
_PLACE_ANSWERS = {"scene": 1 + len(SCENES), "colour": 1 + len(COLOURS), "second colour": 1 + len(COLOURS), "number": 3}
_SETTING_ANSWERS = 1 + len(BACKGROUNDS)
#: What is asked about each word: the place of its event (none, one of three, both), then the same as of places.
_WORD_ANSWERS = (2 + len(PLACES), *_PLACE_ANSWERS.values())
_OPEN = -100  #: no answer is asked for: cross-entropy leaves it out

#: Per head, how fast attention falls with distance at the start: binding "left" to its event needs neighbours first.
_LOCALITY = (0.0, 0.15, 0.4, 1.0)


@dataclass(frozen=True)
class TextRecipe:
    """How the text encoder is trained.

    Attributes:
        grammar: the name of one of :data:`prophy.worlds.language.GRAMMARS`.
        twins: share of the captions of two events that tell one scene twice.
    """

    grammar: str = "first"
    twins: Share = 0.0
    steps: AtLeastOne = 2500
    batch: BatchSize = 64
    width: Width = 192
    layers: Width = 3
    heads: Width = 4
    learning_rate: LearningRate = 1e-3  # twice as much never learns to tell two events apart
    vocabulary_captions: AtLeastOne = 60000
    word_dropout: ShareBelowOne = 0.05
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.grammar not in GRAMMARS:
            raise ValueError(f"grammar={self.grammar!r} is unknown: use one of {', '.join(GRAMMARS)}")
        if self.heads > len(_LOCALITY) or self.width % self.heads:
            raise ValueError(f"heads={self.heads}: give at most {len(_LOCALITY)} that divide a width of {self.width}")


#: The recipe of each grammar.
RECIPES = {"first": TextRecipe(), "plain": TextRecipe("plain", twins=0.12, steps=6000, vocabulary_captions=100000)}


def build_tokenizer(captions: list[str]) -> PreTrainedTokenizerFast:
    """A word-level tokenizer of every word and number in ``captions``; any other becomes ``<unk>``."""
    split = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"[^a-z0-9]+"), "removed")])
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


class _Reader(nn.Module):
    """Asks the encoder's output what is at each place and in which setting; each answer may be none."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(len(PLACES) + 1, 2, width) * width**-0.5)
        self.key = nn.Linear(width, width)
        self.at_place = nn.ModuleList(nn.Linear(2 * width, answers) for answers in _PLACE_ANSWERS.values())
        self.setting = nn.Linear(2 * width, _SETTING_ANSWERS)
        self.of_word = nn.ModuleList(nn.Linear(width, answers) for answers in _WORD_ANSWERS)

    def forward(self, text_BLD: torch.Tensor, mask_BL: torch.Tensor) -> list[torch.Tensor]:
        """Logits of every answer, each ``(B, its classes)``, in the order of :func:`answers`."""
        score = torch.einsum("pqd,bld->bpql", self.query, self.key(text_BLD))
        weight = score.masked_fill(~mask_BL[:, None, None], -torch.inf).softmax(-1)
        read = torch.einsum("bpql,bld->bpqd", weight, text_BLD).flatten(2)
        placed = [head(read[:, place]) for place in range(len(PLACES)) for head in self.at_place]
        return [*placed, self.setting(read[:, -1])]

    def words(self, text_BLD: torch.Tensor) -> list[torch.Tensor]:
        """Logits of every answer of every word, each ``(B, L, its classes)``, in the order of :func:`word_answers`."""
        return [head(text_BLD) for head in self.of_word]


def answers(telling: Telling) -> np.ndarray:
    """What :class:`_Reader` must say: class indices, four for each place and one for the setting."""
    table = np.zeros((len(PLACES), len(_PLACE_ANSWERS)), np.int64)
    names = list(COLOURS)
    for event in telling.events:
        row = table[PLACES.index(event.place)]
        row[0] = 1 + SCENES.index((event.phenomenon, event.variant))
        for i, colour in enumerate(event.colours):
            row[1 + i] = 0 if colour is None else 1 + names.index(colour)
        row[3] = event.number
    setting = 0 if telling.setting is None else 1 + list(BACKGROUNDS).index(telling.setting)
    return np.append(table, setting)


def word_answers(telling: Telling) -> np.ndarray:
    """What every word must say about its event, ``(words, 5)``; nothing is asked where two events differ."""
    table = answers(telling)[:-1].reshape(len(PLACES), -1)
    rows = np.zeros((len(telling.about), len(_WORD_ANSWERS)), np.int64)
    for row, about in zip(rows, telling.about, strict=True):
        if about:
            said = table[[PLACES.index(place) for place in about]]
            row[0] = 1 + (PLACES.index(about[0]) if len(about) == 1 else len(PLACES))
            row[1:] = np.where((said == said[0]).all(0), said[0], _OPEN)
    return rows


@dataclass(frozen=True)
class _Examples:
    """Captions as tokens, and what is asked about them.

    Attributes:
        ids: ``(B, L)``.
        target: ``(B, 13)``, see :func:`answers`.
        words: ``(B, L, 5)``, see :func:`word_answers`; nothing is asked about padding.
    """

    ids: torch.Tensor
    target: torch.Tensor
    words: torch.Tensor

    def to(self, device: torch.device) -> _Examples:
        return _Examples(self.ids.to(device), self.target.to(device), self.words.to(device))

    def batches(self, size: int, seed: list[int]) -> list[_Examples]:
        """Split into batches of captions of like length, in random order: that saves half of the padding."""
        length = self.ids.ne(0).sum(1)
        rows = length.argsort(stable=True).split(size)
        cut = [(row, int(length[row].max())) for row in rows]
        batches = [_Examples(self.ids[row, :end], self.target[row], self.words[row, :end]) for row, end in cut]
        return [batches[i] for i in np.random.default_rng(seed).permutation(len(batches))]


def _examples(split: str, seeds: range, tokenizer: PreTrainedTokenizerFast, recipe: TextRecipe) -> _Examples:
    grammar = GRAMMARS[recipe.grammar]
    tellings = [sample_telling(seed, split, grammar=grammar, twins=recipe.twins)[1] for seed in seeds]
    texts = [telling.text for telling in tellings]
    ids = tokenizer(texts, padding=True, truncation=True, return_tensors="pt").input_ids
    words = torch.full((*ids.shape, len(_WORD_ANSWERS)), _OPEN)
    for row, telling in zip(words, tellings, strict=True):
        row[: len(telling.about)] = torch.from_numpy(word_answers(telling))
    return _Examples(ids, torch.from_numpy(np.stack([answers(telling) for telling in tellings])), words)


def _loss(encoder: UMT5EncoderModel, reader: _Reader, batch: _Examples, ids: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the answers about places and setting, and of those about words, where any are asked."""
    text = encode_text(encoder, ids)
    of_places = sum(nn.functional.cross_entropy(x, batch.target[:, i]) for i, x in enumerate(reader(text, ids.ne(0))))
    of_words = sum(
        nn.functional.cross_entropy(x.flatten(0, 1), batch.words[..., i].flatten(), ignore_index=_OPEN, reduction="sum")
        for i, x in enumerate(reader.words(text))
    )
    return of_places / len(PLACES) + of_words / ids.ne(0).sum()


@torch.no_grad()
def _read(encoder: UMT5EncoderModel, reader: _Reader, ids: torch.Tensor) -> torch.Tensor:
    return torch.stack([x.argmax(-1) for x in reader(encode_text(encoder, ids), ids.ne(0))], -1)


def _understood(
    encoder: UMT5EncoderModel, reader: _Reader, tokenizer: PreTrainedTokenizerFast, prompts: tuple[PlainPrompt, ...]
) -> dict[str, float]:
    """How well prompts that visitors type are read: the shares of known content words, of phenomena, and of both."""
    prompts = tuple(prompt for prompt in prompts if prompt.events)
    ids = tokenizer([prompt.text for prompt in prompts], padding=True, return_tensors="pt").input_ids
    shares = dict.fromkeys(("known", "phenomena", "phenomena and colours"), 0.0)
    one = 1 / len(prompts)
    for prompt, said in zip(prompts, _read(encoder, reader, ids).tolist(), strict=True):
        places = [said[i : i + len(_PLACE_ANSWERS)] for i in range(0, len(said) - 1, len(_PLACE_ANSWERS))]
        names = list(COLOURS)
        events = [(SCENES[p[0] - 1][0], tuple(names[c - 1] for c in p[1:3] if c)) for p in places if p[0]]
        shares["known"] += all(word in tokenizer.get_vocab() for word in prompt.content_words) * one
        shares["phenomena"] += (sorted(e[0] for e in events) == sorted(e[0] for e in prompt.events)) * one
        shares["phenomena and colours"] += (sorted(events) == sorted(prompt.events)) * one
    return shares


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
    grammar = GRAMMARS[recipe.grammar]
    captions = [
        sample_telling(seed, grammar=grammar, twins=recipe.twins)[1].text for seed in range(recipe.vocabulary_captions)
    ]
    tokenizer = build_tokenizer(captions)
    encoder = build_text_encoder(len(tokenizer), recipe)
    reader = _Reader(recipe.width)
    model = nn.ModuleDict({"encoder": encoder, "reader": reader}).to(device).train()

    @lru_cache(maxsize=1)
    def pool(first: int) -> list[_Examples]:
        """The batches of :data:`_POOL` steps, from step ``first``: the same for a resumed training."""
        seeds = range(first * recipe.batch, (first + _POOL) * recipe.batch)
        return _examples("train", seeds, tokenizer, recipe).batches(recipe.batch, [recipe.seed, first])

    def loss_at(step: int) -> torch.Tensor:
        batch = pool(step - step % _POOL)[step % _POOL]
        drop = (torch.rand(batch.ids.shape) < recipe.word_dropout) & (batch.ids > 2)
        # <unk> is seen in training, so that an unknown word does little harm
        return _loss(encoder, reader, batch.to(device), batch.ids.masked_fill(drop, 2).to(device))

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
        examples = _examples(split, range(1000), tokenizer, recipe)
        exact[split] = float((_read(encoder, reader, examples.ids) == examples.target).all(1).float().mean())
    tokenizer.save_pretrained(work / "model" / "tokenizer")
    encoder.save_pretrained(work / "model" / "text_encoder")
    finish_parts(work / "model")
    visitors = {
        name: _understood(encoder, reader, tokenizer, prompts)
        for name, prompts in (("widening", WIDENING), ("held out", HELD_OUT))
    }
    result = {"exact": exact, "visitors": visitors, "recipe": asdict(recipe)}
    (work / "text-result.json").write_text(json.dumps(result, indent=2))
    log.info("captions read exactly: %s", exact)
    return exact


def main(argv: list[str]) -> None:
    parser = stage_parser("text", __doc__)
    parser.add_argument("--grammar", choices=RECIPES, default="first", help="the captions that it learns to read")
    args = parser.parse_args(argv)
    train_text(args.work, RECIPES[args.grammar], chosen_device(args.device), args.minutes)
