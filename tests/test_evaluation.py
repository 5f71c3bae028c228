"""The measures against literal definitions, and every evaluation from end to end at debug size."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import UMT5EncoderModel

from prophy.backbones.wan import ProPhyWanPipeline
from prophy.data.latents import CAPTIONS, LatentCache, open_cache
from prophy.evaluation import cli
from prophy.evaluation import clips as clips_module
from prophy.evaluation.clips import digest_of, generated_frames, settings_of
from prophy.evaluation.judges.pictures import empty_stages, seen, stacked
from prophy.evaluation.judges.recogniser import (
    LOOKED_AT,
    Recogniser,
    augment,
    fit,
    frozen,
    load_recogniser,
    recognise,
    recogniser_error,
    render_clips,
    train_recogniser,
)
from prophy.evaluation.measures.flow_loss import ClipLosses, clip_losses, compare, predictors
from prophy.evaluation.measures.image_free import ImageFreeRecipe, image_free_maps, train_image_free
from prophy.evaluation.measures.localisation import (
    Truth,
    average_precisions,
    centre_prior,
    expert_use,
    fit_reading,
    match_experts,
    score_maps,
)
from prophy.evaluation.measures.metrics import (
    auc,
    average_precision,
    bootstrap,
    discrimination,
    energy_over_area,
    pointing,
)
from prophy.evaluation.measures.recognition import score
from prophy.evaluation.prompts import fixed as prompts
from prophy.evaluation.prompts import held_out
from prophy.evaluation.prompts.fixed import FIXED_PROMPTS
from prophy.evaluation.prompts.held_out import NEW, USUAL, held_out_prompts, training_captions
from prophy.evaluation.prompts.sheet import MAX_BYTES, SHOWN, clips_sheet
from prophy.evaluation.results import write_json
from prophy.evaluation.results.flow_loss import BACKBONE, BRANCH
from prophy.evaluation.results.judges import RecogniserRecipe
from prophy.evaluation.results.localisation import CROSS, FEATURES
from prophy.generation.generate import Generation, generate
from prophy.generation.pipelines import load
from prophy.generation.resume import resumable
from prophy.grid import TokenGrid
from prophy.phenomena import IDS
from prophy.tiny.text import build_tokenizer
from prophy.training.world_examples import WorldExamples
from prophy.worlds import Stage, WorldSet, sample_clip
from prophy.worlds.scope import SCOPE


@pytest.fixture
def pipeline(tiny_pipeline) -> ProPhyWanPipeline:
    """The small random pipeline, knowing the words of the prompts used here."""
    torch.manual_seed(8)
    captions = [p.prompt for p in FIXED_PROMPTS] + [p.prompt for p in held_out_prompts(40, frozenset())]
    tokenizer = build_tokenizer(captions)
    config = copy.deepcopy(tiny_pipeline.text_encoder.config)
    config.vocab_size = len(tokenizer)
    tiny_pipeline.register_modules(tokenizer=tokenizer, text_encoder=UMT5EncoderModel(config).eval())
    return tiny_pipeline


SMALL = RecogniserRecipe(clips=12, test_clips=10, steps=2, batch=4, width=8)


# --- measures ---------------------------------------------------------------------------------------------------------


def literal_average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """The sum over thresholds of the gain in recall times the precision, threshold by threshold."""
    total, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        chosen = scores >= threshold
        recall = (chosen & positive).sum() / positive.sum()
        total += (recall - recall_before) * (chosen & positive).sum() / chosen.sum()
        recall_before = recall
    return total


def literal_auc(scores: np.ndarray, positive: np.ndarray) -> float:
    wins = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    return float(np.mean(wins))


@pytest.mark.parametrize("levels", [3, 1000])
def test_average_precision_and_auc_follow_their_definitions_with_and_without_ties(levels):
    rng = np.random.default_rng(levels)
    for _ in range(20):
        scores = rng.integers(0, levels, 30) / 7
        positive = rng.random(30) < 0.3
        positive[:2] = True, False
        assert average_precision(scores, positive) == pytest.approx(literal_average_precision(scores, positive))
        assert auc(scores, positive) == pytest.approx(literal_auc(scores, positive))


def test_average_precision_of_hand_computed_cases():
    assert average_precision(np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, 0, 1, 0])) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(np.ones(10), np.arange(10) < 3) == pytest.approx(0.3)
    assert average_precision(np.arange(4), np.array([0, 0, 0, 1])) == 1.0


def test_measures_refuse_what_they_cannot_measure():
    with pytest.raises(ValueError, match="needs a positive"):
        average_precision(np.ones(3), np.zeros(3, bool))
    with pytest.raises(ValueError, match="not numbers"):
        pointing(np.array([np.nan, 1.0]), np.array([True, False]))
    with pytest.raises(ValueError, match="one for each"):
        auc(np.ones(3), np.zeros(2, bool))
    assert np.isnan(auc(np.ones(3), np.ones(3, bool)))


def test_pointing_shares_equal_maxima():
    positive = np.array([True, False, False, True])
    assert pointing(np.array([3.0, 1, 2, 0]), positive) == 1
    assert pointing(np.array([0.0, 1, 2, 0]), positive) == 0
    assert pointing(np.ones(4), positive) == 0.5


def test_energy_over_area_is_one_for_a_uniform_map_and_ignores_negative_scores():
    positive = np.array([True, False, False, False])
    assert energy_over_area(np.ones(4), positive) == pytest.approx(1)
    assert energy_over_area(np.array([1.0, -5, 0, 0]), positive) == pytest.approx(4)
    assert energy_over_area(np.array([1.0, 3, 0, 0]), positive) == pytest.approx(0.25 / 0.25)
    assert energy_over_area(-np.ones(4), positive) == 1


def test_discrimination_gives_one_half_to_a_map_that_is_higher_everywhere():
    first, second = np.array([1, 1, 0, 0, 1], bool), np.array([0, 0, 0, 1, 1], bool)
    own = first.astype(float) - second
    assert discrimination(own, -own, first, second) == 1
    assert discrimination(np.full(5, 9.0), np.zeros(5), first, second) == 0.5
    assert discrimination(np.zeros(5), np.zeros(5), first, second) == 0.5
    assert np.isnan(discrimination(own, -own, first, first))


def test_bootstrap_is_the_mean_of_column_means_and_resamples_rows():
    table = np.array([[1.0, np.nan], [3.0, 10.0], [np.nan, np.nan]])
    interval = bootstrap(table)
    assert (interval.value, interval.n) == ((2 + 10) / 2, 2)
    values = np.random.default_rng(0).normal(5, 2, 400)
    interval = bootstrap(values)
    assert interval == bootstrap(values)
    assert interval.value == pytest.approx(values.mean())
    half_width = 1.96 * values.std() / 20  # the normal approximation
    assert interval.high - interval.value == pytest.approx(half_width, rel=0.15)
    assert interval.value - interval.low == pytest.approx(half_width, rel=0.15)
    empty = bootstrap(np.array([np.nan]))
    assert np.isnan(empty.value)
    assert empty.n == 0


def test_results_are_strict_json_written_whole(tmp_path):
    path = write_json(tmp_path / "a" / "result.json", {"interval": bootstrap(np.array([np.nan])), "n": np.int64(3)})
    assert json.loads(path.read_text(), parse_constant=pytest.fail)["interval"]["value"] is None
    with pytest.raises(TypeError, match="plain values"):
        write_json(path, {"x": torch.ones(1)})
    assert json.loads(path.read_text())["n"] == 3
    assert [p.name for p in path.parent.iterdir()] == ["result.json"]


# --- the classifier ---------------------------------------------------------------------------------------------------


def test_recogniser_learns_a_difference_and_reopens_as_saved(tmp_path):
    result = train_recogniser(tmp_path, SMALL)
    frames, _ = render_clips(range(3), "test", SCOPE)
    again = load_recogniser(tmp_path)
    assert again.head.weight.isfinite().all()
    assert 0 <= result.exact <= 1
    assert result.exact == recogniser_error(tmp_path)
    train_recogniser(tmp_path, SMALL)
    assert torch.equal(recognise(load_recogniser(tmp_path), frames), recognise(again, frames)), "training is not exact"


def test_recogniser_fits_a_handful_of_clips():
    frames, labels = render_clips(range(6), "train", ("melting", "gas_motion"))
    recipe = RecogniserRecipe(clips=6, steps=60, batch=6, width=16, nothing=0.0)
    found = recognise(fit(frames, labels, recipe), frames) > 0
    assert (found == labels.bool()).all(1).float().mean() >= 0.8


def test_recogniser_sees_only_the_frames_it_looks_at():
    torch.manual_seed(0)
    clips = np.random.default_rng(0).integers(0, 256, (2, 17, 64, 64, 3)).astype(np.uint8)
    model = Recogniser(8)
    assert torch.equal(recognise(model, clips), recognise(model, seen(clips, LOOKED_AT)))
    with pytest.raises(ValueError, match="generate them so"):
        recognise(model, clips[:, :, :32])


def test_a_recogniser_of_a_large_stage_sees_it_averaged_down_and_reopens_for_it(tmp_path):
    recipe = replace(SMALL, clips=6, test_clips=4, size="192x128x33", fps=16)
    train_recogniser(tmp_path, recipe)
    model = load_recogniser(tmp_path)
    assert model.stage == Stage(192, 128, 33, 16)
    clip = sample_clip(0, "test", SCOPE, model.stage).frames[None]
    assert seen(clip, LOOKED_AT).shape == (1, 9, 64, 96, 3)
    corner = clip[0, [0, -1], :2, :2].mean((1, 2))
    assert np.abs(seen(clip, LOOKED_AT)[0, [0, -1], 0, 0] - corner).max() <= 0.5, "four pixels, averaged"
    assert torch.equal(recognise(model, clip), recognise(model, seen(clip, LOOKED_AT)))
    with pytest.raises(ValueError, match="are not 33×128×192×3: generate them so"):
        recognise(model, clip[:, :17])


def test_augmentation_keeps_shape_and_follows_its_generator():
    x = stacked(render_clips(range(2), "train", SCOPE)[0])
    first, second = (augment(x, torch.Generator().manual_seed(1)) for _ in range(2))
    assert first.shape == x.shape
    assert torch.equal(first, second)
    assert not torch.equal(first, x)


def test_negatives_are_still():
    for clips in (empty_stages(Stage(), LOOKED_AT), frozen(render_clips(range(2), "train", SCOPE)[0])):
        assert (clips == clips[:, :1]).all()


def test_missing_classifier_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match="prophy evaluate recogniser"):
        load_recogniser(tmp_path)


# --- held-out prompts -------------------------------------------------------------------------------------------------


def test_held_out_prompts_are_new_different_and_fixed():
    seen = frozenset(p.prompt for p in held_out_prompts(30, frozenset()))
    chosen = held_out_prompts(30, seen)
    assert chosen == held_out_prompts(30, seen)
    assert not seen & {p.prompt for p in chosen}
    assert len({p.prompt for p in chosen}) == len({p.seed for p in chosen}) == 30
    assert [p.wording for p in chosen[:2]] == [USUAL, NEW]
    assert {name for p in chosen for name in p.phenomena} <= set(SCOPE)


def test_training_captions_are_those_the_latent_cache_holds(pipeline, tmp_path):
    cache = open_cache(tmp_path, pipeline.vae, pipeline.tokenizer, 2)
    captions = sorted(training_captions(clips=2, text_captions=0))
    length = pipeline.tokenizer.model_max_length
    ids = pipeline.tokenizer(captions, padding="max_length", max_length=length, return_tensors="np").input_ids
    held = {tuple(row) for row in cache.ids.reshape(-1, length).tolist()}
    assert held == {tuple(row) for row in ids.tolist()}
    assert len(captions) <= 2 * CAPTIONS


def test_score_counts_complete_and_exact_prompts():
    asked, logits = torch.zeros(4, len(IDS)), torch.full((4, len(IDS)), -1.0)
    for row, (wanted, found) in enumerate([([0], [0]), ([1], [2]), ([0, 3], [0, 3, 5]), ([0, 3], [3])]):
        asked[row, wanted], logits[row, found] = 1, 1
    result = score(logits, asked, [USUAL, USUAL, NEW, NEW])
    assert (result.single.value, result.both.value, result.exact.value) == (0.5, 0.5, 0.25)
    assert result.recall[IDS[0]].value == pytest.approx(2 / 3)
    assert result.recall[IDS[1]].value == 0
    assert result.unasked[IDS[3]] == 0
    assert result.by_wording[NEW].value == 0.5


# --- generation -------------------------------------------------------------------------------------------------------


def test_clips_of_a_batch_equal_those_made_one_by_one(pipeline):
    settings = settings_of([FIXED_PROMPTS[0], FIXED_PROMPTS[20]], 3)
    for one, together in zip(settings, generate(pipeline, settings), strict=True):
        alone = generate(pipeline, one)
        assert np.abs(alone.frames.astype(int) - together.frames).max() <= 1
        difference = np.abs(alone.trace.mean_probs - together.trace.mean_probs).max()
        assert difference < 1e-4, difference
        assert together.trace.prompt == one.prompt


def test_clips_that_were_made_are_read_and_damaged_ones_made_again(pipeline, tmp_path, monkeypatch):
    settings = settings_of(FIXED_PROMPTS[:3], 1)
    whole = generated_frames(pipeline, tmp_path, settings, 2)
    made = []

    def counted(pipeline, wanted, store, **how):
        made.extend(one.prompt for name, one in wanted.items() if store.read(name, one) is None)
        return resumable(pipeline, wanted, store, **how)

    monkeypatch.setattr(clips_module, "resumable", counted)
    paths = {path.stem: path for path in tmp_path.rglob("*.npz")}
    missing, damaged = (paths[digest_of(one)] for one in settings[1:])
    missing.unlink()
    damaged.write_bytes(damaged.read_bytes()[:100])
    again = generated_frames(pipeline, tmp_path, settings, 2)
    assert np.abs(again.astype(int) - whole).max() <= 1, "another batch rounds otherwise"
    assert np.array_equal(again[0], whole[0])
    assert made == [one.prompt for one in settings[1:]]
    generated_frames(pipeline, tmp_path, settings[::-1], 2)
    pipeline.attachment.enabled = False
    generated_frames(pipeline, tmp_path, settings[:1], 2)
    assert made == [one.prompt for one in (*settings[1:], settings[0])], "without the branch it is another clip"


# --- the sheet --------------------------------------------------------------------------------------------------------


def test_sheet_shows_every_clip_at_its_place():
    colours = np.arange(1, 4, dtype=np.uint8)[:, None, None, None, None] * 50
    frames = np.broadcast_to(colours, (3, 17, 64, 64, 3))
    clips = [
        Generation(one, shown, None, (), "a model", "0" * 64, {})
        for one, shown in zip(settings_of(FIXED_PROMPTS[:3]), frames, strict=True)
    ]
    sheet = clips_sheet(clips, columns=2, tile=64)
    counts = [(sheet == value).all(-1).sum() for value in (50, 100, 150)]
    assert counts[0] == pytest.approx(SHOWN * 64 * 64, abs=60)
    assert np.ptp(counts) < 60
    with pytest.raises(ValueError, match="no routing to show"):
        clips_sheet(clips, routing=True)


# --- localisation -----------------------------------------------------------------------------------------------------


def make_truth() -> Truth:
    """Two clips of 2×2×3 tokens: phenomenon 0 alone, then 0 on the left and 1 on the right."""
    grid = TokenGrid(2, 2, 3)
    cover, shown = np.zeros((2, 12, len(IDS)), np.float32), np.zeros((2, len(IDS)), bool)
    cover[0, [0, 1, 2], 0] = 1.0, 0.6, 0.2
    cover[1, [0, 3], 0] = 0.9
    cover[1, [2, 5], 1] = 0.9
    shown[0, 0] = shown[1, 0] = shown[1, 1] = True
    return Truth(cover, shown, grid)


def test_perfect_maps_score_one_and_constant_maps_score_chance():
    truth = make_truth()
    perfect = score_maps(truth.cover_nNP, truth)
    assert [s.value for s in (perfect.ap, perfect.ap_touched, perfect.pointing, perfect.apart)] == [1, 1, 1, 1]
    assert perfect.ap_pooled == 1
    constant = score_maps(np.ones_like(truth.cover_nNP), truth)
    assert constant.ap.value == pytest.approx(2 / 12)
    assert constant.energy.value == pytest.approx(1)
    assert constant.apart.value == 0.5
    assert set(constant.ap_by_phenomenon) == {IDS[0], IDS[1]}
    assert constant.ap_by_phenomenon[IDS[1]].n == 1


def test_maps_of_another_phenomenon_lose_what_is_specific():
    truth = make_truth()
    shuffled = score_maps(truth.cover_nNP, truth, shuffles=2)
    assert shuffled.apart.value == 0
    assert shuffled.ap.value < 0.5


def test_only_shown_phenomena_are_asked_about():
    truth = make_truth()
    table = average_precisions(truth.cover_nNP, truth)
    assert np.array_equal(~np.isnan(table), truth.shown_nP)


def test_experts_are_matched_by_what_they_find():
    truth = make_truth()
    probs = np.full((2, 12, 3), 0.2, np.float32)
    probs[:, :, 2] += truth.cover_nNP[:, :, 0]
    probs[:, :, 1] += truth.cover_nNP[:, :, 1]
    assert match_experts(probs, truth)[:2].tolist() == [2, 1]


def test_expert_use_counts_all_choices_and_first_choices():
    use = expert_use(np.array([[[0, 1], [0, 2]]]), 4)
    assert use.topk == (0.5, 0.25, 0.25, 0.0)
    assert use.top1 == (1.0, 0.0, 0.0, 0.0)


def test_linear_reading_undoes_a_rotation_of_the_router():
    rng = np.random.default_rng(0)
    shown = rng.random((200, len(IDS))) < 0.2
    logits = shown @ np.linalg.qr(rng.normal(size=(len(IDS), len(IDS))))[0] * 3
    weights = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    read = fit_reading(weights[:100], shown[:100])(weights[100:])
    assert min(auc(read[:, p], shown[100:, p]) for p in range(len(IDS))) > 0.95


def test_centre_prior_is_highest_in_the_middle_of_every_frame():
    prior = centre_prior(TokenGrid(2, 3, 5)).reshape(2, 3, 5)
    assert (prior[0] == prior[1]).all()
    assert np.unravel_index(prior[0].argmax(), (3, 5)) == (1, 2)


def test_image_free_control_never_looks_at_a_latent(pipeline, tmp_path):
    cache = open_cache(tmp_path, pipeline.vae, pipeline.tokenizer, 3)
    blind = LatentCache(np.full_like(cache.latents, np.nan), cache.ids, cache.masks, cache.phenomena)
    recipe = ImageFreeRecipe(steps=3, batch=2, width=16)
    maps = [
        image_free_maps(train_image_free(c, pipeline.text_encoder, recipe), c, pipeline.text_encoder)
        for c in (cache, blind)
    ]
    assert maps[0].shape == (3, 320, len(IDS))
    assert np.isfinite(maps[0]).all()
    assert np.array_equal(*maps)


# --- flow -------------------------------------------------------------------------------------------------------------


def test_paired_differences_are_taken_clip_by_clip():
    base, other = np.array([1.0, 5.0, 9.0]), np.array([0.9, 4.9, 8.9])
    acting = np.array([np.nan, 1.0, 1.0])
    level = compare(0.5, {BACKBONE: ClipLosses(base, acting), BRANCH: ClipLosses(other, acting)})
    difference = level.everywhere[BRANCH].difference
    assert difference.value == pytest.approx(-0.1)
    assert difference.high < 0
    assert level.everywhere[BACKBONE].difference is None
    assert level.acting[BRANCH].difference.n == 2


def test_untrained_branch_changes_no_loss(pipeline, zero_branch, tmp_path):
    pipeline.branch.load_state_dict(zero_branch.state_dict())
    cache = open_cache(tmp_path, pipeline.vae, pipeline.tokenizer, 3, WorldSet(split="wordings"))
    models = predictors(pipeline, None)
    examples = WorldExamples(cache, pipeline.text_encoder)
    losses = [clip_losses(models[name], examples, 0.5, 2) for name in (BACKBONE, BRANCH)]
    assert np.array_equal(losses[0].everywhere, losses[1].everywhere)
    assert np.array_equal(losses[0].acting, losses[1].acting, equal_nan=True)
    assert pipeline.attachment.enabled


# --- from end to end --------------------------------------------------------------------------------------------------


@pytest.fixture
def model_folder(pipeline, tmp_path) -> Path:
    folder = tmp_path / "model"
    pipeline.save_pretrained(folder)
    return folder


def test_sheet_command(model_folder, tmp_path, capsys, monkeypatch):
    assert len(FIXED_PROMPTS) == 24
    monkeypatch.setattr(prompts, "FIXED_PROMPTS", FIXED_PROMPTS[:4])
    out = tmp_path / "docs" / "sheet.png"
    cli.main(["sheet", "--model", str(model_folder), "--out", str(out), "--routing", "--steps", "1"])
    assert out.stat().st_size < MAX_BYTES
    assert "4 clips" in capsys.readouterr().out


def test_recogniser_and_recognition_commands(model_folder, tmp_path, capsys, monkeypatch):
    work = ["--work", str(tmp_path)]
    cli.main(["recogniser", *work, "--clips", "12", "--test-clips", "10", "--steps", "2"])
    assert "exact:" in capsys.readouterr().out
    monkeypatch.setattr(held_out, "training_captions", frozenset)
    command = ["recognition", "--model", str(model_folder), *work, "--prompts", "4", "--batch", "2", "--steps", "1"]
    cli.main(command)
    assert "two phenomena, both" in capsys.readouterr().out
    result = json.loads((tmp_path / "evaluation" / "recognition.json").read_text())
    assert result["branch"] is True
    assert len(result["verdicts"]) == 4
    cli.main([*command, "--no-branch"])
    assert json.loads((tmp_path / "evaluation" / "recognition-no-branch.json").read_text())["branch"] is False


def test_localisation_and_flow_commands(model_folder, tmp_path, capsys):
    common = ["--model", str(model_folder), "--work", str(tmp_path), "--clips", "4", "--batch", "2"]
    small = ["--match-clips", "4", "--train-clips", "3", "--control-steps", "2"]
    cli.main(["localisation", *common, *small])
    assert "image-free control" in capsys.readouterr().out
    result = json.loads((tmp_path / "evaluation" / "localisation.json").read_text())
    assert [level["noise"] for level in result["levels"]] == [0.2, 0.5, 0.8, 0.95]
    assert sum(result["use"]["topk"]) == pytest.approx(1)
    assert {CROSS, FEATURES} <= result["levels"][0]["scores"].keys(), "the backbone's own attention"
    cli.main(["flow", *common, "--control", str(model_folder)])
    assert "branch minus control" in capsys.readouterr().out
    level = json.loads((tmp_path / "evaluation" / "flow.json").read_text())["levels"][0]
    assert level["everywhere"]["control"]["difference"]["value"] == 0, "the control is the backbone itself here"


def test_commands_say_what_is_missing(model_folder, tmp_path):
    common = ["--model", str(model_folder), "--work", str(tmp_path)]
    with pytest.raises(ValueError, match="leave --no-branch out"):
        cli.main(["localisation", *common, "--no-branch"])
    with pytest.raises(ValueError, match="give a --control"):
        cli.main(["flow", *common, "--no-branch"])
    with pytest.raises(FileNotFoundError, match="holds no transformer"):
        cli.main(["flow", *common, "--control", str(tmp_path / "nowhere")])
    assert load(model_folder).attachment is not None


# --- training curves --------------------------------------------------------------------------------------------------


def test_the_curves_page_draws_every_run_of_a_folder_and_needs_no_network(tmp_path: Path, capsys):
    about = {"recipe_name": "x", "base": "", "recipe": {"steps": 2}, "processes": 1, "trained_parameters": 3}
    train = {"kind": "train", "gradient_norms": {"all": 0.5}, "rate": 0.1, "seconds_per_step": 1.0, "waiting": 0.0}
    checked = {"vae": {"scores": {"psnr": 31.25}}, "<b>base</b>": {"diffusion": {"0.2": 0.1234}}}
    for name, found in checked.items():
        folder = tmp_path / name.replace("/", "-")
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps(about))
        lines = [{**train, "step": step, "losses": {"total": 1 / step}} for step in (1, 2)]
        lines.append({"kind": "validation", "step": 2, **found})
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    cli.main(["curves", "--work", str(tmp_path)])
    assert "2 trainings" in capsys.readouterr().out
    page = (tmp_path / "curves.html").read_text()
    assert "<script src" not in page, "the page asks another machine for plotly"
    assert "&lt;b&gt;base" in page
    assert page.count("Training losses") == 2
    for heading in ("Held-out loss", "Held-out scores"):
        assert page.count(heading) == 1


def test_curves_of_a_folder_without_trainings_are_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="holds no training: give what prophy train has as --out"):
        cli.main(["curves", "--work", str(tmp_path)])
