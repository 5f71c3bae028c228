"""The ablation as one command: small real models, killed before each of its stages; the table against the JSONs."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from conftest import write_base
from small_training import SHAPE

from prophy.evaluation import cli
from prophy.evaluation.clips import ArrayFolder
from prophy.evaluation.judges.recogniser import train_recogniser
from prophy.evaluation.measures import ablation_runs
from prophy.evaluation.measures.ablation_runs import AblationSettings, plan_runs, run_ablation
from prophy.evaluation.measures.laws import asked_clips, score_columns
from prophy.evaluation.report.page import write_report
from prophy.evaluation.report.sections import read_sections
from prophy.evaluation.results.judges import RecogniserRecipe
from prophy.evaluation.results.laws import BACKBONE, ClipErrors
from prophy.training.log import read_lines
from prophy.training.recipe import Recipe
from prophy.training.recipes import RECIPES, recipe_named
from prophy.training.trainer import Running, TrainingStopped
from prophy.worlds import sample_scenario

SETTINGS = AblationSettings(worlds=6, clips=2, latents=4, batch=2, denoising_steps=1)


def small(name: str) -> Recipe:
    recipe = replace(recipe_named(name), lora_rank=4, steps=2, batch=2, precision="float32")
    return recipe if recipe.branch is None else replace(recipe, branch=SHAPE)


ROWS = {name: small(name) for name in ("tiny_lora", "tiny")}
WATCHED = Running(log_every=1, checkpoint_every=1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    captions = [sample_scenario(seed)[1] for seed in range(40)] + [one.prompt for one in asked_clips("test", 2)]
    return str(write_base(tmp_path_factory.mktemp("base"), captions))


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("caches")
    train_recogniser(folder, RecogniserRecipe(clips=12, test_clips=10, steps=2, batch=4, width=8))
    return folder


@pytest.fixture(scope="module")
def work(base: str, caches: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ablation that nothing disturbed."""
    folder = tmp_path_factory.mktemp("work")
    run_ablation(plan_runs(ROWS, 1, folder), folder, caches, base, SETTINGS, WATCHED)
    return folder


def table_of(work: Path) -> dict:
    return json.loads((work / "evaluation" / "ablation.json").read_text())


def result_of(work: Path, run: str, name: str) -> dict:
    return json.loads((work / run / "evaluation" / f"{name}.json").read_text())


def test_the_table_says_what_the_runs_results_say(work: Path):
    table = table_of(work)
    assert table["runs"] == {BACKBONE: 1, "tiny_lora": 1, "tiny": 1}
    row, laws = table["rows"]["tiny"], result_of(work, "tiny-0", "laws")
    assert row["laws obeyed"] == laws["scores"]["test"]["tiny"]["obeyed"]
    assert row["law error"] == laws["scores"]["test"]["tiny"]["error"]
    columns = {
        name: [ClipErrors(**clip) for clip in result_of(work, run, "laws")["verdicts"]["test"][name]]
        for name, run in ((BACKBONE, BACKBONE), ("tiny", "tiny-0"))
    }
    assert row["law error minus backbone"] == asdict(score_columns(columns)["tiny"].minus_backbone)
    assert row["law error minus backbone"]["n"] == 2
    assert row["laws mended"] == asdict(score_columns(columns)["tiny"].mended)
    assert row["laws broken"] == asdict(score_columns(columns)["tiny"].broken)
    assert row["one phenomenon recognised"] == result_of(work, "tiny-0", "recognition")["score"]["single"]
    level = next(x for x in result_of(work, "tiny-0", "localisation")["levels"] if x["noise"] == 0.5)
    assert row["token AP, map, noise 0.5"] == level["scores"]["phenomenon map P'"]["ap"]
    assert row["token AP, raw router, noise 0.5"] == level["scores"]["raw router, matched"]["ap"]
    flow = next(x for x in result_of(work, "tiny_lora-0", "flow")["levels"] if x["noise"] == 0.5)["everywhere"]
    assert table["rows"]["tiny_lora"]["flow loss, noise 0.5"] == flow["tiny_lora"]["loss"]
    assert table["rows"]["tiny_lora"]["flow loss minus backbone"] == flow["tiny_lora"]["difference"]
    assert table["rows"][BACKBONE]["flow loss, noise 0.5"] == flow[BACKBONE]["loss"]
    assert table["rows"][BACKBONE]["token AP, map, noise 0.5"] is None
    assert table["unmeasured"]["tiny_lora"].keys() >= {"token AP, map, noise 0.5"}, "no branch, no map"


