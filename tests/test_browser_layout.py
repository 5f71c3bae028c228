"""Plots of the page: Plotly comes with the first one on show, and none is cut on a phone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import CHROMIUM, PATIENCE_MS, free_port

from prophy.ui.engine.engine import Engine

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    """The page as it ships."""
    from prophy.ui.page import build_demo, launch

    demo = build_demo(Engine(runs=tmp_path_factory.mktemp("runs")))
    yield launch(demo, port=free_port()).rstrip("/")
    demo.close(verbose=False)


@pytest.fixture
def open_page(address: str, browser):
    contexts = []

    def visit(width: int, height: int, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce", **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(address)
        page.wait_for_selector("#routing-view .pp-view[data-run]")
        return page

    yield visit
    for context in contexts:
        context.close()


def test_plotly_is_loaded_only_when_a_plot_is_on_show_and_no_plot_is_cut_on_a_phone(open_page, tmp_path: Path):
    page = open_page(390, 844)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    page.wait_for_selector("#routing-view .pp-view[data-run]")
    for tab in ("Compare and steer", "Annotate", "About"):
        page.get_by_role("tab", name=tab, exact=True).click()
    page.wait_for_timeout(500)
    assert [url for url in asked if "plotly" in url.lower()] == []
    page.get_by_role("tab", name="Evidence", exact=True).click()
    page.wait_for_selector("#evidence .js-plotly-plot .main-svg")
    assert [url for url in asked if "plotly" in url.lower()] != []
    page.wait_for_timeout(1500)
    plots = page.eval_on_selector_all(
        "#evidence .js-plotly-plot",
        "(plots) => plots.map((plot) => [plot.getBoundingClientRect().right, plot.scrollWidth - plot.clientWidth,"
        " Boolean(plot.querySelector('.modebar-container')?.getClientRects().length)])",
    )
    assert len(plots) > 3
    assert [plot for plot in plots if plot[0] > 390 or plot[1] > 0 or plot[2]] == []
    folded = page.locator("#evidence details").count()
    assert folded > 5
    link = page.locator(".ev-contents a").last
    link.click()
    page.wait_for_function(
        "(id) => Math.abs(document.getElementById(decodeURIComponent(id)).getBoundingClientRect().top) < 400",
        arg=link.get_attribute("href")[1:],
    )
    page.screenshot(path=tmp_path / "evidence-390.png")
