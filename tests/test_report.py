"""The report and the README's results: from results that the evaluations' own code made; damaged ones refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_results import (
    annotation_result,
    correlation_result,
    flow_result,
    inversion_result,
    laws_result,
    localisation_result,
    recognition_result,
)

from prophy.assets import assets_dir
from prophy.evaluation import cli
from prophy.evaluation.report.format import interval, sentence, text, value
from prophy.evaluation.report.page import write_report
from prophy.evaluation.report.plots import bars
from prophy.evaluation.report.readers import KINDS, kind_of
from prophy.evaluation.report.readme import begin, end, update_readme
from prophy.evaluation.report.sections import read_sections
from prophy.evaluation.report.table import Table, number, points, row, share, signed
from prophy.evaluation.results import Interval, as_typed

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def work(tmp_path) -> Path:
    """A work folder with four results and one cache."""
    for result in (laws_result(), recognition_result(), localisation_result(), flow_result()):
        result.save(tmp_path / "work")
    cache = tmp_path / "work" / "latents-test"
    cache.mkdir()
    np.save(cache / "masks.npy", np.arange(4))
    (cache / "cache.json").write_text(json.dumps({"made_by": "x", "phenomena": [], "split": "test", "count": 4}))
    return tmp_path / "work"


def test_the_report_is_one_page_that_asks_nobody_and_has_every_number(work, tmp_path, capsys):
    out = tmp_path / "report.html"
    cli.main(["report", str(work), "--out", str(out)])
    assert "5 results" in capsys.readouterr().out
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
        "data.json",
    ]
    assert document["made_by"]["command"].startswith("prophy evaluate report")
    hashes = json.loads((work / "evaluation" / "data.json").read_text())
    assert hashes["sets"][0]["clips"] == 4
    assert hashes["sets"][0]["sha256"] in page, "what the results were measured on"
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
    assert section.result.made_by.command == f"prophy evaluate vbench 'a b.json' --work {work.name}"


BEGIN, END = begin("results"), end("results")


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


def test_the_readme_has_one_number_of_each_kind_and_what_it_is_read_against(work, tmp_path):
    readme, results = tmp_path / "README.md", tmp_path / "RESULTS.md"
    readme.write_text(f"{begin('numbers')}\n{end('numbers')}\n")
    results.write_text(f"{BEGIN}\n{END}\n")
    cli.main(["readme", str(work), "--readme", str(readme), str(results)])
    rows = [line for line in readme.read_text().splitlines() if line.startswith("| ")][1:]
    assert len({row.split("|")[1] for row in rows}) == len(rows) >= 3
    assert any("**75.0 %**" in row and "exact on" in row for row in rows)
    assert "75.0 %" in results.read_text()


def test_the_shipped_documents_are_printed_from_the_shipped_evidence(tmp_path):
    for name in ("README.md", "docs/RESULTS.md"):
        copy = tmp_path / Path(name).name
        copy.write_bytes((ROOT / name).read_bytes())
        assert not update_readme(assets_dir() / "evidence", copy), f"{name}: run prophy evaluate readme assets/evidence"


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
    recognition_result().save(other)
    out = tmp_path / "table"
    cli.main(["ablation", f"full={work}", f"full={other}", "--work", str(out)])
    printed = capsys.readouterr().out
    assert "0.750 (0.750–0.750, n=2)" in printed, "two seeds with the same result"
    assert "laws obeyed missing in 1" in printed
    table = read_sections(out)[0]
    assert table.path.name == "ablation.json"
    assert "full (2 runs)" in table.body.tables[0].rows[0].name
    with pytest.raises(ValueError, match="stands twice"):
        cli.main(["ablation", f"full={work}", f"again={work}", "--work", str(out)])
    with pytest.raises(FileNotFoundError, match="holds no results"):
        cli.main(["ablation", f"full={tmp_path / 'nowhere'}", "--work", str(out)])
    about = {"recipe_name": "full", "base": "", "processes": 1, "trained_parameters": 5, "recipe": {"steps": 2}}
    for written, said in ((about, "batches of several sizes: leave it out"), ([], "run.json of other is damaged")):
        (other / "run.json").write_text(json.dumps(written))
        with pytest.raises(ValueError, match=said):
            cli.main(["ablation", f"full={work}", f"half={other}", "--work", str(out)])
    (other / "run.json").unlink()
    same = recognition_result()
    for unlike in (replace(same, guidance=5.0), replace(same, classifier_exact=same.classifier_exact / 2)):
        unlike.save(other)
        with pytest.raises(ValueError, match="recognition was measured differently"):
            cli.main(["ablation", f"full={work}", f"half={other}", "--work", str(out)])
    same.save(other)
    for worlds in ({"phenomena": ("melting",)}, {"grammar": "plain"}, {"size": "96x64x17"}, {"fps": 16}):
        replace(laws_result(), **worlds).save(other)
        with pytest.raises(ValueError, match="laws was measured differently"):
            cli.main(["ablation", f"full={work}", f"half={other}", "--work", str(out)])


NOTHING = Interval(float("nan"), float("nan"), float("nan"), 0)


def test_what_was_not_measured_is_never_printed_as_a_number():
    assert text(share(NOTHING)) == "not measured (n=0)"
    assert text(share(NOTHING).bare) == "not measured"
    assert text(number(None)) == text(number(float("nan"))) == "–"
    assert kind_of(Path("recognition-no-branch.json")) == "recognition"
    assert kind_of(Path("videophy2-on.json")) == "videophy2"
    assert kind_of(Path("videophy2-on-minus-off.json")) == "videophy2-comparison"
    assert set(KINDS) >= {"laws", "recognition", "recogniser", "localisation", "flow", "videophy2", "vbench"}


def test_a_cell_is_written_once_with_its_unit_interval_and_sign():
    half = Interval(0.5, 0.25, 0.75, 4)
    assert text(share(half)) == "50.0 % (25.0–75.0, n=4)"
    assert text(share(half).bare) == "50.0 %"
    assert text(signed(half, 2)) == "+0.50 (+0.25 to +0.75, n=4)"
    assert text(points(half)) == "+50.0 points (+25.0 to +75.0, n=4)"
    assert text(number(2)) == "2.000"


def test_a_table_and_its_plot_are_of_the_same_cells():
    half = Interval(0.5, 0.25, 0.75, 4)
    table = Table("", ("what", "a", "b"), (row("x", share(half), share(0.1)), row("y", share(NOTHING), share(None))))
    first, second = bars("", "", table).data
    assert (list(first.x), list(first.y), list(first.error_y.array)) == (["x"], [50], [25])
    assert (list(second.x), list(second.y), second.error_y.visible) == (["x"], [10], False)
    assert table.transposed().transposed() == table
    with pytest.raises(ValueError, match="other lengths"):
        table.with_rows(row("z", share(half)))
    with pytest.raises(TypeError, match="no number to plot"):
        bars("", "", Table("", ("what", "said"), (row("x", "hello"),)))


def test_each_result_is_drawn_and_its_headline_has_its_interval_and_what_to_read_it_against(work):
    for result in (correlation_result(), inversion_result(), annotation_result()):
        result.save(work)
    sections = {section.path.stem: section for section in read_sections(work)}
    assert all(section.body.plots and section.body.headlines for section in sections.values())
    laws = sections["laws"].body.headlines[0]
    assert (laws.label, sentence(laws.beside)) == ("laws obeyed, ProPhy", "real 100.0 %, backbone 0.0 %")
    assert "n=" in interval(laws.cell)
    assert len(sections["correlation"].body.plots) == 2, "logits and labels side by side"
    (inversion,) = sections["inversion"].body.headlines
    assert value(inversion.cell) == "51.000"
    assert sentence(inversion.beside) == "random, equal norm 5.100, experts shuffled 51.000"
    assert "uniform" in sentence(sections["annotation"].body.headlines[0].beside)


def test_intervals_are_error_bars_and_a_number_without_one_has_none(work):
    recognition = next(section for section in read_sections(work) if section.path.stem == "recognition")
    asked, unasked = recognition.body.plots[0].data
    document = json.loads((work / "evaluation" / "recognition.json").read_text())
    recall = list(document["score"]["recall"].values())
    along = "x" if asked.orientation == "h" else "y"
    assert list(asked[along]) == [100 * one["value"] for one in recall]
    error = asked[f"error_{along}"]
    assert list(error.arrayminus) == [100 * (one["value"] - one["low"]) for one in recall]
    assert error.visible
    assert not unasked[f"error_{along}"].visible


def test_a_recorded_command_names_no_folder_of_this_machine():
    typed = [
        "flow",
        "--work",
        "/home/someone/runs/tiny",
        "--column",
        "LoRA=/data/lora",
        "--model",
        "runs/a",
        "--clips",
        "3",
    ]
    assert as_typed("prophy evaluate", typed) == (
        "prophy evaluate flow --work tiny --column LoRA=lora --model runs/a --clips 3"
    )
