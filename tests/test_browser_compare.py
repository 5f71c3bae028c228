"""The compare view in a real browser: two shipped runs that cannot drift apart, and a difference shown as it is."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from chromium import CHROMIUM, PATIENCE_MS, free_port, slide

from prophy.assets import gallery_dir
from prophy.routing.distance import routing_difference
from prophy.runs import overlay
from prophy.runs.store import Run, read_run
from prophy.ui.engine.engine import Engine

SMALL = 64  # pixels at which pictures are compared with the clip's own
SAMPLE_FRAMES = """(seconds) => new Promise((resolve) => {
    const root = document.querySelector('.pp-compare');
    const samples = [];
    const end = performance.now() + 1000 * seconds;
    const sample = (now) => {
        samples.push([Number(root.dataset.frameA), Number(root.dataset.frameB)]);
        if (now < end) requestAnimationFrame(sample); else resolve(samples);
    };
    requestAnimationFrame(sample);
})"""
READ_PICTURE = """([name, size]) => {
    const small = document.createElement('canvas');
    small.width = small.height = size;
    const context = small.getContext('2d');
    context.imageSmoothingQuality = 'high';
    context.drawImage(document.querySelector(`.pp-stage.is-${name} canvas`), 0, 0, size, size);
    return [...context.getImageData(0, 0, size, size).data];
}"""
READ_CELLS = """([name, rows, columns]) => {
    const canvas = document.querySelector(`.pp-stage.is-${name} canvas`);
    const context = canvas.getContext('2d');
    const middle = (i, count, size) => Math.floor(((i + 0.5) / count) * size);
    const range = (count) => Array.from({ length: count }, (_, i) => i);
    return range(rows).map((h) => range(columns).map((w) => [...context.getImageData(
        middle(w, columns, canvas.width), middle(h, rows, canvas.height), 1, 1).data]));
}"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH"),
]


class Pair(NamedTuple):
    address: str
    a: Run
    b: Run
    frames: dict[str, np.ndarray]  # of each run's clip, small, by the run's id


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Iterator[Pair]:
    """A page with nothing but the compare view of two shipped runs, and what its event says."""
    import gradio as gr

    from prophy.ui.page import Page, launch
    from prophy.ui.views.compare import CompareView, compare_view

    a, b = (read_run(gallery_dir() / name) for name in ("tap-and-grenade", "ball-and-candle"))
    value = CompareView.of(a, b, labels=("branch on", "expert 3 muted")).as_json()

    def on_copy(event: gr.EventData) -> str:
        return event._data["id"]

    with Page(Engine(runs=tmp_path_factory.mktemp("runs")), most_upload=0) as demo:
        view = compare_view()
        copied = gr.Textbox(elem_id="copied", show_label=False)
        demo.load(lambda: value, None, view, show_progress="hidden")
        view.copy(on_copy, None, copied, show_progress="hidden")
    yield Pair(launch(demo, port=free_port()).rstrip("/"), a, b, {run.id: small_frames(run) for run in (a, b)})
    demo.close(verbose=False)


@pytest.fixture
def visit(pair: Pair, browser):
    """Opens the page and waits until both clips are read; at the end, checks that no request or script went astray."""
    contexts, requests, complaints = [], [], []

    def open_page(width: int = 1280, height: int = 1100, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        context.on("request", lambda request: requests.append(request.url))
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: complaints.append(f"{error}: {error.stack}"))
        page.goto(pair.address)
        page.wait_for_selector(".pp-compare:is([data-state=ready], [data-state=failed])")
        assert page.get_attribute(".pp-compare", "data-state") == "ready"
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [url for url in requests if not url.startswith((f"{pair.address}/", "data:", "blob:"))] == []
    assert complaints == []


def frames_on_show(page) -> list[int]:
    return [int(page.get_attribute(".pp-compare", f"data-frame-{name}")) for name in "ab"]


def small_frames(run: Run) -> np.ndarray:
    return np.stack([cv2.resize(frame, (SMALL, SMALL), interpolation=cv2.INTER_AREA) for frame in run.clip().frames])


def nearest_frame(page, name: str, frames: np.ndarray) -> int:
    """The frame of a clip that is the nearest to what a side shows."""
    picture = np.array(page.evaluate(READ_PICTURE, [name, SMALL]), float).reshape(SMALL, SMALL, 4)[..., :3]
    return int(np.abs(frames - picture).mean((1, 2, 3)).argmin())


