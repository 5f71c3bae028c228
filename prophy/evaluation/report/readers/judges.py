"""What is shown of the small judges' own errors."""

from __future__ import annotations

from prophy.evaluation.report.plots import bars
from prophy.evaluation.report.table import Body, Table, number, row, share
from prophy.evaluation.results.judges import RecogniserResult, SegmenterResult
from prophy.phenomena import by_id


def recogniser(result: RecogniserResult) -> Body:
    """By phenomenon, and where nothing happens."""
    by_phenomenon = Table(
        "",
        ("phenomenon", "recall", "false alarms"),
        tuple(row(by_id(p).name, share(v), share(result.false_alarms.get(p))) for p, v in result.recall.items()),
    )
    table = by_phenomenon.with_rows(
        row("an empty stage", share(None), share(result.empty_false_alarms)),
        row("a first frame that never moves", share(None), share(result.frozen_false_alarms)),
    )
    decoded = () if result.exact_decoded is None else (("after the autoencoder: ", share(result.exact_decoded)),)
    return Body(
        "The classifier's own error, on held-out real renders",
        (table,),
        (bars("On real renders", "%", by_phenomenon),),
        notes=(("exact: ", share(result.exact)), *decoded),
    )


def segmenter(result: SegmenterResult) -> Body:
    """By phenomenon."""
    rows = tuple(row(by_id(p).name, share(v)) for p, v in result.overlap.items())
    table = Table("", ("phenomenon", "overlap of tokens (95 %)"), rows)
    return Body(
        "The segmenter's own error, on held-out real renders",
        (table,),
        (bars("Overlap on real renders", "%", table, ("overlap",)),),
        notes=(
            (
                "token AP ",
                number(result.ap),
                "; missed altogether ",
                share(result.missed),
                "; tokens marked of what is not there ",
                share(result.alarms),
            ),
        ),
    )
