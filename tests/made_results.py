"""Small results of the evaluations' own code, for the pages that show them."""

from __future__ import annotations

import numpy as np
import torch

from prophy.evaluation.benchmarks.vbench import QUALITY
from prophy.evaluation.benchmarks.videophy2 import JUDGE, summarise
from prophy.evaluation.judges.trackers import LAWS
from prophy.evaluation.measures.budget import summarised
from prophy.evaluation.measures.discrimination import discriminate
from prophy.evaluation.measures.figures import correlate
from prophy.evaluation.measures.flow_loss import ClipLosses, compare
from prophy.evaluation.measures.laws import score_columns
from prophy.evaluation.measures.localisation import Truth, score_maps
from prophy.evaluation.measures.looks import score as looks_score
from prophy.evaluation.measures.metrics import bootstrap
from prophy.evaluation.measures.preference import score_preferences
from prophy.evaluation.measures.recognition import score
from prophy.evaluation.measures.selectivity import matrix_of, scores_of
from prophy.evaluation.results import Interval
from prophy.evaluation.results.ablation import AblationResult, Training
from prophy.evaluation.results.annotation import OTHER_CLIP, TARGETS, AnnotationResult
from prophy.evaluation.results.autoencoder import AutoencoderResult, KeptLaws
from prophy.evaluation.results.causes import (
    OTHER,
    OWN,
    BudgetScore,
    CausalBudgetResult,
    Dose,
    DoseResult,
    PairedClip,
    SelectivityResult,
    SpecificityLevel,
    SpecificityResult,
    Sufficiency,
    Trial,
)
from prophy.evaluation.results.causes import RANDOM as TURNED
from prophy.evaluation.results.data import DataResult, DataSet
from prophy.evaluation.results.discrimination import DiscriminationResult
from prophy.evaluation.results.figures import (
    INVERTED,
    RANDOM,
    SHUFFLED,
    CorrelationResult,
    ExpertMapsResult,
    InversionResult,
)
from prophy.evaluation.results.flow_loss import BACKBONE, BRANCH, FlowResult
from prophy.evaluation.results.judges import RecogniserRecipe, RecogniserResult, SegmenterRecipe, SegmenterResult
from prophy.evaluation.results.laws import AUTOENCODER, PROPHY, REAL, ClipErrors, LawsResult
from prophy.evaluation.results.localisation import (
    MAP,
    UNIFORM,
    ExpertUse,
    GeneratedLocalisationResult,
    LocalisationLevel,
    LocalisationResult,
    StepScores,
)
from prophy.evaluation.results.looks import BACKBONE as ALONE
from prophy.evaluation.results.looks import (
    LAWFUL,
    UNLAWFUL,
    LooksError,
    LooksJudgeResult,
    LooksRecipe,
    LooksResult,
    PromptLooks,
    Shown,
)
from prophy.evaluation.results.looks import REAL as REAL_RENDERS
from prophy.evaluation.results.preference import MUTED, PairLoss, PreferenceResult
from prophy.evaluation.results.protocol import Protocol
from prophy.evaluation.results.recognition import PromptVerdict, RecognitionResult
from prophy.evaluation.results.vbench import VBenchResult
from prophy.evaluation.results.videophy2 import Differences, VideoPhy2Comparison, VideoPhy2Result
from prophy.grid import TokenGrid
from prophy.phenomena import IDS


def clips(error: float) -> list[ClipErrors]:
    """Three clips that break every law of one scene by so much."""
    laws = LAWS["deformation", "press"]
    return [ClipErrors({f"deformation, press: {law.name}": error for law in laws}, {}) for _ in range(3)]


def laws_result() -> LawsResult:
    columns = {REAL: clips(0.01), "backbone": clips(0.5), PROPHY: clips(0.25)}
    return LawsResult({"test": score_columns(columns)}, 3, None, {"backbone": "b" * 64, PROPHY: "c" * 64}, {})


