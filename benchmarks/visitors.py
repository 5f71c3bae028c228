"""Run with: python benchmarks/visitors.py

Several visitors at once, each in a browser context of their own, each asking for several clips. Checks that nobody sees
another's clip, and measures the memory of the app's process after each round. Writes the table to visitors.md beside
it. Needs chromium and the packages of requirements-dev.txt.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from page import app_at, chromium
from playwright.sync_api import Page

from prophy.runs.store import find_run

LEVEL = 0.10  #: by how much memory may differ from that after the first round
COLOURS = ("red", "blue", "green", "yellow", "purple", "orange", "white", "cyan")
PATIENCE_MS = 600_000


def resident_mib(process: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def prompt_of(visitor: int) -> str:
    return f"a {COLOURS[visitor % len(COLOURS)]} ball bounces on the floor"


def open_page(browser, address: str) -> Page:
    page = browser.new_context(reduced_motion="reduce").new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(address)
    page.wait_for_selector("#routing-view .pp-view[data-run]")
    return page


def ask(page: Page, visitor: int, seed: int, steps: int) -> str:
    """Ask for a clip; returns the run that was on show before."""
    page.fill("#prompt textarea", prompt_of(visitor))
    page.fill("#seed input", str(seed))
    page.fill("#steps input", str(steps))
    before = page.get_attribute("#routing-view .pp-view", "data-run")
    page.click("#generate")
    return before


def is_own(page: Page, runs: Path, before: str, visitor: int, seed: int) -> bool:
    """Wait for a visitor's clip; whether it is what they asked for, on the page and on disk."""
    page.wait_for_function(
        "(before) => document.querySelector('#routing-view .pp-view').dataset.run !== before", arg=before
    )
    record = find_run(runs, page.get_attribute("#routing-view .pp-view", "data-run")).record
    shown = page.inner_text("#routing-view .pp-prompt")
    return (record.prompt, record.seed, shown) == (prompt_of(visitor), seed, prompt_of(visitor))


def measure(visitors: int, jobs: int, steps: int) -> tuple[int, list[tuple[float, float]]]:
    """Mixed-up clips, and for each round its seconds and the memory after it."""
    folder = Path(tempfile.mkdtemp())
    mixed, rounds = 0, []
    try:
        with app_at(folder) as app, chromium() as browser:
            pages = [open_page(browser, app.address) for _ in range(visitors)]
            for job in range(jobs):
                begin = time.perf_counter()
                seeds = [1000 * visitor + job for visitor in range(visitors)]
                before = [ask(page, visitor, seeds[visitor], steps) for visitor, page in enumerate(pages)]
                mixed += sum(
                    not is_own(page, folder, before[visitor], visitor, seeds[visitor])
                    for visitor, page in enumerate(pages)
                )
                rounds.append((time.perf_counter() - begin, resident_mib(app.pid)))
                print(f"round {job + 1}: {rounds[-1][0]:.0f} s, {rounds[-1][1]:.0f} MiB, {mixed} mixed up", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return mixed, rounds


def table(mixed: int, rounds: list[tuple[float, float]], visitors: int, steps: int) -> str:
    """What was measured, in Markdown."""
    first = rounds[0][1]
    worst = max(abs(memory / first - 1) for _, memory in rounds)
    lines = [
        "# Several visitors at once",
        "",
        f"`python benchmarks/visitors.py --visitors {visitors} --jobs {len(rounds)} --steps {steps}`,"
        f" {datetime.now(UTC):%Y-%m-%d}.",
        f"{visitors} browser contexts, each asking for {len(rounds)} clips of {steps} denoising steps of the embedded "
        "model, all at the same time in each round.",
        "",
        f"Clips shown to someone who had not asked for them: {mixed} of {visitors * len(rounds)}. Memory after a round "
        f"differs from that after the first by at most {100 * worst:.0f} % "
        f"(limit {100 * LEVEL:.0f} %: {'kept' if worst <= LEVEL else 'broken'}).",
        "",
        "| round | seconds | memory of the app, MiB | of the first round's |",
        "|---:|---:|---:|---:|",
    ]
    for number, (seconds, memory) in enumerate(rounds, start=1):
        lines.append(f"| {number} | {seconds:.0f} | {memory:.0f} | {memory / first:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visitors", type=int, default=8, help="browser contexts (default: 8)")
    parser.add_argument("--jobs", type=int, default=6, help="clips of each (default: 6)")
    parser.add_argument("--steps", type=int, default=4, help="denoising steps of a clip (default: 4)")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"), help="where the table goes")
    arguments = parser.parse_args()
    mixed, rounds = measure(arguments.visitors, arguments.jobs, arguments.steps)
    text = table(mixed, rounds, arguments.visitors, arguments.steps)
    arguments.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
