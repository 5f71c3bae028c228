"""Likelihood preference: the score by hand, losses of both families, a benchmark's folder, resuming."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from causal import SCOPE, known, with_experts
from small_cogvideox import make_cogvideox, make_cogvideox_pipeline

from prophy.backbones.wan import ProPhyWanPipeline
from prophy.catalogue.limits import ClipSize
from prophy.data.encode import encode_caption, encode_clip
from prophy.evaluation import cli
from prophy.evaluation.benchmarks.pairs import read_pair_folder
from prophy.evaluation.judges.trackers import LAWS
from prophy.evaluation.measures.causes import ExpertNames
from prophy.evaluation.measures.preference import (
    NOISES,
    Pair,
    PreferenceColumn,
    evaluate_preference,
    pair_losses,
    score_preferences,
)
from prophy.evaluation.measures.world_pairs import law_pairs
from prophy.evaluation.results.preference import BASE, MUTED, PROPHY, PairLoss, PreferenceResult
from prophy.phenomena import IDS
from prophy.training.objectives import FlowMatching
from prophy.video import write_video
from prophy.worlds import Stage, WorldSet


def made_pair(law: str = "a law", seed: int = 0, shape: tuple[int, ...] = (17, 64, 64, 3)) -> Pair:
    """Two clips of noise."""
    valid, impossible = np.random.default_rng(seed).integers(0, 255, (2, *shape), np.uint8)
    return Pair(f"scene {seed}", law, "a red ball", valid, impossible, "melting")


@pytest.fixture
def pipeline(tiny_pipeline) -> ProPhyWanPipeline:
    return with_experts(tiny_pipeline)


# --- the score --------------------------------------------------------------------------------------------------------


def test_laws_count_alike_and_pairs_of_a_scene_belong_together():
    losses = [
        PairLoss("a", "gravity", 1.0, 0.9),
        PairLoss("a", "gravity", 1.0, 1.1),
        PairLoss("b", "gravity", 1.0, 1.1),
        PairLoss("b", "momentum", 1.0, 0.5),
        PairLoss("c", "momentum", 1.0, 1.0),
    ]
    better = [PairLoss(one.group, one.law, 1.0, 2.0) for one in losses]
    scores = score_preferences({BASE: losses, PROPHY: better})
    assert scores[BASE].by_law["gravity"].value == pytest.approx(0.25)
    assert scores[BASE].by_law["momentum"].value == pytest.approx(0.75), "equal losses are chance"
    assert scores[BASE].wrong.value == pytest.approx(0.5)
    assert (scores[BASE].wrong.n, scores[BASE].minus_base) == (3, None)
    assert scores[PROPHY].wrong.value == 0
    assert scores[PROPHY].minus_base.value == pytest.approx(-0.5)
    assert scores[PROPHY].margin.value == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="hold different pairs"):
        score_preferences({BASE: losses, PROPHY: better[1:]})


# --- losses -----------------------------------------------------------------------------------------------------------


def test_losses_of_wan_are_those_of_a_plain_loop(pipeline):
    pair, noises = made_pair(), (0.3, 0.7, 0.9)
    found = pair_losses(pipeline, pair, noises, batch=2, seed=5)
    text = encode_caption(pipeline, pair.caption)[None]
    for i, frames in enumerate((pair.valid, pair.impossible)):
        clean = encode_clip(pipeline, frames)[None]
        for v, level in enumerate(noises):
            rng = np.random.default_rng([5, v])
            noise = torch.from_numpy(rng.standard_normal(clean.shape[1:], dtype=np.float32))[None]
            noised = FlowMatching().noised(clean, noise, torch.tensor([level], dtype=torch.float64))
            with torch.no_grad():
                said = pipeline.transformer(noised.noisy_BCTHW, noised.timestep_B, text, return_dict=False)[0]
            assert found[i, v] == pytest.approx(float((said - noised.target_BCTHW).square().mean()), rel=1e-4)
    same = pair_losses(pipeline, Pair("a", "b", pair.caption, pair.valid, pair.valid), noises)
    assert np.array_equal(same[0], same[1]), "the two clips get other noise"


def test_losses_of_cogvideox():
    pipeline = make_cogvideox_pipeline(make_cogvideox())
    pair = made_pair(shape=(9, 64, 96, 3))
    losses = pair_losses(pipeline, pair, (0.2, 0.8))
    assert losses.shape == (2, 2)
    assert np.isfinite(losses).all()
    assert (losses > 0).all()


def test_every_column_is_measured_once_on_the_same_pairs(pipeline, tmp_path, monkeypatch):
    off = PreferenceColumn(partial(switched, pipeline, False))
    on = PreferenceColumn(partial(switched, pipeline, True))
    names = ExpertNames({"melting": IDS.index("melting")}, by_name=True)
    muted = PreferenceColumn(partial(switched, pipeline, True), lambda _: names)
    columns = {BASE: off, PROPHY: on, MUTED: muted}
    pairs = [made_pair("a", 1), made_pair("b", 1), made_pair("b", 2)]
    result = evaluate_preference(columns, lambda: pairs, "made up", tmp_path, noises=(0.5, 0.9))
    assert (result.pairs, result.groups) == (3, 2)
    assert result.losses[BASE] != result.losses[PROPHY] != result.losses[MUTED]
    assert result.losses[PROPHY][0].valid == result.losses[PROPHY][0].valid
    assert PreferenceResult.load(tmp_path).scores.keys() == columns.keys()

    monkeypatch.setattr(pipeline.transformer, "forward", None)
    again = evaluate_preference(columns, lambda: pairs, "made up", tmp_path, noises=(0.5, 0.9))
    assert again.losses == result.losses
    pairs[0].valid[0, 0, 0] += 1  # one pixel is another clip
    with pytest.raises(TypeError):
        evaluate_preference(columns, lambda: pairs, "made up", tmp_path, noises=(0.5, 0.9))


def switched(pipeline, on: bool):
    pipeline.attachment.enabled = on
    return pipeline


def test_what_is_no_pair_is_refused(pipeline, tmp_path):
    column = {PROPHY: PreferenceColumn(lambda: pipeline)}
    short = Pair("a", "b", "c", made_pair().valid, made_pair().impossible[:9])
    for pairs, message in (([short], "are no pair"), ([], "no pairs to compare")):
        with pytest.raises(ValueError, match=message):
            evaluate_preference(column, lambda pairs=pairs: pairs, "made up", tmp_path, noises=(0.5,))
    with pytest.raises(ValueError, match="noise levels 1: give some from 0 to below 1"):
        evaluate_preference(column, list, "made up", tmp_path, noises=(1.0,))
    nameless = PreferenceColumn(lambda: pipeline, lambda _: ExpertNames({}, by_name=True))
    with pytest.raises(ValueError, match="no expert is known for melting"):
        evaluate_preference({MUTED: nameless}, lambda: [made_pair()], "made up", tmp_path, noises=(0.5,))
    assert len(NOISES) == 10


# --- where pairs come from --------------------------------------------------------------------------------------------


def test_every_law_of_the_worlds_has_pairs_of_the_same_looks():
    pairs = list(law_pairs(WorldSet(SCOPE, "test"), 1))
    laws = {f"{p}, {v}: {law.name}" for (p, v), found in LAWS.items() if p in SCOPE for law in found}
    assert {pair.law for pair in pairs} == laws
    for pair in pairs:
        assert pair.valid.shape == pair.impossible.shape == (17, 64, 64, 3)
        assert (pair.valid != pair.impossible).any()
        assert pair.law.startswith(f"{pair.phenomenon}, ")


@pytest.fixture
def folder(tmp_path) -> Path:
    """A benchmark's folder of two scenarios, one of them with two valid videos."""
    rng = np.random.default_rng(0)
    for name in (
        "ball_drop_videos/subgroup_000/valid_00.mp4",
        "ball_drop_videos/subgroup_000/valid_01.mp4",
        "ball_drop_videos/subgroup_000/over_bounce_00.mp4",
        "ball_drop_videos/subgroup_000/teleport_00.mp4",
        "pendulum_videos/subgroup_003/valid_00.mp4",
        "pendulum_videos/subgroup_003/no_gravity_00.mp4",
    ):
        path = tmp_path / "likephys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, np.repeat(rng.integers(0, 255, (12, 8, 8, 3), np.uint8), 8, 1).repeat(8, 2), 24)
    (tmp_path / "captions.json").write_text(json.dumps({"ball_drop": "a ball falls", "pendulum": "a pendulum"}))
    return tmp_path / "likephys"


