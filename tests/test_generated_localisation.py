"""Localisation on generated clips: the segmenter, the recorded cross-attention, and the command at debug size."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import UMT5EncoderModel

from prophy.data.jobs import WORLDS
from prophy.evaluation import cli
from prophy.evaluation.judges.segmenter import (
    Segmenter,
    fit,
    grid_of,
    load_segmenter,
    measure,
    render_covers,
    segment,
    train_segmenter,
)
from prophy.evaluation.measures.cross_attention import record_cross_attention, word_weights, words_of
from prophy.evaluation.measures.generated_localisation import evaluate_generated_localisation, matched_crosswise
from prophy.evaluation.measures.localisation import Truth
from prophy.evaluation.prompts.held_out import held_out_prompts
from prophy.evaluation.report.sections import read_sections
from prophy.evaluation.results.judges import SegmenterRecipe
from prophy.evaluation.results.localisation import CROSS, MAP
from prophy.grid import TokenGrid
from prophy.phenomena import IDS
from prophy.tiny.text import build_tokenizer
from prophy.worlds import Stage, WorldSet, sample_clip

GRID = WORLDS.grid
SMALL = SegmenterRecipe(phenomena=("melting",), clips=8, test_clips=6, steps=60, batch=8, width=16)


# --- the segmenter ----------------------------------------------------------------------------------------------------


def test_a_perfect_segmentation_has_no_error_and_an_empty_one_misses_everything():
    _, covers = render_covers(range(4), "test", SegmenterRecipe(phenomena=("melting", "collision")))
    covers = covers.astype(np.float32)
    perfect = measure(covers, covers, SegmenterRecipe(phenomena=("melting", "collision")))
    assert perfect.ap.value == 1
    assert (perfect.missed, perfect.alarms) == (0, 0)
    empty = measure(np.zeros_like(covers), covers, SegmenterRecipe(phenomena=("melting", "collision")))
    assert empty.missed == 1
    everywhere = measure(np.ones_like(covers), covers, SegmenterRecipe(phenomena=("melting", "collision")))
    assert everywhere.alarms == 1


def test_tokens_come_out_in_the_order_of_the_grid():
    model = Segmenter(8, GRID)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.arange(GRID.frames * len(IDS)).float())
    logits = model(torch.zeros(1, 3 * 17, 64, 64)).unflatten(1, GRID.shape)
    assert (logits[0, 2, :, :, 5] == 2 * len(IDS) + 5).all()


def test_a_little_training_finds_where_ice_melts():
    frames, covers = render_covers(range(SMALL.clips), "train", SMALL)
    trained = measure(segment(fit(frames, covers, SMALL), frames), covers.astype(np.float32), SMALL)
    assert trained.ap.value > 0.8
    with pytest.raises(ValueError, match="not of the segmenter's 17 frames and 8×8 tokens: generate them so"):
        segment(Segmenter(8, GRID), frames[:, ::2])


def test_a_segmenter_of_large_tokens_sees_clips_averaged_down_and_reopens_for_them(tmp_path):
    recipe = replace(SMALL, clips=4, test_clips=2, steps=2, size="192x128x33", fps=16, cell=16)
    train_segmenter(tmp_path, recipe)
    model, grid = load_segmenter(tmp_path), grid_of(recipe)
    assert model.grid == grid
    assert grid.shape == (9, 8, 12)
    clip = sample_clip(0, "test", SMALL.phenomena, recipe.stage).frames[None]
    small, _ = render_covers(range(1), "test", recipe)
    assert small.shape == (1, 33, 64, 96, 3)
    np.testing.assert_array_equal(segment(model, clip), segment(model, small))
    learnt = WorldSet(SMALL.phenomena[:1], stage=recipe.stage, grammar="plain")
    assert load_segmenter(tmp_path, learnt).grid == grid
    with pytest.raises(ValueError, match="has learnt clips of 192×128×33 .*, not 64×64×17 .*: train one with these"):
        load_segmenter(tmp_path, replace(learnt, stage=Stage()))
    with pytest.raises(ValueError, match="has learnt no scattering: train one with these --phenomena"):
        load_segmenter(tmp_path, replace(learnt, phenomena=("scattering",)))
    with pytest.raises(ValueError, match="give a multiple of 8 that divides 192x128"):
        train_segmenter(tmp_path, replace(recipe, cell=4))


def test_a_segmenter_that_was_never_trained_is_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match="prophy evaluate segmenter"):
        load_segmenter(tmp_path)


# --- cross-attention --------------------------------------------------------------------------------------------------


def test_a_phenomenons_words_are_its_own_and_shared_ones_belong_to_neither():
    assert {"melts", "puddle"} <= words_of("melting")
    assert not words_of("melting") & {"a", "the", "on", "red"}
    tokenizer = build_tokenizer(["a red ball bounces", "a red ball hits a blue ball", "ice melts"])
    ids = tokenizer(["a red ball bounces", "ice melts"], padding=True, return_tensors="pt").input_ids
    weights = word_weights(tokenizer, ids, [("elastic_motion", "collision"), ("melting",)])
    words = tokenizer.convert_ids_to_tokens(ids[0].tolist())
    chosen = [word for word, on in zip(words, weights[0, IDS.index("elastic_motion")], strict=True) if on]
    assert chosen == ["bounces"], "the ball is in both"
    assert not weights[0, IDS.index("melting")].any(), "not asked for"


@torch.no_grad()
def test_recorded_attention_is_the_stock_attention_and_changes_nothing(tiny_transformer):
    torch.manual_seed(1)
    latents, text = torch.randn(2, 4, 3, 4, 5), torch.randn(2, 6, 24)
    time = torch.tensor([500.0, 500.0])
    plain = tiny_transformer(latents, time, text, return_dict=False)[0]
    weights = torch.zeros(2, len(IDS), 6)
    weights[:, 0, :2], weights[:, 1, 2:] = 1, 1
    before = [block.attn2.processor for block in tiny_transformer.blocks]
    with record_cross_attention(tiny_transformer, text, weights) as recorder:
        recorded = tiny_transformer(latents, time, text, return_dict=False)[0]
        tiny_transformer(latents, time, torch.zeros_like(text), return_dict=False)
    assert torch.equal(plain, recorded)
    assert [block.attn2.processor for block in tiny_transformer.blocks] == before
    assert len(recorder.maps) == 1, "the unconditional pass is not recorded"
    assert recorder.maps[0].shape == (2, 60, len(IDS))
    assert torch.allclose(recorder.maps[0][..., 0] + recorder.maps[0][..., 1], torch.ones(2, 60), atol=1e-5)
    with record_cross_attention(tiny_transformer, text, weights) as recorder:
        for step in (latents, latents + 1):  # the negative prompt is the prompt
            tiny_transformer(step, time, text, return_dict=False)
            tiny_transformer(step, time, text, return_dict=False)
    assert len(recorder.maps) == 2
    with pytest.raises(ValueError, match="no cross-attention"):
        record_cross_attention(torch.nn.Linear(1, 1), text, weights).__enter__()


# --- from end to end --------------------------------------------------------------------------------------------------


def test_experts_are_matched_on_the_other_half():
    cover = np.zeros((4, 6, len(IDS)), np.float32)
    cover[:, :2, 0] = 1
    shown = np.zeros((4, len(IDS)), bool)
    shown[:, 0] = True
    experts = np.full((4, 6, 3), 0.1, np.float32)
    experts[::2, :2, 1] = experts[1::2, :2, 2] = 1.0  # the halves disagree on who it is
    maps = matched_crosswise(experts, Truth(cover, shown, TokenGrid(1, 2, 3)))
    assert np.allclose(maps[:, :, 0], 0.1), "each half used the other's expert, which finds nothing here"


def test_generated_localisation_command_records_every_step_and_goes_on_where_it_was(tiny_pipeline, tmp_path, capsys):
    prompts = held_out_prompts(2, frozenset(), first_scene=20_000)
    torch.manual_seed(8)
    tokenizer = build_tokenizer([prompt.prompt for prompt in prompts])
    config = tiny_pipeline.text_encoder.config
    config.vocab_size = len(tokenizer)
    tiny_pipeline.register_modules(tokenizer=tokenizer, text_encoder=UMT5EncoderModel(config).eval())
    model = tmp_path / "model"
    tiny_pipeline.save_pretrained(model)
    command = ["generated-localisation", "--model", str(model), "--work", str(tmp_path), "--prompts", "2"]
    command += ["--batch", "2", "--steps", "2"]
    with pytest.raises(FileNotFoundError, match="segmenter"):
        cli.main(command)
    cli.main(["segmenter", "--work", str(tmp_path), "--clips", "8", "--test-clips", "4", "--steps", "3"])
    cli.main(command)
    assert "masks by the segmenter" in capsys.readouterr().out
    result = json.loads((tmp_path / "evaluation" / "generated-localisation.json").read_text())
    assert [step["step"] for step in result["steps"]] == [1, 2]
    assert {MAP, CROSS} <= set(result["steps"][0]["scores"])
    assert result["asked"] == sum(len(prompt.phenomena) for prompt in prompts)
    batch = next((tmp_path / "evaluation").glob("recordings/*/*.npz"))
    made = batch.stat().st_mtime_ns
    cli.main(command)
    assert batch.stat().st_mtime_ns == made
    assert [s.path.name for s in read_sections(tmp_path)] == ["generated-localisation.json", "segmenter.json"]
    tiny_pipeline.attachment.enabled = False
    with pytest.raises(ValueError, match="needs a branch"):
        evaluate_generated_localisation(tiny_pipeline, tmp_path, prompts)
