"""The system's chromium, driven by playwright, and what browser tests look at."""

import shutil
import socket
from pathlib import Path

from prophy.assets import gallery_dir
from prophy.runs.pictures import resized
from prophy.runs.store import read_run, write_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--autoplay-policy=no-user-gesture-required",
    "--mute-audio",
]
PATIENCE_MS = 100_000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def gallery_with_a_pair(folder: Path) -> Path:
    """Some shipped runs, and one of them again as if it had been made without the branch."""
    for name in ("ball-and-candle", "mirror", "tap-and-grenade"):
        shutil.copytree(gallery_dir() / name, folder / name)
    routed = read_run(gallery_dir() / "tap-and-grenade")
    frames = 255 - resized(routed.clip().frames, routed.record.settings["width"])
    write_run(folder, routed.record, frames, run_id="tap-and-grenade-no-branch")
    return folder


def slide(page, selector: str, value: int) -> None:
    """Move a range input as a hand would."""
    page.eval_on_selector(
        selector, "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }", value
    )
