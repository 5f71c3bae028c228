"""Discrimination with absent phenomena, and the training-free baseline of localisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from causal import with_experts
from conftest import make_transformer

from prophy.backbones.wan import ProPhyWanPipeline
from prophy.evaluation.measures.cross_attention import alike_to_the_most_attending, record_cross_attention
from prophy.evaluation.measures.discrimination import (
    confusions,
    correlations,
    discriminate,
    evaluate_discrimination,
    pooled_precision,
)
from prophy.evaluation.measures.localisation import Truth
from prophy.evaluation.measures.metrics import average_precision
from prophy.evaluation.results.discrimination import DiscriminationResult
from prophy.grid import TokenGrid
from prophy.phenomena import IDS

GRID = TokenGrid(1, 3, 4)


@pytest.fixture
def pipeline(tiny_pipeline) -> ProPhyWanPipeline:
    return with_experts(tiny_pipeline)


def made_truth() -> Truth:
    """Phenomenon 0 on four tokens of the first clip, 1 on two of the second, which share one token with 2."""
    cover, shown = np.zeros((2, 12, len(IDS)), np.float32), np.zeros((2, len(IDS)), bool)
    cover[0, :4, 0] = cover[1, 4:6, 1] = cover[1, 5:8, 2] = 1
    shown[0, 0] = shown[1, 1] = shown[1, 2] = True
    return Truth(cover, shown, GRID)


def test_confusions_count_the_highest_map_on_tokens_of_one_phenomenon():
    truth = made_truth()
    maps = truth.cover_nNP.copy()
    maps[0, 0, 3] = 2.0  # an absent phenomenon is higher at one of the four
    maps[0, 1, 4] = 1.0  # and one as high at another
    table = confusions(maps, truth)
    assert table[0, 0, [0, 3, 4]] == pytest.approx([0.625, 0.25, 0.125])
    assert table[1, 1, 1] == 1, "the token of two is nobody's"
    assert np.isnan(table[0, 1]).all()
    level = discriminate(0.5, maps, truth, resamples=5)
    assert level.right.value == pytest.approx((0.625 + 1 + 1) / 3)
    assert level.confusion[0][3] == pytest.approx(0.25)


def test_maps_that_rise_together_are_found_also_when_one_is_absent():
    truth, rng = made_truth(), np.random.default_rng(0)
    maps = rng.normal(size=truth.cover_nNP.shape).astype(np.float32)
    maps[:, :, 5] = 3 * maps[:, :, 0] + 1
    table = correlations(maps, truth)
    assert table[0, 0, 5] == pytest.approx(1)
    assert np.isnan(table[0, 0, 0])
    assert np.isnan(table[1, 0]).all(), "the second clip does not show it"
    assert table[0, 0, 1] == pytest.approx(np.corrcoef(maps[0, :, 0], maps[0, :, 1])[0, 1], abs=1e-5)
    level = discriminate(0.5, maps, truth, resamples=5)
    result = DiscriminationResult(IDS[:3], IDS, (level,), 2, "wordings", "a" * 64)
    assert result.most_alike(level)[:2] == (IDS[0], IDS[5])


def test_pooled_precision_is_that_of_all_tokens_with_an_interval_over_clips():
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 6, (20, 30, 2)).astype(np.float32)  # with many ties
    positive = rng.random((20, 30, 2)) < 0.2
    *each, mean = pooled_precision(scores, positive, resamples=50)
    for p, found in enumerate(each):
        assert found.value == pytest.approx(average_precision(scores[:, :, p], positive[:, :, p]))
        assert found.low < found.value < found.high
    assert mean.value == pytest.approx(np.mean([one.value for one in each]))
    assert not pooled_precision(scores, np.zeros_like(positive), 5)[0].measured


def test_discrimination_reads_every_map_of_every_clip(pipeline, tmp_path):
    result = evaluate_discrimination(pipeline, tmp_path, clips=4, batch=4, noises=(0.2, 0.5))
    assert len(result.phenomena) == 17
    assert [level.noise for level in result.levels] == [0.2, 0.5]
    for row in result.levels[0].confusion:
        assert sum(row) == pytest.approx(1) or np.isnan(row).all()
    assert DiscriminationResult.load(tmp_path).shown == result.shown


# --- the training-free baseline ---------------------------------------------------------------------------------------


def test_tokens_are_alike_to_the_one_that_attends_most_in_their_frame():
    features = torch.randn(1, 8, 6, generator=torch.Generator().manual_seed(0))
    attention = torch.zeros(1, 8, 2)
    attention[0, 2, 0] = attention[0, 5, 0] = 1  # one token of each of two frames
    found = alike_to_the_most_attending(features, attention, frames=2)
    centred = features[0] - features[0].mean(0)
    for t, chosen in ((0, 2), (1, 5)):
        tokens = slice(4 * t, 4 * t + 4)
        expected = torch.nn.functional.cosine_similarity(centred[tokens], centred[chosen][None], dim=1)
        assert torch.allclose(found[0, tokens, 0], expected, atol=1e-5)
        assert found[0, chosen, 0] == pytest.approx(1, abs=1e-5)


def test_the_backbone_runs_as_ever_while_it_is_recorded():
    transformer = make_transformer()
    generator = torch.Generator().manual_seed(0)
    latents, text = torch.randn(2, 4, 3, 4, 4, generator=generator), torch.randn(2, 7, 24, generator=generator)
    weights = torch.zeros(2, len(IDS), 7)
    weights[:, 3, 2] = 1
    time = torch.full((2,), 500.0)
    with torch.no_grad():
        plain = transformer(latents, time, text, return_dict=False)[0]
        with record_cross_attention(transformer, text, weights, frames=3) as recorder:
            recorded = transformer(latents, time, text, return_dict=False)[0]
        after = transformer(latents, time, text, return_dict=False)[0]
    assert torch.equal(plain, recorded)
    assert torch.equal(plain, after)
    assert len(recorder.alike) == len(recorder.maps) == 1
    (alike,) = recorder.alike
    assert alike.shape == (2, 48, len(IDS))
    assert alike[:, :, 3].std() > 0
    assert not alike[:, :, 4].any(), "a phenomenon without words has no map"
    assert alike.abs().max() <= 1 + 1e-5
