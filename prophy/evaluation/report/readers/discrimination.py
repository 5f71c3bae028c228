"""What is shown of discrimination."""

from __future__ import annotations

import math

from prophy.evaluation.report.plots import Spot, lines, matrix
from prophy.evaluation.report.readers.worlds import of_worlds
from prophy.evaluation.report.table import Body, Headline, Table, number, row, share
from prophy.evaluation.results.discrimination import DiscriminationLevel, DiscriminationResult
from prophy.phenomena import by_id


def discrimination(result: DiscriminationResult) -> Body:
    """Every noise level, then the confusions and correlations in the middle."""
    levels = result.levels
    noises = [level.noise for level in levels]
    at_noise = tuple(f"noise {noise}" for noise in noises)
    alike = [result.most_alike(level) for level in levels]
    summed = Table(
        "",
        ("phenomenon map P'", *at_noise),
        (
            row("right map the highest, own tokens", *(share(level.right) for level in levels)),
            row("token AP, pooled over clips", *(number(level.ap) for level in levels)),
            row("largest correlation of two maps", *(number(value, 2) for _, _, value in alike)),
        ),
    )
    pooled = Table(
        "token AP, pooled over clips, by phenomenon",
        ("phenomenon", *at_noise),
        tuple(
            row(by_id(p).name, *(number(level.ap_by_phenomenon.get(p)) for level in levels))
            for p in levels[0].ap_by_phenomenon
        ),
    )
    middle = min(levels, key=lambda level: abs(level.noise - 0.5))
    p, q, value = result.most_alike(middle)
    shown, names = ([by_id(name).name for name in ids] for ids in (result.shown, result.phenomena))
    confused = Table(
        f"highest map at noise {middle.noise}, by the phenomenon that covers the token",
        ("covered by", *names),
        tuple(row(name, *map(share, cells)) for name, cells in zip(shown, middle.confusion, strict=True)),
    )
    precision = Table("", ("", *at_noise), (row("P', pooled", *(number(level.ap) for level in levels)),))
    return Body(
        "Discrimination: does the map tell all phenomena apart",
        (summed, pooled, confused),
        (
            matrix(f"Highest map at noise {middle.noise}, % of a phenomenon's tokens", shown, names, _shares(middle)),
            matrix(f"Correlation of two maps at noise {middle.noise}, times 100", shown, names, _correlations(middle)),
            lines("Token AP, pooled over clips", "AP", "noise", noises, precision),
        ),
        (
            Headline(f"pooled token AP at noise {middle.noise}", number(middle.ap)),
            Headline(
                f"largest correlation of two maps at noise {middle.noise}",
                number(value, 2),
                f"{by_id(p).name} and {by_id(q).name}, on clips that show the first",
                of=f"{result.clips} clips",
            ),
        ),
        notes=(
            f"{result.clips} clips of the {result.split} split; every map is asked about every clip, those that do not "
            "show its phenomenon too",
            of_worlds(result.drawn, result.grammar, result.size, result.fps),
        ),
    )


def _shares(level: DiscriminationLevel) -> list[list[Spot | None]]:
    return [[_spot(100 * value, f"{100 * value:.1f} %") for value in cells] for cells in level.confusion]


def _correlations(level: DiscriminationLevel) -> list[list[Spot | None]]:
    return [[_spot(100 * value, f"{value:+.2f}") for value in cells] for cells in level.correlation]


def _spot(value: float, says: str) -> Spot | None:
    return None if math.isnan(value) else Spot(value, says)
