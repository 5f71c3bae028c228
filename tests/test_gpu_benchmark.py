"""benchmarks/gpu.py: every part at toy size on the CPU, limits and resumption, results that load as they were saved."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import gpu  # noqa: E402
from gpu_parts import results as rows_of  # noqa: E402
from gpu_parts.machine import Unfit, check_card  # noqa: E402
from gpu_parts.parts import PARTS, Part, Processes, room_for  # noqa: E402
from gpu_parts.report import as_markdown  # noqa: E402
from gpu_parts.results import Machine, Outcome, Results, State  # noqa: E402

from prophy.tiny.vae import VaeRecipe, larger  # noqa: E402

CPU = torch.device("cpu")
BY_NAME = {part.name: part for part in PARTS}
MACHINE = Machine("CPU", 0, "", "2.13.0", "0.42.1", True)

#: the kinds of rows of each module's function
FOUND = {
    "measure_profiles": {rows_of.ProfileRow, rows_of.CardRow},
    "measure_steps": {rows_of.StepRow},
    "measure_experts": {rows_of.ExpertsRow, rows_of.KernelRow},
    "measure_training": {rows_of.TrainingRow},
    "measure_embedded": {rows_of.ClipRow, rows_of.FramesRow},
    "measure_variants": {rows_of.VariantRow, rows_of.Remark},
}


#: at toy size 14B is 1.3B; two parts have tests of their own below
HERE = [
    name
    for name, part in BY_NAME.items()
    if part.function in FOUND and "14b" not in name and name not in ("a memory, cogvideox-5b", "f embedded model")
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", HERE)
def test_a_part_measures_at_toy_size(name: str):
    part = BY_NAME[name]
    rows = list(part.measure()(CPU, True))
    assert {type(row) for row in rows} <= FOUND[part.function]
    assert rows
    page = as_markdown(Results(MACHINE, "2026-01-01", (Outcome(name, State.DONE, rows=tuple(rows)),)))
    assert "nan" not in page
    assert f"| {name} | done |" in page


def test_every_profile_and_stage_is_measured():
    rows = list(BY_NAME["a memory, cogvideox-5b"].measure()(CPU, True))
    profiles = [row for row in rows if isinstance(row, rows_of.ProfileRow)]
    assert len({row.profile for row in profiles}) == 8
    assert {row.stage for row in profiles if row.profile == "group"} == {
        "text encoding",
        "branch",
        "denoising",
        "decoding",
    }
    assert all(row.seconds > 0 and row.predicted > 0 for row in profiles)


def test_the_embedded_models_frames_are_compared_with_the_cpus_own():
    frames = [row for row in BY_NAME["f embedded model"].measure()(CPU, True) if isinstance(row, rows_of.FramesRow)]
    same, rounded = frames
    assert (same.dtype, same.largest, same.within) == ("float32", 0, True)
    assert rounded.dtype == "bfloat16"
    assert rounded.largest > 0


def test_the_parts_cover_the_list_and_the_first_fit_into_six_minutes():
    assert {part.name[0] for part in PARTS} == set("abcdef")
    models = [part.arguments[0] for part in PARTS if part.arguments]
    assert models[0] == "wan2.1-1.3b"
    assert set(models) == {"wan2.1-1.3b", "wan2.1-14b", "cogvideox-5b", "wan2.2-ti2v-5b"}
    assert sum(part.seconds for part in PARTS[:6]) < 350


def test_without_a_card_one_line_says_so(tmp_path: Path):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(Unfit, match="without CUDA|cannot be used") as caught:
        check_card(torch.device("cuda"))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="--small") as refused:
        gpu.measure(tmp_path / "gpu.json", device="cuda", small=False, minutes=1)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_every_part_and_the_trainings_are_imported_without_pyav():
    """It is the largest of the packages that a machine without network lacks."""
    modules = ["prophy.training.cli", "prophy.training.bases", "gpu", *(f"gpu_parts.{part.module}" for part in PARTS)]
    code = f"import sys; sys.modules['av'] = None; sys.path[:0] = [{str(ROOT / 'benchmarks')!r}, {str(ROOT)!r}]\n"
    code += "\n".join(f"import {module}" for module in modules)
    code += "\nfrom gpu_parts.embedded import measure_embedded\nprint('imported')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "imported", done.stderr[-500:]


def test_an_autoencoders_batches_grow_together():
    recipe = VaeRecipe()
    grown = larger(recipe, 8)
    assert [phase.batch for phase in grown.phases] == [8 * phase.batch for phase in recipe.phases]
    assert larger(recipe, 1) == recipe


# --- processes, limits and resuming -----------------------------------------------------------------------------------


def two_rows_then(ending: str, device: torch.device, small: bool):
    """A part of this test's own."""
    import os
    import time

    yield rows_of.ClipRow("test", "first", 1.0)
    yield rows_of.ClipRow("test", "second", 2.0)
    if ending == "hang":
        time.sleep(60)
    if ending == "die":
        os._exit(7)
    if ending == "fault":
        raise RuntimeError("two lines\nof fault")
    if ending == "unfit":
        raise Unfit("not on this machine")
    if ending == "memory":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


