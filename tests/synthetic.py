"""Small frames, traces and records, made up but valid, for tests that need no model."""

import numpy as np

from prophy.grid import TokenGrid
from prophy.phenomena import PHENOMENA
from prophy.routing.attention import AttentionTrace, Cells, quantised
from prophy.routing.trace import RoutingTrace
from prophy.runs.record import RunRecord

# No two axes are equal, so that swapped ones cannot hide.
GRID = TokenGrid(frames=3, height=4, width=5)
CELL = 8
NUM_EXPERTS = 6


def make_frames(seed: int = 0, grid: TokenGrid = GRID) -> np.ndarray:
    """Smooth random colours, uint8 (F, H, W, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (grid.num_video_frames, grid.height, grid.width, 3))
    return coarse.astype(np.uint8).repeat(CELL, 1).repeat(CELL, 2)


def make_trace(
    prompt: str = "a red ball bounces", seed: int = 3, grid: TokenGrid = GRID, steps: int = 4
) -> RoutingTrace:
    """A random trace with top-2 of six experts, different at every denoising step."""
    rng = np.random.default_rng(seed)
    probs_DNE = rng.dirichlet(np.full(NUM_EXPERTS, 0.3), (steps, grid.num_tokens)).astype(np.float32)
    ids = np.argsort(-probs_DNE, axis=-1, kind="stable")[..., :2]
    logits = rng.normal(size=5).astype(np.float32)
    return RoutingTrace(
        grid=grid,
        prompt=prompt,
        seed=seed,
        timesteps=np.linspace(1000, 100, steps, dtype=np.float32),
        topk_ids=ids.astype(np.uint8),
        topk_weights=np.take_along_axis(probs_DNE, ids, -1).astype(np.float16),
        phenomenon_maps=rng.random((steps, grid.num_tokens, len(PHENOMENA))).astype(np.float16),
        mean_probs=probs_DNE.mean(0),
        semantic_weights=(np.exp(logits) / np.exp(logits).sum()).astype(np.float32),
        semantic_logits=logits,
        steps=steps,
    )


def make_attention(
    prompt: str = "a red ball bounces", seed: int = 3, grid: TokenGrid = GRID, steps: int = 4, most_cells: int = 1024
) -> AttentionTrace:
    """Random attention, recorded at the second and the last of some steps."""
    rng, words = np.random.default_rng(seed), tuple(prompt.split())
    maps_DNW, word_peaks = quantised(rng.random((2, grid.num_tokens, len(words))) * rng.random(len(words)) / 9, (0, 1))
    cells = Cells.of(grid, most_cells)
    cells_CC, cell_peaks = quantised(rng.dirichlet(np.full(cells.count, 0.3), cells.count), (1,))
    return AttentionTrace(
        grid=grid,
        prompt=prompt,
        seed=seed,
        words=words,
        total_steps=steps,
        steps=np.array([2, steps], np.int32),
        word_maps=maps_DNW,
        word_peaks=word_peaks,
        cell_side=cells.side,
        cell_maps=cells_CC,
        cell_peaks=cell_peaks,
    )


def make_record(prompt: str = "a red ball bounces", seed: int = 3, grid: TokenGrid = GRID, **changes) -> RunRecord:
    """A record that fits :func:`make_frames` and :func:`make_trace`."""
    settings = {
        "steps": 4,
        "guidance": 4.0,
        "frames": grid.num_video_frames,
        "height": CELL * grid.height,
        "width": CELL * grid.width,
        "fps": 8.0,
    }
    fields = {
        "prompt": prompt,
        "seed": seed,
        "settings": settings,
        "model_id": "prophy-tiny",
        "model_sha256": "0" * 64,
        "timings": {"denoise": 1.25},
        "unknown_words": ("flibbert",),
    }
    return RunRecord(**{**fields, **changes})
