"""The ablation table from finished runs: one row a recipe, several seeds a row, whatever it says.

    prophy evaluate ablation backbone=runs/a/base-0 backbone=runs/a/base-1 full=runs/a/full-0 --work runs/a

A run is a work folder whose ``evaluation/`` holds recognition, laws, localisation and flow loss; if ``prophy train``
made it, its ``run.json`` and log say what the training cost. Nothing is measured here. Runs that were measured
differently are refused; what was not measured is said to be so. Where a row is named ``backbone``, the law errors of
all others are also compared with its, clip by clip.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from prophy.evaluation.measures.flow_loss import BRANCH
from prophy.evaluation.measures.laws import BACKBONE, PROPHY, REAL, ClipErrors, score_columns
from prophy.evaluation.measures.localisation import MAP, ROUTER
from prophy.evaluation.measures.metrics import Interval, bootstrap
from prophy.evaluation.results import FOLDER, write_result
from prophy.training.log import read_lines
from prophy.training.run_folder import RUN_FILE

_NOISE = 0.5  # of the localisation and the flow loss shown


@dataclass(frozen=True)
class Training:
    """What a row's trainings were.

    Attributes:
        steps: of the optimiser.
        batch: clips in a step.
        parameters: that were trained.
        seconds_per_step: median over the logs of its runs.
    """

    steps: int
    batch: int
    parameters: int
    seconds_per_step: float


@dataclass(frozen=True)
class AblationResult:
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
    runs: dict[str, int]
    unmeasured: dict[str, dict[str, int]]
    training: dict[str, Training]
    equal: bool


def _own(columns: Mapping[str, dict]) -> str:
    """The column that a run is about: ProPhy's, else the backbone's, else the only one that is not of real renders."""
    return next((name for name in (PROPHY, BACKBONE) if name in columns), [n for n in columns if n != REAL][-1])


def _laws(d: dict, which: str) -> dict:
    columns = d["scores"]["test"]
    return columns[_own(columns)][which]


def _law_errors(d: dict) -> list[ClipErrors]:
    return [ClipErrors(**clip) for clip in d["verdicts"]["test"][_own(d["scores"]["test"])]]


def _level(d: dict) -> dict:
    return next(level for level in d["levels"] if level["noise"] == _NOISE)


def _flow(d: dict, which: str) -> dict | None:
    models = _level(d)["everywhere"]
    return (models[BRANCH] if BRANCH in models else list(models.values())[-1])[which]


#: measure -> field of the score, where there is a row of the untrained model
_BESIDE_BACKBONE = {
    "law error minus backbone": "minus_backbone",
    "laws mended": "mended",
    "laws broken": "broken",
}

#: evaluation -> measure -> what it reads in the result
_MEASURES: dict[str, dict[str, Callable[[dict], dict | None]]] = {
    "recognition": {
        "one phenomenon recognised": lambda d: d["score"]["single"],
        "two, both": lambda d: d["score"]["both"],
    },
    "laws": {
        "laws obeyed": lambda d: _laws(d, "obeyed"),
        "law error": lambda d: _laws(d, "error"),
    },
    "localisation": {
        f"token AP, map, noise {_NOISE}": lambda d: _level(d)["scores"][MAP]["ap"],
        f"token AP, raw router, noise {_NOISE}": lambda d: _level(d)["scores"].get(ROUTER, {}).get("ap"),
    },
    "flow": {
        f"flow loss, noise {_NOISE}": lambda d: _flow(d, "loss"),
        "flow loss minus backbone": lambda d: _flow(d, "difference"),
    },
}

#: evaluation -> the files that may hold it; the first that exists does
_FILES = {name: (name,) for name in _MEASURES} | {"recognition": ("recognition", "recognition-no-branch")}

#: evaluation -> what every run must have in common
_PROTOCOLS: dict[str, Callable[[dict], tuple]] = {
    "recognition": lambda d: (
        d["steps"],
        d["guidance"],
        tuple((verdict["prompt"], verdict["seed"]) for verdict in d["verdicts"]),
    ),
    "laws": lambda d: (d["clips"], d["steps"], tuple(d["scores"])),
    "localisation": lambda d: (d["clips"], d["split"]),
    "flow": lambda d: (d["clips"], d["split"]),
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
    protocols: dict[str, tuple[tuple, Path]] = {}
    documents = {path: _read(path, protocols) for _, path in runs}
    measures = {evaluation: dict(readings) for evaluation, readings in _MEASURES.items()}
    untrained = next((path for name, path in runs if name == BACKBONE and "laws" in documents[path]), None)
    if untrained is not None:
        for measure, field in _BESIDE_BACKBONE.items():
            measures["laws"][measure] = lambda d, field=field: _beside(d, documents[untrained]["laws"], field)
    found: dict[str, dict[str, list[Interval | None]]] = {}
    for name, path in runs:
        row = found.setdefault(name, {measure: [] for readings in measures.values() for measure in readings})
        for evaluation, readings in measures.items():
            document = documents[path].get(evaluation)
            for measure, reading in readings.items():
                row[measure].append(None if document is None else _interval(reading, document, path))
    rows = {name: {measure: combined(values) for measure, values in row.items()} for name, row in found.items()}
    missing = {
        name: {measure: values.count(None) for measure, values in row.items() if None in values}
        for name, row in found.items()
    }
    training, equal = _trainings(runs)
    return AblationResult(
        rows=rows,
        measures={evaluation: tuple(readings) for evaluation, readings in measures.items()},
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
    result = ablation_table(runs)
    write_result(Path(work) / FOLDER / "ablation.json", result)
    return result


def _beside(d: dict, untrained: dict, field: str) -> dict | None:
    """A run's laws beside the untrained model's, clip by clip."""
    if d is untrained:
        return None
    columns = {BACKBONE: _law_errors(untrained), PROPHY: _law_errors(d)}
    return vars(getattr(score_columns(columns)[PROPHY], field))


def _read(path: Path, protocols: dict[str, tuple[tuple, Path]]) -> dict[str, dict]:
    """The results of a run by evaluation."""
    folder = Path(path) / FOLDER
    documents = {}
    for evaluation, names in _FILES.items():
        file = next((folder / f"{name}.json" for name in names if (folder / f"{name}.json").is_file()), None)
        if file is None:
            continue
        try:
            documents[evaluation] = json.loads(file.read_text())
            protocol = _PROTOCOLS[evaluation](documents[evaluation])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file} is damaged ({error!r}): measure the run again") from error
        known, other = protocols.setdefault(evaluation, (protocol, path))
        if known != protocol:
            raise ValueError(f"{evaluation} was measured differently in {path} and {other}: measure them alike")
    if not documents:
        raise FileNotFoundError(f"{folder} holds no results: measure the run before it goes into a table")
    return documents


def _interval(reading: Callable[[dict], dict | None], document: dict, path: Path) -> Interval | None:
    try:
        value = reading(document)
        return None if value is None or value["value"] is None else Interval(**value)
    except (KeyError, TypeError, IndexError, StopIteration) as error:
        raise ValueError(f"a result in {path} is damaged ({error!r}): measure the run again") from error


def _trainings(runs: Sequence[tuple[str, Path]]) -> tuple[dict[str, Training], bool]:
    """By recipe, what its trainings were; and whether all of them were alike but for what the recipe changes."""
    seconds: dict[str, list[float]] = {}
    trainings, alike = {}, set()
    for name, path in runs:
        if not (Path(path) / RUN_FILE).is_file():
            continue
        about = json.loads((Path(path) / RUN_FILE).read_text())
        steps, batch = about["recipe"]["steps"], about["recipe"]["batch"]
        seconds.setdefault(name, []).extend(
            line["seconds_per_step"] for line in read_lines(path) if line["kind"] == "train"
        )
        alike.add((about["base"], about["data"], steps, batch))
        trainings[name] = Training(steps, batch, about["trained_parameters"], median(seconds[name]))
    return trainings, len(alike) == 1
