"""The parts that the embedded model's transformer needs beside it: a folder that becomes its base.

``prophy tiny vae`` and ``prophy tiny text`` fill ``WORK/model``; ``prophy train --recipe tiny_transformer --model
WORK/model`` trains the transformer, which that folder lacks until ``prophy tiny ship``.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from transformers import AutoTokenizer, PreTrainedTokenizerBase, UMT5EncoderModel

from prophy.backbones.opening import open_text_encoder, part_opened
from prophy.flags import time_limit

CLIPS = 12_000  #: of the worlds' training split, that the shipped transformer and branch learnt from


@dataclass(frozen=True)
class TinyParts:
    """The trained parts beside a transformer."""

    vae: AutoencoderKLWan
    tokenizer: PreTrainedTokenizerBase
    encoder: UMT5EncoderModel


def load_parts(model: Path) -> TinyParts:
    """Open the autoencoder, tokenizer and text encoder trained before.

    Args:
        model: ``WORK/model``.

    Raises:
        FileNotFoundError: one of them has not been trained.
        ValueError: one of them is damaged. One line.
    """
    model = Path(model)
    for part in ("vae", "tokenizer", "text_encoder"):
        if not (model / part).exists():
            raise FileNotFoundError(f"{model / part} is missing: run `prophy tiny vae` and `prophy tiny text` first")
    with part_opened(model / "vae"):
        vae = AutoencoderKLWan.from_pretrained(model / "vae").eval().requires_grad_(False)
    with part_opened(model / "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(model / "tokenizer")
    return TinyParts(vae, tokenizer, open_text_encoder(model / "text_encoder").requires_grad_(False))


def finish_parts(model: Path) -> None:
    """Once all parts are there, make them a base for training: a scheduler, and the index of an ordinary pipeline."""
    try:
        parts = load_parts(model)
    except FileNotFoundError:
        return
    pipeline = _pipeline(parts, None)
    pipeline.scheduler.save_pretrained(model / "scheduler")
    pipeline.register_to_config(transformer=("diffusers", WanTransformer3DModel.__name__))
    pipeline.save_config(model)


def save_pipeline(folder: Path, parts: TinyParts, transformer: WanTransformer3DModel) -> None:
    """Save an ordinary diffusers folder that a stock ``WanPipeline.from_pretrained`` opens."""
    _pipeline(parts, transformer).save_pretrained(folder)


def _pipeline(parts: TinyParts, transformer: WanTransformer3DModel | None) -> WanPipeline:
    """With the sampler of the embedded model, which is Wan2.1's: UniPC on flow predictions."""
    return WanPipeline(
        tokenizer=parts.tokenizer,
        text_encoder=parts.encoder,
        vae=parts.vae,
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=2.0),
        transformer=transformer,
    )


def stage_parser(stage: str, doc: str) -> argparse.ArgumentParser:
    """What every training stage can be told."""
    parser = argparse.ArgumentParser(
        prog=f"prophy tiny {stage}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("runs/tiny"), help="folder of checkpoints and results")
    parser.add_argument("--minutes", type=time_limit, help="stop, resumable, after this long")
    parser.add_argument(
        "--device", help="cpu, or an accelerator such as cuda (default: an accelerator if there is one)"
    )
    return parser
