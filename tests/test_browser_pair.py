"""Compare opens on a shipped pair or on a link's two runs; Copy and Swap do what they say; a token is inspected on both
sides."""

import numpy as np
import pytest
from chromium import CHROMIUM, PATIENCE_MS, free_port, gallery_with_a_pair, slide

from prophy.routing.distance import routing_difference
from prophy.ui.engine.engine import Engine

PROMPT = "on the left, a tap fills a glass with blue water, on the right, a red grenade explodes"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH"),
    pytest.mark.timeout(300),  # a slow machine reads both clips for some time
]


@pytest.fixture
def engine(tmp_path) -> Engine:
    return Engine(runs=tmp_path / "runs", gallery=gallery_with_a_pair(tmp_path / "gallery"))


@pytest.fixture
def visit(engine: Engine, browser):
    """Opens the page, at a link or not; at the end, checks that no script failed."""
    from prophy.ui.page import build_demo, launch

    demo = build_demo(engine)
    address = launch(demo, port=free_port()).rstrip("/")
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    complaints = []

    def open_page(query: str = ""):
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: complaints.append(f"{error}: {error.stack}"))
        page.goto(f"{address}/{query}")
        return page

    yield open_page
    context.close()
    demo.close(verbose=False)
    assert complaints == []


@pytest.fixture
def page(visit):
    page = visit()
    page.wait_for_selector("#routing-view .pp-view[data-run]")
    page.get_by_role("tab", name="Compare and steer").click()
    page.wait_for_selector(".pp-compare[data-state=ready]")
    return page


def runs(page) -> list[str]:
    return [page.get_attribute(".pp-compare", f"data-run-{side}") for side in "ab"]


def labels(page) -> list[str]:
    return page.locator(".pp-side-label").all_inner_texts()


def prompts(page) -> list[str]:
    return [page.input_value(f"#compare-prompt-{side} textarea") for side in "ab"]


def until_prompts_are(page, a: str, b: str) -> None:
    page.wait_for_function(
        "(wanted) => ['a', 'b'].every((side, i) =>"
        " document.querySelector(`#compare-prompt-${side} textarea`).value === wanted[i])",
        arg=[a, b],
    )


def test_compare_opens_on_the_shipped_pair_and_the_form_asks_for_it(engine: Engine, page):
    assert labels(page) == ["A · branch on", "B · branch off"]
    assert page.get_attribute(".pp-compare", "data-run-b") == "tap-and-grenade-no-branch"
    assert page.get_by_label("Branch on and off").is_checked()
    assert page.input_value("#compare-prompt-a textarea") == PROMPT
    assert page.input_value("#compare-seed input") == "123"
    assert page.is_hidden("#compare-prompt-b")
    assert engine.open_model is None


def test_copy_and_swap_do_what_they_say_whatever_differs(page):
    page.click(".pp-swap")
    assert labels(page) == ["A · branch off", "B · branch on"]
    assert page.input_value("#compare-prompt-a textarea") == PROMPT

    # What was typed for other clips is nobody's to swap.
    page.get_by_label("Two prompts").check()
    page.wait_for_selector("#compare-prompt-b textarea")
    page.fill("#compare-prompt-a textarea", "a red ball")
    page.fill("#compare-prompt-b textarea", "a blue ball")
    page.click(".pp-swap")
    assert labels(page) == ["A · branch on", "B · branch off"]
    page.wait_for_timeout(500)
    assert prompts(page) == ["a red ball", "a blue ball"]

    page.click(".pp-copy-side")
    until_prompts_are(page, PROMPT, PROMPT)
    assert page.get_by_label("Two prompts").is_checked()

    # A clip without the branch is asked for where the branch is what differs.
    page.click(".pp-swap")
    for kind in ("Two prompts", "Steered and not"):
        page.get_by_label(kind).check()
        page.fill("#compare-prompt-a textarea", "a red ball")
        page.click(".pp-copy-side")
        page.wait_for_selector("#compare-prompt-b", state="hidden")
        page.wait_for_selector("#steering", state="hidden")
        assert page.get_by_label("Branch on and off").is_checked()
        assert page.input_value("#compare-prompt-a textarea") == PROMPT

    # One with it fills the panel of steering.
    page.click(".pp-swap")
    page.get_by_label("Steered and not").check()
    page.fill("#compare-prompt-a textarea", "a red ball")
    page.click(".pp-copy-side")
    page.wait_for_function(
        "(prompt) => document.querySelector('#compare-prompt-a textarea').value === prompt", arg=PROMPT
    )
    assert page.get_by_label("Steered and not").is_checked()
    page.wait_for_selector(".pp-steer .pp-knob")


