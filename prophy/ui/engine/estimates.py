"""What a clip will cost before it is made: the plan's memory on this machine, and time once a clip was timed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING

from prophy.memory.profiles import AUTO, OffloadMode, Profile
from prophy.ui.engine.models import ModelCard

if TYPE_CHECKING:
    from prophy.memory.plan import Plan


@dataclass(frozen=True)
class Timing:
    """Seconds that a clip took.

    Attributes:
        profile: the memory profile it was made in.
        step: of one denoising step, text encoding spread over them.
        decode: of the video.
    """

    profile: Profile
    step: float
    decode: float


@dataclass(frozen=True)
class Estimate:
    """What a clip will need.

    Attributes:
        profile: the memory profile it would be made in; None: none fits.
        peak: bytes of memory at its highest, on the accelerator, or on the CPU if there is none.
        stage: when that is.
        free: bytes that the accelerator has for it; None without one.
        slow_down: expected time over that with everything on the accelerator; None without one.
        seconds: expected; None until a clip of this model was timed.
        problem: why no profile fits; empty if one does.
    """

    profile: str | None
    peak: int
    stage: str
    free: int | None
    slow_down: float | None
    seconds: float | None
    problem: str = ""


class Estimates:
    """Plans each model once, and remembers how long its clips took."""

    def __init__(self) -> None:
        self._plans: dict[tuple[str, bool], Plan] = {}
        self._timings: dict[tuple[str, bool], Timing] = {}
        self._planning = Lock()

    def record(self, card: ModelCard, guided: bool, timing: Timing) -> None:
        """Remember how long a clip took."""
        self._timings[card.name, guided] = timing

    def seconds(self, card: ModelCard, steps: int, guided: bool) -> float | None:
        """What a clip will take in the profile that the last one was made in; None before one was timed."""
        timing = self._timings.get((card.name, guided))
        return None if timing is None else steps * timing.step + timing.decode

    def plan(self, card: ModelCard, guided: bool) -> Plan:
        """The plan of a model's clip on this machine, with no memory to choose for; seconds of work the first time."""
        from prophy.generation.pipelines import accelerator, default_dtype
        from prophy.memory.plan import plan

        device = accelerator()
        with self._planning:
            if (card.name, guided) not in self._plans:
                self._plans[card.name, guided] = plan(
                    card.model_config,
                    replace(card.made.clip, guided=guided),
                    dtype=default_dtype(device),
                    branch=None if card.has_branch else False,
                    device="cpu" if device.type == "cpu" else "cuda",
                )
            return self._plans[card.name, guided]

    def of(self, card: ModelCard, profile: str, steps: int, guided: bool) -> Estimate:
        """Estimate one clip.

        Args:
            card: of the model.
            profile: a memory profile by its name, or ``auto``.
            steps: denoising steps.
            guided: whether the unconditional pass is made too.

        Raises:
            ValueError: no such profile.
        """
        from prophy.memory.plan import choose

        made, free = self.plan(card, guided), _free()
        wanted, problem = Profile(OffloadMode.ALL), ""
        if profile != AUTO:
            wanted = Profile.parse(profile)
        elif free is not None:
            wanted, reason = choose(made.profiles, free)
            problem = reason if wanted is None else ""
        if wanted is None:
            smallest = min(made.profiles, key=lambda entry: entry.peak.total).peak
            return Estimate(None, smallest.total, str(smallest.stage), free, None, None, problem)
        planned, timing = made.of(wanted), self._timings.get((card.name, guided))
        seconds = None
        if timing is not None:
            scale = planned.seconds(steps) / made.of(timing.profile).seconds(steps)
            seconds = scale * (steps * timing.step + timing.decode)
        return Estimate(
            profile=str(wanted),
            peak=planned.peak.total,
            stage=str(planned.peak.stage),
            free=free,
            slow_down=None if free is None else planned.slow_down,
            seconds=seconds,
        )


def _free() -> int | None:
    """Bytes of the accelerator that a clip could have: those free, and those that this process holds for the last."""
    import torch

    if not torch.cuda.is_available():
        return None
    return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
