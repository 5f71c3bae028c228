"""Batches of a training: which clips each step sees, and their noise, as a function of seed and step alone.

So nothing about the data has to be saved: a resumed run, on any number of processes, sees what the first would have.

Shapes: B batch, C latent channels, T latent frames, H height, W width, L text length, D text width, N tokens,
P phenomena.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch.utils.data import Dataset

from prophy.data.examples import Example, Examples, FirstFrames, on_latents
from prophy.training.objectives import Objective
from prophy.training.recipe import Recipe

NOISE_LEVELS = (0.2, 0.5, 0.8, 0.95)  #: at which validation losses and localisation are reported
_MOST_WEIGHT = 10.0  # that event_weight adds to a token


@dataclass(frozen=True)
class Batch:
    """Noisy clips and all that is known of them.

    Attributes:
        keys: of the clips.
        noisy_BCTHW: the network's input.
        target_BCTHW: what it should predict.
        timestep_B: as schedulers count.
        text_BLD: prompts; the empty one where the caption was dropped.
        described_B: which clips kept their caption.
        labels_BP: multi-hot phenomena.
        targets_BNP: token targets, zero where there are none.
        annotated_B: which clips have targets.
        weight_BTHW: of each position in the diffusion loss.
        muted_B: the phenomenon whose expert is muted in a clip, or -1; see :mod:`prophy.training.counterfactual`.
    """

    keys: tuple[str, ...]
    noisy_BCTHW: torch.Tensor
    target_BCTHW: torch.Tensor
    timestep_B: torch.Tensor
    text_BLD: torch.Tensor
    described_B: torch.Tensor
    labels_BP: torch.Tensor
    targets_BNP: torch.Tensor
    annotated_B: torch.Tensor
    weight_BTHW: torch.Tensor
    muted_B: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        return self._map(torch.Tensor.pin_memory)

    def _map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "keys"}
        return replace(self, **{name: change(tensor) for name, tensor in tensors.items()})


class Order:
    """Which clips each step sees: every epoch all clips once, in another order, those of a size together.

    The last clips of a size that do not fill a batch wait for another epoch's order.

    Args:
        sizes: of every clip.
        batch: clips in a step.
        seed: of the orders.

    Raises:
        ValueError: fewer clips than a batch holds.
    """

    def __init__(self, sizes: list[tuple[int, int, int]], batch: int, seed: int) -> None:
        self._batch, self._seed = batch, seed
        groups: dict[tuple[int, int, int], list[int]] = {}
        for index, (frames, height, width) in enumerate(sizes):
            groups.setdefault((frames, height, width), []).append(index)
        self._groups = [np.array(groups[size]) for size in sorted(groups) if len(groups[size]) >= batch]
        self.left_out = {size: len(rows) for size, rows in groups.items() if len(rows) < batch}
        self.steps_per_epoch = sum(len(rows) // batch for rows in self._groups)
        if not self.steps_per_epoch:
            most = max(Counter(map(tuple, sizes)).values(), default=0)
            raise ValueError(f"a batch of {batch} clips, and at most {most} of one size: lower batch, or add clips")
        self._epoch, self._batches = -1, np.zeros((0, batch), int)

    def rows(self, step: int) -> np.ndarray:
        """The clips of a step, ``(batch,)``."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            rng = np.random.default_rng([self._seed, 1, epoch])
            shuffled = [rng.permutation(rows) for rows in self._groups]
            whole = [rows[: len(rows) // self._batch * self._batch].reshape(-1, self._batch) for rows in shuffled]
            self._epoch, self._batches = epoch, rng.permutation(np.concatenate(whole))
        return self._batches[position]


@dataclass(frozen=True)
class Share:
    """Which part of a batch a process computes: ``process`` of ``processes``."""

    process: int = 0
    processes: int = 1


class Batches(Dataset):
    """The parts of batches that one process computes, in order: item ``step · accumulation + part``.

    Raises:
        ValueError: the batch does not divide among processes and parts.
    """

    def __init__(self, examples: Examples, recipe: Recipe, objective: Objective, share: Share) -> None:
        parts = share.processes * recipe.accumulation
        if recipe.batch % parts:
            near = max(1, round(recipe.batch / parts)) * parts
            raise ValueError(
                f"batch={recipe.batch} does not divide among {share.processes} processes with {recipe.accumulation} "
                f"parts each: use --set batch={near}, or another number of processes"
            )
        self._examples, self._recipe, self._objective, self._share = examples, recipe, objective, share
        self._stills = FirstFrames(examples, 1) if recipe.stills else examples
        self.order = Order([examples.latent_size(i) for i in range(len(examples))], recipe.batch, recipe.seed)

    def __len__(self) -> int:
        return self._recipe.steps * self._recipe.accumulation

    def __getitem__(self, item: int) -> Batch:
        recipe, share = self._recipe, self._share
        step, part = divmod(item, recipe.accumulation)
        rows = self.order.rows(step)
        size = recipe.batch // (recipe.accumulation * share.processes)
        first = (part * share.processes + share.process) * size
        places = range(first, first + size)
        rngs = [np.random.default_rng([recipe.seed, 2, step, place]) for place in places]
        wordings = [int(rng.integers(2**31)) for rng in rngs]
        shows_stills = np.random.default_rng([recipe.seed, 5, step]).random() < recipe.stills
        source = self._stills if shows_stills else self._examples
        examples = source.read([int(rows[place]) for place in places], wordings)
        drawn = [self._draw(step, *one) for one in zip(places, examples, rngs, strict=True)]
        return _collate(drawn, self._objective, recipe.foreground, recipe.event_weight)

    def _draw(self, step: int, place: int, example: Example, rng: np.random.Generator) -> _Drawn:
        recipe = self._recipe
        described = bool(rng.random() >= recipe.null_share)
        if not described:
            example = replace(example, text_LD=self._examples.empty_text_LD)
        level = recipe.noise.draw(rng)
        noise = rng.standard_normal(example.latents_CTHW.shape, dtype=np.float32)
        muted = -1
        if described and recipe.counterfactual.falls_on(place):
            muted = recipe.counterfactual.choose(example, np.random.default_rng([recipe.seed, 4, step, place]))
        return _Drawn(example, described, level, noise, muted)


def fixed_batch(examples: Examples, indices: Sequence[int], level: float, objective: Objective) -> Batch:
    """Clips of one size at a noise level with their first captions; each clip has the same noise every time."""
    drawn = []
    for index, example in zip(indices, examples.read(indices, [0] * len(indices)), strict=True):
        noise = np.random.default_rng([3, int(index)]).standard_normal(example.latents_CTHW.shape, dtype=np.float32)
        drawn.append(_Drawn(example, True, level, noise))
    return _collate(drawn, objective)


@dataclass(frozen=True)
class _Drawn:
    """A clip and what was drawn for it."""

    example: Example
    described: bool
    level: float
    noise: np.ndarray
    muted: int = -1


def _collate(drawn: list[_Drawn], objective: Objective, foreground: float = 0.0, event_weight: float = 0.0) -> Batch:
    examples = [one.example for one in drawn]
    clean = torch.stack([example.latents_CTHW.float() for example in examples])
    noise = torch.from_numpy(np.stack([one.noise for one in drawn]))
    noised = objective.noised(clean, noise, torch.tensor([one.level for one in drawn], dtype=torch.float64))
    targets = _stack_targets(examples)
    return Batch(
        keys=tuple(example.key for example in examples),
        **noised._asdict(),
        text_BLD=torch.stack([example.text_LD.float() for example in examples]),
        described_B=torch.tensor([one.described for one in drawn]),
        labels_BP=torch.stack([example.labels_P for example in examples]),
        targets_BNP=targets,
        annotated_B=torch.tensor([example.targets_NP is not None for example in examples]),
        weight_BTHW=1 + on_latents(_weighs_more(targets.clamp(0, 1), foreground, event_weight), clean.shape[2:]),
        muted_B=torch.tensor([one.muted for one in drawn]),
    )


def _weighs_more(targets_BNP: torch.Tensor, foreground: float, event_weight: float) -> torch.Tensor:
    """What each token weighs in the diffusion loss beside the 1 of all, ``(B, N)``."""
    share_BP = targets_BNP.mean(1).clamp(min=1e-6)
    each_BP = (event_weight / share_BP).clamp(max=_MOST_WEIGHT)
    return foreground * targets_BNP.amax(-1) + (targets_BNP * each_BP[:, None]).sum(-1)


def _stack_targets(examples: list[Example]) -> torch.Tensor:
    """Zero rows for clips that nobody annotated; without any, one token, since nothing is asked of it."""
    known = next((e.targets_NP for e in examples if e.targets_NP is not None), None)
    tokens = 1 if known is None else len(known)
    none = torch.zeros(tokens, len(examples[0].labels_P))
    return torch.stack([none if e.targets_NP is None else e.targets_NP for e in examples])
