"""Steering: neutral is nothing, muted is gone, forced is exact; saved, read back, rerun; and nothing hostile passes."""

import copy
import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from diffusers import WanPipeline
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from prophy.generation.generate import Generation, GenerationError, GenerationSettings, generate
from prophy.grid import TokenGrid
from prophy.routing.steering import (
    MAX_CELLS,
    MAX_REGIONS,
    ForcedRegion,
    Steering,
    SteeringError,
    parse_force,
    parse_scales,
)
from prophy.runs.store import read_run

SIZE = {"steps": 2, "frames": 9, "height": 32, "width": 48}
GRID = TokenGrid(frames=3, height=4, width=6)
REGION = ForcedRegion(4, 1, 2, ((0, 5), (3, 0), (3, 1)))
EVERYTHING = Steering({5: -1, 0: 2}, {3: 0, 1: 0.5}, (REGION, ForcedRegion(0, 0, 0, ((2, 2),))), 0.5)


def make(pipeline, steering: Steering = Steering(), **changes) -> Generation:  # noqa: B008 (a value that never changes)
    return generate(pipeline, GenerationSettings("a red ball", seed=3, **{**SIZE, **changes}, steering=steering))


def refusal(document: object) -> str:
    """The one line with which a JSON document is refused."""
    with pytest.raises(SteeringError) as caught:
        Steering.from_json(document)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    return str(caught.value)


# --- values -----------------------------------------------------------------------------------------------------------


def test_a_scale_of_one_is_no_steering():
    assert Steering(refinement={3: 1.0}, semantic={0: 1}) == Steering()
    assert Steering().is_neutral
    assert Steering().to_json() == {}
    assert Steering().describe() == []
    assert Steering(strength=1) == Steering()
    for part in (Steering({0: 0}), Steering(refinement={0: 2}), Steering(forced=(REGION,)), Steering(strength=0)):
        assert not part.is_neutral


def test_equal_steerings_are_equal_however_they_were_written():
    other = Steering(
        {0: 2.0, 5: -1.0},
        {1: 0.5, 3: 0.0},
        [ForcedRegion(4, 1, 2, [[3, 1], [0, 5], [3, 0], [0, 5]]), *EVERYTHING.forced[1:]],
        0.5,
    )
    assert other == EVERYTHING
    assert hash(other) == hash(EVERYTHING)
    assert Steering(refinement={3: 0}) != Steering(semantic={3: 0})


def test_a_steering_cannot_be_changed_but_copied_and_pickled():
    scales = {3: 0}
    steering = Steering(refinement=scales)
    scales[3] = 2
    assert steering.refinement == {3: 0}
    with pytest.raises(TypeError):
        steering.refinement[3] = 2
    assert copy.deepcopy(EVERYTHING) == EVERYTHING
    assert pickle.loads(pickle.dumps(EVERYTHING)) == EVERYTHING


