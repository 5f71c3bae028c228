"""Likelihood preference: of a valid and an impossible clip with the same looks, which does the model find likelier?

    prophy evaluate preference --model runs/second/model --work runs/second

After LikePhys (arXiv 2510.11512), in code of our own: both clips get the same noise at ten noise levels, and the lower
mean denoising loss, a bound on the negative log-likelihood, is the preference. Forward passes only: no sampler, no
decoder, no tracker, no judge. So it says what a model expects of given clips, not what it makes.

Shapes: C latent channels, T latent frames, H height, W width, F video frames, V noise levels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from tqdm import tqdm

from prophy.backbones import backbone_of
from prophy.backbones.pipeline import transformers_of
from prophy.data.encode import encode_caption, encode_clip
from prophy.evaluation.clips import ArrayFolder
from prophy.evaluation.measures.causes import ExpertNames, attachment_of
from prophy.evaluation.measures.metrics import bootstrap
from prophy.evaluation.results.preference import BASE, PairLoss, PreferenceResult, PreferenceScore
from prophy.files import sha256
from prophy.generation.identity import model_hash
from prophy.training.objectives import objective_for
from prophy.worlds import WorldSet

NOISES = tuple(round(0.05 + 0.1 * i, 2) for i in range(10))  #: at which losses are taken; ours, evenly spaced


@dataclass(frozen=True)
class Pair:
    """A clip that obeys a law, and one with the same looks that does not.

    Attributes:
        group: names the scene; pairs of one scene are resampled together.
        law: that the second one breaks.
        caption: of both.
        valid: uint8 ``(F, H, W, 3)``.
        impossible: of the same shape.
        phenomenon: whose law it is, by id; None where nobody says.
    """

    group: str
    law: str
    caption: str
    valid: np.ndarray
    impossible: np.ndarray
    phenomenon: str | None = None


#: pairs, read anew each time: a set of large clips need not fit into memory
Pairs = Callable[[], Iterable[Pair]]


@dataclass(frozen=True)
class PreferenceColumn:
    """A model, and what is muted in it.

    Attributes:
        opened: opens its pipeline with the branch as it shall be.
        muting: mutes, for each pair, the expert of its phenomenon; None mutes nothing.
    """

    opened: Callable[[], DiffusionPipeline]
    muting: Callable[[DiffusionPipeline], ExpertNames] | None = None


def evaluate_preference(
    columns: Mapping[str, PreferenceColumn],
    pairs: Pairs,
    source: str,
    work: Path,
    noises: Sequence[float] = NOISES,
    batch: int = 4,
    seed: int = 0,
    name: str | None = None,
    worlds: WorldSet | None = None,
) -> PreferenceResult:
    """Take the losses of every pair in every column; writes ``preference.json`` under ``work/evaluation``.

    Losses stay on disk, under what they were taken of; a killed run is resumed.

    Args:
        columns: by name; :data:`prophy.evaluation.results.preference.BASE` is what the others are compared with.
        pairs: to compare.
        source: of the pairs, in words.
        work: folder of results.
        noises: levels in [0, 1).
        batch: noise levels at a time, of both clips.
        seed: of the noise.
        name: of the file, without ``.json``.
        worlds: that the pairs are of, to be recorded; None: of a benchmark.

    Raises:
        ValueError: no pairs, clips of one pair that differ in shape, a noise level out of range, a model with two
            transformers, or a pair of no known phenomenon where its expert is to be muted.
    """
    if not noises or not all(0 <= level < 1 for level in noises):
        raise ValueError(f"noise levels {', '.join(f'{level:g}' for level in noises)}: give some from 0 to below 1")
    if batch < 1:
        raise ValueError(f"--batch {batch}: take at least one noise level at a time")
    losses, hashes = {}, {}
    for column, about in columns.items():
        pipeline = about.opened()
        hashes[column] = model_hash(pipeline)
        muted = None if about.muting is None else about.muting(pipeline)
        losses[column] = _column(pipeline, pairs(), muted, Path(work), tuple(noises), batch, seed, column)
    if not any(losses.values()):
        raise ValueError(f"{source}: no pairs to compare")
    groups = {loss.group for loss in next(iter(losses.values()))}
    return PreferenceResult(
        source=source,
        scores=score_preferences(losses),
        noises=tuple(noises),
        pairs=len(next(iter(losses.values()))),
        groups=len(groups),
        model_sha256=hashes,
        losses=losses,
        phenomena=None if worlds is None else worlds.phenomena,
        grammar=None if worlds is None else worlds.grammar,
        size=None if worlds is None else worlds.stage.size,
        fps=None if worlds is None else worlds.stage.fps,
    ).save(work, name)


def score_preferences(columns: Mapping[str, Sequence[PairLoss]]) -> dict[str, PreferenceScore]:
    """Means and intervals over groups of every column, every law alike.

    Raises:
        ValueError: columns of different pairs.
    """
    keys = {name: [(loss.group, loss.law) for loss in losses] for name, losses in columns.items()}
    if any(other != next(iter(keys.values())) for other in keys.values()):
        raise ValueError("the columns hold different pairs: compare the same ones in each")
    laws = tuple(dict.fromkeys(law for _, law in next(iter(keys.values()))))
    groups = tuple(dict.fromkeys(group for group, _ in next(iter(keys.values()))))

    def table(losses: Sequence[PairLoss], value: Callable[[PairLoss], float]) -> np.ndarray:
        """Mean of a group's pairs of each law, ``(groups, laws)``; NaN where there is none."""
        total, count = np.zeros((len(groups), len(laws))), np.zeros((len(groups), len(laws)))
        for loss in losses:
            at = groups.index(loss.group), laws.index(loss.law)
            total[at] += value(loss)
            count[at] += 1
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    wrong = {name: table(losses, _is_wrong) for name, losses in columns.items()}
    margin = {name: table(losses, _margin) for name, losses in columns.items()}
    return {
        name: PreferenceScore(
            wrong=bootstrap(wrong[name]),
            margin=bootstrap(margin[name]),
            minus_base=bootstrap(wrong[name] - wrong[BASE]) if BASE in columns and name != BASE else None,
            by_law={law: bootstrap(wrong[name][:, i]) for i, law in enumerate(laws)},
        )
        for name in columns
    }


