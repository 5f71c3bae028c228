"""Annotation: parity with the processor, generate and eager attention, on small random models of each family."""

import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Qwen2VLImageProcessorPil, UMT5Config
from vlms import FAMILIES, make_model, make_tokenizer

from prophy import phenomena
from prophy.annotation import maps
from prophy.annotation.annotator import Annotator
from prophy.annotation.answering import answer_questions, read_video
from prophy.annotation.capture import AnswerAttention, capturable
from prophy.annotation.clips import PatchSizes, frame_indices, pack_clip, pack_frames
from prophy.annotation.config import BACKGROUND_QUESTION, AnnotationConfig
from prophy.annotation.families import family_of
from prophy.annotation.record import Annotation
from prophy.annotation.vlm import VisionLanguageModel
from prophy.grid import TokenGrid

GRID = TokenGrid(3, 4, 5)  #: of the diffusion model; the models below see 4×3×5 video tokens
FPS = 2.0  #: slow enough that Qwen2.5-VL's positions in time outgrow those in space
SIZES = PatchSizes(patch=4, merge=2, temporal=2)
CONFIG = AnnotationConfig(max_answer_tokens=7, min_frame_tokens=12, max_frame_tokens=15)
IDS = ("collision", "interference_and_diffraction", "melting")
QUESTIONS = [BACKGROUND_QUESTION, *(phenomena.by_id(name).question for name in IDS)]


def moving_clip(frames: int = 9, height: int = 24, width: int = 40) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=FAMILIES)
def vlm(request) -> VisionLanguageModel:
    return VisionLanguageModel(make_model(request.param), make_tokenizer())


@pytest.fixture(scope="module")
def clip(vlm):
    return pack_clip(moving_clip(), FPS, vlm.sizes, vlm.family, CONFIG)


@pytest.fixture(scope="module")
def qwen3() -> VisionLanguageModel:
    return VisionLanguageModel(make_model("qwen3_vl"), make_tokenizer())


def run(vlm, clip, questions, config, layers=None, **recorder):
    """Answers and maps of one batch; each layer's own map unless said otherwise."""
    with capturable(vlm.text_config):
        prefix = read_video(vlm, clip)
        keep = AnswerAttention(
            layers or vlm.attention_layers, prefix.columns_V, len(questions), **{"keep_layers": True, **recorder}
        )
        with keep.recording():
            answers = answer_questions(vlm, prefix, questions, config, keep)
    return answers, keep.means_BKV()


@pytest.fixture(scope="module")
def batched(vlm, clip):
    return run(vlm, clip, QUESTIONS, CONFIG)


def whole_prompt(vlm, clip, question) -> dict[str, torch.Tensor]:
    """What ``generate`` and ``forward`` take when nothing is shared."""
    ids = torch.tensor([vlm.prefix_ids(clip) + vlm.question_ids(question)])
    inputs = {
        "input_ids": ids,
        "mm_token_type_ids": (ids == vlm.video_id).int() * 2,
        "pixel_values_videos": torch.from_numpy(clip.patches),
        "video_grid_thw": torch.tensor([clip.patch_grid]),
    }
    if vlm.family.timed_positions:
        inputs["second_per_grid_ts"] = torch.tensor([clip.seconds_per_patch])
    return inputs


# --- the clip as the model sees it


