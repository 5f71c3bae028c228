"""The app with any model: small real ones of both families, from folders, one open at a time."""

import gc
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import make_branch, make_transformer
from small_cogvideox import make_cogvideox, make_cogvideox_pipeline
from test_lora import pairs_for, write_wan

from prophy.catalogue.limits import ClipSize, FewSteps
from prophy.grid import TokenGrid
from prophy.memory.offload import profile_of
from prophy.memory.profiles import OffloadMode, Profile
from prophy.ui.cli import build_parser
from prophy.ui.controls.inputs import request_of
from prophy.ui.controls.model_bar import estimate_line
from prophy.ui.engine.engine import Engine
from prophy.ui.engine.errors import EngineError
from prophy.ui.engine.events import Finished, Opening
from prophy.ui.engine.gpu import gpu_seconds
from prophy.ui.engine.models import EMBEDDED, ModelSource
from prophy.ui.engine.request import Request
from prophy.ui.engine.visitors import owner_of
from prophy.ui.tabs.about import about_model
from prophy.video import read_video

PROMPT = "a red ball bounces"
WAN, COGVIDEOX = "small-wan", "small-cogvideox"


@pytest.fixture
def sources(tiny_pipeline, tmp_path: Path) -> list[ModelSource]:
    """Two folders, each with a clip of its own; no two sizes equal."""
    tiny_pipeline.save_pretrained(tmp_path / WAN)
    transformer = make_cogvideox()
    pipeline = make_cogvideox_pipeline(transformer, make_branch(transformer, trained=True))
    pipeline.save_pretrained(tmp_path / COGVIDEOX)
    return [
        ModelSource(tmp_path / WAN, clip=ClipSize(48, 32, 9)),
        ModelSource(tmp_path / COGVIDEOX, clip=ClipSize(96, 64, 17)),
    ]


@pytest.fixture
def engine(sources, tmp_path: Path) -> Engine:
    return Engine(sources, runs=tmp_path / "runs", gallery=tmp_path / "gallery")


ME = owner_of("1" * 64)


def made(engine: Engine, **asked):
    events = list(engine.generate(Request(PROMPT, **{"steps": 2, **asked}), "visitor", ME))
    assert isinstance(events[-1], Finished)
    return events[-1].run, [event for event in events if isinstance(event, Opening)]


@pytest.mark.parametrize(
    ("model", "shape", "grid"),
    [(WAN, (9, 32, 48), TokenGrid(3, 4, 6)), (COGVIDEOX, (17, 64, 96), TokenGrid(5, 4, 6))],
)
def test_each_model_makes_clips_of_its_own_size_that_play_and_routing_that_fits(engine, model, shape, grid):
    run, _ = made(engine, model=model)
    frames, height, width, _ = read_video(run.video_path).frames.shape  # a whole number of times larger
    assert (frames, height / width) == (shape[0], shape[1] / shape[2])
    assert [run.record.settings[name] for name in ("frames", "height", "width")] == list(shape)
    assert run.trace().grid == grid == TokenGrid(*engine.card(model).grid)
    assert run.trace().num_kept == 2
    assert run.record.model_id == model
    bare, _ = made(engine, model=model, use_branch=False)
    assert bare.trace() is None


def test_one_model_is_open_at_a_time_and_the_other_is_freed(engine: Engine):
    assert engine.open_model is None
    _, opened = made(engine)
    assert opened == [Opening(WAN)]
    assert engine.open_model == WAN
    freed = weakref.ref(engine._model.opened.pipeline.transformer)
    _, opened = made(engine, model=COGVIDEOX)
    assert opened == [Opening(COGVIDEOX)]
    assert engine.open_model == COGVIDEOX
    gc.collect()
    assert freed() is None, "two models are in memory"
    assert made(engine, model=COGVIDEOX, seed=1)[1] == [], "opened twice"
    assert made(engine)[1] == [Opening(WAN)]


def test_a_run_is_found_again_only_of_the_model_that_is_open(engine: Engine):
    asked = Request(PROMPT, steps=2, model=COGVIDEOX)
    run, _ = made(engine, model=COGVIDEOX)
    assert engine.same_run(asked, ME).path == run.path
    assert engine.same_run(Request(PROMPT, steps=2, model=WAN), ME) is None


