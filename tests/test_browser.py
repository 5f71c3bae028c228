"""The app in a real browser: what a visitor sees, and that nothing they type or do reaches further than it should."""

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from chromium import CHROMIUM, PATIENCE_MS, free_port, slide
from PIL import Image
from synthetic import GRID, make_attention, make_frames, make_record, make_trace

from prophy.phenomena import PHENOMENA
from prophy.routing.trace import RoutingTrace
from prophy.runs import overlay
from prophy.runs.store import list_runs, write_run
from prophy.ui.engine.engine import Engine
from prophy.video import read_video

ROOT = Path(__file__).resolve().parents[1]
PROMPT = "a red ball bounces on the floor"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH"),
]


class App(NamedTuple):
    address: str
    engine: Engine
    shipped: RoutingTrace
    runs: Path


@pytest.fixture(scope="module")
def app(tmp_path_factory) -> Iterator[App]:
    """The real page over the shipped model, with one made-up run in its gallery."""
    from prophy.ui.page import build_demo, launch

    folder = tmp_path_factory.mktemp("app")
    trace = make_trace()
    recorded = make_attention()
    write_run(folder / "gallery", make_record(), make_frames(), trace=trace, attention=recorded, run_id="made-up")
    write_run(folder / "gallery", make_record(seed=4), make_frames(4), trace=make_trace(seed=4), run_id="second")
    alone = make_attention(seed=5)
    write_run(folder / "gallery", make_record(seed=5), make_frames(5), attention=alone, run_id="without")
    engine = Engine(runs=folder / "runs", gallery=folder / "gallery")
    demo = build_demo(engine)
    address = launch(demo, port=free_port())
    yield App(address.rstrip("/"), engine, trace, folder / "runs")
    demo.close(verbose=False)