def test_a_benchmarks_videos_become_pairs(folder):
    found = read_pair_folder(folder, folder.parent / "captions.json")
    assert found.scenarios == ("ball_drop", "pendulum")
    pairs = list(found.pairs(ClipSize(48, 48, 17)))
    assert [(pair.group, pair.law) for pair in pairs] == [
        *[("ball_drop/subgroup_000", "ball_drop: over_bounce")] * 2,
        *[("ball_drop/subgroup_000", "ball_drop: teleport")] * 2,
        ("pendulum/subgroup_003", "pendulum: no_gravity"),
    ]
    assert {pair.valid.shape for pair in pairs} == {(17, 48, 48, 3)}
    assert (pairs[0].caption, pairs[0].phenomenon) == ("a ball falls", None)
    first, last = pairs[0].valid[0], pairs[0].valid[-1]
    assert np.abs(first.astype(int) - last).mean() > 20, "the last frame is another one"


def test_a_folder_that_does_not_fit_is_refused_in_one_line(folder, tmp_path):
    captions = tmp_path / "captions.json"

    def refused(message: str, path: Path = folder) -> None:
        with pytest.raises((ValueError, OSError)) as caught:
            read_pair_folder(path, captions)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)

    refused("is no folder", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    refused("holds no SCENARIO_videos", tmp_path / "empty")
    captions.write_text('{"ball_drop": "a ball falls"}')
    refused("has no caption for pendulum")
    captions.write_text('["a ball falls"]')
    refused("is no JSON object of captions")
    captions.write_text("{")
    refused("is no JSON")
    captions.unlink()
    refused("is missing")
    captions.write_text(json.dumps({"ball_drop": "a ball falls", "pendulum": "a pendulum"}))
    odd = folder / "pendulum_videos" / "subgroup_003" / "notes.mp4"
    odd.write_bytes(b"")
    refused("is not named KIND_00.mp4")
    odd.unlink()
    (folder / "pendulum_videos" / "subgroup_003" / "no_gravity_00.mp4").unlink()
    refused("has no impossible video")
    (folder / "extras").mkdir()
    refused("is not named SCENARIO_videos")


def test_the_command_measures_worlds_and_a_benchmark(pipeline, folder, tmp_path, capsys):
    shown = WorldSet(("scattering", "melting"), "test", Stage(96, 64), grammar="plain")
    known(pipeline, [pair.caption for pair in law_pairs(shown, 1)] + ["a ball falls", "a pendulum"])
    pipeline.save_pretrained(tmp_path / "model")
    common = ["preference", "--model", str(tmp_path / "model"), "--work", str(tmp_path), "--batch", "10"]
    worlds = ["--phenomena", "scattering,melting", "--grammar", "plain", "--size", "96x64x17"]
    cli.main([*common, "--clips", "1", *worlds])
    result = PreferenceResult.load(tmp_path)
    assert (result.phenomena, result.grammar, result.size, result.fps) == (shown.phenomena, "plain", "96x64x17", 8)
    assert {law.partition(",")[0] for law in result.scores[MUTED].by_law} == set(shown.phenomena)
    said = capsys.readouterr().out
    assert "ProPhy, expert muted" in said
    assert "worlds, test split" in said
    captions = ["--captions", str(tmp_path / "captions.json")]
    cli.main([*common, "--pairs", str(folder), *captions, "--size", "64x64x17"])
    assert "likephys" in capsys.readouterr().out
    benchmark = PreferenceResult.load(tmp_path, "preference-likephys")
    assert set(benchmark.scores) == {BASE, PROPHY}
    assert (benchmark.phenomena, benchmark.grammar, benchmark.size, benchmark.fps) == (None,) * 4
    with pytest.raises(ValueError, match="--pairs needs --captions"):
        cli.main([*common, "--pairs", str(folder)])
    with pytest.raises(ValueError, match="--captions belong to --pairs"):
        cli.main([*common, *captions])
    for given in (["--phenomena", "melting"], ["--grammar", "plain"]):
        with pytest.raises(ValueError, match="--phenomena and --grammar change nothing in --pairs: leave them out"):
            cli.main([*common, "--pairs", str(folder), *captions, "--size", "64x64x17", *given])
