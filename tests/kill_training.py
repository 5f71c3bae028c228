"""Run with: PYTHONPATH=. python tests/kill_training.py --kills 50

A training is killed (SIGKILL) at random moments, also while it saves, and started again each time, until it ends. It
must end bit-identical with one that was never killed, and from the first save on a whole checkpoint must always be
there.

Each start is a real process, forked from one that has only imported the libraries. The backbone is a small CogVideoX
with dropout, so that the random state matters, under Muon, whose state is the larger.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from small_cogvideox import make_cogvideox, make_cogvideox_pipeline
from small_training import RECIPE, RandomClips

from prophy.training.checkpoints import load_checkpoint
from prophy.training.objectives import objective_for
from prophy.training.recipe import OptimiserSettings, Recipe
from prophy.training.trainer import Running, train

KILLED = replace(RECIPE, accumulation=2, optimiser=OptimiserSettings("muon", 1e-3, 0.01, warm_up=3, decay="cosine"))
STEPS_FOR_A_KILL = 4


def start(recipe: Recipe, out: Path) -> int:
    """Train in a process of its own; returns its id."""
    child = os.fork()
    if child:
        return child
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    code = 1
    try:
        transformer = make_cogvideox(dropout=0.1)
        objective = objective_for(make_cogvideox_pipeline(transformer).scheduler)
        clips = RandomClips(size=(3, 8, 12), patch=2, words=7)
        train(recipe, transformer, objective, clips, out, running=Running(log_every=1, checkpoint_every=1))
        code = 0
    finally:
        os._exit(code)


def ended(child: int) -> bool:
    """Wait for a process; whether it ended by itself, and well."""
    return os.waitpid(child, 0)[1] == 0


def logged(out: Path) -> int:
    """Steps in the log; a save may be under way, so the checkpoint is not looked at."""
    path = out / "log.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def step_of(out: Path) -> int:
    state = load_checkpoint(out / "checkpoint")
    return 0 if state is None else state["step"]


def content(out: Path) -> dict[str, bytes | list]:
    """Everything that must be the same at the end."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return {
        "tensors": (out / "checkpoint" / "tensors.safetensors").read_bytes(),
        "state": (out / "checkpoint" / "state.json").read_bytes(),
        "losses": [(line["step"], line["losses"], line["gradient_norms"]) for line in lines],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    recipe = replace(KILLED, steps=STEPS_FOR_A_KILL * arguments.kills)
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        began = time.monotonic()
        assert ended(start(recipe, whole)), "the training fails by itself"
        seconds = time.monotonic() - began
        kills, steps, saving = 0, [0], 0
        while kills < arguments.kills and steps[-1] < recipe.steps:
            child = start(recipe, killed)
            # so that the kills are spread over the whole training, and some follow one another without a step
            goal = steps[-1] + int(rng.expovariate(2 / STEPS_FOR_A_KILL))
            while logged(killed) < min(goal, recipe.steps - 1):
                time.sleep(0.01)
            time.sleep(rng.random() * seconds / recipe.steps)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            kills += 1
            saving += (killed / "checkpoint.new").exists()
            step = step_of(killed)
            assert step >= steps[-1], f"step {steps[-1]} was saved, and after kill {kills} there is only {step}"
            steps.append(step)
        assert ended(start(recipe, killed)), "the training cannot go on"
        expected, found = content(whole), content(killed)
        for name, value in expected.items():
            assert found[name] == value, f"{name} differ after {kills} kills"
    print(f"{kills} kills, {saving} of them while saving, at steps {steps[1:]}: bit-identical")


if __name__ == "__main__":
    sys.exit(main())
