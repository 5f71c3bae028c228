"""Run with: python tests/fuzz.py --seconds 60 --seed 0

Throws damaged and odd inputs at every loader, every flag that parses, every endpoint and every private event of the
app. Files that are valid are changed by seeded mutations; texts come from hypothesis. Fails on an exception that is not
documented, on an input that takes more than ten seconds, and on memory that grows by more than a gibibyte; the input
is kept under ``--keep``. The same seed gives the same inputs, up to where the time ends.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import NonInteractiveExampleWarning
from mutations import ODD, Fault, Target, changed, damaged, of_files

SECONDS, GROWTH = 10, 2**30
PROMPT = "a red ball bounces"


# --- loaders ----------------------------------------------------------------------------------------------------------


def loaders(folder: Path) -> Iterator[Target]:
    """Every loader, with a valid file of its kind."""
    import numpy as np
    from small_training import RECIPE, run
    from synthetic import make_attention, make_frames, make_record, make_trace

    from prophy.annotation.config import read_config
    from prophy.annotation.record import Annotation
    from prophy.assets import assets_dir, default_model
    from prophy.catalogue.describe import describe_model
    from prophy.data.cache import TensorCache, verify
    from prophy.data.folder import read_folder
    from prophy.evaluation.report.sections import read_section
    from prophy.grid import TokenGrid
    from prophy.routing.schedule import Schedule
    from prophy.routing.steering import Steering
    from prophy.routing.targets import TokenTargets
    from prophy.routing.trace import RoutingTrace
    from prophy.runs.store import read_run, write_run
    from prophy.training.checkpoints import load_checkpoint, saved_in
    from prophy.training.recipe import Recipe
    from prophy.video import picture_size, sample_frames

    make_trace().save(folder / "trace.npz")
    yield of_files("routing trace", folder / "trace.npz", "*", RoutingTrace.load)
    TokenTargets(np.ones((24, 17), np.float32), np.ones(17, bool), TokenGrid(2, 3, 4), "x").save(folder / "targets.npz")
    yield of_files("token targets", folder / "targets.npz", "*", TokenTargets.load)
    valid = write_run(
        folder, make_record(), make_frames(), trace=make_trace(), attention=make_attention(), run_id="run"
    ).path

    def read_all_of(path: Path) -> None:
        found = read_run(path)
        found.trace()
        found.attention()
        found.clip()

    yield of_files("run", valid, "*", read_all_of)
    yield of_files("video: its size", valid / "video.mp4", "*", picture_size)
    yield of_files("video: frames", valid / "video.mp4", "*", lambda path: sample_frames(path, 5, 8, 32, 32))
    model = folder / "model"
    for path in default_model().rglob("*.json"):
        copy = model / path.relative_to(default_model())
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.stat().st_size < 2**20:
            shutil.copy(path, copy)
    yield of_files("model's small files", model, "*.json", describe_model)
    training = run(folder / "training", RECIPE)
    yield of_files("checkpoint", training / "checkpoint", "*", load_checkpoint)
    yield of_files("checkpoint: its step", training / "checkpoint", "state.json", saved_in)
    (folder / "annotation.json").write_text(json.dumps({"fps": 2.0, "layers": [1, 2], "max_frames": 8}))
    yield of_files("annotation settings", folder / "annotation.json", "*", read_config)
    shipped = next(path for path in (assets_dir() / "annotated").iterdir() if path.is_dir())
    shutil.copytree(shipped, folder / "annotated")
    yield of_files("annotation", folder / "annotated", "*.npz", Annotation.load)
    (folder / "table").mkdir()
    (folder / "table" / "a.mp4").write_bytes(b"x")
    (folder / "table" / "captions.csv").write_text("file,caption,phenomena,width\na.mp4,a ball falls,melting,64\n" * 2)
    yield of_files("captions", folder / "table", "*.csv", read_folder)
    import torch

    cache = TensorCache(folder / "cache", {"model": "x"})
    with cache.writer("0001-of-0001", 4) as writer:
        writer.add("clip", cache.key("clip"), {"latents": torch.zeros(2, 3)})
    yield of_files("cache", folder / "cache", "*", lambda path: [TensorCache(path).entries(), verify(path)])
    for path in sorted((assets_dir() / "evidence" / "evaluation").glob("*.json"))[:12]:
        copy = folder / "evidence" / path.name
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(path, copy)
        yield of_files(f"result {path.stem}", copy, "*", read_section)
    record = RECIPE.record()
    yield Target("recipe", lambda rng: Recipe.from_record(changed(record, rng)))  # type: ignore[arg-type]
    steering = {"refinement": {"1": 0.5}, "semantic": {"3": 2}}
    yield Target("steering", lambda rng: Steering.from_json(changed(steering, rng)))
    yield Target("schedule", lambda rng: Schedule.from_json(changed({"interval": [0.1, 0.9]}, rng)))


# --- flags ------------------------------------------------------------------------------------------------------------


def flags() -> Iterator[Target]:
    """Every flag's text that is parsed."""
    from prophy.catalogue.limits import ClipSize
    from prophy.catalogue.lora import LoraSource
    from prophy.data.jobs import Shard
    from prophy.flags import seeds, time_limit, whole
    from prophy.memory.profiles import Profile
    from prophy.routing.schedule import Schedule
    from prophy.routing.steering import parse_force, parse_scales
    from prophy.ui.engine.visitors import address_of, owner_of, run_of
    from prophy.worlds import Stage

    parsers: dict[str, Callable[[str], object]] = {
        "--size": ClipSize.parse,
        "--size of worlds": lambda text: Stage.parse(text, 8),
        "--shard": lambda text: Shard.of(text, {}),
        "--steer": lambda text: parse_scales([text]),
        "--force": parse_force,
        "--branch-interval": Schedule.parse,
        "--profile": Profile.parse,
        "a count": whole,
        "a seed": seeds,
        "--minutes": time_limit,
        "a link": lambda text: run_of({"run": text}),
        "an address": lambda text: address_of(text, text),
        "a secret": owner_of,
        "--lora": lambda text: LoraSource.parse(text).name,
    }
    valid = ["832x480x81", "3/16", "refinement:3=0", "expert=2,frames=0-4,box=0.1:0.2:0.5:0.6", "0.3:1", "group+tiling"]
    texts = st.one_of(st.text(max_size=60), st.from_regex(r"[0-9a-z:=,x./+-]{0,40}"), st.sampled_from(valid))
    for name, parse in parsers.items():
        yield Target(f"flag {name}", _examples(texts, parse), (ValueError, argparse.ArgumentTypeError))


