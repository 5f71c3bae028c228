"""A prompt becomes a run: deterministic, stoppable within a step, honest about words, strict about input."""

import shutil
import time
from dataclasses import replace
from pathlib import Path
from threading import Event
from threading import enumerate as enumerate_threads

import numpy as np
import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler, FlowMatchEulerDiscreteScheduler, WanPipeline
from small_cogvideox import make_cogvideox, make_cogvideox_pipeline
from synthetic import make_record
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from prophy.generation import identity
from prophy.generation.generate import GenerationStopped, StepPreview, batches, generate, stream
from prophy.generation.identity import model_hash
from prophy.generation.previews import LatentColours, latent_colours
from prophy.generation.settings import GenerationError, GenerationSettings
from prophy.generation.words import check_prompt, known_words, unknown_words
from prophy.grid import TokenGrid
from prophy.routing.schedule import Schedule
from prophy.runs.store import read_run

SIZE = {"steps": 3, "frames": 9, "height": 32, "width": 48}
GRID = TokenGrid(frames=3, height=4, width=6)


@pytest.fixture
def prompt(tiny_pipeline) -> str:
    """A prompt of words that the pipeline's tokenizer knows."""
    return " ".join(known_words(tiny_pipeline.tokenizer)[:4]) or "a red ball"


@pytest.fixture
def settings(prompt: str) -> GenerationSettings:
    return GenerationSettings(prompt, seed=3, **SIZE)


@pytest.fixture
def stock_pipeline(tiny_pipeline) -> WanPipeline:
    """The same backbone in a pipeline that knows nothing of a branch."""
    names = ("tokenizer", "text_encoder", "vae", "transformer", "scheduler")
    return WanPipeline(**{name: tiny_pipeline.components[name] for name in names})


# --- generating -------------------------------------------------------------------------------------------------------


def test_a_branch_that_is_switched_off_leaves_the_stock_clip_and_no_routing(tiny_pipeline, stock_pipeline, settings):
    with_branch = generate(tiny_pipeline, settings)
    tiny_pipeline.attachment.enabled = False
    without = generate(tiny_pipeline, settings)
    assert without.trace is None
    assert not np.array_equal(without.frames, with_branch.frames)
    tiny_pipeline.attachment.detach()
    assert np.array_equal(without.frames, generate(stock_pipeline, settings).frames)


def test_the_same_prompt_and_seed_give_the_same_frames_and_routing(tiny_pipeline, settings):
    torch.manual_seed(1)
    first = generate(tiny_pipeline, settings)
    torch.manual_seed(2)  # the global generator must not matter
    second = generate(tiny_pipeline, settings, on_step=lambda preview: None)  # nor must watching
    assert first.frames.shape == (9, 32, 48, 3)
    assert first.frames.dtype == np.uint8
    assert (first.frames == second.frames).all()
    assert (first.trace.topk_ids == second.trace.topk_ids).all()
    assert (first.trace.phenomenon_maps == second.trace.phenomenon_maps).all()


def test_another_seed_gives_other_frames(tiny_pipeline, settings, prompt):
    other = GenerationSettings(prompt, seed=4, **SIZE)
    assert (generate(tiny_pipeline, settings).frames != generate(tiny_pipeline, other).frames).any()


def test_generating_draws_nothing_from_the_global_generator(tiny_pipeline, settings):
    before = torch.get_rng_state()
    generate(tiny_pipeline, settings, on_step=lambda preview: None)
    assert torch.equal(before, torch.get_rng_state())


def test_the_trace_lines_up_with_the_video(tiny_pipeline, settings):
    trace = generate(tiny_pipeline, settings).trace
    assert trace.grid == GRID
    assert trace.grid.num_video_frames == SIZE["frames"]
    assert trace.steps == trace.num_kept == SIZE["steps"]
    assert (trace.prompt, trace.seed) == (settings.prompt, settings.seed)
    np.testing.assert_allclose(trace.timesteps, tiny_pipeline.scheduler.timesteps.numpy(), rtol=1e-4)


def test_only_the_conditional_pass_is_recorded(tiny_pipeline, prompt):
    guided = generate(tiny_pipeline, GenerationSettings(prompt, guidance=4.0, **{**SIZE, "steps": 1})).trace
    unguided = generate(tiny_pipeline, GenerationSettings(prompt, guidance=1.0, **{**SIZE, "steps": 1})).trace
    # The first step starts from the same noise, and without guidance there is only the conditional pass.
    np.testing.assert_array_equal(guided.topk_ids, unguided.topk_ids)
    np.testing.assert_allclose(guided.mean_probs, unguided.mean_probs, atol=1e-6)


