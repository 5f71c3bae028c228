"""What is shown of annotation."""

from __future__ import annotations

from collections.abc import Mapping

from prophy.evaluation.report.plots import bars
from prophy.evaluation.report.table import Body, Headline, Table, listed, number, row, share
from prophy.evaluation.results.annotation import TARGETS, WRONG, AnnotationResult
from prophy.evaluation.results.localisation import CENTRE, UNIFORM, MapScore
from prophy.phenomena import by_id

_MEASURES = ("token AP (95 %)", "energy / area", "pointing", "two told apart")


def annotation(result: AnnotationResult) -> Body:
    """Every map, the targets by phenomenon, and what the model said."""
    scores, by_phenomenon = result.scores, {by_id(p).name: s for p, s in result.by_phenomenon.items()}
    controls = {name: number(scores[name].ap) for name in (WRONG, CENTRE, UNIFORM) if name in scores}
    said = tuple(row(question, answer) for answers in result.answers for question, answer in answers.items())
    return Body(
        "Annotation: do a vision-language model's targets find the physics",
        (
            _measures("", "map", scores),
            _measures("targets, by phenomenon", "phenomenon", by_phenomenon),
            Table("what the model said", ("question", "answer"), said),
        ),
        (
            bars("Every map", "token AP", _precision(scores)),
            bars("Targets, by phenomenon", "token AP", _precision(by_phenomenon)),
        ),
        (Headline("annotation targets, token AP", number(scores[TARGETS].ap), listed(controls)),),
        notes=(
            (
                f"{result.clips} clips of the {result.split} split; {result.model}, decoder layers "
                f"{', '.join(map(str, result.layers))}; something was said to ",
                share(result.share_answered),
                " of the questions",
            ),
        ),
    )


def _measures(title: str, named: str, scores: Mapping[str, MapScore]) -> Table:
    rows = tuple(
        row(name, number(s.ap), number(s.energy.value), number(s.pointing.value), number(s.apart.value))
        for name, s in scores.items()
    )
    return Table(title, (named, *_MEASURES), rows)


def _precision(scores: Mapping[str, MapScore]) -> Table:
    return Table("", ("map", "AP"), tuple(row(name, number(s.ap)) for name, s in scores.items()))
