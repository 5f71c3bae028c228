"""The vision-language model of our own: questions that need looking, learning, exact resuming, and its evaluation."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from prophy.annotation.annotator import Annotator
from prophy.annotation.config import BACKGROUND_QUESTION, read_config
from prophy.annotation.vlm import VisionLanguageModel
from prophy.data.jobs import WORLDS
from prophy.evaluation.measures.annotation import evaluate_annotation, of_other_clips, read_layers
from prophy.evaluation.report.format import sentence
from prophy.evaluation.report.sections import read_sections
from prophy.evaluation.results.annotation import OTHER_CLIP, TARGETS, WRONG
from prophy.evaluation.results.localisation import UNIFORM
from prophy.phenomena import BY_ID, by_id
from prophy.tiny.attention import fast_vlm_attention
from prophy.tiny.vlm import VlmRecipe, build_optimiser, build_vlm, exact_answers, train_vlm
from prophy.tiny.vlm_batches import Batches, Words, tower_loss, vlm_loss
from prophy.tiny.vlm_lessons import (
    ANNOTATION,
    WHICH_QUESTION,
    Course,
    Lessons,
    build_tokenizer,
    questions_and_answers,
)
from prophy.training.checkpoints import load_checkpoint, save_checkpoint
from prophy.training.log import read_lines
from prophy.worlds import COLOURS, Stage, sample_clip
from prophy.worlds.captions import TEMPLATES
from prophy.worlds.scope import SCOPE

CPU = torch.device("cpu")
STAGE = Stage()
SMALL = VlmRecipe(
    clips=8, tower_steps=2, steps=4, cool_down=2, warm_up=2, batch=3, width=64, heads=2, layers=2, vision_layers=1
)


@pytest.fixture(scope="module")
def lessons(tmp_path_factory) -> Lessons:
    return Lessons(tmp_path_factory.mktemp("lessons"), 8, "train")


@pytest.fixture(scope="module")
def vlm() -> VisionLanguageModel:
    tokenizer = build_tokenizer()
    return VisionLanguageModel(build_vlm(SMALL, tokenizer), tokenizer)


def test_the_tokenizer_knows_every_word_of_every_question_and_answer(lessons):
    tokenizer = build_tokenizer()
    course = Course((0, 2), (2, 0), 0)
    texts = [phenomenon.question for phenomenon in BY_ID.values()]
    for seed in range(60):
        scenario = sample_clip(seed, "train", ("melting", "collision")).scenario if seed < 2 else None
        if scenario:
            answers = questions_and_answers(scenario, [course] * len(scenario.events))
            texts += [*answers, *answers.values()]
    texts += [TEMPLATES[key][1][0].format(colour, colour) for key in TEMPLATES for colour in COLOURS]
    texts += [text for answers in lessons.answers for pair in answers.items() for text in pair]
    unknown = tokenizer.convert_tokens_to_ids("<unk>")
    for text in texts:
        assert unknown not in tokenizer(text)["input_ids"], text


def test_an_answer_says_where_the_mask_begins_and_ends_and_how_its_area_changes():
    mask = np.zeros((STAGE.frames, STAGE.height, STAGE.height), bool)
    mask[3, 2:8, 2:8] = True  # top left, 36 pixels
    mask[9, 50:62, 50:60] = True  # bottom right, 120 pixels
    assert Course.of(mask) == Course((0, 0), (2, 2), 2)
    assert Course.of(mask).describe() == "from the top left to the bottom right, growing"
    assert Course.of(mask[:, ::-1, :][::-1]).describe() == "from the top right to the bottom left, shrinking"
    mask[9] = mask[3]
    assert Course.of(mask).describe() == "staying at the top left, steady"


def test_questions_are_the_annotators_own_and_answers_name_thing_colour_and_place(lessons):
    for seed, answers in enumerate(lessons.answers):
        scenario = sample_clip(seed, "train", SCOPE).scenario
        assert list(answers)[:2] == [BACKGROUND_QUESTION, WHICH_QUESTION]
        assert scenario.setting in answers[BACKGROUND_QUESTION]
        for event in scenario.events:
            said = answers[by_id(event.phenomenon).question]
            assert all(colour in said for colour in event.colours)
            assert {"left": "on the left", "right": "on the right", "centre": "in the middle"}[event.place] in said


def test_questions_packed_together_are_predicted_as_alone(vlm, lessons):
    """A packed row is what the annotator reads: same positions, and no question sees another."""
    batches = Batches(vlm)
    batch = batches.make(lessons, np.array([0]))
    with torch.no_grad():
        packed = vlm.model(
            input_ids=batch.ids_BL,
            position_ids=batch.positions_3BL,
            attention_mask=batch.sees_B1LL,
            pixel_values_videos=batch.patches,
            video_grid_thw=batch.grid_B3,
            use_cache=False,
        ).logits[0]
    prefix = int((batch.ids_BL[0] == vlm.video_id).nonzero()[-1]) + 2  # the video's end mark follows its tokens
    start, largest = prefix, 0.0
    for question, answer in lessons.answers[0].items():
        ids = vlm.question_ids(question) + vlm.tokenizer(answer, add_special_tokens=False)["input_ids"]
        whole = torch.tensor([[*batch.ids_BL[0, :prefix].tolist(), *ids]])
        with torch.no_grad():
            alone = vlm.model(
                input_ids=whole,
                mm_token_type_ids=(whole == vlm.video_id).int() * 2,
                pixel_values_videos=batch.patches,
                video_grid_thw=batch.grid_B3,
                second_per_grid_ts=torch.tensor([STAGE.frames / STAGE.fps / 4]),
                use_cache=False,
            ).logits[0, -len(ids) :]
        largest = max(largest, (packed[start : start + len(ids)] - alone).abs().max().item())
        start += len(ids) + 1
    assert largest < 1e-4


def test_fast_attention_is_the_stock_attention(vlm, lessons):
    batch = Batches(vlm).make(lessons, np.arange(3))
    inputs = {
        "input_ids": batch.ids_BL,
        "position_ids": batch.positions_3BL,
        "attention_mask": batch.sees_B1LL,
        "pixel_values_videos": batch.patches,
        "video_grid_thw": batch.grid_B3,
        "use_cache": False,
    }
    with torch.no_grad():
        stock = vlm.model.model(**inputs).last_hidden_state
        with fast_vlm_attention(vlm.model):
            fast = vlm.model.model(**inputs).last_hidden_state
    assert vlm.text_config._attn_implementation == "sdpa"
    torch.testing.assert_close(fast, stock, atol=2e-5, rtol=1e-4)


def test_the_loss_on_one_batch_falls(lessons):
    tokenizer = build_tokenizer()
    model = build_vlm(SMALL, tokenizer)
    batch = Batches(VisionLanguageModel(model, tokenizer)).make(lessons, np.arange(3))
    optimiser = build_optimiser(model, replace(SMALL, muon_rate=0.02, weight_decay=0.0))
    losses = []
    for _ in range(30):
        loss = vlm_loss(model, batch)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0], losses


def test_the_tower_learns_words_from_whole_clips(lessons):
    tokenizer = build_tokenizer()
    model = build_vlm(SMALL, tokenizer)
    words = Words(tokenizer, lessons)
    held = tokenizer(" ".join(lessons.answers[0].values()), add_special_tokens=False)["input_ids"]
    assert set(words.held_nX[0].nonzero()[:, 0].tolist()) == set(held)
    rows = np.arange(4)
    batch = Batches(VisionLanguageModel(model, tokenizer)).make(lessons, rows)
    optimiser = build_optimiser(model, replace(SMALL, muon_rate=0.02, weight_decay=0.0))
    decoder = model.model.language_model.layers[0].mlp.down_proj.weight.detach().clone()
    losses = []
    for _ in range(20):
        loss = tower_loss(model, batch, words, rows)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0], losses
    assert torch.equal(model.model.language_model.layers[0].mlp.down_proj.weight, decoder)


def test_a_resumed_training_is_bit_identical_and_another_recipe_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("prophy.tiny.vlm._HELD_OUT", 2)
    train_vlm(tmp_path / "whole", SMALL, CPU, checkpoint_every=3)
    whole = load_checkpoint(tmp_path / "whole" / "vlm" / "checkpoint")
    assert whole["step"] == 6
    rows = [line for line in read_lines(tmp_path / "whole" / "vlm") if line["kind"] == "validation"]
    assert [row["step"] for row in rows] == [3, 6]
    assert {"brief", "which", "phenomenon", "thing"} <= rows[0]["scores"].keys()

    def save_and_die(folder, state):
        save_checkpoint(folder, state)
        raise KeyboardInterrupt

    stopped = tmp_path / "stopped"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prophy.training.fit.save_checkpoint", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            train_vlm(stopped, SMALL, CPU, checkpoint_every=3)
    assert load_checkpoint(stopped / "vlm" / "checkpoint")["step"] == 3
    train_vlm(stopped, SMALL, CPU, checkpoint_every=3)
    again = load_checkpoint(stopped / "vlm" / "checkpoint")
    assert again["step"] == 6
    for part in ("model", "ema"):
        for name, tensor in whole[part].items():
            assert torch.equal(tensor, again[part][name]), name
    with pytest.raises(ValueError, match="another recipe .width was 64, now 32.: choose another folder"):
        train_vlm(stopped, replace(SMALL, width=32), CPU)
    annotator = Annotator.from_pretrained(stopped / "model", read_config(stopped / "model"), dtype=torch.float32)
    assert annotator.config == ANNOTATION
    clip = sample_clip(3, "test", SCOPE)
    annotation = annotator.annotate(clip.frames, STAGE.fps, list(clip.masks), WORLDS.grid)
    assert annotation.background.attention.shape == (4, 8, 8)


def test_exact_answers_count_whole_answers(vlm, lessons, monkeypatch):
    said = {}

    def answer(model, prefix, questions, config):
        return [vlm.tokenizer(said[question], add_special_tokens=False)["input_ids"] for question in questions]

    monkeypatch.setattr("prophy.tiny.vlm.answer_questions", answer)
    said.update(lessons.answers[0])
    assert set(exact_answers(vlm, lessons, 1).values()) == {1.0}
    asked = next(q for q in said if q not in (BACKGROUND_QUESTION, WHICH_QUESTION))
    said[asked] = " ".join([*said[asked].split()[:-1], "nowhere"])
    found = exact_answers(vlm, lessons, 1)
    assert found["phenomenon"] < 1
    assert found["thing"] == 1
    assert found["brief"] == 1


# --- the evaluation


def test_targets_are_scored_as_the_annotator_makes_them(vlm, tmp_path):
    annotator = Annotator(vlm.model, vlm.tokenizer, ANNOTATION, name="untrained")
    result = evaluate_annotation(annotator, tmp_path, clips=6, phenomena=("melting", "collision", "explosion"))
    (section,) = read_sections(tmp_path)
    assert "6 clips of the test split; untrained@" in sentence(section.body.notes[0])
    assert result.scores[UNIFORM].energy.value == pytest.approx(1)
    assert {f"layer {layer}" for layer in annotator.vlm.attention_layers} <= result.scores.keys()
    assert {TARGETS, WRONG, OTHER_CLIP} <= result.scores.keys()
    assert set(result.by_phenomenon) <= {"melting", "collision", "explosion"}
    for score in result.scores.values():
        assert 0 <= score.ap.low <= score.ap.value <= score.ap.high <= 1
    every = replace(ANNOTATION, keep_layers=True, layers=annotator.vlm.attention_layers)
    reader = Annotator(vlm.model, vlm.tokenizer, every)
    layers, truth, _, _ = read_layers(reader, 2, "test", SCOPE)
    used = layers.pick([reader.layers.index(layer) for layer in annotator.layers]).differences(relative=True)
    for row in range(2):
        clip = sample_clip(1000 + row, "test", SCOPE)
        targets = annotator.annotate(clip.frames, STAGE.fps, list(clip.masks), WORLDS.grid).targets
        for p in np.flatnonzero(truth.shown_nP[row]):
            mine = used[row, :, p] / used[row, :, p].max()
            # an untrained model looks everywhere alike: the difference is small, and rounding shows in it
            np.testing.assert_allclose(mine, targets.values[:, p], atol=2e-3)


def test_another_clips_map_is_never_ones_own():
    maps = np.arange(12, dtype=np.float32).reshape(4, 3, 1) * np.ones((1, 1, 17), np.float32)
    shown = np.zeros((4, 17), bool)
    shown[[0, 2, 3], 5] = True
    shown[1, 6] = True
    other = of_other_clips(maps, shown)
    for row in (0, 2, 3):
        assert other[row, 0, 5] != maps[row, 0, 5]
        assert other[row, 0, 5] in maps[[0, 2, 3], 0, 5]
    assert not other[1].any()
