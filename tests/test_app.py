"""The app without a browser: the engine's promises, and what the page is built from."""

import base64
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic import GRID, NUM_EXPERTS, make_frames, make_record, make_trace

from prophy.routing.steering import Steering
from prophy.runs import overlay
from prophy.runs.store import list_runs, write_run
from prophy.ui.engine import presence
from prophy.ui.engine.engine import Engine
from prophy.ui.engine.errors import EngineError
from prophy.ui.engine.events import Finished, Opening, Started
from prophy.ui.engine.exports import export_for_browser
from prophy.ui.engine.line import Waiting
from prophy.ui.engine.models import ModelSource
from prophy.ui.engine.request import Request, Stopped
from prophy.ui.engine.visitors import owner_of, run_of, told
from prophy.ui.files import exporter
from prophy.ui.views import routing as routing_view
from prophy.ui.views.component import STATIC
from prophy.ui.views.live import LiveView
from prophy.ui.views.routing import RoutingBytes, RunView

PROMPT = "a red ball bounces"
ME, OTHER = owner_of("1" * 64), owner_of("2" * 64)


@pytest.fixture
def engine(tiny_pipeline, tmp_path: Path) -> Engine:
    """An engine over the tests' small pipeline; each generation takes about a second."""
    return Engine(runs=tmp_path / "runs", gallery=tmp_path / "gallery", open_pipeline=lambda *_: tiny_pipeline)


def bytes_of(text: str, *shape: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(shape)


def is_preview(event: object) -> bool:
    return type(event).__name__ == "StepPreview"


# --- the engine -------------------------------------------------------------------------------------------------------


def test_a_generation_reports_each_step_and_ends_as_a_run_on_disk(engine: Engine):
    events = list(engine.generate(Request(f"{PROMPT} flibbert", seed=5, steps=2), "a"))
    assert [type(event) for event in events[:2]] == [Opening, Started]
    assert events[1].unknown_words == ("flibbert",)
    assert [event.step for event in events if is_preview(event)] == [1, 2]
    run = events[-1].run
    assert isinstance(events[-1], Finished)
    assert (run.record.seed, run.record.unknown_words) == (5, ("flibbert",))
    assert run.trace().num_kept == 2
    assert engine.runs.find(run.id).path == run.path
    again = list(engine.generate(Request(PROMPT, steps=1), "a"))
    assert not any(isinstance(event, Opening) for event in again)


def test_stop_ends_within_one_step_saves_nothing_and_frees_the_model(engine: Engine):
    from prophy.generation.generate import GenerationStopped

    events = engine.generate(Request(PROMPT, steps=50), "a")
    first = next(event for event in events if is_preview(event))
    stopped = engine.stop("a")
    assert isinstance(stopped, Stopped)
    assert stopped.prompt == PROMPT
    seen = [first.step]
    with pytest.raises(GenerationStopped):
        seen.extend(event.step for event in events if is_preview(event))  # keeps what came before the end
    assert stopped.preview.step == seen[-1], "a step was made after stop() returned"
    assert seen[-1] < 50
    assert list_runs(engine.runs.folder) == []
    assert engine.stop("a") is None
    assert isinstance(list(engine.generate(Request(PROMPT, steps=1), "a"))[-1], Finished)


def test_closing_the_events_joins_the_worker(engine: Engine):
    events = engine.generate(Request(PROMPT, steps=50), "a")
    next(event for event in events if is_preview(event))
    events.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "prophy-generation"]
    assert list_runs(engine.runs.folder) == []


def test_one_generation_at_a_time_and_a_waiting_one_can_be_stopped(engine: Engine):
    from prophy.generation.generate import GenerationStopped

    first = engine.generate(Request(PROMPT, steps=50), "a")
    next(event for event in first if is_preview(event))
    second = engine.generate(Request(PROMPT, steps=1), "b")
    assert next(second) == Waiting(ahead=1)
    assert engine.stop("b").preview is None
    with pytest.raises(GenerationStopped):
        next(second)
    assert isinstance(next(first), object), "stopping one session stopped another"
    first.close()


