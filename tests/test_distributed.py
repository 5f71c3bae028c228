"""Several processes, really: two of gloo give the losses of one, copied (DDP) or spread (FSDP2)."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_training import LONGER, MODES, MOVED, ZERO, RandomClips, losses_of, run

from prophy.training.checkpoints import load_checkpoint
from prophy.training.devices import join_processes
from prophy.training.fit import fit
from prophy.training.log import read_lines
from prophy.training.trainer import Running

pytestmark = pytest.mark.timeout(600)  # three starts of torch in all; half a minute on a quiet machine
ROOT = Path(__file__).resolve().parents[1]


def torchrun(
    *arguments: str, processes: int = 2, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess:
    """Start a script in several processes on this machine's CPU."""
    environment = {
        **os.environ,
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]),
        **(environment or {}),
    }
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return subprocess.run([*launcher, *arguments], capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    run(folder / "one_then_two", replace(LONGER, steps=10))
    done = torchrun(str(ROOT / "tests" / "small_training.py"), str(folder), *MODES, *MOVED)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("mode", MODES)
def test_two_processes_give_the_losses_of_one(two_processes: Path, tmp_path: Path, mode: str):
    assert json.loads((two_processes / f"{mode}.json").read_text()) == {"world_size": 2, "cpu": "true"}
    assert json.loads((two_processes / mode / "run.json").read_text())["processes"] == 2
    recipe, running = MODES[mode]
    run(tmp_path, recipe, replace(running, sharded=False), held_out=RandomClips(4, seed=1))
    one, two = losses_of(tmp_path), losses_of(two_processes / mode)
    assert len(one) == len(two) == 20
    largest = {name: max(abs(a[name] - b[name]) for a, b in zip(one, two, strict=True)) for name in one[0]}
    print(f"{mode}: largest differences {largest}")
    assert max(largest.values()) < 1e-5
    assert one[0] != one[-1]
    one, two = ([x for x in read_lines(f) if x["kind"] == "validation"] for f in (tmp_path, two_processes / mode))
    assert [line["step"] for line in one] == [10, 20]
    for a, b in zip(one, two, strict=True):
        assert a["diffusion"] == pytest.approx(b["diffusion"], abs=1e-5)


def test_a_run_goes_on_with_another_number_of_processes_and_says_what_changes(two_processes, tmp_path, caplog):
    run(tmp_path, LONGER)
    copied = two_processes / "two_then_one"
    assert len(load_checkpoint(copied / "checkpoint")["random"]) == 2
    run(copied, LONGER)
    assert "saved by 2 processes, resumed by 1: clips, captions and noise stay the same" in caplog.text
    expected = losses_of(tmp_path)
    for name in MOVED:
        found = losses_of(two_processes / name)
        assert len(found) == 20
        largest = max(abs(a[key] - b[key]) for a, b in zip(expected, found, strict=True) for key in a)
        print(f"{name}: largest difference {largest:.3g}")
        assert largest < 1e-5


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")
def test_deepspeed_on_two_processes_gives_the_losses_of_one_and_any_engine_goes_on(tmp_path: Path):
    """Twelve steps, a checkpoint, eight more from it; then the same checkpoint goes on without DeepSpeed."""
    done = torchrun(str(ROOT / "tests" / "small_training.py"), str(tmp_path), *ZERO)
    assert done.returncode == 0, done.stderr[-3000:]
    recipe = replace(MODES["fsdp"][0], optimiser=LONGER.optimiser)
    run(tmp_path / "alone", replace(recipe, steps=23))
    expected = losses_of(tmp_path / "alone")
    for mode in ZERO:
        run(tmp_path / mode, replace(recipe, steps=23))
        found = losses_of(tmp_path / mode)
        assert len(found) == 23
        assert found[0] != found[-1]
        largest = max(abs(a[key] - b[key]) for a, b in zip(expected, found, strict=True) for key in a)
        print(f"{mode}: largest difference {largest:.3g}")
        assert largest < 1e-5


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (None, "does not exist: give a DeepSpeed configuration"),
        ("{", "is no JSON"),
        ('{"zero_optimization": {"stage": 3}}', "zero_optimization.stage=3: use 1 or 2; --fsdp shards weights too"),
        ('{"zero_optimization": {"stage": 2}, "bf16": {"enabled": true}}', "sets bf16, which the recipe decides"),
    ],
)
def test_a_deepspeed_configuration_that_cannot_be_is_refused(tmp_path: Path, config: str | None, said: str):
    path = tmp_path / "zero.json"
    if config is not None:
        path.write_text(config)
    with pytest.raises(ValueError, match=re.escape(said)):
        run(tmp_path / "run", running=Running(deepspeed=path))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("flags_of_device", "use_cpu"), [(("--device", "cpu"), "false"), ((), "true")])
def test_the_documented_command_trains_one_model_on_two_processes(tmp_path: Path, flags_of_device, use_cpu: str):
    """docs/training.md: torchrun --nproc_per_node 2 -m prophy train …"""
    settings = ["steps=3", "batch=2", "precision=float32", "optimiser.kind=adamw", "branch.sites=0,7"]
    flags = [part for setting in settings for part in ("--set", setting)]
    command = ["-m", "prophy", "train", "--recipe", "tiny", "--data", str(tmp_path / "cache"), "--worlds", "4"]
    more = ["--out", str(tmp_path / "run"), *flags_of_device, "--log-every", "1", "--workers", "0", *flags]
    done = torchrun(*command, *more, environment={"ACCELERATE_USE_CPU": use_cpu})
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["processes"] == 2
    assert [line["step"] for line in read_lines(tmp_path / "run")] == [1, 2, 3], "each trained by itself"


def test_several_processes_that_do_not_find_each_other_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Each would train everything, and they would collide over the checkpoint; a small training runs on one alone."""
    assert join_processes("cpu").num_processes == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    for address in (None, "127.0.0.1"):  # without torchrun, and after something joined none
        if address is not None:
            monkeypatch.setenv("MASTER_ADDR", address)
        with pytest.raises(ValueError, match="2 processes were started, but did not find each other: .* torchrun"):
            join_processes("cpu")
    module = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match="one process trains this: start it without torchrun"):
        fit(module, None, None, steps=1, name="x", recipe=LONGER, folder=tmp_path)


def test_a_dead_process_ends_all_and_loses_nothing(tmp_path: Path):
    done = torchrun(str(ROOT / "tests" / "small_training.py"), str(tmp_path), "dead")
    assert done.returncode != 0
    assert "Signal 9 (SIGKILL)" in done.stderr, "nothing says what happened"
    state = load_checkpoint(tmp_path / "dead" / "checkpoint")
    assert state["step"] == 6
    run(tmp_path / "dead", running=Running(log_every=1))
    run(tmp_path / "alone")
    largest = max(
        abs(a[key] - b[key])
        for a, b in zip(losses_of(tmp_path / "dead"), losses_of(tmp_path / "alone"), strict=True)
        for key in a
    )
    assert largest < 1e-5