@pytest.mark.parametrize("family", FAMILIES)
def test_patches_are_those_of_the_stock_image_processor(family):
    family, sizes = family_of(family), PatchSizes(14, 2, 2)
    frames = moving_clip(4, 56, 84)
    patches, grid = pack_frames(frames, sizes, family)
    assert grid == (2, 4, 6)
    processor = Qwen2VLImageProcessorPil(
        do_resize=False, image_mean=family.image_mean, image_std=family.image_std, patch_size=14
    )
    patches = patches.reshape(2, 24, 3, 2, 14, 14)
    for index, frame in enumerate(frames):
        stock = processor(images=[frame], return_tensors="np")["pixel_values"].reshape(24, 3, 2, 14, 14)
        np.testing.assert_array_equal(patches[index // 2, :, :, index % 2], stock[:, :, 0])


@pytest.mark.parametrize(("height", "width"), [(50, 90), (11, 200), (300, 500)])
def test_frames_are_resized_as_the_stock_image_processor_resizes_them(height, width):
    config = AnnotationConfig(min_frame_tokens=20, max_frame_tokens=60)
    frames = np.repeat(moving_clip(1, height, width), 2, axis=0)
    packed = pack_clip(frames, 8.0, SIZES, family_of("qwen3_vl"), config)
    processor = Qwen2VLImageProcessorPil(
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        patch_size=4,
        size={"shortest_edge": 20 * 64, "longest_edge": 60 * 64},
    )
    stock = processor(images=[frames[0]], return_tensors="np")
    assert packed.patch_grid == tuple(stock["image_grid_thw"][0])
    assert 20 <= packed.grid[1] * packed.grid[2] <= 60
    np.testing.assert_array_equal(packed.patches, stock["pixel_values"])


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 17, 81, 500])
@pytest.mark.parametrize("fps", [8.0, 24.0])
def test_frames_shown_run_from_the_first_to_the_last_in_whole_temporal_patches(frames, fps):
    config = AnnotationConfig(fps=2.0, min_frames=4, max_frames=32)
    shown = frame_indices(frames, fps, 2, config)
    assert len(shown) % 2 == 0
    assert shown[0] == 0
    assert shown[-1] == frames - 1
    assert (np.diff(shown) >= 0).all()
    assert len(shown) <= 32
    assert frames < 4 or len(shown) >= 4
    assert frames != 81 or len(shown) == {8.0: 20, 24.0: 6}[fps]


def test_a_temporal_patch_lies_in_the_middle_of_its_frames():
    config = replace(CONFIG, fps=8.0)
    packed = pack_clip(moving_clip(9), 8.0, SIZES, family_of("qwen3_vl"), config)
    assert packed.frame_indices == (0, 1, 2, 3, 5, 6, 7, 8)
    assert packed.centres.tolist() == [0.5, 2.5, 5.5, 7.5]
    assert packed.seconds == [0.5 / 8, 2.5 / 8, 5.5 / 8, 7.5 / 8]
    assert packed.grid == (4, 3, 5)
    assert packed.seconds_per_patch == pytest.approx(9 / 8 / 4)


def test_video_tokens_are_found_where_the_family_puts_them(vlm, clip):
    ids = vlm.prefix_ids(clip)
    places = [i for i, token in enumerate(ids) if token == vlm.video_id]
    assert len(places) == np.prod(clip.grid) == 60
    gaps = sum(b - a > 1 for a, b in pairwise(places))
    text = vlm.tokenizer.decode(ids)
    if vlm.family.timestamped:
        assert gaps == clip.grid[0] - 1
        assert [f"<{second:.1f} seconds><|vision_start|>" in text for second in clip.seconds] == [True] * clip.grid[0]
    else:
        assert gaps == 0
        assert "seconds" not in text
    assert text.endswith("<|video_pad|><|vision_end|>")