def test_those_who_wait_are_served_in_order_and_told_how_many_are_ahead(engine: Engine):
    first = engine.generate(Request(PROMPT, steps=50), "a")
    next(event for event in first if is_preview(event))
    second = engine.generate(Request(PROMPT, steps=50), "b")
    assert next(second) == Waiting(ahead=1)
    third = engine.generate(Request(PROMPT, steps=1), "c")
    assert next(third) == Waiting(ahead=2)
    assert engine.ahead == 3
    first.close()
    assert isinstance(next(second), Started)
    assert next(third) == Waiting(ahead=1)
    second.close()
    assert isinstance(list(third)[-1], Finished)
    assert engine.ahead == 0


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "the prompt is empty"),
        ("   ", "the prompt is empty"),
        ("ball " * 500, "2500 characters"),
        ("<b>ball</b>", "looks like HTML"),
        ("zzz qqq", "knows no word of this prompt"),
    ],
)
def test_a_bad_prompt_gets_one_clear_line(engine: Engine, prompt: str, message: str):
    with pytest.raises(EngineError, match=message) as caught:
        list(engine.generate(Request(prompt, steps=1), "a"))
    assert "\n" not in str(caught.value)


def test_a_failing_model_gets_one_line_and_leaves_the_engine_usable(tiny_pipeline, tmp_path: Path):
    pipelines = [lambda: tiny_pipeline, lambda: (_ for _ in ()).throw(ValueError("no weights\nat all"))]
    engine = Engine(runs=tmp_path, gallery=tmp_path, open_pipeline=lambda *_: pipelines.pop()())
    with pytest.raises(EngineError, match="^the generation failed: no weights$"):
        list(engine.generate(Request(PROMPT, steps=1), "a"))
    assert isinstance(list(engine.generate(Request(PROMPT, steps=1), "a"))[-1], Finished)


def test_a_pipeline_without_a_branch_generates_without_routing(tiny_pipeline, tmp_path: Path):
    from diffusers import WanPipeline

    names = ("tokenizer", "text_encoder", "vae", "transformer", "scheduler")
    stock = WanPipeline(**{name: tiny_pipeline.components[name] for name in names})
    engine = Engine(runs=tmp_path / "runs", gallery=tmp_path, open_pipeline=lambda *_: stock)
    *_, preview, finished = engine.generate(Request(PROMPT, steps=1), "a")
    assert LiveView.of(PROMPT, preview).top1 is None
    assert RunView.of(finished.run, finished.run.trace()).routing is None


def test_runs_are_listed_for_their_owners_and_earlier_ones_only_where_that_is_wanted(tmp_path: Path):
    earlier = write_run(tmp_path, make_record(created="2026-01-01T00:00:00Z"), make_frames())
    engine, public = (Engine(runs=tmp_path, gallery=tmp_path / "none", list_earlier=flag) for flag in (True, False))
    mine = write_run(tmp_path, make_record(created="2026-01-02T00:00:00Z"), make_frames(), owner=ME)
    write_run(tmp_path, make_record(), make_frames(), owner=OTHER)
    assert [run.id for run in engine.runs.history(ME)] == [mine.id, earlier.id]
    assert [run.id for run in public.runs.history(ME)] == [mine.id]
    late = write_run(tmp_path, make_record(created="2026-01-03T00:00:00Z"), make_frames())
    assert [run.id for run in engine.runs.history(ME)] == [late.id, mine.id, earlier.id]
    assert [run.id for run in public.runs.history(ME)] == [mine.id]
    assert public.runs.history("") == []
    assert public.runs.gallery() == []


@pytest.mark.parametrize("run_id", ["../runs", "/etc", "", "None", "a/b"])
def test_a_run_is_found_by_its_id_only(engine: Engine, run_id: str):
    with pytest.raises(EngineError):
        engine.runs.find(run_id)


def test_the_embedded_model_is_described_without_being_opened(tmp_path: Path):
    engine = Engine(runs=tmp_path)
    card = engine.card()
    assert card.is_embedded
    assert {"ball", "red", "bounces"} <= set(card.words)
    assert not any("<" in word for word in card.words)
    assert (card.grid, card.made.steps, card.has_branch) == ((5, 8, 8), 20, True)
    assert engine.open_model is None
    with pytest.raises(ValueError, match="missing holds no model"):
        Engine([ModelSource(tmp_path / "missing")], runs=tmp_path)


