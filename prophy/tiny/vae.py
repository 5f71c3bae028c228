"""The embedded model's video autoencoder: a stock ``AutoencoderKLWan`` trained from scratch on the worlds.

prophy tiny vae --work runs/tiny
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanRMS_norm
from tqdm import tqdm

from prophy.data.clip_pool import ClipPool
from prophy.training.checkpoints import load_checkpoint, save_checkpoint
from prophy.training.optim import MuonAdamW
from prophy.worlds import FRAMES, SIZE, sample_clip

LATENT_CHANNELS = 24

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Phase:
    """A stretch of training on windows of one size; the learning rate goes linearly between two shares of its peak.

    ``crop=None`` means whole frames.
    """

    steps: int
    frames: int
    crop: int | None
    batch: int
    first_share: float
    last_share: float


@dataclass(frozen=True)
class VaeRecipe:
    """How the autoencoder is trained.

    Convolutions are local, so most steps see small crops: many more of them. The first phase also sees few frames;
    staying there would let the later frames drift, for the causal cache carries errors on. The last two phases are
    a warm restart: the learning rate rises once more, and falls to nothing.
    """

    pool: int = 6000
    phases: tuple[Phase, ...] = (
        Phase(1500, frames=9, crop=32, batch=8, first_share=1.0, last_share=0.834),
        Phase(6100, frames=FRAMES, crop=32, batch=5, first_share=0.815, last_share=0.063),
        Phase(350, frames=FRAMES, crop=None, batch=4, first_share=0.063, last_share=0.02),
        Phase(3000, frames=FRAMES, crop=32, batch=5, first_share=0.4, last_share=0.08),
        Phase(700, frames=FRAMES, crop=None, batch=3, first_share=0.08, last_share=0.01),
    )
    muon_rate: float = 0.03
    adamw_rate: float = 3e-3
    warm_up: int = 50
    kl_weight: float = 1e-4
    foreground_weight: float = 2.0
    seed: int = 0

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    def at(self, step: int) -> tuple[Phase, float]:
        """The phase ``step`` falls in, and the share of the peak learning rate it uses."""
        warm = min(1.0, (step + 1) / self.warm_up)
        for phase in self.phases:
            if step < phase.steps:
                done = step / phase.steps
                return phase, warm * (phase.first_share + (phase.last_share - phase.first_share) * done)
            step -= phase.steps
        raise IndexError(f"the recipe has {self.steps} steps")


def build_vae(mean: list[float] | None = None, std: list[float] | None = None) -> AutoencoderKLWan:
    """The tiny autoencoder: 24 latent channels, 4× shorter, 8× smaller (a 2×2 patch and two 2× stages).

    Its residual shortcuts (those of Wan2.2's autoencoder) carry pixels past the convolutions: without them
    training is several times slower.
    """
    return AutoencoderKLWan(
        base_dim=24,
        decoder_base_dim=32,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 4, 4],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        is_residual=True,
        patch_size=2,
        in_channels=12,
        out_channels=12,
        scale_factor_temporal=4,
        scale_factor_spatial=8,
        latents_mean=mean or [0.0] * LATENT_CHANNELS,
        latents_std=std or [1.0] * LATENT_CHANNELS,
    )


def quiet_posterior(vae: AutoencoderKLWan) -> None:
    """Start with little posterior noise: with the default, the decoder first sees nothing else."""
    with torch.no_grad():
        vae.quant_conv.weight[LATENT_CHANNELS:].zero_()
        vae.quant_conv.bias[LATENT_CHANNELS:] = -6.0


class _RmsNorm(torch.autograd.Function):
    """RMS normalisation over channels in bf16, with the few passes over memory it needs."""

    @staticmethod
    def forward(ctx, x, gamma):
        inverse = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32).square() / x.shape[1]
        inverse = torch.rsqrt(inverse + 1e-12).to(x.dtype)
        normal = x * inverse
        ctx.save_for_backward(normal, inverse, gamma)
        return normal * gamma.to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        normal, inverse, gamma = ctx.saved_tensors
        grad = grad.to(normal.dtype)
        product = grad * normal
        rest = [d for d in range(grad.ndim) if d != 1]
        grad_gamma = product.sum(rest, keepdim=True, dtype=torch.float32)[0].to(gamma.dtype)
        scale = gamma.to(normal.dtype)
        return (grad * scale - normal * (product * scale).mean(1, keepdim=True)) * inverse, grad_gamma


@contextmanager
def fast_norm():
    """While training, compute the autoencoder's norms in bf16: the same function, a third less time a step."""
    stock = WanRMS_norm.forward
    WanRMS_norm.forward = lambda self, x: _RmsNorm.apply(x.to(torch.bfloat16), self.gamma)
    try:
        yield
    finally:
        WanRMS_norm.forward = stock


def channels_last(model: torch.nn.Module) -> torch.nn.Module:
    """Lay convolution weights out channels-last: half the time on a CPU with bf16 units."""
    for module in model.modules():
        if isinstance(module, torch.nn.Conv3d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
        elif isinstance(module, torch.nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    return model


def to_tensor(frames: np.ndarray) -> torch.Tensor:
    """uint8 ``(F, H, W, 3)`` to float ``(3, F, H, W)`` in [-1, 1]."""
    return torch.from_numpy(frames).permute(3, 0, 1, 2).float() / 127.5 - 1.0


def _batch(pool: ClipPool, recipe: VaeRecipe, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The videos and masks of one step: a function of the step alone, so that a resumed run sees the same."""
    rng = np.random.default_rng([recipe.seed, step])
    phase, _ = recipe.at(step)
    if phase.crop is None:
        chosen = rng.integers(0, recipe.pool, phase.batch)
        return torch.stack([to_tensor(pool.frames[i]) for i in chosen]), torch.from_numpy(pool.masks[chosen])
    videos, masks = [], []
    for i in rng.integers(0, recipe.pool, phase.batch):
        first = int(rng.integers(0, FRAMES - phase.frames + 1))
        mask = pool.masks[i, first : first + phase.frames]
        y, x = rng.integers(0, SIZE - phase.crop + 1, 2)
        where = np.argwhere(mask)
        if len(where) and rng.random() < 0.8:  # most of a frame is wall: look where something happens
            _, cy, cx = where[rng.integers(len(where))]
            jitter = rng.integers(-phase.crop // 3, phase.crop // 3 + 1, 2)
            y, x = np.clip(np.array([cy, cx]) - phase.crop // 2 + jitter, 0, SIZE - phase.crop)
        window = np.s_[:, y : y + phase.crop, x : x + phase.crop]
        videos.append(to_tensor(pool.frames[i, first : first + phase.frames][window]))
        masks.append(torch.from_numpy(mask[window]))
    return torch.stack(videos), torch.stack(masks)


def vae_loss(vae: AutoencoderKLWan, video_BCTHW: torch.Tensor, mask_BTHW: torch.Tensor, recipe: VaeRecipe):
    """Reconstruction (L1 + 2·L2 and spatial gradients, weighted up on the phenomena) plus a slight KL term."""
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(video_BCTHW).latent_dist
        output = vae.decode(posterior.sample()).sample
    error = output.float() - video_BCTHW
    weight = 1 + recipe.foreground_weight * mask_BTHW[:, None]
    weight = weight / weight.mean()
    pixel = (weight * (error.abs() + 2 * error.square())).mean()
    edges = (error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()) / 2
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    return pixel + 0.5 * edges + recipe.kl_weight * kl, error.square().mean().detach()


@torch.no_grad()
def reconstruct(vae: AutoencoderKLWan, videos_BCTHW: torch.Tensor) -> torch.Tensor:
    """Encode and decode, float32 in [-1, 1]."""
    outputs = []
    for video in videos_BCTHW.split(8):
        with torch.autocast("cpu", torch.bfloat16):
            outputs.append(vae.decode(vae.encode(video).latent_dist.mode()).sample.float().clamp(-1, 1))
    return torch.cat(outputs)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean over clips of the peak signal-to-noise ratio, dB, for values in [-1, 1]."""
    mse = (a - b).square().flatten(1).mean(1)
    return float((10 * torch.log10(4 / mse)).mean())


def pca_psnr(coefficients: int = LATENT_CHANNELS, train_clips: int = 400, test_clips: int = 100) -> float:
    """PSNR of a linear code with as many coefficients per 4×8×8 block as the autoencoder has latent channels."""

    def blocks(seed: int, split: str) -> np.ndarray:
        frames = sample_clip(seed, split).frames[1:].astype(np.float32) / 127.5 - 1
        return frames.reshape(4, 4, 8, 8, 8, 8, 3).transpose(0, 2, 4, 1, 3, 5, 6).reshape(-1, 4 * 8 * 8 * 3)

    data = np.concatenate([blocks(i, "train") for i in range(train_clips)])
    mean = data.mean(0)
    centred = data - mean
    _, vectors = np.linalg.eigh(centred.T @ centred)
    basis = vectors[:, -coefficients:]
    scores = []
    for i in range(test_clips):
        x = blocks(i, "test") - mean
        scores.append(10 * np.log10(4 / np.square(x - x @ basis @ basis.T).mean()))
    return float(np.mean(scores))


def validation_clips(count: int, split: str = "test") -> torch.Tensor:
    """The first ``count`` clips of a held-out split, ``(count, 3, F, H, W)``."""
    return torch.stack([to_tensor(sample_clip(i, split).frames) for i in range(count)])


def train_vae(work: Path, recipe: VaeRecipe, checkpoint_every: int = 500) -> AutoencoderKLWan:
    """Train to the end of the recipe, resuming from ``work/vae`` if it holds a checkpoint.

    Raises:
        ValueError: the checkpoint was made by another recipe.
        FloatingPointError: the loss is no longer a number.
    """
    torch.manual_seed(recipe.seed)
    vae = build_vae()
    quiet_posterior(vae)
    channels_last(vae)
    inner = [
        (parameter.ndim >= 4 and min(parameter.shape[:2]) >= 16 and not name.startswith(("quant", "post_quant")))
        and not name.endswith(("conv_in.weight", "conv_out.weight"))
        for name, parameter in vae.named_parameters()
    ]
    matrices = [p for p, muon in zip(vae.parameters(), inner, strict=True) if muon]
    others = [p for p, muon in zip(vae.parameters(), inner, strict=True) if not muon]
    optimiser = MuonAdamW(matrices, others, recipe.muon_rate, recipe.adamw_rate, weight_decay=1e-3)
    recorded = json.loads(json.dumps(asdict(recipe)))
    total, step = recipe.steps, 0
    if state := load_checkpoint(work / "vae"):
        if state["recipe"] != recorded:
            raise ValueError(f"{work / 'vae'} was trained with another recipe: choose another --work or delete it")
        vae.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["rng"])
        step = state["step"]
        log.info("resumed at step %d", step)
    work.mkdir(parents=True, exist_ok=True)
    pool = ClipPool(work / "pool", recipe.pool)
    held_out = validation_clips(32)
    bar = tqdm(total=total, initial=step, desc="vae", mininterval=10)
    smooth, began = None, time.monotonic()
    while step < total:
        # 1. learning rate
        optimiser.set_rate(recipe.at(step)[1])
        # 2. one step
        video, mask = _batch(pool, recipe, step)
        with fast_norm():
            loss, mse = vae_loss(vae, video.contiguous(memory_format=torch.channels_last_3d), mask, recipe)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"loss is {float(loss)} at step {step}: lower the learning rate and resume")
            loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        step += 1
        # 3. report and keep
        smooth = float(mse) if smooth is None else 0.98 * smooth + 0.02 * float(mse)
        bar.update()
        bar.set_postfix(psnr=f"{10 * math.log10(4 / smooth):.2f}", refresh=False)
        if step % checkpoint_every == 0 or step == total:
            score = psnr(reconstruct(vae, held_out), held_out)
            row = {"step": step, "seconds": round(time.monotonic() - began, 1), "psnr": round(score, 3)}
            with open(work / "vae.jsonl", "a") as file:
                file.write(json.dumps(row) + "\n")
            save_checkpoint(
                work / "vae",
                {
                    "recipe": recorded,
                    "step": step,
                    "model": vae.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "rng": torch.get_rng_state(),
                },
            )
    return vae


def latent_statistics(vae: AutoencoderKLWan, clips: int = 256) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each latent channel over training clips."""
    latents = []
    with torch.no_grad():
        for i in range(0, clips, 8):
            video = torch.stack([to_tensor(sample_clip(s, "train").frames) for s in range(i, i + 8)])
            with torch.autocast("cpu", torch.bfloat16):
                latents.append(vae.encode(video).latent_dist.mode().float())
    latents = torch.cat(latents).transpose(0, 1).flatten(1)
    return latents.mean(1).tolist(), latents.std(1).tolist()


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="prophy tiny vae", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/tiny"), help="folder of checkpoints and results")
    args = parser.parse_args(argv)
    recipe = VaeRecipe()
    vae = train_vae(args.work, recipe)
    mean, std = latent_statistics(vae)
    final = build_vae(mean, std)
    final.load_state_dict(vae.state_dict())
    final.save_pretrained(args.work / "model" / "vae")
    videos = validation_clips(100)
    result = {"psnr": psnr(reconstruct(final, videos), videos), "pca_psnr": pca_psnr(), "recipe": asdict(recipe)}
    (args.work / "vae-result.json").write_text(json.dumps(result, indent=2))
    log.info("held-out PSNR %.2f dB, PCA of as many coefficients %.2f dB", result["psnr"], result["pca_psnr"])
