"""Annotation: how well a vision-language model's targets find the phenomena."""

from __future__ import annotations

from dataclasses import dataclass

from prophy.evaluation.results import Result
from prophy.evaluation.results.interval import Count, PhenomenonId
from prophy.evaluation.results.localisation import MapScore

TARGETS, ANSWER = "targets", "answer alone, nothing subtracted"  #: maps that are scored
BACKGROUND = "background alone"
WRONG, OTHER_CLIP = "targets of a phenomenon not shown", "targets of another clip"


@dataclass(frozen=True)
class AnnotationResult(Result, kind="annotation", command="prophy evaluate annotation --vlm DIR"):
    """How well targets find the phenomena.

    Attributes:
        scores: by map: the targets, what they are made of, single layers, baselines.
        by_phenomenon: of the targets, by phenomenon id: average precision, energy, pointing of that phenomenon alone.
        answers: what the model said about the first clips, by question.
        share_answered: of the phenomena asked about, those the model said anything to.
        layers: decoder layers that the targets average.
        model: the vision-language model's name and revision.
        clips: how many.
        split: of the worlds.
    """

    scores: dict[str, MapScore]
    by_phenomenon: dict[PhenomenonId, MapScore]
    answers: tuple[dict[str, str], ...]
    share_answered: float
    layers: tuple[Count, ...]
    model: str
    clips: Count
    split: str

    def __post_init__(self) -> None:
        if TARGETS not in self.scores:
            raise ValueError(f"no score of the {TARGETS}")
