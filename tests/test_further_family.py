"""A family that ProPhy has never seen: registered from outside, it opens, plans, generates, trains and publishes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import make_text_encoder, make_vae
from toy_family import TOY, ProPhyToyPipeline, toy_pipeline

import prophy
from prophy import backbones
from prophy.branch import family as branch_families
from prophy.catalogue import families
from prophy.catalogue.limits import ClipSize
from prophy.cli import main
from prophy.generation.generate import GenerationSettings, generate
from prophy.generation.pipelines import fastest_profile
from prophy.runs.store import list_runs, read_run
from prophy.tiny.text import build_tokenizer
from prophy.training.log import read_lines

SIZE = {"frames": 9, "height": 48, "width": 32}
RECIPE = ["--set", "steps=4", "--set", "batch=2", "--set", "precision=float32"]


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """Known to these tests only: what a module of a further family does as it is imported."""
    monkeypatch.setattr(families, "_FACTS", dict(families._FACTS))
    monkeypatch.setattr(branch_families, "FAMILIES", dict(branch_families.FAMILIES))
    monkeypatch.setattr(backbones.backbone, "FAMILIES", branch_families.FAMILIES)
    backbones.register(TOY)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder as its makers publish it, without a branch."""
    tokenizer = build_tokenizer(["a red ball bounces on the floor", "a blue candle burns on the left"])
    toy_pipeline(tokenizer, make_text_encoder(len(tokenizer)), make_vae(8)).save_pretrained(tmp_path / "toy")
    return tmp_path / "toy"


def command(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def test_its_folder_opens_by_itself_and_beside_a_branch_of_its_own(base: Path, tmp_path: Path):
    pipeline = prophy.load(base)
    assert type(pipeline) is ProPhyToyPipeline
    assert pipeline.attachment is None
    branch = prophy.ProPhyBranch.from_transformer(pipeline.transformer, sites=[0, 2], reference_grid=[3, 4, 5])
    torch.nn.init.normal_(branch.projections[-1].weight, std=0.1)
    settings = GenerationSettings("a red ball bounces", steps=3, **SIZE)
    alone, previews = generate(pipeline, settings), []
    both = generate(prophy.load(base, branch=branch.eval()), settings, on_step=previews.append)
    assert alone.trace is None
    assert both.trace.grid.shape == (3, 6, 4)
    assert len(both.trace.timesteps) == 3
    assert (both.frames != alone.frames).any()
    assert [preview.frames.shape for preview in previews] == [(3, 6, 4, 3)] * 3
    prophy.load(base, branch=branch).save_pretrained(tmp_path / "saved")
    assert (generate(prophy.load(tmp_path / "saved"), settings).frames == both.frames).mean() > 0.99


def test_its_memory_is_planned_from_its_small_files_and_when_it_is_open(base: Path, capsys):
    command("plan", "--model", base, "--size", "32x48x9", "--vram", "8", "--json")
    planned = json.loads(capsys.readouterr().out)
    assert planned["chosen"] == "all"
    assert {part["name"] for part in planned["parts"]} == {"text encoder", "transformer", "branch", "autoencoder"}
    assert str(fastest_profile(prophy.load(base), 8 * 2**30, ClipSize(32, 48, 9))) == "all"
    assert main(["plan", "--model", str(base), "--size", "30x48x9"]) == 2
    assert "steps of 8: use 32×48" in capsys.readouterr().err


def test_a_branch_is_trained_beside_it_published_and_generates_with_a_trace(base: Path, tmp_path: Path):
    data, run, out = tmp_path / "cache", tmp_path / "run", tmp_path / "published"
    flags = ["--data", data, "--worlds", 6, "--out", run, *RECIPE, "--set", "branch.sites=0,2"]
    command("train", "--recipe", "tiny", "--model", base, *flags)
    losses = [line["losses"] for line in read_lines(run) if line["kind"] == "train"]
    assert losses
    assert losses[-1]["fine_align"] > 0, "the worlds' masks were not learnt from"
    command("publish", run, "--out", out)
    sizes = [part for name, value in SIZE.items() for part in (f"--{name}", value)]
    command(
        "generate", "a red ball", "--model", base, "--branch", out, "--steps", 2, "--out", tmp_path / "runs", *sizes
    )
    (made,) = list_runs(tmp_path / "runs")
    assert read_run(made.path).trace().grid.shape == (3, 6, 4)


def test_lora_is_refused_before_training_where_its_pipeline_reads_none(base: Path, tmp_path: Path, capsys):
    arguments = ["--model", base, "--data", tmp_path / "cache", "--worlds", 4, "--out", tmp_path / "run", *RECIPE]
    assert main(["train", "--recipe", "tiny_lora", *map(str, arguments)]) == 2
    assert "ToyTransformer takes no LoRA: use a recipe with backbone frozen or trained" in capsys.readouterr().err
