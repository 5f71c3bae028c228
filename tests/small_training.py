"""A training that takes seconds: the real trainer, a small real transformer, and clips of random numbers.

As a script it is one of several processes: ``torchrun --nproc_per_node 2 tests/small_training.py OUT MODE...``
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch
from conftest import make_transformer

from prophy.data.examples import Example, Examples
from prophy.training.log import read_lines
from prophy.training.objectives import FlowMatching
from prophy.training.recipe import BranchShape, OptimiserSettings, Recipe
from prophy.training.recipes import tiny
from prophy.training.trainer import Running, train

SHAPE = BranchShape((0, 2), semantic_experts=6, refinement_experts=5, reference_grid=(3, 4, 5))

RECIPE: Recipe = replace(
    tiny(),
    branch=SHAPE,
    steps=20,
    batch=4,
    precision="float32",
    optimiser=OptimiserSettings("adamw", 1e-3, warm_up=3, decay="linear"),
)


_LORA = replace(RECIPE, backbone="lora", lora_rank=4)
_WATCHED = Running(log_every=1, checkpoint_every=1000, validate_every=10, validation_clips=4)

#: rates that do not depend on the number of steps, so that a run can be made longer
LONGER = replace(_LORA, optimiser=replace(RECIPE.optimiser, decay="constant"))

#: what two processes are compared on with one
MODES: dict[str, tuple[Recipe, Running]] = {
    "ddp": (RECIPE, _WATCHED),
    "fsdp": (replace(_LORA, accumulation=2, checkpointing=True), replace(_WATCHED, sharded=True)),
}

#: the same under DeepSpeed, where it is installed; the mode's stage of ZeRO is in the file that ``zero_config`` writes
ZERO: dict[str, int] = {"zero_1": 1, "zero_2": 2}


def zero_config(out: Path, stage: int) -> Path:
    path = out / f"zero-{stage}.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": stage}, "wall_clock_breakdown": False}))
    return path


#: what begins on one number of processes and ends on another
MOVED: dict[str, tuple[Recipe, Running]] = {
    "two_then_one": (replace(LONGER, steps=10), replace(_WATCHED, sharded=True)),
    "one_then_two": (LONGER, replace(_WATCHED, sharded=True)),
}


class RandomClips(Examples):
    """Clips of one size, one in five without targets; ``fingerprint`` follows the seed."""

    def __init__(
        self, count: int = 24, size: tuple[int, int, int] = (3, 2, 4), seed: int = 0, patch: int = 1, words: int = 6
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.fingerprint = f"random {seed}"
        self.size = size
        self.latents = torch.randn(count, 4, *size, generator=generator)
        self.texts = torch.randn(count, 3, words, 24, generator=generator)
        self.labels = (torch.rand(count, 17, generator=generator) > 0.8).float()
        tokens = size[0] * size[1] * size[2] // patch**2
        self.targets = torch.rand(count, tokens, 17, generator=generator) - 0.4
        self.empty_text_LD = torch.zeros(words, 24)
        self.empty_text_LD[0] = 1

    def __len__(self) -> int:
        return len(self.latents)

    def latent_size(self, index: int) -> tuple[int, int, int]:
        return self.size

    def example(self, index: int, wording: int) -> Example:
        text, targets = self.texts[index, wording % 3], self.targets[index] if index % 5 else None
        return Example(f"clip {index}", self.latents[index], text, self.labels[index], targets)


def run(out: Path, recipe: Recipe = RECIPE, running: Running | None = None, examples: object = None, **named) -> Path:
    """Train with the small parts."""
    running = running or Running(log_every=1, checkpoint_every=1000)
    return train(recipe, make_transformer(), FlowMatching(), examples or RandomClips(), out, running=running, **named)


def losses_of(out: Path) -> list[dict[str, float]]:
    """The losses of every step of a run."""
    return [line["losses"] for line in read_lines(out) if line["kind"] == "train"]


class DeadlyClips(RandomClips):
    """The second process dies, as by a fault of its machine, while it reads its seventh step."""

    def example(self, index: int, wording: int) -> Example:
        self.asked = getattr(self, "asked", 0) + 1
        if self.asked == 13 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().example(index, wording)


if __name__ == "__main__":
    for mode in sys.argv[2:]:
        if mode == "dead":
            run(Path(sys.argv[1]) / mode, RECIPE, Running(log_every=1, checkpoint_every=2), DeadlyClips())
            continue
        if mode in ZERO:
            zero = replace(_WATCHED, deepspeed=zero_config(Path(sys.argv[1]), ZERO[mode]))
            run(Path(sys.argv[1]) / mode, replace(MODES["fsdp"][0], steps=12, optimiser=LONGER.optimiser), zero)
            run(Path(sys.argv[1]) / mode, replace(MODES["fsdp"][0], optimiser=LONGER.optimiser), zero)  # and goes on
            continue
        recipe, running = {**MODES, **MOVED}[mode]
        run(Path(sys.argv[1]) / mode, recipe, running, held_out=RandomClips(4, seed=1))
        if torch.distributed.get_rank() == 0:
            found = {"world_size": torch.distributed.get_world_size(), "cpu": os.environ.get("ACCELERATE_USE_CPU")}
            (Path(sys.argv[1]) / f"{mode}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()
