"""Figures 6, 7 and 8: the measures against their definitions, the figures on a small real pipeline."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from transformers import UMT5EncoderModel

from prophy.evaluation import cli
from prophy.evaluation.measures.figures import (
    correlate,
    figure_8,
    mean_correlations,
    random_change,
    read_prompts,
    semantic_logits,
    shuffle,
    transformed_router,
)
from prophy.evaluation.prompts.fixed import FIXED_PROMPTS
from prophy.evaluation.prompts.held_out import held_out_prompts
from prophy.evaluation.report.sections import read_sections
from prophy.generation.generate import GenerationSettings, generate
from prophy.phenomena import IDS
from prophy.routing.steering import Steering
from prophy.tiny.text import build_tokenizer


@pytest.fixture
def pipeline(tiny_pipeline):
    """The small random pipeline, knowing the words of the prompts used here."""
    torch.manual_seed(8)
    words = [p.prompt for p in FIXED_PROMPTS] + [p.prompt for p in held_out_prompts(20, frozenset())]
    tokenizer = build_tokenizer(words)
    config = tiny_pipeline.text_encoder.config
    config.vocab_size = len(tokenizer)
    tiny_pipeline.register_modules(tokenizer=tokenizer, text_encoder=UMT5EncoderModel(config).eval())
    return tiny_pipeline


def small(prompt: str, seed: int = 1) -> GenerationSettings:
    return GenerationSettings(prompt, seed, steps=1, frames=5, height=32, width=32)


# --- figure 6 ---------------------------------------------------------------------------------------------------------


def test_correlations_are_pearsons_of_mean_vectors_without_the_common_mean():
    rng = np.random.default_rng(0)
    shown = rng.random((60, 4)) < 0.4
    values = rng.normal(size=(60, 7)) + shown @ rng.normal(size=(4, 7)) + 50.0
    found = mean_correlations(values, shown)
    centred = values - values.mean(0)
    literal = np.corrcoef([centred[shown[:, p]].mean(0) for p in range(4)])
    assert np.allclose(found, literal)


def test_phenomena_that_share_logits_correlate_and_the_interval_knows_the_prompts():
    rng = np.random.default_rng(1)
    shown = np.zeros((90, len(IDS)), bool)
    shown[np.arange(90), np.arange(90) % 3] = True
    centres = rng.normal(size=(3, 12))
    centres[1] = centres[0] + 0.1 * rng.normal(size=12)  # the first two are alike
    logits = centres[np.arange(90) % 3] + 0.5 * rng.normal(size=(90, 12))
    result = correlate(logits, shown, "a" * 64, resamples=100)
    assert result.phenomena == IDS[:3]
    alike, other = result.logits[0][1], result.logits[0][2]
    assert alike.value > 0.8
    assert alike.low > other.high
    assert alike.low < alike.value < alike.high
    assert result.labels[0][1] == pytest.approx(result.labels[0][2]), "the labels say nothing of this"
    with pytest.raises(ValueError, match="two phenomena"):
        correlate(logits, shown[:, :1], "a" * 64)


def test_semantic_logits_are_those_of_a_generation(pipeline):
    prompt = FIXED_PROMPTS[0].prompt
    trace = generate(pipeline, small(prompt)).trace
    assert np.allclose(
        semantic_logits(pipeline, [FIXED_PROMPTS[1].prompt, prompt])[1], trace.semantic_logits, atol=1e-5
    )


def test_labelled_prompts_are_read_and_bad_ones_refused(tmp_path):
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps([{"prompt": "ice melts", "phenomena": ["melting"]}]))
    assert read_prompts(path)[0].phenomena == ("melting",)
    for bad in ("{", "[]", '[{"prompt": "x"}]', '[{"prompt": "x", "phenomena": ["magic"]}]'):
        path.write_text(bad)
        with pytest.raises(ValueError, match=r"prompts\.json"):
            read_prompts(path)


# --- figure 8 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("experts", [2, 5, 8])
def test_the_random_control_changes_every_tokens_logits_as_much_as_inversion_does(experts: int):
    logits = torch.randn(100, experts, generator=torch.Generator().manual_seed(0))
    change = logits @ random_change(experts, 3).T - logits
    assert torch.allclose(change.norm(dim=1), 2 * logits.norm(dim=1), rtol=1e-4)
    moved = shuffle(experts, 3)
    assert torch.equal(moved.sum(0), torch.ones(experts))
    assert not moved.diagonal().any()
    assert not torch.equal(random_change(experts, 3), random_change(experts, 4))


def test_a_negated_router_is_the_apps_inversion_and_the_router_comes_back(pipeline):
    block = pipeline.branch.refinement
    before = block.router.weight.detach().clone()
    settings = small(FIXED_PROMPTS[0].prompt)
    steering = Steering(refinement=dict.fromkeys(range(5), -1.0))
    steered = generate(pipeline, GenerationSettings(**{**vars(settings), "steering": steering}))
    with transformed_router(block, -torch.eye(5)):
        negated = generate(pipeline, settings)
    assert np.array_equal(steered.trace.topk_ids, negated.trace.topk_ids)
    assert np.array_equal(steered.frames, negated.frames)
    assert torch.equal(block.router.weight, before)
    with pytest.raises(RuntimeError, match="on purpose"), transformed_router(block, -torch.eye(5)):
        raise RuntimeError("on purpose")
    assert torch.equal(block.router.weight, before)


def test_inversion_changes_the_routing_and_every_change_is_measured(pipeline, tmp_path):
    result = figure_8(pipeline, tmp_path, [small(p.prompt, p.seed) for p in FIXED_PROMPTS[:2]])
    assert set(result.pixels) == {"inverted", "random, equal norm", "experts shuffled"}
    assert all(interval.value > 0 and interval.n == 2 for interval in result.routing.values())
    assert set(result.inverted_minus) == {"random, equal norm", "experts shuffled"}


def test_figures_command_and_its_sections_in_the_report(pipeline, tmp_path, capsys):
    model = tmp_path / "model"
    pipeline.save_pretrained(model)
    command = ["figures", "--model", str(model), "--work", str(tmp_path), "--prompts", "12", "--clips", "1"]
    command += ["--steps", "1", "--frames", "5", "--height", "32", "--width", "32"]
    cli.main(command)
    assert "do the semantic logits follow the labels" in capsys.readouterr().out
    picture = cv2.imread(str(tmp_path / "evaluation" / "expert-maps-0.png"))
    assert picture.shape[0] > 5 * 128, "a row for the frames and one for each of five experts"
    sections = read_sections(tmp_path)
    assert [section.path.name for section in sections] == ["correlation.json", "expert-maps.json", "inversion.json"]
    assert sections[1].body.pictures == ("expert-maps-0.png",)
    with pytest.raises(ValueError, match="show a branch"):
        cli.main([*command, "--no-branch"])
