"""Experts named by what they were measured to do, and nothing named that was not."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from synthetic import make_frames, make_record, make_trace

from prophy.assets import default_model
from prophy.catalogue.experts import DOMINATES, FILE, ExpertShares, read_experts
from prophy.evaluation.measures.experts import shares_of
from prophy.evaluation.measures.localisation import Truth
from prophy.evaluation.results.documents import write_json
from prophy.grid import TokenGrid
from prophy.phenomena import BY_ID, IDS
from prophy.routing.steering import Steering
from prophy.runs.store import write_run
from prophy.ui.engine.engine import Engine
from prophy.ui.engine.models import ModelCard, ModelSource
from prophy.ui.views.routing import RunView
from prophy.worlds.scope import SCOPE

MEASURED = ExpertShares(
    shares=({"melting": 0.71, "deformation": 0.6}, {"melting": DOMINATES - 0.01}, {}),
    used=(0.5, 0.3, 0.2),
    learnt=("melting", "deformation"),
    model_sha256=("a" * 64,),
    clips=128,
)


def test_an_expert_has_the_name_of_what_dominates_and_none_where_nothing_does():
    assert MEASURED.names == ("melting 71 %", "", "")
    assert MEASURED.of == ("melting", "", "")


def test_what_was_measured_is_read_back_from_beside_the_branch(tmp_path: Path):
    assert read_experts(tmp_path) is None
    (tmp_path / "branch").mkdir()
    write_json(tmp_path / "branch" / FILE, MEASURED)
    assert read_experts(tmp_path) == read_experts("elsewhere", tmp_path / "branch") == MEASURED
    assert read_experts("an/id", "another/id") is None


@pytest.mark.parametrize(
    "change",
    [
        {"learnt": ["heat"]},
        {"used": [0.5]},
        {"used": [0.5, 0.3, 2]},
        {"clips": 0},
        {"phenomena_version": "x"},
        {"a": 1},
    ],
)
def test_a_damaged_file_is_refused_in_one_line_that_names_the_command(tmp_path: Path, change: dict):
    (tmp_path / FILE).write_text(json.dumps({**asdict(MEASURED), **change}))
    with pytest.raises(ValueError, match="measure it again with `prophy evaluate experts`") as error:
        read_experts("x", tmp_path)
    assert "\n" not in str(error.value)


def test_shares_are_of_the_weight_where_something_acts():
    grid, melting, smoke = TokenGrid(1, 1, 4), BY_ID["melting"].index, BY_ID["gas_motion"].index
    cover_nNP = np.zeros((1, 4, len(IDS)), np.float32)
    cover_nNP[0, 0, melting] = cover_nNP[0, 1, melting] = cover_nNP[0, 1, smoke] = 1
    cover_nNP[0, 2, smoke] = 0.4  # less than half of the token
    probs_nNE = np.array([[[0.8, 0.2], [0.4, 0.6], [0.5, 0.5], [0.1, 0.9]]], np.float32)
    shares_EP, used_E = shares_of(probs_nNE, Truth(cover_nNP, cover_nNP.any(1), grid))
    np.testing.assert_allclose(shares_EP[:, melting], 1)
    np.testing.assert_allclose(shares_EP[:, smoke], [0.4 / 1.2, 0.6 / 0.8], rtol=1e-6)
    np.testing.assert_allclose(used_E, [0.45, 0.55], rtol=1e-6)


def test_the_shipped_models_experts_were_measured_and_its_own_runs_carry_their_names(tmp_path: Path):
    card = ModelCard.of(ModelSource())
    assert card.experts is not None
    assert len(card.experts.names) == card.refinement_experts
    assert set(card.experts.learnt) == set(SCOPE)
    engine = Engine(runs=tmp_path)
    run = engine.runs.gallery()[0]
    assert engine.experts_of(run) == card.experts
    view = RunView.of(run, run.trace(), measured=card.experts)
    assert view.routing.names == list(card.experts.names)
    assert not any("other weights" in fact for fact in view.facts)


def test_a_run_of_other_weights_or_of_steered_experts_says_so(tmp_path: Path):
    steering = Steering(refinement=dict.fromkeys(range(6), -1.0), strength=2)
    record = make_record(model_sha256="b" * 64, steering=steering)
    run = write_run(tmp_path, record, make_frames(), trace=make_trace())
    view = RunView.of(run, run.trace(), measured=MEASURED)
    assert "made with other weights, or in another precision, than its experts were named for" in view.facts
    assert set(view.routing.names) == {""}
    (steered,) = [fact for fact in view.facts if fact.startswith("steered: ")]
    assert steered == "steered: " + ", ".join(f"expert {e} inverted" for e in range(4)) + ", and 3 more"


def test_the_shipped_file_is_read_as_it_lies():
    card = ModelCard.of(ModelSource())
    assert read_experts(default_model()) == card.experts