def test_a_request_made_before_is_found_again_only_if_everything_is_the_same(engine: Engine):
    asked = Request(PROMPT, seed=3, steps=2)
    assert engine.same_run(asked, ME) is None, "no model is open: nothing can be the same"
    run = list(engine.generate(asked, "a", ME))[-1].run
    assert engine.same_run(asked, ME).path == run.path
    assert engine.same_run(asked, OTHER) is None, "another visitor's run"
    others = (
        replace(asked, seed=4),
        replace(asked, steps=3),
        replace(asked, guidance=2.0),
        replace(asked, use_branch=False),
        replace(asked, steering=Steering(refinement={1: 0})),
    )
    for other in others:
        assert engine.same_run(other, ME) is None, other


def test_a_request_without_the_branch_has_no_routing_and_the_next_one_has(engine: Engine):
    without = list(engine.generate(Request(PROMPT, steps=1, use_branch=False), "a", ME))[-1].run
    with_it = list(engine.generate(Request(PROMPT, steps=1), "a", ME))[-1].run
    assert without.trace() is None
    asked = Request(PROMPT, steps=1, use_branch=False)
    assert engine.same_run(asked, ME).id == without.id
    assert with_it.trace() is not None


def test_a_steered_request_says_so_in_its_run(engine: Engine):
    steering = Steering(refinement={2: 0})
    run = list(engine.generate(Request(PROMPT, steps=1, steering=steering), "a"))[-1].run
    assert run.record.steering == steering
    assert not (run.trace().topk_ids[..., 0] == 2).any()
    with pytest.raises(EngineError, match="refinement expert 9 does not exist"):
        list(engine.generate(Request(PROMPT, steps=1, steering=Steering(refinement={9: 0})), "a"))


def test_a_deleted_run_is_gone_and_nothing_else_can_be_deleted(tmp_path: Path):
    shipped = write_run(tmp_path / "gallery", make_record(), make_frames(), run_id="shipped")
    mine = write_run(tmp_path / "runs", make_record(), make_frames(), run_id="mine", owner=ME)
    (tmp_path / "runs" / "folder").mkdir()
    (tmp_path / "runs" / "link").symlink_to(shipped.path)
    engine = Engine(runs=tmp_path / "runs", gallery=tmp_path / "gallery")
    for run_id in ("shipped", "folder", "link", "../gallery/shipped", "", ".", "mine/run.json"):
        with pytest.raises(EngineError):
            engine.runs.delete(run_id, ME)
    engine.runs.delete("mine", ME)
    assert not mine.path.exists()
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["folder", "link"]
    assert engine.runs.gallery() == [shipped]


def test_only_its_owner_deletes_a_run_and_its_id_alone_opens_it(tmp_path: Path):
    engine = Engine(runs=tmp_path / "runs", gallery=tmp_path / "gallery")
    run = write_run(tmp_path / "runs", make_record(), make_frames(), owner=ME)
    for who in (OTHER, "", ME[:-1], ME.upper(), "None"):
        with pytest.raises(EngineError, match="belongs to another visitor"):
            engine.runs.delete(run.id, who)
    assert engine.runs.find(run.id) == run
    restarted = Engine(runs=tmp_path / "runs", gallery=tmp_path / "gallery")
    with pytest.raises(EngineError, match="belongs to another visitor"):
        restarted.runs.delete(run.id, OTHER)
    restarted.runs.delete(run.id, ME)
    assert not run.path.exists()


def test_a_run_that_nobody_owns_is_deleted_on_ones_own_machine_only(tmp_path: Path):
    run = write_run(tmp_path, make_record(), make_frames())
    own, public = (Engine(runs=tmp_path, gallery=tmp_path / "none", list_earlier=flag) for flag in (True, False))
    for who in (ME, ""):
        with pytest.raises(EngineError, match="belongs to another visitor"):
            public.runs.delete(run.id, who)
    own.runs.delete(run.id, ME)
    assert not run.path.exists()


def ask_in_a_page(engine: Engine, session: str, steps: int):
    engine.presence.is_watched = True
    engine.presence.came(session)

    def is_here() -> bool:
        return engine.presence.is_here(session)

    return engine.generate(Request(PROMPT, steps=steps), session, ME, is_here=is_here, may_return=True)