def test_a_link_opens_both_runs_as_they_were_on_show(visit):
    page = visit("?a=tap-and-grenade&b=ball-and-candle&layout=wipe&wipe=30&view=expert&expert=2&opacity=60&frame=6")
    page.wait_for_selector(".pp-compare[data-state=ready]")
    assert runs(page) == ["tap-and-grenade", "ball-and-candle"]
    until_prompts_are(page, PROMPT, "a red ball bounces on the left and a blue candle burns on the right")
    assert page.is_checked("#compare-kind input[value='Two prompts']")
    assert page.get_attribute(".pp-compare", "data-layout") == "wipe"
    assert page.get_attribute(".pp-divider", "aria-valuenow") == "30"
    assert page.get_attribute(".pp-compare .pp-list [data-index='2']", "aria-pressed") == "true"
    assert page.input_value(".pp-compare .pp-opacity") == "60"
    assert page.get_attribute(".pp-compare", "data-frame-a") == "5"

    page.click(".pp-swap")
    page.click(".pp-compare [data-layout=side]")
    here = "?a=ball-and-candle&b=tap-and-grenade&layout=side&view=expert&expert=2&opacity=60&frame=6"
    page.wait_for_function("(here) => location.search === here", arg=here)
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('refused')); }")
    page.click(".pp-compare .pp-copy")
    assert page.input_value(".pp-compare .pp-link-text").endswith(here)
    page.reload()
    page.wait_for_selector(".pp-compare[data-state=ready]")
    assert runs(page) == ["ball-and-candle", "tap-and-grenade"]
    assert page.evaluate("location.search") == here


def test_each_tab_has_its_own_address_and_back_goes_from_one_to_the_other(page):
    pair = "?a=tap-and-grenade&b=tap-and-grenade-no-branch"
    assert page.evaluate("location.search").startswith(pair)
    page.go_back()
    page.wait_for_selector("#routing-view .pp-view", state="visible")
    assert page.evaluate("location.search") == "", "nothing was chosen there"
    page.go_forward()
    page.wait_for_selector(".pp-compare", state="visible")
    assert page.evaluate("location.search").startswith(pair)
    page.get_by_role("tab", name="Generate").click()
    page.wait_for_function("location.search.startsWith('?run=')")
    page.go_back()
    page.wait_for_selector(".pp-compare", state="visible")
    assert page.evaluate("location.search").startswith(pair)


def test_a_link_asks_for_the_comparison_that_it_shows(visit):
    page = visit("?a=tap-and-grenade-no-branch&b=tap-and-grenade")
    page.wait_for_selector(".pp-compare[data-state=ready]")
    page.wait_for_selector("#compare-prompt-b", state="hidden")
    assert page.is_checked("#compare-kind input[value='Branch on and off']")
    assert page.input_value("#compare-prompt-a textarea") == PROMPT


