"""What is shown of the flow loss."""

from __future__ import annotations

from prophy.evaluation.report.plots import bars
from prophy.evaluation.report.table import Body, Headline, Table, number, row, signed, verdict
from prophy.evaluation.results.flow_loss import FlowResult, Where

_DIGITS = 5  # a thousandth of the flow loss is much
_WHERE: dict[str, Where] = {"whole latent": "everywhere", "where the phenomena are": "acting"}


def flow_loss(result: FlowResult) -> Body:
    """Losses and paired differences by noise level, over the whole latent and where the phenomena are."""
    tables, plots = [], []
    for title, where in _WHERE.items():
        losses, gains = _losses(result, title, where), _gains(result, where)
        tables.append(losses.with_rows(*gains.rows))
        plots.append(bars(f"Flow loss, {title}: negative is better", "difference", gains.transposed()))
    middle = min(result.levels, key=lambda level: abs(level.noise - 0.5))
    headlines = tuple(
        Headline(
            f"flow loss, {compared}, noise {middle.noise}",
            signed(gain, _DIGITS),
            verdict(gain, lower_is_better=True),
        )
        for compared, gain in list(middle.differences("everywhere").items())[-1:]
    )
    return Body(
        "Flow loss on held-out clips",
        tuple(tables),
        tuple(plots),
        headlines,
        notes=(f"{result.clips} clips of the {result.split} split", f"control: {result.control}"),
    )


def _at_noise(result: FlowResult) -> tuple[str, ...]:
    return tuple(f"noise {level.noise}" for level in result.levels)


def _losses(result: FlowResult, title: str, where: Where) -> Table:
    rows = tuple(
        row(name, *(number(level.models(where)[name].loss.value, _DIGITS) for level in result.levels))
        for name in result.levels[0].models(where)
    )
    return Table(title, ("flow loss", *_at_noise(result)), rows)


def _gains(result: FlowResult, where: Where) -> Table:
    rows = tuple(
        row(compared, *(signed(level.differences(where).get(compared), _DIGITS) for level in result.levels))
        for compared in result.levels[0].differences(where)
    )
    return Table("", ("difference", *_at_noise(result)), rows)