@pytest.fixture
def visit(app: App, browser):
    """Opens the page in a context of its own; at the end, checks that no request and no script went astray."""
    contexts, requests, complaints = [], [], []

    def open_page(width: int = 1280, height: int = 900, query: str = "", late: float = 0, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        if late:  # the server's answers
            context.route(
                re.compile(r"gradio_api/(run|queue/join)"), lambda route: (time.sleep(late), route.continue_())
            )
        context.on("request", lambda request: requests.append(request.url))
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: complaints.append(f"{error}: {error.stack}"))
        page.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.goto(f"{app.address}/{query}")
        page.wait_for_selector("#routing-view .pp-view[data-run]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [url for url in requests if not url.startswith((f"{app.address}/", "data:", "blob:"))] == []
    assert complaints == []


def ask(page, prompt: str, steps: int) -> None:
    page.fill("#prompt textarea", prompt)
    page.fill("#steps input", str(steps))
    page.click("#generate")


def seek(page, frame: int) -> int:
    """Go to a video frame; returns the latent frame that is drawn over it."""
    slide(page, ".pp-scrub", frame)
    page.wait_for_function("(f) => document.querySelector('.pp-canvas').dataset.frame === String(f)", arg=frame)
    page.wait_for_function("!document.querySelector('video').seeking")
    return int(page.get_attribute(".pp-canvas", "data-latent"))


def drawn_cells(page, grid) -> np.ndarray:
    """RGBA at the middle of every cell of the overlay, uint8 (H, W, 4)."""
    cells = page.evaluate(
        """([rows, columns]) => {
            const canvas = document.querySelector('.pp-canvas');
            const context = canvas.getContext('2d');
            const middle = (i, count, size) => Math.floor(((i + 0.5) / count) * size);
            const pixel = (h, w) => context.getImageData(
                middle(w, columns, canvas.width), middle(h, rows, canvas.height), 1, 1).data;
            const range = (count) => Array.from({ length: count }, (_, i) => i);
            return range(rows).map((h) => range(columns).map((w) => [...pixel(h, w)]));
        }""",
        [grid.height, grid.width],
    )
    return np.array(cells, np.uint8)


def click_token(page, row: int, column: int, **options) -> None:
    box = page.locator(".pp-stage").bounding_box()
    position = {"x": (column + 0.5) / GRID.width * box["width"], "y": (row + 0.5) / GRID.height * box["height"]}
    page.locator(".pp-stage").click(position=position, **options)


def click_bar(page, plot: str, index: int, count: int) -> None:
    box = page.locator(f"{plot} svg").bounding_box()
    page.locator(f"{plot} svg").click(position={"x": (index + 0.5) / count * box["width"], "y": box["height"] / 3})


def inspected(page) -> tuple[str, dict[int, float]]:
    """The panel's title, and the weight of each expert it lists, in 255ths as they were sent."""
    weights = page.eval_on_selector_all(
        ".pp-numbers li[data-expert]", "(items) => items.map((item) => [item.dataset.expert, item.dataset.weight])"
    )
    return page.inner_text(".pp-inspect h3"), {int(expert): float(weight) for expert, weight in weights}


def recorded(trace: RoutingTrace, step: int, token: int) -> dict[int, float]:
    weights = np.round(255 * trace.topk_weights[step, token].astype(np.float32))
    return {int(expert): float(w) for expert, w in zip(trace.topk_ids[step, token], weights, strict=True) if w > 0}


def palette(trace: RoutingTrace) -> np.ndarray:
    return np.array([overlay.rgb(overlay.expert_colour(e)) for e in range(trace.num_experts)], np.uint8)


def assert_overlay_is_the_trace(page, trace: RoutingTrace, frames: list[int]) -> None:
    page.click("#routing-view [data-mode=top1]")
    slide(page, ".pp-opacity", 100)
    for frame in frames:
        assert seek(page, frame) == trace.grid.latent_frame(frame)
        cells = drawn_cells(page, trace.grid)
        assert (cells[..., 3] == 255).all()
        assert np.array_equal(cells[..., :3], palette(trace)[trace.top1()[trace.grid.latent_frame(frame)]])


def is_generating() -> bool:
    return any(thread.name == "prophy-generation" for thread in threading.enumerate())


def test_a_shipped_run_plays_under_its_routing_without_a_model(app: App, visit):
    page = visit()
    page.wait_for_function("document.querySelector('video').readyState >= 3")
    assert page.inner_text(".pp-view .pp-prompt") == app.shipped.prompt
    assert_overlay_is_the_trace(page, app.shipped, [5, 0, 8, 1, 4, 3, 7, 2, 6, 0, 1, 8, 5, 4, 6, 3, 2, 7, 1, 0])
    slide(page, ".pp-step", 0)
    latent = int(page.get_attribute(".pp-canvas", "data-latent"))
    assert np.array_equal(drawn_cells(page, GRID)[..., :3], palette(app.shipped)[app.shipped.top1(0)[latent]])
    assert page.locator(".pp-bars > div").count() == len(app.shipped.semantic_weights)
    bars = page.eval_on_selector_all(
        ".pp-timeline .pp-stack",
        "(bars) => bars.map((bar) => [...bar.querySelectorAll('[data-expert]')].map((r) => [+r.dataset.expert,"
        " +r.dataset.weight / 255, r.getBoundingClientRect().width]))",
    )
    for shares, bar in zip(app.shipped.expert_shares(0), bars, strict=True):
        assert {expert: round(share, 3) for expert, share, _ in bar} == {
            e: round(float(share), 3) for e, share in enumerate(shares) if share > 0
        }
    assert bars[1][0][2] > 3 * bars[0][0][2], "four video frames are as wide as one"
    svg = page.locator(".pp-timeline svg")
    svg.click(position={"x": 0.9 * svg.bounding_box()["width"], "y": 20})
    page.wait_for_function("document.querySelector('.pp-canvas').dataset.latent === '2'")
    assert app.engine.open_model is None


def grey_of_the_picture(page) -> float:
    """How far the video on the stage is from grey, 0 to 255, as it is shown."""
    shot = cv2.imdecode(np.frombuffer(page.locator(".pp-stage").screenshot(), np.uint8), cv2.IMREAD_COLOR)
    return float(np.ptp(shot.astype(int), axis=2).mean())


def test_the_page_opens_on_all_phenomena_in_their_colours_over_the_grey_video(app: App, visit):
    page = visit(reduced_motion="reduce")
    assert page.get_attribute("[data-mode=phenomena]", "aria-pressed") == "true"
    slide(page, ".pp-opacity", 100)
    for step in (app.shipped.num_kept - 1, 0):
        slide(page, ".pp-step", step)
        for frame in (0, 4, 8):
            latent = seek(page, frame)
            maps = app.shipped.phenomenon_maps[step].reshape(*GRID.shape, -1)[latent].astype(np.float32)
            strongest = np.round(255 * maps).argmax(-1)  # of the same bytes the first, as in the browser
            colours = np.array([overlay.rgb(phenomenon.colour) for phenomenon in PHENOMENA])[strongest]
            cells = drawn_cells(page, GRID).astype(int)
            assert np.abs(cells[..., 3] - np.round(255 * maps.max(-1))).max() <= 1
            # The canvas keeps colours multiplied by their alpha: a faint one comes back less exactly.
            assert (np.abs(cells[..., :3] - colours).max(-1) * cells[..., 3] <= 2 * 255).all()
    slide(page, ".pp-opacity", 5)
    assert grey_of_the_picture(page) < 12
    page.click("[data-mode=off]")
    assert grey_of_the_picture(page) > 40

    # One phenomenon alone, and back to all of them; over the coloured video again.
    page.click("[data-mode=phenomena]")
    names = page.locator(".pp-row .pp-name").all_inner_texts()
    assert sorted(names) == sorted(phenomenon.name for phenomenon in PHENOMENA)
    page.click(".pp-row >> nth=1")
    assert page.get_attribute(".pp-row >> nth=1", "aria-pressed") == "true"
    assert page.get_attribute("[data-mode=phenomena]", "aria-pressed") == "true"
    page.click(".pp-row >> nth=1")
    assert page.locator(".pp-row[aria-pressed=true]").count() == 0


def test_pointing_at_an_experts_row_shows_where_it_acts_until_the_pointer_leaves(app: App, visit):
    page = visit(reduced_motion="reduce")
    page.click("[data-mode=top1]")
    latent = seek(page, 4)
    before = drawn_cells(page, GRID)
    page.hover(".pp-list [data-index='2']")
    expected = np.round(255 * 0.45 * np.clip(app.shipped.expert_map(2)[latent], 0, 1))
    assert np.abs(drawn_cells(page, GRID)[..., 3] - expected).max() <= 1
    assert page.locator(".pp-row[aria-pressed=true]").count() == 0
    page.mouse.move(0, 0)
    assert np.array_equal(drawn_cells(page, GRID), before)


def test_all_experts_stand_side_by_side_each_with_its_own_tokens(app: App, visit, tmp_path: Path):
    page = visit(reduced_motion="reduce")
    page.click("[data-mode=all]")
    latent = seek(page, 4)
    pictures = page.locator(".pp-multiple canvas")
    assert pictures.count() == app.shipped.num_experts
    # Colour in a small picture is this expert's own: the ground is grey.
    coloured = page.evaluate(
        """([rows, columns]) => [...document.querySelectorAll('.pp-multiple canvas')].map((canvas) => {
            const context = canvas.getContext('2d');
            const middle = (i, count, size) => Math.floor(((i + 0.5) / count) * size);
            const spread = ([r, g, b]) => Math.max(r, g, b) - Math.min(r, g, b);
            return Array.from({ length: rows * columns }, (_, i) => spread(context.getImageData(
                middle(i % columns, columns, canvas.width),
                middle(Math.floor(i / columns), rows, canvas.height), 1, 1).data));
        })""",
        [GRID.height, GRID.width],
    )
    for expert, spread in enumerate(coloured):
        weights = app.shipped.expert_map(expert)[latent].ravel()
        colour = overlay.rgb(overlay.expert_colour(expert))
        expected = 0.9 * weights * (max(colour) - min(colour))
        assert np.abs(np.array(spread) - expected).max() < 12, expert
    page.screenshot(path=tmp_path / "all-experts.png", full_page=True)
    page.click(".pp-multiple[data-index='3']")
    assert page.get_attribute(".pp-list [data-index='3']", "aria-pressed") == "true"


def test_a_word_shows_where_it_is_attended_to_and_a_token_where_it_looks(app: App, visit, tmp_path: Path):
    page, attention = visit(reduced_motion="reduce"), make_attention()
    page.click("[data-mode=words]")
    slide(page, ".pp-opacity", 100)
    assert page.locator(".pp-word .pp-name").all_inner_texts() == list(attention.words)
    peaks = [f"{100 * attention.word_map(w).max():.2f} %" for w in range(4)]
    assert page.locator(".pp-word .pp-share").all_inner_texts() == peaks
    scale = overlay.level_colours()
    for step, kept in ((3, 1), (0, 0)):
        slide(page, ".pp-step", step)
        page.click(".pp-word >> nth=1")
        for frame in (0, 4, 8):
            latent = seek(page, frame)
            levels = attention.word_maps[kept, :, 1].reshape(GRID.shape)[latent]
            assert np.array_equal(drawn_cells(page, GRID)[..., :3], scale[levels])

    # A token of latent frame 1, seen from every frame: where it looks does not move with the player.
    seek(page, 4)
    click_token(page, 2, 3)
    attended = attention.attended_from(GRID.index(1, 2, 3))
    page.wait_for_selector(".pp-caption:has-text('Where the chosen token looks')")
    assert page.locator(".pp-row[aria-pressed=true]").count() == 0
    for frame in (0, 8):
        latent = seek(page, frame)
        drawn = drawn_cells(page, GRID)[..., :3].astype(int)
        shades = np.round(255 * attended[latent] / attended.max()).astype(int)
        near = [scale[np.clip(shades + off, 0, 255)].astype(int) for off in (-1, 0, 1)]
        assert np.minimum.reduce([np.abs(drawn - shade).max(-1) for shade in near])[2:, :2].max() == 0
    bars = page.eval_on_selector_all(".pp-attended .pp-curve i", "(all) => all.map((bar) => +bar.dataset.share)")
    assert np.allclose(bars, attended.sum((1, 2)), atol=1e-3)
    page.screenshot(path=tmp_path / "attended.png", full_page=True)
    page.click(".pp-word >> nth=3")
    assert page.is_hidden(".pp-inspect")
    assert page.get_attribute(".pp-word >> nth=3", "aria-pressed") == "true"
    page.wait_for_function("location.search.includes('view=words') && location.search.includes('word=4')")

    page.click("#gallery .pp-card-open >> nth=1")
    page.wait_for_selector(".pp-view[data-run=second]")
    page.wait_for_selector(".pp-caption:has-text('was not recorded for this clip')")
    assert page.is_hidden(".pp-list")
    page.click("[data-mode=top1]")
    assert page.is_visible(".pp-list")


def test_words_are_shown_of_a_clip_that_was_made_without_a_branch(app: App, visit):
    page = visit(query="?run=without&view=top1", reduced_motion="reduce")
    attention = make_attention(seed=5)
    page.wait_for_selector(".pp-view[data-run=without] .pp-word[aria-pressed=true]")
    assert page.is_visible(".pp-bare")
    assert page.locator("#routing-view [data-mode]:visible").all_inner_texts() == ["Words", "Off"]
    page.click(".pp-word >> nth=1")
    slide(page, ".pp-opacity", 100)
    latent = seek(page, 4)
    levels = attention.word_maps[1, :, 1].reshape(GRID.shape)[latent]
    assert np.array_equal(drawn_cells(page, GRID)[..., :3], overlay.level_colours()[levels])
    click_token(page, 2, 3)
    page.wait_for_selector(".pp-caption:has-text('Where the chosen token looks')")
    assert page.locator(".pp-attended .pp-curve i").count() == GRID.frames
    assert page.is_hidden(".pp-over-time")
    page.click("#gallery .pp-card-open >> nth=0")
    page.wait_for_selector(".pp-view[data-run=made-up]")
    assert page.get_attribute("[data-mode=phenomena]", "aria-pressed") == "true", "the view of before"


def test_what_is_saved_of_a_word_or_of_where_a_token_looks_is_what_is_on_show(app: App, visit, tmp_path: Path):
    page = visit(reduced_motion="reduce")
    page.click("#routing-view [data-mode=words]")
    page.click(".pp-word >> nth=2")
    slide(page, ".pp-opacity", 100)
    seek(page, 4)

    def save(what: str) -> Path:
        page.click("#routing-view .pp-save summary")
        with page.expect_download() as caught:
            page.click(f"#routing-view .pp-save [data-what={what}]")
        caught.value.save_as(path := tmp_path / caught.value.suggested_filename)
        return path

    def cells(picture: np.ndarray) -> np.ndarray:
        side = picture.shape[1] // GRID.width  # the legend stands beneath
        return picture[side // 2 : side * GRID.height : side, side // 2 :: side].astype(int)

    word = drawn_cells(page, GRID)[..., :3].astype(int)
    assert np.ptp(word[..., 0]) > 50
    assert np.array_equal(cells(cv2.imread(str(save("still")))[..., ::-1]), word)
    assert np.abs(cells(read_video(save("overlay")).frames[4]) - word).mean() < 6
    with Image.open(save("gif")) as gif:
        gif.seek(1)  # frames that look alike are one of its pictures
        assert np.abs(cells(np.array(gif.convert("RGB"))) - word).mean() < 6

    click_token(page, 2, 3)
    page.wait_for_selector(".pp-caption:has-text('Where the chosen token looks')")
    seek(page, 8)
    looks = drawn_cells(page, GRID)[..., :3].astype(int)
    assert np.abs(looks - word).max() > 50
    assert np.abs(cells(cv2.imread(str(save("still")))[..., ::-1]) - looks).max() <= 4, "one level of the scale"


def test_the_bars_of_a_list_begin_at_one_line(visit):
    page = visit(reduced_motion="reduce")
    for mode in ("phenomena", "top1"):
        page.click(f"[data-mode={mode}]")
        starts = page.eval_on_selector_all(
            ".pp-list .pp-meter", "(all) => all.map((n) => n.getBoundingClientRect().left)"
        )
        assert len(starts) > 5
        assert max(starts) - min(starts) < 0.5


def test_the_keyboard_reaches_frames_experts_opacity_and_play(app: App, visit):
    page = visit()
    assert_overlay_is_the_trace(page, app.shipped, [4])
    page.focus(".pp-view")
    page.keyboard.press(".")
    page.wait_for_function("document.querySelector('.pp-canvas').dataset.frame === '5'")
    page.keyboard.press(",")
    page.wait_for_function("document.querySelector('.pp-canvas').dataset.frame === '4'")
    page.keyboard.press("2")
    assert page.get_attribute(".pp-list [data-index='2']", "aria-pressed") == "true"
    expected = np.round(255 * np.clip(app.shipped.expert_map(2)[1], 0, 1))
    assert np.abs(drawn_cells(page, GRID)[..., 3] - expected).max() <= 1
    page.keyboard.press("[")
    assert page.input_value(".pp-opacity") == "90"
    page.keyboard.press("]")
    assert page.input_value(".pp-opacity") == "100"
    page.keyboard.press("2")
    assert page.get_attribute("[data-mode=top1]", "aria-pressed") == "true"
    assert page.get_attribute(".pp-list [data-index='2']", "aria-pressed") == "false"
    page.keyboard.press(" ")
    page.wait_for_function("!document.querySelector('video').paused")


def test_a_clicked_tokens_panel_holds_the_traces_numbers(app: App, visit):
    page = visit()
    assert seek(page, 4) == 1
    click_token(page, 2, 3)
    assert page.evaluate("document.querySelector('video').paused"), "one click played the video"
    token = GRID.index(1, 2, 3)
    last = app.shipped.num_kept - 1
    assert inspected(page) == ("Token at row 2, column 3, frames 2–5", recorded(app.shipped, last, token))
    texts = page.eval_on_selector_all(".pp-numbers .pp-weight", "(nodes) => nodes.map((node) => node.textContent)")
    assert texts[:-1] == [f"{weight / 255:.3f}" for weight in recorded(app.shipped, last, token).values()]
    others = max(0, 1 - sum(recorded(app.shipped, last, token).values()) / 255)
    assert abs(float(texts[-1]) - others) < 1e-3

    # The plots hold the same row and column at every latent frame, and the same token at every step.
    plots = page.evaluate(
        """['.pp-over-time', '.pp-over-steps'].map((plot) => [...document.querySelectorAll(`${plot} .pp-stack`)].map(
            (bar) => [...bar.querySelectorAll('[data-expert]')].map((r) => [+r.dataset.expert, +r.dataset.weight])))"""
    )
    over_time, over_steps = [[dict(map(tuple, bar)) for bar in plot] for plot in plots]
    assert over_time == [recorded(app.shipped, last, GRID.index(t, 2, 3)) for t in range(GRID.frames)]
    assert over_steps == [recorded(app.shipped, d, token) for d in range(app.shipped.num_kept)]
    assert "frames 2–5: expert" in page.get_attribute(".pp-over-time svg", "aria-label")

    page.click("[data-mode=entropy]")
    slide(page, ".pp-step", 0)
    assert inspected(page) == ("Token at row 2, column 3, frames 2–5", recorded(app.shipped, 0, token))
    page.click(".pp-close")
    assert page.is_hidden(".pp-inspect")


def test_the_plots_of_a_token_seek_the_video_and_choose_the_step(app: App, visit):
    page = visit()
    seek(page, 0)
    click_token(page, 1, 4)
    click_bar(page, ".pp-over-time", 2, GRID.frames)
    page.wait_for_function("document.querySelector('.pp-canvas').dataset.frame === '5'")
    assert page.get_attribute(".pp-canvas", "data-latent") == "2"
    last = app.shipped.num_kept - 1
    token = GRID.index(2, 1, 4)
    assert inspected(page) == ("Token at row 1, column 4, frames 6–9", recorded(app.shipped, last, token))
    click_bar(page, ".pp-over-steps", 1, app.shipped.num_kept)
    assert page.input_value(".pp-step") == "1"
    assert inspected(page) == ("Token at row 1, column 4, frames 6–9", recorded(app.shipped, 1, token))
    marks = page.eval_on_selector_all(
        ".pp-over-time .pp-stack, .pp-over-steps .pp-stack",
        "(bars) => bars.map((bar) => bar.classList.contains('is-on'))",
    )
    assert marks == [t == 2 for t in range(GRID.frames)] + [d == 1 for d in range(app.shipped.num_kept)]


def test_a_dragged_box_shows_the_mean_of_its_tokens(app: App, visit):
    page = visit()
    seek(page, 8)
    stage = page.locator(".pp-stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()

    def go_to(row: int, column: int) -> None:
        x = box["x"] + (column + 0.5) / GRID.width * box["width"]
        page.mouse.move(x, box["y"] + (row + 0.5) / GRID.height * box["height"], steps=4)

    go_to(2, 3)
    page.mouse.down()
    go_to(1, 1)
    page.mouse.up()
    title, weights = inspected(page)
    assert title == "Region of rows 1–2, columns 1–3, frames 6–9"
    for expert in range(app.shipped.num_experts):
        mean = 255 * app.shipped.expert_map(expert)[2, 1:3, 1:4].mean()
        assert abs(weights.get(expert, 0) - mean) < 0.6  # of 255: every weight was rounded
    assert page.evaluate("document.querySelector('video').paused")


def test_two_clicks_on_the_picture_play_it(visit):
    page = visit()
    seek(page, 3)
    click_token(page, 0, 0, click_count=2)
    page.wait_for_function("!document.querySelector('video').paused")


def test_the_keyboard_chooses_moves_and_leaves_a_token(app: App, visit):
    page = visit()
    seek(page, 0)
    page.focus(".pp-view")
    page.keyboard.press("Enter")
    assert inspected(page)[0] == "Token at row 2, column 2, frame 1"
    for key in ("ArrowLeft", "ArrowUp", "ArrowUp", "ArrowUp"):
        page.keyboard.press(key)
    token = GRID.index(0, 0, 1)
    last = app.shipped.num_kept - 1
    assert inspected(page) == ("Token at row 0, column 1, frame 1", recorded(app.shipped, last, token))
    page.focus(".pp-step")
    page.keyboard.press("ArrowLeft")  # a slider's arrows are its own
    assert page.input_value(".pp-step") == str(last - 1)
    assert inspected(page)[0] == "Token at row 0, column 1, frame 1"
    page.keyboard.press("Escape")
    assert page.is_hidden(".pp-inspect")


def test_a_pointer_over_a_token_is_told_its_expert_and_weight(app: App, visit):
    page = visit()
    page.click("[data-mode=top1]")
    seek(page, 0)
    stage = page.locator(".pp-stage")
    assert page.is_hidden(".pp-label")
    box = stage.bounding_box()
    stage.hover(position={"x": 3.5 / GRID.width * box["width"], "y": 1.5 / GRID.height * box["height"]})
    (expert, weight), *_ = recorded(app.shipped, app.shipped.num_kept - 1, GRID.index(0, 1, 3)).items()
    assert page.inner_text(".pp-label") == f"expert {expert} · {weight / 255:.2f}"
    page.mouse.move(0, 0)
    assert page.is_hidden(".pp-label")


def test_entropy_and_margin_look_like_the_saved_pictures_and_off_like_the_video(app: App, visit):
    page = visit()
    latent = seek(page, 6)
    black = np.zeros((GRID.num_video_frames, GRID.height, GRID.width, 3), np.uint8)
    for mode, tolerance in (("entropy", 0), ("margin", 4)):  # a margin may be one level of the scale off
        page.click(f"[data-mode={mode}]")
        slide(page, ".pp-opacity", 100)
        assert page.is_hidden(".pp-list")
        assert page.is_visible(".pp-scale")
        saved = overlay.overlay(black, app.shipped, mode, opacity=1)[GRID.video_frames(latent)[0]]
        assert np.abs(drawn_cells(page, GRID)[..., :3].astype(int) - saved).max() <= tolerance
    page.click("[data-mode=off]")
    assert page.is_hidden(".pp-list"), "nothing is laid over the video, so there is nothing to explain"
    assert page.is_disabled(".pp-opacity")
    is_clear = page.evaluate(
        "(() => { const canvas = document.querySelector('.pp-canvas'); return canvas.getContext('2d')"
        ".getImageData(0, 0, canvas.width, canvas.height).data.every((value) => value === 0); })()"
    )
    assert is_clear


def test_switching_experts_takes_a_millisecond_and_rebuilds_nothing(visit):
    page = visit()
    seek(page, 4)
    click_token(page, 1, 1)
    median, is_same = page.evaluate(
        """() => {
            const view = document.querySelector('.pp-view');
            const press = (key) => view.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
            press('0');
            const rows = [...document.querySelectorAll('.pp-row, .pp-stack')];
            const times = [];
            for (let i = 0; i < 100; i++) {
                const start = performance.now();
                press(String(1 + (i % 2)));
                times.push(performance.now() - start);
            }
            const now = [...document.querySelectorAll('.pp-row, .pp-stack')];
            const isSame = rows.length > 0 && rows.length === now.length && rows.every((row, i) => row === now[i]);
            return [times.sort((a, b) => a - b)[50], isSame];
        }"""
    )
    print(f"an expert is on show after {median:.2f} ms")
    assert median <= 3  # 1 is the aim; a busy machine gets more
    assert is_same


def test_a_copied_link_names_the_run_the_expert_and_the_frame(app: App, visit):
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    seek(page, 4)
    page.focus(".pp-view")
    page.keyboard.press("2")
    page.click(".pp-copy")
    page.wait_for_function("document.querySelector('.pp-copied').textContent === 'copied'")
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == f"{app.address}/?run=made-up&view=expert&expert=2&opacity=45&frame=5"
    page.wait_for_function("document.querySelector('.pp-copied').textContent === ''")
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('refused')); }")
    page.click("[data-mode=top1]")
    page.click(".pp-copy")
    page.wait_for_selector(".pp-link-text")
    assert page.input_value(".pp-link-text") == f"{app.address}/?run=made-up&view=top1&opacity=45&frame=5"
    assert page.evaluate("document.activeElement.className") == "pp-link-text"


def test_the_address_bar_follows_what_is_on_show_and_back_returns_to_it(app: App, visit):
    page = visit(reduced_motion="reduce")
    assert page.evaluate("location.search") == "", "nothing was chosen yet"
    page.click("[data-mode=top1]")
    page.click(".pp-list [data-index='2']")
    slide(page, ".pp-step", 1)
    slide(page, ".pp-opacity", 60)
    seek(page, 4)
    page.wait_for_function("location.search === '?run=made-up&view=expert&expert=2&step=2&opacity=60&frame=5'")
    page.reload()
    page.wait_for_selector(".pp-list [data-index='2'][aria-pressed=true]")
    page.wait_for_function("document.querySelector('.pp-canvas').dataset.frame === '4'")
    assert (page.input_value(".pp-step"), page.input_value(".pp-opacity")) == ("1", "60")

    page.click("#gallery .pp-card >> nth=1")
    page.wait_for_selector(".pp-view[data-run=second]")
    assert page.evaluate("location.search").startswith("?run=second&view=")
    page.go_back()
    page.wait_for_selector(".pp-view[data-run=made-up]")
    page.wait_for_selector(".pp-list [data-index='2'][aria-pressed=true]")
    assert page.evaluate("location.search").startswith("?run=made-up&view=expert&expert=2&step=2")
    page.go_forward()
    page.wait_for_selector(".pp-view[data-run=second]")


def test_a_finger_finds_every_control_of_the_routing_view(visit):
    page = visit(390, 844, has_touch=True, reduced_motion="reduce")
    seek(page, 4)
    box = page.locator(".pp-stage").bounding_box()
    page.locator(".pp-stage").tap(position={"x": 0.3 * box["width"], "y": 0.6 * box["height"]})
    assert inspected(page)[0] == "Token at row 2, column 1, frames 2–5"
    assert page.is_hidden(".pp-label")
    heights = page.eval_on_selector_all(
        ".pp-view button, .pp-view input, .pp-inspect svg",
        "(nodes) => nodes.map((node) => [node.outerHTML.slice(0, 60), node.getBoundingClientRect().height])"
        ".filter(([, height]) => height > 0)",
    )
    assert len(heights) > 15
    assert [name for name, height in heights if height < 44] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("steps", "5000", "Steps=5000 must be a whole number from 1 to 1000"),
        ("steps", "0", "Steps=0 must be"),
        ("guidance", "99", "Guidance=99.0 must be a number from 0 to 30"),
        ("seed", "-1", "Seed=-1 must be a whole number from 0"),
    ],
)
def test_a_number_out_of_range_is_named_with_its_range(visit, field: str, value: str, message: str):
    page = visit()
    page.fill("#prompt textarea", PROMPT)
    page.fill(f"#{field} input", value)
    page.click("#generate")
    page.wait_for_selector("#notice .is-error")
    assert message in page.inner_text("#notice")
    assert page.is_enabled("#generate")


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("<img src=x onerror='window.ran=1'> ball", "The prompt looks like HTML: describe the event in plain words."),
        ("", "The prompt is empty"),
        ("ball " * 500, "The prompt has 2500 characters"),
    ],
    ids=["html", "empty", "long"],
)
def test_a_bad_prompt_gets_a_message_and_runs_nothing(visit, prompt: str, message: str):
    page = visit()
    ask(page, prompt, steps=4)
    page.wait_for_selector("#notice .is-error")
    page.wait_for_timeout(1000)  # what follows the refusal must leave the page as it is
    assert message in page.inner_text("#notice")
    assert page.evaluate("window.ran") is None
    assert page.is_enabled("#generate")
    assert page.is_visible(".pp-view"), "a refused prompt took the clip away"


