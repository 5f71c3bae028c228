"""The Training tab: a real training's folder, read while it grows, as figures, words and samples; and in a browser."""

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import gradio as gr
import numpy as np
import pytest
from chromium import CHROMIUM, PATIENCE_MS, free_port
from small_training import LONGER, RECIPE, RandomClips, run
from synthetic import make_frames, make_record, make_trace

from prophy.runs.record import RunError
from prophy.runs.store import write_run
from prophy.training.curves import CHARTS, MOST_COLUMNS, MOST_POINTS, kept, losses, refinement_usage, semantic_usage
from prophy.training.log import GrowingLog, read_lines
from prophy.training.run_folder import TrainingRun, Trainings
from prophy.training.trainer import Running
from prophy.ui.engine.engine import Engine
from prophy.ui.page import build_demo, launch
from prophy.ui.tabs import training as training_tab
from prophy.ui.tabs.training import Shown, TrainingTab, duration, facts_of, notice_of

ROOT = Path(__file__).resolve().parents[1]
WATCHED = Running(log_every=1, validate_every=3, validation_clips=2, checkpoint_every=3, sample_every=3)
DRAW = {chart.id: chart.draw for chart in CHARTS}
PROMPT = "a red ball bounces"


def sample(backbone, branch, folder: Path) -> None:
    """What the trainer calls: here frames and routing are made up, the run directories are real."""
    for number in range(2):
        prompt = f"{PROMPT} {number}"
        trace = None if branch is None else make_trace(prompt)
        write_run(folder, make_record(prompt), make_frames(number), trace=trace, run_id=f"{number:02d}")


