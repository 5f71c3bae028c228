"""What is shown of likelihood preference."""

from __future__ import annotations

from prophy.evaluation.report.plots import bars
from prophy.evaluation.report.readers.worlds import of_worlds
from prophy.evaluation.report.table import Body, Headline, Table, listed, points, row, share
from prophy.evaluation.results.preference import PreferenceResult


def preference(result: PreferenceResult) -> Body:
    """Every column, then law by law."""
    names = tuple(result.scores)
    columns = Table(
        "",
        ("column", "prefers the impossible clip", "minus backbone", "its loss is larger by"),
        tuple(
            row(
                name,
                share(score.wrong),
                points(None) if score.minus_base is None else points(score.minus_base),
                share(score.margin),
            )
            for name, score in result.scores.items()
        ),
    )
    laws = next(iter(result.scores.values())).by_law
    by_law = Table(
        "prefers the impossible clip, by law",
        ("law", *names),
        tuple(row(law, *(share(result.scores[name].by_law[law]) for name in names)) for law in laws),
    )
    wrong = Table("", ("column", "%"), tuple(row(name, share(score.wrong)) for name, score in result.scores.items()))
    *others, last = names
    beside = listed({name: share(result.scores[name].wrong) for name in others})
    worlds: tuple[str, ...] = ()
    if result.phenomena is not None and result.grammar is not None and result.size is not None and result.fps:
        worlds = (of_worlds(result.phenomena, result.grammar, result.size, result.fps),)
    return Body(
        f"Likelihood preference: {result.source}",
        (columns, by_law),
        (bars("Prefers the impossible clip", "% of pairs", wrong),),
        (Headline(f"prefers the impossible clip, {last}", share(result.scores[last].wrong), beside),),
        notes=(
            f"{result.pairs} pairs of {result.groups} scenes, the same noise for both clips at {len(result.noises)} "
            "noise levels; 50 % is chance; every law counts alike",
            "it says what a model expects of given clips, not what it makes",
            *worlds,
        ),
    )