def test_a_stock_pipeline_gives_the_video_alone(stock_pipeline, settings, tmp_path: Path):
    result = generate(stock_pipeline, settings)
    assert result.trace is None
    assert result.save(tmp_path).routing_path is None


def test_what_is_saved_is_read_back(tiny_pipeline, settings, tmp_path: Path):
    result = generate(tiny_pipeline, settings)
    run = read_run(result.save(tmp_path, run_id="saved").path)
    assert (run.record.prompt, run.record.seed) == (settings.prompt, settings.seed)
    assert run.record.settings == {**SIZE, "guidance": 4.0, "fps": 8.0}
    assert run.record.model_sha256 == model_hash(tiny_pipeline)
    assert set(run.record.timings) == {"denoise", "decode"}
    assert (run.trace().topk_ids == result.trace.topk_ids).all()
    assert len(run.clip().frames) == SIZE["frames"]
    assert run.sheet_path.exists()


def test_weights_that_give_nonsense_are_an_error_and_not_a_black_clip(tiny_pipeline, settings, monkeypatch):
    broken = np.full((1, 9, 32, 48, 3), np.nan, np.float32)
    monkeypatch.setattr(tiny_pipeline.video_processor, "postprocess_video", lambda *_, **__: broken)
    with pytest.raises(GenerationError, match="the autoencoder gave values that are not numbers: load it in bfloat16"):
        generate(tiny_pipeline, settings)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_that_overflows_ends_the_generation_there_and_names_the_cure(tiny_pipeline, settings, value: float):
    """As float16 does: every step after it would be wasted."""
    calls = []

    def overflow(module, args, output):
        calls.append(1)
        return (torch.full_like(output[0], value),) if len(calls) == 3 else output  # the second step's first pass

    tiny_pipeline.transformer.register_forward_hook(overflow)
    with pytest.raises(GenerationError, match="step 2 of 3 gave values that are not numbers: load .* in bfloat16"):
        generate(tiny_pipeline, settings)
    assert len(calls) == 4


# --- watching and stopping --------------------------------------------------------------------------------------------


def test_every_step_is_previewed(tiny_pipeline, settings):
    previews: list[StepPreview] = []
    result = generate(tiny_pipeline, settings, on_step=previews.append)
    assert [(preview.step, preview.total) for preview in previews] == [(1, 3), (2, 3), (3, 3)]
    assert previews[-1].seconds_left == 0
    for preview in previews:
        assert preview.frames.shape == (3, 4, 6, 3)
        assert preview.frames.dtype == np.uint8
    for preview, step in zip(previews, range(3), strict=True):
        assert (preview.top1 == result.trace.top1(step)).all()


def test_a_stock_pipeline_is_previewed_without_routing(stock_pipeline, settings):
    previews: list[StepPreview] = []
    generate(stock_pipeline, settings, on_step=previews.append)
    assert [preview.top1 for preview in previews] == [None] * 3


def test_preview_colours_follow_the_autoencoder():
    """An autoencoder whose latents are the colours themselves must be previewed in exactly those colours."""

    class ColourLatents(torch.nn.Module):
        class config:
            scale_factor_spatial = 8
            latents_mean, latents_std = (0.5, 0.0, -0.5), (2.0, 1.0, 0.5)

        device, dtype = torch.device("cpu"), torch.float32

        def encode(self, pixels_BCFHW):
            first, rest = pixels_BCFHW[:, :, :1], pixels_BCFHW[:, :, 1:].mean(2, keepdim=True)
            latents = torch.nn.functional.avg_pool3d(torch.cat([first, rest], 2), (1, 8, 8))
            self.latent_dist = self
            self.mode = lambda: latents
            return self

    colours = LatentColours(ColourLatents())
    wanted = torch.tensor([[200.0, 40.0, 90.0], [10.0, 250.0, 128.0], [77.0, 77.0, 77.0]])
    mean, std = torch.tensor([0.5, 0.0, -0.5]), torch.tensor([2.0, 1.0, 0.5])
    latents_CThw = ((wanted / 127.5 - 1 - mean) / std).T[:, :, None, None]
    assert np.abs(colours(latents_CThw)[:, 0, 0].astype(int) - wanted.numpy()).max() <= 1


