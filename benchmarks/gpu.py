"""Run with: python benchmarks/gpu.py

What only a GPU can say, in one command of six minutes at most that needs nothing but this repository: a memory of every
profile and stage against the plan, b time of a pass with and without the branch, c the refinement experts, d compiling
and attention kernels, e a training step, f the embedded model on the card. Models are built on the card from their
published configurations with random bfloat16 weights; nothing is downloaded.

Each part has a process and a time limit of its own. After every part ``gpu.json`` and ``gpu.md`` are written anew, so
that a cut loses one part, and not the rows that it had found. Run the command again to go on where it was: what is done
stays, what was cut or failed is tried once more. ``--small`` runs every part at toy size on the CPU, which proves that
the parts work and says nothing else.

On a machine with another torch (2.10 or later), no network and no diffusers, carry the wheels that
``benchmarks/gpu-wheels.txt`` lists, and put them on PYTHONPATH; ``--packages`` prints what is missing. Torch's own
kernels and compiler are all that is used: nothing is looked for on a hub.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
_PATHS = [str(HERE), str(HERE.parent)]  # the repository need not be installed
sys.path[:0] = [path for path in _PATHS if path not in sys.path]
os.environ["PYTHONPATH"] = os.pathsep.join([*_PATHS, os.environ.get("PYTHONPATH", "")])  # of the parts' processes too
# the process that the parts' are forked from may ask whether there is a card, and must not wake it
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

from gpu_parts.packages import missing_packages  # noqa: E402
from gpu_parts.parts import PARTS, Part, Processes, room_for  # noqa: E402
from gpu_parts.report import as_markdown  # noqa: E402
from gpu_parts.results import SETTLED, Machine, Outcome, Results, State  # noqa: E402


def measure(
    out: Path, *, device: str, small: bool, minutes: float, only: list[str] | None = None, again: bool = False
) -> Results:
    """Measure what is not measured yet, writing ``out`` and the page beside it after every part.

    Args:
        out: the JSON file.
        device: such as ``cuda`` or ``cpu``.
        small: toy sizes.
        minutes: after which no part goes on.
        only: letters of the parts to measure; None: all.
        again: measure what is done as well.

    Raises:
        ValueError: no part can run on this machine, or ``out`` holds what another one measured. One line.
    """
    began, processes = time.monotonic(), Processes()
    machine = processes.machine(device, small)
    if isinstance(machine, str):
        raise ValueError(machine)
    results = _open(out, machine)
    wanted = [part for part in PARTS if only is None or part.name[0] in only]
    for part in wanted:
        before = results.of(part.name)
        if before is not None and before.state in SETTLED and not again:
            continue
        seconds = room_for(part, 60 * minutes - (time.monotonic() - began))
        outcome = processes.run(part, device, small, seconds) if seconds else _waiting(part, before)
        print(f"{outcome.state:8} {outcome.seconds:6.1f} s  {part.name}  {outcome.reason}".rstrip(), flush=True)
        results = results.with_outcome(outcome, f"{datetime.now(UTC):%Y-%m-%d}")
        results.save(out)
        out.with_suffix(".md").write_text(as_markdown(results), encoding="utf-8")
    return results


def _waiting(part: Part, before: Outcome | None) -> Outcome:
    """Of a part that there is no time for: what is known of it stays."""
    return before or Outcome(part.name, State.WAITING, "no time was left: run the command again")


def _open(out: Path, machine: Machine) -> Results:
    if not out.is_file():
        return Results(machine, f"{datetime.now(UTC):%Y-%m-%d}")
    results = Results.load(out)
    if results.machine != machine:
        raise ValueError(f"{out} holds what was measured elsewhere ({results.machine.name}): give another --out")
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=6.0, help="in all (default: 6)")
    parser.add_argument("--small", action="store_true", help="toy sizes, on the CPU unless --device says otherwise")
    parser.add_argument("--device", help="such as cuda:1 (default: cuda, with --small cpu)")
    parser.add_argument("--only", nargs="+", choices=tuple("abcdef"), metavar="PART", help="of a to f (default: all)")
    parser.add_argument("--again", action="store_true", help="measure what is done as well")
    parser.add_argument("--out", type=Path, help="the JSON file (default: gpu.json, or gpu-small.json, beside this)")
    parser.add_argument("--packages", action="store_true", help="name the packages that are missing here, and stop")
    arguments = parser.parse_args()
    if missing := missing_packages():
        print(f"missing here: {', '.join(missing)}; benchmarks/gpu-wheels.txt says what to carry", file=sys.stderr)
        return 2
    if arguments.packages:
        print("every package is here")
        return 0
    small = arguments.small
    out = arguments.out or HERE / ("gpu-small.json" if small else "gpu.json")
    device = arguments.device or ("cpu" if small else "cuda")
    try:
        measure(out, device=device, small=small, minutes=arguments.minutes, only=arguments.only, again=arguments.again)
    except ValueError as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        return 2
    print(f"written to {out} and {out.with_suffix('.md')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
