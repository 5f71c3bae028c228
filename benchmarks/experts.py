"""Run with: python benchmarks/experts.py

What the Refinement Expert Block costs: E = 8 linear experts, the best k = 2 for each token, against one dense linear
layer over the same k·N rows, which is the same multiplication without any routing. The aim is 1.15 times that. Beside
it the two plain ways to write such a block: a loop that picks each expert's tokens, and every expert on every token.
All three are the whole block (normalisation, router, experts, sum) and must agree before anything is timed. And the
block's grouped products alone, on rows that are sorted already: what no other way of writing the rest can beat. Each
row of the table times all its forms in turn, many times over, and takes the medians; gradients are dropped between
them, as a training does. Freed memory stays with the process, as it does with an accelerator's allocator: otherwise a
CPU spends more on fresh pages than on the block's small steps (``--fresh-pages`` shows that). ``--device cuda``
measures on a card; ``benchmarks/gpu.py`` does so at the models' own sizes. Writes experts.md beside it.
"""

from __future__ import annotations

import argparse
import ctypes
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import torch
from gpu_parts.machine import seconds_of
from torch.nn import functional

from prophy.branch.refinement import RefinementExpertBlock

EXPERTS, TOP_K = 8, 2
AIM = 1.15
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h
BLOCK, LOOP, EVERY, LINEAR = "the block", "loop over experts", "every expert", "one linear layer"
PRODUCTS = "its products alone"


class LoopOverExperts(RefinementExpertBlock):
    """The block as it is mostly written: a mask, a copy and a sum for each expert."""

    def _dispatch(self, tokens_RD: torch.Tensor, ids_RK: torch.Tensor, shares_RK: torch.Tensor) -> torch.Tensor:
        shares_RK = shares_RK.to(tokens_RD.dtype)
        mixed = torch.zeros_like(tokens_RD)
        for expert, (weight, bias) in enumerate(zip(self.weight_EDD.unbind(), self.bias_ED.unbind(), strict=True)):
            rows, slots = (ids_RK == expert).nonzero(as_tuple=True)
            answer = torch.addmm(bias.to(tokens_RD.dtype), tokens_RD[rows], weight.to(tokens_RD.dtype))
            mixed = mixed.index_add(0, rows, shares_RK[rows, slots, None] * answer)
        return mixed


class EveryExpert(RefinementExpertBlock):
    """The block without any choice: all experts answer for all tokens, and most answers count for nothing."""

    def _dispatch(self, tokens_RD: torch.Tensor, ids_RK: torch.Tensor, shares_RK: torch.Tensor) -> torch.Tensor:
        shares_RK = shares_RK.to(tokens_RD.dtype)
        shares_RE = shares_RK.new_zeros(len(ids_RK), EXPERTS).scatter(1, ids_RK, shares_RK)
        answers_ERD = torch.baddbmm(
            self.bias_ED.to(tokens_RD.dtype)[:, None],
            tokens_RD.expand(EXPERTS, -1, -1),
            self.weight_EDD.to(tokens_RD.dtype),
        )
        return torch.einsum("re,erd->rd", shares_RE, answers_ERD)


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    width: int
    tokens: int
    dtype: torch.dtype
    backward: bool

    @property
    def about(self) -> str:
        passes = "forward and backward" if self.backward else "forward"
        return f"{self.width} | {self.tokens} | {str(self.dtype).removeprefix('torch.')} | {passes}"


#: (width, tokens): the embedded model's, Wan2.1-1.3B's, CogVideoX-5B's and Wan2.2-5B's width
SIZES = ((256, 320), (1536, 8192), (3072, 4096))
CASES = tuple(
    Case(width, tokens, dtype, backward)
    for width, tokens in SIZES
    for dtype in (torch.float32, torch.bfloat16)
    for backward in (False, True)
)


#: each way to write the block
KINDS: dict[str, type[RefinementExpertBlock]] = {
    BLOCK: RefinementExpertBlock,
    LOOP: LoopOverExperts,
    EVERY: EveryExpert,
}