@pytest.mark.parametrize("scheduler_class", [CogVideoXDDIMScheduler, CogVideoXDPMScheduler])
def test_cogvideox_previews_show_the_predicted_clean_video_from_the_first_step(scheduler_class):
    """A backbone that always predicts one video, whatever noise it is given: every preview is that video."""
    pipeline = make_cogvideox_pipeline(make_cogvideox())
    pipeline.scheduler = scheduler_class.from_config(pipeline.scheduler.config)
    wanted_TChw = torch.randn(3, 4, 8, 12, generator=torch.Generator().manual_seed(0))

    def predict(module, args, kwargs, output):
        noise_left = pipeline.scheduler.alphas_cumprod[kwargs["timestep"][0]]
        return ((noise_left.sqrt() * kwargs["hidden_states"] - wanted_TChw) / (1 - noise_left).sqrt(),)

    pipeline.transformer.register_forward_hook(predict, with_kwargs=True)
    previews: list[StepPreview] = []
    settings = GenerationSettings("a red ball", steps=4, guidance=1.0, frames=9, height=64, width=96)
    generate(pipeline, settings, on_step=previews.append)
    expected = latent_colours(pipeline.vae)(wanted_TChw.transpose(0, 1)).astype(int)
    assert expected.std() > 1
    for preview in previews:
        assert np.abs(preview.frames - expected).max() <= 1
    assert "step" not in vars(pipeline.scheduler), "the scheduler is still watched"


def test_previews_of_eulers_scheduler_for_flows_show_the_predicted_clean_video_too(tiny_pipeline, settings):
    """A velocity that always points at one video, whatever noise it starts from."""
    tiny_pipeline.scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    wanted_CThw = torch.randn(4, 3, 4, 6, generator=torch.Generator().manual_seed(0))

    def predict(module, args, kwargs, output):
        return ((kwargs["hidden_states"] - wanted_CThw) / (kwargs["timestep"][0] / 1000),)

    tiny_pipeline.transformer.register_forward_hook(predict, with_kwargs=True)
    previews: list[StepPreview] = []
    generate(tiny_pipeline, replace(settings, guidance=1.0), on_step=previews.append)
    expected = latent_colours(tiny_pipeline.vae)(wanted_CThw).astype(int)
    assert expected.std() > 1
    assert [np.abs(preview.frames - expected).max() <= 1 for preview in previews] == [True] * settings.steps


@pytest.mark.parametrize("at", [1, 2, 3])
def test_stop_is_obeyed_within_the_step(tiny_pipeline, settings, at: int):
    stop, seen = Event(), []

    def watch(preview: StepPreview) -> None:
        seen.append(preview.step)
        if preview.step == at:
            stop.set()

    with pytest.raises(GenerationStopped):
        generate(tiny_pipeline, settings, on_step=watch, stop=stop)
    assert seen == list(range(1, at + 1))


def test_a_stream_makes_the_same_clip_one_step_at_a_time(tiny_pipeline, settings):
    *previews, last = stream(tiny_pipeline, settings)
    assert [preview.step for preview in previews] == [1, 2, 3]
    assert np.array_equal(last.frames, generate(tiny_pipeline, settings).frames)


def test_a_stream_makes_no_step_that_nobody_asked_for_and_ends_when_it_is_closed(tiny_pipeline, settings):
    calls = []
    tiny_pipeline.transformer.register_forward_pre_hook(lambda *_: calls.append(1))
    events = stream(tiny_pipeline, settings)
    assert calls == []
    next(events)
    of_one_step = len(calls)
    time.sleep(0.3)
    assert len(calls) == of_one_step, "it ran ahead"
    events.close()
    assert len(calls) == of_one_step
    assert not [thread for thread in enumerate_threads() if thread.name == "prophy-denoising"]


def test_an_error_in_a_stream_reaches_whoever_asks(tiny_pipeline, settings):
    with pytest.raises(GenerationError, match="knows no word"):
        next(stream(tiny_pipeline, replace(settings, prompt="zzz qqq")))


def test_stop_before_the_start_runs_no_step(tiny_pipeline, settings):
    stop, seen = Event(), []
    stop.set()
    with pytest.raises(GenerationStopped):
        generate(tiny_pipeline, settings, on_step=seen.append, stop=stop)
    assert seen == []


