"""Several processes, really: two of gloo give the losses of one, copied (DDP) or spread (FSDP2)."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from small_training import MODES, RandomClips, losses_of, run

ROOT = Path(__file__).resolve().parents[1]


def torchrun(*arguments: str, processes: int = 2) -> subprocess.CompletedProcess:
    """Start a script in several processes on this machine's CPU."""
    environment = {
        **os.environ,
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
    }
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return subprocess.run([*launcher, *arguments], capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    done = torchrun(str(ROOT / "tests" / "small_training.py"), str(folder), *MODES)
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
    validations = [
        [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines() if '"validation"' in line]
        for folder in (tmp_path, two_processes / mode)
    ]
    assert [line["step"] for line in validations[0]] == [10, 20]
    for a, b in zip(*validations, strict=True):
        assert a["diffusion"] == pytest.approx(b["diffusion"], abs=1e-5)
