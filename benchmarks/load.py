"""Run with: python benchmarks/load.py

Eight honest visitors alone, then beside one who floods the app: how long they wait for the page, for a token of a
shipped run and for their clips. Checks that the flood makes none of it longer than half again. Writes the table to
load.md beside it. Takes less than two minutes on two cores.

Every visitor has an address of their own, which they say as a proxy on this machine would.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from multiprocessing import Queue, get_context
from multiprocessing.synchronize import Event as EventType
from pathlib import Path
from typing import NamedTuple

import httpx
from gradio_client import Client
from page import app_at

LIMIT = 1.5  #: how much longer anything may take beside the flood
FLOOD_STEPS = 10  #: of one clip: two and a half times an honest one's, as 50 at most are to the 20 of the page
PROMPT = "a red ball bounces on the floor"


class Waits(NamedTuple):
    """Seconds that visitors waited, one number for each time."""

    page: list[float]
    token: list[float]
    clip: list[float]


class Flood(NamedTuple):
    """What became of the flood's requests."""

    sent: int
    made: int


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def visit(address: str, number: int, rounds: int, steps: int, run: str, waits: Waits) -> None:
    """One honest visitor: opens the page, looks at a token, asks for a clip, and again."""
    headers = {"X-Forwarded-For": f"203.0.113.{number}"}
    client = Client(address, headers=headers, verbose=False)
    for seed in range(rounds):
        waits.page.append(timed(lambda: httpx.get(address, headers=headers, timeout=120).raise_for_status()))
        waits.token.append(timed(lambda: client.predict(run, 0, 0, 0, api_name="/inspect_token")))
        asked = {"seed": 100 * number + seed, "steps": steps}
        waits.clip.append(timed(lambda asked=asked: client.predict(PROMPT, **asked, api_name="/generate")))


def honest(address: str, visitors: int, rounds: int, steps: int, run: str) -> Waits:
    """All honest visitors at once."""
    waits = Waits([], [], [])
    threads = [
        threading.Thread(target=visit, args=(address, number, rounds, steps, run, waits)) for number in range(visitors)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(waits.clip) < visitors * rounds:
        raise RuntimeError("an honest visitor did not get every clip")
    return waits


def flood(address: str, stop: EventType, became: Queue[Flood], steps: int, run: str) -> None:
    """Until it is stopped: ten joins a second to which nobody listens, clips asked for as soon as the last one is there
    or was refused, and exports. Its own work steps back, as if it were another machine's."""
    os.nice(19)
    headers = {"X-Forwarded-For": "203.0.113.200"}
    client = Client(address, headers=headers, verbose=False)
    index = next(d["id"] for d in client.config["dependencies"] if d["api_name"] == "generate")
    sent = made = 0
    jobs = []
    while not stop.is_set():
        sent += 1
        body = {
            "fn_index": index,
            "data": [PROMPT, sent, steps, -1.0, True, {}, "", "", {}, False],
            "session_hash": f"f{sent}",
        }
        httpx.post(f"{address}gradio_api/queue/join", json=body, headers=headers, timeout=120)
        waiting = [job for job in jobs if not job.done()]
        made += sum(job.exception() is None for job in jobs if job.done())
        jobs = waiting
        while len(jobs) < 4:
            sent += 1
            jobs.append(client.submit(PROMPT, seed=sent, steps=steps, api_name="/generate"))
        if sent % 5 == 0:
            client.submit(run, api_name="/export_overlay")
        stop.wait(0.1)
    became.put(Flood(sent, made))
    became.close()
    became.join_thread()
    os._exit(0)  # what it still waits for is of no interest


def measure(visitors: int, rounds: int, steps: int) -> tuple[Waits, Waits, Flood]:
    """The waits of the honest alone, and beside the flood; and what became of that."""
    folder = Path(tempfile.mkdtemp())
    try:
        with app_at(folder, "--max-steps", str(FLOOD_STEPS)) as app:
            run = Client(app.address, verbose=False).predict(api_name="/list_gallery")[0]["run"]
            honest(app.address, 1, 1, 2, run)  # opens the model
            alone = honest(app.address, visitors, rounds, steps, run)
            print(f"alone: clips after {statistics.mean(alone.clip):.1f} s", flush=True)
            processes = get_context("spawn")
            stop, said = processes.Event(), processes.Queue()
            flooding = processes.Process(target=flood, args=(app.address, stop, said, FLOOD_STEPS, run))
            flooding.start()
            time.sleep(5)
            beside = honest(app.address, visitors, rounds, steps, run)
            stop.set()
            became = said.get(timeout=60)
            flooding.join()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return alone, beside, became


def table(alone: Waits, beside: Waits, became: Flood, visitors: int, rounds: int, steps: int) -> str:
    """What was measured, in Markdown."""
    lines = [
        "# One visitor floods the app",
        "",
        f"`python benchmarks/load.py --visitors {visitors} --rounds {rounds} --steps {steps}`,"
        f" {datetime.now(UTC):%Y-%m-%d}.",
        f"{visitors} honest visitors at once, each asking {rounds} times for the page, for a token of a shipped run",
        f"and for a clip of {steps} denoising steps of the embedded model; alone, and beside one who asks without",
        f"pause for clips of {FLOOD_STEPS} steps, the most of this app, to most of which nobody listens, and for",
        "exports.",
        "",
        f"The flood sent {became.sent} requests for clips and was given {became.made}. No honest visitor was refused.",
        "",
        "| seconds until | alone, mean | longest | beside the flood, mean | longest | mean beside / alone |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    kept = True
    for name in Waits._fields:
        one, other = getattr(alone, name), getattr(beside, name)
        ratio = statistics.mean(other) / statistics.mean(one)
        kept = kept and (ratio <= LIMIT or statistics.mean(other) < 1)
        lines.append(
            f"| {name} | {statistics.mean(one):.2f} | {max(one):.2f} | {statistics.mean(other):.2f} | {max(other):.2f} "
            f"| {ratio:.2f} |"
        )
    lines += ["", f"Limit {LIMIT}, of what takes a second or more: {'kept' if kept else 'broken'}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visitors", type=int, default=8, help="honest ones (default: 8)")
    parser.add_argument("--rounds", type=int, default=1, help="clips of each (default: 1)")
    parser.add_argument("--steps", type=int, default=4, help="denoising steps of an honest clip (default: 4)")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"), help="where the table goes")
    arguments = parser.parse_args()
    asked = arguments.visitors, arguments.rounds, arguments.steps
    text = table(*measure(*asked), *asked)
    arguments.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
