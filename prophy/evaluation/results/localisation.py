"""Localisation: how well maps over tokens find the phenomena, on held-out clips and while a video is being made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prophy.evaluation.results import Interval, Measured, Result
from prophy.evaluation.results.interval import Count, PhenomenonId
from prophy.evaluation.results.result import require_alike
from prophy.worlds.scope import SCOPE

#: maps that are scored
MAP, ROUTER = "phenomenon map P'", "raw router, matched"
IMAGE_FREE, VIDEO = "image-free control", "video level (semantic router)"
CROSS = "backbone's cross-attention"
FEATURES = "backbone's features, training-free"
SHUFFLED, CENTRE, UNIFORM = "P' of another phenomenon", "centre prior", "uniform"


@dataclass(frozen=True)
class MapScore:
    """How well a set of maps finds the phenomena. Averaged over clips per phenomenon, then over phenomena.

    Attributes:
        ap: token average precision; positive: covered by more than half.
        ap_touched: the same; positive: covered at all.
        energy: energy inside the mask over its area share; 1 is uniform.
        pointing: share of clips whose strongest token is a positive.
        apart: in clips of two phenomena, share of their tokens at which their own map is the higher one.
        ap_pooled: average precision over the tokens of *all* clips at once, those that do not show the phenomenon too:
            here a map that only knows which phenomena a clip shows can do better than chance.
        ap_by_phenomenon: ``ap``, by phenomenon id.
    """

    ap: Interval
    ap_touched: Interval
    energy: Interval
    pointing: Interval
    apart: Interval
    ap_pooled: Measured
    ap_by_phenomenon: dict[PhenomenonId, Interval]


@dataclass(frozen=True)
class ExpertUse:
    """Shares of the refinement experts over all tokens of the held-out clips, by expert."""

    topk: tuple[float, ...]
    top1: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.topk) != len(self.top1):
            raise ValueError(f"shares of {len(self.topk)} experts and first choices of {len(self.top1)}")


@dataclass(frozen=True)
class LocalisationLevel:
    """One noise level.

    Attributes:
        scores: by map.
        map_minus_image_free: paired difference of token average precision; None without the control.
        experts: the expert matched to each phenomenon on another split, by id.
        use: shares of the experts.
    """

    noise: float
    scores: dict[str, MapScore]
    map_minus_image_free: Interval | None
    experts: dict[PhenomenonId, Count]
    use: ExpertUse


@dataclass(frozen=True)
class LocalisationResult(Result, kind="localisation", command="prophy evaluate localisation"):
    """All levels.

    Attributes:
        use: shares of the experts over all levels.
        semantic_auc: by phenomenon id, of a linear reading of the semantic router's weights, fitted on another split.
        semantic_auc_head: the same for the coarse head as it is. The relative loss fixes only the angles between clips,
            so its axes need not be phenomena: chance here says nothing against the router.
        clips: held-out clips.
        without_tokens: phenomena shown in a clip without covering half of any token; they are left out of ``ap``.
        phenomena: ids that the clips are drawn from.
        grammar: that their captions are of, one of :data:`prophy.worlds.language.GRAMMARS`.
        size: of the clips, width by height by frames.
        fps: frames a second.
    """

    levels: tuple[LocalisationLevel, ...]
    use: ExpertUse
    semantic_auc: dict[PhenomenonId, Measured]
    semantic_auc_head: dict[PhenomenonId, Measured]
    clips: Count
    split: str
    matched_on: str
    without_tokens: Count
    model_sha256: str
    phenomena: tuple[PhenomenonId, ...] = SCOPE
    grammar: str = "first"
    size: str = "64x64x17"
    fps: Count = 8

    def __post_init__(self) -> None:
        require_alike("maps of the noise levels", (level.scores for level in self.levels))

    @property
    def weights(self) -> dict[str, str]:
        return {"model": self.model_sha256}

    def scores_of(self, name: str) -> tuple[MapScore, ...]:
        """One map's scores, level by level."""
        return tuple(level.scores[name] for level in self.levels)


@dataclass(frozen=True)
class StepScores:
    """One denoising step, from 1: scores by map."""

    step: Count
    timestep: float
    scores: dict[str, MapScore]


@dataclass(frozen=True)
class GeneratedLocalisationResult(
    Result, kind="generated-localisation", command="prophy evaluate generated-localisation"
):
    """Every step.

    Attributes:
        baselines: what needs no step: the centre prior, and a uniform map.
        segmenter_ap: the segmenter's own token average precision on held-out real renders.
        without_tokens: phenomena asked for of which the segmenter sees no token in the finished clip.
        asked: phenomena asked for, over all clips.
    """

    steps: tuple[StepScores, ...]
    baselines: dict[str, MapScore]
    segmenter_ap: Interval
    without_tokens: Count
    asked: Count
    clips: Count
    model_sha256: str

    def __post_init__(self) -> None:
        require_alike("maps of the steps", (step.scores for step in self.steps))

    @property
    def weights(self) -> dict[str, str]:
        return {"model": self.model_sha256}

    @property
    def at_the_end(self) -> Mapping[str, MapScore]:
        """Every map at the last step, and the baselines."""
        return {**self.steps[-1].scores, **self.baselines}
