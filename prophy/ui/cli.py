"""Start the app: ``prophy app``, and the same as a Space's ``app.py``."""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Timer

from prophy.catalogue.limits import ClipSize
from prophy.files import check_writable
from prophy.memory.profiles import AUTO
from prophy.training.run_folder import Trainings
from prophy.ui.engine.engine import Engine
from prophy.ui.engine.models import ModelSource

_OWN_MACHINE = ("127.0.0.1", "localhost", "::1")
_M_ARENA_MAX = -8  # of malloc.h
_IDLE_SECONDS = 10  # without a visitor, before heavy imports are preloaded


def build_parser() -> argparse.ArgumentParser:
    """Every flag of ``prophy app``."""
    parser = argparse.ArgumentParser(prog="prophy app", description="Open the app in a browser.")
    parser.add_argument(
        "--model",
        action=_OfModel,
        help="a diffusers folder, a hub id, or embedded, which is the default. Repeat for more, to choose from on the "
        "page; one is open at a time",
    )
    parser.add_argument(
        "--branch",
        action=_OfModel,
        help="folder or hub id of the physical branch of the model before it (default: its own, in its branch/ folder)",
    )
    parser.add_argument(
        "--size",
        action=_OfModel,
        type=_clip,
        metavar="WxHxF",
        help="clips of the model before it, such as 832x480x81 (default: as published)",
    )
    parser.add_argument(
        "--profile",
        default=AUTO,
        help="memory profile at first, such as model or group+tiling, see prophy plan (default: auto, the fastest that "
        "fits)",
    )
    parser.add_argument("--vlm", help="a vision-language model, to annotate clips with (default: shipped clips only)")
    parser.add_argument(
        "--training",
        action="append",
        type=Path,
        metavar="DIR",
        help="watch the training in this folder, or all in the folders inside it. Repeat for more (default: none)",
    )
    parser.add_argument(
        "--evidence", type=Path, metavar="WORK", help="folder of results for the Evidence tab (default: as shipped)"
    )
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs"),
        help="folder that runs are written to and listed from (default: runs)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 for every one. Runs of earlier starts are listed for visitors of this "
        "machine only (default: 127.0.0.1)",
    )
    parser.add_argument("--port", type=int, help="port to listen on (default: the first free one from 7860)")
    parser.add_argument(
        "--root-path",
        metavar="PATH",
        help="where a proxy shows the app, such as /tools/prophy or https://example.org/tools/prophy (default: at the "
        "top of its host)",
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser tab")
    parser.set_defaults(sources=None)
    return parser


class _OfModel(argparse.Action):
    """Collects ``sources``: --model begins one, --branch and --size are the last one's."""

    def __call__(self, parser, namespace, value: str | ClipSize, option: str | None = None) -> None:
        *others, last = namespace.sources or (ModelSource(),)
        if self.dest == "model":
            namespace.sources = (*(namespace.sources or ()), ModelSource(value))
        elif self.dest == "branch":
            namespace.sources = (*others, replace(last, branch=value))
        else:
            namespace.sources = (*others, replace(last, clip=value))


def _clip(text: str) -> ClipSize:
    try:
        return ClipSize.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main(argv: list[str] | None = None) -> None:
    """Run the app until it is interrupted.

    Raises:
        ValueError: no such model, branch, memory profile or port, or a clip that the model cannot make.
        OSError: the port is taken, there is no folder to watch, or runs cannot be written.
        SystemExit: a flag is wrong, or ``--help``.
    """
    arguments = build_parser().parse_args(argv)
    if arguments.port is not None and not 1 <= arguments.port <= 65535:
        raise ValueError(f"--port {arguments.port} is no port: use 1 to 65535, or leave it out")
    if arguments.root_path is not None and not re.match(r"/[^/]|https?://[^/]+/.", arguments.root_path):
        raise ValueError(f"--root-path {arguments.root_path} must begin with / or http, as in /tools/prophy")
    check_writable(arguments.runs)
    trainings = Trainings(arguments.training) if arguments.training else None
    _share_memory_between_threads()
    on_space = "SPACE_ID" in os.environ
    engine = Engine(
        arguments.sources or (ModelSource(),),
        profile=arguments.profile,
        runs=arguments.runs,
        # Where anyone may be looking, earlier runs are nobody's to list or to delete.
        list_earlier=not on_space and arguments.host in _OWN_MACHINE,
    )
    with _without_garbage_collection():
        from prophy.ui.page import build_demo, launch

        demo = build_demo(engine, arguments.vlm, trainings=trainings, evidence=arguments.evidence)
        address = launch(
            demo,
            host="0.0.0.0" if on_space else arguments.host,
            port=arguments.port,
            open_browser=not (arguments.no_browser or on_space),
            max_upload="64mb" if arguments.vlm else "1mb",
            root_path=arguments.root_path,
        )
    print(f"ProPhy is at {address}", flush=True)
    # The first page that is complete does this too; earlier, importing torch would keep that page waiting.
    idle = Timer(_IDLE_SECONDS, engine.warm_up)
    idle.daemon = True
    idle.start()
    demo.block_thread()


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Import and build without looking for garbage: nearly all of it stays, and the search is a fifth of the start."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _share_memory_between_threads() -> None:
    """Let every thread allocate from two arenas (glibc; elsewhere this does nothing).

    Every generation has threads of its own. With an arena for each, what the last ones freed stays with their arenas
    and the app grows by a tenth over its first fifty clips.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_ARENA_MAX, 2)
