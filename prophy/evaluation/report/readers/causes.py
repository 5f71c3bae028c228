"""What is shown of causes: the budget first, then what each expert does, where, and in what dose."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prophy.evaluation.report.format import text
from prophy.evaluation.report.plots import Spot, bars, lines, matrix
from prophy.evaluation.report.readers.worlds import of_worlds
from prophy.evaluation.report.table import Body, Cell, Headline, Table, listed, number, points, row, share
from prophy.evaluation.results.causes import (
    OWN,
    BudgetScore,
    CausalBudgetResult,
    DoseResult,
    SelectivityCell,
    SelectivityResult,
    SpecificityResult,
)
from prophy.evaluation.results.laws import AUTOENCODER, BACKBONE, PROPHY
from prophy.phenomena import by_id

_AREAS = {
    "place": "inside: the part of the stage that the prompt gives the phenomenon, half of it in a clip of two",
    "segmenter": "inside: where the segmenter sees the phenomenon in either clip",
}

#: row of the budget's table -> its cell
_BUDGET: dict[str, Callable[[BudgetScore], Cell]] = {
    "laws obeyed, branch off": lambda score: share(score.columns[BACKBONE].obeyed),
    "laws obeyed, branch on": lambda score: share(score.columns[PROPHY].obeyed),
    "real renders through the autoencoder": lambda score: share(score.columns[AUTOENCODER].obeyed),
    "on minus off": lambda score: points(score.gain),
    "on, of what the autoencoder keeps": lambda score: share(score.of_autoencoder),
    "laws fixed": lambda score: share(score.columns[PROPHY].mended),
    "laws regressed": lambda score: share(score.columns[PROPHY].broken),
    "pixels changed inside, of 255": lambda score: number(score.pixels.inside, 2),
    "pixels changed outside, of 255": lambda score: number(score.pixels.outside, 2),
    "outside over inside": lambda score: number(score.pixels.ratio, 2),
}


def budget(result: CausalBudgetResult) -> Body:
    """Everything for each split, then law by law."""
    splits = tuple(result.scores)
    table = Table(
        "",
        ("the branch changes", *splits),
        tuple(row(what, *(cell(result.scores[split]) for split in splits)) for what, cell in _BUDGET.items()),
    )
    obeyed = Table(
        "",
        ("split", "autoencoder", "branch off", "branch on"),
        tuple(
            row(split, *(share(score.columns[name].obeyed) for name in (AUTOENCODER, BACKBONE, PROPHY)))
            for split, score in result.scores.items()
        ),
    )
    by_law = [
        Table(
            f"{split}: laws obeyed",
            ("law", "autoencoder", "branch off", "branch on"),
            tuple(
                row(law, *(share(score.columns[name].by_law[law].obeyed) for name in (AUTOENCODER, BACKBONE, PROPHY)))
                for law in score.columns[PROPHY].by_law
            ),
        )
        for split, score in result.scores.items()
    ]
    first = next(iter(result.scores.values()))
    beside = listed(
        {"off": share(first.columns[BACKBONE].obeyed), "autoencoder": share(first.columns[AUTOENCODER].obeyed)}
    )
    return Body(
        "Causal budget: what the branch changes",
        (table, *by_law),
        (bars("Laws obeyed", "%", obeyed),),
        (
            Headline("laws obeyed with the branch on", share(first.columns[PROPHY].obeyed), beside),
            Headline("pixels that the branch changes, of 255 levels", number(first.pixels.inside, 2)),
        ),
        notes=(
            f"{result.clips} clips of each split, off and on from the same noise; {_AREAS[result.areas]}; fixed: off "
            "breaks the law and on obeys it; regressed: the reverse",
            "where off and on are the same clip, no map of the routing says anything about it",
            of_worlds(result.phenomena, result.grammar, result.size, result.fps),
        ),
    )


def selectivity(result: SelectivityResult) -> Body:
    """What is done and what it does to own and other laws, then the matrix."""
    scores, names = result.scores, [by_id(p).name for p in result.phenomena]
    own = scores.changes[OWN]
    return Body(
        "Selectivity: does muting an expert break its own law and no other",
        (_changes(result), _sums(result), _broken(result, names)),
        (matrix("Laws broken by muting an expert, percentage points", names, names, _spots(result)),),
        (
            Headline(
                "own laws obeyed, their expert muted",
                share(own.own),
                listed({"branch on": share(scores.own_on), "off": share(scores.own_off)}),
            ),
            Headline("other laws of the clip that keep their verdict", share(own.isolation)),
            Headline("laws broken, own minus the other's", points(scores.score)),
        ),
        notes=(
            f"{len(result.clips)} clips of the {result.split} split; rows: whose expert is muted; columns: whose laws "
            f"are looked at; {_AREAS[result.areas]}",
            "experts named by their order" if result.by_name else "experts matched by localisation; some share one",
            "the random change moves the same tokens as far, behind the experts, in a random direction; the other "
            "active expert is the one that the clip uses most besides its own",
            of_worlds(result.phenomena, result.grammar, result.size, result.fps),
        ),
        pictures=result.pictures,
        headline=2,
    )


def _changes(result: SelectivityResult) -> Table:
    scores, none = result.scores, number(None)
    rows = [
        row("nothing", share(scores.own_on), share(scores.other_on), none, none, none, none),
        row("branch off", share(scores.own_off), none, none, none, none, none),
    ]
    for what, one in scores.changes.items():
        inside, outside, ratio = (number(v, 2) for v in (one.pixels.inside, one.pixels.outside, one.pixels.ratio))
        rows.append(row(what, share(one.own), share(one.other), share(one.isolation), inside, outside, ratio))
    header = ("own laws obeyed", "the other's", "other verdicts kept", "pixels inside, of 255", "outside", "ratio")
    return Table("", ("what is done", *header), tuple(rows))


def _sums(result: SelectivityResult) -> Table:
    scores = result.scores
    rows = [
        row("own laws (diagonal)", points(scores.diagonal)),
        row("the other's laws in the same clip", points(scores.off_diagonal)),
        row("own minus the other's", points(scores.score)),
        row("own laws obeyed, expert muted minus branch off", points(scores.minus_off)),
    ]
    if scores.absent is not None:
        rows.append(row("verdicts kept, expert of what the clip does not show", share(scores.absent)))
    return Table("", ("laws broken by muting an expert", "mean"), tuple(rows))


def _broken(result: SelectivityResult, names: Sequence[str]) -> Table:
    rows = tuple(
        row(
            f"{name} (expert {result.experts[p]})",
            *(points(None) if cell is None else points(cell.broken) for cell in cells),
        )
        for name, p, cells in zip(names, result.phenomena, result.matrix, strict=True)
    )
    return Table("laws broken, by whose expert is muted", ("muted", *names), rows)


def _spots(result: SelectivityResult) -> list[list[Spot | None]]:
    def spot(cell: SelectivityCell | None) -> Spot | None:
        if cell is None or not cell.broken.measured:
            return None
        cell_text = text(points(cell.broken))
        both = f"{cell.shown} of {cell.broken.n} clips show both" if cell.shown else "no clip shows both"
        return Spot(100 * cell.broken.value, f"{cell_text}<br>{both}", cell.picture)

    return [[spot(cell) for cell in cells] for cells in result.matrix]


def specificity(result: SpecificityResult) -> Body:
    """Energy and size of every change at every noise level, and by phenomenon."""
    levels = result.levels
    at_noise = tuple(f"noise {level.noise}" for level in levels)
    energy = Table(
        "",
        ("energy inside the mask over its area", *at_noise),
        tuple(row(what, *(number(level.energy[what], 2) for level in levels)) for what in levels[0].energy),
    )
    size = Table(
        "size of the change, of that of switching the branch off",
        ("what is done", *at_noise),
        tuple(row(what, *(share(level.size[what]) for level in levels)) for what in levels[0].size),
    )
    by_phenomenon = Table(
        "own expert muted, by phenomenon",
        ("phenomenon", *at_noise),
        tuple(
            row(by_id(p).name, *(number(level.by_phenomenon.get(p), 2) for level in levels))
            for p in levels[0].by_phenomenon
        ),
    )
    middle = min(levels, key=lambda level: abs(level.noise - 0.5))
    controls = {what: number(value, 2) for what, value in middle.energy.items() if what != OWN}
    return Body(
        "Spatial specificity: where muting an expert changes the predicted clip",
        (energy, size, by_phenomenon),
        (lines("Energy inside the mask over its area", "times", "noise", [level.noise for level in levels], energy),),
        (
            Headline(
                f"change of the predicted clip, energy over area at noise {middle.noise}",
                number(middle.energy[OWN], 2),
                listed({**controls, "all of it inside": number(result.largest, 2)}),
            ),
        ),
        notes=(
            f"{result.clips} clips of the {result.split} split, one pass at a fixed noisy latent: nothing is "
            "generated; 1: everywhere alike",
            of_worlds(result.phenomena, result.grammar, result.size, result.fps),
        ),
    )


def dose(result: DoseResult) -> Body:
    """Strengths, and the four routings of sufficiency."""
    strengths = [one.strength for one in result.doses]
    none = number(None)
    doses = Table(
        "",
        ("strength", "laws obeyed", "minus the strength before", "pixels changed from 0, of 255"),
        tuple(
            row(
                f"{one.strength:g}",
                share(one.obeyed),
                none if one.more is None else points(one.more),
                number(one.pixels, 2),
            )
            for one in result.doses
        ),
    )
    enough = result.sufficiency
    rows = [row("branch off", share(enough.off))]
    if enough.none is not None:
        rows.append(row("experts of all phenomena muted", share(enough.none)))
    rows += [row("experts of all other phenomena muted", share(enough.alone)), row("branch on", share(enough.on))]
    if enough.enough is not None:
        rows.append(row("own expert alone minus none", points(enough.enough)))
    sufficiency = Table("sufficiency", ("routing", "own laws obeyed"), tuple(rows))
    by_phenomenon = Table(
        "own expert alone, by phenomenon",
        ("phenomenon", "own laws obeyed"),
        tuple(row(by_id(p).name, share(value)) for p, value in enough.by_phenomenon.items()),
    )
    obeyed = Table("", ("", *map(str, strengths)), (row("laws obeyed", *(share(one.obeyed) for one in result.doses)),))
    return Body(
        "Dose and sufficiency: how much of the branch the laws need",
        (doses, sufficiency, by_phenomenon),
        (lines("Laws obeyed by strength of the branch", "%", "strength", strengths, obeyed),),
        (
            Headline(
                "clips in which more of the branch breaks no law, up to strength 1",
                share(result.monotone),
                f"the mean {'rises' if result.rises else 'does not rise'} with the strength",
            ),
        ),
        notes=(
            f"{result.clips} clips of the {result.split} split, from the same noise at every strength",
            of_worlds(result.phenomena, result.grammar, result.size, result.fps),
        ),
        headline=2,
    )
