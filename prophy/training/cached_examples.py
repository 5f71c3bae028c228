"""Two more training sets: the sharded cache of any pipeline (``prophy.data.cache``), and clips encoded when read.

Shapes: C latent channels, T latent frames, H height, W width, F video frames, L text length, D text width.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from prophy.data.cache import EMPTY_TEXT
from prophy.data.examples import Example, Examples
from prophy.files import check_file, replacing, sha256, some_of
from prophy.phenomena import IDS

log = logging.getLogger(__name__)

Tensors = Mapping[str, torch.Tensor]


class CacheEntry(Protocol):
    """See ``prophy.data.cache.Entry``."""

    @property
    def id(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def tensors(self) -> dict[str, tuple[str, tuple[int, ...]]]: ...


class Cache(Protocol):
    """See ``prophy.data.cache.TensorCache``: entries of ``latents``, ``text``, and, if annotated, ``targets`` and
    ``labelled``."""

    @property
    def recipe(self) -> Mapping[str, object]: ...
    def entries(self) -> Sequence[CacheEntry]: ...
    def missing(self) -> list[str]: ...
    def read(self, key: str) -> Tensors: ...


class CachedExamples(Examples):
    """The present clips of a cache, in the order of their ids. Those that should be there and are not are named once.

    Args:
        cache: opened.
        empty_text_LD: embeddings of the empty prompt, by the text encoder that the cache was made with.

    Raises:
        ValueError: an empty cache, or entries that lack latents or text.
    """

    def __init__(self, cache: Cache, empty_text_LD: torch.Tensor) -> None:
        self._cache, self._entries = cache, cache.entries()
        if not self._entries:
            raise ValueError("the cache holds no clips: run prophy cache fill first")
        for entry in self._entries:
            if missing := {"latents", "text"} - entry.tensors.keys():
                raise ValueError(f"{entry.id} lacks {', '.join(sorted(missing))} in the cache: fill it again")
        if lacking := cache.missing():
            log.warning("%d clips are not in the cache: %s; see prophy cache verify", len(lacking), some_of(lacking))
        keys = json.dumps([entry.key for entry in self._entries])
        self.fingerprint = f"cache {sha256(keys)[:16]} of {len(self._entries)}"
        self.empty_text_LD = empty_text_LD.float()

    def __len__(self) -> int:
        return len(self._entries)

    def latent_size(self, index: int) -> tuple[int, int, int]:
        _, (_, frames, height, width) = self._entries[index].tensors["latents"]
        return frames, height, width

    def example(self, index: int, wording: int) -> Example:
        entry = self._entries[index]
        tensors = self._cache.read(entry.key)
        annotated = "targets" in tensors
        return Example(
            key=entry.id,
            latents_CTHW=tensors["latents"],
            text_LD=tensors["text"],
            labels_P=tensors["labelled"].float() if annotated else torch.zeros(len(IDS)),
            targets_NP=tensors["targets"].float() if annotated else None,
        )


def keep_empty_text(folder: Path, recipe: Mapping[str, object], text_LD: torch.Tensor, encoders: str = "") -> None:
    """Keep the embeddings of the empty prompt beside a cache: the text encoder may be the largest part of all.

    Args:
        folder: of the cache.
        recipe: of the cache; kept text of another recipe is not read again.
        text_LD: by the text encoder that the recipe names.
        encoders: digest of that encoder's files and the autoencoder's; empty where they are not known.
    """
    with replacing(folder / EMPTY_TEXT, shared=True) as temporary:
        noted = {"recipe": _digest(recipe), "encoders": encoders}
        save_file({"text": text_LD.cpu().contiguous()}, temporary, noted)


class EmptyText(NamedTuple):
    """What :func:`keep_empty_text` kept: embeddings ``(L, D)``, and the digest of what made them."""

    text_LD: torch.Tensor
    encoders: str


def kept_empty_text(folder: Path, recipe: Mapping[str, object]) -> EmptyText | None:
    """What :func:`keep_empty_text` kept for this recipe; None where there is none, or it is damaged."""
    try:
        with safe_open(check_file(folder / EMPTY_TEXT), "pt") as file:
            noted = file.metadata() or {}
            if noted.get("recipe") != _digest(recipe):
                return None
            text_LD = file.get_tensor("text").clone()  # the file may be written anew
    except (OSError, ValueError, SafetensorError):
        return None
    if text_LD.ndim != 2 or not text_LD.isfinite().all():
        return None
    return EmptyText(text_LD, noted.get("encoders", ""))


def _digest(recipe: Mapping[str, object]) -> str:
    return sha256(json.dumps(dict(recipe), sort_keys=True))


class SourceClip(Protocol):
    """A clip that is not encoded yet.

    Attributes:
        id: names it in messages.
        captions: one at least.
        labels: ids of its phenomena.
    """

    @property
    def id(self) -> str: ...
    @property
    def captions(self) -> tuple[str, ...]: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    def read(self) -> np.ndarray: ...


class FreshExamples(Examples):
    """Clips that are encoded as they are read, for a set that is seen once or twice. No token targets.

    Args:
        clips: all of one size.
        encode_clip: uint8 RGB frames ``(F, H, W, 3)`` to latents as the transformer takes them, ``(C, T, h, w)``.
        encode_caption: a caption to its embeddings ``(L, D)``; of ``""`` too.
        latent_size: (T, h, w) of every clip.
        fingerprint: see :class:`prophy.data.examples.Examples`.
    """

    def __init__(
        self,
        clips: Sequence[SourceClip],
        encode_clip: Callable[[np.ndarray], torch.Tensor],
        encode_caption: Callable[[str], torch.Tensor],
        latent_size: tuple[int, int, int],
        fingerprint: str,
    ) -> None:
        self._clips, self._encode_clip, self._encode_caption = clips, encode_clip, encode_caption
        self._size, self.fingerprint = latent_size, fingerprint
        self.empty_text_LD = encode_caption("").float().cpu()

    def __len__(self) -> int:
        return len(self._clips)

    def latent_size(self, index: int) -> tuple[int, int, int]:
        return self._size

    @torch.no_grad()
    def example(self, index: int, wording: int) -> Example:
        clip = self._clips[index]
        return Example(
            key=clip.id,
            latents_CTHW=self._encode_clip(clip.read()).cpu(),
            text_LD=self._encode_caption(clip.captions[wording % len(clip.captions)]).cpu(),
            labels_P=torch.tensor([float(name in clip.labels) for name in IDS]),
            targets_NP=None,
        )
