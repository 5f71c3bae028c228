"""What is shown of the ablation."""

from __future__ import annotations

from dataclasses import replace

from prophy.evaluation.report.plots import bars
from prophy.evaluation.report.table import Body, Cell, Table, count, number, row, signed
from prophy.evaluation.results import Interval
from prophy.evaluation.results.ablation import AblationResult

#: measures that are shown under other names than files have
_SHOWN = {"laws mended": "laws fixed", "laws broken": "laws regressed"}


def ablation(result: AblationResult) -> Body:
    """One table an evaluation, and what the trainings cost."""
    tables = [
        Table(
            evaluation,
            ("recipe", *map(_shown, measures)),
            tuple(
                row(
                    f"{name} ({result.runs[name]} {'run' if result.runs[name] == 1 else 'runs'})",
                    *(_cell(measure, values[measure]) for measure in measures),
                )
                for name, values in result.rows.items()
            ),
        )
        for evaluation, measures in result.measures.items()
    ]
    plots = tuple(
        bars(_shown(measure), "", _one_measure(result, measure))
        for measures in result.measures.values()
        for measure in measures
    )
    if result.training:
        tables.append(_training(result))
    return Body("Ablation", tuple(tables), plots, notes=tuple(_notes(result)), headline=len(tables))


def _one_measure(result: AblationResult, measure: str) -> Table:
    rows = tuple(row(name, _cell(measure, values[measure])) for name, values in result.rows.items())
    return Table("", ("recipe", _shown(measure)), rows)


def _shown(measure: str) -> str:
    return _SHOWN.get(measure, measure)


def _cell(measure: str, interval: Interval | None) -> Cell:
    digits = 5 if measure.startswith("flow") else 3  # a thousandth of the flow loss is much
    return (signed if "minus" in measure else number)(interval, digits)


def _training(result: AblationResult) -> Table:
    rows = tuple(
        row(
            name,
            count(one.steps),
            count(one.batch),
            replace(count(one.parameters), spec=",d"),
            number(one.seconds_per_step, 2),
        )
        for name, one in result.training.items()
    )
    return Table("training", ("recipe", "steps", "batch size", "parameters", "s/step"), rows)


def _notes(result: AblationResult) -> list[str]:
    notes = ["one run: its interval over clips; several: the mean, its interval over seeds (n of them)"]
    if result.training:
        notes.append(
            "equal compute here means as many steps of as many clips, from the same start; a step without a branch is "
            "cheaper, see s/step (median)"
            if result.equal
            else "the rows were not trained alike: see steps and batch size, and each run's run.json"
        )
    return notes + [
        f"{name}: {measure} missing in {missing} of {result.runs[name]} runs"
        for name, measures in result.unmeasured.items()
        for measure, missing in measures.items()
        if missing < result.runs[name]
    ]
