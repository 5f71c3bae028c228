"""How far apart two runs are: their experts, token by token, and their pictures, frame by frame. numpy only.

Shapes: N tokens, E experts, T latent frames, H token rows, W token columns, F video frames.
"""

from __future__ import annotations

import numpy as np

from prophy.routing.trace import RoutingTrace


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Jensen-Shannon distance between distributions along the last axis: the square root of the divergence in bits.

    Args:
        p, q: non-negative weights of one shape ``(..., E)``; each row is divided by its sum first.

    Returns:
        float32 ``(...)``: 0 where the two are equal, 1 where they share no expert.

    Raises:
        ValueError: the shapes differ, a weight is negative or no number, or a row has no weight at all.
    """
    if p.shape != q.shape:
        raise ValueError(f"distributions of shapes {p.shape} and {q.shape} cannot be compared: give them one shape")
    p, q = _normalised(p), _normalised(q)
    mean = (p + q) / 2
    divergence = (_relative_entropy(p, mean) + _relative_entropy(q, mean)) / 2
    return np.sqrt(np.clip(divergence, 0, 1)).astype(np.float32)  # rounding may leave [0, 1] by an ulp


def routing_difference(a: RoutingTrace, b: RoutingTrace, step: int | None = None) -> np.ndarray:
    """Jensen-Shannon distance between two runs' experts at every token.

    Args:
        a, b: traces of one grid and one number of experts.
        step: a kept denoising step, negative counts from the last: the top-k weights there, the other experts at 0.
            None for the full distribution averaged over all steps.

    Returns:
        float32 ``(T, H, W)``, 0 to 1.

    Raises:
        ValueError: the grids, the numbers of experts or the steps do not allow it.
    """
    if a.grid != b.grid:
        raise ValueError(f"routing on grids {a.grid.shape} and {b.grid.shape} cannot be compared: use runs of one size")
    if a.num_experts != b.num_experts:
        raise ValueError(
            f"routing over {a.num_experts} and {b.num_experts} experts cannot be compared: use runs of one branch"
        )
    if step is None:
        distance_N = jensen_shannon(a.mean_probs, b.mean_probs)
    else:
        distance_N = jensen_shannon(_chosen_weights(a, step), _chosen_weights(b, step))
    return distance_N.reshape(a.grid.shape)


def pixel_difference(a_frames: np.ndarray, b_frames: np.ndarray) -> np.ndarray:
    """Mean absolute difference of two clips' pixels, frame by frame.

    Args:
        a_frames, b_frames: uint8 RGB ``(F, H, W, 3)``, of one shape.

    Returns:
        float32 ``(F,)``: 0 for equal frames, 1 for black against white.

    Raises:
        ValueError: the clips differ in shape or are not uint8.
    """
    if a_frames.shape != b_frames.shape:
        raise ValueError(
            f"clips of shapes {a_frames.shape} and {b_frames.shape} cannot be compared: use runs of one length and size"
        )
    if a_frames.dtype != np.uint8 or b_frames.dtype != np.uint8:
        raise ValueError(f"clips must be uint8, got {a_frames.dtype} and {b_frames.dtype}")
    # Frame by frame: the signed difference of a whole clip would take twice the memory of both.
    means = [np.abs(a.astype(np.int16) - b).mean() for a, b in zip(a_frames, b_frames, strict=True)]
    return (np.array(means) / 255).astype(np.float32)


def _chosen_weights(trace: RoutingTrace, step: int) -> np.ndarray:
    """Weight of every expert at a kept step, 0 where it was not chosen, float32 ``(N, E)``."""
    if not -trace.num_kept <= step < trace.num_kept:
        raise ValueError(f"step={step} is not one of the {trace.num_kept} steps kept")
    weights_NE = np.zeros((trace.grid.num_tokens, trace.num_experts), np.float32)
    np.put_along_axis(weights_NE, trace.topk_ids[step].astype(np.intp), trace.topk_weights[step].astype(np.float32), 1)
    return weights_NE


def _normalised(weights: np.ndarray) -> np.ndarray:
    weights = weights.astype(np.float64)
    if not (weights >= 0).all():
        raise ValueError("a distribution holds negative weights or values that are not numbers")
    sums = weights.sum(-1, keepdims=True)
    if not ((sums > 0) & np.isfinite(sums)).all():
        raise ValueError("a distribution has no weight on any expert, or infinite weight")
    return weights / sums


def _relative_entropy(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Bits; terms where p is 0 are 0."""
    ratio = np.divide(p, q, out=np.ones_like(p), where=p > 0)
    return (p * np.log2(ratio)).sum(-1)
