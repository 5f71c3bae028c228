"""The ablation as one command: small real models, every row; killed before each of its stages; the table against JSONs."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import make_text_encoder, make_transformer, make_vae
from diffusers import UniPCMultistepScheduler, WanPipeline
from small_training import SHAPE

from prophy.evaluation import ablation_runs, cli, prompted
from prophy.evaluation.ablation_runs import AblationSettings, plan_runs, run_ablation
from prophy.evaluation.lawfulness import BACKBONE, asked_clips
from prophy.evaluation.recognition import RecogniserRecipe, train_recogniser
from prophy.evaluation.report import write_report
from prophy.evaluation.sections import read_sections
from prophy.training.log import read_lines
from prophy.training.recipes import RECIPES, Recipe, recipe_named
from prophy.training.tiny_text import build_tokenizer
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
    torch.manual_seed(7)
    captions = [sample_scenario(seed)[1] for seed in range(40)] + [one.prompt for one in asked_clips("test", 2)]
    tokenizer = build_tokenizer(captions)
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=2.0)
    folder = tmp_path_factory.mktemp("base")
    parts = tokenizer, make_text_encoder(len(tokenizer)), make_vae(4), scheduler, make_transformer()
    WanPipeline(*parts).save_pretrained(folder)
    return str(folder)


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
    laws, level = result_of(work, "tiny", "laws") if False else result_of(work, "tiny-0", "laws"), None
    row = table["rows"]["tiny"]
    assert row["laws obeyed"] == laws["scores"]["test"]["tiny"]["obeyed"]
    assert row["law error"] == laws["scores"]["test"]["tiny"]["error"]
    level = next(x for x in result_of(work, "tiny-0", "localisation")["levels"] if x["noise"] == 0.5)
    assert row["token AP, map, noise 0.5"] == level["scores"]["phenomenon map P'"]["ap"]
    assert row["token AP, raw router, noise 0.5"] == level["scores"]["raw router, matched"]["ap"]
    flow = next(x for x in result_of(work, "tiny_lora-0", "flow")["levels"] if x["noise"] == 0.5)["everywhere"]
    assert table["rows"]["tiny_lora"]["flow loss, noise 0.5"] == flow["tiny_lora"]["loss"]
    assert table["rows"]["tiny_lora"]["flow loss minus backbone"] == flow["tiny_lora"]["difference"]
    assert table["rows"][BACKBONE]["flow loss, noise 0.5"] == flow[BACKBONE]["loss"]
