"""Impossible twins: the same clip, but for one law. What the trackers say of 200 of each: benchmarks/twins.md."""

import re
from pathlib import Path

import numpy as np
import pytest

from prophy.evaluation.judges.trackers import LAWS, obeyed
from prophy.worlds import EVENTS, TWINS, Broken, Placed, Scenario, Stage, WorldClip, render, sample_clip, twin_pairs
from prophy.worlds.pairs import Scene, showing

STAGE = Stage(192, 128)
SCENES = [pytest.param(scene, id="-".join(scene)) for scene in TWINS]
ALL = [pytest.param(scene, law, id=f"{'-'.join(scene)}: {law}") for scene, laws in TWINS.items() for law in laws]


@pytest.fixture(scope="module")
def shown() -> dict[Scene, list[tuple[int, int]]]:
    """Two clips of every scene."""
    return showing("train", 2)


def make(scene: Scene, law: str | None, stage: Stage = Stage()) -> WorldClip:
    """One event in the left half."""
    kind = next(kind for kind in EVENTS[scene[0]] if kind.variant == scene[1])
    scenario = Scenario((Placed(*scene, ("red", "blue")[: kind.colour_count], "left"),), "day")
    broken = None if law is None else Broken(law)
    made = render(scenario, np.random.default_rng(4), stage=stage, broken=broken)
    return WorldClip(*made[:2], "", scenario, made[2], 4, stage, broken)


def test_every_law_of_every_tracker_has_a_twin():
    assert {scene: set(laws) for scene, laws in TWINS.items()} == {
        scene: {law.name for law in laws} for scene, laws in LAWS.items()
    }


@pytest.mark.parametrize("scene", SCENES)
def test_a_twin_breaks_its_own_law_and_no_other(scene: Scene, shown):
    for seed, event in shown[scene]:
        for broken in (None, *TWINS[scene]):
            clip = sample_clip(seed, stage=STAGE, broken=None if broken is None else Broken(broken, event))
            kept = obeyed(clip.frames, clip.scenario.events[event], clip.scenario.setting, STAGE)
            assert {law for law, obeys in kept.items() if not obeys} == ({broken} - {None}), (seed, broken)


@pytest.mark.parametrize(("scene", "law"), ALL)
def test_a_twin_has_the_looks_and_the_parameters_of_the_lawful_clip(scene: Scene, law: str):
    lawful, impossible = make(scene, None), make(scene, law)
    assert (impossible.frames != lawful.frames).any()
    assert (impossible.frames[:, :, 32:] == lawful.frames[:, :, 32:]).all(), "it keeps to its half"
    if law not in ("moves upwards", "leaves the chimney"):  # smoke that was never in the chimney
        assert np.abs(impossible.frames[0].astype(int) - lawful.frames[0]).mean() < 6, "it begins alike"
    (before,), (after,) = lawful.states, impossible.states
    assert before.keys() == after.keys()
    assert all(np.isfinite(values).all() for values in after.values())
    mask = impossible.masks[scene[0]]
    assert mask.shape == lawful.masks[scene[0]].shape
    assert mask.any()


def test_the_other_event_of_a_clip_stays_pixel_by_pixel_lawful():
    checked = 0
    for seed in range(12):
        lawful = sample_clip(seed, "combinations")
        for which, half in ((0, slice(32, 64)), (1, slice(0, 32))):
            event = lawful.scenario.events[which]
            law = next(iter(TWINS[event.phenomenon, event.variant]))
            impossible = sample_clip(seed, "combinations", broken=Broken(law, which))
            assert (impossible.scenario, impossible.caption) == (lawful.scenario, lawful.caption)
            assert (impossible.frames[:, :, half] == lawful.frames[:, :, half]).all()
            other = lawful.scenario.events[1 - which].phenomenon
            assert (impossible.masks[other] == lawful.masks[other]).all()
            for name, values in lawful.states[1 - which].items():
                assert (impossible.states[1 - which][name] == values).all(), name
            checked += 1
    assert checked == 24


