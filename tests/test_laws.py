"""Laws on trajectories with known answers, trackers on real renders with known states, the command at debug size."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import UMT5EncoderModel

from prophy.evaluation import cli
from prophy.evaluation.judges import laws
from prophy.evaluation.judges.laws import TrackLost
from prophy.evaluation.judges.trackers import LAWS, follow, law_errors, view_of
from prophy.evaluation.measures.cli import law_columns
from prophy.evaluation.measures.laws import asked_clips, clip_errors, score_columns
from prophy.evaluation.results.laws import AUTOENCODER, BACKBONE, PROPHY, REAL, ClipErrors
from prophy.tiny.text import build_tokenizer
from prophy.worlds import EVENTS, Placed, Scenario, Stage, WorldClip, render
from prophy.worlds.sample import SPLITS

TIMES = Stage().times
STAGES = {
    f"{stage.width}x{stage.height}x{stage.frames}@{stage.fps}": stage
    for stage in (
        Stage(96, 64, 17),
        Stage(128, 80, 17),
        Stage(96, 64, 33, 16),
        Stage(64, 64, 49, 8),
        Stage(416, 240, 81, 16),
    )
}
SCENES = tuple((phenomenon, kind.variant) for phenomenon, kinds in EVENTS.items() for kind in kinds)


def make_clip(
    phenomenon: str, variant: str, seed: int, place: str = "centre", setting: str = "day", stage: Stage = Stage()
) -> WorldClip:
    """A real render of one scene."""
    kind = next(kind for kind in EVENTS[phenomenon] if kind.variant == variant)
    names = ("red", "blue", "green", "yellow", "orange", "purple")
    colours = tuple(names[(seed + i) % 6] for i in range(kind.colour_count))
    scenario = Scenario((Placed(phenomenon, variant, colours, place),), setting)
    frames, masks, states = render(scenario, np.random.default_rng(seed), stage=stage)
    return WorldClip(frames, masks, "", scenario, states, seed, stage)


def bounce(gravity: float, restitution: float, height: float = 30.0) -> np.ndarray:
    """y of a ball dropped from rest, analytically, with y pointing down and the ground at 50."""
    y, start, speed, top = [], 0.0, 0.0, height
    fall = np.sqrt(2 * height / gravity)
    for t in TIMES:
        while t - start > fall:
            start += fall
            speed = -restitution * (gravity * fall + speed)
            fall, top = -2 * speed / gravity, 0.0
        y.append(50 - top + speed * (t - start) + 0.5 * gravity * (t - start) ** 2)
    return np.array(y)


# --- laws on known trajectories ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gravity", "restitution"), [(60.0, 0.9), (110.0, 0.8), (130.0, 0.9)])
def test_gravity_and_restitution_of_a_bouncing_point_are_recovered_exactly(gravity: float, restitution: float):
    flight = laws.flights(TIMES, bounce(gravity, restitution))
    assert flight.acceleration == pytest.approx(gravity, rel=1e-6)
    assert flight.residual < 1e-6
    assert flight.restitutions[0] == pytest.approx(restitution, rel=1e-6)


def test_a_fall_whose_gravity_changes_has_a_residual():
    y = bounce(110.0, 0.85)
    y[:4] = y[0]  # it hangs in the air, then drops
    assert laws.flights(TIMES, y).residual > 1.0


def test_what_floats_upwards_or_is_hardly_seen_is_no_fall():
    with pytest.raises(TrackLost, match="nothing falls"):
        laws.flights(TIMES, 50 - 3 * TIMES**2)
    with pytest.raises(TrackLost, match="no flight"):
        laws.flights(TIMES, np.full(17, np.nan))


def test_a_sine_has_its_period_and_amplitude():
    swing = laws.oscillation(TIMES, 30 + 7 * np.cos(2 * np.pi * TIMES / 0.93 + 1))
    assert swing.period == pytest.approx(0.93, rel=0.01)
    assert swing.amplitude == pytest.approx(7, rel=0.01)
    assert swing.residual < 0.1
    drifting = laws.oscillation(TIMES, 30 + 7 * np.cos(2 * np.pi * (TIMES + 0.3 * TIMES**2)))
    assert drifting.residual > 10 * swing.residual


def collide(masses, before, after, at=1.0):
    x = [np.where(at > TIMES, v * (TIMES - at), w * (TIMES - at)) for v, w in zip(before, after, strict=True)]
    return laws.impact(TIMES, x[0] - 4, x[1] + 4, masses)


def test_an_elastic_collision_keeps_momentum_and_energy():
    m1, m2, u1, u2 = 1.0, 2.0, 14.0, -9.0
    v1 = ((m1 - m2) * u1 + 2 * m2 * u2) / (m1 + m2)
    v2 = ((m2 - m1) * u2 + 2 * m1 * u1) / (m1 + m2)
    result = collide((m1, m2), (u1, u2), (v1, v2))
    assert result.momentum_error < 1e-9
    assert result.energy_gain < 1e-9
    assert result.restitution == pytest.approx(1)
    assert result.unsteadiness < 1e-9


def test_a_collision_that_makes_momentum_or_energy_is_told():
    result = collide((1.0, 1.0), (10.0, -10.0), (-10.0, 16.0))
    assert result.momentum_error == pytest.approx(6 / 20)
    assert result.energy_gain == pytest.approx((100 + 256) / 200 - 1)
    with pytest.raises(TrackLost, match="do not approach"):
        collide((1.0, 1.0), (-5.0, 5.0), (-5.0, 5.0), at=0.5)


def test_monotone_constant_and_slowing_quantities():
    assert laws.backwards(np.array([0.0, 1, 2, 5])) == 0
    assert laws.backwards(np.array([0.0, 4, 2, 4])) == pytest.approx(0.5)
    assert laws.backwards(np.ones(5)) == 1, "what never changes has not grown"
    assert laws.inconstancy(np.full(6, 3.0)) == 0
    assert laws.inconstancy(np.array([2.0, 4, 2, 4])) == pytest.approx(1 / 3)
    assert laws.speeding_up(1 - np.exp(-TIMES)) < 1e-9
    assert laws.speeding_up(TIMES**2) > 0.05
    assert laws.unsteady(TIMES, 3 - 2 * TIMES) < 1e-9
    leaping = 9 * TIMES - 4 * (TIMES > 1.1)
    assert laws.unsteady(TIMES, leaping) > 0.05
    assert laws.unsteady(TIMES, leaping, leap=1.0) < 1e-9, "one leap is judged apart"
    assert laws.unsteady(TIMES, leaping - 4 * (TIMES > 1.6), leap=1.0) > 0.05, "two are not"
    assert laws.outside(1.7, 1.4, 2.0) == 0
    assert laws.outside(1.0, 1.4, 2.0) == pytest.approx(0.4)
    assert laws.capped(float("nan")) == 1


@pytest.mark.parametrize("measure", [laws.backwards, laws.inconstancy])
def test_a_quantity_that_is_never_measured_is_a_lost_track(measure):
    with pytest.raises(TrackLost):
        measure(np.full(17, np.nan))


# --- trackers on real renders -----------------------------------------------------------------------------------------


def test_every_scene_of_the_worlds_has_a_tracker():
    assert set(LAWS) == set(SCENES)


@pytest.mark.parametrize(("phenomenon", "variant"), SCENES)
def test_real_renders_obey_their_laws(phenomenon: str, variant: str):
    for seed, place, setting in ((0, "centre", "day"), (3, "left", "night"), (7, "right", "dusk")):
        clip = make_clip(phenomenon, variant, seed, place, setting)
        errors = law_errors(clip.frames, clip.scenario.events[0], setting)
        for law in LAWS[phenomenon, variant]:
            assert errors[law.name] <= law.tolerance, (law.name, seed)


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
@pytest.mark.parametrize(("phenomenon", "variant"), SCENES)
def test_real_renders_obey_their_laws_on_every_stage(phenomenon: str, variant: str, stage: Stage):
    clip = make_clip(phenomenon, variant, 4, "left", "dusk", stage)
    errors = law_errors(clip.frames, clip.scenario.events[0], "dusk", stage)
    for law in LAWS[phenomenon, variant]:
        assert errors[law.name] <= law.tolerance, law.name


@pytest.mark.parametrize(("phenomenon", "variant"), SCENES)
def test_a_clip_that_never_moves_is_never_lawful(phenomenon: str, variant: str):
    """Still waves and a still flame are lawful pictures: there it is the empty stage that must fail."""
    clip = make_clip(phenomenon, variant, 1)
    static = variant in ("ripples", "logs", "mirror", "glass", "fog", "smoke")
    frame = make_clip("collision", "balls", 1).frames[:1] * 0 + 230 if static else clip.frames[:1]
    errors = clip_errors(np.broadcast_to(frame, clip.frames.shape).astype(np.uint8), clip.scenario)
    assert errors.lost or max(errors.errors.values()) == 1, errors


def test_the_ball_tracker_recovers_gravity_and_restitution_of_real_renders():
    for seed in range(4):
        clip = make_clip("elastic_motion", "ball", seed)
        event, state = clip.scenario.events[0], clip.states[0]
        view = view_of(clip.frames, event, "day")
        y = follow(view, view.matte()).coordinate(1)
        flight = laws.flights(TIMES, y)
        assert flight.acceleration == pytest.approx(float(state["gravity"]), rel=0.02)
        assert flight.restitutions[0] == pytest.approx(float(state["restitution"]), abs=0.03)


@pytest.mark.parametrize("stage", [Stage(), *STAGES.values()], ids=["64x64x17@8", *STAGES])
def test_the_ball_tracker_recovers_places_within_a_quarter_of_a_unit(stage: Stage):
    clip = make_clip("collision", "balls", 2, stage=stage)
    view = view_of(clip.frames, clip.scenario.events[0], "day", stage)
    for which in range(2):
        ball = follow(view, view.matte(which))
        error = np.abs(ball.coordinate(0) - clip.states[0]["position"][:, which, 0])
        assert np.nanmax(error) < 0.25


def test_a_bent_reflection_and_a_gaining_bounce_are_unlawful():
    mirror = make_clip("reflection", "mirror", 1)
    right = mirror.frames[:, :, 32:]
    bent = np.concatenate([mirror.frames[:, :, :32], right.copy()], axis=2)
    bent[:, 4:46, 32:] = np.stack([np.roll(right[:, y], (y - 46) // 3, axis=1) for y in range(4, 46)], 1)
    errors = law_errors(bent, mirror.scenario.events[0], "day")
    assert errors["angle in = angle out"] > 0.05
    ball = make_clip("elastic_motion", "ball", 1)
    errors = law_errors(np.ascontiguousarray(ball.frames[::-1]), ball.scenario.events[0], "day")
    assert errors["no energy from nothing"] > 0.05, "played backwards, each bounce is higher than the last"


def test_a_clip_of_another_size_is_refused():
    clip = make_clip("collision", "balls", 1)
    with pytest.raises(ValueError, match="uint8 17×64×64×3"):
        law_errors(clip.frames[:, ::2], clip.scenario.events[0], "day")
    with pytest.raises(ValueError, match="uint8 17×64×96×3"):
        law_errors(clip.frames, clip.scenario.events[0], "day", Stage(96, 64))
    with pytest.raises(ValueError, match="unknown setting"):
        law_errors(clip.frames, clip.scenario.events[0], "dawn")


# --- scores -----------------------------------------------------------------------------------------------------------


def made_errors(value: float, lost: bool = False) -> ClipErrors:
    names = [law.name for law in LAWS["deformation", "press"]]
    scene = "deformation, press"
    return ClipErrors(
        {f"{scene}: {name}": 1.0 if lost else value for name in names}, {scene: "not seen"} if lost else {}
    )


def test_lost_tracks_count_as_failures_in_every_mean():
    scores = score_columns({REAL: [made_errors(0.0)] * 4, PROPHY: [made_errors(0.0)] * 3 + [made_errors(0, lost=True)]})
    assert scores[REAL].obeyed.value == 1
    assert scores[PROPHY].obeyed.value == pytest.approx(0.75)
    assert scores[PROPHY].error.value == pytest.approx(0.25)
    assert scores[PROPHY].lost.value == pytest.approx(0.25)
    assert {score.lost for score in scores[PROPHY].by_law.values()} == {1}


def test_columns_are_compared_clip_by_clip_with_the_backbone():
    rng = np.random.default_rng(0)
    base = rng.uniform(0.3, 0.6, 12)
    scores = score_columns(
        {BACKBONE: [made_errors(e) for e in base], PROPHY: [made_errors(e - 0.1) for e in base]},
    )
    assert scores[BACKBONE].minus_backbone is None
    assert scores[PROPHY].minus_backbone.value == pytest.approx(-0.1)
    assert scores[PROPHY].minus_backbone.high < 0


def test_what_is_mended_and_what_is_broken_is_counted_apart():
    base = [made_errors(e) for e in (1.0, 1.0, 0.0, 0.0)]
    scores = score_columns({AUTOENCODER: base, BACKBONE: base, PROPHY: [made_errors(e) for e in (0.0, 1.0, 1.0, 0.0)]})
    assert scores[PROPHY].mended.value == scores[PROPHY].broken.value == pytest.approx(0.25)
    assert scores[PROPHY].obeyed.value == scores[BACKBONE].obeyed.value
    assert scores[AUTOENCODER].mended is None, "no change to the model made it"


def test_columns_of_different_clips_are_refused():
    other = ClipErrors({"collision, balls: momentum": 0.0}, {})
    with pytest.raises(ValueError, match="different clips"):
        score_columns({REAL: [made_errors(0.0)], PROPHY: [other]})


def test_asked_clips_know_their_scenario_and_are_the_same_again():
    for split in ("test", "combinations", "parameters"):
        assert split in SPLITS
        assert asked_clips(split, 3) == asked_clips(split, 3)
    assert all(len(one.scenario.events) == 2 for one in asked_clips("combinations", 3))


def test_laws_command_measures_every_column_and_goes_on_where_it_was(tiny_pipeline, tmp_path, capsys):
    torch.manual_seed(8)
    tokenizer = build_tokenizer([one.prompt for one in asked_clips("test", 2)])
    config = tiny_pipeline.text_encoder.config
    config.vocab_size = len(tokenizer)
    tiny_pipeline.register_modules(tokenizer=tokenizer, text_encoder=UMT5EncoderModel(config).eval())
    model = tmp_path / "model"
    tiny_pipeline.save_pretrained(model)
    command = ["laws", "--model", str(model), "--work", str(tmp_path), "--clips", "2", "--batch", "2", "--steps", "1"]
    command += ["--split", "test", "--column", f"LoRA={model / 'transformer'}"]
    cli.main(command)
    out = capsys.readouterr().out
    result = json.loads((tmp_path / "evaluation" / "laws.json").read_text())
    columns = result["scores"]["test"]
    assert list(columns) == ["real", "autoencoder", "backbone", "LoRA", "ProPhy"]
    assert columns["real"]["lost"]["value"] == 0
    assert columns["ProPhy"]["error"]["value"] > 0.3, "noise obeys nothing"
    assert "scenes without a track" in out
    made = sorted((tmp_path / "evaluation").glob("clips/*/*.npz"))
    times = [path.stat().st_mtime_ns for path in made]
    assert made
    cli.main(command)
    assert [path.stat().st_mtime_ns for path in made] == times


def test_a_column_is_what_publish_wrote(tiny_pipeline, tmp_path):
    base, alone = tmp_path / "base", tmp_path / "alone"
    tiny_pipeline.save_pretrained(base)
    with torch.no_grad():
        tiny_pipeline.branch.projections[0].bias.fill_(0.5)
    tiny_pipeline.branch.save_pretrained(alone)
    arguments = cli.build_parser().parse_args(["laws", "--model", str(base), "--column", f"other={alone}"])
    columns = law_columns(arguments)
    assert list(columns) == ["backbone", "other", "ProPhy"]
    opened = columns["other"]()
    assert opened.attachment.enabled
    assert (opened.branch.projections[0].bias == 0.5).all()


def test_a_column_is_a_published_transformer_without_a_branch(tiny_pipeline, tmp_path):
    base, alone = tmp_path / "base", tmp_path / "alone"
    tiny_pipeline.save_pretrained(base)
    with torch.no_grad():
        tiny_pipeline.transformer.proj_out.bias.fill_(0.25)
    tiny_pipeline.transformer.save_pretrained(alone / "transformer")
    arguments = cli.build_parser().parse_args(["laws", "--model", str(base), "--column", f"other={alone}"])
    opened = law_columns(arguments)["other"]()
    assert opened.attachment is None
    assert (opened.transformer.proj_out.bias == 0.25).all()


def test_a_column_without_a_model_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds none of model_index\.json"):
        cli.main(["laws", "--work", str(tmp_path), "--column", f"LoRA={tmp_path}"])
    assert not (tmp_path / "evaluation").exists()


@pytest.mark.parametrize("column", ["LoRA", "=x", "ProPhy=x", "backbone=x", "autoencoder=x"])
def test_bad_columns_are_refused(column: str, tmp_path):
    with pytest.raises(ValueError, match="give NAME=DIR"):
        cli.main(["laws", "--work", str(tmp_path), "--column", column])
