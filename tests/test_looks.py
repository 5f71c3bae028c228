"""The judge of looks and what it measures, at toy size; what the worlds show of their colours; the fixed prompts."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import UMT5EncoderModel

from prophy.evaluation import cli
from prophy.evaluation.judges import looks as judge
from prophy.evaluation.judges.looks import (
    LooksJudge,
    error_of,
    load_looks_judge,
    loss_of,
    read_looks,
    train_looks_judge,
)
from prophy.evaluation.judges.looks_renders import (
    LOOKED_AT,
    PAIRS,
    hide_a_ball,
    mirrored,
    render_looks,
    shown_in,
    truth_of,
    without_lost_balls,
)
from prophy.evaluation.judges.pictures import seen, stacked
from prophy.evaluation.measures.looks import renders_of, score, verdicts_of
from prophy.evaluation.prompts import held_out
from prophy.evaluation.prompts.fixed import PLAIN_PROMPTS, fixed_prompts
from prophy.evaluation.prompts.held_out import NEW, PAIR, USUAL, held_out_prompts
from prophy.evaluation.results.looks import (
    AUTOENCODER,
    LAWFUL,
    REAL,
    UNLAWFUL,
    LooksJudgeResult,
    LooksRecipe,
    LooksResult,
    PromptLooks,
    Shown,
)
from prophy.phenomena import IDS
from prophy.tiny.text import PLACES, SCENES, build_tokenizer
from prophy.training.progress import TrainingStopped
from prophy.worlds import COLOURS, HELD_OUT_PAIRS, Placed, Scenario, Stage, sample_clip, sample_scenario
from prophy.worlds.event import kind_of
from prophy.worlds.language import PLAIN
from prophy.worlds.language.grammar import words_of
from prophy.worlds.sample import render, sample_telling

SMALL = LooksRecipe(phenomena=IDS, clips=12, test_clips=6, steps=2, batch=4, width=8)
WIDE = Stage(96, 64, 17, 8)


def placed(phenomenon: str, variant: str, place: str = "centre", *colours: str) -> Placed:
    return Placed(phenomenon, variant, colours, place)


# --- what is there ----------------------------------------------------------------------------------------------------


def test_truth_says_scene_colours_and_number_of_every_place():
    scenario = Scenario(
        (placed("collision", "balls", "left", "red", "blue"), placed("combustion", "logs", "right")), "day"
    )
    truth = truth_of(scenario)
    names = list(COLOURS)
    assert truth[PLACES.index("centre")].tolist() == [0, 0, 0, 0]
    balls = [1 + SCENES.index(("collision", "balls")), 1 + names.index("red"), 1 + names.index("blue"), 2]
    assert truth[PLACES.index("left")].tolist() == balls
    assert truth[PLACES.index("right")].tolist() == [1 + SCENES.index(("combustion", "logs")), 0, 0, 1]
    assert shown_in(truth) == (
        Shown("collision", "balls", "left", ("red", "blue"), 2),
        Shown("combustion", "logs", "right", (), 1),
    )


def test_mirrored_truth_is_that_of_the_mirrored_clip():
    scenario = Scenario(
        (placed("collision", "balls", "left", "red", "blue"), placed("melting", "block", "right", "green")), "day"
    )
    other = Scenario(
        (placed("collision", "balls", "right", "blue", "red"), placed("melting", "block", "left", "green")), "day"
    )
    truth = truth_of(scenario)[None]
    assert (mirrored(truth)[0] == truth_of(other)).all()
    assert (mirrored(mirrored(truth)) == truth).all()


@pytest.mark.parametrize("hidden", [0, 1])
def test_a_hidden_ball_is_out_of_sight_and_the_other_is_left(hidden: int):
    scenario, _ = sample_scenario(5, "test", ("collision",))
    made = partial(sample_clip, 5, "test", ("collision",))
    whole = made().frames.astype(int)
    frames, truth = hide_a_ball(made, truth_of(scenario), hidden)
    place = PLACES.index(scenario.events[0].place)
    assert shown_in(truth)[0].colours == (scenario.events[0].colours[1 - hidden],)
    assert truth[place, 2:].tolist() == [0, 1]
    changed = np.abs(frames - whole).max(-1) > 0
    centre = np.flatnonzero(changed[0].any(0)).mean()
    balls = made().states[0]["position"][0, :, 0]
    assert abs(centre - balls[hidden]) < abs(centre - balls[1 - hidden]), "the other ball was hidden"
    assert changed[0].any()
    assert not changed[0, :, int(balls[1 - hidden])].any(), "the other ball moved"


def test_a_ball_that_has_left_in_every_frame_is_not_asked():
    clip = sample_clip(448, "test", IDS, Stage(192, 128, 17, 8), lawful=False)
    truth = truth_of(clip.scenario)
    (balls,) = (event for event in clip.scenario.events if event.variant == "balls")
    left = without_lost_balls(clip, truth)
    (shown,) = (one for one in shown_in(left) if one.variant == "balls")
    assert (shown.colours, shown.number) == (balls.colours[1:], 1), "the blue ball is nowhere in this clip"
    lawful = sample_clip(448, "test", IDS, lawful=True)
    assert (without_lost_balls(lawful, truth) == truth).all()


def test_every_second_training_render_obeys_no_law_and_some_pairs_lack_a_ball():
    recipe = replace(SMALL, phenomena=("collision",), lone=0.5)
    frames, truth = render_looks(range(12), "train", recipe)
    plain = replace(recipe, lone=0.0)
    again, whole = render_looks(range(12), "train", plain)
    lone = (truth[..., 3] == 1).any(1)
    assert 0 < lone.sum() < 12
    assert ((frames == again).all((1, 2, 3, 4)) == ~lone).all()
    for kind in (True, False):
        known, _ = render_looks(range(12), "train", plain, lawful=kind)
        same = (known == again).all((1, 2, 3, 4))
        assert same[0 if kind else 1 :: 2].all()
        assert not same.all()
    assert (whole[..., 3].max(1) == 2).all()


def colour_seen_at(scene: tuple[str, str], colour: int, moments: int = 5) -> list[bool]:
    """Whether another colour changes at least four pixels by 40 levels, at some moments from the first to the last."""
    scenario = Scenario((placed(*scene, "left", *list(COLOURS)[: kind_of(*scene).colour_count]),), "day")
    colours = list(scenario.events[0].colours)
    colours[colour] = "purple"
    other = Scenario((placed(*scene, "left", *colours),), "day")
    a, b = (render(one, np.random.default_rng(3), stage=WIDE)[0] for one in (scenario, other))
    at = np.linspace(0, WIDE.frames - 1, moments).round().astype(int)
    apart = np.abs(a[at].astype(int) - b[at]).max(-1) >= 40
    return (apart.sum((1, 2)) >= 4).tolist()


@pytest.mark.parametrize("scene", [scene for scene in SCENES if scene != ("combustion", "logs")], ids="-".join)
def test_every_colour_can_be_seen_at_every_moment(scene: tuple[str, str]):
    for colour in range(2 if scene == ("collision", "balls") else 1):
        assert all(colour_seen_at(scene, colour))


def test_numbers_are_said_of_pairs_alone():
    for seed in range(400):
        for told in sample_telling(seed, "test", grammar=PLAIN)[1].events:
            assert told.number == 0 or (told.phenomenon, told.variant) in PAIRS, told


# --- the judge --------------------------------------------------------------------------------------------------------


def test_the_judge_does_not_see_how_things_move():
    torch.manual_seed(0)
    model = LooksJudge(8).eval()
    clip = sample_clip(3, "test", IDS, lawful=False).frames[None]
    looked = seen(clip, LOOKED_AT)
    mixed = looked[:, np.random.default_rng(0).permutation(LOOKED_AT)]
    with torch.no_grad():
        for a, b in zip(model(stacked(looked)), model(stacked(mixed)), strict=True):
            assert torch.allclose(a, b, atol=1e-5)


def test_left_and_right_of_a_mirrored_clip_are_read_as_right_and_left():
    """With filters that are their own mirror images: the places share one head."""
    torch.manual_seed(0)
    model = LooksJudge(8).eval()
    for conv in (each for each in model.modules() if isinstance(each, torch.nn.Conv2d)):
        conv.weight.data = (conv.weight.data + conv.weight.data.flip(-1)) / 2
    first = model.frame[1].weight  # reads squares of 2×2 pixels, unfolded into channels
    folded = first.data.unflatten(1, (3, 2, 2))
    first.data = ((folded + folded.flip(3)) / 2).flatten(1, 3)
    x = torch.randn(2, 3 * LOOKED_AT, 32, 48)
    strides = [each for each in model.modules() if isinstance(each, torch.nn.Conv2d) and each.stride == (2, 2)]
    for conv in strides:
        conv.stride = (1, 1)
    with torch.no_grad():
        there, back = model(x), model(x.flip(-1))
    assert [one.shape for one in there] == [(2, 3, 22), (2, 3, 7), (2, 3, 7), (2, 3, 3)]
    for a, b in zip(there, back, strict=True):
        assert torch.allclose(a[:, 1], b[:, 2], atol=1e-4)
        assert torch.allclose(a[:, 2], b[:, 1], atol=1e-4)


def test_the_loss_asks_only_what_has_an_answer():
    truth = torch.zeros(1, 3, 4, dtype=torch.long)
    truth[0, 1] = torch.tensor([1 + SCENES.index(("combustion", "logs")), 0, 0, 1])
    logits = [torch.zeros(1, 3, count, requires_grad=True) for count in (22, 7, 7, 3)]
    loss_of(logits, truth).backward()
    assert (logits[0].grad != 0).any(-1).tolist() == [[True, True, True]], "every place is asked for its scene"
    assert not logits[1].grad.any(), "a scene without colours"
    assert not logits[2].grad.any(), "one colour has no second"
    assert (logits[3].grad != 0).any(-1).tolist() == [[False, True, False]]


def test_the_judge_learns_a_handful_of_clips_and_says_how_wrong_it_is():
    recipe = replace(SMALL, phenomena=("melting", "gas_motion"), clips=6, steps=100, batch=6, width=16, nothing=0.0)
    frames, truth = render_looks(range(6), "train", recipe)
    model = judge.fit(frames, truth, recipe)
    error = error_of(model, frames, truth)
    assert error.by_question["scene"].value >= 0.9
    assert np.isnan(error.by_question["second colour"].value), "no scene has one"
    assert set(error.by_scene) <= {"melting, block", "gas_motion, smoke"}
    wrong = truth.copy()
    wrong[..., 1] = np.where(truth[..., 1] > 0, truth[..., 1] % 6 + 1, 0)
    assert error_of(model, frames, wrong).exact.value <= 1 - error.exact.value
    assert error_of(model, frames, wrong).by_question["scene"] == error.by_question["scene"]


def test_a_training_is_resumed_and_the_judge_reopens_as_saved(tmp_path: Path):
    with pytest.raises(TrainingStopped, match="start it again to resume"):
        train_looks_judge(tmp_path / "stopped", SMALL, minutes=0.0)
    frames, _ = render_looks(range(3), "test", SMALL)
    results = [train_looks_judge(tmp_path / folder, SMALL) for folder in ("stopped", "whole")]
    first, second = (load_looks_judge(tmp_path / folder) for folder in ("stopped", "whole"))
    assert (read_looks(first, frames) == read_looks(second, frames)).all()
    assert results[0] == results[1] == LooksJudgeResult.load(tmp_path / "whole")
    assert list(results[0].errors) == [LAWFUL, UNLAWFUL]
    assert first.stage == SMALL.stage
    with pytest.raises(ValueError, match="generate them so"):
        read_looks(first, np.zeros((1, 17, 32, 64, 3), np.uint8))


def test_a_missing_judge_names_the_command(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="prophy evaluate looks-judge"):
        load_looks_judge(tmp_path)


# --- held-out prompts -------------------------------------------------------------------------------------------------


def test_prompts_of_three_kinds_say_what_they_ask_for():
    kinds = (USUAL, NEW, PAIR)
    prompts = held_out_prompts(18, frozenset(), IDS, grammar="plain", kinds=kinds)
    assert prompts == held_out_prompts(18, frozenset(), IDS, grammar="plain", kinds=kinds)
    for i, one in enumerate(prompts):
        assert one.wording == kinds[i % 3]
        assert one.telling.text == one.prompt
        told = {(e.phenomenon, e.variant, e.place) for e in one.telling.events}
        assert told == {(e.phenomenon, e.variant, e.place) for e in one.scenario.events}
        assert (frozenset(one.phenomena) in HELD_OUT_PAIRS) == (one.wording == PAIR)


def test_the_fixed_prompts_in_plain_words_are_two_of_each_phenomenon_and_held_out():
    asked = Counter(name for one in PLAIN_PROMPTS for name in one.phenomena)
    assert asked == dict.fromkeys(IDS, 2)
    assert len({one.seed for one in PLAIN_PROMPTS}) == len({one.prompt for one in PLAIN_PROMPTS}) == 34
    captions = [sample_telling(seed, grammar=PLAIN)[1].text for seed in range(8000)]
    known = {word for text in captions for word in words_of(text)}
    assert {word for one in PLAIN_PROMPTS for word in words_of(one.prompt)} <= known
    assert not {one.prompt for one in PLAIN_PROMPTS} & set(captions)
    assert fixed_prompts("plain") is PLAIN_PROMPTS


# --- the measure ------------------------------------------------------------------------------------------------------

RED_BALL = Shown("elastic_motion", "ball", "left", ("red",), 0)
FIRE = Shown("combustion", "logs", "right", (), 0)


def seen_as(asked: tuple[Shown, ...], *found: Shown) -> tuple[bool, ...]:
    """Things, colours, places, all, and nothing besides, of one prompt."""
    one = score([PromptLooks("", 0, USUAL, asked, found)])
    return tuple(bool(x.value) for x in (one.things, one.colours, one.places, one.all, one.exactly))


def test_score_tells_things_colours_and_places_apart():
    asked = (RED_BALL, FIRE)
    ball, fire = replace(RED_BALL, number=1), replace(FIRE, number=1)
    assert seen_as(asked, ball, fire) == (True, True, True, True, True)
    assert seen_as(asked, fire, ball) == (True, True, True, True, True)
    assert seen_as(asked, ball) == (False, False, False, False, False)
    assert seen_as(asked, replace(ball, colours=("blue",)), fire) == (True, False, True, False, False)
    assert seen_as(asked, replace(ball, place="right"), replace(fire, place="left")) == (
        True,
        True,
        False,
        False,
        False,
    )
    assert seen_as(asked[:1], ball, fire) == (True, True, True, True, False)
    assert seen_as(asked[:1], replace(ball, variant="spring")) == (False,) * 5


def test_score_leaves_open_what_a_prompt_does_not_say_and_the_order_of_two_colours():
    pair = Shown("collision", "balls", "centre", ("red", "blue"), 2)
    assert all(seen_as((pair,), replace(pair, colours=("blue", "red"))))
    assert all(seen_as((replace(pair, colours=(None, "red"), number=0),), pair))
    assert all(seen_as((replace(pair, colours=(None, None), number=0),), replace(pair, colours=("green",), number=1)))
    assert seen_as((pair,), replace(pair, colours=("red",), number=1)) == (False,) * 5, "one ball is missing"
    assert not seen_as((pair,), replace(pair, colours=("red", "green")))[1]


def test_one_thing_does_not_count_for_two():
    left, right = (Shown("combustion", "candle", place, (None,), 0) for place in ("left", "right"))
    candle = replace(left, colours=("red",), number=1)
    assert not seen_as((left, right), candle)[0]
    assert all(seen_as((left, right), candle, replace(candle, place="right")))


def test_score_counts_events_by_phenomenon_and_prompts_by_wording():
    ball = replace(RED_BALL, number=1)
    verdicts = [PromptLooks("a", 0, USUAL, (RED_BALL, FIRE), (ball,)), PromptLooks("b", 1, NEW, (RED_BALL,), (ball,))]
    made = score(verdicts)
    assert (made.single.value, made.single.n) == (1, 1)
    assert (made.both.value, made.both.n) == (0, 1)
    assert {name: share.value for name, share in made.by_phenomenon.items()} == {"combustion": 0, "elastic_motion": 1}
    assert {kind: share.value for kind, share in made.by_wording.items()} == {USUAL: 0, NEW: 1}


def test_real_renders_of_prompts_show_them_to_a_judge_that_never_errs():
    prompts = held_out_prompts(8, frozenset(), IDS, grammar="plain")
    truth = np.stack([truth_of(one.scenario) for one in prompts])
    made = score(verdicts_of(prompts, truth))
    assert made.exactly.value == 1
    clips = renders_of(prompts[:2], WIDE)
    assert clips.shape == (2, 17, 64, 96, 3)
    assert (clips == renders_of(prompts[:2], WIDE)).all()


# --- from end to end --------------------------------------------------------------------------------------------------


@pytest.fixture
def model_folder(tiny_pipeline, tmp_path: Path) -> Path:
    """A small random model that knows the prompts used here."""
    torch.manual_seed(8)
    kinds = (USUAL, NEW, PAIR)
    texts = [one.prompt for one in held_out_prompts(6, frozenset(), IDS, grammar="plain", kinds=kinds)]
    tokenizer = build_tokenizer(texts + [one.prompt for one in PLAIN_PROMPTS])
    config = tiny_pipeline.text_encoder.config
    config.vocab_size = len(tokenizer)
    tiny_pipeline.register_modules(tokenizer=tokenizer, text_encoder=UMT5EncoderModel(config).eval())
    folder = tmp_path / "model"
    tiny_pipeline.save_pretrained(folder)
    return folder


def test_looks_commands_train_the_judge_and_measure_a_model(model_folder: Path, tmp_path: Path, capsys, monkeypatch):
    work = ["--work", str(tmp_path)]
    command = ["looks-judge", *work, "--clips", "12", "--test-clips", "4", "--steps", "2", "--phenomena", "all"]
    cli.main([*command, "--model", str(model_folder), "--decoded-clips", "2", "--size", "96x64x17"])
    out = capsys.readouterr().out
    assert "unlawful renders, through the autoencoder" in out
    assert "gate 98 %" in out
    result = LooksJudgeResult.load(tmp_path)
    assert [error.exact.n for error in result.errors.values()] == [4, 2, 4, 2]

    monkeypatch.setattr(held_out, "training_captions", lambda **kinds: frozenset())
    command = ["looks", "--model", str(model_folder), *work, "--prompts", "6", "--renders", "2", "--steps", "1"]
    command += ["--grammar", "plain", "--batch", "3"]
    cli.main([*command, "--no-branch"])
    assert "gate 95 %" in capsys.readouterr().out
    alone = LooksResult.load(tmp_path, "looks-no-branch")
    assert list(alone.scores) == ["backbone alone", REAL, AUTOENCODER]
    assert (alone.scores[alone.column].all.n, alone.scores[REAL].all.n) == (6, 2)
    assert [one.wording for one in alone.verdicts] == [USUAL, NEW, PAIR] * 2
    assert alone.size == "96x64x17"
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "evaluation").glob("clips/*/*.npz")}
    assert len(made) == 6
    cli.main([*command, "--no-branch"])
    assert {path: path.stat().st_mtime_ns for path in made} == made, "clips were made twice"
    cli.main([*command, "--renders", "0"])
    assert list(LooksResult.load(tmp_path).scores) == ["with the branch"]


def test_sheet_of_the_plain_prompts_for_a_model_without_its_branch(model_folder: Path, tmp_path: Path, capsys):
    out = tmp_path / "sheet.png"
    flags = ["--grammar", "plain", "--no-branch", "--size", "96x64x17", "--steps", "1", "--batch", "17"]
    cli.main(["sheet", "--model", str(model_folder), "--out", str(out), *flags])
    assert "34 clips" in capsys.readouterr().out


def test_laws_of_a_base_stand_beside_those_of_unlawful_renders(model_folder: Path, tmp_path: Path):
    flags = ["--clips", "3", "--split", "test", "--steps", "1", "--no-branch", "--unlawful"]
    flags += ["--phenomena", "all", "--size", "96x64x17", "--grammar", "plain"]
    cli.main(["laws", "--model", str(model_folder), "--work", str(tmp_path), *flags])
    result = json.loads((tmp_path / "evaluation" / "laws.json").read_text())
    columns = result["scores"]["test"]
    assert list(columns) == ["real", "unlawful", "autoencoder", "backbone"]
    assert columns["real"]["obeyed"]["value"] > columns["unlawful"]["obeyed"]["value"]
    assert columns["unlawful"]["minus_backbone"] is None
    assert result["size"] == "96x64x17"