def test_another_profile_moves_the_open_model_and_makes_the_same_clip(engine: Engine):
    plain, _ = made(engine, model=COGVIDEOX)
    again, opened = made(engine, model=COGVIDEOX, profile="sequential+tiling")
    assert opened == []
    assert profile_of(engine._model.opened.pipeline) == Profile(OffloadMode.SEQUENTIAL, tiling=True)
    difference = read_video(plain.video_path).frames.astype(int) - read_video(again.video_path).frames
    assert abs(difference).mean() < 2
    with pytest.raises(EngineError, match="no memory profile 'fast': use one of all"):
        engine.check(Request(PROMPT, profile="fast"))
    with pytest.raises(ValueError, match="no memory profile 'fast'"):
        Engine(profile="fast")


def test_an_estimate_says_memory_before_and_time_once_a_clip_was_timed(engine: Engine):
    asked = Request(PROMPT, steps=2, model=WAN)
    before = engine.estimate(asked)
    assert before.seconds is None
    weights = sum(part.nbytes for part in engine._estimates.plan(engine.card(WAN), guided=True).parts)
    assert before.peak > weights > 100_000
    assert engine.open_model is None, "planning opened the weights"
    line = estimate_line(engine.card(WAN), before)
    assert "48×32, 9 frames at 8 a second" in line
    assert "not timed here yet" in line

    run, _ = made(engine, model=WAN)
    after = engine.estimate(asked)
    assert after.seconds == pytest.approx(sum(run.record.timings.values()), rel=0.01)
    twice = engine.estimate(Request(PROMPT, steps=4, model=WAN))
    assert after.seconds < twice.seconds < 3 * after.seconds
    assert "about" in estimate_line(engine.card(WAN), after)
    assert engine.estimate(Request(PROMPT, model=COGVIDEOX)).seconds is None


def test_a_clip_of_another_size_is_made_where_the_model_allows_it_and_none_larger(engine: Engine, tmp_path: Path):
    run, _ = made(engine, model=COGVIDEOX, width=64, height=32, frames=9)
    assert [run.record.settings[name] for name in ("width", "height", "frames")] == [64, 32, 9]
    assert run.trace().grid == TokenGrid(3, 2, 4)
    assert engine.estimate(Request(PROMPT, model=COGVIDEOX)).seconds is None, "it is of the whole size"
    asked = request_of(PROMPT, 0, 2, None, COGVIDEOX, "", None, None, None, None, 64, 32, 9)
    assert engine.check(asked).frames == 9
    for size, message in [
        ({"width": 112}, "112×64, 17 frames are more than this app makes: at most as many pixels as 96×64, 17 frames"),
        ({"frames": 13}, r"frames=13 is not 1 \+ 8k, all this model can make: use 17"),
        ({"height": 7}, "height=7 must be"),
    ]:
        with pytest.raises(EngineError, match=message):
            engine.check(Request(PROMPT, model=COGVIDEOX, **size))
    with pytest.raises(EngineError, match="the embedded model makes clips of 64×64, 17 frames, and no others"):
        Engine(runs=tmp_path).check(Request(PROMPT, frames=33))


def test_a_lent_gpu_is_asked_for_as_long_as_the_plan_says(engine: Engine):
    from prophy.generation.generate import GenerationSettings

    made(engine, model=COGVIDEOX)
    planned = engine._estimates.plan(engine.card(COGVIDEOX), guided=True).of(Profile(OffloadMode.ALL))
    clip = {"frames": 17, "height": 64, "width": 96}
    for steps in (1, 50):
        seconds = engine._gpu_seconds(GenerationSettings(PROMPT, steps=steps, **clip), True, False)
        assert seconds == gpu_seconds(planned, steps)
        assert seconds > planned.seconds(steps)


def test_the_gpu_time_of_a_full_model_grows_with_its_steps():
    from prophy.memory.plan import plan

    planned = plan("wan2.1-1.3b", ClipSize(352, 288, 9)).of(Profile(OffloadMode.ALL))
    few, many = gpu_seconds(planned, 100), gpu_seconds(planned, 1000)
    assert many - few > 0
    assert (many - few) / 900 == pytest.approx(1.5 * planned.step, abs=2 / 900)


def test_models_that_cannot_be_told_apart_or_made_are_refused_at_start(sources, tmp_path: Path):
    with pytest.raises(ValueError, match=f"two models are called {WAN}: rename the folder of one"):
        Engine([sources[0], sources[0]])
    with pytest.raises(ValueError, match=r"frames=13 is not 1 \+ 8k, all this model can make: use 17"):
        Engine([ModelSource(tmp_path / COGVIDEOX, clip=ClipSize(96, 64, 13))])
    with pytest.raises(EngineError, match=f"no model 'other' here: choose {WAN}, {COGVIDEOX}"):
        Engine(sources).check(Request(PROMPT, model="other"))