def test_a_description_is_one_short_line_each():
    steering = Steering({5: -1}, {3: 0, 2: 2, 1: -0.5, 0: 0.25}, (REGION, ForcedRegion(1, 0, 0, ((0, 0),))))
    assert steering.describe() == [
        "semantic expert 5 inverted",
        "expert 0 ×0.25",
        "expert 1 inverted ×0.5",
        "expert 2 ×2",
        "expert 3 muted",
        "expert 4 forced on 3 cells, latent frames 1–2",
        "expert 1 forced on 1 cell, latent frame 0",
    ]
    assert Steering(strength=0.5).describe() == ["branch ×0.5"]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Steering(refinement={3: 5}), "scale of refinement expert 3 must be a number from -4 to 4"),
        (lambda: Steering(refinement={3: float("nan")}), "must be a number from -4 to 4"),
        (lambda: Steering(semantic={3: True}), "scale of semantic expert 3 must be a number"),
        (lambda: Steering(semantic={3: "0"}), "scale of semantic expert 3 must be a number"),
        (lambda: Steering(semantic={3: 10**5000}), "scale of semantic expert 3 must be a number"),
        (lambda: Steering(semantic={-1: 0}), "a semantic expert must be a whole number from 0 to 255, not -1"),
        (lambda: Steering(semantic={256: 0}), "not 256"),
        (lambda: Steering(semantic={True: 0}), "not True"),
        (lambda: Steering(semantic={"3": 0}), "not '3'"),
        (lambda: Steering(semantic={10**5000: 0}), "not a number that large"),
        (lambda: Steering(semantic=dict.fromkeys(range(257), 0)), "steer at most 256"),
        (lambda: Steering(semantic=[0]), "semantic must map experts to scales"),
        (lambda: Steering(forced=REGION), "must be a tuple of ForcedRegion"),
        (lambda: Steering(forced=({"expert": 1},)), "must be a tuple of ForcedRegion"),
        (lambda: Steering(forced=(REGION,) * (MAX_REGIONS + 1)), "use at most 64"),
        (lambda: Steering(strength=-0.5), "the strength of the branch must be a number from 0 to 4, not -0.5"),
        (lambda: Steering(strength=5), "the strength of the branch must be a number from 0 to 4"),
        (lambda: Steering(strength=float("nan")), "the strength of the branch must be a number"),
        (lambda: Steering(strength=True), "the strength of the branch must be a number"),
        (lambda: ForcedRegion(0, 0, 0, ()), "has no cells: paint at least one"),
        (lambda: ForcedRegion(0, 0, 0, ((0, 0),) * (MAX_CELLS + 1)), "use at most 65536"),
        (lambda: ForcedRegion(0, 0, 0, ((0, -1),)), "a cell's column must be"),
        (lambda: ForcedRegion(0, 0, 0, ((0, 0, 0),)), "must be a pair"),
        (lambda: ForcedRegion(0, 0, 0, (7,)), "must be a pair"),
        (lambda: ForcedRegion(0, 2, 1, ((0, 0),)), "latent frames 2-1 are reversed"),
        (lambda: ForcedRegion(0, -1, 1, ((0, 0),)), "the first latent frame must be"),
        (lambda: ForcedRegion(None, 0, 1, ((0, 0),)), "a forced expert must be"),
        (lambda: ForcedRegion.box(GRID, 0, (0, 1), 0.5, 0, 0.5, 1), "empty or reversed: left=0.5 must be below right"),
        (lambda: ForcedRegion.box(GRID, 0, (0, 1), 0, 0.9, 1, 0.1), "empty or reversed: top=0.9 must be below bottom"),
        (lambda: ForcedRegion.box(GRID, 0, (0, 1), 0, 0, 1.1, 1), "right=1.1 of a box must be a share"),
        (lambda: ForcedRegion.box(GRID, 0, (0, 1), float("nan"), 0, 1, 1), "left=nan of a box"),
        (lambda: ForcedRegion.box(GRID, 0, (0, 3), 0, 0, 1, 1), "latent frame 3 does not exist"),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_built(build, message: str):
    with pytest.raises(SteeringError) as caught:
        build()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_regions_together_are_bounded():
    half = ForcedRegion(0, 0, 0, tuple((i // 256, i % 256) for i in range(MAX_CELLS // 2 + 1)))
    with pytest.raises(SteeringError, match="have 65538 cells together: use at most 65536"):
        Steering(forced=(half, half))


# --- on a grid --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((0, 0, 1, 1), range(4), range(6)),
        ((0, 0.5, 0.5, 1), (2, 3), (0, 1, 2)),
        ((0.25, 0.125, 0.41, 0.37), (0,), (1,)),  # a centre on the left or top side is inside
        ((0.01, 0.01, 0.02, 0.02), (0,), (0,)),  # no centre: the cell under the box's own
        ((0.99, 0.3, 1, 0.35), (1,), (5,)),
    ],
)
def test_a_box_covers_the_cells_whose_centres_it_holds(box: tuple, rows, columns):
    region = ForcedRegion.box(GRID, 2, (0, 1), *box)
    assert region.cells == tuple((row, column) for row in rows for column in columns)
    assert (region.expert, region.first_frame, region.last_frame) == (2, 0, 1)


def test_boxes_side_by_side_share_no_cell_and_leave_none_out():
    for share in (0.2, 0.25, 0.5, 0.8):
        left, right = (ForcedRegion.box(GRID, 0, (0, 0), *sides, 1) for sides in ((0, 0, share), (share, 0, 1)))
        assert sorted(left.cells + right.cells) == [(row, column) for row in range(4) for column in range(6)]


def test_forced_experts_are_those_of_the_regions_and_the_later_one_wins():
    later = ForcedRegion(2, 2, 2, ((3, 1), (0, 0)))
    experts = Steering(forced=(REGION, later)).forced_experts(GRID)
    assert experts.dtype == np.int64
    expected = np.full(GRID.num_tokens, -1)
    for t in (1, 2):
        for row, column in REGION.cells:
            expected[GRID.index(t, row, column)] = 4
    for row, column in later.cells:
        expected[GRID.index(2, row, column)] = 2
    assert (experts == expected).all()
    assert (Steering().forced_experts(GRID) == -1).all()


@pytest.mark.parametrize(
    ("steering", "message"),
    [
        (Steering({6: 0}), "semantic expert 6 does not exist: this model has 6, 0 to 5"),
        (Steering(refinement={5: 2}), "refinement expert 5 does not exist: this model has 5, 0 to 4"),
        (Steering(forced=(ForcedRegion(5, 0, 0, ((0, 0),)),)), "refinement expert 5 does not exist"),
        (Steering(forced=(ForcedRegion(0, 0, 3, ((0, 0),)),)), "latent frame 3 does not exist: this clip has 3"),
        (Steering(forced=(ForcedRegion(0, 0, 0, ((4, 0),)),)), "cell (4, 0) lies outside this clip's 4 rows"),
        (Steering(forced=(ForcedRegion(0, 0, 0, ((0, 6),)),)), "cell (0, 6) lies outside this clip's 4 rows and 6"),
        (Steering(dict.fromkeys(range(6), 0)), "every semantic expert is muted: leave at least one"),
        (Steering(refinement=dict.fromkeys(range(5), 0)), "every refinement expert is muted: leave at least one"),
    ],
)
def test_what_the_model_or_the_clip_does_not_have_is_refused(tiny_pipeline, steering: Steering, message: str):
    with pytest.raises(SteeringError) as caught:
        steering.check(6, 5, GRID)
    assert message in str(caught.value)
    with pytest.raises(GenerationError) as caught:
        make(tiny_pipeline, steering)
    assert message in str(caught.value)


# --- in a generation --------------------------------------------------------------------------------------------------


def test_scales_of_one_are_the_unsteered_clip_bit_for_bit(tiny_pipeline):
    ones = Steering(dict.fromkeys(range(6), 1.0), dict.fromkeys(range(5), 1.0))
    plain, same, steered = make(tiny_pipeline), make(tiny_pipeline, ones), make(tiny_pipeline, EVERYTHING)
    assert (plain.frames == same.frames).all()
    assert (plain.trace.mean_probs == same.trace.mean_probs).all()
    assert (plain.frames != steered.frames).any()
    assert (make(tiny_pipeline).frames == plain.frames).all(), "the steering outlives its generation"


@pytest.mark.parametrize("muted", [{2: 0}, {0: 0, 1: 0, 2: 0, 4: 0}])
def test_a_muted_expert_has_share_zero(tiny_pipeline, muted: dict):
    free = make(tiny_pipeline).trace
    assert free.mean_probs[:, 2].min() > 0
    trace = make(tiny_pipeline, Steering({1: 0}, muted)).trace
    for expert in muted:
        assert not trace.mean_probs[:, expert].any()
        for step in range(trace.num_kept):
            assert not trace.expert_shares(step)[:, expert].any()
            assert not trace.expert_map(expert, step).any()
    assert trace.semantic_weights[1] == 0
    assert free.semantic_weights[1] > 0


def test_a_forced_expert_is_first_at_exactly_its_tokens_with_weight_one(tiny_pipeline):
    steering = Steering(refinement={4: 0}, forced=(REGION,))  # nowhere but in its region
    trace = make(tiny_pipeline, steering).trace
    forced_N = steering.forced_experts(GRID) == 4
    assert forced_N.sum() == 6
    for step in range(trace.num_kept):
        assert (trace.topk_ids[step, :, 0] == 4).tolist() == forced_N.tolist()
        assert (trace.topk_weights[step, forced_N] == [1, 0]).all()
    assert (trace.mean_probs[forced_N, 4] == 1).all()
    assert (trace.topk_weights[:, ~forced_N, 0] < 1).all()


def test_strength_scales_the_branch_from_the_backbone_alone_to_the_branch_as_it_is(tiny_pipeline):
    plain = make(tiny_pipeline)
    with tiny_pipeline.attachment.switched(on=False):
        off = make(tiny_pipeline)
    none, half, one, two = (make(tiny_pipeline, Steering(strength=strength)) for strength in (0, 0.5, 1, 2))
    assert (none.frames == off.frames).all()
    assert (one.frames == plain.frames).all()
    assert none.trace is not None, "the routing is observed"
    for between in (half, two):
        assert (between.frames != plain.frames).any()
        assert (between.frames != off.frames).any()
    both = make(tiny_pipeline, Steering(refinement={3: 0}, strength=0))
    assert (both.frames == off.frames).all()
    assert not both.trace.mean_probs[:, 3].any()


def test_both_passes_are_steered(tiny_pipeline):
    """What the branch is given, in the conditional and in the unconditional pass."""
    seen = []
    tiny_pipeline.branch.register_forward_pre_hook(lambda _, args: seen.append(args[3:]))
    make(tiny_pipeline, Steering({5: -1}, {3: 0}, (REGION,)), guidance=4.0)
    assert len(seen) == 2 * SIZE["steps"]
    for semantic, refinement, forced in seen:
        assert semantic.tolist() == [1, 1, 1, 1, 1, -1]
        assert refinement.tolist() == [1, 1, 1, 0, 1]
        assert (forced.numpy() == Steering(forced=(REGION,)).forced_experts(GRID)).all()


def test_a_pipeline_without_experts_cannot_be_steered(tiny_pipeline):
    tiny_pipeline.attachment.enabled = False
    with pytest.raises(GenerationError, match="the branch is switched off"):
        make(tiny_pipeline, EVERYTHING)
    assert make(tiny_pipeline, Steering({0: 1})).trace is None
    tiny_pipeline.attachment.detach()
    stock = WanPipeline(**{name: part for name, part in tiny_pipeline.components.items() if name != "branch"})
    with pytest.raises(GenerationError, match="this model has no branch, so no experts to steer"):
        make(stock, EVERYTHING)


def test_clips_steered_alike_and_otherwise_come_out_as_they_do_alone(tiny_pipeline):
    plain = GenerationSettings("a red ball", seed=3, **SIZE)
    several = [plain, replace(plain, steering=EVERYTHING), replace(plain, seed=4, steering=EVERYTHING)]
    for made, settings in zip(generate(tiny_pipeline, several), several, strict=True):
        alone = generate(tiny_pipeline, settings)
        assert made.settings == settings
        assert np.abs(made.frames.astype(int) - alone.frames).max() <= 1
        np.testing.assert_allclose(made.trace.mean_probs, alone.trace.mean_probs, atol=1e-5)


def test_a_saved_run_says_how_to_make_it_again(tiny_pipeline, tmp_path: Path):
    first = make(tiny_pipeline, EVERYTHING, guidance=3.0)
    record = read_run(first.save(tmp_path).path).record
    assert record.steering == EVERYTHING
    settings = GenerationSettings.from_record(record)
    assert settings == first.settings
    again = generate(tiny_pipeline, settings)
    assert (again.frames == first.frames).all()
    assert (again.trace.topk_ids == first.trace.topk_ids).all()


def test_settings_of_another_release_are_not_guessed(tiny_pipeline, tmp_path: Path):
    record = make(tiny_pipeline).save(tmp_path).record
    object.__setattr__(record, "settings", {**record.settings, "order": 2})
    with pytest.raises(GenerationError, match="the run has the setting order, which this release does not know"):
        GenerationSettings.from_record(record)


def test_settings_take_nothing_but_a_steering():
    with pytest.raises(GenerationError, match="steering must be a"):
        GenerationSettings("a red ball", steering={"refinement": {3: 0}})


# --- JSON -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steering", [Steering(), EVERYTHING, Steering(forced=(REGION,)), Steering(strength=0)])
def test_json_brings_back_what_it_was_given(steering: Steering):
    assert Steering.from_json(json.loads(json.dumps(steering.to_json()))) == steering


REGION_JSON = {"expert": 1, "first_frame": 0, "last_frame": 1, "cells": [[0, 0]]}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (None, "a steering must be an object"),
        ([], "a steering must be an object"),
        ({"scales": {}}, "holds an unknown key 'scales': use forced, refinement, semantic"),
        ({"a" * 1000: {}}, "holds an unknown key"),
        ({"a\nb": {}}, "holds an unknown key"),
        ({"semantic": None}, "semantic must be an object"),
        ({"semantic": [0]}, "semantic must be an object"),
        ({"refinement": {"3": True}}, "must be a number from -4 to 4"),
        ({"refinement": {"3": None}}, "must be a number from -4 to 4"),
        ({"refinement": {"3": 1e999}}, "must be a number from -4 to 4"),
        ({"strength": None}, "the strength of the branch must be a number"),
        ({"strength": "1"}, "the strength of the branch must be a number"),
        ({"refinement": {"03": 0}}, "names an expert '03'"),
        ({"refinement": {"٣": 0}}, "names an expert"),
        ({"refinement": {"-1": 0}}, "names an expert '-1'"),
        ({"refinement": {"3.0": 0}}, "names an expert '3.0'"),
        ({"refinement": {"256": 0}}, "not 256"),
        ({"refinement": {str(i): 0 for i in range(300)}}, "steer at most 256"),
        ({"forced": {}}, "forced must be a list"),
        ({"forced": [None]}, "a forced region must be an object"),
        ({"forced": [REGION_JSON] * 65}, "65 forced regions: use at most 64"),
        ({"forced": [{**REGION_JSON, "note": 1}]}, "a forced region holds an unknown key 'note'"),
        ({"forced": [{"expert": 1}]}, "a forced region lacks cells, first_frame, last_frame"),
        ({"forced": [{**REGION_JSON, "expert": 1.0}]}, "a forced expert must be a whole number"),
        ({"forced": [{**REGION_JSON, "expert": True}]}, "not True"),
        ({"forced": [{**REGION_JSON, "last_frame": [1]}]}, "not a list"),
        ({"forced": [{**REGION_JSON, "cells": {}}]}, "cells must be a list"),
        ({"forced": [{**REGION_JSON, "cells": "aa"}]}, "cells must be a list"),
        ({"forced": [{**REGION_JSON, "cells": [[0, 0]] * (MAX_CELLS + 1)}]}, "use at most 65536"),
        ({"forced": [{**REGION_JSON, "cells": [[0, False]]}]}, "a cell's column must be"),
        ({"forced": [{**REGION_JSON, "cells": ["ab"]}]}, "must be a pair"),
        ({"forced": [{**REGION_JSON, "cells": [[0, 4096]]}]}, "from 0 to 4095"),
    ],
)
def test_a_hostile_document_is_refused_in_one_line(document: object, message: str):
    assert message in refusal(document)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@limits(max_examples=200, deadline=None)
