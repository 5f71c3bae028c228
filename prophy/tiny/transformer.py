"""The embedded model's video transformer: a stock ``WanTransformer3DModel`` trained from scratch on cached latents.

prophy tiny transformer --work runs/tiny --minutes 120
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from tqdm import tqdm
from transformers import AutoTokenizer, UMT5EncoderModel

from prophy.data.encode import encode_text
from prophy.data.latents import LatentCache, open_cache
from prophy.tiny.attention import TrainingAttnProcessor
from prophy.training.checkpoints import load_checkpoint, save_checkpoint
from prophy.training.flow import NOISE_LEVELS, fixed_batch, flow_batch, flow_loss
from prophy.training.learner import Learner
from prophy.worlds.scope import SCOPE

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TransformerRecipe:
    """How the transformer is trained: constant rates, a linear cool-down at the end, an EMA that is what ships."""

    clips: int = 10000
    steps: int = 60000
    cool_down: int = 12000
    warm_up: int = 200
    batch: int = 16
    width: int = 256
    heads: int = 4
    layers: int = 8
    muon_rate: float = 0.02
    adamw_rate: float = 1e-3
    weight_decay: float = 0.01
    ema: float = 0.9985
    seed: int = 0


def build_transformer(recipe: TransformerRecipe, channels: int, text_width: int) -> WanTransformer3DModel:
    """A small stock Wan transformer that starts as the identity: every residual and the output begin at zero."""
    torch.manual_seed(recipe.seed)
    transformer = WanTransformer3DModel(
        patch_size=(1, 1, 1),
        num_attention_heads=recipe.heads,
        attention_head_dim=recipe.width // recipe.heads,
        in_channels=channels,
        out_channels=channels,
        text_dim=text_width,
        freq_dim=128,
        ffn_dim=4 * recipe.width,
        num_layers=recipe.layers,
        rope_max_seq_len=64,
    )
    with torch.no_grad():
        for block in transformer.blocks:
            block.scale_shift_table.zero_()
            block.scale_shift_table[:, [2, 5]] = 1.0  # the two gates
            for layer in (block.attn1.to_out[0], block.attn2.to_out[0], block.ffn.net[2]):
                layer.weight.zero_()
                layer.bias.zero_()
        transformer.condition_embedder.time_proj.weight.mul_(0.1)
        transformer.proj_out.weight.zero_()
        transformer.proj_out.bias.zero_()
    return transformer


@dataclass(frozen=True)
class TinyParts:
    """The trained parts a transformer needs beside it."""

    vae: AutoencoderKLWan
    tokenizer: object
    encoder: UMT5EncoderModel


def load_parts(work: Path) -> TinyParts:
    """Open the autoencoder, tokenizer and text encoder trained before.

    Raises:
        FileNotFoundError: one of them has not been trained.
    """
    model = Path(work) / "model"
    for part in ("vae", "tokenizer", "text_encoder"):
        if not (model / part).exists():
            raise FileNotFoundError(f"{model / part} is missing: run `prophy tiny vae` and `text` first")
    return TinyParts(
        AutoencoderKLWan.from_pretrained(model / "vae").eval().requires_grad_(False),
        AutoTokenizer.from_pretrained(model / "tokenizer"),
        UMT5EncoderModel.from_pretrained(model / "text_encoder").eval().requires_grad_(False),
    )


@torch.no_grad()
def validation_losses(predict, cache: LatentCache, clips: int = 128) -> dict[str, float]:
    """Unweighted flow loss at each of :data:`NOISE_LEVELS` on the first ``clips`` clips.

    Args:
        predict: called with a :class:`FlowBatch`, returns the predicted velocity.
    """
    losses = {}
    for level in NOISE_LEVELS:
        rows = [np.arange(i, min(i + 32, clips)) for i in range(0, clips, 32)]
        batches = [fixed_batch(cache, r, level) for r in rows]
        losses[str(level)] = round(float(np.mean([float(flow_loss(predict(b), b)) for b in batches])), 5)
    return losses


def train_transformer(
    work: Path,
    recipe: TransformerRecipe,
    minutes: float,
    compiled: bool = False,
    initial: Path | None = None,
    checkpoint_every: int = 500,
) -> Path:
    """Train until the recipe's end or for ``minutes``, resuming exactly; saves a whole pipeline folder, ``work/model``.

    Args:
        work: folder of checkpoints and results.
        recipe: what to train.
        minutes: stop, resumable, after this long.
        compiled: run the transformer through ``torch.compile``: 1.4 times faster, needs a C++ compiler.
        initial: folder of transformer weights to start from, with a new optimiser, when there is no checkpoint.
        checkpoint_every: steps.

    Raises:
        ValueError: the checkpoint was made by another recipe.
        FloatingPointError: the loss is no longer a number.
    """
    work = Path(work)
    parts = load_parts(work)
    cache = open_cache(work / "latents", parts.vae, parts.tokenizer, recipe.clips, SCOPE)
    held_out = open_cache(work / "latents-test", parts.vae, parts.tokenizer, 256, SCOPE, "test")
    transformer = build_transformer(recipe, parts.vae.config.z_dim, parts.encoder.config.d_model)
    transformer.set_attn_processor(TrainingAttnProcessor())
    if initial is not None:
        weights = WanTransformer3DModel.from_pretrained(initial, dtype=torch.float32)
        transformer.load_state_dict(weights.state_dict())
    learner = Learner(transformer, recipe.muon_rate, recipe.adamw_rate, recipe.weight_decay, recipe.ema)
    step = 0
    if state := load_checkpoint(work / "transformer"):
        for name, value in asdict(recipe).items():
            if name not in ("clips", "steps", "cool_down") and state["recipe"][name] != value:
                raise ValueError(f"{work / 'transformer'} was trained with {name}={state['recipe'][name]}, not {value}")
        learner.load_state_dict(state)
        step = state["step"]
        log.info("resumed at step %d", step)
    forward = torch.compile(transformer, dynamic=False) if compiled else transformer
    end = time.monotonic() + 60 * minutes
    smooth, bar = None, tqdm(total=recipe.steps, initial=step, desc="transformer", mininterval=10)
    while step < recipe.steps and time.monotonic() < end:
        # 1. one step of flow matching
        batch = flow_batch(cache, step, recipe.batch, recipe.seed)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                text = encode_text(parts.encoder, batch.ids_BL)
            prediction = forward(batch.noisy_BCTHW, batch.timestep_B, text, return_dict=False)[0]
        loss = flow_loss(prediction, batch)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"loss is {float(loss)} at step {step} (clips {batch.rows.tolist()})")
        loss.backward()
        # 2. learn
        learner.step(step, min(1.0, (step + 1) / recipe.warm_up, (recipe.steps - step) / recipe.cool_down))
        step += 1
        # 3. report and keep
        smooth = float(loss.detach()) if smooth is None else 0.98 * smooth + 0.02 * float(loss.detach())
        bar.update()
        bar.set_postfix(loss=f"{smooth:.4f}", refresh=False)
        if step % checkpoint_every == 0 or step == recipe.steps or time.monotonic() >= end:
            with learner.averaged():
                losses = validation_losses(_predictor(transformer, parts.encoder), held_out)
                save_pipeline(work / "model", parts, transformer)
            with open(work / "transformer.jsonl", "a") as file:
                file.write(json.dumps({"step": step, "train": round(smooth, 5), **losses}) + "\n")
            state = {"recipe": asdict(recipe), "step": step, **learner.state_dict()}
            save_checkpoint(work / "transformer", state)
    return work / "model"


def _predictor(transformer: WanTransformer3DModel, encoder: UMT5EncoderModel):
    def predict(batch):
        with torch.autocast("cpu", torch.bfloat16):
            text = encode_text(encoder, batch.ids_BL)
            return transformer(batch.noisy_BCTHW, batch.timestep_B, text, return_dict=False)[0]

    return predict


def scheduler() -> UniPCMultistepScheduler:
    """The sampler of the embedded model, as Wan2.1's: UniPC on flow predictions."""
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=2.0)


