"""What a tokenizer makes of a text: the words it has never seen, and texts that the model cannot read.

One rule for prompts and captions: a text longer than the model reads is never cut. It is counted and named before
anything starts: a prompt is refused, and so is a whole set of prompts; of a data set the clip is left out.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import regex
from tokenizers.models import WordLevel

from prophy.catalogue.limits import LONGEST_PROMPT_TOKENS
from prophy.generation.settings import GenerationError
from prophy.routing.attention import MAX_WORD_CHARS, MAX_WORDS, Words
from prophy.runs.record import MAX_UNKNOWN_WORDS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


#: Words that say nothing of what happens: a prompt that the model knows only by these would be made up.
# fmt: off
FUNCTION_WORDS = frozenset((
    "a", "across", "along", "an", "and", "apart", "are", "as", "at", "away", "back", "below", "between", "by", "down",
    "each", "from", "in", "into", "is", "it", "its", "of", "off", "on", "onto", "other", "out", "over", "someone",
    "that", "the", "then", "there", "they", "this", "through", "to", "two", "under", "up", "while", "with",
))
# fmt: on


#: Signs stand with their letters: without them re tears words of Hindi, Thai or Arabic apart.
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+")
_JOINED = regex.compile(r"[\p{L}\p{M}\p{N}]+(?:['’-][\p{L}\p{M}\p{N}]+)*")
#: scripts whose words stand without spaces between them
_UNSPACED = regex.compile(r"(?:[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー]\p{M}*)+")


def known_words(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Every word of a word-level tokenizer, sorted. Empty for a tokenizer of pieces, which can spell anything."""
    if not _is_word_level(tokenizer):
        return ()
    return tuple(sorted(set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)))


def unknown_words(tokenizer: PreTrainedTokenizerBase, prompt: str) -> tuple[str, ...]:
    """Words of the prompt that the tokenizer maps to its unknown token or drops, lower-case, in order, each once.

    Empty for a tokenizer of pieces. Of what is written without spaces, such as Chinese, all up to the next mark is one
    word: a word-level tokenizer has no other. Long words are cut, and after a thousand the rest is left out, as a run's
    record keeps no more.
    """
    if not _is_word_level(tokenizer):
        return ()
    unknown = (word for word in _words_of(prompt) if not _is_known(tokenizer, word))
    return tuple(dict.fromkeys(word[:MAX_WORD_CHARS] for word in unknown))[:MAX_UNKNOWN_WORDS]


def too_long(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], text_tokens: int) -> dict[str, int]:
    """The texts that the model would cut, and how many tokens each has; arguments as for :func:`check_prompt`."""
    limit = min(tokenizer.model_max_length, text_tokens)
    counts = {text: len(tokenizer(text, truncation=False, verbose=False).input_ids) for text in dict.fromkeys(texts)}
    return {text: count for text, count in counts.items() if count > limit}


def check_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str, text_tokens: int = LONGEST_PROMPT_TOKENS) -> None:
    """Refuse a prompt that the model would cut or cannot read at all.

    Args:
        tokenizer: the model's.
        prompt: plain words.
        text_tokens: how many the model reads, see :class:`prophy.catalogue.limits.ClipRules`; the tokenizer may know
            fewer.

    Raises:
        GenerationError: more tokens than the model reads, or no known word but function words.
    """
    if count := too_long(tokenizer, [prompt], text_tokens).get(prompt):
        limit = min(tokenizer.model_max_length, text_tokens)
        raise GenerationError(f"the prompt is {count} tokens long and the model reads {limit}: shorten it")
    known = [word for word in _words_of(prompt) if _is_word_level(tokenizer) and _is_known(tokenizer, word)]
    if _is_word_level(tokenizer) and FUNCTION_WORDS.issuperset(known):
        some = ", ".join([word for word in known_words(tokenizer) if len(word) > 3][:8])
        what = f"of this prompt only {', '.join(dict.fromkeys(known))}" if known else "no word of this prompt"
        raise GenerationError(f"the model knows {what}: it was trained on a small vocabulary ({some}, …)")


def words_in(tokenizer: PreTrainedTokenizerBase, prompt: str) -> Words:
    """The words of a prompt whose attention can be recorded, and where their tokens stand in the encoded text.

    Words that the tokenizer drops are left out, and so are those after the first
    :data:`~prophy.routing.attention.MAX_WORDS`. Of what is written without spaces, such as Chinese, each piece of the
    tokenizer counts as a word: what the model reads there.

    Args:
        tokenizer: the model's.
        prompt: as typed; cleaned here as the pipeline cleans it.

    Raises:
        GenerationError: the tokenizer does not say where its tokens come from.
    """
    from diffusers.pipelines.wan.pipeline_wan import prompt_clean

    text = prompt_clean(prompt)
    if not tokenizer.is_fast or tokenizer.padding_side != "right":
        raise GenerationError("this model's tokenizer does not say which token is of which word: record no attention")
    spans = tokenizer(text, return_offsets_mapping=True, verbose=False).offset_mapping
    found: list[tuple[str, tuple[int, ...]]] = []
    for first, last in _spans(text, spans):
        tokens = tuple(i for i, (start, end) in enumerate(spans) if start < last and end > first)
        if tokens:
            found.append((text[first:last][:MAX_WORD_CHARS], tokens))
    kept = found[:MAX_WORDS]
    return Words(tuple(word for word, _ in kept), tuple(tokens for _, tokens in kept))


def _words_of(prompt: str) -> list[str]:
    """As :func:`unknown_words` judges them, lower-case, in order, each once."""
    plain = unicodedata.normalize("NFKC", prompt).lower()
    return list(dict.fromkeys(_WORD.findall(regex.sub(r"['’]s\b", "", plain))))


def _spans(text: str, tokens: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Where each word of :func:`words_in` begins and ends, in order."""
    for word in _JOINED.finditer(text):
        at = word.start()
        for run in _UNSPACED.finditer(text, word.start(), word.end()):
            if at < run.start():
                yield at, run.start()
            inside = {(max(start, run.start()), min(end, run.end())) for start, end in tokens}
            yield from _joined(sorted((start, end) for start, end in inside if start < end))
            at = run.end()
        if at < word.end():
            yield at, word.end()


def _joined(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Sorted spans, those that overlap as one: a character's bytes, or the sign that stands for a space before it."""
    first, last = 0, 0
    for start, end in spans:
        if start < last:
            last = max(last, end)
            continue
        if first < last:
            yield first, last
        first, last = start, end
    if first < last:
        yield first, last


def _is_word_level(tokenizer: PreTrainedTokenizerBase) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend is not None and isinstance(backend.model, WordLevel)


def _is_known(tokenizer: PreTrainedTokenizerBase, word: str) -> bool:
    ids = tokenizer(word, add_special_tokens=False).input_ids
    return bool(ids) and tokenizer.unk_token_id not in ids