def test_masks_and_states_are_of_the_twin_that_is_drawn():
    clip = make(("rigid_body_motion", "wheel"), "size", Stage(96, 64))
    radius, place = clip.states[0]["radius"], clip.states[0]["position"]
    assert radius[-1] / radius[0] in (pytest.approx(1.5), pytest.approx(0.55))
    for frame, mask in enumerate(clip.masks["rigid_body_motion"]):
        rows = np.flatnonzero(mask.any(1))
        assert abs(rows.max() + 1 - rows.min() - 2 * radius[frame]) < 2.1
        assert abs((rows.max() + 1 + rows.min()) / 2 - place[frame, 1]) < 1.1
    candle = make(("combustion", "candle"), "stays lit")
    out = ~candle.masks["combustion"].any((1, 2))
    assert 3 <= out.sum() <= 7, "where there is no flame there is no mask"


def test_the_same_seed_gives_the_same_twin_and_its_caption_is_that_of_the_clip():
    ((seed, event),) = showing("test", 1, ("elastic_motion",))["elastic_motion", "ball"]
    law = Broken("constant gravity", event)
    one, again = (sample_clip(seed, "test", ("elastic_motion",), broken=law) for _ in range(2))
    assert (one.frames == again.frames).all()
    assert one.broken == law
    assert one.caption == sample_clip(seed, "test", ("elastic_motion",)).caption


@pytest.mark.parametrize("stage", [Stage(), Stage(96, 64, 33, 16), Stage(128, 80, 49, 8)], ids=str)
def test_laws_are_broken_on_every_stage(stage: Stage):
    for scene, law in (
        (("elastic_motion", "ball"), "no energy from nothing"),
        (("collision", "balls"), "momentum"),
        (("liquid_motion", "pour"), "never less"),
        (("reflection", "mirror"), "angle in = angle out"),
    ):
        clip = make(scene, law, stage)
        assert not obeyed(clip.frames, clip.scenario.events[0], "day", stage)[law]


def test_laws_that_a_clip_does_not_have_are_refused():
    with pytest.raises(ValueError, match=r"collision \(balls\) has no law 'period': break one of momentum, energy"):
        sample_clip(0, phenomena=("collision",), broken=Broken("period"))
    with pytest.raises(ValueError, match="the clip has no event 1: it shows 1"):
        sample_clip(0, phenomena=("collision",), broken=Broken("momentum", 1))
    with pytest.raises(ValueError, match="clocks keep no law: break 'momentum' in a lawful clip"):
        sample_clip(0, phenomena=("collision",), lawful=False, broken=Broken("momentum"))


def test_pairs_come_law_by_law_with_one_scenario_and_caption():
    pairs = list(twin_pairs("wordings", 2, ("collision", "reflection")))
    laws = [*TWINS["collision", "balls"], *TWINS["reflection", "mirror"]]
    assert sorted(pair.broken.law for pair in pairs) == sorted(2 * laws)
    for pair in pairs:
        assert pair.impossible.broken == pair.broken
        assert pair.possible.broken is None
        assert pair.broken.law in TWINS[pair.event.phenomenon, pair.event.variant]
        assert pair.possible.caption == pair.impossible.caption
        assert pair.possible.scenario == pair.impossible.scenario
        assert (pair.possible.frames != pair.impossible.frames).any()
    with pytest.raises(ValueError, match="unknown split"):
        next(twin_pairs("dev", 1))


def test_the_page_about_the_worlds_tells_how_each_law_is_broken():
    page = (Path(__file__).resolve().parents[1] / "docs" / "worlds.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+) \((\w+)\) \| (.+) \| (.+) \|$", page, re.MULTILINE)
    told = {(variant, law): seen for _, variant, law, seen in rows}
    assert told == {(scene[1], law): twin.seen for scene, laws in TWINS.items() for law, twin in laws.items()}