def leave(engine: Engine, events, session: str) -> None:
    """The page is closed: its connection ends, and gradio closes the events that it listened to."""
    engine.presence.went(session)
    events.close()
    engine.close(session)


def test_a_generation_is_found_again_by_its_owner_alone_once_the_page_is_gone(engine: Engine):
    events = ask_in_a_page(engine, "first", 12)
    seen = next(event for event in events if is_preview(event))
    assert engine.returned("second", ME, is_here=lambda: True, patience=0) is None, "its page still listens"
    leave(engine, events, "first")
    for who in (OTHER, ""):
        assert engine.returned("second", who, is_here=lambda: True, patience=0) is None
    found = engine.returned("second", ME, is_here=lambda: True)
    assert found.prompt == PROMPT
    later = list(found.events)
    steps = [event.step for event in later if is_preview(event)]
    assert steps == list(range(steps[0], 13))
    assert steps[0] >= seen.step
    assert [run.id for run in engine.runs.history(ME)] == [later[-1].run.id]
    assert not engine.is_generating("second", ME)


def test_a_page_that_has_asked_for_another_clip_is_given_none_of_before(engine: Engine):
    events = ask_in_a_page(engine, "first", 50)
    next(event for event in events if is_preview(event))
    leave(engine, events, "first")
    later = ask_in_a_page(engine, "second", 1)
    assert isinstance(next(later), Waiting | Opening | Started)
    assert engine.returned("second", ME, is_here=lambda: True, patience=0) is None
    assert engine.returned("third", ME, is_here=lambda: True, patience=0).prompt == PROMPT
    engine.stop("third", ME)
    assert isinstance(list(later)[-1], Finished), "its own generation is untouched"


def test_a_generation_that_ended_meanwhile_is_found_with_its_clip(engine: Engine):
    events = ask_in_a_page(engine, "first", 1)
    next(event for event in events if is_preview(event))
    leave(engine, events, "first")
    while engine.ahead:
        time.sleep(0.05)
    assert isinstance(list(engine.returned("second", ME, is_here=lambda: True).events)[-1], Finished)
    assert engine.returned("third", ME, is_here=lambda: True, patience=0) is None