def save_pipeline(folder: Path, parts: TinyParts, transformer: WanTransformer3DModel) -> None:
    """Save an ordinary diffusers folder that a stock ``WanPipeline.from_pretrained`` opens."""
    pipeline = WanPipeline(
        tokenizer=parts.tokenizer,
        text_encoder=parts.encoder,
        vae=parts.vae,
        scheduler=scheduler(),
        transformer=transformer,
    )
    pipeline.save_pretrained(folder)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="prophy tiny transformer", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/tiny"), help="folder of checkpoints and results")
    parser.add_argument("--minutes", type=float, default=600, help="stop, resumable, after this long")
    parser.add_argument("--clips", type=int, default=TransformerRecipe.clips, help="training clips to encode")
    parser.add_argument("--steps", type=int, default=TransformerRecipe.steps, help="training steps in all")
    parser.add_argument("--cool-down", type=int, default=TransformerRecipe.cool_down, help="steps of the linear decay")
    parser.add_argument("--seed", type=int, default=TransformerRecipe.seed, help="of the batches")
    parser.add_argument("--initial", type=Path, help="transformer folder to start from, with a new optimiser")
    parser.add_argument("--compile", action="store_true", help="1.4 times faster steps; needs a C++ compiler")
    args = parser.parse_args(argv)
    recipe = TransformerRecipe(clips=args.clips, steps=args.steps, cool_down=args.cool_down, seed=args.seed)
    train_transformer(args.work, recipe, args.minutes, args.compile, args.initial)