def test_a_published_model_is_known_by_its_id_before_anything_is_downloaded(tmp_path: Path):
    wan, cogvideox, ti2v = Engine(
        [ModelSource("Wan-AI/Wan2.1-T2V-1.3B-Diffusers"), ModelSource("cogvideox-2b"), ModelSource("wan2.2-ti2v-5b")],
        runs=tmp_path,
    ).cards
    assert (wan.name, wan.grid, wan.made.fps, wan.made.steps) == (
        "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        (21, 30, 52),
        16,
        50,
    )
    assert (cogvideox.name, cogvideox.grid, cogvideox.made.fps) == ("THUDM/CogVideoX-2b", (13, 30, 45), 8)
    assert (ti2v.grid, ti2v.made.fps) == ((31, 22, 40), 24)
    assert not wan.has_branch
    assert wan.words == ()
    assert "832×480 pixels, 81 frames, 16 a second" in about_model(wan)
    settings = Engine([wan.source], runs=tmp_path).check(Request("a cat on a trampoline"))
    assert (settings.width, settings.height, settings.frames, settings.guidance) == (832, 480, 81, 5.0)
    assert (settings.flow_shift, settings.negative_prompt[:4]) == (5.0, "色调艳丽")


def test_what_the_page_leaves_open_is_the_models_and_what_it_sets_replaces_that(tmp_path: Path):
    engine = Engine([ModelSource("wan2.2-a14b")], runs=tmp_path)
    asked = "a cat on a trampoline"
    own = engine.check(request_of(asked, 0, None, None, "", ""))
    assert (own.guidance, own.guidance_2, own.flow_shift, own.sampler) == (4.0, 3.0, 12.0, None)
    set_here = engine.check(request_of(asked, 0, 20, 5.0, "", "", "dark", 2.0, 7.0, "unipc"))
    assert (set_here.negative_prompt, set_here.guidance_2, set_here.flow_shift) == ("dark", 2.0, 7.0)
    assert (set_here.steps, set_here.sampler) == (20, "unipc")
    assert engine.check(request_of(asked, 0, 20, 5.0, "", "", "")).negative_prompt == ""
    few = FewSteps()
    pressed = engine.check(
        request_of(asked, 0, few.steps, few.guidance, "", "", few.negative_prompt, None, few.flow_shift, few.sampler)
    )
    assert pressed == own.in_few_steps() == engine.check(Request(asked, few_steps=4))
    with pytest.raises(EngineError, match="a negative prompt does nothing while guidance is 1"):
        engine.check(Request(asked, guidance=1.0, negative_prompt="dark"))


def test_a_model_of_the_app_opens_with_its_loras_and_one_that_is_missing_is_named(sources, tmp_path: Path):
    lora = write_wan(tmp_path / "motion.safetensors", pairs_for(make_transformer().blocks), "comfy")
    adapted = replace(sources[0], loras=(f"{lora}:0.5",))
    run, _ = made(Engine([adapted], runs=tmp_path / "runs", gallery=tmp_path / "gallery"))
    (adapter,) = run.record.computation.adapters
    assert (adapter.name, adapter.strength) == ("motion", 0.5)
    with pytest.raises(FileNotFoundError, match="no LoRA at gone.safetensors"):
        Engine([replace(sources[0], loras=("gone.safetensors",))])


@pytest.mark.parametrize("given", [False, True])
def test_the_page_of_the_embedded_model_alone_shows_no_choice_of_models(given: bool, sources, tmp_path: Path):
    from prophy.ui.page import build_demo

    engine = Engine([ModelSource(), *sources] if given else [ModelSource()], runs=tmp_path)
    (row,) = [part for part in build_demo(engine).blocks.values() if getattr(part, "elem_id", None) == "models"]
    assert row.visible is given


def test_each_flag_belongs_to_the_model_before_it():
    read = build_parser().parse_args
    assert read([]).sources is None
    flags = ["--model", "a", "--branch", "b", "--size", "64x48x9", "--model", "embedded", "--model", "c"]
    given = read([*flags, "--profile", "group"])
    assert given.sources == (ModelSource("a", "b", ClipSize(64, 48, 9)), ModelSource(EMBEDDED), ModelSource("c"))
    assert given.profile == "group"
    assert read(["--branch", "b"]).sources == (ModelSource(None, "b"),)
    loras = read(["--model", "a", "--lora", "x:0.5", "--lora", "high=y", "--model", "c"]).sources
    assert loras == (ModelSource("a", loras=("x:0.5", "high=y")), ModelSource("c"))
    with pytest.raises(SystemExit):
        read(["--size", "64x48"])
