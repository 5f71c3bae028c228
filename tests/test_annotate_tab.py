"""The Annotate view without a browser: what it sends, shipped clips, a clip of one's own, errors in one line."""

import base64
import json
from types import SimpleNamespace

import numpy as np
import pytest
from video_files import UPRIGHT, edges, scene, write
from vlms import make_model, make_tokenizer

from prophy.annotation.annotator import Annotator
from prophy.annotation.config import AnnotationConfig
from prophy.annotation.pipeline import annotate_all
from prophy.annotation.record import Annotation
from prophy.data.jobs import WORLDS, Shard, jobs_of_worlds
from prophy.phenomena import by_id
from prophy.ui.engine.engine import Engine
from prophy.ui.engine.slots import Slots
from prophy.ui.page import build_demo, launch
from prophy.ui.tabs import annotate as annotate_tab
from prophy.ui.tabs.annotate import AnnotateTab, answers_html, shipped, view_of
from prophy.video import picture_size, read_video, write_video

CONFIG = AnnotationConfig(fps=4.0, min_frame_tokens=16, max_frame_tokens=64, max_answer_tokens=3)


@pytest.fixture(scope="module")
def annotator() -> Annotator:
    return Annotator(make_model("qwen2_5_vl"), make_tokenizer(), CONFIG, name="small-vlm")


@pytest.fixture(scope="module")
def folder(annotator, tmp_path_factory):
    out = tmp_path_factory.mktemp("annotations")
    annotate_all(annotator, jobs_of_worlds(1, "test", ("melting", "collision")), out, WORLDS, Shard(0, 1))
    (clip,) = (out / "clips").iterdir()
    return clip


