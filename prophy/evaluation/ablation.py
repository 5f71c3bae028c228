"""The ablation table from finished runs: one row a recipe, several seeds a row, whatever it says.

    prophy evaluate ablation backbone=runs/a/base-0 backbone=runs/a/base-1 full=runs/a/full-0 --work runs/a

A run is a work folder whose ``evaluation/`` holds recognition, laws and localisation. Nothing is measured here. Runs
that were measured differently are refused; what was not measured is said to be so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prophy.evaluation.lawfulness import BACKBONE, PROPHY
from prophy.evaluation.metrics import Interval, bootstrap
from prophy.evaluation.results import FOLDER, write_result

_NOISE = 0.5  # of the localisation shown


@dataclass(frozen=True)
class AblationResult:
    """The table.

    Attributes:
        rows: by recipe, then by measure. One seed: the run's own interval, over clips; several: the mean over seeds,
            its interval over seeds, ``n`` their number. None: not measured in any of its runs.
        runs: by recipe, how many runs.
        unmeasured: by recipe and measure, runs without it, where there are any.
    """

    rows: dict[str, dict[str, Interval | None]]
    runs: dict[str, int]
    unmeasured: dict[str, dict[str, int]]


def _laws(d: dict, which: str) -> dict:
    columns = d["scores"]["test"]
    return columns[PROPHY if PROPHY in columns else BACKBONE][which]


def _localised(d: dict) -> dict:
    level = next(level for level in d["levels"] if level["noise"] == _NOISE)
    return next(iter(level["scores"].values()))["ap"]


#: measure -> (file, what it reads there); of several files the first that exists
_MEASURES: dict[str, tuple[tuple[str, ...], Callable[[dict], dict]]] = {
    "one phenomenon recognised": (("recognition", "recognition-no-branch"), lambda d: d["score"]["single"]),
    "two, both": (("recognition", "recognition-no-branch"), lambda d: d["score"]["both"]),
    "laws obeyed": (("laws",), lambda d: _laws(d, "obeyed")),
    "law error": (("laws",), lambda d: _laws(d, "error")),
    f"token AP at noise {_NOISE}": (("localisation",), _localised),
}

#: file -> what every run must have in common
_PROTOCOLS: dict[str, Callable[[dict], tuple]] = {
    "recognition": lambda d: (
        d["steps"],
        d["guidance"],
        tuple((verdict["prompt"], verdict["seed"]) for verdict in d["verdicts"]),
    ),
    "laws": lambda d: (d["clips"], d["steps"], tuple(d["scores"])),
    "localisation": lambda d: (d["clips"], d["split"]),
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
    found: dict[str, dict[str, list[Interval | None]]] = {}
    protocols: dict[str, tuple[tuple, Path]] = {}
    for name, path in runs:
        documents = _read(path, protocols)
        row = found.setdefault(name, {measure: [] for measure in _MEASURES})
        for measure, (files, reading) in _MEASURES.items():
            document = next((documents[file] for file in files if file in documents), None)
            row[measure].append(None if document is None else _interval(reading, document, path))
    rows = {name: {measure: combined(values) for measure, values in row.items()} for name, row in found.items()}
    missing = {
        name: {measure: values.count(None) for measure, values in row.items() if None in values}
        for name, row in found.items()
    }
    counts = {name: len(next(iter(row.values()))) for name, row in found.items()}
    return AblationResult(rows, counts, {name: row for name, row in missing.items() if row})


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


def _read(path: Path, protocols: dict[str, tuple[tuple, Path]]) -> Mapping[str, dict]:
    folder = Path(path) / FOLDER
    documents = {}
    for name in dict.fromkeys(file for files, _ in _MEASURES.values() for file in files):
        if not (folder / f"{name}.json").is_file():
            continue
        kind = name.partition("-")[0]
        try:
            documents[name] = json.loads((folder / f"{name}.json").read_text())
            protocol = _PROTOCOLS[kind](documents[name])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{folder / name}.json is damaged ({error!r}): measure the run again") from error
        known, other = protocols.setdefault(kind, (protocol, path))
        if known != protocol:
            raise ValueError(f"{kind} was measured differently in {path} and {other}: measure them alike")
    if not documents:
        raise FileNotFoundError(f"{folder} holds no results: measure the run before it goes into a table")
    return documents


def _interval(reading: Callable[[dict], dict], document: dict, path: Path) -> Interval | None:
    try:
        value = reading(document)
        return None if value["value"] is None else Interval(**value)
    except (KeyError, TypeError, StopIteration) as error:
        raise ValueError(f"a result in {path} is damaged ({error!r}): measure the run again") from error
