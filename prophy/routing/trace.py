"""Routing: what the experts did in one forward pass, and the trace of a whole video.

Shapes: B batch, S semantic experts, N tokens, E refinement experts, K top-k, P phenomena, D denoising steps,
T latent frames, H token rows, W token columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prophy import phenomena
from prophy.arrays import check_axes, damage_named, read_described, read_description, write_described
from prophy.grid import TokenGrid

if TYPE_CHECKING:
    import torch

SCHEMA = 1
MAX_STEPS = 64  #: denoising steps a trace keeps; of a longer run, evenly spaced ones
MAX_BYTES = 2**29


@dataclass(frozen=True)
class Routing:
    """The routing of one forward pass: a returned value, float32 whatever the model computes in.

    Attributes:
        semantic_logits_BS: the semantic router's logits, before steering.
        semantic_weights_BS: their softmax, ρ_s (eq. 1), after steering.
        probs_BNE: the refinement router's softmax, ρ_r (eq. 2), after steering.
        topk_ids_BNK: the chosen experts, best first.
        topk_weights_BNK: their weights.
        phenomenon_map_BNP: P', what the map head reads from ρ_r, in [0, 1] where a phenomenon acts.
    """

    semantic_logits_BS: torch.Tensor
    semantic_weights_BS: torch.Tensor
    probs_BNE: torch.Tensor
    topk_ids_BNK: torch.Tensor
    topk_weights_BNK: torch.Tensor
    phenomenon_map_BNP: torch.Tensor


_ARRAYS = {
    "timesteps": ("D", np.float32),
    "topk_ids": ("DNK", np.uint8),
    "topk_weights": ("DNK", np.float16),
    "phenomenon_maps": ("DNP", np.float16),
    "mean_probs": ("NE", np.float32),
    "semantic_weights": ("S", np.float32),
    "semantic_logits": ("S", np.float32),
}


@dataclass(frozen=True)
class RoutingTrace:
    """The routing of one video, conditional pass only.

    Attributes:
        grid: the token grid.
        prompt: what was asked for.
        seed: of the noise.
        timesteps: ``(D,)`` of the steps kept, first to last, in the scheduler's units.
        topk_ids: ``(D, N, K)`` experts chosen at each step, best first.
        topk_weights: ``(D, N, K)``.
        phenomenon_maps: ``(D, N, P)``, P' at each step, recorded to 1/256.
        mean_probs: ``(N, E)``, ρ_r averaged over all steps.
        semantic_weights: ``(S,)``, averaged over all steps.
        semantic_logits: ``(S,)``, averaged over all steps.
        steps: denoising steps in which the branch ran; more than ``D`` if only some were kept.
        phenomena_version: see :data:`prophy.phenomena.VERSION`.

    Raises:
        ValueError: arrays that contradict each other or hold impossible values.
    """

    grid: TokenGrid
    prompt: str
    seed: int
    timesteps: np.ndarray
    topk_ids: np.ndarray
    topk_weights: np.ndarray
    phenomenon_maps: np.ndarray
    mean_probs: np.ndarray
    semantic_weights: np.ndarray
    semantic_logits: np.ndarray
    steps: int
    phenomena_version: str = phenomena.VERSION

    def __post_init__(self) -> None:
        if self.phenomena_version != phenomena.VERSION:
            raise ValueError(f"trace of phenomena {self.phenomena_version!r}: this release reads {phenomena.VERSION!r}")
        sizes = {"N": self.grid.num_tokens, "P": len(phenomena.PHENOMENA)}
        check_axes(self, _ARRAYS, sizes, "trace")
        for name in _ARRAYS:
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"{name} holds values that are not numbers: the trace is damaged")
        if self.topk_ids.max() >= sizes["E"]:
            raise ValueError(f"topk_ids names expert {self.topk_ids.max()} of {sizes['E']}: the trace is damaged")
        if sizes["D"] > MAX_STEPS or not sizes["D"] <= self.steps <= 100_000:
            raise ValueError(f"a trace of {sizes['D']} kept of {self.steps} steps is impossible: the trace is damaged")
        for name in ("topk_weights", "mean_probs", "semantic_weights"):
            array = getattr(self, name)
            if array.min() < -1e-3 or array.max() > 1 + 1e-2:
                raise ValueError(f"{name} must lie in [0, 1]: the trace is damaged")

    @property
    def num_experts(self) -> int:
        return self.mean_probs.shape[1]

    @property
    def num_kept(self) -> int:
        return len(self.timesteps)

    @property
    def step_numbers(self) -> tuple[int, ...]:
        """The number, from 1, of every step kept: of a long generation only some are, see :class:`TraceRecorder`."""
        stride = -(-self.steps // MAX_STEPS)
        return (*(1 + stride * d for d in range(self.num_kept - 1)), self.steps)

    def top1(self, step: int = -1) -> np.ndarray:
        """The strongest expert of every token at a kept step, uint8 ``(T, H, W)``."""
        return self.topk_ids[step, :, 0].reshape(self.grid.shape)

    def expert_map(self, expert: int, step: int = -1) -> np.ndarray:
        """Weight of one expert at every token (0 where it was not chosen), float32 ``(T, H, W)``."""
        chosen = self.topk_ids[step] == expert
        return (chosen * self.topk_weights[step].astype(np.float32)).sum(1).reshape(self.grid.shape)

    def phenomenon_map(self, index: int, step: int = -1) -> np.ndarray:
        """P' of one phenomenon at a kept step, float32 ``(T, H, W)``."""
        return self.phenomenon_maps[step, :, index].astype(np.float32).reshape(self.grid.shape)

    def expert_shares(self, step: int = -1) -> np.ndarray:
        """Share of each latent frame's tokens whose strongest expert is e, float32 ``(T, E)``."""
        one_hot = self.top1(step).reshape(self.grid.frames, -1, 1) == np.arange(self.num_experts)
        return one_hot.mean(1).astype(np.float32)

    def entropy(self) -> np.ndarray:
        """Entropy of the mean distribution over experts, as a share of the largest possible, float32 ``(T, H, W)``."""
        p = np.clip(self.mean_probs, 1e-9, 1)
        return (-(p * np.log(p)).sum(1) / np.log(max(2, self.num_experts))).reshape(self.grid.shape)

    def save(self, path: Path) -> None:
        """Write an npz without pickles; an existing file is replaced whole or not at all."""
        about = {
            "schema": SCHEMA,
            "grid": self.grid.shape,
            "prompt": self.prompt,
            "seed": self.seed,
            "steps": self.steps,
            "phenomena_version": self.phenomena_version,
        }
        write_described(path, about, {name: getattr(self, name) for name in _ARRAYS})

    @classmethod
    def load(cls, path: Path) -> RoutingTrace:
        """Read and check a trace; needs no model.

        Raises:
            ValueError: damaged, too large, or of another version. One line.
            FileNotFoundError: no such file.
        """
        path = Path(path)
        with damage_named(path, "routing trace"):
            about, arrays = read_described(path, MAX_BYTES, _ARRAYS)
            if about.pop("schema") != SCHEMA:
                raise ValueError("made by another release")
            if not isinstance(about["prompt"], str) or not all(type(about[k]) is int for k in ("seed", "steps")):
                raise ValueError("its description is malformed")
            grid = TokenGrid(*about.pop("grid"))
            return cls(grid=grid, **about, **arrays)

    @staticmethod
    def grid_in(path: Path) -> TokenGrid:
        """The token grid of a saved trace, without its arrays; raises as :meth:`load`."""
        path = Path(path)
        with damage_named(path, "routing trace"):
            return TokenGrid(*read_description(path, MAX_BYTES)["grid"])


