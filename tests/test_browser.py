"""The app in a real browser: what a visitor sees, and that nothing they type or do reaches further than it should."""

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from synthetic import GRID, make_frames, make_record, make_trace

from prophy import heatmaps
from prophy.assets import default_model
from prophy.routing import RoutingTrace
from prophy.runs import list_runs, write_run
from prophy.ui.engine import Engine

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--autoplay-policy=no-user-gesture-required",
    "--mute-audio",
]
PATIENCE_MS = 100_000
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
def branch(tmp_path_factory) -> Path | None:
    """The shipped branch; until there is one, an untrained one beside the shipped transformer."""
    if (default_model() / "branch" / "config.json").is_file():
        return None
    import torch
    from diffusers import WanTransformer3DModel

    import prophy.backbones  # noqa: F401  registers the families
    from prophy.branch import ProPhyBranch

    transformer = WanTransformer3DModel.from_pretrained(default_model() / "transformer")
    torch.manual_seed(0)
    made = ProPhyBranch.from_transformer(transformer, sites=[1, 4, 7])
    folder = tmp_path_factory.mktemp("branch")
    made.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def app(branch: Path | None, tmp_path_factory) -> Iterator[App]:
    """The real page over the shipped model, with one made-up run in its gallery."""
    from prophy.ui.demo import build_demo, launch

    folder = tmp_path_factory.mktemp("app")
    trace = make_trace()
    write_run(folder / "gallery", make_record(), make_frames(), trace=trace, run_id="made-up")
    engine = Engine(branch=branch, runs=folder / "runs", gallery=folder / "gallery")
    demo = build_demo(engine)
    address = launch(demo, port=free_port())
    yield App(address.rstrip("/"), engine, trace, folder / "runs")
    demo.close(verbose=False)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(app: App, browser):
    """Opens the page in a context of its own; at the end, checks that no request and no script went astray."""
    contexts, requests, complaints = [], [], []

    def open_page(width: int = 1280, height: int = 900, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        context.on("request", lambda request: requests.append(request.url))
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: complaints.append(f"{error}: {error.stack}"))
        page.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.goto(app.address)
        page.wait_for_selector(".pp-view[data-run]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [url for url in requests if not url.startswith((f"{app.address}/", "data:", "blob:"))] == []
    assert complaints == []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(page, prompt: str, steps: int) -> None:
    page.fill("#prompt textarea", prompt)
    page.fill("#steps input", str(steps))
    page.click("#generate")


def slide(page, selector: str, value: int) -> None:
    """Move a range input as a hand would."""
    page.eval_on_selector(
        selector, "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }", value
    )


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


def palette(trace: RoutingTrace) -> np.ndarray:
    return np.array([heatmaps.rgb(heatmaps.expert_colour(e)) for e in range(trace.num_experts)], np.uint8)


def assert_overlay_is_the_trace(page, trace: RoutingTrace, frames: list[int]) -> None:
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
    assert_overlay_is_the_trace(page, app.shipped, [5, 0, 8, 1, 4, 3, 7])
    slide(page, ".pp-step", 0)
    latent = int(page.get_attribute(".pp-canvas", "data-latent"))
    assert np.array_equal(drawn_cells(page, GRID)[..., :3], palette(app.shipped)[app.shipped.top1(0)[latent]])
    assert page.locator(".pp-bars > div").count() == len(app.shipped.semantic_weights)
    page.wait_for_selector("#timeline .js-plotly-plot .bars")
    assert not app.engine.is_open


def test_the_keyboard_reaches_frames_experts_opacity_and_play(app: App, visit):
    page = visit()
    assert_overlay_is_the_trace(page, app.shipped, [4])
    page.focus(".pp-view")
    page.keyboard.press(".")
    page.wait_for_function("document.querySelector('.pp-canvas').dataset.frame === '5'")
    page.keyboard.press(",")
    page.wait_for_function("document.querySelector('.pp-canvas').dataset.frame === '4'")
    page.keyboard.press("2")
    assert page.get_attribute("[data-mode=expert]", "aria-pressed") == "true"
    expected = np.round(255 * np.clip(app.shipped.expert_map(2)[1], 0, 1))
    assert np.abs(drawn_cells(page, GRID)[..., 3] - expected).max() <= 1
    page.keyboard.press("[")
    assert page.input_value(".pp-opacity") == "90"
    page.keyboard.press("]")
    assert page.input_value(".pp-opacity") == "100"
    page.keyboard.press("2")
    assert page.get_attribute("[data-mode=top1]", "aria-pressed") == "true"
    page.keyboard.press(" ")
    page.wait_for_function("!document.querySelector('video').paused")


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


def test_closing_the_tab_stops_the_generation(visit):
    page = visit()
    ask(page, PROMPT, steps=50)
    page.wait_for_function("Number(document.querySelector('.pp-live').dataset.step) >= 1")
    page.close()
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while is_generating() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_generating()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_a_phone_and_a_desk_by_day_and_by_night(visit, tmp_path: Path, width: int, scheme: str):
    page = visit(width, 844, color_scheme=scheme, reduced_motion="reduce")
    page.wait_for_selector("#timeline .js-plotly-plot")
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


def test_app_py_serves_a_page_and_offers_no_file_of_this_machine(tmp_path: Path):
    port = free_port()
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(port), "--no-browser", "--runs", str(tmp_path / "r")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        try:
            assert process.stdout.readline().strip() == f"ProPhy is at http://127.0.0.1:{port}/"
            address = f"http://127.0.0.1:{port}"
            with urllib.request.urlopen(f"{address}/config") as answer:
                assert json.load(answer)["title"] == "ProPhy"
            for path in ("/etc/passwd", str(ROOT / "README.md"), f"{tmp_path}/../x"):
                with pytest.raises(urllib.error.HTTPError) as refused:
                    urllib.request.urlopen(f"{address}/gradio_api/file={path}")
                assert refused.value.code in (403, 404)
        finally:
            process.terminate()