def test_five_seconds_of_play_never_part_the_two_sides(visit):
    page = visit()
    samples = np.array(page.evaluate(SAMPLE_FRAMES, 5))
    a, b = samples.T
    print("largest drift", np.abs(a - b).max(), "frames seen", len(set(a)), "of", len(a), "samples")
    assert np.abs(a - b).max() <= 1
    assert (np.diff(a) < 0).sum() >= 2, "17 frames at 8 a second start over twice in five seconds"
    assert len(set(a)) > 8
    page.click(".pp-compare .pp-play")
    stopped = frames_on_show(page)
    page.wait_for_timeout(400)
    assert frames_on_show(page) == stopped


def test_a_scrub_shows_that_frame_of_both_clips_and_a_swap_changes_their_places(pair: Pair, visit):
    page = visit()
    page.click("[data-mode=off]")
    a_frames, b_frames = pair.frames[pair.a.id], pair.frames[pair.b.id]
    for frame in [5, 0, 16, 9, 10, 1, 4]:
        slide(page, ".pp-compare .pp-scrub", frame)
        assert frames_on_show(page) == [frame, frame]
        assert nearest_frame(page, "a", a_frames) == frame
        assert nearest_frame(page, "b", b_frames) == frame
    page.focus(".pp-compare")
    page.keyboard.press(".")
    assert frames_on_show(page) == [5, 5]
    page.keyboard.press(",")
    assert frames_on_show(page) == [4, 4]

    prompts = [page.inner_text(f".pp-side.is-{name} .pp-prompt") for name in "ab"]
    assert prompts == [pair.a.record.prompt, pair.b.record.prompt]
    page.click(".pp-swap")
    assert [page.inner_text(f".pp-side.is-{name} .pp-prompt") for name in "ab"] == prompts[::-1]
    assert page.inner_text(".pp-side.is-a .pp-side-label") == "A · expert 3 muted"
    assert nearest_frame(page, "a", b_frames) == 4
    assert nearest_frame(page, "b", a_frames) == 4
    page.click(".pp-copy-side")
    page.wait_for_function("document.querySelector('#copied textarea, #copied input').value !== ''")
    assert page.input_value("#copied textarea, #copied input") == pair.b.id


def test_the_difference_is_drawn_in_its_own_colours_on_both_sides(pair: Pair, visit, tmp_path: Path):
    page = visit(reduced_motion="reduce")
    levels = np.round(255 * routing_difference(pair.a.trace(), pair.b.trace())).astype(np.uint8)
    page.click("[data-mode=difference]")
    slide(page, ".pp-compare .pp-opacity", 100)
    grid = pair.a.trace().grid
    for frame in [0, 4, 16]:
        slide(page, ".pp-compare .pp-scrub", frame)
        expected = overlay.level_colours()[levels[grid.latent_frame(frame)]]
        for name in "ab":
            cells = np.array(page.evaluate(READ_CELLS, [name, grid.height, grid.width]), np.uint8)
            assert np.array_equal(cells[..., :3], expected)
    assert f"largest {levels.max() / 255:.2f}" in page.inner_text(".pp-summary")
    assert page.is_disabled(".pp-compare .pp-step"), "the difference is over all steps"
    slide(page, ".pp-compare .pp-opacity", 60)
    page.screenshot(path=tmp_path / "difference.png", full_page=True)


def test_entropy_and_margin_are_drawn_for_each_side_and_summed_up(pair: Pair, visit, tmp_path: Path):
    page = visit(reduced_motion="reduce")
    traces = {"a": pair.a.trace(), "b": pair.b.trace()}
    grid = traces["a"].grid
    for mode in ("entropy", "margin"):
        page.click(f".pp-compare [data-mode={mode}]")
        slide(page, ".pp-compare .pp-opacity", 100)
        assert page.is_disabled(".pp-compare .pp-step") == (mode == "entropy"), "entropy is over all steps"
        summaries = page.inner_text(".pp-summary").splitlines()
        for name, summary in zip("ab", summaries, strict=True):
            trace = traces[name]
            values = (
                trace.entropy() if mode == "entropy" else trace.topk_weights[-1, :, 0] - trace.topk_weights[-1, :, 1]
            )
            assert summary.startswith(f"{name.upper()}: mean ")
            assert abs(float(summary.split("largest ")[1][:4]) - values.max()) <= 0.02
            slide(page, ".pp-compare .pp-scrub", 9)
            shown = np.array(page.evaluate(READ_CELLS, [name, grid.height, grid.width]), np.int64)[..., :3]
            levels = np.round(255 * values.astype(np.float32)).astype(int).reshape(grid.shape)[grid.latent_frame(9)]
            colours = overlay.level_colours().astype(np.int64)
            # each weight was rounded on its own: a margin may be one level off
            near = [colours[np.clip(levels + off, 0, 255)] for off in (-1, 0, 1)]
            assert np.minimum.reduce([np.abs(shown - colour).max(-1) for colour in near]).max() == 0
        page.screenshot(path=tmp_path / f"{mode}.png", full_page=True)