def _rounded(map_NP: np.ndarray) -> np.ndarray:
    """P' to the nearest 1/256, which no picture shows: a saved trace is then a quarter as large."""
    return (np.round(map_NP * 256) / 256).astype(np.float16)


class TraceRecorder:
    """Collects the routing of one generation, step by step, in bounded memory.

    Keeps every ``ceil(total / MAX_STEPS)``-th step and the last; means run over all of them.

    Args:
        grid: the token grid.
        total: denoising steps to come; the branch may run in fewer, see :class:`~prophy.routing.schedule.Schedule`.
    """

    def __init__(self, grid: TokenGrid, total: int) -> None:
        self._grid, self._total = grid, total
        self._stride = -(-total // MAX_STEPS)
        self._kept: list[tuple[float, np.ndarray, np.ndarray, np.ndarray]] = []
        self._sums: list[np.ndarray] = []
        self._count = 0

    @property
    def is_empty(self) -> bool:
        return not self._kept

    def record(self, timestep: float, routing: Routing, row: int = -1) -> None:
        """Add one step: a row of ``routing`` that must be of the conditional pass.

        Args:
            timestep: in the scheduler's units.
            routing: of the step. Where both passes are made in one, the conditional rows come last.
            row: of the clip; the last one is right for a clip that is made alone.

        Raises:
            ValueError: the routing has another number of tokens than the grid.
        """
        if routing.probs_BNE.shape[1] != self._grid.num_tokens:
            raise ValueError(
                f"routing of {routing.probs_BNE.shape[1]} tokens does not fit a grid of {self._grid.num_tokens}"
            )
        means = [
            part[row].detach().float().cpu().numpy()
            for part in (routing.probs_BNE, routing.semantic_weights_BS, routing.semantic_logits_BS)
        ]
        self._sums = means if not self._sums else [a + b for a, b in zip(self._sums, means, strict=True)]
        if self._count % self._stride == 0 or self._count == self._total - 1:
            if len(self._kept) == MAX_STEPS:
                self._kept.pop()
            self._kept.append(
                (
                    float(timestep),
                    routing.topk_ids_BNK[row].cpu().numpy().astype(np.uint8),
                    routing.topk_weights_BNK[row].detach().float().cpu().numpy().astype(np.float16),
                    _rounded(routing.phenomenon_map_BNP[row].detach().float().cpu().numpy()),
                )
            )
        self._count += 1

    def latest_top1(self) -> np.ndarray:
        """The strongest expert of every token at the last kept step, uint8 ``(T, H, W)``, for live previews."""
        return self._kept[-1][1][:, 0].reshape(self._grid.shape)

    def finish(self, prompt: str, seed: int) -> RoutingTrace:
        """The trace of what was recorded.

        Raises:
            ValueError: nothing was recorded.
        """
        if not self._kept:
            raise ValueError("no denoising step was recorded: is a branch attached?")
        timesteps, ids, weights, maps = zip(*self._kept, strict=True)
        probs, semantic_weights, semantic_logits = ((part / self._count).astype(np.float32) for part in self._sums)
        return RoutingTrace(
            grid=self._grid,
            prompt=prompt,
            seed=seed,
            timesteps=np.array(timesteps, np.float32),
            topk_ids=np.stack(ids),
            topk_weights=np.stack(weights),
            phenomenon_maps=np.stack(maps),
            mean_probs=probs,
            semantic_weights=semantic_weights,
            semantic_logits=semantic_logits,
            # which of the total were kept is known by their number only if no fewer came
            steps=self._count if self._count >= self._total else len(self._kept),
        )