@given(
    key=st.sampled_from(["semantic", "refinement", "forced", "expert", "first_frame", "last_frame", "cells", "cell"]),
    value=JSON,
)
def test_any_json_in_any_place_is_a_steering_or_refused(key: str, value: object):
    document = {key: value} if key in EVERYTHING.to_json() else {"forced": [{**REGION_JSON, key: value}]}
    if key == "cell":
        document = {"forced": [{**REGION_JSON, "cells": [value]}]}
    try:
        steering = Steering.from_json(document)
    except SteeringError as error:
        assert "\n" not in str(error)  # noqa: PT017 (a valid document is no failure)
    else:
        assert Steering.from_json(json.loads(json.dumps(steering.to_json()))) == steering


# --- the words of the command line ------------------------------------------------------------------------------------


def test_scales_are_read_from_words():
    specs = ["refinement:3=mute", "semantic:5=invert", "2=boost", "0=0.5", "1=-2"]
    assert parse_scales(specs) == Steering({5: -1}, {3: 0, 2: 2, 0: 0.5, 1: -2})
    assert parse_scales([]) == Steering()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "such as refinement:3=0, semantic:5=invert or 3=2"),
        ("3", "such as refinement:3=0"),
        ("3=loud", "cannot read the steering '3=loud'"),
        ("router:3=0", "such as refinement:3=0"),
        ("3=0\n", "such as refinement:3=0"),
        ("-1=0", "such as refinement:3=0"),
        ("3=nan", "must be a number from -4 to 4"),
        ("300=0", "not 300"),
    ],
)
def test_a_scale_that_cannot_be_read_is_one_line_with_an_example(spec: str, message: str):
    with pytest.raises(SteeringError) as caught:
        parse_scales([spec])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_forced_region_is_read_from_words():
    region = parse_force("expert=2,frames=0-1,box=0:0.5:0.5:1").on(GRID)
    assert region == ForcedRegion.box(GRID, 2, (0, 1), 0, 0.5, 0.5, 1)
    assert parse_force("expert=2,frames=1,box=0:0:1:1").on(GRID).first_frame == 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("expert=2", "like expert=2,frames=0-4,box=0.1:0.2:0.5:0.6"),
        ("expert=2,frames=0-1,box=0:0:1", "like expert=2,frames=0-4"),
        ("expert=2,frames=0-1,box=0:0:1:x", "like expert=2,frames=0-4"),
        ("expert=2,frames=0-1,box=0:0:1:nan", "bottom=nan of a box"),
        ("expert=2,frames=3-1,box=0:0:1:1", "latent frames 3-1 are reversed"),
        ("expert=2,frames=0-1,box=1:0:0:1", "empty or reversed"),
    ],
)
def test_a_forced_region_that_cannot_be_read_is_one_line_with_an_example(spec: str, message: str):
    with pytest.raises(SteeringError) as caught:
        parse_force(spec)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