def test_a_prompt_becomes_a_run_that_can_be_reopened(app: App, visit):
    page = visit()
    before = {run.id for run in list_runs(app.runs)}
    prompt = f"{PROMPT} ${{window.ran=1}} {{{{zebra}}}}"  # every template's own way in
    ask(page, prompt, steps=4)
    page.wait_for_selector(".pp-live .pp-strip canvas")
    assert "never seen: window, ran" in page.inner_text("#notice")
    page.wait_for_function("document.querySelector('.pp-view').dataset.run !== 'made-up'")
    page.wait_for_function("document.querySelector('video').readyState >= 3")
    assert page.inner_text(".pp-view .pp-prompt") == prompt
    assert page.evaluate("window.ran") is None
    (run,) = [run for run in list_runs(app.runs) if run.id not in before]
    assert_overlay_is_the_trace(page, run.trace(), [0, 9, 16])

    page.click("#gallery .pp-card")
    page.wait_for_selector(".pp-view[data-run=made-up]")
    page.reload()
    page.click("#history .pp-card")
    page.wait_for_selector(f".pp-view[data-run='{run.id}']")


def test_stop_freezes_the_counter_and_a_new_generation_can_start(app: App, visit):
    page = visit()
    before = {run.id for run in list_runs(app.runs)}
    ask(page, PROMPT, steps=50)
    page.wait_for_function("Number(document.querySelector('.pp-live').dataset.step) >= 1")
    page.click("#stop")
    step_at_click = int(page.get_attribute(".pp-live", "data-step"))
    page.wait_for_function("document.querySelector('.pp-headline').textContent.startsWith('Stopped after step')")
    assert not is_generating()
    step = int(page.get_attribute(".pp-live", "data-step"))
    assert step <= step_at_click + 1 + 1  # the step that was running, and one whose news was on its way
    time.sleep(0.5)
    assert int(page.get_attribute(".pp-live", "data-step")) == step
    assert page.inner_text("#generate") == "Generate"
    assert {run.id for run in list_runs(app.runs)} == before
    ask(page, PROMPT, steps=1)
    page.wait_for_function("document.querySelector('.pp-view').dataset.run !== 'made-up'")