def train(out: Path, steps: int, **changes) -> Path:
    """The real trainer, up to a step; again, with more, it goes on."""
    recipe = replace(LONGER, steps=steps, **changes)
    return run(out, recipe, WATCHED, held_out=RandomClips(4, seed=1), name="tiny", base="some/model", sample=sample)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A training of six steps, which no test changes."""
    return train(tmp_path_factory.mktemp("trained") / "first", 6)


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(trained, tmp_path / "copied"))


def append(folder: Path, text: str) -> None:
    with open(folder / "log.jsonl", "a") as file:
        file.write(text)


# --- figures ----------------------------------------------------------------------------------------------------------


def drawn(figure) -> dict[str, tuple[list, list]]:
    return {curve.name: (list(curve.x), list(curve.y)) for curve in figure.data}


def test_figures_hold_exactly_the_numbers_of_the_log(trained: Path):
    lines = read_lines(trained)
    made = [line for line in lines if line["kind"] == "train"]
    checked = [line for line in lines if line["kind"] == "validation"]
    steps = [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in made] == steps

    found = drawn(DRAW["losses"](lines))
    assert found.keys() == {"total", "diffusion", "coarse", "fine align", "fine balance"}
    for name, (x, y) in found.items():
        assert (x, y) == (steps, [line["losses"][name.replace(" ", "_")] for line in made])
    found = drawn(DRAW["validation"](lines))
    assert found == {
        f"noise {level}": ([3, 6], [line["diffusion"][level] for line in checked]) for level in checked[0]["diffusion"]
    }
    found = drawn(DRAW["refinement"](lines))
    shares = [line["experts"]["refinement_E"] for line in made]
    assert found == {f"expert {e}": (steps, [row[e] for row in shares]) for e in range(5)}
    (heat,) = DRAW["semantic"](lines).data
    assert np.array_equal(heat.z, np.array([line["experts"]["semantic_S"] for line in made]).T)
    assert list(heat.x) == steps
    found = drawn(DRAW["entropies"](lines))
    assert [y for _, y in found.values()] == [
        [line["experts"][name] for line in made] for name in ("refinement_entropy", "token_entropy", "semantic_entropy")
    ]
    found = drawn(DRAW["gradients"](lines))
    assert found["all"] == (steps, [line["gradient_norms"]["all"] for line in made])
    assert found.keys() == {name.replace("_", " ") for name in made[0]["gradient_norms"]}
    assert drawn(DRAW["rate"](lines)) == {"rate": (steps, [line["rate"] for line in made])}
    assert drawn(DRAW["pace"](lines)) == {
        "s/step": (steps, [line["seconds_per_step"] for line in made]),
        "waiting": (steps, [line["waiting"] for line in made]),
    }
    assert losses(lines).layout.yaxis.type == "log"


def test_a_chart_without_numbers_is_not_drawn(tmp_path: Path):
    assert [chart.id for chart in CHARTS if chart.draw([]) is not None] == []
    run(tmp_path, replace(RECIPE, steps=2, branch=None, backbone="lora", lora_rank=2))
    shown = [chart.id for chart in CHARTS if chart.draw(read_lines(tmp_path)) is not None]
    assert shown == ["losses", "gradients", "rate", "pace"], "no branch has no experts, no held-out clips no losses"
    assert drawn(losses(read_lines(tmp_path))).keys() == {"total", "diffusion"}, "terms that were not trained"


def test_long_logs_are_thinned_to_points_that_were_logged_and_no_spike_is_lost(trained: Path):
    line = next(line for line in read_lines(trained) if line["kind"] == "train")
    rng = np.random.default_rng(0)
    totals = rng.random(20_000) + 1
    totals[[777, 12_345]] = 50.0, 1e-3
    lines = [{**line, "step": i + 1, "losses": {"total": float(total)}} for i, total in enumerate(totals)]
    started = time.perf_counter()
    x, y = drawn(losses(lines))["total"]
    assert time.perf_counter() - started < 2
    assert len(x) <= MOST_POINTS
    assert (x[0], x[-1]) == (1, 20_000)
    assert y == [totals[step - 1] for step in x]
    assert {778, 12_346} <= set(x)
    assert x == sorted(set(x))
    assert len(refinement_usage(lines).data[0].x) == len(semantic_usage(lines).data[0].x) == MOST_COLUMNS
    assert refinement_usage(lines).data[0].x[-1] == 20_000
    assert list(kept(np.arange(7.0))) == list(range(7))
    assert np.isin(kept(np.full(3000, np.nan)), np.arange(3000)).all()


def test_a_collapse_is_named_and_fills_the_figure(trained: Path):
    line = next(line for line in read_lines(trained) if line["kind"] == "train")
    collapsed = {**line, "experts": {**line["experts"], "refinement_E": [0, 0, 1, 0, 0], "semantic_S": [1, *[0] * 5]}}
    figure = refinement_usage([collapsed])
    assert "most 2 (100.0%), least 0 (0.0%)" in figure.layout.xaxis.title.text
    assert list(figure.data[2].y) == [1]
    assert {curve.stackgroup for curve in figure.data} == {"experts"}
    assert semantic_usage([collapsed]).data[0].zmax < 1, "an uneven use stays visible long before a collapse"


# --- the log as it grows ----------------------------------------------------------------------------------------------


def test_only_what_is_new_is_read_and_a_line_without_its_end_waits(copied: Path):
    log = GrowingLog(copied)
    assert log.read()
    assert not log.read()
    first = log.lines[0]
    last = json.dumps({**log.lines[-2], "step": 7})
    append(copied, last[:40])
    log.read()
    assert len(log.lines) == 8
    append(copied, last[40:] + "\n")
    assert log.read()
    assert log.lines[-1]["step"] == 7
    assert log.lines[0] is first, "what was read is not read again"
    assert log.fault is None
    assert log.lines == read_lines(copied)


def test_a_resumed_training_is_followed_through_its_cut_log(copied: Path):
    folder = TrainingRun(copied)
    append(copied, json.dumps({**read_lines(copied)[-2], "step": 9, "rate": 7.0}) + "\n")  # a killed run's
    before = folder.look()
    assert before.lines[-1]["rate"] == 7.0
    train(copied, 8)
    after = folder.look()
    assert after.version != before.version
    assert after.lines == read_lines(copied)
    assert [line["step"] for line in after.lines if line["kind"] == "train"] == list(range(1, 9))
    assert (before.about.steps, after.about.steps) == (6, 8), "more steps were asked for"
    assert (after.saved.step, after.samples) == (8, ("step-000008", "step-000006", "step-000003"))
    assert folder.look().version == after.version


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b"{", "delete it"),
        (b"[]", "delete it"),
        (b"3", "delete it"),
        (b'{"kind": "train", "step": 7}', "delete it"),
        (b'{"kind": ["train"], "step": 7}', "delete it"),
        (b'{"kind": "validation", "step": 7, "diffusion": {"0.2": "low"}}', "delete it"),
        (b'{"kind": "validation", "step": "7", "diffusion": {}}', "delete it"),
        (b"[" * 100_000, "delete it"),
        (b'{"kind": "validation", "step": 1000000000000000000000, "diffusion": {}}', "delete it"),
        (b'{"kind": "validation", "step": 7, "diffusion": {"0.2": 1' + b"0" * 400 + b"}}", "delete it"),
        (
            b'{"kind": "train", "step": 7, "losses": {}, "gradient_norms": {}, "rate": 1, "seconds_per_step": NaN, '
            b'"waiting": 0}',
            "delete it",
        ),
        (b"\xff\xfe", "delete it"),
        (b'{"kind": "validation", "step": 2, "diffusion": {}}', "end one of the two trainings"),
    ],
    ids=range(13),
)
def test_a_damaged_log_is_shown_up_to_the_damage_with_the_cure_in_one_line(copied: Path, bad: bytes, said: str):
    good = (copied / "log.jsonl").read_text()
    (copied / "log.jsonl").write_bytes(good.encode() + bad + b"\n")
    append(copied, json.dumps({**json.loads(good.splitlines()[0]), "step": 8}) + "\n")
    folder = TrainingRun(copied)
    look = folder.look()
    assert len(look.lines) == 8
    (fault,) = look.faults
    assert fault.startswith("line 9 of log.jsonl")
    assert said in fault
    assert "\n" not in fault
    assert "Line 9" in notice_of(look, time.time())
    assert folder.look().version == look.version
    (copied / "log.jsonl").write_text(good)
    assert folder.look().faults == ()


def test_numbers_that_count_nothing_and_a_pipe_are_said_in_one_line(copied: Path):
    about = json.loads((copied / "run.json").read_text())
    for name, value in (("processes", 1e308), ("trained_parameters", -1), ("trained_parameters", "many")):
        (copied / "run.json").write_text(json.dumps({**about, name: value}))
        assert TrainingRun(copied).look().faults[0].startswith("run.json of copied is damaged"), name
    for batch in ("large", [8], 10**30):
        (copied / "run.json").write_text(json.dumps({**about, "recipe": {**about["recipe"], "batch": batch}}))
        assert TrainingRun(copied).look().about is None, batch
    (copied / "run.json").write_text(json.dumps({**about, "recipe_name": "x" * 100_000}))
    assert len(TrainingRun(copied).look().about.shown_name) == 200
    (copied / "log.jsonl").unlink()
    os.mkfifo(copied / "log.jsonl")
    assert TrainingRun(copied).look().faults == ("log.jsonl is not a file: put the run's log in its place",)


def test_a_loss_that_is_no_number_is_shown(copied: Path):
    last = json.loads((copied / "log.jsonl").read_text().splitlines()[0])
    losses = dict.fromkeys(last["losses"], float("nan"))
    append(copied, json.dumps({**last, "step": 7, "losses": losses}) + "\n")
    look = TrainingRun(copied).look()
    assert (look.faults, look.lines[-1]["step"]) == ((), 7)
    for chart in CHARTS:
        chart.draw(look.lines)


def test_other_damaged_files_and_what_is_not_there_yet_are_said_in_one_line(copied: Path, tmp_path: Path):
    now = time.time()
    (copied / "checkpoint" / "state.json").write_text("{")
    assert TrainingRun(copied).look().faults == ("checkpoint checkpoint is damaged: delete it to start again",)
    (copied / "run.json").write_text('{"recipe": 3}')
    look = TrainingRun(copied).look()
    assert look.faults[0].startswith("run.json of copied is damaged")
    assert "step</dt><dd>6<" in facts_of(look, now)
    (tmp_path / "young").mkdir()
    (tmp_path / "young" / "run.json").write_text((copied / "run.json").read_text())
    look = TrainingRun(tmp_path / "young").look()
    assert (look.written, look.saved, look.samples, list(look.lines)) == (None, None, (), [])
    assert "No log yet" in notice_of(look, time.time())
    assert "not written yet" in facts_of(look, now)
    with pytest.raises(FileNotFoundError, match="no/such is no folder: give"):
        Trainings([Path("no/such")])


# --- which runs -------------------------------------------------------------------------------------------------------


def test_runs_are_found_newest_first_and_links_and_generations_are_not_runs(trained: Path, tmp_path: Path):
    names = ("old", "new", "middle")
    for age, name in enumerate(names):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").write_text("{}")
        os.utime(tmp_path / "runs" / name / "run.json", (0, (0, 9, 5)[age]))
    write_run(tmp_path / "runs", make_record(), make_frames(), run_id="a-generation")
    (tmp_path / "runs" / "linked").symlink_to(trained)
    trainings = Trainings([tmp_path / "runs"])
    before = trainings.runs()
    assert list(before) == ["new", "middle", "old"]
    (tmp_path / "runs" / "later").mkdir()
    (tmp_path / "runs" / "later" / "run.json").write_text("{}")
    after = trainings.runs()
    assert list(after) == ["later", "new", "middle", "old"]
    assert after["new"] is before["new"], "what was read of it is kept"
    (tmp_path / "other" / "new").mkdir(parents=True)
    (tmp_path / "other" / "new" / "run.json").write_text("{}")
    both = Trainings([tmp_path / "runs", tmp_path / "other" / "new"]).runs()
    assert {"runs/new", "other/new"} < both.keys()


def test_nothing_outside_a_run_is_ever_opened(copied: Path, trained: Path, tmp_path: Path):
    folder = TrainingRun(copied)
    assert folder.sample("step-000006", "00").record.prompt == f"{PROMPT} 0"
    elsewhere = tmp_path / "elsewhere"
    write_run(elsewhere, make_record("a secret"), make_frames(), run_id="00")
    (copied / "samples" / "step-000009").symlink_to(elsewhere)
    (copied / "samples" / "step-000006" / "07").symlink_to(elsewhere / "00")
    assert folder.look().samples == ("step-000006", "step-000003")
    for step, name in (
        ("step-000009", "00"),
        ("step-000006", "07"),
        ("step-000006", "../../../../elsewhere/00"),
        ("../../elsewhere", "00"),
        (str(elsewhere), "00"),
        ("..", "00"),
    ):
        with pytest.raises(RunError):
            folder.sample(step, name)
        assert step == "step-000006" or folder.sample_ids(step) == ()
    (copied / "log.jsonl").unlink()
    (copied / "log.jsonl").symlink_to(trained / "log.jsonl")
    assert folder.look().written is None
    (copied / "samples").rename(tmp_path / "moved")
    (copied / "samples").symlink_to(tmp_path / "moved")
    assert folder.look().samples == ()


# --- words ------------------------------------------------------------------------------------------------------------


def test_the_facts_say_where_a_run_is_and_whether_it_still_writes(trained: Path):
    look = TrainingRun(trained).look()
    written = look.written
    about = replace(look.about, recipe={**look.about.recipe, "steps": 1006}, base="prophy-tiny")
    lines = [{**line, "seconds_per_step": 3.6} if line["kind"] == "train" else line for line in look.lines]
    running = replace(look, about=about, lines=lines)
    said = facts_of(running, written + 5)
    for expected in ("tiny", "prophy-tiny", "6 of 1,006", "1 h 0 min", "being written", "step 6, less than a minute"):
        assert expected in said, expected
    assert f"{about.trained_parameters:,}" in said
    said = facts_of(running, written + 7200)
    assert "last line 2 h 0 min ago" in said
    assert "Its command, run again, resumes it" in notice_of(running, written + 7200)
    slow = [{**line, "seconds_per_step": 60.0} if line["kind"] == "train" else line for line in look.lines]
    assert "being written" in facts_of(replace(running, lines=slow), written + 200)
    assert notice_of(replace(running, lines=slow), written + 200) == ""
    done = facts_of(look, written + 90_000)
    assert "finished 1 d 1 h ago" in done
    assert "time left" not in done
    assert notice_of(look, time.time()) == ""
    assert [duration(s) for s in (0.2, 59, 61, 3600, 86_400 * 3)] == ["0 s", "59 s", "1 min", "1 h 0 min", "3 d 0 h"]


def test_the_base_model_is_named_without_a_path_of_this_machine(copied: Path):
    about = json.loads((copied / "run.json").read_text())
    for base, expected in (("Wan-AI/Wan2.1", "Wan-AI/Wan2.1"), ("/home/me/secret/model", "model"), ("./a", "a")):
        (copied / "run.json").write_text(json.dumps({**about, "base": base}))
        assert TrainingRun(copied).look().about.shown_base == expected


def test_names_from_a_run_are_shown_as_text(copied: Path):
    about = json.loads((copied / "run.json").read_text())
    (copied / "run.json").write_text(json.dumps({**about, "recipe_name": "<script>alert(1)</script>"}))
    assert "<script>" not in facts_of(TrainingRun(copied).look(), 0.0)


# --- the page ---------------------------------------------------------------------------------------------------------


class Built(NamedTuple):
    tab: TrainingTab

    def update(self, shown: Shown, run=None, step=None, sample=None) -> dict:
        return self.tab._update(run, step, sample, shown)


@pytest.fixture
def built(copied: Path) -> Built:
    with gr.Blocks(), gr.Tabs() as tabs, gr.Tab():
        return Built(TrainingTab(Trainings([copied]), tabs))


def test_a_page_is_sent_what_is_new_and_nothing_else(built: Built, copied: Path):
    tab = built.tab
    first = built.update(Shown())
    shown = first[tab._shown]
    assert (shown.run, shown.step, shown.sample) == ("copied", "step-000006", "00")
    figures = {id: first[plot] for id, (_, plot) in tab._plots.items() if id != "scores"}  # of other models' trainings
    assert all(figure is not None for figure in figures.values())
    view = first[tab._view]
    assert view["prompt"] == f"{PROMPT} 0"
    video = (copied / "samples" / "step-000006" / "00" / "video.mp4").read_bytes()
    assert base64.b64decode(view["video"]) == video
    assert built.update(shown, shown.run, shown.step, shown.sample) == {tab._notice: gr.skip()}

    append(copied, json.dumps({**read_lines(copied)[-2], "step": 7}) + "\n")
    second = built.update(shown, shown.run, shown.step, shown.sample)
    assert list(second[tab._plots["losses"][1]].data[0].x) == [1, 2, 3, 4, 5, 6, 7]
    assert tab._view not in second, "the sample on show is left alone"
    shown = second[tab._shown]

    other = built.update(shown, shown.run, shown.step, "01")
    assert other[tab._view]["prompt"] == f"{PROMPT} 1"
    assert tab._plots["losses"][1] not in other
    shown = built.update(shown, shown.run, "step-000003", "01")[tab._shown]
    assert (shown.step, shown.sample) == ("step-000003", "01")

    sample(None, None, copied / "samples" / "step-000009")
    stayed = built.update(shown, shown.run, shown.step, shown.sample)
    assert stayed[tab._shown].step == "step-000003", "a chosen step stays"
    (copied / "samples" / "step-000011" / ".partial-00").mkdir(parents=True)  # the first sample is being written
    newest = built.update(stayed[tab._shown], shown.run, "step-000009", "01")[tab._shown]
    sample(None, None, copied / "samples" / "step-000012")
    followed = built.update(newest, newest.run, newest.step, newest.sample)
    assert followed[tab._shown].step == "step-000012", "the newest is followed"
    assert followed[tab._view]["routing"] is None, "made without a branch"


def test_names_that_a_visitor_made_up_open_nothing(built: Built):
    for run_name, step, name in (("/etc", "..", "/etc/passwd"), ("copied", "../..", ".."), (["x"], {}, 3)):
        shown = built.update(Shown(), run_name, step, name)[built.tab._shown]
        assert (shown.run, shown.step, shown.sample) == ("copied", "step-000006", "00")


def test_a_damaged_sample_is_said_and_an_empty_folder_waits(built: Built, copied: Path, tmp_path: Path):
    (copied / "samples" / "step-000006" / "00" / "video.mp4").write_bytes(b"no video")
    update = built.update(Shown())
    assert update[built.tab._view] is None
    assert "This sample cannot be opened: run 00: video.mp4 has 8 bytes" in update[built.tab._refusal]
    other = built.update(update[built.tab._shown], "copied", "step-000006", "01")
    assert (other[built.tab._view]["prompt"], other[built.tab._refusal]) == (f"{PROMPT} 1", "")
    (tmp_path / "none").mkdir()
    with gr.Blocks(), gr.Tabs() as tabs, gr.Tab():
        tab = TrainingTab(Trainings([tmp_path / "none"]), tabs)
    first = tab._update(None, None, None, Shown())
    assert "No run in none yet" in first[tab._notice]
    shown = first[tab._shown]
    train(tmp_path / "none" / "begun", 1)
    found = tab._update(None, None, None, shown)
    assert found[tab._shown].run == "begun"
    assert found[tab._notice] == ""


def test_without_the_flag_there_is_no_tab_and_with_it_the_page_needs_no_torch(trained: Path, tmp_path: Path):
    def parts(demo) -> set[str]:
        return {block.elem_id for block in demo.blocks.values() if getattr(block, "elem_id", None)}

    engine = Engine(runs=tmp_path / "runs", gallery=tmp_path / "gallery")
    assert not {part for part in parts(build_demo(engine)) if part.startswith("training")}
    assert "training-losses" in parts(build_demo(engine, trainings=Trainings([trained])))
    code = (
        "import sys; from pathlib import Path; from prophy.ui.engine.engine import Engine\n"
        "from prophy.training.run_folder import Trainings; from prophy.ui.page import build_demo\n"
        "trainings = Trainings([Path(sys.argv[1])]); build_demo(Engine(), trainings=trainings)\n"
        "print(len([*trainings.runs().values()][0].look().lines), {'torch', 'accelerate'} & {*sys.modules} or 'none')"
    )
    command = [sys.executable, "-c", code, str(trained)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["8", "none"]


# --- in a browser -----------------------------------------------------------------------------------------------------

_POINTS = "(count) => document.querySelector('#training-losses .js-plotly-plot')?._fullData?.[0].x.length === count"


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")
def test_the_plot_of_a_training_moves_while_it_trains_in_a_real_browser(browser, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(training_tab, "_SECONDS", 0.4)
    folder = train(tmp_path / "runs" / "first", 3).parent
    demo = build_demo(Engine(runs=tmp_path / "own", gallery=tmp_path / "gallery"), trainings=Trainings([folder]))
    address = launch(demo, port=free_port())
    errors: list[str] = []
    asked: list[str] = []
    try:
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        page.get_by_role("tab", name="Training").click()
        page.wait_for_function(_POINTS, arg=3)
        page.locator("#training-view video").wait_for()
        assert page.locator("#training-view .pp-prompt").inner_text() == f"{PROMPT} 0"
        for hidden in (".pp-copy", ".pp-to-steer", ".pp-save"):
            assert not page.locator(f"#training-view {hidden}").is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert not page.locator("#training-run").is_visible()

        train(folder / "first", 7)  # the browser looks on by itself meanwhile
        page.wait_for_function(_POINTS, arg=7)
        assert "7 of 7" in page.locator("#training-facts").inner_text()
        page.wait_for_function("document.querySelector('#training-step input')?.value === 'step 7'")

        train(folder / "second", 2)  # and finds another run without a restart
        page.locator("#training-run label", has_text="second").click()
        page.wait_for_function(_POINTS, arg=2)
        page.locator("#training-sample label", has_text=f"{PROMPT} 1").click()
        page.locator("#training-view .pp-prompt", has_text=f"{PROMPT} 1").wait_for()

        page.set_viewport_size({"width": 1280, "height": 900})
        with page.expect_request("**/gradio_api/**"):  # the open tab asks by itself
            pass
        page.get_by_role("tab", name="About").click()
        page.on("request", lambda request: asked.append(request.url))
        for _ in range(20):  # until what had begun is over
            asked.clear()
            page.wait_for_timeout(1500)
            if not asked:
                break
        assert asked == [], "the page asks while the tab is closed"
        page.close()
    finally:
        demo.close(verbose=False)
    assert errors == []
