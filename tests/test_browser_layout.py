"""The page at every width: no control outside its box or over another, the video large; Plotly only where a plot is."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import CHROMIUM, PATIENCE_MS, free_port, gallery_with_a_pair

from prophy.ui.engine.engine import Engine

WIDTHS = {390: 844, 768: 1024, 1024: 768, 1280: 900, 1366: 768, 1440: 900, 1536: 864, 1920: 1080}
PICTURED = (390, 1440)  # pictures of a whole page take most of the time
TABS = ("Generate", "Compare and steer", "Annotate", "Evidence", "About")

#: What is wrong with the controls, pictures and texts on show: out of the window or the parent, its own text cut, or
#: over another control. What is scrolled out of sight in a box of its own is not on show.
WRONG = """() => {
    const isShown = (node) => node.checkVisibility({ opacityProperty: true, visibilityProperty: true })
        && !node.closest('.visually-hidden, [aria-hidden=true], .sr-only, .js-plotly-plot');
    const name = (node) => `${node.tagName}.${node.className} ${(node.textContent || '').trim().slice(0, 30)}`;
    const sides = ({ left, top, right, bottom }) => ({ left, top, right, bottom });
    const meet = (a, b) => ({ left: Math.max(a.left, b.left), top: Math.max(a.top, b.top),
        right: Math.min(a.right, b.right), bottom: Math.min(a.bottom, b.bottom) });
    const isArea = ({ left, top, right, bottom }) => right - left > 2 && bottom - top > 2;
    const isClipped = (node) => ['auto', 'scroll', 'hidden', 'clip'].includes(getComputedStyle(node).overflowX);
    const scrolls = (node) => ['auto', 'scroll'].includes(getComputedStyle(node).overflowX);
    const known = new Map(); // of a parent, whether it or one around it scrolls: a page has thousands of cells
    const isInScroller = (node) => {
        if (!node || node === document.body) return false;
        if (!known.has(node)) known.set(node, scrolls(node) || isInScroller(node.parentElement));
        return known.get(node);
    };
    const ancestors = (node) => {
        const all = [];
        for (let at = node.parentElement; at && at !== document.body; at = at.parentElement) all.push(at);
        return all;
    };
    const found = [];
    const controls = [];
    const kinds = 'button, input, select, textarea, summary, canvas, video, img, svg, h2, h3, p, li, td';
    let seen = 0;
    for (const node of document.querySelectorAll(`.gradio-container :is(${kinds})`)) {
        if (!isShown(node)) continue;
        const box = sides(node.getBoundingClientRect());
        if (!isArea(box)) continue;
        seen += 1;
        const isScrolled = isInScroller(node.parentElement);
        if (!isScrolled && (box.left < -1 || box.right > innerWidth + 1))
            found.push(['out of the window', name(node), box.left, box.right]);
        const parent = node.parentElement.getBoundingClientRect();
        const isBox = !['contents', 'inline'].includes(getComputedStyle(node.parentElement).display);
        if (!isScrolled && isBox && parent.width && (box.left < parent.left - 8 || box.right > parent.right + 8))
            found.push(['out of its parent', name(node), box.left, box.right, parent.left, parent.right]);
        if (node.matches('button, summary') && node.scrollWidth > node.clientWidth + 1 && node.clientWidth)
            found.push(['cut', name(node), node.scrollWidth, node.clientWidth]);
        if (!node.matches('button, input, select, textarea, summary')) continue;
        const clips = ancestors(node).filter(isClipped).map((clip) => clip.getBoundingClientRect());
        const shown = clips.reduce(meet, box);
        if (isArea(shown)) controls.push([node, shown]);
    }
    controls.forEach(([a, boxA], i) => controls.slice(i + 1).forEach(([b, boxB]) => {
        if (!a.contains(b) && !b.contains(a) && isArea(meet(boxA, boxB)))
            found.push(['over another', name(a), boxA, name(b), boxB]);
    }));
    return [seen, found];
}"""

#: Of a stage and its view: width and height of the stage, width of the view, all in pixels.
ROOM = """([stage, view]) => {
    const [inner, outer] = [stage, view].map((css) => document.querySelector(css).getBoundingClientRect());
    return [inner.width, inner.height, outer.width];
}"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    """The page over some shipped runs, two of them a pair."""
    from prophy.ui.page import build_demo, launch

    folder = tmp_path_factory.mktemp("app")
    demo = build_demo(Engine(runs=folder / "runs", gallery=gallery_with_a_pair(folder / "gallery")))
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


def wrong_with(page, where: object) -> list:
    seen, found = page.evaluate(WRONG)
    assert seen > 10, where
    if page.evaluate("document.documentElement.scrollWidth - innerWidth") > 0:
        found.append("the page scrolls sideways")
    return [(where, one) for one in found]


def too_small(page, view: str, stage: str, height: int, share: float, where: object) -> list:
    """The stage has its share of the view's width, unless it is as high as the window lets it be."""
    wide, high, room = page.evaluate(ROOM, [f"{view} {stage}", view])
    is_large = high <= max(height, 400) and (wide >= share * room or high >= min(height - 262, 758))
    return [] if is_large else [(where, "the stage is not as large as it could be", wide, high, room)]


@pytest.mark.timeout(400)
def test_no_control_leaves_its_box_or_lies_over_another_at_any_width(open_page, tmp_path: Path):
    page = open_page(1280, 900)
    page.get_by_text("Advanced", exact=True).click()
    page.get_by_role("tab", name="Compare and steer").click()
    page.wait_for_selector(".pp-compare[data-state=ready]")
    assert page.locator(".pp-side-label").all_inner_texts() == ["A · branch on", "B · branch off"]
    page.get_by_label("Steered and not").check()
    page.wait_for_selector(".pp-steer .pp-knob")
    page.eval_on_selector_all(".pp-steer details", "(all) => all.forEach((one) => (one.open = true))")
    page.click(".pp-compare .pp-stage.is-a")
    page.wait_for_selector(".pp-compare .pp-inspect")
    wrong = []
    for width, height in WIDTHS.items():
        page.set_viewport_size({"width": width, "height": height})
        for tab in TABS:
            page.get_by_role("tab", name=tab, exact=True).click()
            if tab == "Evidence":
                page.wait_for_selector("#evidence .ev-contents")
            page.wait_for_timeout(100)  # the views measure themselves
            wrong += wrong_with(page, (width, tab))
            if tab == "Generate":
                assert page.locator("#tabs").bounding_box()["width"] >= min(width, 1680) - 60, width
                wrong += too_small(page, "#routing-view .pp-view", ".pp-stage", height, 0.57, (width, tab))
                for mode in ("all", "entropy", "words", "phenomena"):
                    page.click(f"#routing-view [data-mode={mode}]")
                    wrong += wrong_with(page, (width, mode))
                if width in PICTURED:
                    page.screenshot(path=tmp_path / f"{width}-generate.png", full_page=True)
            if tab == "Compare and steer":
                for layout, share in (("wipe", 0.57), ("amplified", 0.57), ("side", 0.45)):
                    page.click(f".pp-compare [data-layout={layout}]")
                    page.wait_for_timeout(50)
                    wrong += wrong_with(page, (width, layout))
                    wrong += too_small(page, ".pp-compare", ".pp-stage.is-a", height, share, (width, layout))
                    if width in PICTURED:
                        page.screenshot(path=tmp_path / f"{width}-{layout}.png", full_page=True)
    assert wrong == [], "\n".join(map(str, wrong))


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