def _is_wrong(loss: PairLoss) -> float:
    """1 where the impossible clip is the likelier; equal losses count half."""
    return 0.5 if loss.impossible == loss.valid else float(loss.impossible < loss.valid)


def _margin(loss: PairLoss) -> float:
    return 2 * (loss.impossible - loss.valid) / (loss.impossible + loss.valid)


# --- one column -------------------------------------------------------------------------------------------------------


def _column(
    pipeline: DiffusionPipeline,
    pairs: Iterable[Pair],
    muted: ExpertNames | None,
    work: Path,
    noises: tuple[float, ...],
    batch: int,
    seed: int,
    column: str,
) -> tuple[PairLoss, ...]:
    if len(transformers_of(pipeline)) > 1:
        raise ValueError(f"{column} has two transformers, each for a part of the noise: preference takes one")
    store = ArrayFolder[np.ndarray](work, "pair-losses", pipeline, lambda losses_2V: {"losses": losses_2V})
    found = []
    for pair in tqdm(pairs, f"preference, {column}", mininterval=5, unit="pair"):
        if pair.valid.shape != pair.impossible.shape:
            raise ValueError(
                f"{pair.group}, {pair.law}: clips of shapes {pair.valid.shape} and {pair.impossible.shape} are no pair"
            )
        expert = None if muted is None else _expert_of(pair, muted)
        about = [pair.caption, noises, seed, expert, pair.valid.shape]
        name = sha256(f"{about} {sha256(pair.valid.tobytes())} {sha256(pair.impossible.tobytes())}")[:16]
        kept = store.load(name)
        if kept is None:
            with _without(pipeline, expert):
                kept = store.write(name, pair_losses(pipeline, pair, noises, batch, seed))
        valid, impossible = kept["losses"].mean(1).tolist()
        found.append(PairLoss(pair.group, pair.law, valid, impossible))
    return tuple(found)


@torch.no_grad()
def pair_losses(
    pipeline: DiffusionPipeline, pair: Pair, noises: Sequence[float], batch: int = 4, seed: int = 0
) -> np.ndarray:
    """Mean squared error of the prediction, for the valid and the impossible clip, float64 ``(2, V)``.

    The objective is the pipeline's own: the velocity of a flow (Wan), or v (CogVideoX). Both clips get the same noise
    at each level, and each level its own.
    """
    transformer = pipeline.transformer
    family, objective, device = backbone_of(transformer), objective_for(pipeline.scheduler), transformer.device
    clean_2CTHW = torch.stack([encode_clip(pipeline, frames) for frames in (pair.valid, pair.impossible)]).float().cpu()
    text_LD = encode_caption(pipeline, pair.caption)
    losses = np.zeros((2, len(noises)))
    for start in range(0, len(noises), batch):
        levels = noises[start : start + batch]
        noise = [_noise(clean_2CTHW.shape[1:], seed, start + i) for i in range(len(levels))]
        # level by level, the valid clip and then the impossible one
        noised = objective.noised(
            clean_2CTHW.repeat(len(levels), 1, 1, 1, 1),
            torch.stack(noise).repeat_interleave(2, 0),
            torch.tensor(levels, dtype=torch.float64).repeat_interleave(2),
        )
        noisy_BCTHW = noised.noisy_BCTHW.to(device, transformer.dtype)
        text_BLD = text_LD.to(device, transformer.dtype).expand(len(noisy_BCTHW), -1, -1)
        predicted = family.run_transformer(transformer, noisy_BCTHW, noised.timestep_B.to(device), text_BLD)
        error_B = (predicted.float().cpu() - noised.target_BCTHW).square().flatten(1).mean(1).double()
        losses[:, start : start + len(levels)] = error_B.view(len(levels), 2).T.numpy()
    return losses


def _noise(shape: torch.Size, seed: int, level: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng([seed, level]).standard_normal(shape, dtype=np.float32))


def _expert_of(pair: Pair, names: ExpertNames) -> int:
    if pair.phenomenon is None or pair.phenomenon not in names.experts:
        raise ValueError(f"{pair.group}, {pair.law}: no expert is known for {pair.phenomenon or 'its phenomenon'}")
    return names.experts[pair.phenomenon]


@contextmanager
def _without(pipeline: DiffusionPipeline, expert: int | None) -> Iterator[None]:
    """One expert of the branch muted inside the block; None mutes none."""
    if expert is None:
        yield
        return
    scale_E = torch.ones(pipeline.branch.config.num_refinement_experts)
    scale_E[expert] = 0
    with attachment_of(pipeline).steer(refinement_scale=scale_E):
        yield