def test_browsing_goes_on_while_a_clip_is_made_and_the_clip_on_show_stays(visit):
    page = visit()
    page.wait_for_function("!document.querySelector('video').paused")
    ask(page, PROMPT, steps=40)
    page.wait_for_function("Number(document.querySelector('.pp-live').dataset.step) >= 1")
    assert page.is_visible(".pp-view[data-run=made-up]")
    assert page.evaluate("document.querySelector('video').paused"), "the processor is the model's"
    page.click("#gallery .pp-card-open >> nth=1")
    page.wait_for_selector(".pp-view[data-run=second]")
    assert page.is_visible(".pp-live")
    assert page.is_disabled("#generate")
    assert page.is_enabled("#stop")
    page.click("[data-mode=top1]")
    page.wait_for_function("!['made-up', 'second'].includes(document.querySelector('.pp-view').dataset.run)")
    assert page.is_hidden(".pp-live")
    assert page.inner_text(".pp-view .pp-prompt") == PROMPT


def test_closing_the_tab_stops_the_generation(visit):
    page = visit()
    ask(page, PROMPT, steps=50)
    page.wait_for_function("Number(document.querySelector('.pp-live').dataset.step) >= 1")
    page.close()
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while is_generating() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_generating()


def test_a_page_loaded_anew_shows_the_generation_under_way_and_then_its_clip(app: App, visit):
    page = visit()
    before = {run.id for run in list_runs(app.runs)}
    ask(page, PROMPT, steps=40)
    page.wait_for_function("Number(document.querySelector('.pp-live').dataset.step) >= 1")
    page.reload()
    page.wait_for_selector(f".pp-live .pp-prompt:has-text('{PROMPT}')")
    page.wait_for_function("Number(document.querySelector('.pp-live').dataset.step) >= 2")
    assert page.is_disabled("#generate")
    assert page.is_enabled("#stop")
    page.wait_for_function("document.querySelector('.pp-view').dataset.run !== 'made-up'")
    (made,) = {run.id for run in list_runs(app.runs)} - before
    assert page.get_attribute(".pp-view", "data-run") == made
    page.wait_for_function("!document.querySelector('#generate').disabled")