class Ends(Part):
    """Ends otherwise than by its last row."""

    def measure(self):
        return partial(two_rows_then, *self.arguments)


@pytest.mark.parametrize(
    ("ending", "state", "reason"),
    [
        ("hang", State.CUT, "longer than"),
        ("die", State.FAILED, "exit code 7"),
        ("fault", State.FAILED, "RuntimeError: two lines"),
        ("unfit", State.SKIPPED, "not on this machine"),
        ("memory", State.SKIPPED, "too little memory"),
        ("well", State.DONE, ""),
    ],
)
def test_a_part_that_ends_badly_keeps_its_rows_and_says_why(ending: str, state: State, reason: str):
    part = Ends("f test", "embedded", "", 30, (ending,))
    outcome = Processes().run(part, "cpu", True, 20 if ending != "hang" else 12)
    assert outcome.state is state
    assert reason in outcome.reason
    assert "\n" not in outcome.reason
    assert [row.clip for row in outcome.rows] == ["first", "second"]


def test_a_second_run_goes_on_where_the_first_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "gpu.json"
    monkeypatch.setattr(gpu, "PARTS", [Ends("f one", "", "", 30, ("well",)), Ends("f two", "", "", 1000, ("well",))])
    first = gpu.measure(out, device="cpu", small=True, minutes=3)
    assert [one.state for one in first.outcomes] == [State.DONE, State.WAITING]
    assert "no time was left" in out.with_suffix(".md").read_text()
    second = gpu.measure(out, device="cpu", small=True, minutes=10)
    assert [one.state for one in second.outcomes] == [State.DONE, State.DONE]
    assert second.of("f one") == first.of("f one"), "what was done is measured again"
    assert Results.load(out) == second
    record = json.loads(out.read_text())
    out.write_text(json.dumps({**record, "machine": {**record["machine"], "name": "another card"}}))
    with pytest.raises(ValueError, match="measured elsewhere .another card.: give another --out"):
        gpu.measure(out, device="cpu", small=True, minutes=1)


def test_a_part_begins_only_with_time_enough():
    part = Part("a", "memory", "", 100)
    assert room_for(part, 500) == 100
    assert room_for(part, 60) == 60
    assert room_for(part, 30) == 0


def test_results_load_as_they_were_saved_and_others_are_refused(tmp_path: Path):
    profile = rows_of.ProfileRow("wan2.1-1.3b", "832x480x81", "all", "decoding", 95, 100, 120, 3.5, 0.0)
    step = rows_of.StepRow("wan2.1-1.3b", 32760, 5, 1.0, 1.22, 1.225, 100, 120)
    outcomes = (Outcome("a memory", State.CUT, "it took longer than 9 s", 9.5, (profile, rows_of.Remark("no"), step)),)
    results = Results(replace(MACHINE, name="Card", memory=2**35, small=False), "2026-01-01", outcomes)
    results.save(tmp_path / "gpu.json")
    assert Results.load(tmp_path / "gpu.json") == results
    page = as_markdown(results)
    assert "met in 1 of 1 rows" in page
    assert "| 0.95 |" in page
    assert "**1.017**" in page
    assert "Toy sizes" not in page
    (tmp_path / "gpu.json").write_text('{"schema": 99}')
    with pytest.raises(ValueError, match="move it away"):
        Results.load(tmp_path / "gpu.json")