def test_a_generation_that_nobody_comes_back_to_is_dropped(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(presence, "GRACE_SECONDS", 0.2)
    events = ask_in_a_page(engine, "first", 50)
    next(event for event in events if is_preview(event))
    leave(engine, events, "first")
    while engine.ahead:
        time.sleep(0.05)
    assert list_runs(engine.runs.folder) == []


def test_one_page_alone_neither_stops_nor_replaces_the_generation_of_an_owner(engine: Engine):
    theirs = engine.generate(Request(PROMPT, steps=50), "page", OTHER)
    assert isinstance(next(theirs), Opening)
    assert engine.stop("page", ME) is None
    assert engine.stop("page") is None
    mine = engine.generate(Request(PROMPT, steps=1), "page", ME)
    assert isinstance(next(mine), Waiting), "asked for in the same page, it waits for its turn"
    assert engine.is_generating("page", OTHER)
    assert isinstance(engine.stop("page", OTHER), Stopped)
    theirs.close()
    assert [type(event) for event in mine][-1] is Finished
    assert [run.id for run in engine.runs.history(ME)] == [run.id for run in list_runs(engine.runs.folder)]


# --- files for a visitor ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipping(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("shipping")
    write_run(folder / "gallery", make_record(), make_frames(), trace=make_trace(), run_id="shipped")
    write_run(folder / "gallery", make_record(), make_frames(), run_id="bare")
    return Engine(runs=folder / "runs", gallery=folder / "gallery")


@pytest.fixture(scope="module")
def export_run(shipping: Engine) -> Callable[[object], dict[str, str]]:
    return exporter(shipping)


@pytest.mark.parametrize(
    ("what", "name", "start"),
    [
        ("overlay", "shipped-overlay.mp4", b"ftyp"),
        ("gif", "shipped-gif.gif", b"GIF89a"),
        ("still", "shipped-still.png", b"PNG"),
        ("trace", "shipped-trace.npz", b"PK"),
        ("zip", "shipped-zip.zip", b"PK"),
    ],
)
def test_a_visitor_gets_files_of_a_run(export_run, what: str, name: str, start: bytes):
    sent = export_run({"run": "shipped", "what": what, "mode": "expert", "index": 1, "step": 2, "frame": 3})
    assert sent["name"] == name
    assert start in base64.b64decode(sent["data"])[:12]


def test_two_runs_come_in_one_file(export_run):
    sent = export_run({"run": "shipped", "beside": "bare", "what": "wipe"})
    assert sent["name"] == "shipped-wipe.mp4"
    assert b"ftyp" in base64.b64decode(sent["data"])[:12]


def test_files_are_made_where_no_generation_waits_for_them(shipping: Engine, monkeypatch):
    done, do = [], shipping.aside.do
    monkeypatch.setattr(shipping.aside, "do", lambda work, *asked: done.append((work, asked[2])) or do(work, *asked))
    assert exporter(shipping)({"run": "shipped", "what": "still"})["type"] == "image/png"
    assert done == [(export_for_browser, shipping.scratch.sent)]


def test_files_are_made_where_what_a_killed_process_leaves_is_swept(shipping: Engine, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "elsewhere"))
    sent = export_for_browser(shipping.runs.find("shipped").path, None, tmp_path, "still", {})
    assert sent["type"] == "image/png"
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_that_does_not_work_is_named(shipping: Engine, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("prophy.video.writing._ENCODERS", (("no_such_encoder", {}),))
    with pytest.raises(EngineError, match="no video encoder could write"):
        export_for_browser(shipping.runs.find("shipped").path, None, tmp_path, "overlay", {})


def test_where_nothing_is_on_show_a_file_is_the_clip_alone(export_run, shipping: Engine):
    alone = shipping.runs.find("shipped").read_bytes("video.mp4")
    sent = export_run({"run": "shipped", "what": "overlay", "opacity": 0})
    assert base64.b64decode(sent["data"]) == alone, "a legend of what is not there"
    still = export_run({"run": "bare", "what": "still", "opacity": 0, "frame": 2})
    assert b"PNG" in base64.b64decode(still["data"])[:8]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (None, "malformed"),
        (["shipped"], "malformed"),
        ({}, "is not a run id"),
        ({"run": "../gallery/shipped", "what": "zip"}, "is not a run id"),
        ({"run": "absent", "what": "zip"}, "no run absent here: it was deleted, or made elsewhere"),
        ({"run": "shipped", "what": "weights"}, "cannot be exported: choose video, overlay, gif, still, trace, zip"),
        ({"run": "shipped", "what": {"a": 1}}, "cannot be exported"),
        ({"run": "bare", "what": "overlay"}, "without a branch"),
        ({"run": "shipped", "what": "overlay", "mode": "<b>"}, "is not one of"),
        ({"run": "shipped", "what": "overlay", "opacity": "x"}, "must be from 0 to 1"),
        ({"run": "shipped", "what": "overlay", "mode": "expert", "index": 10**30}, "is not an expert"),
        ({"run": "shipped", "what": "still", "frame": "../../x"}, "lies outside the clip"),
        ({"run": "shipped", "what": "still", "step": [1]}, "is not a denoising step"),
        ({"run": "shipped", "what": "gif", "mode": "words", "index": 0}, "attends to was not recorded for run shipped"),
        ({"run": "shipped", "what": "gif", "mode": "looks", "region": {"a": 1}}, "a region is a latent frame"),
        ({"run": "shipped", "what": "gif", "mode": "looks", "region": [0, 0, 10**30, 0, 0]}, "a region is a latent"),
    ],
)
def test_a_bad_wish_for_a_file_gets_one_line_and_no_path_of_this_machine(export_run, asked, message: str):
    sent = export_run(asked)
    assert set(sent) == {"error"}
    assert message in sent["error"]
    assert "\n" not in sent["error"]


# --- what comes from a browser ----------------------------------------------------------------------------------------


def test_links_are_read_and_what_is_no_number_is_not_there():
    assert run_of({"run": "a-b", "expert": "3", "frame": "16"}) == "a-b"
    assert run_of({}) is run_of({"run": "", "expert": "-1"}) is None
    assert run_of({"run": "<script>"}) == "<script>"


@pytest.mark.parametrize(
    "sent", [None, 3, {"a": 1}, ["0" * 64], "abc", "0" * 63, "0" * 65, "G" * 64, "0" * 64 + "\n", "٣" * 64]
)
def test_what_is_no_secret_owns_nothing(sent: object):
    assert owner_of(sent) == ""