def test_patches_lie_in_the_order_of_the_grid_of_video_tokens():
    packed = pack_clip(moving_clip(), FPS, SIZES, family_of("qwen3_vl"), CONFIG)
    frames = np.zeros((8, 24, 40, 3), np.uint8)
    t, row, column = 2, 1, 3
    frames[2 * t : 2 * t + 2, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 255
    patches, grid = pack_frames(frames, SIZES, family_of("qwen3_vl"))
    assert grid == packed.patch_grid == (4, 6, 10)
    lit = np.flatnonzero((patches > 0).any(1))
    token = (t * packed.grid[1] + row) * packed.grid[2] + column
    assert lit.tolist() == list(range(4 * token, 4 * token + 4))  # the four patches that merge into one token


# --- answers and maps


def test_answers_are_those_of_stock_generate(vlm, clip, batched):
    for question, answer in zip(QUESTIONS, batched[0], strict=True):
        inputs = whole_prompt(vlm, clip, question)
        out = vlm.model.generate(**inputs, max_new_tokens=CONFIG.max_answer_tokens, do_sample=False)
        assert out[0, inputs["input_ids"].shape[1] :].tolist() == answer, question
    assert len({tuple(answer) for answer in batched[0]}) > 1, "the questions make no difference"


def test_maps_are_those_of_eager_attention_without_a_shared_prefix(vlm, clip, batched):
    answers, means_BKV = batched
    largest = 0.0
    for row, question in enumerate(QUESTIONS):
        inputs = whole_prompt(vlm, clip, question)
        prompt = inputs["input_ids"].shape[1]
        inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([answers[row]])], 1)
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == vlm.video_id).int() * 2
        vlm.text_config._attn_implementation = "eager"
        try:
            with torch.no_grad():
                attentions = vlm.model(**inputs, output_attentions=True, use_cache=False).attentions
        finally:
            vlm.text_config._attn_implementation = "sdpa"
        # linear-attention layers give none
        attentions = [layer for layer in attentions if layer is not None and layer.ndim == 4]
        assert len(attentions) == len(vlm.attention_layers) == means_BKV.shape[1]
        columns = inputs["input_ids"][0] == vlm.video_id
        rows = slice(prompt - 1, prompt - 1 + len(answers[row]))
        for k, layer in enumerate(attentions):
            expected = layer[0, :, rows][..., columns].mean((0, 1))
            largest = max(largest, (means_BKV[row, k] - expected).abs().max().item())
            assert expected.std() > 0.1 * expected.mean(), "a flat map proves nothing"
    print(f"{vlm.family.name}: largest difference to eager attention {largest:.1e}")
    assert largest < 1e-6


def test_questions_answered_together_are_answered_as_alone(vlm, clip, batched):
    answers, means_BKV = batched
    assert len({len(vlm.question_ids(question)) for question in QUESTIONS}) > 2, "the questions are equally long"
    for row, question in enumerate(QUESTIONS):
        alone, mean_1KV = run(vlm, clip, [question], CONFIG)
        assert alone[0] == answers[row]
        torch.testing.assert_close(mean_1KV[0], means_BKV[row], atol=1e-6, rtol=1e-4)


def test_the_video_is_read_once_for_all_questions(vlm, clip):
    lengths, towers = [], []
    hooks = [
        vlm.model.model.language_model.layers[0].register_forward_pre_hook(
            lambda module, args, kwargs: lengths.append((args or (kwargs["hidden_states"],))[0].shape[1]),
            with_kwargs=True,
        ),
        vlm.model.model.visual.register_forward_hook(lambda *_: towers.append(1)),
    ]
    annotator = Annotator(vlm.model, vlm.tokenizer, replace(CONFIG, questions_per_batch=3))
    try:
        annotator.annotate(moving_clip(), FPS, IDS, GRID)
    finally:
        for hook in hooks:
            hook.remove()
    prefix = len(vlm.prefix_ids(clip))
    assert len(towers) == 1
    assert lengths[0] == prefix
    assert max(lengths[1:]) < prefix


def test_capture_changes_no_answer_and_no_logit(vlm, clip, batched):
    logits = {}
    for name in ("with", "without"):
        logits[name] = []
        hook = vlm.model.lm_head.register_forward_hook(lambda *args, n=name: logits[n].append(args[2].clone()))
        try:
            if name == "with":
                answers, _ = run(vlm, clip, QUESTIONS, CONFIG)
            else:
                answers = answer_questions(vlm, read_video(vlm, clip), QUESTIONS, CONFIG)
        finally:
            hook.remove()
        assert answers == batched[0]
    assert all(torch.equal(a, b) for a, b in zip(logits["with"], logits["without"], strict=True))


