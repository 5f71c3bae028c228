"""What a base says of itself besides its weights, read from its configurations; nothing else of it is opened."""

from __future__ import annotations

import json
from pathlib import Path

import diffusers
import torch
from diffusers import DiffusionPipeline

from prophy.backbones.autoencoder import scale_of
from prophy.backbones.opening import first_line
from prophy.training.about import RUN_FILE, About, BaseConfig

_TRAINING = "training"  # of a published folder


def base_config_of(base: str | Path) -> BaseConfig:
    """Of a diffusers folder or hub id.

    Raises:
        ValueError: it cannot be read. One line.
    """
    try:
        index = DiffusionPipeline.load_config(base)
        scheduler = getattr(diffusers, index["scheduler"][1]).from_pretrained(base, subfolder="scheduler")
        autoencoder = getattr(diffusers, index["vae"][1])
        with torch.device("meta"):  # with the defaults of what its file leaves out
            vae = autoencoder.from_config(autoencoder.load_config(base, subfolder="vae"))
    except Exception as error:
        raise ValueError(f"cannot open the base model {base}: {first_line(error)}") from error
    config = {name: value for name, value in scheduler.config.items() if not name.startswith("_")}
    plain = json.loads(json.dumps(config, default=str), parse_constant=str)
    return BaseConfig(type(scheduler).__name__, plain, tuple(map(float, scale_of(vae))))


def refuse_other_base(initial: Path, now: BaseConfig) -> None:
    """Refuse weights that learnt beside another base than is given: to predict something else, or other latents.

    Args:
        initial: a whole model, or what ``prophy publish`` wrote; one that says nothing of its base is not compared.
        now: of the base that is given.

    Raises:
        ValueError: a difference, or a damaged record. One line.
    """
    initial = Path(initial)
    before = None
    if (initial / "model_index.json").is_file():
        before = base_config_of(initial)
    elif (initial / _TRAINING / RUN_FILE).is_file():
        before = About.read(initial / _TRAINING).base_config
    if before is not None and (others := now.differences(before)):
        raise ValueError(
            f"the weights in {initial} learnt beside another base ({', '.join(others)}): give that one with --model, "
            "or another --initial"
        )
