"""Run with: python benchmarks/training.py

What the branch costs while it is trained: the time of a step over that of one which fine-tunes as many parameters of
the backbone without a branch (the blocks that the branch copies, and their neighbours), over the ratio of their
floating-point operations (1 is what the operations alone explain, the target is at most 1.10); the highest memory with
and without gradient checkpointing; what counterfactual routing adds to a step's time and memory; and the share of its
time that a training on cached clips waits for data (target: at most 2 %). Writes the table to training.md beside it.

On a CPU give it a quiet machine: about ten minutes with two threads. On an accelerator it uses that, in bfloat16.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from prophy.assets import default_model
from prophy.branch.family import default_sites
from prophy.branch.losses import LossWeights
from prophy.data.examples import Example, Examples
from prophy.phenomena import IDS
from prophy.training.bases import open_backbone, open_examples
from prophy.training.batches import Batches, Share
from prophy.training.counterfactual import Counterfactual
from prophy.training.log import read_lines
from prophy.training.objectives import FlowMatching
from prophy.training.optim import FusedAdamW
from prophy.training.recipe import BranchShape, Recipe
from prophy.training.recipes import causal, recipe_named, wan_1_3b
from prophy.training.step import train_step
from prophy.training.trainable import TrainableModule, build_trainable, trained
from prophy.training.trainer import Running, train

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h


@dataclass(frozen=True)
class Size:
    """A backbone of Wan's kind and a clip for it.

    Attributes:
        heads: of 64 channels each.
        layers: blocks.
        latent: (T, H, W), with patches of 2.
        batch: clips in a step.
    """

    heads: int
    layers: int
    latent: tuple[int, int, int]
    batch: int


SIZES = {
    "small": Size(4, 10, (5, 16, 16), 4),
    "middling": Size(8, 15, (5, 32, 32), 2),
    "wan2.1-1.3b": Size(24, 30, (13, 60, 104), 1),  # 49 frames of 832×480: needs an accelerator
}

aten = torch.ops.aten


def _grouped_flops(a_shape, b_shape, *_, **__) -> int:
    return 2 * a_shape[0] * a_shape[1] * b_shape[-1]


def _attention_backward(gradient_shape, query_shape, key_shape, value_shape, *_, **__) -> int:
    return sdpa_backward_flop_count(gradient_shape, query_shape, key_shape, value_shape)


#: operations that torch's counter does not know
COUNTED = {
    aten._grouped_mm: _grouped_flops,
    aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


class Noise(Examples):
    """Clips of random numbers: a step costs the same whatever they show."""

    fingerprint = "noise"

    def __init__(self, size: Size, text_dim: int) -> None:
        frames, height, width = size.latent
        self._size, self._tokens = size, frames * height * width // 4
        self._text = torch.randn(64, text_dim)
        self.empty_text_LD = torch.zeros(64, text_dim)

    def __len__(self) -> int:
        return self._size.batch

    def latent_size(self, index: int) -> tuple[int, int, int]:
        return self._size.latent

    def example(self, index: int, wording: int) -> Example:
        labels = torch.zeros(len(IDS))
        labels[index % len(IDS)] = 1
        return Example(
            str(index), torch.randn(16, *self._size.latent), self._text, labels, torch.rand(self._tokens, 17)
        )


def build(size: Size, recipe: Recipe, device: torch.device) -> tuple[TrainableModule, TrainableModule]:
    """A module with a branch, and one that fine-tunes as many parameters of the same backbone.

    First of the blocks that the branch copies, so that gradients go as deep: on a CPU attention is slower backward than
    its operations say, and a backbone of whose blocks only the last are trained has little of it.
    """
    width = 64 * size.heads
    modules = []
    for with_branch in (True, False):
        torch.manual_seed(0)
        transformer = WanTransformer3DModel(
            num_attention_heads=size.heads,
            attention_head_dim=64,
            text_dim=width,
            ffn_dim=4 * width,
            num_layers=size.layers,
        )
        if with_branch:
            modules.append(build_trainable(transformer, recipe))
            continue
        alone = {"branch": None, "losses": LossWeights(), "counterfactual": Counterfactual()}
        trains_itself = replace(recipe, backbone="trained", backbone_dtype="float32", **alone)
        bare = build_trainable(transformer, trains_itself)
        transformer.requires_grad_(False)
        wanted, given = sum(p.numel() for p in trained(modules[0]).values()), 0
        sites = recipe.branch.sites
        for index in (*sites, *(i for i in range(size.layers) if i not in sites)):
            if given >= wanted:
                break
            transformer.blocks[index].requires_grad_(True)
            given += sum(p.numel() for p in transformer.blocks[index].parameters())
        modules.append(bare)
    return tuple(module.to(device) for module in modules)


def stepper(module: TrainableModule, recipe: Recipe, size: Size, device: torch.device) -> Callable[[], None]:
    """One whole step: forward, backward, update."""
    examples = Noise(size, 64 * size.heads)
    batch = Batches(examples, recipe, FlowMatching(), Share())[0].to(device)
    optimiser = FusedAdamW(list(trained(module).values()), 1e-5, 0.01)

    def step() -> None:
        with module.attached():
            losses, _ = train_step(module, batch, recipe)
            losses.total.backward()
        optimiser.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def recipe_for(size: Size) -> Recipe:
    """The paper's recipe at another size, on one batch, computed as this machine's trainings are."""
    return replace(
        wan_1_3b(),
        branch=BranchShape(tuple(default_sites(size.layers))),
        backbone_dtype="float32",
        checkpointing=False,
        null_share=0.0,
        batch=size.batch,
    )


def measure_speed(name: str, repeats: int) -> dict[str, float]:
    """Both steps in turns; medians in seconds, and operations."""
    size, device = SIZES[name], the_device()
    recipe = recipe_for(size)
    found: dict[str, float] = {}
    modules = dict(zip(("branch", "bare"), build(size, recipe, device), strict=True))
    steps = {kind: stepper(module, recipe, size, device) for kind, module in modules.items()}
    for kind, step in steps.items():
        step()
        with FlopCounterMode(display=False, custom_mapping=COUNTED) as counter:
            step()
        found[f"{kind}_flops"] = counter.get_total_flops()
        found[f"{kind}_trained"] = sum(p.numel() for p in trained(modules[kind]).values())
    times: dict[str, list[float]] = {kind: [] for kind in steps}
    for _ in range(repeats):
        for kind, step in steps.items():
            began = time.perf_counter()
            step()
            times[kind].append(time.perf_counter() - began)
    return {**found, **{f"{kind}_seconds": statistics.median(values) for kind, values in times.items()}}


def without_muting(recipe: Recipe) -> Recipe:
    """The same branch without counterfactual routing."""
    return replace(recipe, counterfactual=Counterfactual())


#: what a memory is measured of
VARIANTS: dict[str, Callable[[Recipe], Recipe]] = {
    "plain": lambda recipe: recipe,
    "checkpointed": lambda recipe: replace(recipe, checkpointing=True),
    "muting": causal,
    "alike": lambda recipe: without_muting(causal(recipe)),
}


def measure_muting(name: str, repeats: int) -> dict[str, float]:
    """Median seconds of a step of the same branch, with counterfactual routing and without, in turns."""
    size, device = SIZES[name], the_device()
    muting = causal(recipe_for(size))
    recipes = {"muting": muting, "alike": without_muting(muting)}
    module = build(size, muting, device)[0]
    steps = {kind: stepper(module, recipe, size, device) for kind, recipe in recipes.items()}
    times: dict[str, list[float]] = {kind: [] for kind in steps}
    for _ in range(repeats + 1):
        for kind, step in steps.items():
            began = time.perf_counter()
            step()
            times[kind].append(time.perf_counter() - began)
    return {kind: statistics.median(values[1:]) for kind, values in times.items()}


def measure_memory(name: str, variant: str) -> dict[str, float]:
    """The highest memory of two steps over what the weights and libraries took before; bytes."""
    size, device = SIZES[name], the_device()
    recipe = VARIANTS[variant](recipe_for(size))
    module = build(size, recipe, device)[0]
    step = stepper(module, recipe, size, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the highest size starts anew from the present one
        before = resident("VmRSS")
    step()
    step()
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else resident("VmHWM")
    return {"peak": peak - before}


def measure_waiting(steps: int) -> dict[str, float]:
    """Share of the time without data in a training of the embedded model's size on cached worlds."""
    base = str(default_model())
    recipe = replace(recipe_named("tiny"), steps=steps)
    with tempfile.TemporaryDirectory() as name:
        examples = open_examples(Path(name) / "cache", base, 32)
        transformer, objective = open_backbone(base, recipe)
        running = Running(workers=1, log_every=max(1, steps // 4), checkpoint_every=10 * steps)
        train(recipe, transformer, objective, examples, Path(name) / "run", running=running)
        lines = [line for line in read_lines(Path(name) / "run") if line["kind"] == "train"][1:]
    seconds = statistics.mean(line["seconds_per_step"] for line in lines)
    return {"waiting": statistics.mean(line["waiting"] for line in lines), "seconds": seconds}


def keep_pages() -> None:
    """Freed memory stays with the process (glibc; elsewhere nothing), as it does with an accelerator's allocator."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def the_device() -> torch.device:
    return torch.device(torch.accelerator.current_accelerator() or "cpu")


def resident(field: str) -> int:
    """Bytes of a line of ``/proc/self/status``: VmRSS now, VmHWM at its highest."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise ValueError(f"no {field} in /proc/self/status: this needs Linux")


def elsewhere(*only: str) -> dict[str, float]:
    """Measure in a fresh process whose freed memory goes back to the system at once."""
    environment = {
        **os.environ,
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, __file__, "--only", *only]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def table(speed: dict, memory: dict, muting: dict, waiting: dict) -> str:
    """The results in Markdown."""
    device = the_device()
    machine = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    lines = [
        "# Training: what the branch costs",
        "",
        f"`python benchmarks/training.py`, {datetime.now(UTC):%Y-%m-%d}. "
        "Matrix products in bfloat16, freed memory kept.",
        f"Python {platform.python_version()}, torch {torch.__version__}, {machine}.",
        "",
        "Time of a step over that of fine-tuning as many parameters of the backbone, over the ratio of operations:",
        "",
        "| backbone | trained, branch | and bare | TFLOP, branch | and bare | s, branch | and bare | time ÷ FLOP |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in speed.items():
        ratio = row["branch_seconds"] / row["bare_seconds"] / (row["branch_flops"] / row["bare_flops"])
        counts = " | ".join(f"{row[f'{kind}_trained'] / 1e6:.1f} M" for kind in ("branch", "bare"))
        flops = " | ".join(f"{row[f'{kind}_flops'] / 1e12:.3f}" for kind in ("branch", "bare"))
        seconds = " | ".join(f"{row[f'{kind}_seconds']:.3f}" for kind in ("branch", "bare"))
        lines.append(f"| {name} | {counts} | {flops} | {seconds} | **{ratio:.2f}** |")
    lines += ["", "Target: at most 1.10.", "", "Highest memory of a step besides weights, GB of 10^9 bytes:", ""]
    lines += ["| backbone | plain | checkpointed | share |", "|---|---:|---:|---:|"]
    for name, of in memory.items():
        share = of["checkpointed"] / of["plain"]
        lines.append(f"| {name} | {of['plain'] / 1e9:.2f} | {of['checkpointed'] / 1e9:.2f} | {share:.0%} |")
    lines += ["", "Counterfactual routing in 35 % of the clips, beside the same branch without:", ""]
    lines += [
        "| backbone | s, with | and without | time | GB, with | and without | memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, of in muting.items():
        seconds = f"{of['muting']:.3f} | {of['alike']:.3f} | **{of['muting'] / of['alike']:.2f}**"
        peaks = [memory[name][kind] for kind in ("muting", "alike")]
        gigabytes = " | ".join(f"{peak / 1e9:.2f}" for peak in peaks)
        lines.append(f"| {name} | {seconds} | {gigabytes} | **{peaks[0] / peaks[1]:.2f}** |")
    lines += [
        "",
        f"Waiting for data, recipe `tiny` on cached worlds, one worker: {waiting['waiting']:.1%} of the time "
        f"({waiting['seconds']:.2f} s a step). Target: at most 2 %.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["small", "middling"], help="backbones")
    parser.add_argument("--repeats", type=int, default=15, help="steps that are timed (default: 15)")
    parser.add_argument("--steps", type=int, default=60, help="of the training that may wait (default: 60)")
    parser.add_argument("--only", nargs=2, metavar=("WHAT", "SIZE"), help="measure this here and print JSON")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"), help="where the table goes")
    arguments = parser.parse_args()
    if arguments.only:
        what, size = arguments.only
        print(json.dumps(measure_memory(size, what)))
        return
    keep_pages()
    speed, memory, muting = {}, {}, {}
    for name in arguments.sizes:
        speed[name] = measure_speed(name, arguments.repeats)
        print(f"{name}: {speed[name]}", flush=True)
        muting[name] = measure_muting(name, arguments.repeats)
        memory[name] = {variant: elsewhere(variant, name)["peak"] for variant in VARIANTS}
        print(f"{name}: {muting[name]}, {memory[name]}", flush=True)
    waiting = measure_waiting(arguments.steps)
    arguments.out.write_text(table(speed, memory, muting, waiting))


if __name__ == "__main__":
    main()
