"""The app's named endpoints, called as another program would: over HTTP, by gradio's own client."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chromium import free_port
from gradio_client import Client
from gradio_client.exceptions import AppError
from synthetic import GRID, make_attention, make_frames, make_record, make_trace

from prophy.routing.distance import routing_difference
from prophy.routing.trace import RoutingTrace
from prophy.runs.store import list_runs, write_run
from prophy.ui.engine.engine import Engine
from prophy.video import read_video

PROMPT = "a red ball bounces"


@pytest.fixture(scope="module")
def shipped() -> RoutingTrace:
    return make_trace()


@pytest.fixture
def engine(tiny_pipeline, shipped: RoutingTrace, tmp_path: Path) -> Engine:
    recorded, gallery = make_attention(), tmp_path / "gallery"
    write_run(gallery, make_record(), make_frames(), trace=shipped, attention=recorded, run_id="made-up")
    write_run(gallery, make_record(), make_frames(), run_id="bare")
    return Engine(runs=tmp_path / "runs", gallery=tmp_path / "gallery", open_pipeline=lambda *_: tiny_pipeline)


@pytest.fixture
def client(engine: Engine, tmp_path: Path) -> Iterator[Client]:
    from prophy.ui.page import build_demo, launch

    demo = build_demo(engine)
    yield Client(launch(demo, port=free_port()), verbose=False, download_files=tmp_path / "downloads")
    demo.close(verbose=False)


def test_generate_streams_its_steps_and_ends_with_the_run_and_its_video(client: Client, engine: Engine):
    job = client.submit(f"{PROMPT} flibbert", seed=4, steps=2, api_name="/generate")
    last = job.result()
    events = job.outputs()
    assert [event["event"] for event in events] == ["opening", "started", "step", "step", "finished"]
    assert events[1]["unknown_words"] == ["flibbert"]
    assert (last["seed"], last["settings"]["steps"], last["has_routing"]) == (4, 2, True)
    (run,) = list_runs(engine.runs.folder)
    assert run.id == last["run"]
    video = last["video"] if isinstance(last["video"], str) else last["video"]["path"]
    assert Path(video).read_bytes() == run.video_path.read_bytes()


def test_generate_steers_and_leaves_the_branch_out(client: Client, engine: Engine):
    client.predict(PROMPT, steps=1, steering={"refinement": {"1": 0}}, api_name="/generate")
    (steered,) = list_runs(engine.runs.folder)
    assert not (steered.trace().topk_ids[..., 0] == 1).any()
    bare = client.predict(PROMPT, steps=1, use_branch=False, api_name="/generate")
    assert bare["has_routing"] is False


def test_compare_makes_both_clips_and_measures_their_difference(client: Client, engine: Engine):
    result = client.predict(PROMPT, "a blue candle", seed=2, steps=1, api_name="/compare")
    a, b = (engine.runs.find(result[side]["run"]) for side in "ab")
    assert (a.record.prompt, b.record.prompt, a.record.seed, b.record.seed) == (PROMPT, "a blue candle", 2, 2)
    expected = routing_difference(a.trace(), b.trace())
    assert np.abs(np.array(result["routing_difference"]) - expected).max() < 1e-4
    assert len(result["pixel_difference"]) == a.record.settings["frames"]


def test_inspect_token_returns_exactly_the_saved_numbers(client: Client, shipped: RoutingTrace):
    found = client.predict("made-up", 1, 2, 3, step=2, api_name="/inspect_token")
    token = GRID.index(1, 2, 3)
    ids, weights = shipped.topk_ids[1, token], shipped.topk_weights[1, token]
    assert (found["token"], found["step"]) == (token, 2)
    assert found["experts"] == {str(int(e)): float(w) for e, w in zip(ids, weights, strict=True)}
    assert found["mean_probabilities"] == shipped.mean_probs[token].tolist()
    assert list(found["phenomena"].values()) == shipped.phenomenon_maps[1, token].astype(float).tolist()
    attention = make_attention()
    assert [word for word, _ in found["words"]] == list(attention.words)
    for w, (_, share) in enumerate(found["words"]):
        assert share == pytest.approx(attention.word_map(w).flat[token], abs=1e-5)
    assert len(found["over_time"]) == GRID.frames
    assert found["over_time"][1] == found["experts"]
    assert found["over_steps"][1] == found["experts"]
    assert client.predict("made-up", 1, 2, 3, api_name="/inspect_token")["step"] == 4


def test_export_overlay_sends_a_video_that_plays(client: Client):
    sent = client.predict("made-up", mode="expert", index=1, step=3, api_name="/export_overlay")
    path = sent if isinstance(sent, str) else sent["path"]
    assert len(read_video(path).frames) == GRID.num_video_frames


def test_list_gallery_names_the_shipped_runs(client: Client, shipped: RoutingTrace):
    listed = client.predict(api_name="/list_gallery")
    assert [(run["run"], run["has_routing"]) for run in listed] == [("bare", False), ("made-up", True)]
    assert listed[1]["prompt"] == shipped.prompt


@pytest.mark.parametrize(
    ("endpoint", "arguments", "message"),
    [
        ("generate", {"prompt": ""}, "the prompt is empty"),
        ("generate", {"prompt": "<img src=x onerror=alert(1)>"}, "looks like HTML"),
        ("generate", {"prompt": PROMPT, "steps": 10**9}, "steps=1000000000 must be"),
        ("generate", {"prompt": PROMPT, "seed": "1; ls"}, "seed='1; ls' must be"),
        ("generate", {"prompt": PROMPT, "steering": {"refinement": {"1": "x"}}}, "refinement"),
        ("generate", {"prompt": PROMPT, "steering": {"__class__": 1}}, "steering"),
        ("generate", {"prompt": PROMPT, "model": "../other"}, "no model '../other' here: choose prophy-tiny"),
        ("generate", {"prompt": PROMPT, "model": 3}, "no model 3 here"),
        ("generate", {"prompt": PROMPT, "profile": "fast"}, "no memory profile 'fast': use one of all"),
        (
            "generate",
            {"prompt": PROMPT, "settings": {"shift": 1}},
            "there is no setting 'shift': use few_steps, flow_shift",
        ),
        ("generate", {"prompt": PROMPT, "use_branch": "false"}, "use_branch must be true or false"),
        ("generate", {"prompt": PROMPT, "attention": 1}, "attention must be true or false"),
        ("compare", {"prompt_a": PROMPT, "prompt_b": PROMPT, "use_branch_b": "no"}, "use_branch must be true"),
        ("generate", {"prompt": PROMPT, "settings": [1]}, "settings must be an object"),
        ("generate", {"prompt": PROMPT, "settings": {"flow_shift": "high"}}, "flow_shift='high' must be a number"),
        ("generate", {"prompt": PROMPT, "settings": {"guidance_2": 3.0}}, "one transformer for all noise"),
        ("compare", {"prompt_a": PROMPT, "prompt_b": ""}, "the prompt is empty"),
        ("inspect_token", {"run": "../runs", "frame": 0, "row": 0, "column": 0}, "is not a run id"),
        ("inspect_token", {"run": "/etc/passwd", "frame": 0, "row": 0, "column": 0}, "is not a run id"),
        ("inspect_token", {"run": "bare", "frame": 0, "row": 0, "column": 0}, "without a branch"),
        ("inspect_token", {"run": "made-up", "frame": 99, "row": 0, "column": 0}, "lies outside the grid"),
        ("inspect_token", {"run": "made-up", "frame": "0", "row": None, "column": 0}, "lies outside the grid"),
        ("inspect_token", {"run": "made-up", "frame": 0, "row": 0, "column": 0, "step": 77}, "step=77 was not kept"),
        ("export_overlay", {"run": "absent"}, "no run absent here"),
        ("export_overlay", {"run": "made-up", "mode": "../../etc/passwd"}, "is not one of"),
        ("export_overlay", {"run": "made-up", "opacity": 7}, "must be from 0 to 1"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(client: Client, endpoint: str, arguments: dict, message: str):
    with pytest.raises(AppError, match=message) as caught:
        client.predict(**arguments, api_name=f"/{endpoint}")
    assert "\n" not in str(caught.value).strip()


def test_only_the_five_endpoints_can_be_called(client: Client):
    named = client.view_api(return_format="dict")["named_endpoints"]
    assert set(named) == {"/generate", "/compare", "/inspect_token", "/export_overlay", "/list_gallery"}
    with pytest.raises(ValueError, match="Cannot find a function"):
        client.predict("made-up", api_name="/_on_delete")
