"""Making another clip: dice, four seeds, examples and cards that open and fill the form, words named while typed."""

from collections.abc import Iterator
from typing import NamedTuple

import pytest
from chromium import CHROMIUM, PATIENCE_MS, free_port

from prophy.runs.store import list_runs
from prophy.ui.engine.engine import Engine
from prophy.ui.tabs.generate import EXAMPLES

PROMPT = "a red ball bounces on the floor"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH"),
]


class App(NamedTuple):
    address: str
    engine: Engine


@pytest.fixture(scope="module")
def app(tmp_path_factory) -> Iterator[App]:
    """The page as it ships."""
    from prophy.ui.page import build_demo, launch

    engine = Engine(runs=tmp_path_factory.mktemp("runs"))
    demo = build_demo(engine)
    yield App(launch(demo, port=free_port()).rstrip("/"), engine)
    demo.close(verbose=False)


@pytest.fixture
def page(app: App, browser):
    context = browser.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(app.address)
    page.wait_for_selector("#routing-view .pp-view[data-run]")
    yield page
    context.close()


def test_every_example_is_a_shipped_result(app: App):
    shipped = {(run.record.prompt, run.record.seed) for run in app.engine.runs.gallery()}
    assert {(one.prompt, one.seed) for one in EXAMPLES} <= shipped


def test_an_example_opens_its_stored_result_and_fills_the_form(app: App, page):
    page.click(".pp-chip >> nth=2")
    page.wait_for_function(
        "(prompt) => document.querySelector('#routing-view .pp-prompt').textContent === prompt", arg=EXAMPLES[2].prompt
    )
    page.wait_for_function(
        "(prompt) => document.querySelector('#prompt textarea').value === prompt", arg=EXAMPLES[2].prompt
    )
    assert page.input_value("#seed input") == str(EXAMPLES[2].seed)
    assert app.engine.open_model is None


def test_a_card_opens_its_run_fills_the_form_and_brings_the_player_into_view(page):
    card = page.locator("#gallery .pp-card").last
    card.scroll_into_view_if_needed()
    prompt = card.locator(".pp-card-prompt").inner_text()
    card.locator(".pp-card-open").click()
    page.wait_for_function(
        "(prompt) => document.querySelector('#routing-view .pp-prompt').textContent === prompt", arg=prompt
    )
    page.wait_for_function("Math.abs(document.querySelector('#routing-view').getBoundingClientRect().top) < 200")
    assert page.input_value("#prompt textarea") == prompt


def test_the_dice_choose_another_seed_and_ask_nothing_of_the_server(page):
    page.click("#dice")
    page.wait_for_timeout(2000)  # what the page asks for when it is loaded has come
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    seen = set()
    for _ in range(3):
        before = page.input_value("#seed input")
        page.click("#dice")
        page.wait_for_function("(old) => document.querySelector('#seed input').value !== old", arg=before)
        seen.add(int(page.input_value("#seed input")))
    assert len(seen) == 3
    assert all(0 <= seed < 10**6 for seed in seen)
    assert [url for url in asked if "queue" in url or "/run" in url] == []


def test_a_word_that_the_model_does_not_know_is_named_while_it_is_typed(page):
    page.click("#prompt textarea")
    page.keyboard.type("a red zebr")
    page.wait_for_timeout(300)
    assert page.is_hidden(".pp-typed"), "the word is not finished"
    page.keyboard.type("a bounces")
    page.wait_for_selector(".pp-typed:has-text('The model has never seen: zebra.')")
    page.fill("#prompt textarea", PROMPT)
    page.wait_for_selector(".pp-typed", state="hidden")
    page.fill("#prompt textarea", "zebra")
    page.evaluate("document.activeElement.blur()")
    page.wait_for_selector(".pp-typed:has-text('zebra')")
    page.click(".pp-chip >> nth=0")
    page.wait_for_selector(".pp-typed", state="hidden")


def test_a_prompt_of_function_words_only_is_refused(page):
    page.fill("#prompt textarea", "the zebra is on the")
    page.click("#generate")
    page.wait_for_selector("#notice .is-error")
    assert "The model knows of this prompt only the, is, on" in page.inner_text("#notice")


def test_four_clips_of_seeds_in_a_row_are_made_and_the_first_is_on_show(app: App, page):
    page.fill("#prompt textarea", PROMPT)
    page.fill("#seed input", "41")
    page.fill("#steps input", "1")
    page.check("#batch input")
    page.click("#generate")
    page.wait_for_selector("#live-view .pp-prompt:has-text('of 4, seed')")
    page.wait_for_selector("#notice:has-text('4 clips were made, seeds 41 to 44')")
    made = {run.record.seed: run.id for run in list_runs(app.engine.runs.folder)}
    assert sorted(made) == [41, 42, 43, 44]
    assert page.get_attribute("#routing-view .pp-view", "data-run") == made[41]
    assert page.locator("#history .pp-card").count() == 4
    assert page.is_enabled("#generate")
