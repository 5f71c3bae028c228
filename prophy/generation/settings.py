"""What to generate: a prompt, a seed and everything else that the frames depend on besides the weights (no torch)."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from prophy.catalogue.limits import FewSteps, GenerationDefaults
from prophy.grid import TEMPORAL, nearest_length
from prophy.routing.schedule import Schedule
from prophy.routing.steering import Steering
from prophy.runs.record import RunRecord

MAX_PROMPT_CHARS = 2000
SAMPLERS = ("euler", "unipc")
_LATER = ("negative_prompt", "guidance_2", "flow_shift", "sampler")
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
        negative_prompt: what guidance leads away from, at most 2000 characters; nothing while guidance is none.
        guidance_2: guidance at low noise, of a model with a second transformer for it; None: as ``guidance``.
        flow_shift: of a flow: above 1 more steps lie at high noise, 0 to 100; None: as the model's scheduler has it.
        sampler: of a flow: ``euler`` or ``unipc``; None: the model's scheduler.

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
    negative_prompt: str = ""
    guidance_2: float | None = None
    flow_shift: float | None = None
    sampler: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str) or not self.prompt.strip():
            raise GenerationError("the prompt is empty: describe an event, such as a red ball bounces on the floor")
        _check_text("the prompt", self.prompt)
        if not isinstance(self.negative_prompt, str):
            raise GenerationError("the negative prompt must be a text; it may be empty")
        _check_text("the negative prompt", self.negative_prompt)
        for name, low, high in (("seed", 0, 2**63 - 1), ("steps", 1, 1000), ("frames", 1, 1025)):
            _check_range(name, getattr(self, name), low, high, int)
        for name in ("height", "width"):
            _check_range(name, getattr(self, name), 8, 4096, int)
        _check_range("guidance", self.guidance, 0, 30, float)
        _check_range("fps", self.fps, 1, 120, float)
        if (self.frames - 1) % TEMPORAL:
            raise GenerationError(f"frames={self.frames} is not 1 + {TEMPORAL}k: use {nearest_length(self.frames)}")
        if self.guidance_2 is not None:
            _check_range("guidance_2", self.guidance_2, 0, 30, float)
            if self.guidance <= 1 < self.guidance_2:
                raise GenerationError(
                    f"guidance_2={self.guidance_2:g} would do nothing: guidance={self.guidance:g} leaves the "
                    "unconditional pass out: raise guidance, or leave guidance_2 out"
                )
        if self.flow_shift is not None:
            _check_range("flow_shift", self.flow_shift, 0.01, 100, float)
        if self.sampler is not None and self.sampler not in SAMPLERS:
            raise GenerationError(f"sampler={self.sampler!r} is unknown: use {' or '.join(SAMPLERS)}")
        if not isinstance(self.steering, Steering):
            raise GenerationError("steering must be a prophy.routing.steering.Steering")
        if not isinstance(self.schedule, Schedule):
            raise GenerationError("schedule must be a prophy.routing.schedule.Schedule")

    @property
    def scalars(self) -> dict[str, Any]:
        """By name, what is neither the prompt, the seed, the steering nor the schedule: ``settings`` of a run.

        What release 0.1 did not have is there only where it was set.
        """
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _OF_RECORD}
        return {name: value for name, value in values.items() if name not in _LATER or value not in (None, "")}

    def in_few_steps(self, steps: int = FewSteps.steps) -> GenerationSettings:
        """The same with steps, guidance, shift and sampler as distilled models and LoRAs ask for."""
        return replace(self, **asdict(FewSteps(steps=steps)))

    def changed(self, few_steps: int | None = None, **chosen: Any) -> GenerationSettings:
        """The same with what somebody chose: a preset of so many steps first, then single settings.

        Raises:
            GenerationError: as the class; or a negative prompt was chosen and there is no guidance away from it.
        """
        guidance = chosen.get("guidance")
        if isinstance(guidance, int | float) and guidance <= 1:
            chosen = {"guidance_2": None, "negative_prompt": "", **chosen}  # the model's own, which nothing reads
        made = replace(self if few_steps is None else self.in_few_steps(few_steps), **chosen)
        if made.guidance <= 1 and chosen.get("negative_prompt"):
            raise GenerationError(
                f"a negative prompt does nothing while guidance is {made.guidance:g}: leave it out, or raise guidance"
            )
        return made

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


def _check_text(what: str, text: str) -> None:
    if len(text) > MAX_PROMPT_CHARS:
        raise GenerationError(f"{what} has {len(text)} characters: use at most {MAX_PROMPT_CHARS}")
    if re.search(r"<[a-zA-Z/!?]|&#?\w+;", text):
        raise GenerationError(f"{what} looks like HTML: describe the event in plain words")
    if re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]", text):
        raise GenerationError(f"{what} holds control characters: type it as plain words")


def _check_range(name: str, value: Any, low: float, high: float, kind: type) -> None:
    is_number = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        raise GenerationError(
            f"{name}={value!r} must be a {'whole ' if kind is int else ''}number from {low} to {high}"
        )