def recognition_result() -> RecognitionResult:
    logits = torch.full((4, len(IDS)), -1.0)
    asked = torch.zeros(4, len(IDS))
    for row in range(4):
        asked[row, row] = 1
        logits[row, row if row else 9] = 1.0
    verdict = PromptVerdict("<script>alert(1)</script>", 1, "usual", (IDS[0],), (IDS[9],))
    return RecognitionResult(score(logits, asked, ["usual"] * 4), 0.999, "a" * 64, True, 20, 4.0, (verdict,) * 4)


def localisation_result() -> LocalisationResult:
    cover = np.zeros((2, 12, len(IDS)), np.float32)
    shown = np.zeros((2, len(IDS)), bool)
    cover[0, :4, 0] = cover[1, 4:6, 1] = 1
    shown[0, 0] = shown[1, 1] = True
    truth = Truth(cover, shown, TokenGrid(1, 3, 4))
    scores = {MAP: score_maps(cover, truth), UNIFORM: score_maps(np.ones_like(cover), truth)}
    use = ExpertUse((0.5, 0.5), (0.4, 0.6))
    levels = tuple(LocalisationLevel(noise, scores, bootstrap(np.ones(2)), {}, use) for noise in (0.2, 0.5))
    return LocalisationResult(levels, use, {IDS[0]: 0.9}, {IDS[0]: 0.5}, 2, "wordings", "test", 0, "a" * 64)


def flow_result() -> FlowResult:
    base = np.array([1.0, 2.0, 3.0])
    losses = {BACKBONE: ClipLosses(base, base), BRANCH: ClipLosses(base - 0.1, base - 0.1)}
    return FlowResult((compare(0.5, losses),), 3, "wordings", "a" * 64, None)


def correlation_result() -> CorrelationResult:
    rng = np.random.default_rng(0)
    shown = np.zeros((12, len(IDS)), bool)
    shown[np.arange(12), np.arange(12) % 4] = True
    return correlate(rng.normal(size=(12, 6)).astype(np.float32), shown, "a" * 64, resamples=20)


def inversion_result() -> InversionResult:
    """Inversion changes the clip no more than shuffled experts do: its interval holds 0."""
    pixels = {INVERTED: [0.1, 0.3, 0.2], RANDOM: [0.01, 0.02, 0.03], SHUFFLED: [0.2, 0.2, 0.2]}
    table = {name: np.array(values) for name, values in pixels.items()}
    return InversionResult(
        pixels={name: bootstrap(values) for name, values in table.items()},
        routing={name: bootstrap(values) for name, values in table.items()},
        inverted_minus={name: bootstrap(table[INVERTED] - table[name]) for name in (RANDOM, SHUFFLED)},
        prompts=("a", "b", "c"),
        pictures=(),
        model_sha256="a" * 64,
    )


def annotation_result() -> AnnotationResult:
    scores = localisation_result().levels[0].scores
    found = {TARGETS: scores[MAP], OTHER_CLIP: scores[UNIFORM], UNIFORM: scores[UNIFORM]}
    said = ({"Describe the video briefly.": "<script>alert(1)</script>"},)
    return AnnotationResult(found, {IDS[0]: scores[MAP]}, said, 1.0, (1, 2), "small-vlm@0", 2, "test")


def recogniser_result() -> RecogniserResult:
    """A phenomenon that every clip shows has no false alarms to count."""
    shares = {IDS[0]: 0.9, IDS[1]: 1.0}
    return RecogniserResult(0.99, shares, {IDS[0]: 0.01, IDS[1]: float("nan")}, 0.0, 0.1, None, RecogniserRecipe())