@pytest.mark.parametrize("late", [0, 2], ids=["at_once", "by_a_slow_server"])
def test_a_link_opens_a_run_at_an_expert_and_a_frame(app: App, visit, late: float):
    page = visit(query="?run=made-up&expert=2&frame=6", late=late)
    page.wait_for_function("document.querySelector('.pp-canvas').dataset.frame === '5'")
    assert page.get_attribute("[data-mode=top1]", "aria-pressed") == "true"
    assert page.get_attribute(".pp-list [data-index='2']", "aria-pressed") == "true"
    assert page.evaluate("document.querySelector('video').paused")


@pytest.mark.parametrize(
    "query",
    [
        "?run=..%2F..%2Fetc%2Fpasswd",
        "?run=<img src=x onerror=window.ran=1>",
        "?run=absent&expert=2",
        "?run=made-up%00",
    ],
)
def test_a_hostile_link_gets_a_message_and_the_first_run(app: App, visit, query: str):
    page = visit(query=query)
    page.wait_for_selector("#notice .is-error")
    assert page.inner_text("#notice").startswith("The link cannot be opened")
    assert page.get_attribute(".pp-view", "data-run") == "made-up"
    assert page.evaluate("window.ran") is None


@pytest.mark.parametrize("query", ["?run=made-up&expert=99&frame=99999", "?run=made-up&expert=-1&frame=x"])
def test_a_link_to_what_the_run_does_not_have_opens_the_run(app: App, visit, query: str):
    page = visit(query=query)
    assert page.get_attribute("[data-mode=phenomena]", "aria-pressed") == "true"
    assert page.is_hidden("#notice .is-error")


