"""Start the app: ``prophy app``, and the same as a Space's ``app.py``."""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
from pathlib import Path
from threading import Thread

from prophy.ui.engine import Engine

_M_ARENA_MAX = -8  # of malloc.h


def build_parser() -> argparse.ArgumentParser:
    """Every flag of ``prophy app``."""
    parser = argparse.ArgumentParser(prog="prophy app", description="Open the app in a browser.")
    parser.add_argument("--model", help="a diffusers folder or hub id (default: the embedded model)")
    parser.add_argument(
        "--branch", help="folder of the physical branch (default: the model's own, in its branch/ folder)"
    )
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs"),
        help="folder that runs are written to and listed from (default: runs)",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for every one (default: 127.0.0.1)"
    )
    parser.add_argument("--port", type=int, help="port to listen on (default: the first free one from 7860)")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser tab")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run the app until it is interrupted.

    Raises:
        FileNotFoundError: ``--model`` or ``--branch`` names a folder that is not there.
        OSError: the port is taken.
        SystemExit: a flag is wrong, or ``--help``.
    """
    arguments = build_parser().parse_args(argv)
    _share_memory_between_threads()
    # On a Space anyone may be looking: earlier runs are then nobody's to list.
    is_public = "SPACE_ID" in os.environ
    engine = Engine(arguments.model, arguments.branch, runs=arguments.runs, list_earlier=not is_public)
    from prophy.ui.demo import build_demo, launch

    demo = build_demo(engine)
    address = launch(
        demo,
        host="0.0.0.0" if is_public else arguments.host,
        port=arguments.port,
        open_browser=not (arguments.no_browser or is_public),
    )
    print(f"ProPhy is at {address}", flush=True)
    # Only now: importing torch would keep the page waiting.
    Thread(target=engine.warm_up, name="prophy-warm-up", daemon=True).start()
    demo.block_thread()


def _share_memory_between_threads() -> None:
    """Let every thread allocate from two arenas (glibc; elsewhere this does nothing).

    Every generation has threads of its own. With an arena for each, what the last ones freed stays with their arenas
    and the app grows by a tenth over its first fifty clips.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_ARENA_MAX, 2)
