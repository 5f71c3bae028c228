"""Metrics: pure functions of scores and truths; ties are broken in expectation.

Shapes: N tokens or examples, n clips, K columns (phenomena).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from prophy.evaluation.results import Interval


def average_precision(scores_N: np.ndarray, positive_N: np.ndarray) -> float:
    """Area under the precision-recall steps. Equal scores are one threshold: a constant map gets the positives' share.

    Raises:
        ValueError: no positive, or scores that are not numbers.
    """
    scores, positive = _checked(scores_N, positive_N)
    if not positive.any():
        raise ValueError("average precision needs a positive: leave out clips whose phenomenon covers no token")
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # the last of each group of equal scores
    hits = np.cumsum(positive[order])[ends]
    gained = np.diff(hits, prepend=0)
    return float((gained * hits / (ends + 1)).sum() / hits[-1])


def pointing(scores_N: np.ndarray, positive_N: np.ndarray) -> float:
    """Pointing game: 1 when the strongest token is a positive; of several equally strong ones, the share that are."""
    scores, positive = _checked(scores_N, positive_N)
    return float(positive[scores == scores.max()].mean())


def energy_over_area(scores_N: np.ndarray, positive_N: np.ndarray) -> float:
    """Energy-based pointing game divided by the mask's share of the tokens: 1 for a uniform map, 1/share at best.

    Only positive scores carry energy; a map without any is taken as uniform.

    Raises:
        ValueError: no positive, or scores that are not numbers.
    """
    scores, positive = _checked(scores_N, positive_N)
    if not positive.any():
        raise ValueError("the energy share needs a positive: leave out clips whose phenomenon covers no token")
    energy = np.maximum(scores, 0)
    if energy.sum() == 0:
        return 1.0
    return float(energy[positive].sum() / energy.sum() / positive.mean())


def auc(scores_N: np.ndarray, positive_N: np.ndarray) -> float:
    """Chance that a positive scores above a negative; equal scores count half. NaN without both kinds."""
    scores, positive = _checked(scores_N, positive_N)
    negatives = np.sort(scores[~positive])
    if not positive.any() or not len(negatives):
        return float("nan")
    below = np.searchsorted(negatives, scores[positive], "left")
    not_above = np.searchsorted(negatives, scores[positive], "right")
    return float((below + not_above).mean() / 2 / len(negatives))


def discrimination(first_N: np.ndarray, second_N: np.ndarray, is_first_N: np.ndarray, is_second_N: np.ndarray) -> float:
    """Of tokens that belong to exactly one of two phenomena: share where its own map is the higher one.

    Averaged over the two phenomena, so that one map being higher everywhere gets one half; equal values count half.
    NaN when a phenomenon has no token of its own.
    """
    first, second = is_first_N & ~is_second_N, is_second_N & ~is_first_N
    if not first.any() or not second.any():
        return float("nan")
    difference = first_N.astype(np.float64) - second_N
    wins = (np.sign(difference[first]) + 1) / 2, (np.sign(-difference[second]) + 1) / 2
    return float(np.mean([w.mean() for w in wins]))


def bootstrap(values: np.ndarray, resamples: int = 2000, seed: int = 0) -> Interval:
    """Mean over rows, then over columns, with an interval from resampling rows.

    Args:
        values: ``(n,)`` or ``(n, K)``; NaN where a row says nothing. A row is resampled whole, so paired columns stay
            paired, and each column (phenomenon) counts alike however many rows speak of it.
        resamples: how many.
        seed: of the resampling.
    """
    return bootstrap_of(lambda means: means, values, resamples=resamples, seed=seed)


def bootstrap_of(
    statistic: Callable[..., np.ndarray], *tables: np.ndarray, resamples: int = 2000, seed: int = 0
) -> Interval:
    """A function of the means of several tables, such as their difference or ratio, resampled row by row together.

    Args:
        statistic: of one mean for each table; must take arrays.
        tables: as ``values`` of :func:`bootstrap`, all of the same rows.
        resamples: how many.
        seed: of the resampling.

    Raises:
        ValueError: tables of different numbers of rows.
    """
    parts = [np.asarray(table, np.float64) for table in tables]
    parts = [part[:, None] if part.ndim == 1 else part for part in parts]
    if len({len(part) for part in parts}) != 1:
        raise ValueError(f"tables of {', '.join(str(len(part)) for part in parts)} rows: give the same rows in each")
    spoken = ~np.isnan(np.concatenate(parts, axis=1)).all(1)
    parts = [part[spoken] for part in parts]
    parts = [part[:, ~np.isnan(part).all(0)] if len(part) else part for part in parts]
    n = int(spoken.sum())
    if not n or not all(part.size for part in parts):
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(statistic(*(_means(part, np.ones((1, n))) for part in parts))[0])
        drawn = statistic(*(_means(part, draws) for part in parts))
    drawn = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or not len(drawn):
        return Interval(float("nan"), float("nan"), float("nan"), n)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(value, float(low), float(high), n)


def _means(table_nK: np.ndarray, draws_Rn: np.ndarray) -> np.ndarray:
    """Of every resample, the mean over its rows, then over columns, float64 ``(R,)``; NaN where it says nothing."""
    known = ~np.isnan(table_nK)
    columns = (draws_Rn @ np.where(known, table_nK, 0.0)) / (draws_Rn @ known)
    empty = np.isnan(columns).all(1)
    return np.where(empty, np.nan, np.nanmean(np.where(empty[:, None], 0.0, columns), axis=1))


def _checked(scores_N: np.ndarray, positive_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, positive = np.asarray(scores_N, np.float64).ravel(), np.asarray(positive_N, bool).ravel()
    if scores.shape != positive.shape or not len(scores):
        raise ValueError(f"{len(scores)} scores for {len(positive)} truths: give one for each")
    if not np.isfinite(scores).all():
        raise ValueError("scores hold values that are not numbers: the model's weights are damaged")
    return scores, positive
