"""The report and the README's results: from results that the evaluations' own code made; damaged ones refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from prophy.evaluation import cli
from prophy.evaluation.flow_gain import BACKBONE, BRANCH, ClipLosses, FlowResult, compare
from prophy.evaluation.lawfulness import PROPHY, REAL, ClipErrors, LawsResult, score_columns
from prophy.evaluation.localisation import (
    MAP,
    UNIFORM,
    ExpertUse,
    LocalisationLevel,
    LocalisationResult,
    Truth,
    score_maps,
)
from prophy.evaluation.metrics import bootstrap
from prophy.evaluation.prompted import PromptVerdict, RecognitionResult, score
from prophy.evaluation.report import BEGIN, END, update_readme, write_report
from prophy.evaluation.results import write_result
from prophy.evaluation.sections import KINDS, kind_of, number, read_sections, share
from prophy.evaluation.trackers import LAWS
from prophy.grid import TokenGrid
from prophy.phenomena import IDS


def laws_result() -> LawsResult:
    def clips(error: float) -> list[ClipErrors]:
        laws = LAWS["deformation", "press"]
        return [ClipErrors({f"deformation, press: {law.name}": error for law in laws}, {}) for _ in range(3)]

    columns = {REAL: clips(0.01), "backbone": clips(0.5), PROPHY: clips(0.25)}
    return LawsResult({"test": score_columns(columns)}, 3, None, {"backbone": "b" * 64, PROPHY: "c" * 64}, {})


def recognition_result() -> RecognitionResult:
    logits = torch.full((4, len(IDS)), -1.0)
    asked = torch.zeros(4, len(IDS))
    for row in range(4):
        asked[row, row] = 1
        logits[row, row if row else 9] = 1.0
    verdict = PromptVerdict("<script>alert(1)</script>", 1, "usual", (IDS[0],), (IDS[9],))
    return RecognitionResult(score(logits, asked, ["usual"] * 4), 0.999, "a" * 64, True, 20, 4.0, (verdict,) * 4)


def localisation_result() -> LocalisationResult:
    cover = np.zeros((2, 12, len(IDS)), np.float32)
    shown = np.zeros((2, len(IDS)), bool)
    cover[0, :4, 0] = cover[1, 4:6, 1] = 1
    shown[0, 0] = shown[1, 1] = True
    truth = Truth(cover, shown, TokenGrid(1, 3, 4))
    scores = {MAP: score_maps(cover, truth), UNIFORM: score_maps(np.ones_like(cover), truth)}
    use = ExpertUse((0.5, 0.5), (0.4, 0.6))
    levels = tuple(LocalisationLevel(noise, scores, bootstrap(np.ones(2)), {}, use) for noise in (0.2, 0.5))
    return LocalisationResult(levels, use, {IDS[0]: 0.9}, {IDS[0]: 0.5}, 2, "wordings", "test", 0, "a" * 64)


def flow_result() -> FlowResult:
    base = np.array([1.0, 2.0, 3.0])
    losses = {BACKBONE: ClipLosses(base, base), BRANCH: ClipLosses(base - 0.1, base - 0.1)}
    return FlowResult((compare(0.5, losses),), 3, "wordings", "a" * 64, None)


@pytest.fixture
def work(tmp_path) -> Path:
    """A work folder with four results and one cache."""
    folder = tmp_path / "work" / "evaluation"
    for name, result in (
        ("laws", laws_result()),
        ("recognition", recognition_result()),
        ("localisation", localisation_result()),
        ("flow", flow_result()),
    ):
        write_result(folder / f"{name}.json", result)
    cache = tmp_path / "work" / "latents-test"
    cache.mkdir()
    np.save(cache / "masks.npy", np.arange(4))
    (cache / "cache.json").write_text(json.dumps({"made_by": "x", "phenomena": [], "split": "test", "count": 4}))
    return tmp_path / "work"


def test_the_report_is_one_page_that_asks_nobody_and_has_every_number(work, tmp_path, capsys):
    out = tmp_path / "report.html"
    cli.main(["report", str(work), "--out", str(out)])
    assert "4 results" in capsys.readouterr().out
    page = out.read_text()
    assert page.count("/**\n* plotly.js") == 1, "plotly.js is inlined once"
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=['\"]http", page)
    assert "75.0 % (" in page, "recognised: three of four"
    assert "<script>alert(1)" not in page
    document = json.loads(out.with_suffix(".json").read_text())
    assert [part["source"] for part in document["sections"]] == [
        "laws.json",
        "recognition.json",
        "localisation.json",
        "flow.json",
    ]
    assert document["made_by"]["command"].startswith("prophy evaluate report")
    assert document["data"][0]["clips"] == 4
    assert document["sections"][0]["weights"] == {"backbone": "b" * 64, "ProPhy": "c" * 64}


def test_a_result_remembers_the_command_that_made_it(work, tmp_path):
    result = {
        "subject_consistency": [0.9, [{}]],
        "background_consistency": [0.9, [{}]],
        "temporal_flickering": [0.9, [{}]],
        "motion_smoothness": [0.9, [{}]],
        "aesthetic_quality": [0.5, [{}]],
        "imaging_quality": [0.5, [{}]],
        "dynamic_degree": [0.5, [{}]],
    }
    (tmp_path / "a b.json").write_text(json.dumps(result))
    cli.main(["vbench", str(tmp_path / "a b.json"), "--work", str(work)])
    section = next(section for section in read_sections(work) if section.path.name == "vbench.json")
    assert section.command == f"prophy evaluate vbench '{tmp_path / 'a b.json'}' --work {work}"


def test_the_readme_changes_between_its_markers_only_and_settles(work, tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text(f"# Mine\n\nbefore\n{BEGIN}\nstale words\n{END}\nafter\n")
    cli.main(["readme", str(work), "--readme", str(readme)])
    text = readme.read_text()
    assert text.startswith("# Mine\n\nbefore\n")
    assert text.endswith("\nafter\n")
    assert "stale words" not in text
    assert "75.0 %" in text
    assert text.count("its command was not recorded") == 4
    assert not update_readme(work, readme), "a second run finds nothing to change"
    assert "changed" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["no markers", f"{BEGIN}", f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_a_readme_without_its_markers_is_left_alone(work, tmp_path, text: str):
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(ValueError, match="needs the lines"):
        update_readme(work, readme)
    assert readme.read_text() == text


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:100],
        lambda text: "[]",
        lambda text: text.replace('"value": 0.75', '"value": NaN'),
        lambda text: text.replace('"value": 0.75', '"value": "0.75"'),
        lambda text: text.replace('"single"', '"simple"'),
    ],
)
def test_a_damaged_result_is_refused_and_leaves_the_old_report(work, tmp_path, damage):
    out = tmp_path / "report.html"
    out.write_text("old")
    path = work / "evaluation" / "recognition.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(ValueError, match=r"recognition\.json is damaged"):
        write_report(work, out)
    assert out.read_text() == "old"


def test_unknown_results_and_empty_folders_are_refused(work, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no results"):
        write_report(tmp_path / "nowhere", tmp_path / "report.html")
    with pytest.raises(ValueError, match=r"no \.html"):
        write_report(work, tmp_path / "report.pdf")
    (work / "evaluation" / "guesses.json").write_text("{}")
    with pytest.raises(ValueError, match="no result that this release knows"):
        read_sections(work)


def test_the_ablation_table_has_seeds_and_gaps_and_refuses_runs_measured_differently(work, tmp_path, capsys):
    other = tmp_path / "other"
    write_result(other / "evaluation" / "recognition.json", recognition_result())
    out = tmp_path / "table"
    cli.main(["ablation", f"full={work}", f"full={other}", "--work", str(out)])
    printed = capsys.readouterr().out
    assert "0.750 (0.750–0.750, n=2)" in printed, "two seeds with the same result"
    assert "laws obeyed missing in 1" in printed
    table = read_sections(out)[0]
    assert table.path.name == "ablation.json"
    assert "full (2 runs)" in table.body.tables[0].rows[0][0]
    with pytest.raises(ValueError, match="stands twice"):
        cli.main(["ablation", f"full={work}", f"again={work}", "--work", str(out)])
    with pytest.raises(FileNotFoundError, match="holds no results"):
        cli.main(["ablation", f"full={tmp_path / 'nowhere'}", "--work", str(out)])
    path = other / "evaluation" / "recognition.json"
    path.write_text(path.read_text().replace('"guidance": 4.0', '"guidance": 5.0'))
    with pytest.raises(ValueError, match="measured differently"):
        cli.main(["ablation", f"full={work}", f"half={other}", "--work", str(out)])


def test_what_was_not_measured_is_never_printed_as_a_number():
    assert share({"value": None, "low": None, "high": None, "n": 0}) == "not measured (n=0)"
    assert number(None) == "–"
    assert share({"value": 0.5, "low": 0.25, "high": 0.75, "n": 4}) == "50.0 % (25.0–75.0, n=4)"
    assert kind_of(Path("recognition-no-branch.json")) == "recognition"
    assert kind_of(Path("videophy2-on-minus-off.json")) == "videophy2"
    assert set(KINDS) >= {"laws", "recognition", "recogniser", "localisation", "flow", "videophy2", "vbench"}
