"""Measures of causes: arithmetic by hand, and each on a small random pipeline, resumed and with its identities."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from causal import EXPERTS, SCOPE, known, with_experts
from made_results import localisation_result

from prophy.assets import assets_dir
from prophy.backbones.wan import ProPhyWanPipeline
from prophy.catalogue.experts import read_experts
from prophy.data.latents import CAPTIONS, cache_note
from prophy.evaluation import cli
from prophy.evaluation.clips import ArrayFolder, generated_frames, settings_of
from prophy.evaluation.measures import selectivity
from prophy.evaluation.measures.budget import evaluate_budget, summarised
from prophy.evaluation.measures.causes import (
    ExpertNames,
    area_finder,
    backbone_frames,
    expert_names,
    expert_use,
    pixel_change,
    steered_frames,
    turned_change,
    turned_frames,
    verdicts,
)
from prophy.evaluation.measures.dose import evaluate_dose, monotone
from prophy.evaluation.measures.laws import asked_clips
from prophy.evaluation.measures.metrics import bootstrap, bootstrap_of
from prophy.evaluation.measures.selectivity import evaluate_selectivity, matrix_of, scores_of
from prophy.evaluation.measures.specificity import evaluate_specificity
from prophy.evaluation.report.sections import read_sections
from prophy.evaluation.results.causes import (
    OTHER,
    OWN,
    RANDOM,
    CausalBudgetResult,
    DoseResult,
    PairedClip,
    SelectivityResult,
    SpecificityResult,
    Trial,
)
from prophy.evaluation.results.discrimination import DiscriminationResult
from prophy.evaluation.results.laws import AUTOENCODER, BACKBONE, PROPHY
from prophy.phenomena import IDS, by_id
from prophy.routing.steering import Steering
from prophy.worlds import Stage, WorldSet, sample_clip

STAGE = Stage()
WORLDS = WorldSet(SCOPE, "test")


@pytest.fixture
def pipeline(tiny_pipeline) -> ProPhyWanPipeline:
    return with_experts(tiny_pipeline)


# --- arithmetic -------------------------------------------------------------------------------------------------------


def test_a_difference_of_means_is_resampled_by_whole_rows():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(40, 3))
    difference = bootstrap_of(np.subtract, base + 1, base)
    assert difference.value == pytest.approx(1)
    assert difference.high - difference.low < 1e-9, "rows are drawn apart from each other"
    ratio = bootstrap_of(np.divide, 3 * base[:, :1] ** 2, base[:, :1] ** 2)
    assert (ratio.low, ratio.high) == (pytest.approx(3), pytest.approx(3))
    assert bootstrap_of(lambda mean: mean, base) == bootstrap(base)
    assert not bootstrap_of(np.divide, np.ones(3), np.zeros(3)).measured
    assert not bootstrap_of(np.subtract, np.full(2, np.nan), np.ones(2)).measured
    with pytest.raises(ValueError, match="give the same rows"):
        bootstrap_of(np.subtract, np.ones(3), np.ones(2))


def test_pixels_are_counted_inside_and_outside():
    before = np.zeros((2, 4, 4, 3), np.uint8)
    after, area = before.copy(), np.zeros((2, 4, 4), bool)
    area[:, :, :2] = True
    after[:, :, :2] = 8
    after[:, :, 2:] = 2
    assert pixel_change(before, after, area) == (8, 2)
    assert pixel_change(before, before, area) == (0, 0)
    inside, outside = pixel_change(before, after, np.ones_like(area))
    assert inside == 5
    assert np.isnan(outside)
    change = summarised([(8, 2), (4, 1), (6, float("nan"))])
    assert change.ratio.value == pytest.approx(0.25), "a clip without an outside has no ratio"
    assert change.inside.n == 3


def trial(clip: int, change: str, phenomenon: str, after: dict[str, float], inside: float, outside: float) -> Trial:
    kept = {name: value == 1 for name, value in after.items()}
    return Trial(clip, change, phenomenon, by_id(phenomenon).index, after, kept, inside, outside)


def test_scores_of_a_perfect_expert_and_of_its_controls():
    on, off = {"melting": 1.0, "collision": 1.0}, {"melting": 0.25, "collision": 0.25}
    clips = [
        PairedClip("a", "a prompt", 1, on, off),
        PairedClip("b", "a prompt", 2, {"melting": 1.0}, {"melting": 0.25}),
    ]
    trials = [
        trial(0, OWN, "melting", {"melting": 0.25, "collision": 1.0}, 10, 1),
        trial(0, OWN, "collision", {"melting": 1.0, "collision": 0.25}, 10, 1),
        trial(1, OWN, "melting", {"melting": 0.25}, 10, 1),
        trial(1, OWN, "collision", {"melting": 1.0}, float("nan"), 0),
        trial(0, RANDOM, "melting", {"melting": 1.0, "collision": 0.0}, 10, 9),
        trial(1, OTHER, "melting", {"melting": 1.0}, 1, 1),
    ]
    scores = scores_of(SCOPE, clips, trials)
    assert (scores.own_on.value, scores.own_off.value, scores.other_on.value) == (1, 0.25, 1)
    own, random, other = (scores.changes[change] for change in (OWN, RANDOM, OTHER))
    assert (own.own.value, own.other.value, own.isolation.value) == (0.25, 1, 1)
    assert own.pixels.ratio.value == pytest.approx(0.1)
    assert (random.own.value, random.other.value, random.isolation.value) == (1, 0, 0)
    assert (other.own.value, other.isolation.n) == (1, 0), "a clip of one phenomenon has no other"
    assert (scores.diagonal.value, scores.off_diagonal.value, scores.score.value) == (0.75, 0, 0.75)
    assert scores.minus_off.value == 0
    assert (scores.absent.value, scores.absent.n) == (1, 1)
    assert scores_of(SCOPE, clips, trials[:3]).absent is None

    matrix = matrix_of(SCOPE, clips, trials, {"melting": "m.png", "collision": "c.png"})
    assert [[cell and cell.broken.value for cell in row] for row in matrix] == [
        [0.75, 0, None],
        [0, 0.75, None],
        [None, None, None],
    ]
    assert (matrix[1][0].broken.n, matrix[1][0].shown) == (2, 1)
    assert (matrix[0][0].picture, matrix[1][0].picture) == ("m.png", "c.png")


def test_a_rising_dose_breaks_nothing():
    nan = np.nan
    none, half, whole = np.array([[0, nan], [1, 0]]), np.array([[1, nan], [0, 1]]), np.array([[1, nan], [1, 1]])
    assert monotone([none, half, whole]).tolist() == [1, 0]
    assert monotone([none]).tolist() == [1, 1]


# --- which expert, which clips, where ---------------------------------------------------------------------------------


def test_experts_are_named_by_their_order_or_matched(pipeline, tmp_path):
    names = expert_names(pipeline, tmp_path, SCOPE)
    assert names.by_name
    assert names.experts == {name: IDS.index(name) for name in SCOPE}
    assert names.muting("melting") == Steering(refinement={names.experts["melting"]: 0})
    assert names.muting().is_neutral
    left = names.leaving("melting")
    assert set(left.refinement) == set(range(17)) - {names.experts["melting"]}, "also of those not looked at"
    shared = ExpertNames({"melting": 1, "collision": 1, "combustion": 0}, by_name=False)
    assert set(shared.leaving("melting").refinement) == {0}, "an expert that two share is not muted with one of them"

    pipeline.branch.register_to_config(num_refinement_experts=5)
    with pytest.raises(FileNotFoundError, match="run `prophy evaluate localisation` first"):
        expert_names(pipeline, tmp_path, SCOPE)
    levels = localisation_result().levels
    matched = tuple(replace(level, experts={"melting": 3, "collision": 1}) for level in levels)
    replace(localisation_result(), levels=matched).save(tmp_path)
    assert expert_names(pipeline, tmp_path, ("melting", "collision")) == ExpertNames(
        {"melting": 3, "collision": 1}, False
    )
    with pytest.raises(ValueError, match="matched no expert to combustion"):
        expert_names(pipeline, tmp_path, SCOPE)
    pipeline.branch.register_to_config(num_refinement_experts=2)
    with pytest.raises(ValueError, match="speaks of expert 3, which this branch does not have"):
        expert_names(pipeline, tmp_path, SCOPE[:2])
    with pipeline.attachment.switched(on=False), pytest.raises(ValueError, match="give a model with a branch"):
        expert_names(pipeline, tmp_path, SCOPE)


def test_scenes_of_two_phenomena_only_and_their_halves():
    asked = asked_clips("test", 3, SCOPE, shown=2)
    assert [len(one.scenario.events) for one in asked] == [2, 2, 2]
    assert {one.scene for one in asked} <= {one.scene for one in asked_clips("test", 60, SCOPE)}
    with pytest.raises(ValueError, match="combinations has no 1 scenes of 1 phenomena"):
        asked_clips("combinations", 1, IDS, shown=1)
    areas = area_finder("place", None, WORLDS)(np.zeros(0), np.zeros(0), asked)
    for area, one in zip(areas, asked, strict=True):
        first, second = (area[event.phenomenon] for event in one.scenario.events)
        assert not (first & second).any()
        assert (first | second).all()
    with pytest.raises(ValueError, match="unknown areas 'nowhere': use place or segmenter"):
        area_finder("nowhere", None, WORLDS)


def test_real_renders_obey_their_laws_by_phenomenon():
    (asked,) = asked_clips("test", 1, SCOPE, shown=2)
    frames = sample_clip(asked.scene, "test", SCOPE).frames
    (judged,) = verdicts(frames[None], [asked], STAGE)
    assert judged.keys() == {event.phenomenon for event in asked.scenario.events}
    assert all(all(laws.values()) and laws for laws in judged.values())


# --- what is done to the branch ---------------------------------------------------------------------------------------


def test_a_turned_change_moves_the_same_tokens_as_far_as_muting(pipeline):
    block, expert = pipeline.branch.refinement, 4
    x = torch.randn(1, 40, 32, generator=torch.Generator().manual_seed(1))
    scale = torch.ones(EXPERTS)
    scale[expert] = 0
    plain, routing = block(x)
    muted, _ = block(x, scale)
    with turned_change(block, expert):
        turned, same = block(x)
    assert torch.equal(same.topk_ids_BNK, routing.topk_ids_BNK), "the routing that is observed is the branch's own"
    far, as_far = (muted - plain).norm(dim=-1), (turned - plain).norm(dim=-1)
    assert torch.allclose(far, as_far, atol=1e-4)
    moved = far[0] > 1e-4
    assert torch.equal(moved, (routing.topk_ids_BNK[0] == expert).any(1))
    assert 0 < moved.sum() < 40
    cosine = torch.nn.functional.cosine_similarity((muted - plain)[0, moved], (turned - plain)[0, moved], dim=-1)
    assert cosine.abs().mean() < 0.5
    assert torch.equal(block(x)[0], plain), "it outlives its context"


def test_muting_nothing_changes_nothing_and_everything_is_made_once(pipeline, tmp_path, monkeypatch):
    settings = settings_of(asked_clips("test", 2, SCOPE), steps=1)
    plain = generated_frames(pipeline, tmp_path, settings, 2)
    nothing = ExpertNames({}, True).muting()
    assert np.array_equal(steered_frames(pipeline, tmp_path, settings, 2, nothing), plain)
    off = backbone_frames(pipeline, tmp_path, settings, 2)
    assert np.array_equal(steered_frames(pipeline, tmp_path, settings, 2, Steering(strength=0)), off)
    assert not np.array_equal(plain, off)
    on, use = expert_use(pipeline, tmp_path, settings, 2)
    assert np.array_equal(on, plain)
    assert use.shape == (2, EXPERTS)
    assert use.sum(1) == pytest.approx(np.ones(2), abs=1e-3)
    expert = int(use[0].argmax())
    muted = steered_frames(pipeline, tmp_path, settings, 2, Steering(refinement={expert: 0}))
    turned = turned_frames(pipeline, tmp_path, settings, 2, expert)
    assert not np.array_equal(turned, plain)
    assert not np.array_equal(turned, muted)

    def refuse(*_, **__):
        raise AssertionError("made again")

    monkeypatch.setattr(ArrayFolder, "write", refuse)  # what is made is written
    assert np.array_equal(turned_frames(pipeline, tmp_path, settings, 2, expert), turned)
    assert np.array_equal(steered_frames(pipeline, tmp_path, settings, 2, Steering(refinement={expert: 0})), muted)
    assert np.array_equal(expert_use(pipeline, tmp_path, settings, 2)[1], use)


# --- the measures -----------------------------------------------------------------------------------------------------


def test_the_causal_budget_pairs_off_and_on(pipeline, tmp_path):
    result = evaluate_budget(pipeline, tmp_path, clips=3, batch=3, steps=1, splits=("test",), worlds=WORLDS)
    score = result.scores["test"]
    assert set(score.columns) == {AUTOENCODER, BACKBONE, PROPHY}
    assert score.columns[PROPHY].mended.value - score.columns[PROPHY].broken.value == pytest.approx(score.gain.value)
    assert score.pixels.inside.value > 0
    assert CausalBudgetResult.load(tmp_path).scores["test"].gain == score.gain
    with pytest.raises(ValueError, match="measure at least one"):
        evaluate_budget(pipeline, tmp_path, clips=0)
    with pytest.raises(ValueError, match="unknown split"):
        evaluate_budget(pipeline, tmp_path, clips=1, splits=("nowhere",))


def test_the_budget_of_a_branch_that_adds_nothing_is_nothing(pipeline, tmp_path):
    for projection in pipeline.branch.projections:
        torch.nn.init.zeros_(projection.weight)
    result = evaluate_budget(pipeline, tmp_path, clips=2, batch=2, steps=1, splits=("test",), worlds=WORLDS)
    score = result.scores["test"]
    assert (score.gain.value, score.pixels.inside.value) == (0, 0)
    assert not score.pixels.ratio.measured


def test_selectivity_tries_everything_and_draws_it(pipeline, tmp_path, monkeypatch):
    common = {"two": 1, "one": 1, "every_expert": True, "batch": 4, "steps": 1, "worlds": WORLDS}
    result = evaluate_selectivity(pipeline, tmp_path, **common)
    shown = [set(clip.on) for clip in result.clips]
    assert [len(one) for one in shown] == [2, 1]
    own = [(t.clip, t.phenomenon) for t in result.trials if t.change == OWN]
    assert sorted(own) == sorted((i, p) for i in range(2) for p in SCOPE), "every expert in every clip"
    for change in (RANDOM, OTHER):
        tried = {(t.clip, t.phenomenon) for t in result.trials if t.change == change}
        assert tried == {(i, p) for i in range(2) for p in shown[i]}
    for t in result.trials:
        assert np.isnan(t.inside) == (t.phenomenon not in shown[t.clip])
        assert t.obeyed.keys() == t.kept.keys() == shown[t.clip]
        assert (t.expert == result.experts[t.phenomenon]) == (t.change != OTHER)
    assert SelectivityResult.load(tmp_path).trials[0].kept == result.trials[0].kept
    assert set(result.pictures) == {f"selectivity-{name}.png" for name in set().union(*shown)}
    (section,) = read_sections(tmp_path)
    assert section.body.pictures == result.pictures

    monkeypatch.setattr(pipeline.transformer, "forward", None)
    again = evaluate_selectivity(pipeline, tmp_path, **common)
    assert json.dumps(again.scores.score.value) == json.dumps(result.scores.score.value)
    with pytest.raises(ValueError, match="measure at least one clip"):
        evaluate_selectivity(pipeline, tmp_path, two=0, one=0)


def test_selectivity_of_experts_that_do_nothing(pipeline, tmp_path, monkeypatch):
    """Experts that are the identity cannot be missed: nothing breaks, and every verdict is kept."""
    torch.nn.init.zeros_(pipeline.branch.refinement.weight_EDD)
    monkeypatch.setattr(selectivity, "_draw", lambda *_: pytest.fail("no pictures were asked for"))
    result = evaluate_selectivity(pipeline, tmp_path, two=2, one=0, steps=1, pictures=False, worlds=WORLDS)
    for change in result.scores.changes.values():
        assert change.pixels.inside.value < 0.05
    assert result.scores.score.value == 0
    assert result.scores.changes[OWN].isolation.value == 1
    assert result.pictures == ()


def test_doses_and_single_experts(pipeline, tmp_path):
    result = evaluate_dose(pipeline, tmp_path, clips=2, batch=2, steps=1, worlds=WORLDS)
    assert [dose.strength for dose in result.doses] == [0, 0.5, 1, 2]
    assert result.doses[0].more is None
    pixels = [dose.pixels.value for dose in result.doses]
    assert pixels[0] == 0
    assert min(pixels[1:]) > 0
    assert result.sufficiency.none is not None
    assert set(result.sufficiency.by_phenomenon) == set(SCOPE)
    assert DoseResult.load(tmp_path).doses == result.doses
    with pytest.raises(ValueError, match="0 must be among them"):
        evaluate_dose(pipeline, tmp_path, clips=1, strengths=(1.0,))


def test_specificity_compares_predictions_at_one_latent(pipeline, tmp_path):
    result = evaluate_specificity(pipeline, tmp_path, clips=8, batch=4, noises=(0.5,), worlds=WORLDS)
    (level,) = result.levels
    assert set(level.energy) == {OWN, RANDOM, OTHER}
    assert set(level.by_phenomenon) == set(SCOPE)
    assert result.largest.value >= 1
    assert SpecificityResult.load(tmp_path).clips == 8
    torch.nn.init.zeros_(pipeline.branch.refinement.weight_EDD)
    (level,) = evaluate_specificity(pipeline, tmp_path, 8, 4, (0.5,), WORLDS).levels
    assert all(size.value < 1e-3 for size in level.size.values() if size.measured)


def test_commands_say_what_is_missing(pipeline, tmp_path):
    model = tmp_path / "model"
    pipeline.save_pretrained(model)
    common = ["--model", str(model), "--work", str(tmp_path)]
    for name in ("budget", "selectivity", "dose", "specificity", "discrimination"):
        with pytest.raises(ValueError, match="give a model with a branch"):
            cli.main([name, *common, "--no-branch"])
    with pytest.raises(FileNotFoundError, match="segmenter"):
        cli.main(["budget", *common, "--areas", "segmenter", "--clips", "1"])


def test_commands_measure_the_worlds_that_they_are_given(pipeline, tmp_path):
    """Of the second generation's: its phenomena, words and clips wider than high. Other worlds' caches are refused."""
    worlds = WorldSet(("scattering", "solidification", "melting"), "test", Stage(96, 64), grammar="plain")
    held_out = [text for seed in range(4) for text in replace(worlds, split="wordings").captions(seed, CAPTIONS)]
    known(pipeline, [one.prompt for one in asked_clips("test", 4, worlds.phenomena, grammar=worlds.words)] + held_out)
    model = tmp_path / "model"
    pipeline.save_pretrained(model)
    common = ["--model", str(model), "--work", str(tmp_path), "--clips", "2"]
    given = ["--phenomena", ",".join(worlds.phenomena), "--grammar", "plain", "--size", "96x64x17"]

    cli.main(["budget", *common, *given, "--steps", "1", "--split", "test"])
    cli.main(["dose", *common, *given, "--steps", "1"])
    cli.main(["selectivity", *common[:-2], *given, "--steps", "1", "--two", "0", "--one", "1", "--no-pictures"])
    cli.main(["specificity", *common, *given])
    cli.main(["experts", *common, *given])
    for kind in (CausalBudgetResult, DoseResult, SelectivityResult, SpecificityResult):
        result = kind.load(tmp_path)
        assert (result.phenomena, result.grammar, result.size, result.fps) == (worlds.phenomena, "plain", "96x64x17", 8)
    (clip,) = SelectivityResult.load(tmp_path).clips
    assert clip.prompt in {one.prompt for one in asked_clips("test", 4, worlds.phenomena, 1, worlds.words)}
    measured = read_experts(model)
    assert measured is not None
    assert (measured.learnt, measured.grammar, measured.size) == (worlds.phenomena, "plain", "96x64x17")
    note = cache_note(tmp_path / "latents-wordings")
    assert note is not None
    assert note.worlds == replace(worlds, split="wordings")

    for changed, said in (
        (["--phenomena", "melting", *given[2:]], "phenomena"),
        ([*given[:2], *given[4:]], "captions"),
        (given[:4], "sizes"),
    ):
        with pytest.raises(ValueError, match=f"was cached with other {said}: delete it or choose another folder"):
            cli.main(["discrimination", *common, *changed])
    cli.main(["discrimination", *common, *given])
    found = DiscriminationResult.load(tmp_path)
    assert (found.drawn, found.grammar, found.size, found.fps) == (worlds.phenomena, "plain", "96x64x17", 8)


@pytest.mark.shipped
def test_the_embedded_models_experts_are_matched_by_localisation(tmp_path, capsys):
    """Eight experts for ten phenomena that cause next to nothing: the commands run, and say so."""
    (tmp_path / "evaluation").mkdir()
    shutil.copy(assets_dir() / "evidence" / "evaluation" / "localisation.json", tmp_path / "evaluation")
    work = ["--work", str(tmp_path), "--steps", "2"]
    cli.main(["selectivity", *work, "--two", "2", "--one", "0", "--no-pictures"])
    assert "experts matched by localisation; some share one" in capsys.readouterr().out
    result = SelectivityResult.load(tmp_path)
    assert set(result.experts.values()) <= set(range(8))
    assert result.scores.changes[OWN].pixels.inside.value < 5
    cli.main(["dose", *work, "--clips", "1"])
    assert DoseResult.load(tmp_path).doses[0].pixels.value == 0
    cli.main(["budget", *work, "--clips", "2", "--split", "test"])
    assert CausalBudgetResult.load(tmp_path).scores["test"].pixels.inside.value > 0