def test_rows_had_equal_compute_and_the_table_says_what_a_step_took(work: Path):
    table = table_of(work)
    assert table["equal"] is True
    assert list(table["training"]) == ["tiny_lora", "tiny"], "the untrained model was not trained"
    for row, training in table["training"].items():
        assert (training["steps"], training["batch"]) == (2, 2)
        seconds = [line["seconds_per_step"] for line in read_lines(work / f"{row}-0")]
        assert training["seconds_per_step"] == pytest.approx(sum(seconds) / 2)
    body = read_sections(work)[0].body
    assert [part.title for part in body.tables] == ["recognition", "laws", "localisation", "flow", "training"]
    assert any("as many steps of as many clips" in note for note in body.notes)
    assert write_report(work, work / "report.html") == 1
    of_run = {section.path.stem: section.body for section in read_sections(work / "tiny-0")}
    assert of_run.keys() == {"laws", "recognition", "localisation", "flow"}, "a run has a report of its own"
    assert len(of_run["localisation"].headlines) == 1, "there is no image-free control to compare with"
    assert [section.path.stem for section in read_sections(work / BACKBONE)] == [
        "laws",
        "recognition-no-branch",
        "flow",
    ]


def test_every_row_begins_with_the_same_model_and_ends_with_its_own(work: Path):
    hashes = {run: result_of(work, run, "flow")["model_sha256"] for run in (BACKBONE, "tiny_lora-0", "tiny-0")}
    assert len(set(hashes.values())) == 3
    assert json.loads((work / "settings.json").read_text())["model_sha256"] == hashes[BACKBONE]
    untrained = [result_of(work, run, "flow")["levels"][0]["everywhere"][BACKBONE] for run in hashes]
    assert untrained[0] == untrained[1] == untrained[2], "the same noisy clips"
    about = [json.loads((work / run / "run.json").read_text()) for run in ("tiny_lora-0", "tiny-0")]
    assert about[0]["data"] == about[1]["data"]


class Killed(BaseException):
    """Nothing in the program catches it."""


STAGES = ("train", "publish", "evaluate_laws", "evaluate_recognition", "flow_levels", "evaluate_localisation")


