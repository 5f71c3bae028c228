"""Worlds at any size, length and rate: the default stage is as it always was, others obey the same rules."""

import hashlib
import json
from itertools import permutations
from pathlib import Path

import cv2
import numpy as np
import pytest

from prophy.phenomena import IDS
from prophy.worlds import (
    COLOURS,
    EVENTS,
    HELD_OUT_PAIRS,
    Placed,
    Scenario,
    Stage,
    WorldClip,
    render,
    sample_clip,
    sample_scenario,
)
from prophy.worlds.event import Event
from prophy.worlds.stage import FLOOR, Knobs

#: "split seed phenomena" -> digest, of clips that the first generation of the embedded model was taught on
DIGESTS = json.loads(Path(__file__).with_name("world_digests.json").read_text())
KINDS = [pytest.param(kind, id=f"{kind.phenomenon}-{kind.variant}") for kinds in EVENTS.values() for kind in kinds]
STAGES = {
    "96x64x17@8": Stage(96, 64),
    "128x80x17@8": Stage(128, 80),
    "96x64x33@16": Stage(96, 64, 33, 16),
    "416x240x81@16": Stage(416, 240, 81, 16),
}
FLUID = ("smoke", "boil", "candle", "logs", "fog")  # drawn more finely on a large stage


def digest(clip: WorldClip) -> str:
    """Of everything a clip holds."""
    whole = hashlib.sha256(clip.frames.tobytes() + clip.caption.encode())
    for name, mask in sorted(clip.masks.items()):
        whole.update(name.encode() + mask.tobytes())
    for state in clip.states:
        for name, values in sorted(state.items()):
            whole.update(name.encode() + np.ascontiguousarray(values).tobytes())
    return whole.hexdigest()[:16]


def play(kind: type[Event], stage: Stage, seed: int = 0, place: str = "centre", held_out: bool = False) -> Event:
    """One event, simulated."""
    knobs = Knobs(np.random.default_rng(seed), held_out)
    return kind(knobs, stage.region(place), tuple(COLOURS)[: kind.colour_count], stage)


def show(kind: type[Event], stage: Stage, seed: int = 0, place: str = "centre") -> tuple[np.ndarray, np.ndarray]:
    """The frames and the mask of one event."""
    scenario = Scenario((Placed(kind.phenomenon, kind.variant, tuple(COLOURS)[: kind.colour_count], place),), "day")
    frames, masks, _ = render(scenario, np.random.default_rng(seed), stage=stage)
    return frames, masks[kind.phenomenon]


# --- the first generation ---------------------------------------------------------------------------------------------


def test_the_default_stage_gives_the_clips_it_always_gave_bit_for_bit():
    changed = []
    for key, expected in DIGESTS.items():
        split, seed, *phenomena = key.split()
        clip = sample_clip(int(seed), split, *([tuple(phenomena)] if phenomena else []))
        if digest(clip) != expected:
            changed.append(key)
    assert len(DIGESTS) >= 80
    assert not changed


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_a_clip_has_the_size_of_its_stage_and_each_event_keeps_to_its_half(stage: Stage):
    for seed in range(4 if stage.height < 200 else 1):
        clip = sample_clip(seed, "combinations", stage=stage)
        assert clip.frames.shape == (stage.frames, stage.height, stage.width, 3)
        for event, (name, mask) in zip(clip.scenario.events, clip.masks.items(), strict=True):
            assert mask.shape == clip.frames.shape[:3]
            half = stage.width // 2
            other = mask[..., half:] if event.place == "left" else mask[..., :half]
            assert mask.any((1, 2)).sum() > stage.frames / 2, name
            assert not other.any(), name


def test_scenario_and_caption_of_a_seed_are_the_same_on_every_stage():
    for seed in range(5):
        scenario, caption = sample_scenario(seed, "test")
        for stage in list(STAGES.values())[:3]:
            clip = sample_clip(seed, "test", stage=stage)
            assert clip.caption == caption
            assert clip.scenario == scenario