def looks_result() -> LooksResult:
    """The second prompt's ball is of another colour."""
    asked = Shown("elastic_motion", "ball", "left", ("red",), 0)
    found = [Shown("elastic_motion", "ball", "left", (colour,), 1) for colour in ("red", "blue")]
    verdicts = tuple(
        PromptLooks("<script>alert(1)</script>", i, "usual", (asked,), (one,)) for i, one in enumerate(found)
    )
    scores = {ALONE: looks_score(verdicts), REAL_RENDERS: looks_score(verdicts[:1])}
    exact = {LAWFUL: Interval(0.99, 0.98, 1.0, 500)}
    return LooksResult(scores, exact, "a" * 64, False, "plain", 20, 4.0, "192x128x17", 8, verdicts)


def looks_judge_result() -> LooksJudgeResult:
    some = Interval(0.99, 0.98, 1.0, 500)
    error = LooksError(some, {"scene": some, "colour": some}, {"melting, block": some})
    return LooksJudgeResult({LAWFUL: error, UNLAWFUL: error}, float("nan"), 1.0, LooksRecipe())


def segmenter_result() -> SegmenterResult:
    half = bootstrap(np.array([0.4, 0.6]))
    return SegmenterResult(half, {IDS[0]: half}, 0.01, 0.02, SegmenterRecipe())


def generated_localisation_result() -> GeneratedLocalisationResult:
    scores = localisation_result().levels[0].scores
    steps = tuple(StepScores(step, 1000.0 - step, {MAP: scores[MAP]}) for step in (1, 2))
    return GeneratedLocalisationResult(steps, {UNIFORM: scores[UNIFORM]}, bootstrap(np.ones(3)), 0, 2, 2, "a" * 64)


def expert_maps_result() -> ExpertMapsResult:
    return ExpertMapsResult(("a ball",), (((0.5, 0.5), (0.25, 0.75)),), (), "a" * 64)


def ablation_result() -> AblationResult:
    row = {"laws obeyed": Interval(0.5, 0.4, 0.6, 3), "flow loss minus backbone": None}
    measures = {"laws": ("laws obeyed",), "flow": ("flow loss minus backbone",)}
    unmeasured = {"tiny": {"flow loss minus backbone": 3}}
    return AblationResult({"tiny": row}, measures, {"tiny": 3}, unmeasured, {"tiny": Training(2, 4, 1234, 0.5)}, True)


def videophy2_result() -> VideoPhy2Result:
    """One video has no PC; no prompt is hard, so nothing there was measured."""
    protocol = Protocol("videophy2", "d" * 64, "caption", 3, "e" * 64, True, 0, 20, 4.0, 17, 64, 64, 16.0)
    scores = {"a": (5, 4), "b": (4, None), "c": (3, 5)}
    everything, hard = summarise(list(scores.values())), summarise([])
    return VideoPhy2Result(everything, hard, JUDGE, protocol, ("1" * 64, "2" * 64), scores)


def videophy2_comparison() -> VideoPhy2Comparison:
    change = bootstrap(np.array([0.0, 1.0, 1.0]))
    differences = Differences(change, change, change)
    return VideoPhy2Comparison(differences, differences, ("a" * 64, "b" * 64), (True, False))


def vbench_result() -> VBenchResult:
    return VBenchResult(0.5, {name: high for name, (_, high, _) in QUALITY.items()}, dict.fromkeys(QUALITY, 1.0), 7)


def data_result() -> DataResult:
    return DataResult((DataSet("latents-test", "test", 4, "f" * 64),), {"recogniser.safetensors": "9" * 64})


def budget_result() -> CausalBudgetResult:
    columns = score_columns({AUTOENCODER: clips(0.01), BACKBONE: clips(0.9), PROPHY: clips(0.02)})
    whole = bootstrap(np.ones(3))
    score = BudgetScore(columns, whole, whole, summarised([(8.0, 1.0), (6.0, 2.0)]))
    return CausalBudgetResult({"test": score}, "place", 3, None, "64x64x17", 8, "a" * 64)