@pytest.mark.parametrize(
    ("what", "suffix"),
    [("video", ".mp4"), ("overlay", ".mp4"), ("gif", ".gif"), ("still", ".png"), ("trace", ".npz"), ("zip", ".zip")],
)
def test_what_is_on_show_can_be_saved(visit, tmp_path: Path, what: str, suffix: str):
    page = visit()
    page.click(".pp-save summary")
    with page.expect_download() as caught:
        page.click(f".pp-save [data-what={what}]")
    saved = tmp_path / caught.value.suggested_filename
    caught.value.save_as(saved)
    assert saved.suffix == suffix
    if what in ("video", "overlay"):
        assert len(read_video(saved).frames) == GRID.num_video_frames
    assert saved.stat().st_size > 500


def test_ones_own_run_is_deleted_on_the_second_press(app: App, visit):
    page = visit()
    ask(page, PROMPT, steps=1)
    page.wait_for_function("document.querySelector('.pp-view').dataset.run !== 'made-up'")
    run_id = page.get_attribute(".pp-view", "data-run")
    page.wait_for_selector("#history .pp-card")
    assert page.locator("#gallery .pp-card-actions").count() == 0
    delete = page.locator("#history .pp-card").first.get_by_text("Delete")
    delete.click()
    assert (app.runs / run_id).exists()
    page.locator("#history .pp-card").first.get_by_text("Really delete?").click()
    page.wait_for_function("!document.querySelector('#history .pp-card')")
    assert not (app.runs / run_id).exists()


