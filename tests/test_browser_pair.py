"""Compare opens on a shipped pair; its form, Copy and Swap do what they say whatever differs."""

import pytest
from chromium import CHROMIUM, PATIENCE_MS, free_port, gallery_with_a_pair

from prophy.ui.engine.engine import Engine

PROMPT = "on the left, a tap fills a glass with blue water, on the right, a red grenade explodes"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH"),
]


@pytest.fixture
def engine(tmp_path) -> Engine:
    return Engine(runs=tmp_path / "runs", gallery=gallery_with_a_pair(tmp_path / "gallery"))


@pytest.fixture
def page(engine: Engine, browser):
    from prophy.ui.page import build_demo, launch

    demo = build_demo(engine)
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(launch(demo, port=free_port()))
    page.wait_for_selector("#routing-view .pp-view[data-run]")
    page.get_by_role("tab", name="Compare and steer").click()
    page.wait_for_selector(".pp-compare[data-state=ready]")
    yield page
    context.close()
    demo.close(verbose=False)


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