def selectivity_result() -> SelectivityResult:
    """Of a clip of two, and one of one; no picture, since none is drawn here."""
    on, off = dict.fromkeys(IDS[:2], 1.0), dict.fromkeys(IDS[:2], 0.2)
    paired = (PairedClip("0" * 16, "<script>alert(1)</script>", 1, on, off), PairedClip("1" * 16, "b", 2, on, off))
    trials = tuple(
        Trial(0, change, name, 3, {IDS[0]: 0.2, IDS[1]: 1.0}, {IDS[0]: False, IDS[1]: True}, 9.0, 1.0)
        for change in (OWN, TURNED, OTHER)
        for name in IDS[:2]
    )
    shown = IDS[:3]
    return SelectivityResult(
        phenomena=shown,
        experts=dict.fromkeys(shown, 3),
        by_name=True,
        matrix=matrix_of(shown, paired, trials, {}),
        scores=scores_of(shown, paired, trials),
        clips=paired,
        trials=trials,
        areas="segmenter",
        split="test",
        steps=2,
        size="64x64x17",
        fps=8,
        model_sha256="a" * 64,
    )


def specificity_result() -> SpecificityResult:
    two = bootstrap(np.array([2.0, 3.0]))
    changes = dict.fromkeys((OWN, TURNED, OTHER), two)
    levels = tuple(SpecificityLevel(noise, changes, changes, {IDS[0]: two}) for noise in (0.2, 0.5))
    return SpecificityResult(levels, two, 2, "wordings", False, "a" * 64)


def dose_result() -> DoseResult:
    half = bootstrap(np.array([0.4, 0.6]))
    doses = (Dose(0.0, half, None, half), Dose(1.0, half, half, half))
    enough = Sufficiency(half, None, half, half, None, {IDS[0]: half})
    return DoseResult(doses, half, enough, 2, "test", False, None, "64x64x17", 8, "a" * 64)


def preference_result() -> PreferenceResult:
    def losses(difference: float) -> tuple[PairLoss, ...]:
        return tuple(PairLoss(f"test {i}", f"law {i % 2}", 1.0, 1.0 + difference * (i - 1)) for i in range(4))

    columns = {BACKBONE: losses(-0.1), PROPHY: losses(0.1), MUTED: losses(0.0)}
    hashes = dict.fromkeys(columns, "a" * 64)
    return PreferenceResult("worlds, test split", score_preferences(columns), (0.5,), 4, 4, hashes, columns)


def discrimination_result() -> DiscriminationResult:
    cover, shown = np.zeros((2, 12, len(IDS)), np.float32), np.zeros((2, len(IDS)), bool)
    cover[0, :4, 0] = cover[1, 4:6, 1] = 1
    shown[0, 0] = shown[1, 1] = True
    level = discriminate(0.5, cover, Truth(cover, shown, TokenGrid(1, 3, 4)), resamples=10)
    return DiscriminationResult(IDS[:2], IDS, (level,), 2, "wordings", "a" * 64)


#: one of each kind
def autoencoder_result() -> AutoencoderResult:
    some = Interval(0.9, 0.8, 1.0, 6)
    kept = KeptLaws(
        Interval(1.0, 1.0, 1.0, 6), some, Interval(0.0, 0.0, 0.0, 6), Interval(31.0, 30.0, 32.0, 6), {"a": some}
    )
    return AutoencoderResult({"test": kept, "parameters": kept}, 6, "d" * 64, "64x64x17", 8, ("autoencoder.png",))


EVERY_RESULT = (
    autoencoder_result,
    budget_result,
    selectivity_result,
    specificity_result,
    dose_result,
    preference_result,
    discrimination_result,
    laws_result,
    recognition_result,
    recogniser_result,
    looks_result,
    looks_judge_result,
    localisation_result,
    generated_localisation_result,
    segmenter_result,
    flow_result,
    correlation_result,
    expert_maps_result,
    inversion_result,
    annotation_result,
    ablation_result,
    videophy2_result,
    videophy2_comparison,
    vbench_result,
    data_result,
)