def test_the_branch_on_and_off_are_compared_in_one_player(app: App, visit):
    page = visit()
    page.get_by_role("tab", name="Compare and steer").click()
    page.get_by_label("Branch on and off").check()
    page.wait_for_selector("#compare-prompt-b", state="hidden")
    page.fill("#compare-prompt-a textarea", PROMPT)
    page.fill("#compare-steps input", "2")
    page.click("#compare")
    page.wait_for_selector("#compare-live .pp-headline:has-text('Step')")
    page.wait_for_selector(".pp-compare[data-state=ready]")
    assert page.locator(".pp-side-label").all_inner_texts() == ["A · branch on", "B · branch off"]
    a, b = (app.engine.runs.find(page.get_attribute(".pp-compare", f"data-run-{side}")) for side in "ab")
    assert (a.trace() is None, b.trace() is None) == (False, True)
    assert (a.record.prompt, a.record.seed) == (b.record.prompt, b.record.seed)


def test_a_clip_is_steered_and_shown_beside_the_unsteered_one(app: App, visit, tmp_path: Path):
    page = visit()
    ask(page, PROMPT, steps=2)
    page.wait_for_function("document.querySelector('.pp-view').dataset.run !== 'made-up'")
    first = page.get_attribute(".pp-view", "data-run")
    page.click(".pp-to-steer")
    page.wait_for_selector(".pp-steer .pp-knob")
    assert page.input_value("#compare-prompt-a textarea") == PROMPT
    page.click("#compare")
    page.wait_for_selector("#compare-notice .is-error:has-text('Nothing is steered')")
    page.click("[data-kind=refinement] [data-expert='1'] [data-scale='0']")
    page.get_by_text("Force an expert on a region").click()
    page.select_option(".pp-which", "2")
    page.select_option(".pp-to", "1")
    brush = page.locator(".pp-brush")
    brush.scroll_into_view_if_needed()
    box = brush.bounding_box()
    brush.click(position={"x": 0.5 / 8 * box["width"], "y": 0.5 / 8 * box["height"]})
    assert page.get_attribute(".pp-brush", "data-cells") == "1"
    page.click(".pp-add")
    assert page.get_attribute(".pp-brush", "data-cells") == "0"
    assert page.get_attribute(".pp-brush", "data-added") == "1", "what was painted vanished"
    said = "expert 1 muted · expert 2 forced on 1 cell, latent frames 0–1"
    assert page.inner_text(".pp-steer-said") == said
    page.screenshot(path=tmp_path / "steer.png", full_page=True)
    page.click("#compare")
    page.wait_for_selector(".pp-compare[data-state=ready]")
    assert page.get_attribute(".pp-compare", "data-run-a") == first, "the unsteered clip was made again"
    steered = app.engine.runs.find(page.get_attribute(".pp-compare", "data-run-b"))
    assert steered.record.steering.describe() == said.split(" · ")
    trace = steered.trace()
    assert trace.top1()[0, 0, 0] == trace.top1()[1, 0, 0] == 2
    assert not (trace.topk_ids[..., 0] == 1).any()
    page.screenshot(path=tmp_path / "compare.png", full_page=True)

    # The same in words and files; and the form takes what a side was made with.
    assert page.inner_text(".pp-verdict").startswith("The pictures ")
    page.click(".pp-compare .pp-save summary")
    with page.expect_download() as caught:
        page.click(".pp-compare .pp-save [data-what=wipe]")
    caught.value.save_as(tmp_path / "wipe.mp4")
    assert len(read_video(tmp_path / "wipe.mp4").frames) == 2 * steered.record.settings["frames"]
    page.click(".pp-steer .pp-reset")
    assert page.inner_text(".pp-steer-said") == "Every expert is as it is."
    page.click(".pp-copy-side")
    page.wait_for_timeout(500)
    assert page.inner_text(".pp-steer-said") == "Every expert is as it is.", "A is not steered"
    page.click(".pp-swap")
    page.click(".pp-copy-side")
    page.wait_for_function("(said) => document.querySelector('.pp-steer-said').textContent === said", arg=said)


def test_the_strength_of_the_branch_is_chosen_recorded_and_at_nought_the_backbone_alone(app: App, visit):
    page = visit()
    ask(page, PROMPT, steps=2)
    page.wait_for_function("document.querySelector('.pp-view').dataset.run !== 'made-up'")
    page.click(".pp-to-steer")
    page.wait_for_selector(".pp-steer .pp-knob")
    assert page.inner_text(".pp-strength output") == "×1, as trained"
    shares = page.locator("[data-kind=refinement] .pp-does").all_inner_texts()
    assert len(shares) == 8
    assert all("used " in share for share in shares)
    page.get_by_role("button", name="Twice the branch").click()
    assert page.inner_text(".pp-steer-said") == "branch ×2"
    assert page.input_value(".pp-strength input") == "2"
    page.eval_on_selector(
        ".pp-strength input",
        "(n) => { n.value = 0; for (const name of ['input', 'change']) n.dispatchEvent(new Event(name)); }",
    )
    assert page.inner_text(".pp-strength output") == "×0, off: the backbone alone"
    page.click("#compare")
    page.wait_for_selector(".pp-compare[data-state=ready]")
    steered = app.engine.runs.find(page.get_attribute(".pp-compare", "data-run-b"))
    assert steered.record.steering.strength == 0
    assert steered.trace() is not None, "the routing is still observed"
    mute = page.locator(".pp-preset").first
    assert mute.inner_text().startswith("Mute ")
    mute.click()
    assert "muted" in page.inner_text(".pp-steer-said")