def forms(
    case: Case, device: torch.device, kinds: dict[str, type[RefinementExpertBlock]]
) -> tuple[dict[str, Callable[[], torch.Tensor]], list[torch.Tensor]]:
    """Every form of one case on the same weights and tokens, as a call; they agree. And all that gets a gradient.

    Args:
        case: its size.
        device: to compute on.
        kinds: ways to write the block, :data:`BLOCK` among them.

    Raises:
        AssertionError: two forms of the block give different values.
    """
    torch.manual_seed(0)
    blocks = {name: kind(case.width, EXPERTS, TOP_K).to(device, case.dtype) for name, kind in kinds.items()}
    torch.nn.init.normal_(blocks[BLOCK].weight_EDD, std=0.2 * case.width**-0.5)
    for block in blocks.values():
        block.load_state_dict(blocks[BLOCK].state_dict())
    made = {"dtype": case.dtype, "device": device}
    linear = torch.nn.Linear(case.width, case.width, **made)
    x_BND = torch.randn(1, case.tokens, case.width, **made, requires_grad=case.backward)
    rows_MD = torch.randn(TOP_K * case.tokens, case.width, **made, requires_grad=case.backward)

    with torch.no_grad():
        answers = {name: block(x_BND)[0].float() for name, block in blocks.items()}
    tolerance = 1e-4 if case.dtype is torch.float32 else 0.1
    for name in answers:
        torch.testing.assert_close(answers[name], answers[BLOCK], rtol=tolerance, atol=tolerance)

    def run(compute: Callable[[], torch.Tensor], gradient: torch.Tensor) -> torch.Tensor:
        if not case.backward:
            with torch.no_grad():
                return compute()
        output = compute()
        output.backward(gradient)
        return output

    calls = {
        name: lambda block=block: run(lambda: block(x_BND)[0], torch.ones_like(x_BND)) for name, block in blocks.items()
    }
    routing = blocks[BLOCK](x_BND.detach())[1]
    ends_E = torch.bincount(routing.topk_ids_BNK.flatten(), minlength=EXPERTS).cumsum(0).to(torch.int32)
    calls[PRODUCTS] = lambda: run(
        lambda: functional.grouped_mm(rows_MD, blocks[BLOCK].weight_EDD, offs=ends_E), torch.ones_like(rows_MD)
    )
    calls[LINEAR] = lambda: run(lambda: linear(rows_MD), torch.ones_like(rows_MD))
    leaves = [x_BND, rows_MD, *linear.parameters(), *(p for block in blocks.values() for p in block.parameters())]
    return calls, leaves


def keep_pages() -> None:
    """Freed memory is not given back to the system (glibc; elsewhere this does nothing)."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def measure(
    case: Case, repeats: int, device: torch.device, kinds: dict[str, type[RefinementExpertBlock]] = KINDS
) -> dict[str, float]:
    """Median seconds of each form; see :func:`forms`."""
    calls, leaves = forms(case, device, kinds)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(1 + repeats):
        for name, call in calls.items():
            seconds[name].append(seconds_of(call, device))
            for leaf in leaves:
                leaf.grad = None
    return {name: median(values[1:]) for name, values in seconds.items()}


def table(results: dict[Case, dict[str, float]], repeats: int, device: torch.device) -> str:
    """The comparison in Markdown."""
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    ratios = [row[BLOCK] / row[LINEAR] for row in results.values()]
    met = sum(ratio <= AIM for ratio in ratios)
    lines = [
        "# The experts' cost",
        "",
        f"`python benchmarks/experts.py`, {datetime.now(UTC):%Y-%m-%d}. E = {EXPERTS}, k = {TOP_K}; "
        f"medians of {repeats} runs, {torch.get_num_threads()} threads, freed memory kept.",
        f"Python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}, {machine}.",
        "",
        f"In milliseconds, and as a multiple of one linear layer over k·N rows. Aim: the block at most {AIM} times "
        f"that; met in {met} of {len(ratios)} rows. Largest: {max(ratios):.2f}.",
        "",
        f"| width | tokens | dtype | passes | {LINEAR} | {PRODUCTS} | {BLOCK} | {LOOP} | {EVERY} |",
        "|---:|---:|---|---|---:|---:|---:|---:|---:|",
    ]
    for case, row in results.items():
        cells = " | ".join(
            f"{1e3 * row[name]:.2f}" + ("" if name == LINEAR else f" ({row[name] / row[LINEAR]:.2f})")
            for name in (LINEAR, PRODUCTS, BLOCK, LOOP, EVERY)
        )
        lines.append(f"| {case.about} | {cells} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--widths", type=int, nargs="+", choices=[width for width, _ in SIZES], help="only these")
    parser.add_argument("--device", default="cpu", help="such as cuda (default: cpu)")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"), help="where the table goes")
    parser.add_argument("--fresh-pages", action="store_true", help="give freed memory back to the system")
    arguments = parser.parse_args()
    if not arguments.fresh_pages:
        keep_pages()
    results, device = {}, torch.device(arguments.device)
    for case in CASES:
        if arguments.widths is None or case.width in arguments.widths:
            results[case] = measure(case, arguments.repeats, device)
            print(f"{case.about}: {results[case][BLOCK] / results[case][LINEAR]:.2f}", flush=True)
    text = table(results, arguments.repeats, device)
    print(text)
    arguments.out.write_text(text)


if __name__ == "__main__":
    main()