def test_the_measured_difference_is_said_and_its_amplified_picture_is_exact(pair: Pair, visit, tmp_path: Path):
    page = visit(reduced_motion="reduce")
    assert page.inner_text(".pp-verdict").startswith("The pictures differ by ")
    assert page.inner_text(".pp-verdict").endswith("this is visible.")
    gain = int(page.inner_text("[data-layout=amplified]").split("×")[1])
    page.click("[data-layout=amplified]")
    assert page.is_hidden(".pp-stage.is-b")
    a, b = (pair.frames[run.id].astype(float) for run in (pair.a, pair.b))
    for frame in (0, 9):
        slide(page, ".pp-compare .pp-scrub", frame)
        shown = np.array(page.evaluate(READ_PICTURE, ["a", SMALL]), float).reshape(SMALL, SMALL, 4)[..., :3]
        expected = np.minimum(255, gain * np.abs(a[frame] - b[frame]))
        assert np.abs(shown - expected).mean() < 3 * gain  # each picture was decoded and made smaller on its own
    page.screenshot(path=tmp_path / "amplified.png", full_page=True)
    page.click("[data-layout=side]")
    assert page.is_visible(".pp-stage.is-b")


def test_the_divider_moves_by_keyboard_and_by_hand(visit, tmp_path: Path):
    page = visit(reduced_motion="reduce")
    page.click("[data-mode=top1]")
    slide(page, ".pp-compare .pp-scrub", 9)
    page.click(".pp-modes [data-layout=wipe]")
    a, b, pad = (page.locator(css).bounding_box() for css in (".pp-stage.is-a", ".pp-stage.is-b", ".pp-wipe"))
    assert a == b == pad
    page.focus(".pp-divider")
    for key, value in [("ArrowRight", 52), ("ArrowLeft", 50), ("PageUp", 60), ("End", 100), ("Home", 0)]:
        page.keyboard.press(key)
        assert page.get_attribute(".pp-divider", "aria-valuenow") == str(value)
        clipped = page.eval_on_selector(".pp-stage.is-b", "(stage) => getComputedStyle(stage).clipPath")
        assert f"{value}%" in clipped or clipped == "inset(0px)", clipped
    page.mouse.move(pad["x"] + 20, pad["y"] + 50)
    page.mouse.down()
    page.mouse.move(pad["x"] + 0.3 * pad["width"], pad["y"] + 60)
    page.mouse.up()
    page.mouse.move(pad["x"] + 0.9 * pad["width"], pad["y"] + 60)
    assert page.get_attribute(".pp-divider", "aria-valuenow") == "30"
    assert frames_on_show(page) == [9, 9]
    page.screenshot(path=tmp_path / "wipe.png", full_page=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_view_fits_a_phone_and_a_desk_by_day_and_by_night(visit, tmp_path: Path, width: int, scheme: str):
    page = visit(width, 844, color_scheme=scheme, reduced_motion="reduce")
    for layout in ("wipe", "side"):
        page.click(f".pp-modes [data-layout={layout}]")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    a, b = (page.locator(f".pp-stage.is-{name}").bounding_box() for name in "ab")
    assert min(a["width"], b["width"]) >= 300
    assert (b["y"] > a["y"] + a["height"]) == (width == 390)
    for group in page.locator(".pp-compare .pp-modes").all():
        assert group.evaluate("(node) => node.scrollWidth <= node.clientWidth"), "a mode's name is cut"
    before = frames_on_show(page)
    page.wait_for_timeout(400)
    assert frames_on_show(page) == before, "motion in spite of prefers-reduced-motion"
    page.screenshot(path=tmp_path / f"{scheme}-{width}.png", full_page=True)
