"""Recognition: an independent classifier looks at decoded pixels and says which phenomena a clip shows.

It is trained on real renders of the worlds only, never on generated clips, and its own error on held-out renders is
reported beside every number it gives. It also learns that an empty stage, and a first frame that never moves, show
nothing: a classifier that has only seen events finds one everywhere.

    prophy evaluate recogniser --work runs/tiny

Shapes: n or B clips, F frames of H×W pixels, of which F' are looked at, h×w pixels of them seen; P = 17 phenomena.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import ModelMixin
from torch import nn
from tqdm import tqdm

from prophy.evaluation.judges.fit import Chance, answers_of, binary_loss, fit_judge, fitted, fitted_recipe, save_fitted
from prophy.evaluation.judges.pictures import (
    Residual,
    degraded,
    empty_stages,
    seen,
    seen_of,
    stacked,
    through_autoencoder,
)
from prophy.evaluation.results.judges import RecogniserRecipe, RecogniserResult
from prophy.phenomena import IDS
from prophy.worlds import Stage, sample_clip

LOOKED_AT = 9  #: frames the classifier sees, from the first to the last
NAME = "recogniser"
GATE = 0.97  #: exact share on held-out renders below which no number of the classifier's counts


class Recogniser(nn.Module):
    """Frames stacked as channels, convolutions down to a 4×4 grid, the strongest response anywhere in the picture.

    Args:
        width: channels of the first layer.
        stage: size, length and rate of the clips it is for.
    """

    def __init__(self, width: int = RecogniserRecipe.width, stage: Stage = Stage()) -> None:
        super().__init__()
        self.stage = stage
        widths = (width, 2 * width, 3 * width)
        layers: list[nn.Module] = [nn.PixelUnshuffle(2)]
        before = 4 * 3 * LOOKED_AT
        for after in widths:
            down = nn.Conv2d(before, after, 3, stride=2, padding=1)
            layers += [down, nn.GroupNorm(8, after), nn.SiLU(), Residual(after)]
            before = after
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(before, len(IDS), 1)
        nn.init.constant_(self.head.bias, -4.0)

    def forward(self, frames_BCHW: torch.Tensor) -> torch.Tensor:
        """Frames of :func:`~prophy.evaluation.judges.pictures.stacked` to logits ``(B, P)``."""
        return self.head(self.body(frames_BCHW)).flatten(2).logsumexp(-1)


def augment(x_BCHW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Degraded, and half of the clips mirrored: every phenomenon may happen the other way round."""
    x = degraded(x_BCHW, generator)
    mirrored = torch.rand((len(x), 1, 1, 1), generator=generator) < 0.5
    return torch.where(mirrored, x.flip(-1), x)


def render_clips(
    seeds: range, split: str, phenomena: tuple[str, ...], stage: Stage = Stage()
) -> tuple[np.ndarray, torch.Tensor]:
    """Render clips: what is seen of them, uint8 ``(n, F', h, w, 3)``, and multi-hot labels, float32 ``(n, P)``."""
    frames, labels = [], np.empty((len(seeds), len(IDS)), np.float32)
    for row, seed in enumerate(tqdm(seeds, f"render {split}", mininterval=5, unit="clip")):
        clip = sample_clip(seed, split, phenomena, stage)
        frames.append(seen(clip.frames[None], LOOKED_AT)[0])
        labels[row] = clip.scenario.labels
    return np.stack(frames), torch.from_numpy(labels)


def frozen(frames_BFHWC: np.ndarray) -> np.ndarray:
    """The first frame for as long as the clip lasts."""
    return np.broadcast_to(frames_BFHWC[:, :1], frames_BFHWC.shape)


