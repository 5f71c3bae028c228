"""Clocks that obey no law: the same things, drawn as at every moment, in an order and at a pace that no law gives."""

import numpy as np
import pytest

from prophy.evaluation.judges.laws import TrackLost
from prophy.evaluation.judges.trackers import LAWS, law_errors
from prophy.worlds import COLOURS, EVENTS, Placed, Scenario, Stage, render, sample_clip
from prophy.worlds.clocks import FINER, FROZEN, REVERSED, fine_times, unlawful_clock
from prophy.worlds.event import Event
from prophy.worlds.stage import Knobs

KINDS = [pytest.param(kind, id=f"{kind.phenomenon}-{kind.variant}") for kinds in EVENTS.values() for kind in kinds]
STAGES = [Stage(), Stage(96, 64, 81, 16)]


def scene(kind: type[Event], place: str = "left") -> Scenario:
    return Scenario((Placed(kind.phenomenon, kind.variant, tuple(COLOURS)[: kind.colour_count], place),), "day")


def clocks_of(stage: Stage, count: int) -> np.ndarray:
    """Seconds that ``count`` clocks show, ``(n, F)``."""
    rng = np.random.default_rng(0)
    return np.stack([fine_times(stage)[unlawful_clock(stage, rng)] for _ in range(count)])


# --- the clocks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES, ids=["2 s", "5 s"])
def test_shares_of_clocks_that_stand_still_and_run_backwards(stage: Stage):
    shown = clocks_of(stage, 2000)
    frozen = (np.ptp(shown, axis=1) == 0).mean()
    backwards = np.isclose(np.diff(shown, axis=1), -1 / stage.fps).all(1).mean()
    assert frozen == pytest.approx(FROZEN, abs=0.025)
    assert backwards == pytest.approx(REVERSED, abs=0.03)


@pytest.mark.parametrize("stage", STAGES, ids=["2 s", "5 s"])
def test_a_wandering_clock_has_inertia_turns_round_and_stays_within_the_clip(stage: Stage):
    shown = clocks_of(stage, 600)
    rates = np.diff(shown, axis=1) * stage.fps
    wandering = (np.ptp(shown, axis=1) > 0) & ~np.isclose(rates, -1).all(1)
    shown, rates = shown[wandering], rates[wandering]
    assert shown.min() >= 0
    assert shown.max() <= stage.duration
    assert (np.sign(rates[:, 1:]) != np.sign(rates[:, :-1])).any(1).mean() > 0.8, "most turn round"
    lag = round(0.125 * stage.fps)
    assert np.corrcoef(rates[:, :-lag].ravel(), rates[:, lag:].ravel())[0, 1] > 0.5, "the rate changes smoothly"
    assert 1.0 < rates.std() < 2.2, "seconds a second, at every frame rate"


def test_every_event_of_a_clip_has_a_clock_of_its_own():
    moving = 0
    for seed in range(40):
        clip = sample_clip(seed, "combinations", lawful=False)
        still = [
            (clip.frames[1:, :, half] == clip.frames[:-1, :, half]).all() for half in (slice(0, 32), slice(32, 64))
        ]
        moving += still[0] != still[1]
    assert moving >= 4, "in some clips one event stands still and the other does not"


# --- what is drawn ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_an_event_that_runs_backwards_shows_the_lawful_frames_backwards(kind: type[Event], monkeypatch):
    stage = Stage(96, 64)
    lawful = render(scene(kind), np.random.default_rng(4), stage=stage)
    last = FINER * (stage.frames - 1)
    monkeypatch.setattr("prophy.worlds.sample.unlawful_clock", lambda *_: np.arange(last, -1, -FINER))
    backwards = render(scene(kind), np.random.default_rng(4), stage=stage, clocks=np.random.default_rng(0))
    assert (backwards[0] == lawful[0][::-1]).all(), "frames"
    assert (backwards[1][kind.phenomenon] == lawful[1][kind.phenomenon][::-1]).all(), "masks"
    for name, values in lawful[2][0].items():
        seen = backwards[2][0][name]
        if name == "velocity":
            np.testing.assert_allclose(seen, -values[::-1], err_msg="seen backwards, it moves the other way")
        elif name != "begin" and values.ndim and len(values) == stage.frames:
            assert (seen == values[::-1]).all(), name
        elif name != "begin":
            assert (seen == values).all(), name


