"""The embedded model's video autoencoder: a stock ``AutoencoderKLWan`` trained from scratch on the worlds.

prophy tiny vae --work runs/tiny
"""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanRMS_norm

from prophy.data.clip_pool import ClipPool
from prophy.tiny.parts import finish_parts, stage_parser
from prophy.training.devices import autocast, chosen_device
from prophy.training.fit import fit
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
    precision: str = "bfloat16"
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


def vae_loss(
    vae: AutoencoderKLWan, video_BCTHW: torch.Tensor, mask_BTHW: torch.Tensor, recipe: VaeRecipe
) -> torch.Tensor:
    """Reconstruction (L1 + 2·L2 and spatial gradients, weighted up on the phenomena) plus a slight KL term."""
    with autocast(video_BCTHW.device, getattr(torch, recipe.precision)):
        posterior = vae.encode(video_BCTHW).latent_dist
        output = vae.decode(posterior.sample()).sample
    error = output.float() - video_BCTHW
    weight = 1 + recipe.foreground_weight * mask_BTHW[:, None]
    weight = weight / weight.mean()
    pixel = (weight * (error.abs() + 2 * error.square())).mean()
    edges = (error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()) / 2
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    return pixel + 0.5 * edges + recipe.kl_weight * kl


@torch.no_grad()
def reconstruct(vae: AutoencoderKLWan, videos_BCTHW: torch.Tensor, precision: str = "bfloat16") -> torch.Tensor:
    """Encode and decode, float32 in [-1, 1], on the CPU."""
    outputs = []
    for video in videos_BCTHW.split(8):
        with autocast(vae.device, getattr(torch, precision)):
            decoded = vae.decode(vae.encode(video.to(vae.device)).latent_dist.mode()).sample
        outputs.append(decoded.float().clamp(-1, 1).cpu())
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


def train_vae(
    work: Path,
    recipe: VaeRecipe,
    device: torch.device,
    minutes: float | None = None,
    checkpoint_every: int = 500,
) -> AutoencoderKLWan | None:
    """Train to the end of the recipe, resuming from ``work/vae``. None if the time ended first.

    Raises:
        ValueError: the folder holds the training of another recipe. One line.
        TrainingStopped: the loss is no longer a number.
    """
    torch.manual_seed(recipe.seed)
    vae = build_vae()
    quiet_posterior(vae)
    channels_last(vae.to(device))
    inner = [
        (parameter.ndim >= 4 and min(parameter.shape[:2]) >= 16 and not name.startswith(("quant", "post_quant")))
        and not name.endswith(("conv_in.weight", "conv_out.weight"))
        for name, parameter in vae.named_parameters()
    ]
    matrices = [p for p, muon in zip(vae.parameters(), inner, strict=True) if muon]
    others = [p for p, muon in zip(vae.parameters(), inner, strict=True) if not muon]
    pool = ClipPool(work / "pool", recipe.pool)
    held_out = validation_clips(32)

    def loss_at(step: int) -> torch.Tensor:
        video, mask = _batch(pool, recipe, step)
        video = video.to(device).contiguous(memory_format=torch.channels_last_3d)
        return vae_loss(vae, video, mask.to(device), recipe)

    with fast_norm():
        made = fit(
            vae,
            loss_at,
            MuonAdamW(matrices, others, recipe.muon_rate, recipe.adamw_rate, weight_decay=1e-3),
            steps=recipe.steps,
            name="vae",
            share_of_peak=lambda step: recipe.at(step)[1],
            recipe=recipe,
            folder=work / "vae",
            minutes=minutes,
            measure=lambda _: {"psnr": psnr(reconstruct(vae, held_out, recipe.precision), held_out)},
            checkpoint_every=checkpoint_every,
        )
    return vae if made == recipe.steps else None


@torch.no_grad()
def latent_statistics(
    vae: AutoencoderKLWan, clips: int = 256, precision: str = "bfloat16"
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each latent channel over training clips."""
    latents = []
    for i in range(0, clips, 8):
        video = torch.stack([to_tensor(sample_clip(s, "train").frames) for s in range(i, i + 8)])
        with autocast(vae.device, getattr(torch, precision)):
            latents.append(vae.encode(video.to(vae.device)).latent_dist.mode().float().cpu())
    latents = torch.cat(latents).transpose(0, 1).flatten(1)
    return latents.mean(1).tolist(), latents.std(1).tolist()


def main(argv: list[str]) -> None:
    parser = stage_parser("vae", __doc__)
    args = parser.parse_args(argv)
    recipe = VaeRecipe()
    device = chosen_device(args.device)
    vae = train_vae(args.work, recipe, device, args.minutes)
    if vae is None:
        return
    mean, std = latent_statistics(vae, precision=recipe.precision)
    final = build_vae(mean, std)
    final.load_state_dict(vae.state_dict())
    final.save_pretrained(args.work / "model" / "vae")
    finish_parts(args.work / "model")
    videos = validation_clips(100)
    reconstructed = reconstruct(final.to(device), videos, recipe.precision)
    result = {"psnr": psnr(reconstructed, videos), "pca_psnr": pca_psnr(), "recipe": asdict(recipe)}
    (args.work / "vae-result.json").write_text(json.dumps(result, indent=2))
    log.info("held-out PSNR %.2f dB, PCA of as many coefficients %.2f dB", result["psnr"], result["pca_psnr"])
