"""The log of a training: one JSON object a line, written by the first process, for people and for plots.

Reading it needs no torch.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypeAlias, TypedDict

from prophy.files import open_regular, read_regular, write_text

if TYPE_CHECKING:
    from accelerate import Accelerator

    from prophy.training.step import ExpertUsage

_MAX_BYTES = 2**30  # of a log: some millions of lines
LOG_FILE = "log.jsonl"


class Experts(TypedDict):
    """See :class:`prophy.training.step.ExpertUsage`."""

    refinement_E: list[float]
    refinement_entropy: float
    token_entropy: float
    semantic_S: list[float]
    semantic_entropy: float


class TrainLine(TypedDict):
    """One step.

    Attributes:
        step: updates made, from 1.
        losses: ``total``, ``diffusion``, ``coarse``, ``fine_align``, ``fine_balance``.
        gradient_norms: ``all``, and of each part.
        rate: the learning rate.
        experts: None without a branch.
        seconds_per_step: since the line before.
        waiting: share of the time without data.
    """

    kind: Literal["train"]
    step: int
    losses: dict[str, float]
    gradient_norms: dict[str, float]
    rate: float
    experts: Experts | None
    seconds_per_step: float
    waiting: float


class ValidationLine(TypedDict):
    """What the averaged weights are worth after a step.

    Attributes:
        step: updates made, from 1.
        diffusion: loss of held-out clips, by noise level.
        scores: instead, by name, of models that learn something else than diffusion.
    """

    kind: Literal["validation"]
    step: int
    diffusion: NotRequired[dict[str, float]]
    scores: NotRequired[dict[str, float]]


Line: TypeAlias = TrainLine | ValidationLine


class Log:
    """Writes :class:`TrainLine` and :class:`ValidationLine`.

    Lines after ``step``, which a killed run wrote and a resumed one will write again, are dropped at the start.

    Args:
        folder: of the run.
        step: that the run starts from.
        writes: whether this process does: the first one.
        tracked: carries a tracker beside the log.
    """

    def __init__(self, folder: Path, step: int, writes: bool = True, tracked: Accelerator | None = None) -> None:
        self._path, self._writes, self._tracked = folder / LOG_FILE, writes, tracked
        self._step, self._since = step, time.perf_counter()
        if writes and self._path.exists():
            _cut(self._path, step)
        if tracked is not None:
            tracked.init_trackers(folder.name)

    def train(
        self,
        step: int,
        *,
        losses: dict[str, float],
        gradient_norms: dict[str, float],
        rate: float,
        experts: ExpertUsage | None = None,
        waited: float = 0.0,
    ) -> None:
        """Since the last call, ``waited`` seconds were spent without data."""
        now = time.perf_counter()
        seconds, steps = now - self._since, step - self._step
        self._step, self._since = step, now
        self._write(
            {
                "kind": "train",
                "step": step,
                "losses": losses,
                "gradient_norms": gradient_norms,
                "rate": rate,
                "experts": None if experts is None else _experts(experts),
                "seconds_per_step": round(seconds / steps, 4),
                "waiting": round(waited / seconds, 4),
            }
        )

    def validation(self, step: int, diffusion: dict[str, float]) -> None:
        self._write({"kind": "validation", "step": step, "diffusion": diffusion})

    def scores(self, step: int, scores: dict[str, float]) -> None:
        self._write({"kind": "validation", "step": step, "scores": scores})

    def close(self) -> None:
        if self._tracked is not None:
            self._tracked.end_training()

    def _write(self, line: Line) -> None:
        if self._writes:
            with open(self._path, "a") as file:
                file.write(json.dumps(line) + "\n")
        if self._tracked is not None:
            self._tracked.log(dict(_numbers("", line)), step=line["step"])


def read_lines(folder: Path) -> list[Line]:
    """The lines of a run's log, without one that a kill cut short.

    Raises:
        FileNotFoundError: the folder holds no log.
        ValueError: a line is none that :class:`Log` writes, or two trainings wrote there. One line.
    """
    try:
        content = read_regular(Path(folder) / LOG_FILE, _MAX_BYTES)
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder} holds no {LOG_FILE}: give a folder that prophy train wrote") from None
    lines: list[Line] = []
    if (fault := _take(content, lines)[1]) is not None:
        raise ValueError(f"{folder}: {fault}")
    return lines


class GrowingLog:
    """A log that may still be written: each :meth:`read` parses only what came since the last.

    Attributes:
        lines: all of its whole lines, in order.
        written: when the file last changed, in seconds since the epoch; None while there is none.
        fault: why its reading ended before its end, one line that names the cure; None if it did not.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._path = Path(folder) / LOG_FILE
        self._forget()

    def _forget(self) -> None:
        self.lines: list[Line] = []
        self.written: float | None = None
        self.fault: str | None = None
        self._offset = 0
        self._inode: int | None = None
        self._seen: tuple[int, int] | None = None

    def read(self) -> bool:
        """Read on, or anew if the file was replaced, as a resumed training does. Returns whether anything changed."""
        before = self._seen, self.fault
        try:
            if self._path.is_symlink():  # it may lead anywhere
                raise FileNotFoundError
            status = os.stat(self._path)
            seen = status.st_mtime_ns, status.st_size
            if seen != self._seen:
                if status.st_ino != self._inode or status.st_size < self._offset or self.fault is not None:
                    self._forget()
                with open_regular(self._path) as file:
                    file.seek(self._offset)
                    taken, fault = _take(file.read(_MAX_BYTES), self.lines)
                self._offset += taken
                self.fault = None if fault is None else f"{fault}. Only what stands before it is shown"
                self._inode, self._seen, self.written = status.st_ino, seen, status.st_mtime
        except FileNotFoundError:
            self._forget()
        except OSError as error:
            self.fault = f"{LOG_FILE} cannot be read ({error.strerror}): let this program read it"
        except ValueError as error:
            self.fault = f"{error}: put the run's log in its place"
        return (self._seen, self.fault) != before