def test_swapping_the_sides_swaps_the_prompts_they_were_asked_with(visit):
    page = visit()
    page.get_by_role("tab", name="Compare and steer").click()
    page.fill("#compare-prompt-a textarea", PROMPT)
    page.fill("#compare-prompt-b textarea", "a blue ball bounces on the floor")
    page.fill("#compare-steps input", "1")
    page.click("#compare")
    page.wait_for_selector(".pp-compare[data-state=ready]")
    page.click(".pp-swap")
    page.wait_for_function(
        "(prompt) => document.querySelector('#compare-prompt-b textarea').value === prompt", arg=PROMPT
    )
    assert page.inner_text(".pp-side.is-b .pp-prompt") == PROMPT
    page.click(".pp-copy-side")
    page.wait_for_function(
        "() => [...document.querySelectorAll('#compare-prompt-a textarea, #compare-prompt-b textarea')]"
        ".every((box) => box.value.startsWith('a blue'))"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_a_phone_and_a_desk_by_day_and_by_night(visit, tmp_path: Path, width: int, scheme: str):
    page = visit(width, 844, color_scheme=scheme, reduced_motion="reduce")
    page.wait_for_selector(".pp-timeline .pp-stack")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".pp-stage").bounding_box()["width"] >= 300
    panel = page.locator(".pp-panel").bounding_box()
    assert panel["x"] + panel["width"] <= width
    modes = page.locator(".pp-modes")
    assert modes.evaluate("(node) => node.scrollWidth <= node.clientWidth"), "a mode's name is cut"
    assert page.evaluate("document.querySelector('video').paused"), "motion in spite of prefers-reduced-motion"
    ink, paper = page.evaluate(
        "['color', 'backgroundColor'].map((name, i) => getComputedStyle(document.querySelector("
        "['.pp-view .pp-prompt', '.gradio-container'][i]))[name].match(/\\d+/g).slice(0, 3).reduce((a, b) => +a + +b))"
    )
    assert (float(ink) < float(paper)) == (scheme == "light")
    picture = page.screenshot(path=tmp_path / f"{scheme}-{width}.png", full_page=True)
    assert len(picture) > 10_000


ALONE = """
import runpy, socket, sys
from importlib.machinery import PathFinder

tried, find = open(sys.argv.pop(1), "a", buffering=1), PathFinder.find_spec

def find_all_but_some(name, path=None, target=None):
    return None if name.split(".")[0] in {"spaces", "imageio", "imageio_ffmpeg"} else find(name, path, target)

def watch(event, arguments):
    host = {"socket.connect": lambda: arguments[1][0], "socket.getaddrinfo": lambda: arguments[0]}.get(event)
    if host is not None and (host := host()) not in {"127.0.0.1", "localhost", "::1", b"127.0.0.1"}:
        tried.write(f"{event} {host}\\n")
        raise OSError("this machine is alone")

PathFinder.find_spec = find_all_but_some
sys.addaudithook(watch)
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_app_py_generates_with_no_network_no_ffmpeg_and_offers_no_file_of_this_machine(browser, tmp_path: Path):
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    flags = ["--port", str(port), "--no-browser", "--runs", str(tmp_path / "runs")]
    tried, nothing = tmp_path / "tried.txt", tmp_path / "nothing"
    nothing.mkdir()
    command = [sys.executable, "-c", ALONE, str(tried), str(ROOT / "app.py"), *flags]
    surroundings = {**os.environ, "PATH": str(nothing)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=surroundings) as process:
        try:
            assert process.stdout.readline().strip() == f"ProPhy is at {address}/"
            with urllib.request.urlopen(f"{address}/config") as answer:
                assert json.load(answer)["title"] == "ProPhy"
            page = browser.new_page()
            page.set_default_timeout(PATIENCE_MS)
            page.goto(address)
            before = page.get_attribute(".pp-view[data-run]", "data-run")
            ask(page, PROMPT, steps=2)
            page.wait_for_function("(id) => document.querySelector('.pp-view').dataset.run !== id", arg=before)
            page.wait_for_function("document.querySelector('video').readyState >= 3")
            (run,) = list_runs(tmp_path / "runs")
            assert page.get_attribute(".pp-view", "data-run") == run.id
            page.close()
            for path in ("/etc/passwd", str(ROOT / "README.md"), f"{tmp_path}/../x", f"{run.path}/../../tried.txt"):
                with pytest.raises(urllib.error.HTTPError) as refused:
                    urllib.request.urlopen(f"{address}/gradio_api/file={path}")
                assert refused.value.code in (403, 404)
        finally:
            process.terminate()
    assert tried.read_text() == "", "the app asked something of another machine"


def test_two_visitors_at_once_each_get_their_own_clip(app: App, visit):
    before = {run.id for run in list_runs(app.runs)}
    prompts = ["a green ball bounces on the floor", "a red candle burns on the right"]
    pages = [visit() for _ in prompts]
    for page, prompt in zip(pages, prompts, strict=True):
        ask(page, prompt, steps=3)
    shown = []
    for page, prompt in zip(pages, prompts, strict=True):
        page.wait_for_function("document.querySelector('.pp-view').dataset.run !== 'made-up'")
        shown.append(page.get_attribute(".pp-view", "data-run"))
        assert page.inner_text(".pp-view .pp-prompt") == prompt
        assert app.engine.runs.find(shown[-1]).record.prompt == prompt
        page.wait_for_function("document.querySelectorAll('#history .pp-card').length === 1")
        assert prompt in page.inner_text("#history .pp-card")
    assert {run.id for run in list_runs(app.runs)} - before == {*shown}


def test_two_tabs_of_one_visitor_keep_both_histories_and_runs_of_the_command_line_appear(app: App, visit):
    page = visit()
    other = page.context.new_page()
    other.goto(app.address)
    other.wait_for_selector("#routing-view .pp-view[data-run]")
    prompts = ["a yellow ball bounces on the floor", "a purple ball bounces on the floor"]
    for tab, prompt in zip((page, other), prompts, strict=True):
        ask(tab, prompt, steps=1)
        tab.wait_for_function("document.querySelector('.pp-view').dataset.run !== 'made-up'")
    said = "made by the command line"
    late = write_run(app.runs, make_record(said), make_frames(), trace=make_trace(said))
    for tab in (page, other):
        tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        for prompt in (*prompts, said):
            tab.wait_for_selector(f"#history .pp-card:has-text('{prompt}')")
    app.engine.runs.delete(late.id, "")


def test_a_large_upload_is_refused(app: App):
    boundary = "b"
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="x.bin"\r\n\r\n'.encode()
        + bytes(3 * 2**20)
        + f"\r\n--{boundary}--\r\n".encode()
    )
    request = urllib.request.Request(
        f"{app.address}/gradio_api/upload",
        data=body,
        headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    assert refused.value.code == 403, "no view takes a file"
