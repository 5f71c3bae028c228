"""Run with: python benchmarks/full_size.py

One step of Wan2.1-1.3B at its full width and depth, with a branch of our default shape beside it, on this CPU: random
bfloat16 weights, so it shows that everything fits together and what it takes, and nothing about pictures. The weights
are made in bfloat16 at once, one tensor after the other, so that no float32 copy of the model ever exists. It checks
that a fresh branch leaves the backbone's output as it is, bit for bit, and that one with random projections does not.
Needs about 4 GiB. Writes full_size.md beside it.
"""

from __future__ import annotations

import argparse
import platform
import resource
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from accelerate import init_empty_weights
from diffusers import WanTransformer3DModel
from torch import nn

from prophy.backbones import WAN
from prophy.branch import ProPhyBranch, attach
from prophy.branch.family import default_sites
from prophy.catalogue.published import PUBLISHED
from prophy.routing.trace import Routing


@dataclass(frozen=True)
class Measured:
    """What one run gave.

    Attributes:
        backbone_parameters: of the transformer.
        branch_parameters: of the branch.
        sites: after which blocks residuals are added.
        tokens: of the clip.
        seconds_alone: of a step of the backbone by itself.
        seconds_fresh: of a step with a fresh branch.
        seconds_random: of a step with a branch whose projections are random.
        peak_bytes: the largest resident size of the process.
        largest_change: of the output, by the random projections.
    """

    backbone_parameters: int
    branch_parameters: int
    sites: tuple[int, ...]
    tokens: int
    seconds_alone: float
    seconds_fresh: float
    seconds_random: float
    peak_bytes: int
    largest_change: float


def kept_in_float32(module: nn.Module, name: str) -> bool:
    """Whether ``from_pretrained`` keeps a parameter in float32 when it opens a model in bfloat16."""
    return bool(set(name.split(".")) & set(module._keep_in_fp32_modules or ()))


def materialise(module: nn.Module, seed: int) -> None:
    """Give a module of the meta device random weights: bfloat16, and float32 where diffusers keeps it."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in list(module.named_parameters()):
        owner = module.get_submodule(name.rpartition(".")[0])
        dtype = torch.float32 if kept_in_float32(module, name) else torch.bfloat16
        if name.startswith("projections."):
            made = torch.zeros(parameter.shape, dtype=dtype)  # as a fresh branch has them
        elif parameter.ndim == 1:
            made = torch.full(parameter.shape, float(name.endswith("weight")), dtype=dtype)
        else:
            inputs = parameter.shape[1] if name.endswith("weight_EDD") else parameter[0].numel()
            made = torch.empty(parameter.shape, dtype=dtype).normal_(std=inputs**-0.5, generator=generator)
        setattr(owner, name.rpartition(".")[2], nn.Parameter(made, requires_grad=False))
    module.eval()


def build(layers: int | None) -> tuple[WanTransformer3DModel, ProPhyBranch]:
    """The published configuration with random weights, and a fresh branch that copies its blocks."""
    config = dict(PUBLISHED["wan2.1-1.3b"].transformer)
    config["num_layers"] = layers or config["num_layers"]
    with init_empty_weights(include_buffers=False):  # rotary positions are computed, not stored
        transformer = WanTransformer3DModel(**config)
        branch = ProPhyBranch(WAN.name, WAN.describe(transformer), default_sites(config["num_layers"]))
    materialise(transformer, 0)
    materialise(branch, 1)
    WAN.copy_embedders(transformer, branch.embedders)
    for site, block in zip(branch.config.sites, branch.blocks, strict=True):
        block.load_state_dict(transformer.blocks[site].state_dict())
    return transformer, branch


def measure(layers: int | None, frames: int, side: int) -> Measured:
    """Build, then one step each of the backbone alone, with the fresh branch, and with random projections.

    Raises:
        AssertionError: the fresh branch changes the output, the random projections do not, or values are not finite.
    """
    transformer, branch = build(layers)
    torch.manual_seed(2)
    latents = torch.randn(1, 16, 1 + (frames - 1) // 4, side // 8, side // 8, dtype=torch.bfloat16)
    text = torch.randn(1, 512, 4096, dtype=torch.bfloat16)
    text[:, 20:] = 0  # as the pipeline pads a prompt
    seen: list[Routing] = []

    def step() -> tuple[torch.Tensor, float]:
        """As the pipeline calls it in the conditional pass."""
        started = time.perf_counter()
        with torch.no_grad(), transformer.cache_context("cond"):
            output = transformer(
                hidden_states=latents,
                timestep=torch.tensor([700]),
                encoder_hidden_states=text,
                attention_kwargs=None,
                return_dict=False,
            )[0]
        return output, time.perf_counter() - started

    alone, seconds_alone = step()
    with attach(transformer, branch).observe(lambda _, routing: seen.append(routing)):
        fresh, seconds_fresh = step()
        for projection in branch.projections:
            projection.weight.normal_(std=projection.in_features**-0.5)
        changed, seconds_random = step()
    assert torch.isfinite(alone).all(), "values that are not numbers"
    assert torch.isfinite(changed).all(), "values that are not numbers"
    assert torch.equal(fresh, alone), "a fresh branch changes the output"
    assert not torch.equal(changed, alone), "random projections do not change the output"
    return Measured(
        backbone_parameters=sum(p.numel() for p in transformer.parameters()),
        branch_parameters=sum(p.numel() for p in branch.parameters()),
        sites=tuple(branch.config.sites),
        tokens=seen[0].probs_BNE.shape[1],
        seconds_alone=seconds_alone,
        seconds_fresh=seconds_fresh,
        seconds_random=seconds_random,
        peak_bytes=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        largest_change=float((changed - alone).abs().max()),
    )


def report(measured: Measured, frames: int, side: int) -> str:
    """What was measured, in Markdown."""
    rows = {
        "parameters of the backbone": f"{measured.backbone_parameters:,}",
        "parameters of the branch": f"{measured.branch_parameters:,}",
        "residuals after blocks": ", ".join(map(str, measured.sites)),
        "clip": f"{frames} frames of {side}×{side}: {measured.tokens} tokens",
        "a step of the backbone alone": f"{measured.seconds_alone:.1f} s, the first one",
        "a step with a fresh branch": f"{measured.seconds_fresh:.1f} s, bit-identical",
        "a step with random projections": f"{measured.seconds_random:.1f} s, change {measured.largest_change:.3g}",
        "largest resident size": f"{measured.peak_bytes / 2**30:.2f} GiB",
    }
    lines = [
        "# Wan2.1-1.3B at full size",
        "",
        f"`python benchmarks/full_size.py`, {datetime.now(UTC):%Y-%m-%d}. Random bfloat16 weights, "
        f"{torch.get_num_threads()} threads.",
        f"Python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}, CPU.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows.items()),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, help="fewer than the model has, to try things out")
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--side", type=int, default=64, help="pixels")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"), help="where the report goes")
    arguments = parser.parse_args()
    text = report(measure(arguments.layers, arguments.frames, arguments.side), arguments.frames, arguments.side)
    print(text)
    arguments.out.write_text(text)


if __name__ == "__main__":
    main()