@pytest.mark.parametrize("query", ["?a=absent&b=mirror", "?a=..%2F..%2Fetc&b=<img src=x onerror=window.ran=1>"])
def test_a_hostile_link_to_two_runs_gets_a_message_and_the_shipped_pair(visit, query: str):
    page = visit(query)
    page.wait_for_selector("#compare-notice .is-error")
    assert page.inner_text("#compare-notice").startswith("The link cannot be opened")
    page.wait_for_selector(".pp-compare[data-state=ready]")
    assert labels(page) == ["A · branch on", "B · branch off"]
    assert page.evaluate("window.ran") is None


def test_a_token_is_inspected_on_both_sides(engine: Engine, visit, tmp_path):
    page = visit("?a=tap-and-grenade&b=ball-and-candle&view=top1&frame=6")
    page.wait_for_selector(".pp-compare[data-state=ready]")
    traces = [engine.runs.find(run).trace() for run in runs(page)]
    grid, difference = traces[0].grid, routing_difference(*traces)
    latent, row, column = grid.latent_frame(5), 3, 4

    def cell(selector: str, row: int, column: int) -> dict[str, float]:
        box = page.locator(selector).bounding_box()
        return {
            "x": (column + 0.5) / grid.width * box["width"],
            "y": (row + 0.5) / grid.height * box["height"],
        }

    def assert_shown(latent: int, row: int, column: int, d: int = -1) -> None:
        first, last = 1 + grid.video_frames(latent)[0], 1 + grid.video_frames(latent)[-1]
        title = f"Token at row {row}, column {column}, frames {first}–{last}"
        page.wait_for_function(
            "(title) => document.querySelector('.pp-compare .pp-inspect h3').textContent === title", arg=title
        )
        apart = float(page.inner_text(".pp-apart").split()[0])
        assert abs(apart - difference[latent, row, column]) < 0.01
        for side, trace in zip("ab", traces, strict=True):
            shown = page.eval_on_selector_all(
                f".pp-inspected.is-{side} li[data-expert]",
                "(items) => items.map((item) => [+item.dataset.expert, +item.dataset.weight])",
            )
            token = grid.index(latent, row, column)
            weights = np.round(255 * trace.topk_weights[d, token].astype(np.float32))
            recorded = zip(trace.topk_ids[d, token].tolist(), weights.tolist(), strict=True)
            assert dict(map(tuple, shown)) == {expert: weight for expert, weight in recorded if weight > 0}

    stage = ".pp-compare .pp-stage.is-b"
    page.locator(stage).click(position=cell(stage, row, column))
    assert_shown(latent, row, column)
    page.screenshot(path=tmp_path / "token.png", full_page=True)
    plots = page.locator(".pp-inspected.is-a figure svg")
    box = plots.first.bounding_box()
    plots.first.click(position={"x": box["width"] - 4, "y": box["height"] / 3})
    assert_shown(grid.frames - 1, row, column)
    slide(page, ".pp-compare .pp-step", 0)
    assert_shown(grid.frames - 1, row, column, 0)
    page.focus(".pp-compare")
    page.keyboard.press("ArrowDown")
    assert_shown(grid.frames - 1, row + 1, column, 0)

    # Over a wipe a click chooses a token, and the divider stays where it is.
    page.click(".pp-compare [data-layout=wipe]")
    page.locator(".pp-wipe").click(position=cell(".pp-wipe", 1, 1))
    assert_shown(grid.frames - 1, 1, 1, 0)
    assert page.get_attribute(".pp-divider", "aria-valuenow") == "50"
    page.screenshot(path=tmp_path / "token-wipe.png", full_page=True)
    page.keyboard.press("Escape")
    assert page.is_hidden(".pp-compare .pp-inspect")


def test_a_side_without_the_branch_has_no_experts_to_inspect(page):
    page.locator(".pp-compare .pp-stage.is-a").click()
    page.wait_for_selector(".pp-inspected.is-a li[data-expert]")
    assert page.inner_text(".pp-inspected.is-b h4").endswith("made without a physical branch, so no experts")
    assert page.is_hidden(".pp-inspected.is-b figure >> nth=0")
    assert page.inner_text(".pp-apart") == ""