def test_a_stopped_pipeline_generates_again_as_if_nothing_had_happened(tiny_pipeline, settings):
    before = generate(tiny_pipeline, settings)
    stop = Event()
    with pytest.raises(GenerationStopped):
        generate(tiny_pipeline, settings, on_step=lambda preview: stop.set(), stop=stop)
    after = generate(tiny_pipeline, settings)
    assert (before.frames == after.frames).all()
    assert (before.trace.topk_ids == after.trace.topk_ids).all()
    assert after.trace.num_kept == SIZE["steps"]


def test_an_error_in_the_watcher_comes_out_and_leaves_the_pipeline_usable(tiny_pipeline, settings):
    def fail(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        generate(tiny_pipeline, settings, on_step=fail)
    assert generate(tiny_pipeline, settings).trace.num_kept == SIZE["steps"]


# --- several clips ----------------------------------------------------------------------------------------------------


def test_each_clip_of_a_batch_is_the_one_made_alone(tiny_pipeline, settings):
    several = [settings, replace(settings, prompt="a blue candle burns", seed=9), replace(settings, seed=4, fps=12)]
    assert batches(several) == [[0, 1, 2]]
    together = generate(tiny_pipeline, several)
    assert [made.settings for made in together] == several
    for made in together:
        alone = generate(tiny_pipeline, made.settings)
        assert np.abs(made.frames.astype(int) - alone.frames).max() <= 1
        assert made.trace.prompt == made.settings.prompt
        np.testing.assert_allclose(made.trace.mean_probs, alone.trace.mean_probs, atol=1e-5)
        np.testing.assert_allclose(made.trace.phenomenon_maps, alone.trace.phenomenon_maps, atol=2e-3)
    assert (together[0].frames != together[2].frames).any(), "the noise is each clip's own"


def test_clips_that_cannot_share_a_call_are_made_apart_and_come_back_in_order(tiny_pipeline, settings):
    longer = replace(settings, frames=13)
    scheduled = replace(settings, schedule=Schedule(unconditional=False))
    several = [settings, longer, replace(settings, seed=8), scheduled, replace(longer, seed=8)]
    assert batches(several) == [[0, 2], [1, 4], [3]]
    assert batches([settings] * 5, 2) == [[0, 1], [2, 3], [4]]
    with pytest.raises(ValueError, match="make at least one at a time"):
        batches(several, 0)
    assert [made.settings for made in generate(tiny_pipeline, several)] == several
    assert generate(tiny_pipeline, []) == []


def test_one_impossible_clip_is_named_before_any_is_made(tiny_pipeline, settings):
    seen, several = [], [settings, replace(settings, prompt="a red ball " * 100)]
    with pytest.raises(GenerationError, match=r"'a red ball a red ball .*': the prompt is \d+ tokens long"):
        generate(tiny_pipeline, several, on_step=seen.append)
    assert seen == []


def test_a_batch_is_previewed_clip_by_clip_and_stops_within_a_step(tiny_pipeline, settings):
    seen, stop = [], Event()

    def watch(preview: StepPreview) -> None:
        seen.append(preview)
        if preview.step == 2:
            stop.set()

    with pytest.raises(GenerationStopped):
        generate(tiny_pipeline, [settings, replace(settings, seed=9)], on_step=watch, stop=stop)
    assert [(preview.settings.seed, preview.step) for preview in seen] == [(3, 1), (9, 1), (3, 2), (9, 2)]
    assert not np.array_equal(seen[0].frames, seen[1].frames)
    assert all(preview.top1.shape == GRID.shape for preview in seen)


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", "a", "red", "ball", "bounces", "s"])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(r" ", "removed")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>", eos_token="</s>", model_max_length=6
    )


def test_known_words_are_the_vocabulary_without_its_special_tokens(tokenizer):
    assert known_words(tokenizer) == ("a", "ball", "bounces", "red", "s")


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("a red ball bounces", ()),
        ("A RED Ball.", ()),
        ("the ball's red", ("the",)),
        ("a flibbert, a Flibbert and 3 balls", ("flibbert", "and", "3", "balls")),
        ("火 ball", ("火",)),
        ("红色的球在地板上弹跳,ball", ("红色的球在地板上弹跳",)),
        ("गेंद उछलती है a ball", ("गेंद", "उछलती", "है")),
        ("ลูกบอล ball", ("ลูกบอล",)),
        ("ball " + "球" * 300, ("球" * 200,)),
        ("!!!", ()),
    ],
)
def test_unknown_words_are_named_once_and_in_order(tokenizer, text: str, unknown: tuple):
    assert unknown_words(tokenizer, text) == unknown


