"""The page's own events, replayed by a program with what it likes: other visitors' sessions, runs and data."""

import re
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from chromium import free_port
from synthetic import make_frames, make_record, make_trace

from prophy.generation.generate import GenerationStopped
from prophy.runs.store import Run, write_run
from prophy.ui.engine.engine import Engine
from prophy.ui.engine.request import Request
from prophy.ui.engine.visitors import owner_of

PROMPT = "a red ball bounces"
MY_SECRET, THEIR_SECRET = "1" * 64, "2" * 64
MINE, THEIRS = owner_of(MY_SECRET), owner_of(THEIR_SECRET)
NO_SECRETS = ["", None, MY_SECRET, THEIRS, THEIR_SECRET[:-1], THEIR_SECRET.upper() + " ", [THEIR_SECRET], {"a": 1}]


class Page(NamedTuple):
    engine: Engine
    theirs: Run
    call: Callable[..., httpx.Response]
    events: dict[str, list[int]]  # by the name of what handles them


@pytest.fixture
def page(tiny_pipeline, tmp_path: Path) -> Iterator[Page]:
    """The page, one run of another visitor in its folder, and a way to send any event as a program would."""
    from prophy.ui.page import build_demo, launch

    write_run(tmp_path / "gallery", make_record(), make_frames(), trace=make_trace(), run_id="shipped")
    theirs = write_run(tmp_path / "runs", make_record(), make_frames(), trace=make_trace(), owner=THEIRS)
    engine = Engine(runs=tmp_path / "runs", gallery=tmp_path / "gallery", open_pipeline=lambda *_: tiny_pipeline)
    demo = build_demo(engine)
    address = launch(demo, port=free_port()).rstrip("/")

    def call(fn_index: int, data: list, event_data: object = None, session: str = "mine") -> httpx.Response:
        body = {"fn_index": fn_index, "data": data, "event_data": event_data, "session_hash": session}
        return httpx.post(f"{address}/gradio_api/run/predict", json=body, timeout=60)

    events = {}
    for index, fn in demo.fns.items():
        if fn.fn is not None and not fn.queue:
            events.setdefault(fn.fn.__name__, []).append(index)
    yield Page(engine, theirs, call, events)
    demo.close(verbose=False)


@pytest.mark.parametrize("secret", NO_SECRETS)
def test_a_run_of_another_visitor_is_not_deleted_by_its_id(page: Page, secret: object):
    page.call(*page.events["_on_delete"], [secret], {"id": page.theirs.id})
    assert page.engine.runs.find(page.theirs.id) == page.theirs


def test_the_session_of_another_visitor_does_not_delete_their_run(page: Page):
    loaded = page.call(*page.events["_on_delete"], [THEIR_SECRET], {"id": "none"}, session="theirs")
    assert page.theirs.id in loaded.text, "their own list is theirs to see"
    said = page.call(*page.events["_on_delete"], [MY_SECRET], {"id": page.theirs.id}, session="theirs")
    assert "belongs to another visitor" in said.text
    assert page.theirs.path.is_dir()


def test_the_owner_deletes_their_run_from_any_page(page: Page):
    said = page.call(*page.events["_on_delete"], [THEIR_SECRET], {"id": page.theirs.id}, session="another page")
    assert said.status_code == 200
    assert not page.theirs.path.exists()


@pytest.mark.parametrize("secret", NO_SECRETS)
def test_nobody_sees_the_runs_of_another_visitor(tiny_pipeline, tmp_path: Path, secret: object):
    engine = Engine(runs=tmp_path, gallery=tmp_path / "none", list_earlier=False)
    write_run(tmp_path, make_record(), make_frames(), owner=THEIRS)
    assert engine.runs.history(owner_of(secret)) == []


def test_the_session_of_another_visitor_does_not_stop_their_generation(page: Page):
    events = page.engine.generate(Request(PROMPT, steps=50), "theirs", THEIRS)
    next(events)
    for stop in page.events["_on_stop"]:
        for secret in NO_SECRETS:
            assert page.call(stop, [None, secret], session="theirs").status_code == 200
    assert page.engine.is_generating("theirs", THEIRS)
    page.call(stop, [None, THEIR_SECRET], session="theirs")
    with pytest.raises(GenerationStopped):
        list(events)


HOSTILE = [None, 3, "id", [], [1], {}, {"id": None}, {"id": {"a": 1}}, {"id": "../../etc/passwd"}, {"id": "a" * 5000}]
HOSTILE += [{"index": "x"}, {"index": 10**30}, {"index": None}, {"steering": [[]]}, {"steering": {"refinement": "x"}}]
HOSTILE += [{"a": 1, "b": None}, {"a": "shipped", "b": "../../etc/passwd"}, {"a": "shipped", "b": "shipped"}]
HOSTILE += [{"from": 7, "to": None}, {"id": "<img src=x onerror=alert(1)>"}, {"id": "nul\0byte"}]


@pytest.mark.parametrize(
    "name",
    [
        *("_on_example", "_on_choose", "_on_revisit", "_on_delete", "_on_refresh", "_on_steer", "_on_copy", "_on_pair"),
        "on_steer",
    ],
)
def test_the_data_of_an_event_may_be_anything(page: Page, name: str, tmp_path: Path):
    of_a_visitor = ("_on_example", "_on_choose", "_on_revisit", "_on_delete", "_on_refresh")
    model = "prophy-tiny"
    inputs = {"on_steer": [model], "_on_copy": ["Two prompts", model], "_on_pair": [model]}.get(name, [])
    inputs = [MY_SECRET] if name in of_a_visitor else inputs
    for event, data in product(page.events[name], HOSTILE):
        answer = page.call(event, inputs, data)
        assert answer.status_code == 200, (data, answer.text[:300])
        assert str(tmp_path) not in answer.text
        assert "<img" not in re.sub(r'"poster":"[^"]*"', "", answer.text)
    assert page.theirs.path.is_dir()