def train_recogniser(
    work: Path,
    recipe: RecogniserRecipe,
    vae: ModelMixin | None = None,
    decoded_clips: int = 64,
    device: torch.device | None = None,
    minutes: float | None = None,
) -> RecogniserResult:
    """Train and save ``work/recogniser.safetensors``; measure on held-out renders and save the error as JSON.

    A function of the recipe and the number of threads alone.

    Args:
        work: folder of results.
        recipe: what to train.
        vae: also measure it on ``decoded_clips`` held-out renders that went through this autoencoder.
        decoded_clips: how many.
        device: to train on; default: the CPU.
        minutes: stop, resumable, after this long.

    Raises:
        TrainingStopped: the time ended before the training did.
    """
    work = Path(work)
    frames, labels = render_clips(range(recipe.clips), "train", recipe.phenomena, recipe.stage)
    model = fit(frames, labels, recipe, device, work, minutes)
    save_fitted(model, recipe, work, NAME)

    frames, labels = render_clips(range(recipe.test_clips), "test", recipe.phenomena, recipe.stage)
    result = measure(model, frames, labels, recipe)
    if vae is not None:
        seeds = range(min(decoded_clips, recipe.test_clips))
        whole = np.stack([sample_clip(seed, "test", recipe.phenomena, recipe.stage).frames for seed in seeds])
        decoded = recognise(model, through_autoencoder(whole, vae))
        result = replace(result, exact_decoded=exact_share(decoded, labels[: len(seeds)]))
    return result.save(work)


def fit(
    frames_nFHWC: np.ndarray,
    labels_nP: torch.Tensor,
    recipe: RecogniserRecipe,
    device: torch.device | None = None,
    work: Path | None = None,
    minutes: float | None = None,
) -> Recogniser:
    """Train the classifier on rendered frames; see :func:`train_recogniser`. Without ``work`` it cannot be resumed."""
    empty = empty_stages(recipe.stage, LOOKED_AT)

    def spoilt(chance: Chance, batch: np.ndarray, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        nothing = np.flatnonzero(chance.rng.random(recipe.batch) < recipe.nothing)
        still, bare = nothing[len(nothing) // 3 :], nothing[: len(nothing) // 3]
        batch[still] = frozen(batch[still])
        batch[bare] = empty[chance.rng.integers(len(empty), size=len(bare))]
        target[nothing] = 0
        x = augment(stacked(batch), chance.generator)
        return x.contiguous(memory_format=torch.channels_last), target

    return fit_judge(
        lambda: Recogniser(recipe.width, recipe.stage),
        frames_nFHWC,
        labels_nP,
        recipe,
        NAME,
        spoilt,
        binary_loss,
        device,
        work,
        minutes,
    )


def measure(
    model: Recogniser, frames_nFHWC: np.ndarray, labels_nP: torch.Tensor, recipe: RecogniserRecipe
) -> RecogniserResult:
    """The classifier's error on renders it was not trained on."""
    logits = recognise(model, frames_nFHWC)
    found, shown = logits > 0, labels_nP.bool()
    indices = [IDS.index(name) for name in recipe.phenomena]

    def shares(among: torch.Tensor) -> dict[str, float]:
        return {IDS[i]: float(found[among[:, i], i].float().mean()) for i in indices if among[:, i].any()}

    return RecogniserResult(
        exact=exact_share(logits, labels_nP),
        recall=shares(shown),
        false_alarms=shares(~shown),
        empty_false_alarms=float((recognise(model, empty_stages(recipe.stage, LOOKED_AT)) > 0).any(1).float().mean()),
        frozen_false_alarms=float((recognise(model, frozen(frames_nFHWC)) > 0).any(1).float().mean()),
        exact_decoded=None,
        recipe=recipe,
    )


def recognise(model: Recogniser, frames_nFHWC: np.ndarray) -> torch.Tensor:
    """Logits ``(n, P)``; above 0: the phenomenon is there.

    Args:
        frames_nFHWC: uint8 clips of the model's stage, whole or what is seen of them.

    Raises:
        ValueError: clips of another size.
    """
    frames_nFHWC = seen_of(frames_nFHWC, model.stage, LOOKED_AT)
    return torch.cat([logits.cpu() for logits in answers_of(model, frames_nFHWC)])


def exact_share(logits_nP: torch.Tensor, labels_nP: torch.Tensor) -> float:
    """Share of clips whose set of phenomena is recognised exactly."""
    return float(((logits_nP > 0) == labels_nP.bool()).all(1).float().mean())


def load_recogniser(work: Path) -> Recogniser:
    """Open the classifier trained in ``work``.

    Raises:
        FileNotFoundError: it has not been trained.
        ValueError: its file is damaged.
    """
    stage = fitted_recipe(work, NAME, RecogniserRecipe).stage
    return fitted(work, NAME, lambda weights: Recogniser(len(weights["body.1.bias"]), stage))


def recogniser_error(work: Path) -> float:
    """Exact share on held-out renders, as recorded when the classifier was trained.

    Raises:
        FileNotFoundError: it has not been trained.
    """
    return RecogniserResult.load(work).exact