_ONE = settings(
    max_examples=1, phases=[Phase.generate], database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


def _examples(texts: st.SearchStrategy[str], parse: Callable[[str], object]) -> Callable[[random.Random], None]:
    def throw(rng: random.Random) -> None:
        said: list[str] = []

        @seed(rng.randrange(2**32))
        @settings(
            max_examples=1,
            phases=[Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(texts)
        def draw(text: str) -> None:
            said.append(text)

        draw()
        text = said[0] if rng.random() < 0.7 else damaged(said[0].encode(), rng).decode(errors="replace")
        parse(text)

    return throw


# --- the app ----------------------------------------------------------------------------------------------------------


@contextmanager
def app(folder: Path) -> Iterator[list[Target]]:
    """Every endpoint and every private event of a running app."""
    import conftest
    from chromium import free_port
    from synthetic import make_frames, make_record, make_trace

    from prophy.runs.store import write_run
    from prophy.ui.engine.engine import Engine
    from prophy.ui.engine.line import LineLimits
    from prophy.ui.page import build_demo, launch

    transformer = conftest.make_transformer()
    pipeline = conftest.tiny_pipeline.__wrapped__(transformer, conftest.make_branch(transformer, trained=True))
    write_run(folder / "gallery", make_record(), make_frames(), trace=make_trace(), run_id="shipped")
    engine = Engine(
        runs=folder / "runs",
        gallery=folder / "gallery",
        open_pipeline=lambda *_: pipeline,
        limits=LineLimits(steps=4),  # so that ten seconds are enough for whatever is asked for
    )
    demo = build_demo(engine)
    address = launch(demo, port=free_port()).rstrip("/")
    # No connection is kept: the server closes one that rests while files are thrown at.
    client = httpx.Client(timeout=SECONDS, limits=httpx.Limits(max_keepalive_connections=0))
    arguments = {
        "generate": [PROMPT, 0, 1, -1.0, True, {}, "", "", {}, False],
        "compare": [PROMPT, PROMPT, 0, 1, -1.0, True, {}, "", ""],
        "inspect_token": ["shipped", 0, 0, 0, 0],
        "export_overlay": ["shipped", "top1", -1, 0, 0.5],
    }

    def check(answer: httpx.Response) -> None:
        if str(folder) in answer.text or "Traceback" in answer.text:
            raise Fault(f"a path of the machine, or a traceback: {answer.text[:500]}")

    def endpoint(index: int, valid: list) -> Callable[[random.Random], None]:
        def throw(rng: random.Random) -> None:
            session = f"fuzz {rng.randrange(10**9)}"
            body = {"fn_index": index, "data": changed(valid, rng), "session_hash": session}
            text = json.dumps(body)
            answer = client.post(f"{address}/gradio_api/queue/join", content=text, headers=_JSON)
            check(answer)
            if answer.status_code == 200:
                check(client.get(f"{address}/gradio_api/queue/data", params={"session_hash": session}))

        return throw

    def event(index: int, inputs: int) -> Callable[[random.Random], None]:
        def throw(rng: random.Random) -> None:
            data = [rng.choice(ODD) for _ in range(inputs if rng.random() < 0.9 else rng.randrange(20))]
            told = changed({"id": "shipped", "index": 1, "steering": {}, "from": "shipped"}, rng)
            body = {"fn_index": index, "data": data, "event_data": told, "session_hash": "fuzz"}
            check(client.post(f"{address}/gradio_api/run/predict", content=json.dumps(body), headers=_JSON))

        return throw

    def server(component: int, name: str) -> Callable[[random.Random], None]:
        def throw(rng: random.Random) -> None:
            asked = changed({"run": "shipped", "what": "still", "mode": "top1", "step": 1, "frame": 0}, rng)
            body = {"component_id": component, "fn_name": name, "session_hash": "fuzz", "data": asked}
            check(client.post(f"{address}/gradio_api/component_server", content=json.dumps(body), headers=_JSON))

        return throw

    found = []
    for index, fn in demo.fns.items():
        if fn.fn is None:
            continue
        if fn.api_name in arguments and fn.queue:
            found.append(Target(f"endpoint {fn.api_name}", endpoint(index, arguments[fn.api_name]), ()))
        elif not fn.queue:
            found.append(Target(f"event {fn.fn.__name__}", event(index, len(fn.inputs)), ()))
    for block in demo.blocks.values():
        for fn in getattr(block, "server_fns", ()):
            found.append(Target(f"call {fn.__name__}", server(block._id, fn.__name__), ()))
    try:
        yield found
        if client.get(address).status_code != 200:
            raise Fault("the app no longer answers")
    finally:
        client.close()
        demo.close(verbose=False)


_JSON = {"Content-Type": "application/json"}


# --- the run ----------------------------------------------------------------------------------------------------------


def peak() -> int:
    """Bytes of this process at its highest."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _too_long(*_: object) -> None:
    raise Fault(f"more than {SECONDS} s")


def throw(target: Target, rng: random.Random) -> str:
    """Throw one input. Returns whether it was read or refused.

    Raises:
        Fault: what must not happen.
    """
    before = peak()
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        target.throw(rng)
        outcome = "read"
    except target.documented:
        outcome = "refused"  # the command line and the page make one line of whatever it says
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if peak() - before > GROWTH:
        raise Fault(f"memory grew by {(peak() - before) >> 20} MiB")
    return outcome


def fuzz(targets: list[Target], seconds: float, start: int, keep: Path, most: int | None) -> tuple[Counter, list[str]]:
    """Throw at each target in turn until the time is over; what was read and refused, and the faults."""
    counts: Counter = Counter()
    faults: list[str] = []
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end and (most is None or number < most):
        target = targets[number % len(targets)]
        name = f"{start}/{number}"
        try:
            counts[throw(target, random.Random(name))] += 1
        except Exception as error:
            faults.append(f"{target.name}, input {name}: {type(error).__name__}: {str(error)[:300]}")
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{number}.txt").write_text(f"{target.name}\n{name}\n{traceback.format_exc()}")
            print(faults[-1], flush=True)
        number += 1
    return counts, faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default: 60)")
    parser.add_argument("--inputs", type=int, metavar="N", help="end after so many (default: when the time is over)")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs (default: 0)")
    parser.add_argument("--only", default="", metavar="TEXT", help="targets whose name holds this (default: all)")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-faults"), help="where faults are kept")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", NonInteractiveExampleWarning)
    signal.signal(signal.SIGALRM, _too_long)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for inner in ("app", "brought", "kept"):
            (folder / inner).mkdir()
        os.environ |= {"HF_HUB_CACHE": str(folder / "hub"), "HF_HUB_OFFLINE": "1"}  # before its client is imported
        with app(folder / "app") as of_app:
            from fuzz_brought import brought
            from fuzz_kept import kept

            files = [*loaders(folder), *brought(folder / "brought", folder / "training", folder / "hub")]
            files += kept(folder / "kept")
            targets = [*files, *flags(), *of_app]
            targets = [target for target in targets if arguments.only in target.name]
            counts, faults = fuzz(targets, arguments.seconds, arguments.seed, arguments.keep, arguments.inputs)
    total = sum(counts.values()) + len(faults)
    print(
        f"{total:,} inputs at {len(targets)} targets, seed {arguments.seed}: {counts['refused']:,} refused, "
        f"{counts['read']:,} read or answered, {len(faults)} faults"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
