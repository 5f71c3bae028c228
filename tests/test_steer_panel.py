"""What the steering panel offers: shares, names, and presets that mute what acts on a phenomenon."""

from dataclasses import replace

import numpy as np
from synthetic import GRID, NUM_EXPERTS, make_trace

from prophy.catalogue.experts import ExpertShares
from prophy.phenomena import BY_ID
from prophy.routing.steering import Steering
from prophy.ui.controls.steer import SteerView, muting

MELTING = BY_ID["melting"].index


def melting_trace():
    """One phenomenon in the clip, on the second latent frame, where expert 4 and then 2 have the weight."""
    trace = make_trace()
    maps = np.zeros_like(trace.phenomenon_maps)
    ids, weights = trace.topk_ids.copy(), trace.topk_weights.copy()
    tokens = np.arange(GRID.num_tokens).reshape(GRID.shape)[1].ravel()
    maps[:, tokens, MELTING] = 0.8
    ids[:, tokens] = (4, 2)
    weights[:, tokens] = (0.5, 0.4)
    return replace(trace, phenomenon_maps=maps, topk_ids=ids, topk_weights=weights)


def test_a_preset_mutes_the_experts_that_hold_most_of_the_weight_on_a_phenomenon():
    (preset,) = muting(melting_trace())
    assert preset.name == "Mute melting"
    assert Steering.from_json(preset.steering) == Steering(refinement={4: 0, 2: 0})


def test_experts_named_by_a_phenomenon_come_first_and_what_was_not_learnt_is_not_offered():
    shares = tuple({"melting": 0.9} if e == 1 else {} for e in range(NUM_EXPERTS))
    measured = ExpertShares(shares, (1 / NUM_EXPERTS,) * NUM_EXPERTS, ("melting",), ("0" * 64,), clips=8)
    (preset,) = muting(melting_trace(), measured)
    assert Steering.from_json(preset.steering) == Steering(refinement={1: 0})
    assert muting(melting_trace(), replace(measured, learnt=())) == []


def test_the_panel_over_a_run_has_its_shares_and_every_preset_is_a_steering_of_the_model():
    trace = melting_trace()
    view = SteerView.of(5, NUM_EXPERTS, GRID.shape).on_run(Steering(strength=2), "", trace)
    assert view.steering == {"strength": 2.0}
    assert abs(sum(view.shares) - 1) < 1e-3
    assert view.presets[0].name == "Mute melting"
    for preset in view.presets:
        steering = Steering.from_json(preset.steering)
        steering.check(5, NUM_EXPERTS, GRID)
        assert not steering.is_neutral
    assert SteerView.of(5, 3, GRID.shape).on_run(Steering(), "", trace).shares == [], "another number of experts"
