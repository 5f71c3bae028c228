"""What is shown of the laws."""

from __future__ import annotations

from collections.abc import Callable

from prophy.evaluation.report.plots import bars
from prophy.evaluation.report.table import Body, Cell, Headline, Table, listed, number, row, share, signed, verdict
from prophy.evaluation.results.laws import ColumnScore, LawsResult

#: row of the table that sums a split up -> its cell
_MEANS: dict[str, Callable[[ColumnScore], Cell]] = {
    "laws obeyed": lambda column: share(column.obeyed),
    "law error": lambda column: number(column.error),
    "scenes without a track": lambda column: share(column.lost),
    "error minus backbone": lambda column: signed(column.minus_backbone),
    "laws fixed": lambda column: share(column.mended),
    "laws regressed": lambda column: share(column.broken),
}


def laws(result: LawsResult) -> Body:
    """Means of every split and column, then law by law."""
    names = tuple(next(iter(result.scores.values())))
    means = Table("", ("mean over laws", *names), ())
    obeyed = Table("", ("split", *names), ())
    by_law, errors = [], []
    for split, scores in result.scores.items():
        columns = [scores[name] for name in names]
        for what, cell in _MEANS.items():
            means = means.with_rows(row(f"{split}: {what}", *map(cell, columns)))
        obeyed = obeyed.with_rows(row(split, *(share(column.obeyed) for column in columns)))
        of_laws = {law: [column.by_law[law] for column in columns] for law in columns[0].by_law}
        rows = tuple(row(law, *(share(score.obeyed) for score in scores)) for law, scores in of_laws.items())
        by_law.append(Table(f"{split}: laws obeyed", ("law", *names), rows))
        rows = tuple(row(law, *(number(score.error) for score in scores)) for law, scores in of_laws.items())
        errors.append(bars(f"{split}: law error, a lost track is 1", "error", Table("", ("law", *names), rows)))
    return Body(
        "Laws: do the clips obey the physics they show",
        (means, *by_law),
        (bars("Laws obeyed, mean over laws", "%", obeyed), *errors),
        _headlines(next(iter(result.scores.values()))),
        notes=(
            f"{result.clips} clips of each split; a lost track counts as a failure; fixed: the backbone's clip from "
            "the same noise breaks the law, this one obeys it; regressed: the reverse",
        ),
    )


def _headlines(columns: dict[str, ColumnScore]) -> tuple[Headline, ...]:
    """The last column, beside the others."""
    *others, ours = columns
    beside = listed({name: share(columns[name].obeyed) for name in others})
    heads = [Headline(f"laws obeyed, {ours}", share(columns[ours].obeyed), beside)]
    if (gain := columns[ours].minus_backbone) is not None:
        heads.append(Headline(f"law error, {ours} minus backbone", signed(gain), verdict(gain, lower_is_better=True)))
    return tuple(heads)
