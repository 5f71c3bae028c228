"""The ablation table from finished runs: one row a recipe, several seeds a row, gains and losses alike.

    prophy evaluate ablation backbone=runs/a/base-0 backbone=runs/a/base-1 full=runs/a/full-0 --work runs/a

A run is a work folder whose ``evaluation/`` holds recognition, laws, localisation and flow loss; if ``prophy train``
made it, its ``run.json`` and log say what the training cost. Nothing is measured here. Runs that were measured
differently are refused; what was not measured is said to be so. Where a row is named ``backbone``, the law errors of
all others are also compared with its, clip by clip.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np

from prophy.evaluation.measures.laws import score_columns
from prophy.evaluation.measures.metrics import bootstrap
from prophy.evaluation.results import FOLDER, Interval, Result
from prophy.evaluation.results.ablation import AblationResult, Training
from prophy.evaluation.results.flow_loss import BRANCH, Comparison, FlowLevel, FlowResult
from prophy.evaluation.results.laws import BACKBONE, PROPHY, REAL, ClipErrors, ColumnScore, LawsResult
from prophy.evaluation.results.localisation import MAP, ROUTER, LocalisationLevel, LocalisationResult
from prophy.evaluation.results.recognition import RecognitionResult
from prophy.training.about import RUN_FILE, About
from prophy.training.log import read_lines

_NOISE = 0.5  # of the localisation and the flow loss shown
SPLIT = "test"  #: of the worlds, of whose prompts the laws are shown

Level = TypeVar("Level", FlowLevel, LocalisationLevel)
AnyResult = TypeVar("AnyResult", bound=Result)


@dataclass(frozen=True)
class RunResults:
    """What was measured of one run, by evaluation."""

    recognition: RecognitionResult | None
    laws: LawsResult | None
    localisation: LocalisationResult | None
    flow: FlowResult | None

    @classmethod
    def load(cls, work: Path) -> RunResults:
        """Read the results of a run's work folder.

        Raises:
            FileNotFoundError: it has none.
            ValueError: one is damaged.
        """

        def found(kind: type[AnyResult], *names: str) -> AnyResult | None:
            paths = [Path(work) / FOLDER / f"{name}.json" for name in names or (kind.kind,)]
            return next((kind.read(path) for path in paths if path.is_file()), None)

        results = cls(
            found(RecognitionResult, "recognition", "recognition-no-branch"),
            found(LawsResult),
            found(LocalisationResult),
            found(FlowResult),
        )
        if not any(vars(results).values()):
            raise FileNotFoundError(
                f"{Path(work) / FOLDER} holds no results: measure the run before it goes into a table"
            )
        return results

    def protocols(self) -> dict[str, Hashable]:
        """By evaluation, what every run of a table must have in common."""
        found: dict[str, Hashable] = {}
        if (score := self.recognition) is not None:
            asked = tuple((one.prompt, one.seed) for one in score.verdicts)
            # Its own errors tell one training of the classifier from another.
            found["recognition"] = score.steps, score.guidance, asked, score.classifier_exact
        if (laws := self.laws) is not None:
            found["laws"] = (laws.clips, laws.steps, tuple(laws.scores), *_worlds(laws))
        if (maps := self.localisation) is not None:
            found["localisation"] = (maps.clips, maps.split, *_worlds(maps))
        if (flow := self.flow) is not None:
            found["flow"] = (flow.clips, flow.split, *_worlds(flow))
        return found


def _worlds(result: LawsResult | LocalisationResult | FlowResult) -> tuple[Hashable, ...]:
    return result.phenomena, result.grammar, result.size, result.fps


def _own_column(laws: LawsResult) -> str:
    """The column that a run is about: ProPhy's, else the backbone's, else the only one that is not of real renders."""
    columns = [name for name in laws.scores.get(SPLIT, ()) if name != REAL]
    if not columns:
        raise ValueError(f"no laws of generated clips of the {SPLIT} split: measure the run again")
    return next((name for name in (PROPHY, BACKBONE) if name in columns), columns[-1])


def _own_score(laws: LawsResult) -> ColumnScore:
    return laws.scores[SPLIT][_own_column(laws)]


def _own_errors(laws: LawsResult) -> tuple[ClipErrors, ...]:
    """By clip; of :func:`_own_column`."""
    errors = laws.verdicts.get(SPLIT, {}).get(_own_column(laws))
    if errors is None:
        raise ValueError("the laws lack the errors of each clip: measure the run again")
    return errors


def _shown(levels: Sequence[Level]) -> Level:
    level = next((level for level in levels if level.noise == _NOISE), None)
    if level is None:
        raise ValueError(f"nothing was measured at noise {_NOISE}: measure the run again")
    return level


def _precision(result: LocalisationResult, name: str) -> Interval | None:
    score = _shown(result.levels).scores.get(name)
    return None if score is None else score.ap


def _trained(result: FlowResult) -> Comparison:
    """The model that a run trained: the one with its branch, else the last."""
    models = _shown(result.levels).everywhere
    return models[BRANCH] if BRANCH in models else list(models.values())[-1]


#: measure -> what it reads, of each evaluation
_RECOGNITION: dict[str, Callable[[RecognitionResult], Interval | None]] = {
    "one phenomenon recognised": lambda result: result.score.single,
    "two, both": lambda result: result.score.both,
}
_LAWS: dict[str, Callable[[LawsResult], Interval | None]] = {
    "laws obeyed": lambda result: _own_score(result).obeyed,
    "law error": lambda result: _own_score(result).error,
}
_BESIDE_BACKBONE: dict[str, Callable[[ColumnScore], Interval | None]] = {
    "law error minus backbone": lambda score: score.minus_backbone,
    "laws mended": lambda score: score.mended,
    "laws broken": lambda score: score.broken,
}
_LOCALISATION: dict[str, Callable[[LocalisationResult], Interval | None]] = {
    f"token AP, map, noise {_NOISE}": lambda result: _precision(result, MAP),
    f"token AP, raw router, noise {_NOISE}": lambda result: _precision(result, ROUTER),
}
_FLOW: dict[str, Callable[[FlowResult], Interval | None]] = {
    f"flow loss, noise {_NOISE}": lambda result: _trained(result).loss,
    "flow loss minus backbone": lambda result: _trained(result).difference,
}


def ablation_table(runs: Sequence[tuple[str, Path]]) -> AblationResult:
    """Read every run.

    Args:
        runs: recipe and work folder; the same recipe again is another seed.

    Raises:
        FileNotFoundError: a folder without results.
        ValueError: no runs, the same folder twice, a damaged result, or runs measured differently.
    """
    if not runs:
        raise ValueError("no runs: give NAME=DIR at least once")
    if len({path.resolve() for _, path in runs}) != len(runs):
        raise ValueError("a folder stands twice: give each run once")
    results = {path: RunResults.load(path) for _, path in runs}
    _refuse_unlike(results)
    untrained = next((laws for name, path in runs if name == BACKBONE and (laws := results[path].laws)), None)
    measures = {
        "recognition": tuple(_RECOGNITION),
        "laws": (*_LAWS, *(() if untrained is None else _BESIDE_BACKBONE)),
        "localisation": tuple(_LOCALISATION),
        "flow": tuple(_FLOW),
    }
    found: dict[str, dict[str, list[Interval | None]]] = {}
    for name, path in runs:
        row = found.setdefault(name, {measure: [] for part in measures.values() for measure in part})
        try:
            values = _values(results[path], untrained)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        for measure, column in row.items():
            column.append(values.get(measure))
    rows = {name: {measure: combined(values) for measure, values in row.items()} for name, row in found.items()}
    missing = {
        name: {measure: values.count(None) for measure, values in row.items() if None in values}
        for name, row in found.items()
    }
    training, equal = _trainings(runs)
    return AblationResult(
        rows=rows,
        measures=measures,
        runs={name: len(next(iter(row.values()))) for name, row in found.items()},
        unmeasured={name: row for name, row in missing.items() if row},
        training=training,
        equal=equal,
    )


def combined(values: Sequence[Interval | None]) -> Interval | None:
    """Seeds of one recipe: one keeps its own interval, several give the mean and the interval over seeds."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return known[0] if known else None
    return bootstrap(np.array([value.value for value in known]))