def bytes_of(text: str, *shape: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(shape)


def test_the_view_holds_each_target_both_attention_maps_and_the_difference(folder):
    annotation = Annotation.load(folder)
    view = view_of(annotation, (folder / "clip.mp4").read_bytes(), "a caption", "clip", 1.0)
    routing = view.routing
    names = [name for name, _ in routing.phenomena]
    assert names[-1] == "brief description"
    assert len(names) == 3 * len(annotation.answers) + 1
    maps = bytes_of(routing.maps, len(names), annotation.targets.grid.num_tokens)
    for i, phenomenon in enumerate(annotation.answers):
        values = annotation.targets.values[:, by_id(phenomenon).index]
        assert names[3 * i] == f"{by_id(phenomenon).name}: target"
        peak = np.abs(values).max()
        np.testing.assert_array_equal(maps[3 * i], np.round(255 * np.clip(values / peak, 0, 1)))
        np.testing.assert_array_equal(maps[3 * i + 2], np.round(255 * np.clip(-values / peak, 0, 1)))
        assert not (maps[3 * i].astype(int) * maps[3 * i + 2]).any(), "a token is both here and not here"
    assert maps.max() == 255
    assert (routing.experts, routing.top_k) == ([], 0)
    assert json.loads(json.dumps(view.as_json()))["frames"] == 17


def test_what_a_model_says_is_shown_as_text(folder):
    annotation = Annotation.load(folder)
    name = next(iter(annotation.answers))
    bad = annotation.answers[name]
    object.__setattr__(bad, "text", "<script>alert(1)</script>")
    said = answers_html(annotation)
    assert "<script>" not in said
    assert "&lt;script&gt;" in said
    assert annotation.background.question in said


def test_shipped_clips_are_small_complete_and_open(monkeypatch):
    clips = shipped()
    total = sum(path.stat().st_size for clip in clips.values() for path in clip.iterdir())
    assert total < 1_000_000
    for clip in clips.values():
        annotation = Annotation.load(clip)
        assert picture_size(clip / "clip.mp4")
        assert annotation.targets.labelled.any()


def test_the_tab_opens_what_is_shipped_and_says_how_to_annotate_more(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(annotate_tab, "assets_dir", lambda: tmp_path)
    (tmp_path / "annotated").mkdir()
    (tmp_path / "annotated" / "one").symlink_to(folder)
    page = build_demo(Engine(runs=tmp_path / "runs", gallery=tmp_path / "gallery"))
    parts = {component.elem_id for component in page.blocks.values() if getattr(component, "elem_id", None)}
    assert {"annotation-view", "annotate-shipped", "annotate-how"} <= parts
    assert "annotate-file" not in parts
    tab = AnnotateTab.__new__(AnnotateTab)
    tab._shipped = shipped()
    (caption,) = tab._shipped
    view, said, notice = tab._on_shipped(caption)
    assert (view["prompt"], notice) == (caption, "")
    assert "Describe the video briefly." in said
    assert tab._on_shipped("no such") == (None, "", "")
    assert tab._on_shipped(None) == (None, "", "")


def test_a_clip_of_ones_own_is_annotated_and_a_bad_one_refused_in_one_line(annotator, tmp_path):
    tab = AnnotateTab.__new__(AnnotateTab)
    tab._open = lambda: annotator
    tab._slots = Slots("annotations", running=1, waiting=1, each=1)
    frames = np.random.default_rng(0).integers(0, 255, (20, 50, 90, 3), dtype=np.uint8)
    write_video(tmp_path / "own.mp4", frames, 8.0)
    view, said, notice = tab._on_annotate(str(tmp_path / "own.mp4"), ["melting"], None)
    assert notice == ""
    assert view["frames"] == 17
    assert view["routing"]["grid"] == (5, 3, 6)
    assert "melting" in said
    (tmp_path / "bad.mp4").write_text("no video")
    write_video(tmp_path / "short.mp4", frames[:2], 8.0)
    for file, asked, error in (
        (None, ["melting"], "there is no clip"),
        ("own.mp4", [], "tick at least one"),
        ("own.mp4", ["levitation"], "unknown phenomenon"),
        ("bad.mp4", ["melting"], "cannot be read as a video"),
        ("short.mp4", ["melting"], "too short"),
    ):
        view, said, notice = tab._on_annotate(None if file is None else str(tmp_path / file), asked, None)
        assert (view, said) == (None, "")
        assert error.lower() in notice.lower()
        assert str(tmp_path) not in notice, "a folder of the server is nobody's business"


def test_a_phones_clip_is_shown_and_annotated_upright(annotator, tmp_path):
    tab = AnnotateTab.__new__(AnnotateTab)
    tab._open = lambda: annotator
    tab._slots = Slots("annotations", running=1, waiting=1, each=1)
    clockwise = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    path = write(tmp_path / "phone.mov", [np.rot90(scene(), 1)] * 9, matrix=clockwise)
    view, _, notice = tab._on_annotate(str(path), ["melting"], None)
    assert notice == ""
    assert view["aspect"] == 96 / 160
    assert view["routing"]["grid"] == (3, 10, 6)
    (tmp_path / "shown.mp4").write_bytes(base64.b64decode(view["video"]))
    assert edges(read_video(tmp_path / "shown.mp4").frames[0]) == UPRIGHT


def test_a_shipped_clip_plays_with_its_maps_in_a_browser(browser, tmp_path):
    demo = build_demo(Engine(runs=tmp_path / "runs", gallery=tmp_path / "gallery"))
    address = launch(demo)
    errors: list[str] = []
    try:
        page = browser.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        page.get_by_role("tab", name="Annotate").click()
        page.locator("#annotate-shipped label").first.click()
        view = page.locator("#annotation-view .pp-view")
        view.wait_for()
        names = view.locator(".pp-row .pp-name").all_inner_texts()
        assert names[0].endswith(": target")
        assert names[-1] == "brief description"
        view.locator(".pp-row").nth(1).click()
        assert view.locator(".pp-row[aria-pressed=true]").inner_text().startswith(names[1])
        view.locator(".pp-stage").click()
        for hidden in (
            ".pp-inspect",
            ".pp-semantic",
            ".pp-to-steer",
            ".pp-save",
            "[data-mode=top1]",
            "[data-mode=all]",
            ".pp-step",
        ):
            assert not view.locator(hidden).is_visible(), hidden
        view.locator("[data-mode=off]").click()
        assert view.locator(".pp-row").count() == len(names)
        assert "Describe the video briefly." in page.locator("#annotate-answers").inner_text()
        page.close()
    finally:
        demo.close()
    assert errors == []


def test_an_uploaded_clip_is_annotated_in_a_browser(browser, tmp_path):
    vlm = tmp_path / "small-vlm"
    make_model("qwen2_5_vl").save_pretrained(vlm)
    make_tokenizer().save_pretrained(vlm)
    (vlm / "annotation.json").write_text(json.dumps({"max_answer_tokens": 3, "min_frame_tokens": 16}))
    frames = np.random.default_rng(0).integers(0, 255, (20, 48, 64, 3), dtype=np.uint8)
    write_video(tmp_path / "my own clip.mp4", frames, 8.0)
    write_video(tmp_path / "short.mp4", frames[:2], 8.0)
    demo = build_demo(Engine(runs=tmp_path / "runs", gallery=tmp_path / "gallery"), str(vlm))
    address = launch(demo)
    errors: list[str] = []
    try:
        page = browser.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        page.get_by_role("tab", name="Annotate").click()
        page.locator("#annotate").click()
        page.locator("#annotate-notice", has_text="there is no clip: choose a file").wait_for()
        page.locator("#annotate-file input[type=file]").set_input_files(tmp_path / "short.mp4")
        page.locator("#annotate-file", has_text="short").wait_for()
        page.locator("#annotate-phenomena").get_by_label("melting").check()
        page.locator("#annotate").click()
        page.locator("#annotate-notice", has_text="too short").wait_for()
        page.locator("#annotate-file").get_by_label("Clear").click()
        page.locator("#annotate-file input[type=file]").set_input_files(tmp_path / "my own clip.mp4")
        page.locator("#annotate-file", has_text="my own clip").wait_for()
        page.locator("#annotate").click()
        view = page.locator("#annotation-view .pp-view")
        view.wait_for(timeout=60_000)
        assert "my own clip" in view.inner_text()
        assert view.locator(".pp-row .pp-name").first.inner_text() == "melting: target"
        assert "Describe the melting phenomenon in the video." in page.locator("#annotate-answers").inner_text()
        assert page.locator("#annotate-notice").inner_text().strip() == ""
        page.close()
    finally:
        demo.close()
    assert errors == []


def test_clips_to_annotate_are_bounded_for_one_visitor_and_in_all():
    tab = AnnotateTab.__new__(AnnotateTab)
    tab._slots = Slots("annotations", running=1, waiting=0, each=1)
    own, other = (
        SimpleNamespace(client=None, headers={"x-forwarded-for": address}, session_hash="a")
        for address in ("8.8.4.4", "1.1.1.1")
    )
    with tab._slots.taken("8.8.4.4"):
        assert "1 annotations of yours are under way" in tab._on_annotate("a.mp4", ["melting"], own)[2]
        assert "Too many annotations at once" in tab._on_annotate("a.mp4", ["melting"], other)[2]
    assert "mp4 does not exist" in tab._on_annotate("a.mp4", ["melting"], own)[2]