def test_an_owner_is_told_by_a_digest_that_does_not_hold_the_secret():
    secret = "0123456789abcdef" * 4
    assert re.fullmatch("[0-9a-f]{64}", owner_of(secret))
    assert owner_of(secret) not in (secret, owner_of("f" * 64), "")


@pytest.mark.parametrize("data", [None, 3, [1], "id", {}, {"id": None}, {"id": {"a": 1}}, {"id": 7}])
def test_the_data_of_an_event_may_be_anything(data: object):
    assert told(data, "id") == ""


# --- what the browser is sent -----------------------------------------------------------------------------------------


def test_routing_bytes_are_the_trace():
    trace = make_trace()
    sent = RoutingBytes.of(trace)
    steps, tokens, top_k = trace.topk_ids.shape
    assert (sent.grid, sent.steps, sent.total_steps) == (GRID.shape, [1, 2, 3, 4], 4)
    assert np.array_equal(bytes_of(sent.ids, steps, tokens, top_k), trace.topk_ids)
    assert np.abs(bytes_of(sent.weights, steps, tokens, top_k) / 255 - trace.topk_weights).max() <= 0.5 / 255 + 1e-3
    maps = bytes_of(sent.maps, steps, -1, tokens)
    assert np.abs(maps.transpose(0, 2, 1) / 255 - trace.phenomenon_maps).max() <= 0.5 / 255 + 1e-3
    assert sent.experts == [overlay.expert_colour(e) for e in range(NUM_EXPERTS)]


def test_a_large_trace_sends_fewer_steps_and_says_which(monkeypatch):
    trace = make_trace(steps=7)
    monkeypatch.setattr(routing_view, "MAX_ROUTING_BYTES", 3 * GRID.num_tokens * (2 * 2 + 17))
    sent = RoutingBytes.of(trace)
    assert sent.steps == [1, 4, 7]
    assert np.array_equal(bytes_of(sent.ids, 3, GRID.num_tokens, 2), trace.topk_ids[[0, 3, 6]])


def test_a_run_reaches_the_browser_as_plain_json_without_paths_of_this_machine(tmp_path: Path):
    record = make_record(prompt="a <b>ball</b> & ${1+1} {{x}}")
    run = write_run(tmp_path, record, make_frames(), trace=make_trace(prompt=record.prompt))
    text = json.dumps(RunView.of(run, run.trace()).as_json())
    assert json.loads(text)["prompt"] == record.prompt
    assert str(tmp_path) not in text


@pytest.mark.parametrize("path", sorted(STATIC.glob("*.html")), ids=lambda path: path.name)
def test_templates_have_no_place_where_text_could_run(path: Path):
    # gradio compiles a template as Handlebars, then as a JavaScript template string: {{value}} holding ${…} would run.
    assert not re.search(r"[`\\]|\$\{|\{\{|@children", path.read_text())


def test_nothing_of_the_page_names_another_machine():
    for path in STATIC.iterdir():
        assert not re.search(r"https?://|//cdn|@import", path.read_text()), path.name


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_is_built_without_opening_a_model_and_only_named_endpoints_are_public(engine: Engine):
    from prophy.ui.page import build_demo

    demo = build_demo(engine)
    assert engine.open_model is None
    public = {fn.api_name for fn in demo.fns.values() if fn.api_visibility != "private"}
    assert public == {"generate", "compare", "inspect_token", "export_overlay", "list_gallery"}
    assert demo.analytics_enabled is False


def test_flags_change_only_on_purpose():
    from prophy.ui.cli import build_parser

    flags = set(build_parser()._option_string_actions) - {"-h", "--help"}
    known = "--model --branch --lora --size --profile --vlm --training --evidence --runs --host --port --root-path"
    limits = "--no-browser --jobs-per-visitor --jobs-per-address --line --max-steps --keep-runs --keep-gib --keep-days"
    assert flags == {*known.split(), *limits.split(), "--mcp"}


def test_the_engine_imports_nothing_heavy():
    code = (
        "import sys, prophy.ui.engine.engine; print([m for m in ('torch', 'gradio', 'diffusers') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
