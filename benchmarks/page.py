"""Run with: python benchmarks/page.py

How fast the page is: from the command to a usable page, from a prompt to its playing clip, from a key to another
expert's map, and whether two compared clips stay together for a minute. Writes the table to page.md beside it. Needs
chromium and the packages of requirements-dev.txt.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Browser, Page, sync_playwright

PROMPTS = ("a red ball bounces on the floor", "a blue candle burns on the left", "water pours from a tap")
PATIENCE_MS = 300_000
VIEW = "#routing-view .pp-view"
PLAYS = "(selector) => { const video = document.querySelector(selector); return video && video.readyState >= 3; }"
SWITCH = """() => {
    const view = document.querySelector('.pp-view');
    const press = (key) => view.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
    return Array.from({ length: 200 }, (_, i) => {
        const start = performance.now();
        press(String(1 + (i % 2)));
        return performance.now() - start;
    });
}"""
WATCH = """(seconds) => new Promise((resolve) => {
    const root = document.querySelector('.pp-compare');
    const apart = [];
    const end = performance.now() + 1000 * seconds;
    const look = (now) => {
        apart.push(Math.abs(Number(root.dataset.frameA) - Number(root.dataset.frameB)));
        if (now < end) requestAnimationFrame(look); else resolve(apart);
    };
    requestAnimationFrame(look);
})"""


class App(NamedTuple):
    address: str
    pid: int


@contextmanager
def app_at(folder: Path, *flags: str) -> Iterator[App]:
    """The app in a process of its own, its runs in ``folder``."""
    command = [sys.executable, "-m", "prophy", "app", "--no-browser", "--runs", str(folder), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield App(next(line.split()[-1] for line in process.stdout if line.startswith("ProPhy is at")), process.pid)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def chromium() -> Iterator[Browser]:
    """A chromium without a window, the system's own."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    arguments = ["--no-sandbox", "--disable-gpu", "--mute-audio", "--autoplay-policy=no-user-gesture-required"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


def open_page(browser: Browser, address: str) -> Page:
    """A page whose first shipped run can play under its routing."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(address)
    page.wait_for_selector(f"{VIEW}[data-run]")
    page.wait_for_function(PLAYS, arg=f"{VIEW} video")
    return page


def generate(page: Page, prompt: str, seed: int) -> float:
    """Seconds from the button to the playing clip."""
    page.fill("#prompt textarea", prompt)
    page.fill("#seed input", str(seed))
    before = page.get_attribute(VIEW, "data-run")
    begin = time.perf_counter()
    page.click("#generate")
    page.wait_for_function("([view, id]) => document.querySelector(view).dataset.run !== id", arg=[VIEW, before])
    page.wait_for_function(PLAYS, arg=f"{VIEW} video")
    return time.perf_counter() - begin


def drift(page: Page, seconds: float) -> list[int]:
    """Frames between the two sides of a comparison, at every repaint."""
    page.get_by_role("tab", name="Compare and steer").click()
    page.get_by_label("Branch on and off").check()
    page.fill("#compare-prompt-a textarea", PROMPTS[0])
    page.click("#compare")
    page.wait_for_selector(".pp-compare[data-state=ready]")
    return page.evaluate(WATCH, seconds)


def measure(seconds: float, starts: int) -> list[tuple[str, str, str, bool]]:
    """What, how much, the limit, whether it is kept."""
    folder = Path(tempfile.mkdtemp())
    openings = []
    try:
        with chromium() as browser:
            for _ in range(starts):
                begin = time.perf_counter()
                with app_at(folder) as app:
                    open_page(browser, app.address).close()
                    openings.append(time.perf_counter() - begin)
                    time.sleep(10)  # the app goes on importing what a generation needs
            with app_at(folder) as app:
                page = open_page(browser, app.address)
                clips = [generate(page, prompt, seed) for seed, prompt in enumerate(PROMPTS)]
                switches = page.evaluate(SWITCH)
                apart = drift(page, seconds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    opening, clip, switch = statistics.median(openings), statistics.median(clips[1:]), statistics.median(switches)
    return [
        ("from the command to a usable page, its first clip playing", f"{opening:.1f} s", "3 s", opening <= 3),
        ("from the button to the playing clip, live views included", f"{clip:.1f} s", "5 s", clip <= 5),
        ("the first clip, opening the model", f"{clips[0]:.1f} s", "", True),
        ("another expert's map", f"{switch:.2f} ms", "1 ms", switch <= 1),
        (
            f"largest distance of two compared clips, {len(apart)} repaints in {seconds:.0f} s",
            f"{max(apart)} frames",
            "1 frame",
            max(apart) <= 1,
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of watching a comparison (default: 60)")
    parser.add_argument("--starts", type=int, default=3, help="of the app, for its median (default: 3)")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"), help="where the table goes")
    arguments = parser.parse_args()
    rows = measure(arguments.seconds, arguments.starts)
    lines = [
        "# The page",
        "",
        f"`python benchmarks/page.py`, {datetime.now(UTC):%Y-%m-%d}, two CPU cores, chromium beside the app on them. "
        "Medians.",
        "",
        "| what | measured | limit | kept |",
        "|---|---:|---:|---|",
        *(
            f"| {what} | {value} | {limit} | {('yes' if kept else 'no') if limit else ''} |"
            for what, value, limit, kept in rows
        ),
    ]
    arguments.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
