"""An independent segmenter: where in a clip each phenomenon is, token by token, from decoded pixels alone.

It stands in for the simulator's masks where there is no simulator: on generated clips. Like the classifier of
recognition it is trained on real renders of the worlds only, and its own error on held-out ones is reported beside
every number that rests on it.

    prophy evaluate segmenter --work runs/tiny

Shapes: n or B clips, F frames of H×W pixels, 8 of them seen along a token's side; P = 17 phenomena, T, h, w of the
token grid, N = T·h·w.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from prophy.data.jobs import Geometry
from prophy.evaluation.judges.fit import Chance, answers_of, binary_loss, fit_judge, fitted, fitted_recipe, save_fitted
from prophy.evaluation.judges.pictures import Residual, degraded, shrunk, stacked
from prophy.evaluation.measures.metrics import average_precision, bootstrap
from prophy.evaluation.results import Interval
from prophy.evaluation.results.judges import SEEN, SegmenterRecipe, SegmenterResult
from prophy.grid import TokenGrid
from prophy.phenomena import IDS, by_id
from prophy.worlds import WorldSet, sample_clip

NAME = "segmenter"


class Segmenter(nn.Module):
    """All frames stacked as channels, convolutions down to the token grid, one logit a token and phenomenon.

    Args:
        width: half the channels of the first layer.
        grid: of the clips it is for.
    """

    def __init__(self, width: int, grid: TokenGrid) -> None:
        super().__init__()
        self.grid = grid
        layers: list[nn.Module] = [nn.PixelUnshuffle(2)]
        before = 4 * 3 * grid.num_video_frames
        for after in (2 * width, 3 * width):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
            layers += [Residual(after)]
            before = after
        layers += [Residual(before, dilation=2), Residual(before)]  # the whole scene decides what a ball is doing
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(before, grid.frames * len(IDS), 1)
        nn.init.constant_(self.head.bias, -4.0)

    def forward(self, frames_BCHW: torch.Tensor) -> torch.Tensor:
        """Frames as channels to logits ``(B, N, P)``."""
        logits = self.head(self.body(frames_BCHW))
        return logits.unflatten(1, (self.grid.frames, len(IDS))).permute(0, 1, 3, 4, 2).flatten(1, 3)


def grid_of(recipe: SegmenterRecipe) -> TokenGrid:
    """The tokens of its clips."""
    return Geometry.of_worlds(recipe.stage, recipe.cell).grid


def render_covers(seeds: range, split: str, recipe: SegmenterRecipe) -> tuple[np.ndarray, np.ndarray]:
    """What is seen of clips, uint8 ``(n, F, 8h, 8w, 3)``, and each token's share that a phenomenon covers.

    Returns:
        The frames, and the shares, float16 ``(n, N, P)``.
    """
    grid, frames = grid_of(recipe), []
    covers = np.zeros((len(seeds), grid.num_tokens, len(IDS)), np.float16)
    for row, seed in enumerate(tqdm(seeds, f"render {split}", mininterval=5, unit="clip")):
        clip = sample_clip(seed, split, recipe.phenomena, recipe.stage)
        frames.append(shrunk(clip.frames[None], recipe.cell // SEEN)[0])
        pooled = grid.pool_masks(np.stack(list(clip.masks.values())))
        for name, cover in zip(clip.masks, pooled, strict=True):
            covers[row, :, by_id(name).index] = cover
    return np.stack(frames), covers


def train_segmenter(
    work: Path, recipe: SegmenterRecipe, device: torch.device | None = None, minutes: float | None = None
) -> SegmenterResult:
    """Train and save ``work/segmenter.safetensors``; measure on held-out renders and save the error as JSON.

    Args:
        work: folder of results.
        recipe: what to train.
        device: to train on; default: the CPU.
        minutes: stop, resumable, after this long.

    Raises:
        TrainingStopped: the time ended before the training did.
    """
    work = Path(work)
    model = fit(*render_covers(range(recipe.clips), "train", recipe), recipe, device, work, minutes)
    save_fitted(model, recipe, work, NAME)
    frames, covers = render_covers(range(recipe.test_clips), "test", recipe)
    return measure(segment(model, frames), covers.astype(np.float32), recipe).save(work)


def fit(
    frames_nFHWC: np.ndarray,
    covers_nNP: np.ndarray,
    recipe: SegmenterRecipe,
    device: torch.device | None = None,
    work: Path | None = None,
    minutes: float | None = None,
) -> Segmenter:
    """Train the segmenter on rendered frames; half of each batch is mirrored, masks and all. See
    :func:`train_segmenter`; without ``work`` it cannot be resumed.
    """
    grid = grid_of(recipe)

    def spoilt(chance: Chance, batch: np.ndarray, covers_BNP: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        x = degraded(stacked(batch), chance.generator)
        target = torch.from_numpy(covers_BNP.astype(np.float32))
        mirrored = torch.from_numpy(chance.rng.random(recipe.batch) < 0.5)
        x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
        flipped = target.unflatten(1, grid.shape).flip(3).flatten(1, 3)
        target = torch.where(mirrored[:, None, None], flipped, target)
        return x.contiguous(memory_format=torch.channels_last), target

    return fit_judge(
        lambda: Segmenter(recipe.width, grid),
        frames_nFHWC,
        covers_nNP,
        recipe,
        NAME,
        spoilt,
        binary_loss,
        device,
        work,
        minutes,
    )


def segment(model: Segmenter, frames_nFHWC: np.ndarray, batch: int = 32) -> np.ndarray:
    """Predicted share of each token that a phenomenon covers, float32 ``(n, N, P)``.

    Args:
        model: the segmenter.
        frames_nFHWC: uint8 clips of its size, whole or averaged down to eight pixels along a token's side.
        batch: clips at a time.

    Raises:
        ValueError: clips of another size.
    """
    grid = model.grid
    factor, left_over = divmod(frames_nFHWC.shape[2], grid.height * SEEN)
    expected = (grid.num_video_frames, grid.height * SEEN * factor, grid.width * SEEN * factor, 3)
    if left_over or not factor or frames_nFHWC.shape[1:] != expected:
        raise ValueError(
            f"clips of shape {frames_nFHWC.shape[1:]} are not of the segmenter's {grid.num_video_frames} frames and"
            f" {grid.height}×{grid.width} tokens: generate them so"
        )
    answers = answers_of(model, shrunk(frames_nFHWC, factor), batch)
    return torch.cat([logits.sigmoid().cpu() for logits in answers]).numpy()


def measure(found_nNP: np.ndarray, covers_nNP: np.ndarray, recipe: SegmenterRecipe) -> SegmenterResult:
    """The segmenter's error on clips whose masks are known."""
    shown = covers_nNP.max(1) > 0
    positive, called = covers_nNP > 0.5, found_nNP > 0.5
    ap, overlap = np.full(shown.shape, np.nan), np.full(shown.shape, np.nan)
    for i, p in zip(*np.nonzero(shown & positive.any(1)), strict=True):
        ap[i, p] = average_precision(found_nNP[i, :, p], positive[i, :, p])
        either = positive[i, :, p] | called[i, :, p]
        overlap[i, p] = (positive[i, :, p] & called[i, :, p]).sum() / either.sum()
    there = shown & positive.any(1)
    hidden = np.broadcast_to(~shown[:, None], called.shape)
    return SegmenterResult(
        ap=bootstrap(ap),
        overlap={name: bootstrap(overlap[:, by_id(name).index]) for name in recipe.phenomena},
        missed=float((there & ~called.any(1)).sum() / max(1, there.sum())),
        alarms=float(called[hidden].mean()),
        recipe=recipe,
    )


def load_segmenter(work: Path, worlds: WorldSet | None = None) -> Segmenter:
    """Open the segmenter trained in ``work``.

    Args:
        work: folder of results.
        worlds: that it shall have learnt; default: whatever it has.

    Raises:
        FileNotFoundError: it has not been trained.
        ValueError: it has not learnt all of these phenomena, or clips of another size or rate; its file is damaged.
    """
    recipe = fitted_recipe(work, NAME, SegmenterRecipe)
    if worlds is not None:
        unknown = [name for name in worlds.phenomena if name not in recipe.phenomena]
        if unknown or worlds.stage != recipe.stage:
            other = f"clips of {recipe.stage}, not {worlds.stage}" if not unknown else f"no {unknown[0]}"
            raise ValueError(
                f"the segmenter in {work} has learnt {other}: train one with these --phenomena, --size and --fps"
            )
    return fitted(work, NAME, lambda weights: Segmenter(len(weights["body.1.bias"]) // 2, grid_of(recipe)))


def segmenter_error(work: Path) -> Interval:
    """Token average precision on held-out renders, as recorded when the segmenter was trained.

    Raises:
        FileNotFoundError: it has not been trained.
    """
    return SegmenterResult.load(work).ap
