"""The log of a training: one JSON object a line, written by the first process, for people and for plots."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TypeAlias

from accelerate import Accelerator

from prophy.files import write_text
from prophy.training.step import ExpertUsage

LOG_FILE = "log.jsonl"

Line: TypeAlias = "dict[str, str | int | float | list[float] | dict[str, float] | None]"


class Log:
    """Lines of two kinds; ``step`` counts updates made, from 1.

    ``{"kind": "train", "step", "losses": {"total", "diffusion", "coarse", "fine_align", "fine_balance"},
    "gradient_norms": {"all", and each part}, "rate", "experts": {...},
    "seconds_per_step", "waiting"}``: ``experts`` is an :class:`~prophy.training.step.ExpertUsage`, or null without a
    branch; ``waiting`` is the share of the time without data.

    ``{"kind": "validation", "step", "diffusion": {noise level: loss}}``, of the averaged weights.

    Lines after ``step``, which a killed run wrote and a resumed one will write again, are dropped at the start.

    Args:
        folder: of the run.
        accelerator: tells the first process; carries the trackers.
        step: that the run starts from.
        tracker: the name of a tracker beside the log.
    """

    def __init__(self, folder: Path, accelerator: Accelerator, step: int, tracker: str | None = None) -> None:
        self._path, self._accelerator, self._tracked = folder / LOG_FILE, accelerator, tracker is not None
        self._step, self._since = step, time.perf_counter()
        if accelerator.is_main_process and self._path.exists():
            _cut(self._path, step)
        if self._tracked:
            accelerator.init_trackers(folder.name)

    def train(
        self,
        step: int,
        *,
        losses: dict[str, float],
        gradient_norms: dict[str, float],
        rate: float,
        experts: ExpertUsage | None,
        waited: float,
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
                "experts": None if experts is None else asdict(experts),
                "seconds_per_step": round(seconds / steps, 4),
                "waiting": round(waited / seconds, 4),
            }
        )

    def validation(self, step: int, diffusion: dict[str, float]) -> None:
        self._write({"kind": "validation", "step": step, "diffusion": diffusion})

    def close(self) -> None:
        if self._tracked:
            self._accelerator.end_training()

    def _write(self, line: Line) -> None:
        if self._accelerator.is_main_process:
            with open(self._path, "a") as file:
                file.write(json.dumps(line) + "\n")
        if self._tracked:
            self._accelerator.log(dict(_numbers("", line)), step=line["step"])


def read_lines(folder: Path) -> list[Line]:
    """The lines of a run's log, without one that a kill cut short.

    Raises:
        FileNotFoundError: the folder holds no log.
    """
    return list(_lines(Path(folder) / LOG_FILE))


def _lines(path: Path):
    for text in path.read_text().splitlines():
        try:
            yield json.loads(text)
        except json.JSONDecodeError:
            return


def _cut(path: Path, step: int) -> None:
    kept = [line for line in _lines(path) if line["step"] <= step]
    write_text(path, "".join(json.dumps(line) + "\n" for line in kept))


def _numbers(name: str, value: object):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(f"{name}/{key}" if name else key, inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _numbers(f"{name}/{index}", inner)
    elif isinstance(value, int | float) and name != "step":
        yield name, value
