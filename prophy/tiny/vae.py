"""The embedded model's video autoencoder: a stock ``AutoencoderKLWan`` trained from scratch on the worlds.

prophy tiny vae --work runs/tiny
"""

from __future__ import annotations

import json
import logging
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from diffusers import AutoencoderKLWan

from prophy.backbones.autoencoder import channels_last, to_pixels
from prophy.backbones.opening import part_opened
from prophy.data.clip_pool import ClipPool
from prophy.flags import only_set, whole
from prophy.schema import (
    AtLeastNone,
    AtLeastOne,
    BatchSize,
    LearningRate,
    LossWeight,
    Seed,
    Share,
    ShareBelowOne,
    Width,
    check_fields,
)
from prophy.tiny import fast_vae
from prophy.tiny.latent_scale import latent_scale
from prophy.tiny.linear_code import LinearCode, cells, pooled_code
from prophy.tiny.parts import finish_parts, stage_parser
from prophy.training.devices import autocast, chosen_device
from prophy.training.ema import Ema
from prophy.training.fit import fit
from prophy.training.optim import MuonAdamW
from prophy.worlds import Stage, sample_clip

#: What the embedded model shows: two seconds, wide enough for two events side by side. docs/EXPERIMENTS.md says why.
STAGE = Stage(192, 128, 17, 8)
PATCH = 2  #: pixels on a side that the first layer takes together
CELL = 4 * PATCH  #: pixels on a side of a latent cell; a token of the backbone has 2×2 of them, as Wan's
LATENT_CHANNELS = 32
Learns: TypeAlias = Literal["apart", "together", "decoder"]
QUIET = math.exp(-6)  #: variance of the posterior at the start: with the default, the decoder first sees nothing else

MOST_PIXELS = 2**28  #: of a step: a thousand times the recipe's

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Phase:
    """A stretch of training on square windows; the learning rate goes linearly between two shares of its peak.

    Attributes:
        steps: how many.
        frames: of a window, 1 + 4k.
        crop: pixels on a side of a window; a multiple of a latent cell.
        batch: windows in a step.
        first_share: of the peak rates, at its first step.
        last_share: likewise at its last.
        learns: "apart": both halves, which do not meet yet, see :func:`apart_loss`; "together"; or "decoder": the
            encoder stands still, with its averaged weights.
    """

    steps: AtLeastOne
    frames: Width
    crop: Width
    batch: BatchSize
    first_share: Share
    last_share: Share
    learns: Learns = "together"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.frames % 4 != 1 or self.frames > STAGE.frames:
            raise ValueError(f"frames={self.frames}: give one more than a multiple of 4, at most {STAGE.frames}")
        if self.crop % CELL or self.crop > STAGE.height:
            raise ValueError(f"crop={self.crop}: give a multiple of {CELL}, at most {STAGE.height}")
        if (pixels := self.batch * self.frames * self.crop**2) > MOST_PIXELS:
            raise ValueError(f"batch={self.batch}: a step of {pixels:,} pixels is larger than {MOST_PIXELS:,}")


@dataclass(frozen=True)
class VaeRecipe:
    """How the autoencoder is trained.

    First encoder and decoder learn apart, from a linear code (:mod:`prophy.tiny.linear_code`): a decoder that sees a
    good code learns to draw within a few hundred steps, and one whose encoder knows nothing does not. Then they learn
    together until the code is settled, and the decoder goes on alone: a step is a third cheaper, and what is trained on
    latents can begin beside it, for they no longer change. Convolutions are local, so most steps see small windows:
    many more of them. The last phase sees windows as high as the stage, where the edges of small ones no longer matter.
    The rates fall: after 400 steps that shows as much as 1,500 at the peak did.

    Laws live in small, fast things: a spring of 40 pixels must have a say beside a wall. So each event's pixels weigh
    by its share of the window, ``event_weight`` in all, and what changes from frame to frame has a term of its own.

    Attributes:
        pool: clips, every second one by clocks that obey no law, as the backbone's training clips do.
        phases: one after the other.
        muon_rate: peak rate of the kernels.
        adamw_rate: peak rate of the rest.
        warm_up: steps.
        kl_weight: of the posterior's divergence from unit noise.
        event_weight: what the pixels of one event weigh together, as a share of the window's.
        most_weight: of one pixel: a tiny event must not be all that counts.
        edge_weight: of the differences of neighbouring pixels.
        motion_weight: of the differences of neighbouring frames.
        behind: steps of the phases that the first weights have behind them, see :func:`train_vae`.
        ema: decay of the moving average of the weights, which is what is kept.
        precision: of matrix products.
        seed: of the start and of the windows.
    """

    pool: AtLeastOne = 3000
    phases: tuple[Phase, ...] = (
        Phase(1500, frames=17, crop=64, batch=4, first_share=1.0, last_share=0.75, learns="apart"),
        Phase(1500, frames=17, crop=64, batch=4, first_share=0.75, last_share=0.2),
        Phase(3000, frames=17, crop=64, batch=4, first_share=0.6, last_share=0.1, learns="decoder"),
        Phase(1500, frames=17, crop=128, batch=1, first_share=0.1, last_share=0.01, learns="decoder"),
    )
    muon_rate: LearningRate = 0.03
    adamw_rate: LearningRate = 3e-3
    warm_up: AtLeastOne = 50
    kl_weight: LossWeight = 1e-4
    event_weight: LossWeight = 0.25
    most_weight: LossWeight = 10.0
    edge_weight: LossWeight = 0.25
    motion_weight: LossWeight = 0.5
    behind: AtLeastNone = 0
    ema: ShareBelowOne = 0.998
    precision: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.steps < 1:
            raise ValueError(f"behind={self.behind} leaves nothing of {self.steps + self.behind} steps to train")

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases) - self.behind

    def at(self, step: int) -> tuple[Phase, float]:
        """The phase ``step`` falls in, and the share of the peak learning rate it uses."""
        warm = min(1.0, (step + 1) / self.warm_up)
        step += self.behind
        for phase in self.phases:
            if step < phase.steps:
                done = step / phase.steps
                return phase, warm * (phase.first_share + (phase.last_share - phase.first_share) * done)
            step -= phase.steps
        raise IndexError(f"the recipe has {self.steps} steps")


