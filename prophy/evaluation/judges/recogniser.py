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

import cv2
import numpy as np
import torch
from diffusers import ModelMixin
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from prophy.backbones.autoencoder import to_frames, to_pixels
from prophy.evaluation.judges.fit import fitted, fitted_recipe, save_fitted, train_judge
from prophy.evaluation.results.judges import RecogniserRecipe, RecogniserResult
from prophy.phenomena import IDS
from prophy.training.devices import autocast
from prophy.worlds import Scenario, Stage, sample_clip
from prophy.worlds.sample import render
from prophy.worlds.stage import BACKGROUNDS

LOOKED_AT = 9  #: frames the classifier sees, from the first to the last
ROWS = 64  #: of pixels that it sees, at least: what is larger is averaged down by a whole factor
NAME = "recogniser"
GATE = 0.97  #: exact share on held-out renders below which no number of the classifier's counts


class Residual(nn.Module):
    """One convolution beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(8, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + functional.silu(self.norm(self.conv(x)))


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
        """Frames of :func:`stacked` to logits ``(B, P)``."""
        return self.head(self.body(frames_BCHW)).flatten(2).logsumexp(-1)


def seen(frames_nFHWC: np.ndarray, looked_at: int = LOOKED_AT) -> np.ndarray:
    """What the classifier sees of whole clips, uint8 ``(n, F', h, w, 3)``."""
    chosen = np.linspace(0, frames_nFHWC.shape[1] - 1, looked_at).round().astype(int)
    return shrunk(frames_nFHWC[:, chosen], max(1, frames_nFHWC.shape[2] // ROWS))


def seen_of(frames_nFHWC: np.ndarray, stage: Stage, looked_at: int = LOOKED_AT) -> np.ndarray:
    """As :func:`seen`, of whole clips of a stage, or what is seen of them already.

    Raises:
        ValueError: clips of another size.
    """
    factor = max(1, stage.height // ROWS)
    if frames_nFHWC.shape[1:] == (stage.frames, stage.height, stage.width, 3):
        return seen(frames_nFHWC, looked_at)
    if frames_nFHWC.shape[1:] == (looked_at, stage.height // factor, stage.width // factor, 3):
        return frames_nFHWC
    raise ValueError(
        f"clips of shape {frames_nFHWC.shape[1:]} are not {stage.frames}×{stage.height}×{stage.width}×3:"
        " generate them so"
    )


def shrunk(frames_nFHWC: np.ndarray, factor: int) -> np.ndarray:
    """Frames averaged down by a whole factor, uint8."""
    if factor == 1:
        return frames_nFHWC
    height, width = (side // factor for side in frames_nFHWC.shape[2:4])
    made = np.empty((*frames_nFHWC.shape[:2], height, width, 3), np.uint8)
    for clip, small in zip(frames_nFHWC, made, strict=True):
        for f, frame in enumerate(clip):
            small[f] = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    return made


def stacked(frames_BFHWC: np.ndarray) -> torch.Tensor:
    """What a judge sees, uint8 ``(B, F', h, w, 3)``, as channels from -1 to 1 ``(B, 3F', h, w)``."""
    return to_pixels(frames_BFHWC).transpose(1, 2).flatten(1, 2)


def augment(x_BCHW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """As :func:`degraded`, and half of the clips mirrored: every phenomenon may happen the other way round."""
    x = degraded(x_BCHW, generator)
    mirrored = torch.rand((len(x), 1, 1, 1), generator=generator) < 0.5
    return torch.where(mirrored, x.flip(-1), x)


def degraded(x_BCHW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """What generated clips do to a picture: contrast, brightness, colour, softness and noise all go a little wrong."""

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator)

    batch = len(x_BCHW)
    colour_BC11 = 0.24 * (uniform(batch, 3, 1, 1) - 0.5)
    x = x_BCHW * (1 + 0.5 * (uniform(batch, 1, 1, 1) - 0.5)) + 0.3 * (uniform(batch, 1, 1, 1) - 0.5)
    x = x + colour_BC11.repeat(1, x.shape[1] // 3, 1, 1)
    soft = functional.avg_pool2d(x, 3, 1, 1)
    coarse = functional.interpolate(functional.avg_pool2d(x, 2), scale_factor=2, mode="bilinear", align_corners=False)
    x = torch.where(uniform(batch, 1, 1, 1) < 0.3, coarse, torch.lerp(x, soft, uniform(batch, 1, 1, 1)))
    x = x + 0.12 * uniform(batch, 1, 1, 1) * torch.randn(x.shape, generator=generator)
    return x.clamp(-1.2, 1.2)


def render_clips(
    seeds: range, split: str, phenomena: tuple[str, ...], stage: Stage = Stage()
) -> tuple[np.ndarray, torch.Tensor]:
    """Render clips: what is seen of them, uint8 ``(n, F', h, w, 3)``, and multi-hot labels, float32 ``(n, P)``."""
    frames, labels = [], np.empty((len(seeds), len(IDS)), np.float32)
    for row, seed in enumerate(tqdm(seeds, f"render {split}", mininterval=5, unit="clip")):
        clip = sample_clip(seed, split, phenomena, stage)
        frames.append(seen(clip.frames[None])[0])
        labels[row] = clip.scenario.labels
    return np.stack(frames), torch.from_numpy(labels)


def empty_stages(stage: Stage = Stage(), looked_at: int = LOOKED_AT) -> np.ndarray:
    """What is seen of every backdrop with nothing on it, uint8 ``(settings, F', h, w, 3)``."""
    stages = [render(Scenario((), name), np.random.default_rng(0), stage=stage)[0] for name in BACKGROUNDS]
    return seen(np.stack(stages), looked_at)


def frozen(frames_BFHWC: np.ndarray) -> np.ndarray:
    """The first frame for as long as the clip lasts."""
    return np.broadcast_to(frames_BFHWC[:, :1], frames_BFHWC.shape)


@torch.no_grad()
def through_autoencoder(frames_nFHWC: np.ndarray, vae: ModelMixin, batch: int = 8) -> np.ndarray:
    """Whole clips, uint8 ``(n, F, H, W, 3)``, encoded and decoded: the best any generated clip can look."""
    parts = []
    for i in tqdm(range(0, len(frames_nFHWC), batch), "autoencoder", mininterval=5, unit="batch"):
        video = to_pixels(frames_nFHWC[i : i + batch]).to(vae.device, vae.dtype)
        parts.append(to_frames(vae.decode(vae.encode(video).latent_dist.mode()).sample))
    return np.concatenate(parts)


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
    device = device or torch.device("cpu")
    torch.manual_seed(recipe.seed)
    model = Recogniser(recipe.width, recipe.stage).train().to(device, memory_format=torch.channels_last)
    empty = empty_stages(recipe.stage)

    def loss_at(step: int) -> torch.Tensor:
        rng = np.random.default_rng([recipe.seed, step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        rows = rng.integers(len(frames_nFHWC), size=recipe.batch)
        batch, target = frames_nFHWC[rows], labels_nP[rows]
        nothing = np.flatnonzero(rng.random(recipe.batch) < recipe.nothing)
        still, bare = nothing[len(nothing) // 3 :], nothing[: len(nothing) // 3]
        batch[still] = frozen(batch[still])
        batch[bare] = empty[rng.integers(len(empty), size=len(bare))]
        target[nothing] = 0
        x = augment(stacked(batch), generator).to(device).contiguous(memory_format=torch.channels_last)
        with autocast(x.device, torch.bfloat16):
            logits = model(x)
        return functional.binary_cross_entropy_with_logits(logits.float(), target.to(x.device))

    train_judge(model, loss_at, recipe, NAME, work, minutes)
    return model.eval()


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
        empty_false_alarms=float((recognise(model, empty_stages(recipe.stage)) > 0).any(1).float().mean()),
        frozen_false_alarms=float((recognise(model, frozen(frames_nFHWC)) > 0).any(1).float().mean()),
        exact_decoded=None,
        recipe=recipe,
    )


@torch.no_grad()
def recognise(model: Recogniser, frames_nFHWC: np.ndarray) -> torch.Tensor:
    """Logits ``(n, P)``; above 0: the phenomenon is there.

    Args:
        frames_nFHWC: uint8 clips of the model's stage, whole or what is :func:`seen` of them.

    Raises:
        ValueError: clips of another size.
    """
    frames_nFHWC = seen_of(frames_nFHWC, model.stage)
    model.eval()
    parts = (stacked(frames_nFHWC[i : i + 64]) for i in range(0, len(frames_nFHWC), 64))
    return torch.cat([model(part.to(model.head.weight.device)).cpu() for part in parts])


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
