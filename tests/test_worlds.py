"""The synthetic worlds: the same seed gives the same clip, masks are exact, held-out means never seen, laws hold."""

import hashlib
import itertools
import re
import subprocess
import sys

import numpy as np
import pytest
from transformers import AutoTokenizer

from prophy.assets import default_model
from prophy.phenomena import IDS
from prophy.worlds import EVENTS, HELD_OUT_PAIRS, SPLITS, Stage, WorldClip, sample_clip, sample_scenario
from prophy.worlds.captions import COLOUR_WORDS, TEMPLATES
from prophy.worlds.event import kind_of
from prophy.worlds.painter import Painter, background
from prophy.worlds.stage import COLOURS, FLOOR, Knobs

SQUARE = Stage()
SIZE, FRAMES, HALVES, WHOLE = SQUARE.height, SQUARE.frames, SQUARE.halves, SQUARE.whole
COUNT = 3000  #: captions looked at in each split
KINDS = [pytest.param(kind, id=f"{kind.phenomenon}-{kind.variant}") for kinds in EVENTS.values() for kind in kinds]


def state_of(
    phenomenon: str, variant: str, seed: int, held_out: bool = False, stage: Stage = SQUARE
) -> dict[str, np.ndarray]:
    """The simulator's state of one event; odd seeds play on half the stage."""
    kind = kind_of(phenomenon, variant)
    region = stage.halves["right"] if seed % 2 else stage.whole
    return kind(Knobs(np.random.default_rng(seed), held_out), region, tuple(COLOURS)[: kind.colour_count], stage).state


@pytest.fixture(scope="module")
def scenarios() -> dict[str, list]:
    return {split: [sample_scenario(seed, split) for seed in range(COUNT)] for split in SPLITS}


@pytest.fixture(scope="module")
def clips() -> list[WorldClip]:
    """Every phenomenon twice, then pairs."""
    alone = [sample_clip(seed, "train", (phenomenon,)) for phenomenon in IDS for seed in range(2)]
    return alone + [sample_clip(seed, "combinations") for seed in range(24)]


# --- the same seed, the same clip -------------------------------------------------------------------------------------

_DIGEST = """
import hashlib
from prophy.worlds import sample_clip
for seed, split in ((0, "train"), (1, "train"), (7, "combinations"), (3, "parameters")):
    clip = sample_clip(seed, split)
    digest = hashlib.sha256(clip.frames.tobytes() + clip.caption.encode())
    for name, mask in sorted(clip.masks.items()):
        digest.update(name.encode() + mask.tobytes())
    print(digest.hexdigest())
"""


