"""Part e: a training step of ``wan_1_3b`` at 49 frames with checkpointing, alone and under FSDP2 on one device."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from statistics import median

import torch
import torch.distributed as dist
from torch import nn

from gpu_parts.machine import MemoryMeter, let_go, seconds_of
from gpu_parts.results import Remark, Row, TrainingRow
from gpu_parts.subjects import Subject, operations, parts_on, subject
from prophy.branch.family import default_sites
from prophy.data.examples import Example, Examples
from prophy.phenomena import IDS
from prophy.training.batches import Batch, Batches, Share
from prophy.training.ema import Ema
from prophy.training.fsdp import shard
from prophy.training.objectives import FlowMatching
from prophy.training.optim import FusedAdamW
from prophy.training.recipe import BranchShape, Recipe
from prophy.training.recipes import wan_1_3b
from prophy.training.step import train_step
from prophy.training.trainable import TrainableModule, build_trainable, trained

_FRAMES = 49
_STEPS = 6


class _Noise(Examples):
    """One clip of random numbers: a step costs the same whatever it shows."""

    fingerprint = "noise"

    def __init__(self, latent: tuple[int, int, int, int], text: tuple[int, int], tokens: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self._latents = torch.randn(*latent, generator=generator)
        self.empty_text_LD = torch.randn(*text, generator=generator)
        self._targets = torch.rand(tokens, len(IDS), generator=generator)

    def __len__(self) -> int:
        return 1

    def latent_size(self, index: int) -> tuple[int, int, int]:
        return tuple(self._latents.shape[1:])

    def example(self, index: int, wording: int) -> Example:
        labels = torch.zeros(len(IDS))
        labels[0] = 1
        return Example("noise", self._latents, self.empty_text_LD, labels, self._targets)


def measure_training(device: torch.device, small: bool) -> Iterator[Row]:
    """Median seconds of a step and its memory.

    Raises:
        Unfit: the weights do not fit on the card.
    """
    full = subject("wan2.1-1.3b", small)
    one = full if small else replace(full, clip=replace(full.clip, frames=_FRAMES))
    counted = operations(one, device.type)
    for strategy in ("one process", "FSDP2"):
        with _processes(strategy, device):
            try:
                seconds, peak, held = _steps(one, strategy, device)
            except torch.OutOfMemoryError:
                yield Remark(f"training wan_1_3b at {one.size}, {strategy}: too little memory")
                continue
            finally:
                let_go(device)
        work = 4 * counted.branch + 3 * counted.backbone
        yield TrainingRow("wan_1_3b", one.size, strategy, seconds, peak, held, work)


@contextmanager
def _processes(strategy: str, device: torch.device) -> Iterator[None]:
    """A group of this process alone, where a strategy needs one."""
    if strategy == "one process":
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=f"file://{folder}/meeting", rank=0, world_size=1)
        try:
            yield
        finally:
            dist.destroy_process_group()


def _steps(one: Subject, strategy: str, device: torch.device) -> tuple[float, int, int]:
    """Median seconds of a step, the highest memory, and what is held between two."""
    memory = MemoryMeter(device)
    parts = parts_on(one.without_text_encoder(), device)
    clip, rules = one.clip, parts.rules
    blocks = parts.backbone.num_blocks(one.config.transformer)
    recipe = replace(wan_1_3b(), branch=BranchShape(tuple(default_sites(blocks))), null_share=0.0, batch=1)
    module = build_trainable(parts.transformer, recipe).to(device)
    if strategy == "FSDP2":
        shard(module)
    tokens = rules.grid(clip.frames, clip.height, clip.width).num_tokens
    text = rules.text_tokens, parts.backbone.text_dim(one.config.transformer)
    examples = _Noise(rules.latent_shape(clip), text, tokens)
    batch = Batches(examples, recipe, FlowMatching(), Share())[0].to(device)
    optimiser = FusedAdamW(list(trained(module).values()), recipe.optimiser.rate, recipe.optimiser.weight_decay)
    ema = Ema(module, recipe.ema)
    del parts

    def step() -> None:
        _step(module, batch, recipe, optimiser, ema)

    step()
    memory.begin()
    taken = [seconds_of(step, device) for _ in range(2 if device.type == "cpu" else _STEPS)]
    return median(taken), memory.highest(), memory.held()


def _step(module: TrainableModule, batch: Batch, recipe: Recipe, optimiser: FusedAdamW, ema: Ema) -> None:
    with module.attached():
        losses, _ = train_step(module, batch, recipe)
        losses.total.backward()
    nn.utils.clip_grad_norm_(optimiser.parameters, recipe.optimiser.clip)
    optimiser.step()
    ema.update(0)
