"""The page at every width: nothing outside its box, nothing cut, the video large; Plotly only where a plot is."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import CHROMIUM, PATIENCE_MS, free_port

from prophy.ui.engine.engine import Engine, Request

WIDTHS = {390: 844, 768: 1024, 1024: 768, 1280: 900, 1366: 768, 1440: 900, 1536: 864, 1920: 1080}
TABS = ("Generate", "Compare and steer", "Annotate", "Evidence", "About")

#: Every visible control, picture and row of the page that sticks out of the window, out of its parent, or whose own
#: text is cut. What scrolls in a box of its own may be wider than it.
OUTSIDE = """() => {
    const isShown = (node) => node.getClientRects().length && getComputedStyle(node).visibility !== 'hidden';
    const scrolls = (node) => ['auto', 'scroll'].includes(getComputedStyle(node).overflowX);
    const inScroller = (node) => {
        for (let at = node.parentElement; at; at = at.parentElement) if (scrolls(at)) return true;
        return false;
    };
    const name = (node) => `${node.tagName}.${node.className} ${(node.textContent || '').trim().slice(0, 30)}`;
    const found = [];
    let seen = 0;
    const kinds = 'button, input, select, textarea, summary, canvas, video, img, svg, h2, h3, p, li, td';
    for (const node of document.querySelectorAll(`.gradio-container :is(${kinds})`)) {
        if (!isShown(node) || node.closest('.visually-hidden, [aria-hidden=true], .sr-only, .js-plotly-plot')) continue;
        if (getComputedStyle(node).position === 'absolute' && getComputedStyle(node).opacity === '0') continue;
        const box = node.getBoundingClientRect();
        if (box.width < 2 || box.height < 2) continue;
        seen += 1;
        const scrolled = inScroller(node);
        if (!scrolled && (box.left < -1 || box.right > innerWidth + 1))
            found.push(['window', name(node), box.left, box.right]);
        const parent = node.parentElement.getBoundingClientRect();
        const isBox = !['contents', 'inline'].includes(getComputedStyle(node.parentElement).display);
        if (!scrolled && isBox && parent.width && (box.left < parent.left - 8 || box.right > parent.right + 8))
            found.push(['parent', name(node), box.left, box.right, parent.left, parent.right]);
        if (node.matches('button, summary') && node.scrollWidth > node.clientWidth + 1 && node.clientWidth)
            found.push(['cut', name(node), node.scrollWidth, node.clientWidth]);
    }
    return [seen, found];
}"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    """The page as it ships, over the embedded model, whose clips of one step are made at once."""
    from prophy.ui.page import build_demo, launch

    engine = Engine(runs=tmp_path_factory.mktemp("runs"))
    demo = build_demo(engine)
    for _ in engine.generate(Request("a red ball bounces on the floor", steps=1), "warm"):
        pass
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


def assert_all_in_its_box(page, where: object) -> None:
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, where
    seen, found = page.evaluate(OUTSIDE)
    assert seen > 10, where
    assert found == [], where


def test_nothing_leaves_its_box_at_any_width_on_any_tab_in_any_layout(open_page, tmp_path: Path):
    page = open_page(1280, 900)
    page.get_by_role("tab", name="Compare and steer").click()
    page.get_by_label("Branch on and off").check()
    page.fill("#compare-prompt-a textarea", "a red ball bounces on the floor")
    page.fill("#compare-steps input", "1")
    page.click("#compare")
    page.wait_for_selector(".pp-compare[data-state=ready]")
    page.get_by_label("Steered and not").check()
    page.wait_for_selector(".pp-steer .pp-knob")
    page.get_by_text("Force an expert on a region").click()
    for width, height in WIDTHS.items():
        page.set_viewport_size({"width": width, "height": height})
        for tab in TABS:
            page.get_by_role("tab", name=tab, exact=True).click()
            if tab == "Evidence":
                page.wait_for_selector("#evidence .ev-contents")
            page.wait_for_timeout(120)
            assert_all_in_its_box(page, (width, tab))
            page.screenshot(path=tmp_path / f"{width}-{tab.split()[0].lower()}.png", full_page=tab != "Evidence")
            if tab == "Generate":
                for mode in ("all", "entropy", "phenomena"):
                    page.click(f"#routing-view [data-mode={mode}]")
                    assert_all_in_its_box(page, (width, mode))
                stage = page.locator("#routing-view .pp-stage").bounding_box()
                assert stage["width"] >= min(width - 28, 380)
                assert stage["height"] <= max(height, 400)
            if tab == "Compare and steer":
                for layout in ("wipe", "amplified", "side"):
                    page.click(f".pp-compare [data-layout={layout}]")
                    assert_all_in_its_box(page, (width, layout))


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
