"""The examples run as they are printed, and do what their first lines say."""

import subprocess
import sys
from pathlib import Path

import pytest

import prophy

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"

pytestmark = pytest.mark.shipped


def run(name: str, *flags: str) -> str:
    done = subprocess.run([sys.executable, str(EXAMPLES / name), *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_record_and_steer_mutes_the_strongest_expert_and_keeps_both_runs(tmp_path: Path):
    printed = run("record_and_steer.py", "--steps", "4", "--out", str(tmp_path))
    steered, plain = sorted(prophy.list_runs(tmp_path), key=lambda saved: saved.record.steering.is_neutral)
    (muted,) = steered.record.steering.refinement
    assert f"expert {muted} is the strongest" in printed
    assert not (steered.trace().topk_ids[:, :, 0] == muted).any()
    assert (plain.trace().topk_ids[-1, :, 0] == muted).any()
    assert str(plain.path) in printed
    assert str(steered.path) in printed


@pytest.mark.timeout(400)
def test_train_a_branch_publishes_a_branch_that_generates(tmp_path: Path):
    printed = run("train_a_branch.py", "--out", str(tmp_path), "--clips", "16", "--steps", "2")
    assert (tmp_path / "branch" / "README.md").is_file()
    (made,) = prophy.list_runs(tmp_path / "runs")
    assert made.trace().num_kept == 10
    assert str(made.path) in printed
    assert "diffusion: " in printed
