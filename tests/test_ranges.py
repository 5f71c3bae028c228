"""Impossible numbers: every field of every recipe and every setting refuses them where it is built."""

import argparse
import ast
import math
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
from small_training import RECIPE, run

from prophy.annotation.config import AnnotationConfig
from prophy.branch.losses import LossWeights
from prophy.catalogue.limits import ClipSize, GenerationDefaults
from prophy.data.jobs import WORLDS
from prophy.data.records import Filters
from prophy.evaluation.measures.ablation_runs import AblationSettings
from prophy.evaluation.measures.image_free import ImageFreeRecipe
from prophy.evaluation.results.judges import JudgeRecipe, RecogniserRecipe, SegmenterRecipe
from prophy.evaluation.results.looks import LooksRecipe
from prophy.flags import seeds, time_limit, whole
from prophy.generation.settings import GenerationSettings
from prophy.grid import TokenGrid
from prophy.routing.schedule import Schedule
from prophy.routing.steering import ForcedBox, ForcedRegion
from prophy.runs.export import OverlaySettings
from prophy.runs.keep import RunLimits
from prophy.tiny.text import TextRecipe
from prophy.tiny.vae import VaeRecipe
from prophy.tiny.vlm import VlmRecipe
from prophy.training.checkpoints import load_checkpoint, save_checkpoint
from prophy.training.counterfactual import Counterfactual
from prophy.training.objectives import NoiseLevels
from prophy.training.publish import publish
from prophy.training.recipe import BackboneShape, BranchShape, OptimiserSettings
from prophy.training.recipes import RECIPES
from prophy.training.run_folder import CHECKPOINT
from prophy.training.trainer import Running
from prophy.ui.engine.line import LineLimits
from prophy.worlds.stage import Stage

#: One of each kind, with a number in every field that takes one.
BUILT = [
    replace(
        RECIPES["tiny_together"](), backbone_optimiser=replace(RECIPES["tiny"]().optimiser), scratch=BackboneShape()
    ),
    BranchShape((1, 4), injections=(1,)),
    BackboneShape(),
    OptimiserSettings(),
    NoiseLevels("logit_normal", mean=0.5),
    LossWeights(),
    Counterfactual(0.5),
    Running(minutes=1.0, workers=1),
    ImageFreeRecipe(),
    JudgeRecipe(),
    RecogniserRecipe(),
    LooksRecipe(),
    SegmenterRecipe(),
    TextRecipe(),
    VaeRecipe(),
    VaeRecipe().phases[0],
    VlmRecipe(),
    AnnotationConfig(layers=(3,), heads=(1, 2)),
    AblationSettings(denoising_steps=4),
    WORLDS,
    Filters(min_duration=1.0, max_duration=2.0, min_width=64.0, max_text_boxes=1.0),
    ClipSize(64, 64, 17),
    GenerationDefaults(),
    GenerationSettings("a red ball bounces"),
    Schedule(),
    ForcedRegion(2, 0, 1, ((0, 0), (3, 4))),
    ForcedBox(2, 0, 1, 0.1, 0.2, 0.3, 0.4),
    OverlaySettings("expert", 1, step=3),
    LineLimits(),
    RunLimits(runs=5, gib=1.0, days=2.0),
    Stage(),
    TokenGrid(5, 8, 8),
]
#: What ends like settings and is none: built from files that say what is there.
DESCRIPTIONS = {"BaseConfig", "ModelConfig"}

NEVER = (math.nan, math.inf, -math.inf, 1e300, -1e300, 10**30, -(10**30), 10**5000)

#: Where −1 is a value like any other.
NEGATIVE = {"NoiseLevels.mean"}
#: Where 0 leaves something out, or counts from there.
ZERO = {
    "AblationSettings": {"noises"},
    "AnnotationConfig": {"heads", "layers", "seed", "temperature"},
    "BranchShape": {"injections", "sites"},
    "Counterfactual": {"share", "threshold"},
    "Filters": {"max_duration", "max_text_boxes", "min_duration", "min_width"},
    "ForcedBox": {"bottom", "expert", "first_frame", "last_frame", "left", "right", "top"},
    "ForcedRegion": {"expert", "first_frame", "last_frame"},
    "GenerationDefaults": {"guidance"},
    "GenerationSettings": {"guidance", "seed"},
    "ImageFreeRecipe": {"background", "rate", "seed", "weight_decay"},
    "LooksRecipe": {"lone", "nothing", "rate", "seed", "weight_decay"},
    "LossWeights": {"coarse", "fine_align", "fine_balance", "routing"},
    "NoiseLevels": {"mean"},
    "OptimiserSettings": {"muon_rate", "rate", "warm_up", "weight_decay"},
    "OverlaySettings": {"index", "opacity"},
    "Phase": {"first_share", "last_share"},
    "Recipe": {
        "align_background",
        "align_others",
        "foreground",
        "event_weight",
        "null_share",
        "seed",
        "ema",
        "latent_frames",
        "stills",
    },
    "JudgeRecipe": {"rate", "seed", "weight_decay"},
    "RecogniserRecipe": {"nothing", "rate", "seed", "weight_decay"},
    "Running": {"minutes", "workers"},
    "Schedule": {"interval"},
    "SegmenterRecipe": {"rate", "seed", "weight_decay"},
    "TextRecipe": {"learning_rate", "seed", "twins", "word_dropout"},
    "VaeRecipe": {
        "behind",
        "ema",
        "adamw_rate",
        "edge_weight",
        "event_weight",
        "kl_weight",
        "most_weight",
        "motion_weight",
        "muon_rate",
        "seed",
    },
    "VlmRecipe": {"adamw_rate", "ema", "muon_rate", "seed", "steps", "tower_steps", "weight_decay"},
}


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def places(built: object):
    """Every number of a value: its field's name, and what makes the value with another number there."""
    for field in fields(built):
        value = getattr(built, field.name)
        if is_number(value):
            yield field.name, lambda new, name=field.name: replace(built, **{name: new})
        elif isinstance(value, tuple) and any(map(is_number, value)):
            for i in range(len(value)):
                yield (
                    field.name,
                    lambda new, name=field.name, old=value, i=i: replace(
                        built, **{name: (*old[:i], new, *old[i + 1 :])}
                    ),
                )