@pytest.mark.parametrize("kind", KINDS)
def test_what_happens_does_not_depend_on_the_pixels(kind: type[Event]):
    small, large = (play(kind, stage, 3, "left") for stage in (Stage(96, 64), Stage(384, 256)))
    for name, values in small.state.items():
        if kind.variant not in FLUID:
            np.testing.assert_allclose(large.state[name], values, rtol=1e-9, atol=1e-9)
        elif values.ndim == 0:
            assert large.state[name] == values
        else:
            assert large.state[name].mean() == pytest.approx(values.mean(), rel=0.25), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_of_a_large_clip_averaged_down_is_the_mask_of_the_small_one(kind: type[Event]):
    small, large = (show(kind, stage, 3)[1] for stage in (Stage(), Stage(256, 256)))
    shrunk = np.stack([cv2.resize(mask.astype(np.float32), (64, 64), interpolation=cv2.INTER_AREA) for mask in large])
    full = shrunk > 0.99
    near = np.stack([cv2.dilate((mask > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0 for mask in shrunk])
    if kind.variant in FLUID:
        assert (full & ~small).sum() + (small & ~near).sum() < 0.25 * small.sum()
    else:
        assert not (full & ~small).any(), "what is covered wholly is covered on the small stage"
        assert not (small & ~near).any(), "what is covered on the small stage is a pixel away at most"


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_the_mask_of_a_ball_is_where_the_simulator_has_it_at_every_size(stage: Stage):
    clip = sample_clip(1, "train", ("collision",), stage)
    region = stage.region(clip.scenario.events[0].place)
    state, checked = clip.states[0], 0
    for frame, mask in enumerate(clip.masks["collision"]):
        x, radius = state["position"][frame, :, 0], state["radius"]
        left, right = x[0] - radius[0], x[1] + radius[1]
        if region.left < left and right < region.right:
            columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
            edges = [columns.min(), columns.max() + 1, rows.min(), rows.max() + 1]
            truth = np.array([left, right, FLOOR - 2 * radius.max(), FLOOR]) * stage.scale
            assert np.abs(edges - truth).max() < 1.1
            checked += 1
    assert checked > stage.frames / 4


def test_events_use_the_room_of_a_wide_stage():
    for kind in (kind for kinds in EVENTS.values() for kind in kinds):
        if kind.variant in ("spring", "condense", "neon"):
            continue  # one thing that hangs or stands, with as much wall beside it; drops are as large in any row
        square, wide = (show(kind, stage, 2, "left")[1].any((0, 1)).sum() for stage in (Stage(), Stage(128, 64)))
        assert wide > 1.1 * square, f"{kind.variant}: {wide} columns in half of a wide stage, {square} of a square one"


# --- rates and lengths ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_twice_the_rate_shows_the_same_events_between_the_same_frames(kind: type[Event]):
    slow, fast = (show(kind, stage, 5, "left")[0].astype(float) for stage in (Stage(), Stage(64, 64, 33, 16)))
    assert np.abs(fast[::2] - slow).mean() < 1.0, "of 255"


@pytest.mark.parametrize("stage", [Stage(96, 64), Stage(128, 64), Stage(128, 64, 33, 16)], ids=str)
def test_spokes_never_turn_so_far_in_a_frame_that_they_seem_to_stand_or_turn_back(stage: Stage):
    wheel = next(kind for kind in EVENTS["rigid_body_motion"] if kind.variant == "wheel")
    for seed in range(8):
        turn = np.diff(play(wheel, stage, seed, held_out=True).state["angle"])
        assert np.abs(turn).max() < np.pi / 6


def test_a_ball_that_comes_to_rest_is_round_again():
    ball = next(kind for kind in EVENTS["elastic_motion"] if kind.variant == "ball")
    still = 0
    for seed in range(12):
        state = play(ball, Stage(64, 64, 97, 16), seed).state
        assert state["squash"][:32].min() < 0.9
        fastest = np.abs(state["velocity"][-10:, 1]).max()
        if fastest < 12:
            still += 1
            assert state["squash"][-8:].min() > 1 - 0.34 * fastest / 20 - 0.05
    assert still


def test_a_longer_clip_is_filled_by_what_happens():
    """What melts, freezes, boils, burns or is pressed is at it through most of six seconds, not the first two."""
    names = {"block": "solid_share", "freeze": "front", "boil": "level", "candle": "height", "press": "height"}
    stage = Stage(64, 64, 97, 16)
    for kind in (kind for kinds in EVENTS.values() for kind in kinds if kind.variant in names):
        values = play(kind, stage, 1).state[names[kind.variant]]
        done = np.abs(values - values[0]) / np.abs(values[-1] - values[0])
        assert done[stage.frames // 3] < 0.75, kind.variant


# --- what is drawn how often ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scenarios() -> list[Scenario]:
    return [sample_scenario(seed, "train")[0] for seed in range(12_000)]


def test_every_pair_of_phenomena_is_shown_in_both_orders(scenarios):
    shown = {tuple(event.phenomenon for event in one.events) for one in scenarios if len(one.events) == 2}
    assert shown == {pair for pair in permutations(IDS, 2) if frozenset(pair) not in HELD_OUT_PAIRS}
    assert all([event.place for event in one.events] == ["left", "right"] for one in scenarios if len(one.events) == 2)


def test_colours_do_not_depend_on_what_happens_where_or_when(scenarios):
    """Cramér's V of an event's first colour with its scene, its place, the setting, and the colour beside it."""
    rows = []
    for one in scenarios:
        for event in one.events:
            if event.colours:
                beside = [other.colours[0] for other in one.events if other is not event and other.colours]
                scene = f"{event.phenomenon}, {event.variant}"
                rows.append((event.colours[0], scene, event.place, one.setting, beside[0] if beside else "none"))
    colours, *others = zip(*rows, strict=True)
    for name, values in zip(("scene", "place", "setting", "colour beside"), others, strict=True):
        table = np.array(
            [
                [sum(c == a and v == b for c, v in zip(colours, values, strict=True)) for b in set(values)]
                for a in COLOURS
            ],
            float,
        )
        expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
        chi2 = ((table - expected) ** 2 / expected).sum()
        freedom = (len(table) - 1) * (table.shape[1] - 1)
        assert chi2 < freedom + 5 * np.sqrt(2 * freedom), f"colours depend on the {name}: chi² {chi2:.0f} of {freedom}"


def test_colours_do_not_depend_on_the_parameters_of_a_law():
    index = {colour: [] for colour in COLOURS}
    for seed in range(300):
        clip = sample_clip(seed, "train", ("refraction",))
        index[clip.scenario.events[0].colours[0]].append(float(clip.states[0]["index"]))
    every = np.concatenate(list(index.values()))
    for colour, values in index.items():
        error = every.std() / np.sqrt(len(values))
        assert abs(np.mean(values) - every.mean()) < 4 * error, colour


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((100, 64), "a stage of 100×64 pixels: give a width and a height that 8 divides"),
        ((40, 40), "a stage of 40×40 pixels: give a height of 48 to 1088"),
        ((64, 96), "a stage of 64×96 pixels: give a width of 1 to 2.2 times the height"),
        ((256, 64), "give a width of 1 to 2.2 times the height"),
        ((64, 64, 17, 4), "4 frames a second: give 8 to 32"),
        ((64, 64, 33, 60), "60 frames a second: give 8 to 32"),
        ((64, 64, 18), "18 frames: give one more than a multiple of 4"),
        ((64, 64, 17, 16), r"17 frames at 16 a second last 1.0 s: give 33 to 97 frames"),
        ((64, 64, 81, 8), r"81 frames at 8 a second last 10.0 s: give 17 to 49 frames"),
        ((64, 64, 201, 25), r"201 frames at 25 a second last 8.0 s: give 53 to 149 frames"),
    ],
)
def test_a_stage_that_worlds_autoencoders_or_trackers_cannot_do_is_refused(arguments: tuple, message: str):
    with pytest.raises(ValueError, match=message):
        Stage(*arguments)


def test_the_lengths_named_in_a_refusal_are_the_first_and_the_last_that_exist():
    for fps in range(8, 33):
        lengths = []
        for frames in range(1, 201, 4):
            try:
                lengths.append(Stage(64, 64, frames, fps).frames)
            except ValueError as refused:
                message = str(refused)
        assert message.endswith(f"give {lengths[0]} to {lengths[-1]} frames"), fps


@pytest.mark.parametrize("text", ["64x64", "axbxc", "64x64x17x8", "-64x64x17", "64x64x1.5"])
def test_what_is_no_size_is_refused(text: str):
    with pytest.raises(ValueError, match="is not WxHxF: give three numbers, as in 96x64x17"):
        Stage.parse(text)


def test_a_size_is_read_with_its_rate():
    assert Stage.parse("832X480x81", 16) == Stage(832, 480, 81, 16)
    assert str(Stage(832, 480, 81, 16)) == "832×480×81 at 16 frames a second"
