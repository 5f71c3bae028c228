"""Clips kept as they are made: a killed process goes on, damage is made again, and other settings are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from prophy.generation.generate import generate
from prophy.generation.resume import RunFolder, resumable
from prophy.generation.settings import GenerationError, GenerationSettings
from prophy.routing.schedule import Schedule
from prophy.runs.store import list_runs, read_run

SETTINGS = GenerationSettings("a red ball", 3, steps=1, frames=5, height=32, width=48)
WANTED = {f"clip-{seed}": replace(SETTINGS, seed=seed) for seed in range(4)}


class Killed(BaseException):
    """Nothing in the program catches it."""


def seeds_made(pipeline, root: Path, wanted=WANTED, batch: int = 2, deaths: int = 0) -> list[list[int]]:
    """The seeds of each batch that was made; dies instead of making one more than ``deaths``, if that is not 0."""
    made = []

    def make(pipeline, settings):
        if deaths and len(made) == deaths:
            raise Killed
        made.append([one.seed for one in settings])
        return generate(pipeline, settings)

    runs = resumable(pipeline, wanted, RunFolder(root, pipeline), batch=batch, make=make)
    assert list(runs) == list(wanted)
    assert [run.id for run in runs.values()] == list(wanted)
    return made


def test_a_killed_process_goes_on_and_nothing_is_made_twice(tiny_pipeline, tmp_path: Path):
    with pytest.raises(Killed):
        seeds_made(tiny_pipeline, tmp_path, deaths=1)
    assert [run.record.seed for run in list_runs(tmp_path)] in ([0, 1], [1, 0])
    assert seeds_made(tiny_pipeline, tmp_path) == [[2, 3]]
    assert seeds_made(tiny_pipeline, tmp_path) == []
    run = read_run(tmp_path / "clip-2")
    assert (run.record.prompt, run.record.seed) == ("a red ball", 2)
    assert run.routing_path is not None
    assert run.sheet_path.is_file()


def test_a_damaged_clip_is_made_again(tiny_pipeline, tmp_path: Path):
    seeds_made(tiny_pipeline, tmp_path)
    video = tmp_path / "clip-1" / "video.mp4"
    video.write_bytes(video.read_bytes()[:50])
    assert seeds_made(tiny_pipeline, tmp_path) == [[1]]
    assert read_run(tmp_path / "clip-1")


def test_clips_of_other_settings_or_of_another_model_are_refused(tiny_pipeline, tmp_path: Path):
    wanted = {"clip-0": SETTINGS}
    seeds_made(tiny_pipeline, tmp_path, wanted)
    with pytest.raises(GenerationError, match="holds the run clip-0, made with other settings or by another model"):
        seeds_made(tiny_pipeline, tmp_path, {"clip-0": replace(SETTINGS, steps=2)})
    with torch.no_grad():
        tiny_pipeline.branch.projections[0].bias.add_(1)
        with pytest.raises(GenerationError, match="delete it or give another folder"):
            seeds_made(tiny_pipeline, tmp_path, wanted)
        tiny_pipeline.branch.projections[0].bias.sub_(1)
    tiny_pipeline.attachment.enabled = False
    with pytest.raises(GenerationError, match="another model"):
        seeds_made(tiny_pipeline, tmp_path, wanted)


def test_a_schedule_under_which_the_branch_never_ran_is_no_other_model(tiny_pipeline, tmp_path: Path):
    wanted = {"clip-0": replace(SETTINGS, schedule=Schedule(interval=(0, 1e-6)))}
    seeds_made(tiny_pipeline, tmp_path, wanted)
    assert read_run(tmp_path / "clip-0").routing_path is None
    assert seeds_made(tiny_pipeline, tmp_path, wanted) == []


def test_a_clip_that_cannot_be_made_is_named_before_any_is(tiny_pipeline, tmp_path: Path):
    with pytest.raises(GenerationError, match="'a blue ball': 48×36 pixels do not divide"):
        seeds_made(tiny_pipeline, tmp_path, {**WANTED, "odd": replace(SETTINGS, prompt="a blue ball", height=36)})
    assert list_runs(tmp_path) == []