def build_vae() -> AutoencoderKLWan:
    """The tiny autoencoder: 32 latent channels, 4× shorter, 8× smaller (a 2×2 patch and two 2× stages).

    Its residual shortcuts (those of Wan2.2's autoencoder) carry pixels past the convolutions: without them
    training is several times slower. Cells twice as large cannot be drawn from: the decoder repeats pixels where it
    grows, and only neighbours and the last layer tell the parts of a cell apart.
    """
    return AutoencoderKLWan(
        base_dim=32,
        decoder_base_dim=32,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        is_residual=True,
        patch_size=PATCH,
        in_channels=3 * PATCH**2,
        out_channels=3 * PATCH**2,
        scale_factor_temporal=4,
        scale_factor_spatial=CELL,
        latents_mean=[0.0] * LATENT_CHANNELS,
        latents_std=[1.0] * LATENT_CHANNELS,
    )


def quiet_posterior(vae: AutoencoderKLWan) -> None:
    """Start with a posterior of variance :data:`QUIET`."""
    with torch.no_grad():
        vae.quant_conv.weight[LATENT_CHANNELS:].zero_()
        vae.quant_conv.bias[LATENT_CHANNELS:] = math.log(QUIET)


def _batch(pool: ClipPool, recipe: VaeRecipe, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The windows and weights of one step: a function of the step alone, so that a resumed run sees the same."""
    rng = np.random.default_rng([recipe.seed, recipe.behind + step])
    phase, _ = recipe.at(step)
    count, frames, height, width = pool.events.shape
    room = np.array([height, width]) - phase.crop
    videos, weights = [], []
    for i in rng.integers(0, count, phase.batch):
        first = int(rng.integers(0, frames - phase.frames + 1))
        events = pool.events[i, first : first + phase.frames]
        corner = rng.integers(0, room + 1)
        where = np.argwhere(events)
        if len(where) and rng.random() < 0.85:  # most of a frame is wall: look where something happens
            jitter = rng.integers(-phase.crop // 3, phase.crop // 3 + 1, 2)
            corner = np.clip(where[rng.integers(len(where)), 1:] - phase.crop // 2 + jitter, 0, room)
        window = np.s_[:, corner[0] : corner[0] + phase.crop, corner[1] : corner[1] + phase.crop]
        videos.append(to_pixels(pool.frames[i, first : first + phase.frames][window]))
        weights.append(_weights(events[window], recipe))
    return torch.stack(videos), torch.stack(weights)


def _weights(events_FHW: np.ndarray, recipe: VaeRecipe) -> torch.Tensor:
    """What each pixel of a window weighs, float32 ``(F, H, W)`` of mean 1: the smaller its event, the more."""
    weights = np.ones(events_FHW.shape, np.float32)
    for event in (1, 2):
        here = events_FHW == event
        if share := here.mean():
            weights[here] += min(recipe.event_weight / share, recipe.most_weight)
    return torch.from_numpy(weights / weights.mean())


def vae_loss(
    vae: AutoencoderKLWan, video_BCTHW: torch.Tensor, weight_BTHW: torch.Tensor, recipe: VaeRecipe
) -> torch.Tensor:
    """What is lost of clips that are encoded and decoded, and a slight KL term (a constant once the encoder stands)."""
    with autocast(video_BCTHW.device, getattr(torch, recipe.precision)):
        posterior = fast_vae.encode(vae, video_BCTHW)
        output = fast_vae.decode(vae, posterior.sample())
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    return _lost(output, video_BCTHW, weight_BTHW, recipe) + recipe.kl_weight * kl


def apart_loss(
    vae: AutoencoderKLWan, video_BCTHW: torch.Tensor, weight_BTHW: torch.Tensor, recipe: VaeRecipe, code: LinearCode
) -> torch.Tensor:
    """The decoder draws clips from their linear codes; the encoder names the codes of the first half of them.

    A component weighs by its deviation in pixels, up to four times the mean one's.
    """
    wanted = code.encode(video_BCTHW)
    half = video_BCTHW[: (len(video_BCTHW) + 1) // 2]
    with autocast(video_BCTHW.device, getattr(torch, recipe.precision)):
        named = fast_vae.encode(vae, half).mean
        output = fast_vae.decode(vae, wanted + QUIET**0.5 * torch.randn_like(wanted))
    weight_C = (code.deviation_C / code.deviation_C.mean()).clamp(max=4)
    error = named.float() - wanted[: len(half)]
    missed = (error.abs() + 0.1 * weight_C[:, None, None, None] * error.square()).mean()
    return _lost(output, video_BCTHW, weight_BTHW, recipe) + missed


def _lost(
    output_BCTHW: torch.Tensor, video_BCTHW: torch.Tensor, weight_BTHW: torch.Tensor, recipe: VaeRecipe
) -> torch.Tensor:
    """L1 and twice L2 of pixels and L1 of what moves, weighted; L1 of edges."""
    error = output_BCTHW.float() - video_BCTHW
    weight = weight_BTHW[:, None]
    pixel = (weight * (error.abs() + 2 * error.square())).mean()
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    motion = ((weight[:, :, 1:] + weight[:, :, :-1]) / 2 * error.diff(dim=2).abs()).mean()
    return pixel + recipe.edge_weight * edges + recipe.motion_weight * motion


@torch.no_grad()
def reconstruct(vae: AutoencoderKLWan, videos_BCTHW: torch.Tensor, precision: str = "bfloat16") -> torch.Tensor:
    """Encode and decode, float32 in [-1, 1], on the CPU."""
    outputs = []
    for video in videos_BCTHW.split(4):
        with autocast(vae.device, getattr(torch, precision)):
            decoded = vae.decode(vae.encode(video.to(vae.device)).latent_dist.mode()).sample
        outputs.append(decoded.float().clamp(-1, 1).cpu())
    return torch.cat(outputs)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean over clips of the peak signal-to-noise ratio, dB, for values in [-1, 1]."""
    mse = (a - b).square().flatten(1).mean(1)
    return float((10 * torch.log10(4 / mse)).mean())


def code_psnr(code: LinearCode, test_clips: int = 50) -> float:
    """PSNR of a linear code over held-out clips, dB, all but their first frames."""
    scores = []
    for seed in range(test_clips):
        video = to_pixels(sample_clip(seed, "test", stage=STAGE).frames)[None]
        scores.append(10 * np.log10(4 / float(code.error(cells(video, CELL)[:, 1:].flatten(0, 3)).mean())))
    return float(np.mean(scores))


def validation_clips(count: int, split: str = "test") -> torch.Tensor:
    """The first ``count`` clips of a held-out split, ``(count, 3, F, H, W)``."""
    return torch.stack([to_pixels(sample_clip(i, split, stage=STAGE).frames) for i in range(count)])


def training_code(work: Path, pool: ClipPool) -> LinearCode:
    """The linear code of the training's clips, kept in its folder."""
    return pooled_code(work / "linear-code.safetensors", pool, CELL, LATENT_CHANNELS)


def train_vae(
    work: Path,
    recipe: VaeRecipe,
    device: torch.device,
    minutes: float | None = None,
    checkpoint_every: int = 500,
    initial: Path | None = None,
) -> AutoencoderKLWan | None:
    """Train to the end of the recipe, resuming from ``work/vae``. None if the time ended first.

    Args:
        work: folder of the stages.
        recipe: how.
        device: where.
        minutes: stop, resumable, after this long.
        checkpoint_every: steps.
        initial: a saved autoencoder to start from instead of chance, with a new optimiser: one that another machine
            trained for ``recipe.behind`` steps.

    Once the encoder stands still, ``work/model/vae`` holds it beside the decoder of that step.

    Returns:
        It, with its averaged weights, its configuration with the scale of its latents.

    Raises:
        ValueError: the folder holds the training of another recipe. One line.
        TrainingStopped: the loss is no longer a number.
    """
    torch.manual_seed(recipe.seed)
    vae = build_vae()
    quiet_posterior(vae)
    if initial is not None:
        with part_opened(initial):
            vae.load_state_dict(AutoencoderKLWan.from_pretrained(initial, dtype=torch.float32).state_dict())
    channels_last(vae.to(device))
    inner = [
        (parameter.ndim >= 4 and min(parameter.shape[:2]) >= 16 and not name.startswith(("quant", "post_quant")))
        and not name.endswith(("conv_in.weight", "conv_out.weight"))
        for name, parameter in vae.named_parameters()
    ]
    matrices = [p for p, muon in zip(vae.parameters(), inner, strict=True) if muon]
    others = [p for p, muon in zip(vae.parameters(), inner, strict=True) if not muon]
    pool = ClipPool(work / "pool", recipe.pool, STAGE)
    code = training_code(work, pool).to(device)
    held_out = validation_clips(32)
    ema = Ema(vae, recipe.ema)

    def loss_at(step: int) -> torch.Tensor:
        video, weight = _batch(pool, recipe, step)
        video, weight = video.to(device).contiguous(memory_format=torch.channels_last_3d), weight.to(device)
        learns = recipe.at(step)[0].learns
        if learns == "apart":
            return apart_loss(vae, video, weight, recipe, code)
        if learns == "decoder" and _settle_encoder(vae, ema, recipe):
            with ema.averaged():
                save_vae(vae, work)
        return vae_loss(vae, video, weight, recipe)

    optimiser = MuonAdamW(matrices, others, recipe.muon_rate, recipe.adamw_rate, weight_decay=1e-3)
    made = fit(
        vae,
        loss_at,
        optimiser,
        steps=recipe.steps,
        name="vae",
        pace=lambda step: optimiser.set_rate(recipe.at(step)[1]),
        recipe=recipe,
        folder=work / "vae",
        ema=ema,
        minutes=minutes,
        measure=lambda _: {"psnr": psnr(reconstruct(vae, held_out, recipe.precision), held_out)},
        checkpoint_every=checkpoint_every,
        data=pool.drawn,
    )
    if made < recipe.steps:
        return None
    _settle_encoder(vae, ema, recipe)
    vae.load_state_dict({**vae.state_dict(), **ema.average})
    return vae


def _settle_encoder(vae: AutoencoderKLWan, ema: Ema, recipe: VaeRecipe) -> bool:
    """Give the encoder its averaged weights, which stay, and note the scale of its latents; False: it has them."""
    if not vae.quant_conv.weight.requires_grad:
        return False
    with torch.no_grad():
        for name, parameter in vae.named_parameters():
            if name.startswith(("encoder.", "quant_conv.")):
                parameter.copy_(ema.average[name])
                parameter.requires_grad_(False)
    mean, std = latent_scale(vae, STAGE, precision=recipe.precision)
    vae.register_to_config(latents_mean=mean, latents_std=std)
    return True


def save_vae(vae: AutoencoderKLWan, work: Path) -> None:
    """Keep it where the other stages look for it."""
    vae.save_pretrained(work / "model" / "vae")
    finish_parts(work / "model")


def larger(recipe: VaeRecipe, times: int) -> VaeRecipe:
    """The same with batches so many times as large; the rates stay, since Muon's steps do not grow with a gradient."""
    return replace(recipe, phases=tuple(replace(phase, batch=times * phase.batch) for phase in recipe.phases))


def main(argv: list[str]) -> None:
    parser = stage_parser("vae", __doc__)
    parser.add_argument("--initial", type=Path, metavar="DIR", help="start from this autoencoder, with a new optimiser")
    parser.add_argument("--behind", type=whole, help="steps of the recipe that --initial has behind it")
    parser.add_argument(
        "--batch-times", type=whole, default=1, metavar="N", help="batches N times as large, for an accelerator"
    )
    args = parser.parse_args(argv)
    if (args.initial is None) != (args.behind is None):
        raise ValueError("--initial and --behind go together: weights, and how many steps they have behind them")
    recipe = larger(VaeRecipe(**only_set(args, "behind")), args.batch_times)
    device = chosen_device(args.device)
    vae = train_vae(args.work, recipe, device, args.minutes, initial=args.initial)
    if vae is None:
        return
    save_vae(vae, args.work)
    videos = validation_clips(100)
    reconstructed = reconstruct(vae, videos, recipe.precision)
    code = training_code(args.work, ClipPool(args.work / "pool", recipe.pool, STAGE))
    result = {"psnr": psnr(reconstructed, videos), "linear_psnr": code_psnr(code), "recipe": asdict(recipe)}
    (args.work / "vae-result.json").write_text(json.dumps(result, indent=2))
    log.info("held-out PSNR %.2f dB, linear code of as many numbers %.2f dB", result["psnr"], result["linear_psnr"])
