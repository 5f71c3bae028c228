"""Start the app: ``prophy app``, and the same as a Space's ``app.py``."""

from __future__ import annotations

import argparse
import ctypes
import gc
import math
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from threading import Timer
from typing import Any

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

from prophy.catalogue.limits import ClipSize
from prophy.files import check_writable
from prophy.flags import whole
from prophy.memory.profiles import AUTO
from prophy.runs.keep import OWN_MACHINE, PIN, PUBLIC, RunLimits
from prophy.training.run_folder import Trainings
from prophy.ui.engine.engine import Engine
from prophy.ui.engine.gpu import VISITOR_SECONDS, is_lent
from prophy.ui.engine.line import LineLimits
from prophy.ui.engine.models import ModelSource
from prophy.ui.engine.scratch import every

_OWN_MACHINE = ("127.0.0.1", "localhost", "::1")
_M_ARENA_MAX = -8  # of malloc.h
_SWEEP_SECONDS = 3600  # between two looks at what is kept
_BUCKET = Path("/data")  # where a Space's own storage is mounted, if it has any
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
        "--lora",
        action=_OfModel,
        metavar="FILE_OR_ID[:STRENGTH]",
        help="a LoRA of the model before it, as for prophy generate. Repeat for more",
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
        help="folder that runs are written to and listed from (default: runs; on a Space with a bucket mounted at "
        f"{_BUCKET}, a folder of it)",
    )
    for name, unit, kept in (("runs", "N", "number"), ("gib", "GIB", "size"), ("days", "DAYS", "age")):
        here, public = getattr(OWN_MACHINE, name), getattr(PUBLIC, name)
        parser.add_argument(
            f"--keep-{name}",
            type=_limit,
            metavar=unit,
            help=f"delete the oldest runs that the app made beyond this {kept}; all keeps them. One with a file named "
            f"{PIN} in its folder stays (default: {_said(here)}; where anybody may ask: {_said(public)})",
        )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 for every one. Runs of earlier starts are listed for visitors of this "
        "machine only (default: 127.0.0.1)",
    )
    limits = LineLimits()
    parser.add_argument(
        "--jobs-per-visitor",
        type=whole,
        default=limits.session,
        metavar="N",
        help="clips that one page or program may have waiting or being made (default: %(default)s)",
    )
    parser.add_argument(
        "--jobs-per-address",
        type=whole,
        default=limits.address,
        metavar="N",
        help="the same for one address; those of one's own machine are not counted (default: %(default)s)",
    )
    parser.add_argument(
        "--line",
        type=whole,
        default=limits.total,
        metavar="N",
        help="the same for all visitors; who comes then is asked to come again (default: %(default)s)",
    )
    parser.add_argument(
        "--max-steps",
        type=whole,
        default=limits.steps,
        metavar="N",
        help="denoising steps of one clip, on the page and for programs (default: %(default)s)",
    )
    parser.add_argument("--port", type=int, help="port to listen on (default: the first free one from 7860)")
    parser.add_argument(
        "--root-path",
        metavar="PATH",
        help="where a proxy shows the app, such as /tools/prophy or https://example.org/tools/prophy (default: at the "
        "top of its host)",
    )
    parser.add_argument(
        "--mcp",
        action="store_true",
        help="offer the endpoints to agents as tools, at /gradio_api/mcp/ (needs the package mcp)",
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser tab")
    parser.set_defaults(sources=None)
    return parser


class _OfModel(argparse.Action):
    """Collects ``sources``: --model begins one, --branch, --lora and --size are the last one's."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        value: Any,
        option: str | None = None,
    ) -> None:
        *others, last = namespace.sources or (ModelSource(),)
        if self.dest == "model":
            namespace.sources = (*(namespace.sources or ()), ModelSource(value))
        elif self.dest == "branch":
            namespace.sources = (*others, replace(last, branch=value))
        elif self.dest == "lora":
            namespace.sources = (*others, replace(last, loras=(*last.loras, value)))
        else:
            namespace.sources = (*others, replace(last, clip=value))


def _runs_folder(on_space: bool) -> Path:
    """Where runs go unless told otherwise."""
    return _BUCKET / "runs" if on_space and os.path.ismount(_BUCKET) else Path("runs")


def _limit(text: str) -> float:
    """A number above 0; infinite for ``all``."""
    try:
        value = math.inf if text == "all" else float(text)
    except ValueError:
        value = math.nan
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} must be a number above 0, or all")
    return value


def _said(limit: float | None) -> str:
    return "all" if limit is None else f"{limit:g}"


def _kept(arguments: argparse.Namespace, defaults: RunLimits) -> RunLimits:
    """What is kept, by the flags and where they say nothing by the defaults."""
    asked = {name: getattr(arguments, f"keep_{name}") for name in ("runs", "gib", "days")}
    changed: dict[str, Any] = {
        name: None if value == math.inf else value for name, value in asked.items() if value is not None
    }
    if changed.get("runs") is not None:
        changed["runs"] = int(changed["runs"])
    return replace(defaults, **changed)


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
    if arguments.mcp and find_spec("mcp") is None:
        raise ValueError("--mcp needs the package mcp: pip install 'mcp>=1.21,<2'")
    on_space = "SPACE_ID" in os.environ
    runs = arguments.runs or _runs_folder(on_space)
    check_writable(runs)
    trainings = Trainings(arguments.training) if arguments.training else None
    _share_memory_between_threads()
    _allow_many_connections()
    is_private = not on_space and arguments.host in _OWN_MACHINE
    engine = Engine(
        arguments.sources or (ModelSource(),),
        profile=arguments.profile,
        runs=runs,
        runs_last=not on_space or runs.resolve().is_relative_to(_BUCKET),
        # Where anyone may be looking, earlier runs are nobody's to list or to delete.
        list_earlier=is_private,
        keep=_kept(arguments, OWN_MACHINE if is_private else PUBLIC),
        limits=LineLimits(arguments.jobs_per_visitor, arguments.jobs_per_address, arguments.line, arguments.max_steps),
    )
    if is_lent() and (seconds := engine.open_for_lending()) > VISITOR_SECONDS:
        print(
            f"a clip asks for {seconds} s of the lent GPU, and a visitor without an account has {VISITOR_SECONDS} s a "
            "day: give --size for smaller clips",
            file=sys.stderr,
        )
    every(_SWEEP_SECONDS, engine.runs.sweep)
    # Gradio's copies of what it sends go with this process.
    os.environ.setdefault("GRADIO_TEMP_DIR", str(engine.scratch.received))
    with _without_garbage_collection():
        from prophy.ui.page import build_demo, launch

        demo = build_demo(engine, arguments.vlm, trainings=trainings, evidence=arguments.evidence)
        address = launch(
            demo,
            host="0.0.0.0" if on_space else arguments.host,
            port=arguments.port,
            open_browser=not (arguments.no_browser or on_space),
            root_path=arguments.root_path,
            mcp=arguments.mcp,
        )
    print(f"ProPhy is at {address}", flush=True)
    if arguments.mcp:
        print(f"Tools for agents are at {address.rstrip('/')}/gradio_api/mcp/", flush=True)
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


def _allow_many_connections() -> None:
    """Let this process hold as many connections as the system lets it: often only 1,024 are, unless it asks."""
    if resource is not None:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        with suppress(OSError, ValueError):  # a Mac says infinite, and takes less
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _share_memory_between_threads() -> None:
    """Let every thread allocate from two arenas (glibc; elsewhere this does nothing).

    Every generation has threads of its own. With an arena for each, what the last ones freed stays with their arenas
    and the app grows by a tenth over its first fifty clips.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_ARENA_MAX, 2)