def test_an_unlawful_clip_has_the_scenario_caption_and_parameters_of_the_lawful_one():
    for seed in range(12):
        lawful, unlawful = (sample_clip(seed, "test", lawful=choice) for choice in (True, False))
        assert lawful.scenario == unlawful.scenario
        assert lawful.caption == unlawful.caption
        assert unlawful.frames.shape == lawful.frames.shape
        assert (unlawful.frames != lawful.frames).any()
        for one, other in zip(lawful.states, unlawful.states, strict=True):
            assert one.keys() == other.keys()
            for name, values in one.items():
                assert other[name].shape == values.shape, name
                if values.ndim == 0 and name != "begin":
                    assert other[name] == values, name


def test_the_same_seed_gives_the_same_unlawful_clip():
    assert (sample_clip(3, lawful=False).frames == sample_clip(3, lawful=False).frames).all()


def test_masks_and_states_are_of_what_is_drawn():
    checked = 0
    for seed in range(12):
        clip = sample_clip(seed, "train", ("collision",), lawful=False)
        state, region = clip.states[0], clip.stage.region(clip.scenario.events[0].place)
        for frame, mask in enumerate(clip.masks["collision"]):
            (left, _), (right, _) = state["position"][frame]
            left, right = left - state["radius"][0], right + state["radius"][1]
            if region.left < left and right < region.right:
                columns = np.flatnonzero(mask.any(0))
                assert abs(columns.min() - left) < 1.1
                assert abs(columns.max() + 1 - right) < 1.1
                checked += 1
    assert checked > 40


def test_the_velocity_of_a_state_is_the_one_seen():
    wheel = next(kind for kind in EVENTS["rigid_body_motion"] if kind.variant == "wheel")
    for seed in range(6):
        stage = Stage()
        _, _, (state,) = render(
            scene(wheel), np.random.default_rng(seed), stage=stage, clocks=np.random.default_rng(seed)
        )
        seen = np.gradient(state["position"][:, 0], stage.times)
        np.testing.assert_allclose(state["velocity"][:, 0], seen, atol=1e-9)


def test_a_blast_that_a_clock_never_shows_begins_after_the_last_frame(monkeypatch):
    bomb = EVENTS["explosion"][0]
    stage = Stage()
    event = bomb(Knobs(np.random.default_rng(0), False), stage.whole, ("red",), stage, fine_times(stage))
    begin = int(event.state["begin"])
    assert event.shown_at(np.zeros(stage.frames, int))["begin"] == stage.frames
    assert event.shown_at(np.arange(stage.frames) + begin - 5)["begin"] == 5


# --- what the trackers say --------------------------------------------------------------------------------------------

#: Laws that a clock breaks: those of motion and change. The others hold at every moment by itself (a size, an angle).
BROKEN = {
    ("collision", "balls"): ("uniform motion",),
    ("rigid_body_motion", "wheel"): ("uniform motion",),
    ("elastic_motion", "spring"): ("one period",),
    ("melting", "block"): ("the solid only shrinks",),
    ("solidification", "freeze"): ("the front only advances",),
    ("vaporization", "boil"): ("the level only sinks",),
    ("liquid_motion", "pour"): ("never less",),
    ("deformation", "press"): ("only flatter",),
    ("explosion", "bomb"): ("the fireball only grows",),
    ("gas_motion", "smoke"): ("moves upwards",),
}


@pytest.mark.parametrize("scene_key", BROKEN, ids=lambda key: f"{key[0]}-{key[1]}")
def test_most_unlawful_renders_break_the_laws_of_motion_and_change(scene_key: tuple[str, str]):
    kind = next(kind for kind in EVENTS[scene_key[0]] if kind.variant == scene_key[1])
    obeyed = []
    for seed in range(20):
        frames, _, _ = render(scene(kind), np.random.default_rng(seed), clocks=np.random.default_rng([seed, 1]))
        try:
            errors = law_errors(frames, scene(kind).events[0], "day")
        except TrackLost:
            errors = {law.name: np.inf for law in LAWS[scene_key]}
        obeyed.append([errors[law.name] <= law.tolerance for law in LAWS[scene_key] if law.name in BROKEN[scene_key]])
    assert np.mean(obeyed) <= 0.35