def evaluate_ablation(runs: Sequence[tuple[str, Path]], work: Path) -> AblationResult:
    """As :func:`ablation_table`; writes ``ablation.json`` under ``work/evaluation``."""
    return ablation_table(runs).save(work)


def _values(run: RunResults, untrained: LawsResult | None) -> dict[str, Interval | None]:
    """By measure, what one run says; the laws also beside those of the untrained model, clip by clip."""
    found: dict[str, Interval | None] = {}
    if run.recognition is not None:
        found |= {measure: read(run.recognition) for measure, read in _RECOGNITION.items()}
    if run.laws is not None:
        found |= {measure: read(run.laws) for measure, read in _LAWS.items()}
        if untrained is not None and run.laws is not untrained:
            beside = score_columns({BACKBONE: _own_errors(untrained), PROPHY: _own_errors(run.laws)})[PROPHY]
            found |= {measure: read(beside) for measure, read in _BESIDE_BACKBONE.items()}
    if run.localisation is not None:
        found |= {measure: read(run.localisation) for measure, read in _LOCALISATION.items()}
    if run.flow is not None:
        found |= {measure: read(run.flow) for measure, read in _FLOW.items()}
    return {measure: value for measure, value in found.items() if value is not None and value.measured}


def _refuse_unlike(results: dict[Path, RunResults]) -> None:
    known: dict[str, tuple[Hashable, Path]] = {}
    for path, run in results.items():
        for evaluation, protocol in run.protocols().items():
            first, other = known.setdefault(evaluation, (protocol, path))
            if first != protocol:
                raise ValueError(f"{evaluation} was measured differently in {path} and {other}: measure them alike")


def _trainings(runs: Sequence[tuple[str, Path]]) -> tuple[dict[str, Training], bool]:
    """By recipe, what its trainings were; and whether all of them were alike but for what the recipe changes."""
    seconds: dict[str, list[float]] = {}
    trainings, alike = {}, set()
    for name, path in runs:
        if not (Path(path) / RUN_FILE).is_file():
            continue
        about = About.read(Path(path))
        if about.batch is None:
            raise ValueError(f"{path} was trained with batches of several sizes: leave it out of the table")
        found = [line["seconds_per_step"] for line in read_lines(path) if line["kind"] == "train"]
        if not found:
            raise ValueError(f"the log of {path} holds no step: train it further, or leave it out of the table")
        seconds.setdefault(name, []).extend(found)
        alike.add((about.start, about.steps, about.batch))
        trainings[name] = Training(about.steps, about.batch, about.trained_parameters, median(seconds[name]))
    return trainings, len(alike) == 1
