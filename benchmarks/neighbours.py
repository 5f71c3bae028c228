"""Run with: python benchmarks/neighbours.py

How long a clip takes beside none, one and two other processes that keep a core busy, with threads that spin while they
wait and with threads that sleep, as the command line and the app have them. Writes the table to neighbours.md beside
it. Takes about two minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

POLICIES = {"spin": "ACTIVE", "sleep": "PASSIVE"}
CLIP = """
import sys, time
import prophy
pipeline = prophy.load(profile="all")
settings = prophy.GenerationSettings("a red ball bounces on the floor", steps=int(sys.argv[1]))
prophy.generate(pipeline, prophy.GenerationSettings(settings.prompt, steps=1))
begin = time.perf_counter()
prophy.generate(pipeline, settings)
print(time.perf_counter() - begin)
"""


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that compute without end."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def clip_seconds(policy: str, neighbours: int, steps: int, threads: int) -> float:
    """Seconds of one clip in a process of its own, the model open and warm."""
    environment = {**os.environ, "OMP_WAIT_POLICY": POLICIES[policy], "OMP_NUM_THREADS": str(threads)}
    with busy(neighbours):
        command = [sys.executable, "-c", CLIP, str(steps)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=600)
    return float(done.stdout.split()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10, help="denoising steps of the clip (default: 10)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the clip (default: the machine's)")
    parser.add_argument("--neighbours", type=int, default=2, help="the most that are busy (default: 2)")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"), help="where the table goes")
    arguments = parser.parse_args()
    lines = [
        "# A clip beside busy neighbours",
        "",
        f"`python benchmarks/neighbours.py --steps {arguments.steps} --threads {arguments.threads}`,"
        f" {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores.",
        f"Seconds of one clip of {arguments.steps} denoising steps of the embedded model, by what its threads do while "
        "they wait.",
        "",
        "| busy neighbours | spin | sleep |",
        "|---:|---:|---:|",
    ]
    for neighbours in range(arguments.neighbours + 1):
        seconds = [clip_seconds(policy, neighbours, arguments.steps, arguments.threads) for policy in POLICIES]
        lines.append(f"| {neighbours} | {seconds[0]:.1f} | {seconds[1]:.1f} |")
        print(lines[-1], flush=True)
    arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
