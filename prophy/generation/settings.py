"""What to generate: a prompt, a seed and everything else that the frames depend on besides the weights (no torch)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import Any

from prophy.catalogue.limits import GenerationDefaults
from prophy.grid import TEMPORAL, nearest_length
from prophy.routing.schedule import Schedule
from prophy.routing.steering import Steering
from prophy.runs.store import RunRecord

MAX_PROMPT_CHARS = 2000
_OF_RECORD = ("prompt", "seed", "steering", "schedule")  # what a run's record has a field of its own for


class GenerationError(ValueError):
    """The request cannot be met as it stands, or not by these weights. One line, for the person who made it."""


@dataclass(frozen=True)
class GenerationSettings:
    """What to generate. The defaults fit the embedded model.

    Attributes:
        prompt: plain words, 1 to 2000 characters.
        seed: of the noise, 0 to 2^63 - 1.
        steps: denoising steps, 1 to 1000.
        guidance: classifier-free guidance scale, 0 to 30; up to 1 means none.
        frames: video frames, 1 + 4k.
        height: pixels.
        width: pixels.
        fps: frames per second of the file.
        steering: what to do to the experts.
        schedule: in which passes the branch runs.

    Raises:
        GenerationError: a field is out of range; the message names the cure.
    """

    prompt: str
    seed: int = 0
    steps: int = GenerationDefaults.steps
    guidance: float = GenerationDefaults.guidance
    frames: int = GenerationDefaults.frames
    height: int = GenerationDefaults.height
    width: int = GenerationDefaults.width
    fps: float = GenerationDefaults.fps
    steering: Steering = field(default_factory=Steering)
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str) or not self.prompt.strip():
            raise GenerationError("the prompt is empty: describe an event, such as a red ball bounces on the floor")
        if len(self.prompt) > MAX_PROMPT_CHARS:
            raise GenerationError(f"the prompt has {len(self.prompt)} characters: use at most {MAX_PROMPT_CHARS}")
        if re.search(r"<[a-zA-Z/!?]|&#?\w+;", self.prompt):
            raise GenerationError("the prompt looks like HTML: describe the event in plain words")
        if re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]", self.prompt):
            raise GenerationError("the prompt holds control characters: type it as plain words")
        for name, low, high in (("seed", 0, 2**63 - 1), ("steps", 1, 1000), ("frames", 1, 1025)):
            _check_range(name, getattr(self, name), low, high, int)
        for name in ("height", "width"):
            _check_range(name, getattr(self, name), 8, 4096, int)
        _check_range("guidance", self.guidance, 0, 30, float)
        _check_range("fps", self.fps, 1, 120, float)
        if (self.frames - 1) % TEMPORAL:
            raise GenerationError(f"frames={self.frames} is not 1 + {TEMPORAL}k: use {nearest_length(self.frames)}")
        if not isinstance(self.steering, Steering):
            raise GenerationError("steering must be a prophy.routing.steering.Steering")
        if not isinstance(self.schedule, Schedule):
            raise GenerationError("schedule must be a prophy.routing.schedule.Schedule")

    @property
    def scalars(self) -> dict[str, Any]:
        """By name, what is neither the prompt, the seed, the steering nor the schedule: ``settings`` of a run."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _OF_RECORD}

    @classmethod
    def from_record(cls, record: RunRecord) -> GenerationSettings:
        """The settings that made a run: with the same weights, and the branch on or off as then, its frames again.

        Raises:
            GenerationError: a setting that this release does not know, or out of range.
        """
        known = {f.name for f in fields(cls)}.difference(_OF_RECORD)
        if unknown := sorted(record.settings.keys() - known):
            raise GenerationError(f"the run has the setting {unknown[0]}, which this release does not know: update it")
        return cls(record.prompt, record.seed, **record.settings, steering=record.steering, schedule=record.schedule)


def _check_range(name: str, value: Any, low: float, high: float, kind: type) -> None:
    is_number = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        raise GenerationError(
            f"{name}={value!r} must be a {'whole ' if kind is int else ''}number from {low} to {high}"
        )