def test_killed_before_each_of_its_stages_it_does_nothing_twice_and_ends_with_the_same_table(
    base: str, caches: Path, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    started, done, clips = Counter(), Counter(), Counter()

    def mortal(stage: str):
        real = getattr(ablation_runs, stage)

        def run(*arguments, **named):
            started[stage] += 1
            if started[stage] % 2:
                raise Killed(stage)
            result = real(*arguments, **named)
            done[stage] += 1
            return result

        return run

    def counted(folder, name, made, real=ArrayFolder.write):
        clips["generated"] += 1
        return real(folder, name, made)

    for stage in STAGES:
        monkeypatch.setattr(ablation_runs, stage, mortal(stage))
    monkeypatch.setattr(ArrayFolder, "write", counted)
    deaths = 0
    while True:
        try:
            run_ablation(plan_runs(ROWS, 1, tmp_path), tmp_path, caches, base, SETTINGS, WATCHED)
            break
        except Killed:
            deaths += 1
    assert deaths == sum(started.values()) - sum(done.values()) >= 14
    measured = {stage: done[stage] for stage in STAGES[2:]}
    assert measured == {
        "evaluate_laws": 3,
        "evaluate_recognition": 3,
        "flow_levels": 3,
        "evaluate_localisation": 1,
    }
    assert done["publish"] == 2
    assert clips["generated"] == 3 * SETTINGS.clips, "recognition looks at the clips that laws were measured on"
    for row in ROWS:
        assert [line["step"] for line in read_lines(tmp_path / f"{row}-0")] == [1, 2]
    assert table_of(tmp_path)["rows"] == table_of(work)["rows"]


def test_a_training_that_is_told_to_stop_goes_on_and_ends_as_if_it_had_not(
    base: str, caches: Path, work: Path, tmp_path: Path
):
    rows = {"tiny_lora": ROWS["tiny_lora"]}
    hasty = replace(WATCHED, minutes=0.0)
    with pytest.raises(TrainingStopped, match="tiny_lora-0 was told to stop at step 1: run the same command again"):
        run_ablation(plan_runs(rows, 1, tmp_path), tmp_path, caches, base, SETTINGS, hasty)
    assert list(table_of(tmp_path)["rows"]) == [BACKBONE], "what is there is in the table"
    run_ablation(plan_runs(rows, 1, tmp_path), tmp_path, caches, base, SETTINGS, hasty)
    assert table_of(tmp_path)["rows"]["tiny_lora"] == table_of(work)["rows"]["tiny_lora"]


def test_the_command_prints_the_table_and_another_seed_can_be_added(
    base: str,
    caches: Path,
    work: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    for name, recipe in ROWS.items():
        monkeypatch.setitem(RECIPES, name, lambda recipe=recipe: recipe)
    before = {path: path.stat().st_mtime_ns for path in work.glob("*-0/**/*") if path.is_file()}
    assert before
    command = ["ablation-runs", "--work", str(work), "--caches", str(caches), "--model", base, "--steps", "2"]
    command += ["--worlds", "6", "--clips", "2", "--latents", "4", "--batch", "2", "--denoising-steps", "1"]
    cli.main([*command, "--row", "tiny_lora", "--row", "tiny", "--seeds", "1"])
    assert "tiny_lora (1 run)" in capsys.readouterr().out
    cli.main([*command, "--row", "tiny_lora", "--seeds", "2"])
    assert "tiny_lora (2 runs)" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what was finished was made again"
    seeds = [result_of(work, f"tiny_lora-{seed}", "laws")["scores"]["test"]["tiny_lora"]["error"] for seed in (0, 1)]
    error = table_of(work)["rows"]["tiny_lora"]["law error"]
    assert error["n"] == 2
    assert error["value"] == pytest.approx((seeds[0]["value"] + seeds[1]["value"]) / 2)
    with pytest.raises(ValueError, match=r"holds the runs of another ablation \(clips was 2, now 3\)"):
        cli.main([*command, "--row", "tiny", "--clips", "3"])
    with pytest.raises(ValueError, match=r"tiny-0: lora_rank was 4, now 8.*choose another --work"):
        cli.main([*command, "--row", "tiny", "--set", "lora_rank=8"])
    shutil.copytree(base, tmp_path / "base")
    scheduler = tmp_path / "base" / "scheduler" / "scheduler_config.json"
    config = json.loads(scheduler.read_text())
    scheduler.write_text(json.dumps({**config, "flow_shift": config["flow_shift"] + 1}))
    with pytest.raises(ValueError, match="more would be measured with the scheduler's flow_shift .* choose another"):
        cli.main([*command, "--row", "tiny", "--model", str(tmp_path / "base")])


def test_what_cannot_be_compared_is_refused_before_anything_is_done(base: str, tmp_path: Path):
    with pytest.raises(ValueError, match="differ in steps"):
        plan_runs({**ROWS, "tiny": replace(ROWS["tiny"], steps=3)}, 1, tmp_path)
    with pytest.raises(ValueError, match="at least one row and one seed"):
        plan_runs(ROWS, 0, tmp_path)
    with pytest.raises(ValueError, match="clips=0 must be at least 1"):
        AblationSettings(clips=0)
    with pytest.raises(FileNotFoundError, match="run `prophy evaluate recogniser"):
        run_ablation(plan_runs(ROWS, 1, tmp_path), tmp_path, tmp_path, base, SETTINGS)
    assert not list(tmp_path.iterdir())
