"""The ablation table: one row a recipe, several seeds a row."""

from __future__ import annotations

from dataclasses import dataclass

from prophy.evaluation.results import Interval, Result
from prophy.evaluation.results.interval import Count


@dataclass(frozen=True)
class Training:
    """What a row's trainings were.

    Attributes:
        steps: of the optimiser.
        batch: clips in a step.
        parameters: that were trained.
        seconds_per_step: median over the logs of its runs.
    """

    steps: Count
    batch: Count
    parameters: Count
    seconds_per_step: float


@dataclass(frozen=True)
class AblationResult(Result, kind="ablation", command="prophy evaluate ablation-runs --work runs/ablation"):
    """The table.

    Attributes:
        rows: by recipe, then by measure. One seed: the run's own interval, over clips; several: the mean over seeds,
            its interval over seeds, ``n`` their number. None: not measured in any of its runs.
        measures: by evaluation, its measures in the table's order.
        runs: by recipe, how many runs.
        unmeasured: by recipe and measure, runs without it, where there are any.
        training: by recipe, of those that were trained.
        equal: whether all of these began with the same base and saw as many steps of as many clips of the same data.
    """

    rows: dict[str, dict[str, Interval | None]]
    measures: dict[str, tuple[str, ...]]
    runs: dict[str, Count]
    unmeasured: dict[str, dict[str, Count]]
    training: dict[str, Training]
    equal: bool

    def __post_init__(self) -> None:
        named = {measure for measures in self.measures.values() for measure in measures}
        if any(named - row.keys() for row in self.rows.values()):
            raise ValueError("a row lacks a measure")
        if self.runs.keys() != self.rows.keys() or not self.unmeasured.keys() <= self.rows.keys():
            raise ValueError("runs or unmeasured are of other rows")