def digests_in_another_process(hash_seed: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", _DIGEST], env={"PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_a_seed_gives_the_same_bytes_in_every_process():
    first, second = (digests_in_another_process(hash_seed) for hash_seed in ("1", "2"))
    assert first == second
    assert len(set(first)) == 4
    clip = sample_clip(0)
    digest = hashlib.sha256(clip.frames.tobytes() + clip.caption.encode())
    for name, mask in sorted(clip.masks.items()):
        digest.update(name.encode() + mask.tobytes())
    assert digest.hexdigest() == first[0]


def test_a_clip_does_not_depend_on_those_made_before_it():
    first = sample_clip(5).frames
    sample_clip(6)
    assert (sample_clip(5).frames == first).all()


def test_splits_use_seeds_of_their_own(scenarios):
    scenes = {split: [scenario for scenario, _ in pairs] for split, pairs in scenarios.items()}
    for a, b in itertools.combinations(SPLITS, 2):
        same = sum(x == y for x, y in zip(scenes[a], scenes[b], strict=True))
        assert same < COUNT / 50, f"{a} and {b} show the same scenario for {same} of {COUNT} seeds"


# --- what a clip holds ------------------------------------------------------------------------------------------------


def test_every_phenomenon_has_a_world_and_captions():
    assert set(EVENTS) == set(IDS)
    assert set(TEMPLATES) == {(kind.phenomenon, kind.variant) for kinds in EVENTS.values() for kind in kinds}


def test_frames_masks_and_states_fit_together(clips):
    for clip in clips:
        assert clip.frames.shape == (FRAMES, SIZE, SIZE, 3)
        assert clip.frames.dtype == np.uint8
        assert list(clip.masks) == [event.phenomenon for event in clip.scenario.events]
        assert len(clip.states) == len(clip.scenario.events)
        assert clip.scenario.labels.sum() == len(clip.masks)
        for mask in clip.masks.values():
            assert mask.shape == (FRAMES, SIZE, SIZE)
            assert mask.dtype == bool
        for state in clip.states:
            for name, values in state.items():
                assert np.isfinite(values).all(), f"{clip.scenario}: {name}"


def test_every_phenomenon_acts_somewhere_and_not_everywhere(clips):
    assert {name for clip in clips for name in clip.masks} == set(IDS)
    for clip in clips:
        for name, mask in clip.masks.items():
            assert 0.002 < mask.mean() < 0.6, f"{name}, seed {clip.seed}: {mask.mean():.4f} of the clip"
            assert mask.any((1, 2)).sum() >= FRAMES // 2, f"{name}, seed {clip.seed}: acts in too few frames"


def test_an_event_stays_in_its_half_of_the_stage(clips):
    pairs = [clip for clip in clips if len(clip.masks) == 2]
    assert len(pairs) >= 24
    for clip in pairs:
        for event in clip.scenario.events:
            other = np.s_[..., SIZE // 2 :] if event.place == "left" else np.s_[..., : SIZE // 2]
            assert not clip.masks[event.phenomenon][other].any(), f"{event}, seed {clip.seed}"


def test_the_empty_half_of_the_stage_shows_only_the_backdrop():
    seen = 0
    for seed in range(40):
        scenario, _ = sample_scenario(seed, "train", IDS[:1])
        if scenario.events[0].place in HALVES:
            frames = sample_clip(seed, "train", IDS[:1]).frames
            empty = slice(SIZE // 2, SIZE) if scenario.events[0].place == "left" else slice(0, SIZE // 2)
            backdrop = background(scenario.setting)[::2, ::2]
            assert (frames[:, :, empty] == frames[:1, :, empty]).all()
            assert np.abs(frames[0, :, empty].astype(float) - backdrop[:, empty]).max() < 8
            seen += 1
    assert seen >= 4


def test_the_mask_of_a_ball_is_where_the_simulator_has_it():
    checked = 0
    for seed in range(6):
        clip = sample_clip(seed, "train", ("collision",))
        place, state = clip.scenario.events[0].place, clip.states[0]
        region = HALVES.get(place, WHOLE)
        left, right = state["position"][..., 0] - state["radius"], state["position"][..., 0] + state["radius"]
        for frame in range(FRAMES):
            mask = clip.masks["collision"][frame]
            if region.left < left[frame, 0] and right[frame, 1] < region.right:
                columns, rows = np.nonzero(mask.any(0))[0], np.nonzero(mask.any(1))[0]
                assert abs(columns.min() - left[frame, 0]) < 1.1
                assert abs(columns.max() + 1 - right[frame, 1]) < 1.1
                assert abs(rows.max() + 1 - FLOOR) < 1.1
                assert abs(rows.min() - (FLOOR - 2 * state["radius"].max())) < 1.1
                checked += 1
    assert checked > 3 * FRAMES


@pytest.mark.parametrize("split", ["train", "test", "wordings", "parameters"])
def test_at_least_a_third_of_the_clips_show_two_phenomena(scenarios, split: str):
    assert sum(len(scenario.events) == 2 for scenario, _ in scenarios[split]) > COUNT / 3


_PLACE = re.compile(r"\b(?:on|at|to) the (left|right)\b")
_COLOUR = {word: colour for colour, words in COLOUR_WORDS.items() for word in words}


@pytest.mark.parametrize("split", list(SPLITS))
def test_two_phenomena_are_told_apart_by_position_in_the_caption(scenarios, split: str):
    """Each colour word stands on the side of its own event; the sentence may name places before or after events."""
    seen = 0
    for scenario, text in scenarios[split]:
        if len(scenario.events) != 2:
            continue
        places = list(_PLACE.finditer(text))
        assert sorted(match.group(1) for match in places) == ["left", "right"], text
        if places[0].start() == 0:
            parts = {places[0].group(1): text[: places[1].start()], places[1].group(1): text[places[1].start() :]}
        else:
            parts = {places[0].group(1): text[: places[0].end()], places[1].group(1): text[places[0].end() :]}
        for event in scenario.events:
            words = re.findall("[a-z]+", parts[event.place])
            assert [_COLOUR[word] for word in words if word in _COLOUR] == list(event.colours), text
        seen += 1
    assert seen > COUNT / 3


def test_captions_use_only_words_of_the_shipped_tokenizer(scenarios):
    tokenizer = AutoTokenizer.from_pretrained(default_model() / "tokenizer")
    assert tokenizer("a flibbert bounces").input_ids[1] == tokenizer.unk_token_id
    for pairs in scenarios.values():
        for _, text in pairs:
            ids = tokenizer(text, truncation=False).input_ids
            assert tokenizer.unk_token_id not in ids, text
            assert len(ids) <= tokenizer.model_max_length, text


def test_captions_are_clean_english(scenarios):
    for pairs in scenarios.values():
        for _, text in pairs:
            assert not re.search(r"\ba [aeio]|\ban [^aeiou]|  | ,|[\[\]{}|]", f"{text} "), text


# --- held out means never seen ----------------------------------------------------------------------------------------


def test_held_out_pairs_appear_in_their_split_and_nowhere_else(scenarios):
    for split, pairs in scenarios.items():
        shown = [frozenset(event.phenomenon for event in scenario.events) for scenario, _ in pairs]
        both = [pair for pair in shown if len(pair) == 2]
        if split == "combinations":
            assert set(shown) == HELD_OUT_PAIRS
        else:
            assert not HELD_OUT_PAIRS & set(both), split
            assert len(set(both)) > 100


def test_every_phenomenon_trains_beside_most_others():
    assert 15 <= len(HELD_OUT_PAIRS) <= 34
    for phenomenon in IDS:
        held_out = sum(phenomenon in pair for pair in HELD_OUT_PAIRS)
        assert held_out <= len(IDS) // 2, f"{phenomenon} is held out beside {held_out} others"


def every_sentence(template: str) -> set[str]:
    """All choices of a template, made."""
    pieces = [piece.split("|") for piece in re.split(r"\[([^\[\]]*)\]", template)]
    return {" ".join("".join(choice).split()).replace(" ,", ",") for choice in itertools.product(*pieces)}


@pytest.mark.parametrize(("phenomenon", "variant"), list(TEMPLATES))
def test_no_held_out_sentence_can_be_made_from_training_templates(phenomenon: str, variant: str):
    train, held_out = (
        set().union(*(every_sentence(template) for template in templates))
        for templates in TEMPLATES[phenomenon, variant]
    )
    assert len(train) >= 6
    assert len(held_out) >= 2
    assert not train & held_out


def test_held_out_wordings_never_appear_in_training(scenarios):
    train = {text for _, text in scenarios["train"]}
    assert not train & {text for _, text in scenarios["wordings"]}
    held_out = [
        re.compile(re.sub(r"\\{\d\\}", "[a-z]+", re.escape(sentence)))
        for _, templates in TEMPLATES.values()
        for template in templates
        for sentence in every_sentence(template)
    ]
    article = re.compile(r"\ban (orange|amber|azure|emerald)\b")
    for text in (article.sub(r"a \1", text) for text in train):
        assert not any(pattern.search(text) for pattern in held_out), text
    for _, text in scenarios["wordings"][:300]:
        assert any(pattern.search(article.sub(r"a \1", text)) for pattern in held_out), text


MEASURABLE = [
    ("collision", "balls", "restitution"),
    ("elastic_motion", "ball", "gravity"),
    ("elastic_motion", "spring", "period"),
    ("liquid_motion", "slosh", "period"),
    ("liquid_motion", "pour", "rate"),
    ("gas_motion", "smoke", "buoyancy"),
    ("vaporization", "boil", "rate"),
    ("liquefaction", "condense", "growth"),
    ("combustion", "candle", "rate"),
    ("combustion", "logs", "buoyancy"),
    ("refraction", "glass", "index"),
    ("scattering", "fog", "extinction"),
    ("interference_and_diffraction", "ripples", "wavelength"),
    ("unnatural_light_source", "neon", "period"),
]


@pytest.mark.parametrize(("phenomenon", "variant", "name"), MEASURABLE)
def test_the_parameters_split_lies_outside_the_range_of_training(phenomenon: str, variant: str, name: str):
    train = [float(state_of(phenomenon, variant, seed)[name]) for seed in range(10)]
    held_out = [float(state_of(phenomenon, variant, seed, held_out=True)[name]) for seed in range(10)]
    assert min(held_out) > max(train)


def test_sample_clip_draws_held_out_parameters_only_for_their_split():
    index = {
        split: [float(sample_clip(seed, split, ("refraction",)).states[0]["index"]) for seed in range(5)]
        for split in ("train", "test", "parameters")
    }
    assert min(index["parameters"]) > max(*index["train"], *index["test"])


# --- the laws ---------------------------------------------------------------------------------------------------------

SEEDS = range(6)


@pytest.fixture(params=["64x64x17@8", "96x64x33@16", "832x480x81@16", "128x80x49@24"])
def stage(request) -> Stage:
    """The laws are the same on every stage."""
    size, _, fps = request.param.partition("@")
    return Stage.parse(size, int(fps))


def test_momentum_is_kept_in_a_collision_and_speed_by_the_restitution(stage: Stage):
    for seed in SEEDS:
        state = state_of("collision", "balls", seed, stage=stage)
        velocity, mass = state["velocity"][..., 0], state["mass"]
        momentum = velocity @ mass
        np.testing.assert_allclose(momentum, momentum[0], rtol=1e-6, atol=1e-6 * np.abs(velocity[0] * mass).max())
        approach, part = velocity[0, 0] - velocity[0, 1], velocity[-1, 1] - velocity[-1, 0]
        assert part / approach == pytest.approx(float(state["restitution"]), abs=0.01)
        x, radius = state["position"][..., 0], state["radius"]
        assert (x[:, 1] - x[:, 0]).min() > 2 * np.sqrt(radius.prod()) - 0.5, "the balls run through each other"


def test_a_wheel_rolls_without_slipping(stage: Stage):
    dt = 1 / stage.fps
    for seed in SEEDS:
        state = state_of("rigid_body_motion", "wheel", seed, stage=stage)
        x = state["position"][:, 0]
        np.testing.assert_allclose(x - x[0], state["angle"] * state["radius"], atol=1e-9)
        np.testing.assert_allclose(np.diff(x), state["velocity"][1:, 0] * dt, atol=1e-9)


def test_a_crate_flies_a_parabola_and_spins_steadily_until_it_touches(stage: Stage):
    dt = 1 / stage.fps
    for seed in SEEDS:
        state = state_of("rigid_body_motion", "crate", seed, stage=stage)
        lowest = state["position"][:, 1] + np.sqrt(2) * state["half_side"]
        flight = int(np.argmax(lowest > FLOOR - 1)) or stage.frames
        assert flight >= 4
        velocity = state["velocity"][:flight]
        np.testing.assert_allclose(np.diff(velocity[:, 1]), state["gravity"] * dt, rtol=1e-6)
        np.testing.assert_allclose(velocity[:, 0], velocity[0, 0], rtol=1e-6)
        turns = np.diff(state["angle"][:flight])
        np.testing.assert_allclose(turns, turns[0], rtol=1e-6)


def test_a_ball_falls_with_constant_acceleration_and_loses_energy_only_when_it_bounces(stage: Stage):
    dt = 1 / stage.fps
    for seed in SEEDS:
        state = state_of("elastic_motion", "ball", seed, stage=stage)
        speed, gravity = state["velocity"][:, 1], float(state["gravity"])
        change = np.diff(speed)
        free = change > 0
        assert 6 <= free.sum() < stage.frames - 1, "no flight, or no bounce"
        np.testing.assert_allclose(change[free], gravity * dt, rtol=1e-9)
        height = FLOOR - state["radius"] - state["position"][:, 1]
        energy = speed**2 / 2 + gravity * height
        bounces = np.concatenate([[0], np.cumsum(~free)])
        expected = energy[0] * float(state["restitution"]) ** (2 * bounces)
        # two bounces can fall between two frames once the ball is nearly at rest
        early = bounces <= 2
        np.testing.assert_allclose(energy[early], expected[early], rtol=0.06)


def test_a_block_on_a_spring_swings_as_a_sine_of_its_period(stage: Stage):
    dt = 1 / stage.fps
    for seed in SEEDS:
        state = state_of("elastic_motion", "spring", seed, stage=stage)
        y, turn = state["position"][:, 1], 2 * np.pi * dt / float(state["period"])
        # y'' = -ω² (y - rest), in steps: y[f+1] + y[f-1] - 2 rest = 2 cos(ω dt) (y[f] - rest)
        rest = (y[2:] + y[:-2] - 2 * np.cos(turn) * y[1:-1]) / (2 - 2 * np.cos(turn))
        np.testing.assert_allclose(rest, rest[0], rtol=1e-9)
        assert 28 <= rest[0] <= 31


def test_sloshing_liquid_keeps_its_volume(stage: Stage):
    for seed in SEEDS:
        state = state_of("liquid_motion", "slosh", seed, stage=stage)
        volume = np.trapezoid(state["surface"], np.linspace(-1, 1, 25), axis=1) / 2
        np.testing.assert_allclose(volume, state["level"], rtol=1e-9)
        assert np.ptp(state["surface"][:, 0]) > 4


def test_a_poured_glass_fills_at_the_rate_of_the_tap(stage: Stage):
    dt = 1 / stage.fps
    for seed in SEEDS:
        state = state_of("liquid_motion", "pour", seed, stage=stage)
        rise = np.diff(state["level"])
        assert (rise >= 0).all()
        steady = rise[(state["level"][:-1] > state["level"][0]) & (state["level"][1:] < state["level"][-1])]
        assert len(steady) >= 3
        np.testing.assert_allclose(steady, state["rate"] * dt, rtol=1e-9)


def test_smoke_rises(stage: Stage):
    for seed in SEEDS:
        state = state_of("gas_motion", "smoke", seed, stage=stage)
        assert state["centroid_height"][-1] > state["centroid_height"][0] + 2
        assert (state["mass"] > 0).all()


def test_pressed_clay_keeps_its_area(stage: Stage):
    for seed in SEEDS:
        state = state_of("deformation", "press", seed, stage=stage)
        area = state["height"] * state["half_width"]
        np.testing.assert_allclose(area, area[0], rtol=1e-12)
        assert (np.diff(state["height"]) <= 0).all()
        assert state["height"][-1] < 0.6 * state["height"][0]
        pressed = np.diff(state["height"], prepend=state["height"][0]) < 0
        np.testing.assert_allclose(state["plate"][pressed][:-1], (FLOOR - state["height"])[pressed][:-1], atol=1e-9)


def test_a_melting_block_only_shrinks_and_its_puddle_grows_by_what_it_loses(stage: Stage):
    for seed in SEEDS:
        state = state_of("melting", "block", seed, stage=stage)
        lost = -np.diff(state["solid_share"])
        assert (lost >= 0).all()
        assert (np.diff(state["height"]) <= 1e-12).all()
        assert state["solid_share"][0] == 1
        assert state["solid_share"][-1] < 0.4
        gained = np.diff(state["puddle_half_width"])
        np.testing.assert_allclose(gained, lost * gained.sum() / lost.sum(), atol=1e-9)


def test_ice_advances_as_the_square_root_of_time(stage: Stage):
    dt = 1 / stage.fps
    for seed in SEEDS:
        state = state_of("solidification", "freeze", seed, stage=stage)
        front = state["front"]
        assert (np.diff(front) >= 0).all()
        growing = (front[:-1] > 0) & (front[1:] < front[-1])
        squares = np.diff(front**2)[growing]
        assert len(squares) >= 4
        np.testing.assert_allclose(squares, state["speed"] ** 2 * dt, rtol=1e-9)


@pytest.mark.parametrize(
    ("phenomenon", "variant", "name"), [("vaporization", "boil", "level"), ("combustion", "candle", "height")]
)
def test_what_boils_or_burns_sinks_at_a_constant_rate(phenomenon: str, variant: str, name: str, stage: Stage):
    dt = 1 / stage.fps
    for seed in SEEDS:
        state = state_of(phenomenon, variant, seed, stage=stage)
        np.testing.assert_allclose(np.diff(state[name]), -state["rate"] * dt, rtol=1e-9)
        assert state[name][-1] > 0


def test_drops_grow_in_volume_linearly_then_fall_freely(stage: Stage):
    dt = 1 / stage.fps
    for seed in SEEDS:
        state = state_of("liquefaction", "condense", seed, stage=stage)
        assert (np.diff(state["radius"], axis=0) >= 0).all()
        assert (np.diff(state["fall"], axis=0) >= 0).all()
        for drop in range(state["radius"].shape[1]):
            hanging = int((state["fall"][:, drop] == 0).sum())
            volume = (state["radius"][:hanging, drop] / 3.0) ** 3
            growing = volume[volume < 1]
            if len(growing) > 3:
                np.testing.assert_allclose(np.diff(growing)[1:], float(state["growth"]) / 1.15 * dt, rtol=1e-6)
            falling = state["fall"][:, drop]
            falling = falling[(falling > 0) & (falling < falling.max())]
            if len(falling) >= 3:
                np.testing.assert_allclose(np.diff(falling, 2), 110 * dt**2, rtol=1e-6)


def test_an_explosion_grows_ever_slower_and_its_shards_fly_parabolas(stage: Stage):
    dt = 1 / stage.fps
    for seed in SEEDS:
        state = state_of("explosion", "bomb", seed, stage=stage)
        begin = int(state["begin"])
        assert not state["fireball_radius"][:begin].any()
        growth = np.diff(state["fireball_radius"][begin:])
        assert (growth > 0).all()
        assert (np.diff(growth) < 0).all()
        bend = np.diff(state["shards"][begin:], 2, axis=0)
        np.testing.assert_allclose(bend[..., 0], 0, atol=1e-9)
        np.testing.assert_allclose(bend[..., 1], 60 / stage.stretch * dt**2, rtol=1e-9)


def angles_to_the_normal(path: np.ndarray) -> tuple[float, float]:
    """Angles of the two legs of a beam to the vertical, at its middle point."""
    before, after = np.diff(path, axis=0)
    return float(np.arctan2(abs(before[0]), abs(before[1]))), float(np.arctan2(abs(after[0]), abs(after[1])))


def test_a_mirror_sends_a_beam_out_at_the_angle_it_came_in(stage: Stage):
    for seed in SEEDS:
        state = state_of("reflection", "mirror", seed, stage=stage)
        arrives, leaves = angles_to_the_normal(state["path"])
        assert arrives == pytest.approx(leaves)
        assert arrives == pytest.approx(float(state["angle_in"]))
        assert state["angle_in"] == state["angle_out"]
        before, after = np.diff(state["path"], axis=0)
        assert before[0] * after[0] > 0 > before[1] * after[1]


def test_a_beam_in_glass_obeys_snell(stage: Stage):
    for seed in SEEDS:
        state = state_of("refraction", "glass", seed, stage=stage)
        outside, inside = angles_to_the_normal(state["path"])
        assert np.sin(outside) == pytest.approx(float(state["index"]) * np.sin(inside))
        assert inside < outside


@pytest.mark.parametrize(("phenomenon", "variant"), [("reflection", "mirror"), ("refraction", "glass")])
def test_light_travels_at_a_constant_speed(phenomenon: str, variant: str, stage: Stage):
    for seed in SEEDS:
        steps = np.diff(state_of(phenomenon, variant, seed, stage=stage)["reach"])
        assert (steps > 0).all()
        np.testing.assert_allclose(steps, steps[0], rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_an_event_is_drawn_from_its_state_alone(kind: type):
    """Frames may be painted in any order, on both halves and the whole stage, with held-out parameters too."""
    for region, held_out in ((WHOLE, False), (HALVES["left"], True), (HALVES["right"], False)):
        event = kind(Knobs(np.random.default_rng(9), held_out), region, tuple(COLOURS)[: kind.colour_count])
        pictures = []
        for order in ((3, 12), (12, 3)):
            made = {}
            for frame in order:
                painter = Painter(background("day"))
                painter.enter(kind.phenomenon, region)
                event.draw(painter, frame)
                made[frame] = painter.finish()[0]
            pictures.append(made)
        assert (pictures[0][3] == pictures[1][3]).all()
        assert (pictures[0][12] == pictures[1][12]).all()


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, "validation"), "unknown split 'validation': use one of train, test, wordings"),
        ((0, "train", ("gravity",)), "no world shows gravity: use some of"),
        ((0, "combinations", ("collision",)), "no held-out pair among these phenomena"),
        ((-1,), "non-negative"),
    ],
)
@pytest.mark.parametrize("function", [sample_clip, sample_scenario])
def test_impossible_clips_are_refused(function, arguments: tuple, message: str):
    with pytest.raises(ValueError, match=message):
        function(*arguments)
