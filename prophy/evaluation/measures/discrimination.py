"""Discrimination: the phenomenon map against all phenomena, those that a clip does not show too.

    prophy evaluate discrimination --model runs/second/model --work runs/second

Localisation asks a map where its phenomenon is, in clips that show it. A map that cannot tell melting from deformation
passes that. Here every map is asked about every clip: which is the highest where something happens, do two maps always
rise together, and does a map stay low in clips without its phenomenon.

Shapes: n clips, N tokens, P phenomena, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from prophy.backbones.pipeline import ProPhyPipeline
from prophy.evaluation.measures.causes import attachment_of
from prophy.evaluation.measures.flow_loss import HELD_OUT, held_out_cache
from prophy.evaluation.measures.localisation import Truth, read_routing, truth_of
from prophy.evaluation.measures.metrics import bootstrap
from prophy.evaluation.results import Interval
from prophy.evaluation.results.discrimination import DiscriminationLevel, DiscriminationResult
from prophy.generation.identity import model_hash
from prophy.phenomena import IDS
from prophy.training.batches import NOISE_LEVELS
from prophy.worlds import WorldSet

CLIPS = 256
RESAMPLES = 200  #: of pooled precision: each sorts nothing, but sums over every token


def evaluate_discrimination(
    pipeline: ProPhyPipeline,
    work: Path,
    clips: int = CLIPS,
    batch: int = 16,
    noises: Sequence[float] = NOISE_LEVELS,
    worlds: WorldSet = WorldSet(),
) -> DiscriminationResult:
    """Read the map of every held-out clip; writes ``discrimination.json`` under ``work/evaluation``.

    Args:
        pipeline: with a branch.
        work: folder of caches and results.
        clips: held-out clips, the same as localisation's.
        batch: clips at a time.
        noises: levels to measure at.
        worlds: that the held-out clips are of; any split.

    Raises:
        ValueError: the pipeline has no branch.
    """
    attachment_of(pipeline)
    cache = held_out_cache(pipeline, work, clips, worlds)
    truth = truth_of(cache)
    levels = tuple(discriminate(noise, read_routing(pipeline, cache, noise, batch).maps_nNP, truth) for noise in noises)
    shown = tuple(IDS[p] for p in np.flatnonzero(truth.shown_nP.any(0)))
    return DiscriminationResult(
        shown=shown,
        phenomena=IDS,
        levels=levels,
        clips=len(cache),
        split=HELD_OUT,
        model_sha256=model_hash(pipeline),
        drawn=worlds.phenomena,
        grammar=worlds.grammar,
        size=worlds.stage.size,
        fps=worlds.stage.fps,
    ).save(work)


def discriminate(noise: float, maps_nNP: np.ndarray, truth: Truth, resamples: int = RESAMPLES) -> DiscriminationLevel:
    """Everything about the maps of one noise level."""
    shown = np.flatnonzero(truth.shown_nP.any(0))
    confusion = confusions(maps_nNP, truth)
    right = np.stack([confusion[:, p, p] for p in shown], 1)
    alike = correlations(maps_nNP, truth)
    pooled = pooled_precision(maps_nNP[:, :, shown], truth.cover_nNP[:, :, shown] > 0.5, resamples)
    return DiscriminationLevel(
        noise=noise,
        confusion=_rows(confusion, shown),
        right=bootstrap(right),
        correlation=_rows(alike, shown),
        ap=pooled[-1],
        ap_by_phenomenon={IDS[p]: one for p, one in zip(shown, pooled, strict=False)},
    )


def confusions(maps_nNP: np.ndarray, truth: Truth) -> np.ndarray:
    """Of each clip's tokens of one phenomenon alone, the share at which each map is the highest, ``(n, P, P)``.

    Rows are the truth. NaN where a clip has no such token; equal maps share a token.
    """
    covered = truth.cover_nNP > 0.5
    alone = covered & (covered.sum(2, keepdims=True) == 1)
    highest = maps_nNP == maps_nNP.max(2, keepdims=True)
    share = highest / highest.sum(2, keepdims=True)
    table = np.full((len(maps_nNP), maps_nNP.shape[2], maps_nNP.shape[2]), np.nan)
    for i, p in zip(*np.nonzero(truth.shown_nP & alone.any(1)), strict=True):
        table[i, p] = share[i, alone[i, :, p]].mean(0)
    return table


def correlations(maps_nNP: np.ndarray, truth: Truth) -> np.ndarray:
    """Pearson correlation of a shown phenomenon's map with every other over a clip's tokens, ``(n, P, P)``.

    NaN for phenomena that a clip does not show, with itself, and where a map is the same everywhere.
    """
    centred = maps_nNP.astype(np.float64) - maps_nNP.mean(1, keepdims=True, dtype=np.float64)
    norms = np.linalg.norm(centred, axis=1)
    table = np.full((len(maps_nNP), maps_nNP.shape[2], maps_nNP.shape[2]), np.nan)
    for i, p in zip(*np.nonzero(truth.shown_nP), strict=True):
        with np.errstate(invalid="ignore", divide="ignore"):
            table[i, p] = centred[i, :, p] @ centred[i] / (norms[i, p] * norms[i])
        table[i, p, p] = np.nan
    return np.where(np.isfinite(table), table, np.nan)


def pooled_precision(scores_nNP: np.ndarray, positive_nNP: np.ndarray, resamples: int, seed: int = 0) -> list[Interval]:
    """Token average precision over all clips at once with intervals over clips: of each map, and of their mean.

    Equal scores are one threshold, as in :func:`prophy.evaluation.measures.metrics.average_precision`. A clip that is
    drawn twice counts twice.
    """
    clips, tokens, count = scores_nNP.shape
    draws = np.random.default_rng(seed).multinomial(clips, np.full(clips, 1 / clips), size=resamples)
    weights = np.concatenate([np.ones((1, clips)), draws]).astype(np.float64)
    table = np.full((len(weights), count), np.nan)
    for p in range(count):
        scores, positive = scores_nNP[:, :, p].ravel(), positive_nNP[:, :, p].ravel()
        order = np.argsort(-scores, kind="stable")
        ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
        clip_of, hit = order // tokens, positive[order]
        for r, weight in enumerate(weights):
            drawn = weight[clip_of]
            hits, seen = np.cumsum(drawn * hit)[ends], np.cumsum(drawn)[ends]
            if hits[-1] > 0:
                table[r, p] = (np.diff(hits, prepend=0) * hits / np.maximum(seen, 1)).sum() / hits[-1]
    with np.errstate(invalid="ignore"):
        mean = np.array([row[~np.isnan(row)].mean() if not np.isnan(row).all() else np.nan for row in table])
    return [_interval(column, clips) for column in (*table.T, mean)]


def _interval(column: np.ndarray, clips: int) -> Interval:
    value, drawn = float(column[0]), column[1:][~np.isnan(column[1:])]
    if np.isnan(value) or not len(drawn):
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(value, float(low), float(high), clips)


def _rows(table_nPP: np.ndarray, shown: np.ndarray) -> tuple[tuple[float, ...], ...]:
    """Means over clips of the rows shown."""
    known = ~np.isnan(table_nPP)
    with np.errstate(invalid="ignore"):
        mean_PP = np.where(known, table_nPP, 0).sum(0) / known.sum(0)
    return tuple(tuple(mean_PP[p].tolist()) for p in shown)