def _take(content: bytes, lines: list[Line]) -> tuple[int, str | None]:
    """Add whole lines: one without its end is being written, or was cut short by a kill.

    Returns:
        The bytes that were taken, and why not all whole lines were; None if they were.
    """
    taken = 0
    for raw in content.split(b"\n")[:-1]:
        line, last = _line_of(raw), lines[-1]["step"] if lines else 0
        if line is None:
            return taken, f"line {len(lines) + 1} of {LOG_FILE} is damaged: delete it, and the rest is shown too"
        if line["step"] < last:
            what = f"goes back from step {last} to {line['step']}: end one of the two trainings that write there"
            return taken, f"line {len(lines) + 1} of {LOG_FILE} {what}"
        lines.append(line)
        taken += len(raw) + 1
    return taken, None


_EXPERTS: dict[str, type] = {
    "refinement_E": list,
    "refinement_entropy": float,
    "token_entropy": float,
    "semantic_S": list,
    "semantic_entropy": float,
}
_FINITE = ("rate", "seconds_per_step", "waiting")
_MOST_STEPS = 2**53  # and whole numbers: what a float, a browser's too, counts exactly
_FIELDS: dict[str, list[dict[str, type]]] = {
    "train": [{"losses": dict, "gradient_norms": dict, "rate": float, "seconds_per_step": float, "waiting": float}],
    "validation": [{"diffusion": dict}, {"scores": dict}],
}


def _line_of(raw: bytes) -> Line | None:
    """The line, if it is one that :class:`Log` writes."""
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    kind = line.get("kind") if isinstance(line, dict) else None
    if not isinstance(kind, str) or kind not in _FIELDS or not isinstance(line.get("step"), int):
        return None
    if not 0 <= line["step"] < _MOST_STEPS:
        return None
    if not any(_holds(line, fields) for fields in _FIELDS[kind]):
        return None
    experts = line.get("experts")
    if experts is not None and not (isinstance(experts, dict) and _holds(experts, _EXPERTS)):
        return None
    return line


def _holds(values: dict[str, Any], fields: dict[str, type]) -> bool:
    """Whether each field is there: a number, or numbers in a list or by name."""

    def right(name: str, kind: type) -> bool:
        value: Any = values.get(name)
        if kind is float:
            return _is_number(value) and (name not in _FINITE or math.isfinite(value))
        inside = value.values() if isinstance(value, dict) else value
        return isinstance(value, kind) and all(map(_is_number, inside))

    return all(right(name, kind) for name, kind in fields.items())


def _is_number(value: Any) -> bool:
    """Whether a float holds it; a training that diverged has logged losses of NaN."""
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < _MOST_STEPS)


def _experts(used: ExpertUsage) -> Experts:
    return {
        "refinement_E": used.refinement_E,
        "refinement_entropy": used.refinement_entropy,
        "token_entropy": used.token_entropy,
        "semantic_S": used.semantic_S,
        "semantic_entropy": used.semantic_entropy,
    }


def _cut(path: Path, step: int) -> None:
    """Drop lines after a step, and what stands behind damage: nobody reads on there."""
    lines: list[Line] = []
    _take(read_regular(path, _MAX_BYTES), lines)
    kept = [line for line in lines if line["step"] <= step]
    write_text(path, "".join(json.dumps(line) + "\n" for line in kept))


def _numbers(name: str, value: object) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(f"{name}/{key}" if name else key, inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _numbers(f"{name}/{index}", inner)
    elif isinstance(value, int | float) and name != "step":
        yield name, value
