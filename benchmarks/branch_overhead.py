"""Run with: python benchmarks/branch_overhead.py

What an attached branch costs beyond its arithmetic: a step (one call of the transformer) with the branch, divided by
one without, divided by the same ratio of floating-point operations. The aim is 1.05 at most. And what recording the
routing takes, as a share of a step with the branch: the aim is 1 %. Steps with and without take turns; medians.
Operations are counted by ``prophy.memory.footprint`` on the meta device: torch's own counter leaves out grouped
products and, on a CPU, attention. Random weights, float32. Writes branch_overhead.md beside it.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import torch
from diffusers import WanTransformer3DModel

from prophy.assets import default_model
from prophy.backbones import WAN
from prophy.branch import Attachment, ProPhyBranch, attach
from prophy.branch.family import default_sites
from prophy.catalogue.published import PUBLISHED
from prophy.grid import TokenGrid
from prophy.memory.footprint import footprint
from prophy.routing.trace import Routing, TraceRecorder

AIM, RECORDING_AIM = 1.05, 0.01


@dataclass(frozen=True)
class Case:
    """One size.

    Attributes:
        config: of the transformer.
        sites: of the branch.
        latents: frames, rows and columns of the latent.
        text: tokens of the prompt.
    """

    config: dict[str, Any]
    sites: tuple[int, ...]
    latents: tuple[int, int, int]
    text: int

    @property
    def grid(self) -> TokenGrid:
        return TokenGrid(*(n // p for n, p in zip(self.latents, self.config["patch_size"], strict=True)))


def cases() -> dict[str, Case]:
    """The embedded model as it is; a middling one; and Wan2.1-1.3B's width and blocks, five of its thirty."""
    tiny = WanTransformer3DModel.load_config(default_model() / "transformer")
    tiny = {name: value for name, value in tiny.items() if not name.startswith("_")}
    sites = ProPhyBranch.load_config(default_model() / "branch")["sites"]
    wide = {**PUBLISHED["wan2.1-1.3b"].transformer, "num_layers": 5}
    middling = {**wide, "num_attention_heads": 4, "ffn_dim": 2048, "num_layers": 10, "text_dim": 512}
    return {
        "embedded": Case(tiny, tuple(sites), (5, 8, 8), 48),
        "middling": Case(middling, tuple(default_sites(10)), (5, 24, 24), 128),
        "wide": Case(wide, tuple(default_sites(5)), (3, 32, 32), 256),
    }


def build(case: Case, device: str) -> tuple[Attachment, Callable[[], torch.Tensor]]:
    """A transformer with its branch attached, and a call of one step. Values do not matter, only shapes."""
    torch.manual_seed(0)
    with torch.device(device):
        transformer = WanTransformer3DModel(**case.config).eval()
        branch = ProPhyBranch(WAN.name, WAN.describe(transformer), list(case.sites)).eval()
    channels, width = case.config["in_channels"], case.config["text_dim"]

    def step() -> torch.Tensor:
        with torch.no_grad(), torch.device(device):
            latents = torch.ones(1, channels, *case.latents)
            text = torch.ones(1, case.text, width)
            return transformer(latents, torch.full((1,), 500.0), text, return_dict=False)[0]

    return attach(transformer, branch), step


def operations(case: Case) -> tuple[int, int]:
    """Of a step without the branch, and with it."""
    counted = []
    attachment, step = build(case, "meta")
    for enabled in (False, True):
        attachment.enabled = enabled
        counted.append(footprint(step, device="cpu").flops)
    return counted[0], counted[1]


@dataclass(frozen=True)
class Row:
    """Median seconds of a step without and with the branch and of recording its routing; operations of both steps."""

    without: float
    with_branch: float
    recording: float
    operations: tuple[int, int]

    @property
    def time_ratio(self) -> float:
        return self.with_branch / self.without

    @property
    def operations_ratio(self) -> float:
        return self.operations[1] / self.operations[0]

    @property
    def overhead(self) -> float:
        return self.time_ratio / self.operations_ratio


def measure(case: Case, repeats: int) -> Row:
    """Time the two kinds of step in turn, after one of each to warm up."""
    attachment, step = build(case, "cpu")
    seen: list[Routing] = []
    seconds: dict[bool, list[float]] = {False: [], True: []}
    with attachment.observe(lambda _, routing: seen.append(routing)):
        for attempt in range(1 + repeats):
            for enabled in (False, True):
                attachment.enabled = enabled
                started = time.perf_counter()
                step()
                if attempt:
                    seconds[enabled].append(time.perf_counter() - started)
    recorder, recording = TraceRecorder(case.grid, len(seen)), []
    for routing in seen:
        started = time.perf_counter()
        recorder.record(500.0, routing)
        recording.append(time.perf_counter() - started)
    return Row(median(seconds[False]), median(seconds[True]), median(recording[1:]), operations(case))


def table(rows: dict[str, Row], repeats: int) -> str:
    """The comparison in Markdown."""
    described = cases()
    lines = [
        "# What the branch costs",
        "",
        f"`python benchmarks/branch_overhead.py`, {datetime.now(UTC):%Y-%m-%d}. Medians of {repeats} steps, float32, "
        f"{torch.get_num_threads()} threads.",
        f"Python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}, CPU.",
        "",
        f"Aims: time over operations at most {AIM}, recording at most {RECORDING_AIM:.0%} of a step. "
        f"Largest: {max(row.overhead for row in rows.values()):.3f} and "
        f"{max(row.recording / row.with_branch for row in rows.values()):.2%}.",
        "",
        "| model | width | blocks | of them copied | tokens | ms without | ms with | time | operations | time over "
        "operations | recording |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in rows.items():
        case = described[name]
        lines.append(
            f"| {name} | {WAN.width(case.config)} | {case.config['num_layers']} | {len(case.sites)} "
            f"| {case.grid.num_tokens} | {1e3 * row.without:.1f} | {1e3 * row.with_branch:.1f} | {row.time_ratio:.3f} "
            f"| {row.operations_ratio:.3f} | **{row.overhead:.3f}** | {row.recording / row.with_branch:.2%} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--only", nargs="+", choices=cases(), metavar="MODEL", help="only these")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"), help="where the table goes")
    arguments = parser.parse_args()
    rows = {}
    for name, case in cases().items():
        if arguments.only is None or name in arguments.only:
            rows[name] = measure(case, arguments.repeats)
            print(f"{name}: {rows[name].overhead:.3f}", flush=True)
    text = table(rows, arguments.repeats)
    print(text)
    arguments.out.write_text(text)


if __name__ == "__main__":
    main()
