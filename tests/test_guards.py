"""What a rebuilt house must not change: clips of the shipped model, the losses of a training, the README's results.

``tests/guards/`` holds what the code gave before it was rebuilt. It changes only when the shipped weights do; then
``PYTHONPATH=. python tests/test_guards.py`` writes it anew. Killing and resuming: ``tests/test_trainer.py``.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

import prophy
from prophy.assets import assets_dir, gallery_dir
from prophy.cli import main
from prophy.evaluation.report.readme import update_readme
from prophy.generation.generate import GenerationSettings, generate

ROOT = Path(__file__).resolve().parents[1]
GUARDS = ROOT / "tests" / "guards"
CLIPS = ("melting-ice", "ball-and-candle", "collision")
STEPS = 20


def gallery_frames() -> dict[str, np.ndarray]:
    """The frames of three shipped prompts, made anew at their seeds."""
    pipeline = prophy.load(profile="all")
    frames = {}
    for name in CLIPS:
        about = json.loads((gallery_dir() / name / "run.json").read_text())
        settings = GenerationSettings(prompt=about["prompt"], seed=about["seed"])
        frames[name] = generate(pipeline, settings).frames
    return frames


def training_losses(folder: Path) -> list[dict[str, float]]:
    """The losses of the first steps of recipe ``tiny``."""
    flags = ["--worlds", "24", "--set", f"steps={STEPS}", "--log-every", "1", "--workers", "0"]
    data, out = str(folder / "cache"), str(folder / "run")
    assert main(["train", "--recipe", "tiny", "--data", data, "--out", out, *flags]) == 0
    rows = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    return [row["losses"] for row in rows if row["kind"] == "train"]


@pytest.mark.shipped
def test_the_shipped_model_still_makes_the_same_clips():
    before = np.load(GUARDS / "frames.npz")
    for name, frames in gallery_frames().items():
        difference = np.abs(frames.astype(int) - before[name])
        assert difference.max() <= 3, f"{name}: other processors round otherwise, by less than this"
        assert difference.mean() < 0.05, name


@pytest.mark.shipped
@pytest.mark.timeout(600)
def test_twenty_steps_of_training_still_have_the_same_losses(tmp_path: Path):
    before = json.loads((GUARDS / "training.json").read_text())
    losses = training_losses(tmp_path)
    assert len(losses) == len(before) == STEPS
    for step, (now, then) in enumerate(zip(losses, before, strict=True), 1):
        assert now == pytest.approx(then, rel=0.02, abs=2e-4), f"step {step}"


def test_the_readmes_results_are_printed_from_the_evidence_byte_for_byte(tmp_path: Path):
    work = tmp_path / "work"
    shutil.copytree(assets_dir() / "evidence", work)
    readme = tmp_path / "README.md"
    shutil.copy(ROOT / "README.md", readme)
    update_readme(work, readme)
    assert readme.read_bytes() == (ROOT / "README.md").read_bytes()


if __name__ == "__main__":
    GUARDS.mkdir(exist_ok=True)
    np.savez_compressed(GUARDS / "frames.npz", **gallery_frames())
    with tempfile.TemporaryDirectory() as folder:
        rounded = [{k: round(v, 5) for k, v in row.items()} for row in training_losses(Path(folder))]
    (GUARDS / "training.json").write_text(json.dumps(rounded, indent=0) + "\n")