def test_kept_layers_average_to_the_map_and_heads_can_be_chosen(vlm, clip, batched):
    _, means_BKV = batched
    _, one = run(vlm, clip, QUESTIONS, CONFIG, keep_layers=False)
    assert one.shape == (4, 1, 60)
    torch.testing.assert_close(one, means_BKV.mean(1, keepdim=True), atol=1e-7, rtol=1e-5)
    halves = [run(vlm, clip, QUESTIONS, CONFIG, heads=heads)[1] for heads in ([0, 3], [2, 1])]
    torch.testing.assert_close((halves[0] + halves[1]) / 2, means_BKV, atol=1e-7, rtol=1e-5)
    assert (halves[0] - halves[1]).abs().max() > 1e-4
    last = vlm.attention_layers[-1]
    _, upper = run(vlm, clip, QUESTIONS, CONFIG, layers=[last])
    torch.testing.assert_close(upper[:, 0], means_BKV[:, -1])


class LargestTensor(TorchDispatchMode):
    """Remembers the size of the largest tensor an operation returns."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return out


def test_capture_makes_no_tensor_larger_than_one_row_of_every_head(vlm, clip):
    config = replace(CONFIG, max_answer_tokens=3)
    with capturable(vlm.text_config):
        prefix = read_video(vlm, clip)
        recorder = AnswerAttention(vlm.attention_layers, prefix.columns_V, 2, keep_layers=True)
        query, key = torch.randn(2, 4, 30, 16), torch.randn(2, 2, 500, 16)
        with LargestTensor() as largest:
            recorder.take(vlm.attention_layers[0], query, key, 0.25)
        assert largest.numel == key.numel() or largest.numel <= 2 * 4 * 500
        with LargestTensor() as without:
            answer_questions(vlm, prefix, QUESTIONS[:2], config)
        with LargestTensor() as captured, recorder.recording():
            answer_questions(vlm, prefix, QUESTIONS[:2], config, recorder)
    assert captured.numel == without.numel


def test_an_answer_ends_at_a_stop_token_which_is_not_part_of_it(vlm, clip, batched):
    answers, _ = batched
    first, second = answers[0][0], next(token for token in answers[0] if token != answers[0][0])
    length = answers[0].index(second)
    expected_answer, expected_map = run(vlm, clip, QUESTIONS[:1], replace(CONFIG, max_answer_tokens=length))
    assert expected_answer[0] == answers[0][:length]
    assert expected_answer[0][0] == first
    stops, vlm.stop_ids = vlm.stop_ids, frozenset([second])
    try:
        stopped, means = run(vlm, clip, QUESTIONS, CONFIG)
    finally:
        vlm.stop_ids = stops
    assert stopped[0] == answers[0][:length]
    torch.testing.assert_close(means[0], expected_map[0], atol=1e-6, rtol=1e-4)
    for row, answer in enumerate(answers):
        cut = answer.index(second) if second in answer else len(answer)
        assert stopped[row] == answer[:cut]


def test_sampled_answers_repeat_and_do_not_depend_on_the_batch(qwen3):
    clip = pack_clip(moving_clip(), FPS, qwen3.sizes, qwen3.family, CONFIG)
    config = replace(CONFIG, temperature=2.0, seed=5)
    together, _ = run(qwen3, clip, QUESTIONS, config)
    assert together == run(qwen3, clip, QUESTIONS, config)[0]
    assert together == [run(qwen3, clip, [question], config)[0][0] for question in QUESTIONS]
    assert together != run(qwen3, clip, QUESTIONS, CONFIG)[0]
    assert together != run(qwen3, clip, QUESTIONS, replace(config, seed=6))[0]


def test_a_model_in_half_precision_annotates(vlm):
    model = make_model(vlm.model.config.model_type).to(torch.bfloat16)
    annotation = Annotator(model, vlm.tokenizer, CONFIG).annotate(moving_clip(), FPS, IDS, GRID)
    assert annotation.targets.values.max() == 1
    for answer in annotation.answers.values():
        assert answer.attention.dtype == np.float32
        assert 0.02 < answer.attention.sum() < 1


# --- from maps to targets


def test_a_map_equal_to_its_background_leaves_nothing():
    one = np.random.default_rng(0).random((2, 3, 4)).astype(np.float32)
    assert np.abs(maps.subtract(one, one, relative=False)).max() == 0
    assert np.abs(maps.subtract(3 * one, one, relative=True)).max() < 1e-7
    assert maps.subtract(3 * one, one, relative=False).min() > 0


def test_resampling_keeps_place_and_time():
    grid = TokenGrid(4, 6, 10)  # 13 video frames
    source = np.zeros((3, 3, 5), np.float32)
    source[1, 2, 1] = 1  # the middle of the clip, bottom row, second column
    centres = np.array([0.5, 6.0, 11.5])
    values = maps.resample(source, centres, 13, grid).reshape(grid.shape)
    t, h, w = np.unravel_index(values.argmax(), values.shape)
    assert (t, h) == (2, 5)  # latent frame 2 is centred on frame 6.5
    assert w in (2, 3)
    assert values[0].max() == 0  # frame 0 lies before the first temporal patch's middle
    assert values[1].max() == pytest.approx(values[2].max() * (2.5 - 0.5) / (6.0 - 0.5) / (1 - 0.5 / 5.5), rel=1e-5)
    assert (values[..., :3, :] == 0).all()


@pytest.mark.parametrize(
    ("shape", "frames"), [((1, 1, 1), 1), ((1, 2, 3), 2), ((1, 2, 3), 9), ((5, 3, 4), 9), ((9, 12, 20), 33)]
)
def test_a_constant_map_stays_constant_on_any_grid(shape, frames):
    centres = np.linspace(0, frames - 1, 2 * shape[0]).reshape(-1, 2).mean(1)
    for grid in (TokenGrid(3, 4, 5), TokenGrid(1, 2, 7)):
        np.testing.assert_allclose(maps.resample(np.full(shape, 0.3), centres, frames, grid), 0.3, rtol=1e-6)


def test_a_clip_at_another_rate_covers_the_same_time():
    grid = TokenGrid(3, 1, 1)
    ramp = np.arange(5.0).reshape(5, 1, 1)
    at_9 = maps.resample(ramp, np.array([0, 2, 4, 6, 8]), 9, grid)
    at_17 = maps.resample(ramp, np.array([0, 4, 8, 12, 16]), 17, grid)
    np.testing.assert_allclose(at_9, at_17)
    np.testing.assert_allclose(at_9, [0, 2.5 / 2, 6.5 / 2])


# --- the annotator


def test_an_annotation_has_targets_answers_maps_and_says_how_it_was_made(vlm):
    annotator = Annotator(vlm.model, vlm.tokenizer, CONFIG, name="tiny")
    annotation = annotator.annotate(moving_clip(), FPS, IDS, GRID)
    targets = annotation.targets
    assert targets.grid == GRID
    assert [phenomena.PHENOMENA[i].id for i in np.flatnonzero(targets.labelled)] == sorted(
        IDS, key=lambda name: phenomena.by_id(name).index
    )
    assert not targets.values[:, ~targets.labelled].any()
    assert targets.values[:, targets.labelled].max(0) == pytest.approx([1, 1, 1])
    assert (targets.values[:, targets.labelled].min(0) < 0).all()
    assert annotation.background.question == BACKGROUND_QUESTION
    assert [annotation.answers[name].question for name in IDS] == QUESTIONS[1:]
    for answer in (annotation.background, *annotation.answers.values()):
        assert answer.attention.shape == (4, 3, 5)
        assert answer.num_tokens == 7
        assert answer.layer_attention is None
    assert annotation.unanswered == ()
    record = annotation.record
    assert record.family == vlm.family.name
    assert record.layers == vlm.attention_layers[len(vlm.attention_layers) // 2 :]
    assert record.frame_indices == (0, 1, 2, 3, 5, 6, 7, 8)
    assert targets.source == record.source == "tiny@unknown prophy-vlm-v1"
    difference = maps.subtract(annotation.answers["melting"].attention, annotation.background.attention, relative=True)
    centres = np.array(record.frame_indices).reshape(-1, 2).mean(1)
    expected = maps.scale_to_peak(maps.resample(difference, centres, 9, GRID))
    np.testing.assert_array_equal(targets.values[:, phenomena.by_id("melting").index], expected)


def test_an_annotation_is_saved_and_opened_without_torch(qwen3, tmp_path):
    annotator = Annotator(qwen3.model, qwen3.tokenizer, replace(CONFIG, keep_layers=True, layers=(3, 1)))
    annotation = annotator.annotate(moving_clip(), FPS, IDS[:2], GRID)
    annotation.save(tmp_path / "clip")
    assert sorted(path.name for path in (tmp_path / "clip").iterdir()) == ["attention.npz", "targets.npz"]
    again = Annotation.load(tmp_path / "clip")
    assert again.record == annotation.record
    assert list(again.answers) == list(IDS[:2])
    for name, answer in annotation.answers.items():
        assert again.answers[name].text == answer.text
        assert again.answers[name].layer_attention.shape == (2, 4, 3, 5)
        np.testing.assert_array_equal(again.answers[name].attention, answer.attention)
    np.testing.assert_array_equal(again.background.layer_attention, annotation.background.layer_attention)
    np.testing.assert_array_equal(again.targets.values, annotation.targets.values)
    code = (
        "import sys; from prophy.annotation.record import Annotation; from pathlib import Path;"
        f"print(len(Annotation.load(Path({str(tmp_path / 'clip')!r})).answers), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"]
    (tmp_path / "clip" / "attention.npz").write_bytes(b"not maps")
    with pytest.raises(ValueError, match="annotate the clip again"):
        Annotation.load(tmp_path / "clip")
    (tmp_path / "clip" / "attention.npz").unlink()
    with pytest.raises(FileNotFoundError):
        Annotation.load(tmp_path / "clip")


def test_a_saved_model_annotates_like_the_one_in_memory(qwen3, tmp_path):
    qwen3.model.save_pretrained(tmp_path / "small-vlm")
    qwen3.tokenizer.save_pretrained(tmp_path / "small-vlm")
    loaded = Annotator.from_pretrained(tmp_path / "small-vlm", CONFIG, dtype=torch.float32)
    here = Annotator(qwen3.model, qwen3.tokenizer, CONFIG).annotate(moving_clip(), FPS, IDS, GRID)
    there = loaded.annotate(moving_clip(), FPS, IDS, GRID)
    assert there.record.model == "small-vlm"
    assert [a.text for a in there.answers.values()] == [a.text for a in here.answers.values()]
    np.testing.assert_allclose(there.targets.values, here.targets.values, atol=1e-4)


def test_a_phenomenon_without_an_answer_gets_zeros_and_is_named(qwen3, caplog):
    annotator = Annotator(qwen3.model, qwen3.tokenizer, CONFIG)
    clip = pack_clip(moving_clip(), FPS, qwen3.sizes, qwen3.family, CONFIG)
    answers, _ = run(qwen3, clip, QUESTIONS, CONFIG)
    silent = next(i for i, answer in enumerate(answers) if answer[0] != answers[0][0])
    annotator.vlm.stop_ids = frozenset([answers[silent][0]])
    annotation = annotator.annotate(moving_clip(), FPS, IDS, GRID)
    name = IDS[silent - 1]
    index = phenomena.by_id(name).index
    assert name in annotation.unanswered
    assert annotation.targets.labelled[index]
    assert not annotation.targets.values[:, index].any()
    assert annotation.answers[name].text == ""
    assert "its targets are zero" in caplog.text
    annotator.vlm.stop_ids = frozenset([answers[0][0]])
    with pytest.raises(ValueError, match="says nothing"):
        annotator.annotate(moving_clip(), FPS, IDS, GRID)
    assert annotator.vlm.text_config._attn_implementation == "sdpa", "the model's attention was not put back"


@pytest.mark.parametrize(
    ("frames", "fps", "names", "error"),
    [
        (moving_clip(0), 8.0, IDS, "no frames"),
        (moving_clip().astype(np.float32), 8.0, IDS, "must be uint8"),
        (moving_clip()[0], 8.0, IDS, "must be uint8"),
        (moving_clip(), 0.0, IDS, "must be above 0"),
        (moving_clip(), 8.0, (), "no phenomenon"),
        (moving_clip(), 8.0, ("levitation",), "unknown phenomenon 'levitation'"),
    ],
)
def test_a_clip_that_cannot_be_annotated_is_refused_in_one_line(qwen3, frames, fps, names, error):
    with pytest.raises((ValueError, KeyError), match=error) as caught:
        Annotator(qwen3.model, qwen3.tokenizer, CONFIG).annotate(frames, fps, names, GRID)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"layers": (1, 9)}, r"layers \[9\] do not exist or have no full attention: choose from \[0, 1, 2, 3\]"),
        ({"heads": (0, 4)}, "choose from 0 to 3"),
    ],
)
def test_layers_and_heads_that_do_not_exist_are_refused(qwen3, changes, error):
    with pytest.raises(ValueError, match=error):
        Annotator(qwen3.model, qwen3.tokenizer, replace(CONFIG, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": ()},
        {"layers": (1, 1)},
        {"heads": ()},
        {"fps": 0.0},
        {"temperature": -1.0},
        {"max_answer_tokens": 0},
        {"questions_per_batch": 0},
        {"min_frames": 65},
        {"min_frame_tokens": 769},
    ],
)
def test_a_configuration_out_of_range_is_refused(changes):
    with pytest.raises(ValueError, match="must|exceeds"):
        AnnotationConfig(**changes)


def test_linear_layers_cannot_be_chosen_and_a_model_of_them_alone_is_refused():
    mixed = make_model("qwen3_5")
    with pytest.raises(ValueError, match=r"layers \[0\].*choose from \[1, 3\]"):
        Annotator(mixed, make_tokenizer(), replace(CONFIG, layers=(0, 1)))
    linear = make_model("qwen3_5", layers=2, layer_types=["linear_attention"] * 2)
    with pytest.raises(ValueError, match="use one with full attention"):
        Annotator(linear, make_tokenizer(), CONFIG)


def test_attention_that_cannot_be_captured_is_refused(qwen3):
    qwen3.text_config._attn_implementation = "flex_attention"
    try:
        with pytest.raises(ValueError, match="load the model with attn_implementation='sdpa'"):
            Annotator(qwen3.model, qwen3.tokenizer, CONFIG)
    finally:
        qwen3.text_config._attn_implementation = "sdpa"


def test_an_answer_may_end_at_any_stop_token_of_the_model_or_at_the_end_of_its_turn(qwen3, monkeypatch):
    turn_end = qwen3.tokenizer.convert_tokens_to_ids("<|im_end|>")
    for stops, expected in ((None, {turn_end}), (3, {3, turn_end}), ([3, 5], {3, 5, turn_end})):
        monkeypatch.setattr(qwen3.model.generation_config, "eos_token_id", stops)
        assert VisionLanguageModel(qwen3.model, qwen3.tokenizer).stop_ids == expected


def test_a_tokenizer_of_another_model_is_refused(qwen3, monkeypatch):
    monkeypatch.setattr(qwen3.model.config, "video_token_id", 7)
    with pytest.raises(ValueError, match="use the tokenizer it came with"):
        Annotator(qwen3.model, qwen3.tokenizer, CONFIG)


def test_another_family_is_refused_before_its_weights_are_read(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(UMT5Config().to_dict()))
    with pytest.raises(ValueError, match=r"'umt5' model cannot annotate: use one of the families Qwen2\.5-VL"):
        Annotator.from_pretrained(tmp_path, CONFIG)
