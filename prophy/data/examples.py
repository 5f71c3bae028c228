"""What a training learns from: the protocol between data sets and the trainer.

Shapes: C latent channels, T latent frames, H height, W width, L text length, D text width, N tokens, P phenomena.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

CONTENT, TEXT, DRAWN = ", content ", ", text ", ", drawn "  #: in a fingerprint


@dataclass(frozen=True)
class Example:
    """One encoded clip.

    Attributes:
        key: names the clip in messages.
        latents_CTHW: the clean latent as the transformer works on it (normalised), float16 or float32.
        text_LD: the prompt's embeddings as the pipeline passes them on, padded to one length for the whole set.
        labels_P: multi-hot phenomena, float32.
        targets_NP: token targets, float32, zero or negative: not here; None where nobody annotated the clip.
    """

    key: str
    latents_CTHW: torch.Tensor
    text_LD: torch.Tensor
    labels_P: torch.Tensor
    targets_NP: torch.Tensor | None


class Examples(ABC):
    """A set of encoded clips, the same at every opening.

    Attributes:
        fingerprint: changes when the clips, their order, their captions or what encoded them change. What follows
            :data:`CONTENT` in it is a digest of files, what follows :data:`TEXT` one of the text encoder, where the set
            does not keep what that made, and what follows :data:`DRAWN` one of what the worlds drew; releases before
            recorded only what precedes.
        empty_text_LD: embeddings of the empty prompt.
    """

    fingerprint: str
    empty_text_LD: torch.Tensor

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def latent_size(self, index: int) -> tuple[int, int, int]:
        """(T, H, W) of a clip's latent, without reading it: clips of one size share batches."""

    @abstractmethod
    def example(self, index: int, wording: int) -> Example:
        """Read a clip. ``wording``: caption index, modulo the number of captions."""

    def read(self, indices: Sequence[int], wordings: Sequence[int]) -> list[Example]:
        """Read the clips of a batch; see :meth:`example`."""
        return [self.example(index, wording) for index, wording in zip(indices, wordings, strict=True)]


class FirstFrames(Examples):
    """The first latent frames of every clip of another set.

    Args:
        examples: the other set.
        frames: latent frames that are kept; 1 leaves stills.

    Raises:
        ValueError: a clip that is shorter.
    """

    def __init__(self, examples: Examples, frames: int) -> None:
        self._examples, self._frames = examples, frames
        shortest = min(examples.latent_size(index)[0] for index in range(len(examples)))
        if shortest < frames:
            raise ValueError(f"latent_frames={frames}, and a clip has {shortest}: lower latent_frames")
        self.fingerprint = examples.fingerprint
        self.empty_text_LD = examples.empty_text_LD

    def __len__(self) -> int:
        return len(self._examples)

    def latent_size(self, index: int) -> tuple[int, int, int]:
        return (self._frames, *self._examples.latent_size(index)[1:])

    def example(self, index: int, wording: int) -> Example:
        return self.read([index], [wording])[0]

    def read(self, indices: Sequence[int], wordings: Sequence[int]) -> list[Example]:
        return [self._cut(example) for example in self._examples.read(indices, wordings)]

    def _cut(self, example: Example) -> Example:
        targets = example.targets_NP
        if targets is not None:
            targets = targets[: len(targets) // example.latents_CTHW.shape[1] * self._frames]
        return replace(example, latents_CTHW=example.latents_CTHW[:, : self._frames], targets_NP=targets)


def on_latents(share_BN: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """A value of each token on each latent position: tokens are square patches of latent cells."""
    frames, height, width = size
    if share_BN.shape[1] == 1:
        return share_BN.new_zeros(len(share_BN), *size)
    patch = math.isqrt(frames * height * width // share_BN.shape[1])
    tokens = share_BN.view(-1, frames, height // patch, width // patch)
    return tokens.repeat_interleave(patch, 2).repeat_interleave(patch, 3)