def takes(make, value: object) -> bool:
    """Whether a value can be built with a number; a refusal is one line with the cure."""
    try:
        make(value)
    except ValueError as refusal:
        message = str(refusal)
        assert message
        assert "\n" not in message
        assert len(message) <= 300
        return False
    return True


PLACES = [
    pytest.param(type(built).__name__, name, make, id=f"{type(built).__name__}.{name}")
    for built in BUILT
    for name, make in places(built)
]


def test_every_recipe_and_setting_of_the_package_is_walked():
    named = set()
    for path in (Path(__file__).parents[1] / "prophy").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(d) for d in node.decorator_list):
                named.add(node.name)
    settings = {
        name
        for name in named
        if name[0] != "_" and name.endswith(("Recipe", "Settings", "Config", "Defaults", "Shape", "Limits"))
    }
    walked = {type(built).__name__ for built in BUILT}
    assert settings - DESCRIPTIONS <= walked
    inside = {type(getattr(b, f.name)).__name__ for b in BUILT for f in fields(b) if is_dataclass(getattr(b, f.name))}
    assert inside <= walked | {"Steering"}, "what a recipe holds is walked too; Steering has tests of its own"


def test_all_named_recipes_can_be_built():
    assert all(make() for make in RECIPES.values())


@pytest.mark.parametrize(("kind", "name", "make"), PLACES)
def test_no_field_takes_what_is_no_number_or_out_of_all_measure(kind: str, name: str, make):
    taken = [value for value in NEVER if takes(make, value)]
    assert not taken, f"{kind}.{name} takes {taken}"
    assert not takes(make, True)


@pytest.mark.parametrize(("kind", "name", "make"), PLACES)
def test_no_field_takes_a_negative_number_or_zero_where_that_means_nothing(kind: str, name: str, make):
    assert takes(make, -1) <= (f"{kind}.{name}" in NEGATIVE)
    assert takes(make, 0) <= (name in ZERO.get(kind, ()))


@pytest.mark.parametrize(
    "change",
    [
        {"ema": math.nan},
        {"ema": 2.0},
        {"ema": -1.0},
        {"null_share": 5.0},
        {"optimiser": {"clip": -1.0}},
        {"optimiser": {"clip": 0.0}},
        {"optimiser": {"clip": math.nan}},
        {"optimiser": {"warm_up": -1}},
        {"losses": {"fine_align": -1.0}},
        {"foreground": -1.0},
        {"counterfactual": {"share": math.nan}},
        {"steps": 1.5},
        {"batch": "4"},
    ],
)
def test_a_run_record_with_an_impossible_value_is_refused(change: dict):
    record = RECIPE.record()
    for name, value in change.items():
        record[name] = {**record[name], **value} if isinstance(value, dict) else value
    with pytest.raises(ValueError, match="must|finite"):
        type(RECIPE).from_record(record)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_numbers_are_not_published(tmp_path: Path, value: float):
    run(tmp_path / "run", replace(RECIPE, steps=1))
    state = load_checkpoint(tmp_path / "run" / CHECKPOINT)
    assert state is not None
    name = next(iter(state["ema"]))
    state["ema"][name].view(-1)[0] = value
    save_checkpoint(tmp_path / "run" / CHECKPOINT, state)
    with pytest.raises(ValueError, match=f"1 of .* weights .* {name}.*nothing was published"):
        publish(tmp_path / "run", tmp_path / "published")
    assert not (tmp_path / "published").exists()
    assert not (tmp_path / "published.new").exists()


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (whole, ["1", "20000"], ["0", "-1", "1.5", "nan", "1e3", "١", "9" * 5000, ""]),
        (seeds, ["0", str(2**63 - 1)], ["-1", str(2**63), "nan", "9" * 5000]),
        (time_limit, ["0", "0.5", "600"], ["-1", "nan", "inf", "1e300", "soon"]),
    ],
)
def test_flags_refuse_what_they_cannot_count(kind, good: list[str], bad: list[str]):
    for text in good:
        assert kind(text) == (float(text) if kind is time_limit else int(text))
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match="must be"):
            kind(text)


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (lambda: JudgeRecipe(phenomena=()), "phenomena=\\(\\) leaves nothing to show"),
        (lambda: JudgeRecipe(size="65x64x17"), "a stage of 65×64 pixels"),
        (lambda: JudgeRecipe(fps=1000), "1000 frames a second"),
        (lambda: SegmenterRecipe(cell=12), "cell=12: give a multiple of 8 that divides 64x64"),
        (lambda: SegmenterRecipe(cell=4096), "cell=4096: give a multiple of 8"),
        (lambda: TextRecipe("latin"), "grammar='latin' is unknown: use one of first, plain"),
        (lambda: TextRecipe(heads=5), "heads=5: give at most 4 that divide a width of 192"),
        (lambda: TextRecipe(width=190), "heads=4: give at most 4 that divide a width of 190"),
        (lambda: VlmRecipe(tower_steps=0, steps=0), "leave nothing to train"),
        (lambda: replace(VaeRecipe().phases[0], batch=200_000), "a step of .* pixels is larger than"),
    ],
)
def test_recipes_that_contradict_themselves_are_refused_where_they_are_built(build, why):
    with pytest.raises(ValueError, match=why):
        build()
