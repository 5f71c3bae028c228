"""The Evidence tab: what the JSONs say and nothing else, whatever they hold; also in a real browser, on a phone."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from chromium import CHROMIUM, PATIENCE_MS
from made_results import (
    annotation_result,
    correlation_result,
    flow_result,
    inversion_result,
    laws_result,
    localisation_result,
    recognition_result,
    selectivity_result,
)

from prophy.assets import assets_dir
from prophy.evaluation.report.format import value as value_of
from prophy.evaluation.report.html import head, opening, rest, unmeasured
from prophy.evaluation.report.readers import KINDS
from prophy.evaluation.results.figures import ExpertMapsResult
from prophy.ui import cli as main
from prophy.ui.engine.engine import Engine
from prophy.ui.page import build_demo, launch
from prophy.ui.tabs.evidence import readable

RESULTS = {
    "selectivity": selectivity_result,
    "laws": laws_result,
    "recognition": recognition_result,
    "localisation": localisation_result,
    "flow": flow_result,
    "correlation": correlation_result,
    "inversion": inversion_result,
    "annotation": annotation_result,
}
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63606060000000040001f61738"
    "550000000049454e44ae426082"
)


@pytest.fixture
def work(tmp_path) -> Path:
    """A work folder with a result of most kinds, none of which was measured by a command."""
    for make in RESULTS.values():
        make().save(tmp_path / "work")
    return tmp_path / "work"


def page_of(work: Path) -> str:
    sections, complaints = readable(work)
    assert complaints == ()
    return opening(sections) + "".join(head(one) + rest(one) for one in sections) + unmeasured(sections)


class _Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def change(path: Path, edit) -> None:
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def test_the_numbers_on_the_page_are_the_jsons(work):
    def edit(document: dict) -> None:
        document["score"]["single"] = {"value": 0.123, "low": 0.101, "high": 0.145, "n": 321}
        document["made_by"]["command"] = "prophy evaluate recognition --prompts 321"

    change(work / "evaluation" / "recognition.json", edit)
    page = page_of(work)
    assert "<strong>12.3 %</strong><small>10.1–14.5, n=321</small>" in page
    assert "<td>12.3 % (10.1–14.5, n=321)</td>" in page
    assert "<code>prophy evaluate recognition --prompts 321</code>" in page
    gain = json.loads((work / "evaluation" / "flow.json").read_text())["levels"][0]["everywhere"]
    assert f"<td>{gain['backbone + branch']['loss']['value']:.5f}</td>" in page
    assert f"weights, model: SHA-256 {'a' * 64}" in page


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(-0.2, -0.1, "better"), (0.1, 0.2, "worse"), (-0.1, 0.3, "no difference shown: the interval holds 0")],
)
def test_a_negative_result_stands_among_the_first_numbers(work, low: float, high: float, said: str):
    def edit(document: dict) -> None:
        difference = {"value": (low + high) / 2, "low": low, "high": high, "n": 3}
        document["levels"][0]["everywhere"]["backbone + branch"]["difference"] = difference

    change(work / "evaluation" / "flow.json", edit)
    sections, _ = readable(work)
    assert f"<small>{said}</small></a>" in opening([one for one in sections if one.path.stem == "flow"])


def test_what_was_not_measured_is_listed_with_its_command(work):
    sections, _ = readable(work)
    missing = unmeasured(sections)
    for name, kind in KINDS.items():
        assert (kind.result.command in missing) == (name not in RESULTS), name


def test_html_in_a_result_is_shown_as_text(work):
    bad = "<img src=x onerror=window.ran=1>"
    folder = work / "evaluation"

    def poison(document: dict) -> None:
        columns = document["scores"]["test"]
        document["scores"] = {bad: {bad: columns["real"], **columns}}
        document["model_sha256"] = {bad: bad}
        document["made_by"] = {"command": bad}

    change(folder / "laws.json", poison)
    (folder / "laws.json").rename(folder / "laws-'\"><script>alert(1)<script>.json".replace("/", ""))
    sections, _ = readable(work)
    found = _Tags(page_of(work))
    assert not found.tags & {"script", "img"}
    assert not found.attributes & {"onerror", "onclick", "style"}
    drawn = "".join(plot.to_json() for section in sections for plot in section.body.plots)
    assert "<img" not in json.dumps(json.loads(drawn[: drawn.index("}{") + 1] if "}{" in drawn else drawn))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"score": NaN}',
        b'{"score": {"recall": 1e999}}',
        b"[" * 100_000,
        b'{"made_by": "me"}',
    ],
)
def test_a_damaged_result_is_one_line_with_its_cure_beside_the_others(work, content: bytes):
    (work / "evaluation" / "recognition.json").write_bytes(content)
    (work / "evaluation" / "guesses.json").write_text("{}")
    sections, complaints = readable(work)
    assert len(sections) == len(RESULTS) - 1
    unknown, damaged = complaints
    assert "move it out of the folder" in unknown
    assert damaged.endswith("measure it again with `prophy evaluate recognition`")
    assert len(damaged.splitlines()) == 1


def test_a_picture_comes_from_beside_its_result_only(work):
    folder = work / "evaluation"
    (work / "outside.png").write_bytes(PIXEL)
    (folder / "secret.txt").write_text("secret")
    (folder / "expert-maps-0.png").write_bytes(PIXEL)
    for name, allowed in (
        ("expert-maps-0.png", True),
        ("../outside.png", False),
        ("secret.txt", False),
        ("missing.png", False),
        (str(work / "outside.png"), False),
    ):
        ExpertMapsResult(("a ball",), (((0.5, 0.5),),), (name,), "a" * 64).save(work)
        sections, complaints = readable(work)
        assert (len(sections) == len(RESULTS) + 1) == allowed, name
        assert all("make the figures again" in line for line in complaints)
        if allowed:
            assert "data:image/png;base64," in page_of(work)


def test_without_evidence_the_tab_says_how_to_measure_and_a_wrong_folder_is_refused_at_the_start(tmp_path):
    sections, (line,) = readable(tmp_path)
    assert sections == ()
    assert "Measure it" in line
    assert all(kind.result.command in unmeasured(sections) for kind in KINDS.values())
    with pytest.raises(FileNotFoundError, match="--evidence .* is no folder"):
        main.main(["--evidence", str(tmp_path / "nowhere"), "--runs", str(tmp_path), "--no-browser"])


def test_what_is_shipped_is_small_and_every_result_of_it_opens():
    folder = assets_dir() / "evidence"
    sections, complaints = readable(folder)
    assert not sections or complaints == ()
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 3_000_000
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} <= {".json", ".png"}


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")
def test_the_tab_draws_every_plot_runs_nothing_and_fits_a_phone(browser, work, tmp_path):
    bad = "<img src=x onerror=window.ran=1>"

    def poison(document: dict) -> None:
        document["scores"]["test"][bad] = document["scores"]["test"]["backbone"]

    def add_picture(document: dict) -> None:
        document["matrix"][0][0]["picture"] = "selectivity-collision.png"

    change(work / "evaluation" / "laws.json", poison)
    change(work / "evaluation" / "selectivity.json", add_picture)
    (work / "evaluation" / "selectivity-collision.png").write_bytes(PIXEL)
    (work / "evaluation" / "flow.json").write_text("{")
    sections, _ = readable(work)
    demo = build_demo(Engine(runs=tmp_path / "runs", gallery=tmp_path / "gallery"), evidence=work)
    address = launch(demo)
    complaints: list[str] = []
    try:
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        page.get_by_role("tab", name="Evidence").click()
        plots = sum(len(section.body.plots) for section in sections)
        page.wait_for_function(
            "(n) => document.querySelectorAll('#evidence .js-plotly-plot .subplot.xy').length === n", arg=plots
        )
        assert page.locator("#evidence h2").all_inner_texts() == [
            *(section.body.title for section in sections),
            "Not measured here",
        ]
        assert (
            page.locator("#evidence .is-error")
            .inner_text()
            .endswith("measure it again with `prophy evaluate flow --control DIR`.")
        )
        assert bad in page.locator("#evidence").inner_text()
        assert page.evaluate("window.ran") is None
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        value = page.locator(".ev-tiles strong").first.inner_text()
        assert value == value_of(sections[0].body.headlines[0].cell)
        cells = page.locator("#evidence .js-plotly-plot", has_text="Laws broken by muting").locator(".nsewdrag")
        cells.scroll_into_view_if_needed()
        picture = 'document.getElementById("evidence-picture-selectivity-collision.png").getBoundingClientRect()'
        shown = f"() => Math.abs({picture}.top / innerHeight - 0.5) < 0.05"
        assert not page.evaluate(shown), "it is in the middle already"
        cells.hover(position={"x": 4, "y": 4})
        cells.click(position={"x": 4, "y": 4})
        page.wait_for_function(shown)
        button = page.locator(".ev-command button").last
        button.click()
        command = button.evaluate("(button) => button.previousElementSibling.textContent")
        assert page.evaluate("getSelection().toString()") == command or button.inner_text() == "Copied"
        page.close()
    finally:
        demo.close()
    assert complaints == []