def test_a_prompt_of_many_unknown_words_gives_what_a_record_holds(tokenizer):
    prompt = "a red ball " + " ".join(chr(0x4E00 + i) for i in range(1500))
    words = unknown_words(tokenizer, prompt)
    assert len(words) == 1000
    assert make_record(prompt=prompt, unknown_words=words).unknown_words == words


def test_a_tokenizer_of_pieces_has_no_unknown_words():
    pieces = models.Unigram([("<unk>", 0.0), ("a", -1.0), ("b", -1.0)], unk_id=0)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(pieces), unk_token="<unk>")
    assert known_words(tokenizer) == unknown_words(tokenizer, "xyz") == ()


def test_a_prompt_without_one_known_word_is_refused_with_some_known_ones(tokenizer):
    with pytest.raises(GenerationError, match=r"knows of this prompt only a: .*ball, bounces"):
        check_prompt(tokenizer, "zzz a qqq")
    with pytest.raises(GenerationError, match=r"knows no word of this prompt.*ball, bounces"):
        check_prompt(tokenizer, "quux flibbert")


def test_a_prompt_that_would_be_cut_is_refused(tokenizer):
    with pytest.raises(GenerationError, match="7 tokens long and the model reads 6: shorten it"):
        check_prompt(tokenizer, "a a a a a a a")


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": ""}, "the prompt is empty"),
        ({"prompt": " \n "}, "the prompt is empty"),
        ({"prompt": None}, "the prompt is empty"),
        ({"prompt": "a " * 1001}, "use at most 2000"),
        ({"prompt": "<img src=x onerror=alert(1)>"}, "looks like HTML"),
        ({"prompt": "a ball &lt;b&gt;"}, "looks like HTML"),
        ({"prompt": "a\0ball"}, "control characters"),
        ({"prompt": "a \ud800 ball"}, "control characters"),
        ({"seed": -1}, "seed=-1 must be a whole number from 0"),
        ({"seed": 1.0}, "seed=1.0 must be a whole number"),
        ({"seed": True}, "seed=True"),
        ({"steps": 0}, "steps=0 must be"),
        ({"guidance": float("nan")}, "guidance=nan must be"),
        ({"guidance": 31}, "guidance=31 must be"),
        ({"fps": 0}, "fps=0 must be"),
        ({"frames": 16}, r"frames=16 is not 1 \+ 4k: use 17"),
        ({"height": 4}, "height=4 must be"),
    ],
)
def test_bad_settings_are_refused_where_they_are_built(changes: dict, message: str):
    with pytest.raises(GenerationError, match=message):
        GenerationSettings(**{"prompt": "a red ball", **changes})


def test_a_less_than_sign_is_not_html():
    assert GenerationSettings("a ball < a box").prompt == "a ball < a box"


def test_a_size_the_model_cannot_make_is_refused_before_any_step(tiny_pipeline, prompt):
    seen = []
    with pytest.raises(GenerationError, match="48×36 pixels do not divide into this model's steps of 16: use 48×32"):
        generate(tiny_pipeline, GenerationSettings(prompt, **{**SIZE, "height": 36}), on_step=seen.append)
    assert seen == []


# --- the model's hash -------------------------------------------------------------------------------------------------


def test_the_hash_follows_the_weights(tiny_pipeline):
    before = model_hash(tiny_pipeline)
    assert len(before) == 64
    parameter = next(tiny_pipeline.transformer.parameters())
    with torch.no_grad():
        parameter.add_(1)
        changed = model_hash(tiny_pipeline)
        parameter.sub_(1)
    assert changed != before


def test_a_saved_model_is_hashed_by_its_files_and_each_once(stock_pipeline, tmp_path: Path, monkeypatch):
    stock_pipeline.save_pretrained(tmp_path / "model")
    shutil.copytree(tmp_path / "model", tmp_path / "elsewhere")
    first, second = (WanPipeline.from_pretrained(tmp_path / name) for name in ("model", "elsewhere"))
    assert model_hash(first) == model_hash(second)
    monkeypatch.setattr(identity, "file_sha256", None)  # a second reading would fail
    assert model_hash(first) == model_hash(second)


def test_the_model_is_named_without_a_path_of_this_machine(stock_pipeline, tmp_path: Path, settings):
    stock_pipeline.save_pretrained(tmp_path / "my-model")
    assert generate(WanPipeline.from_pretrained(tmp_path / "my-model"), settings).model_id == "my-model"
