"""The line before the model: who may stand in it, how many, and who is next (no torch, no gradio)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Condition, Event, Thread
from typing import TYPE_CHECKING, Annotated, NamedTuple

from pydantic import Field

from prophy.schema import DenoisingSteps, check_fields
from prophy.ui.engine.errors import EngineError
from prophy.ui.engine.events import Events
from prophy.ui.engine.models import ModelCard

if TYPE_CHECKING:
    from prophy.generation.generate import StepPreview

_POLL_SECONDS = 0.1  # how soon a job that waits sees its own stop
_TELL_SECONDS = 5.0  # how often one that waits is told the time anew


class Visitor(NamedTuple):
    """Who asks, as far as limits go. Neither is a secret.

    Attributes:
        session: page or program.
        address: of their machine; empty where it says nothing, see :func:`prophy.ui.engine.visitors.address_of`.
    """

    session: str
    address: str = ""

    @property
    def name(self) -> str:
        """What their turns are counted by."""
        return self.address or f"session {self.session}"


@dataclass(frozen=True)
class LineLimits:
    """How many generations may wait or run at once, and how long one may be. The page and programs have the same.

    Attributes:
        session: of one page or program.
        address: of one address.
        total: of all visitors.
        steps: denoising steps of one generation.

    Raises:
        ValueError: a number out of its range.
    """

    session: Annotated[int, Field(ge=1, le=100)] = 2
    address: Annotated[int, Field(ge=1, le=100)] = 8
    total: Annotated[int, Field(ge=1, le=100)] = 24
    steps: DenoisingSteps = 50

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Waiting:
    """Other generations have the model first.

    Attributes:
        ahead: how many of them.
        seconds: until it is this one's turn, as far as clips were timed; None before the first was.
    """

    ahead: int
    seconds: float | None = None


@dataclass(eq=False)
class Job:
    """A generation that waits or runs.

    Attributes:
        visitor: whose it is.
        is_here: whether anybody still listens.
        may_return: whether its owner may leave the page that asked and find it again from another.
        attention: whether what the backbone attends to is recorded.
        stop: set to end it.
        events: what happens, for whoever listens.
        preview: after the last denoising step.
        gave_way: whether its turn was given up once, see :meth:`Line.gives_way`.
        started: when its turn began, by the monotonic clock.
        ended: when its worker did.
    """

    prompt: str
    card: ModelCard
    profile: str
    use_branch: bool
    owner: str
    steps: int
    guided: bool
    visitor: Visitor
    is_here: Callable[[], bool]
    may_return: bool = False
    attention: bool = False
    stop: Event = field(default_factory=Event)
    events: Events = field(default_factory=Events)
    worker: Thread | None = None
    preview: StepPreview | None = None
    gave_way: bool = False
    started: float | None = None
    ended: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether it was stopped, or its client is gone."""
        return self.stop.is_set() or not self.is_here()

    @property
    def passes(self) -> int:
        """Of the model: a guided step has two."""
        return self.steps * (2 if self.guided else 1)


class Line:
    """Jobs that want the model, one of which has it.

    Visitors take turns: each job has a place in a common time in which every visitor is served by himself (start-time
    fair queueing, Goyal et al., 1996; its length is the job's passes of the model), and the earliest is next. So
    whoever asks for much waits for his own, and whoever asks for little comes soon; first jobs are first come, first
    served. A job that leaves before its turn costs its visitor nothing, and those behind it move up (ours). With every
    turn the common time moves on by what is each visitor's share of it, as where all are served at once (weighted fair
    queueing, Demers et al., 1989): so newcomers without end keep nobody waiting for ever.

    Args:
        limits: of the line.
        expected: seconds that a job will take; None while nothing is known.
    """

    def __init__(self, limits: LineLimits, expected: Callable[[Job], float | None]) -> None:
        self.limits, self._expected = limits, expected
        self._waiting: dict[Job, float] = {}  # in the order of their arrival, and when in the common time that was
        self._running: Job | None = None
        self._behind: set[Job] = set()  # those that waited while the last turn was their own visitor's, too
        self._now = 0.0  # the common time
        self._served: dict[str, float] = {}  # by visitor, until when the jobs that had a turn take it
        self._moved = Condition()

    def __len__(self) -> int:
        return len(self._standing)

    @property
    def _standing(self) -> list[Job]:
        return [*self._waiting, *([] if self._running is None else [self._running])]

    @property
    def _visitors(self) -> set[str]:
        return {job.visitor.name for job in self._standing}

    def join(self, job: Job) -> None:
        """Let a job wait for its turn.

        Raises:
            EngineError: the line is full, or its visitor's share of it is.
        """
        with self._moved:
            self._refuse_too_many(job.visitor)
            self._waiting[job] = self._now

    def _refuse_too_many(self, visitor: Visitor) -> None:
        limits, standing = self.limits, self._standing
        sessions = Counter(job.visitor.session for job in standing)
        addresses = Counter(job.visitor.address for job in standing)
        own = sessions[visitor.session]
        if own >= limits.session:
            raise EngineError(f"you have {own} clips waiting or being made, as many as one visitor may: let one finish")
        near = addresses[visitor.address] if visitor.address else 0
        if near >= limits.address:
            raise EngineError(f"{near} clips for your address are waiting or being made: let one finish")
        if len(standing) >= limits.total:
            raise EngineError(f"the line is full: {len(standing)} clips are waiting; try again in a few minutes")

    def wait(self, job: Job) -> bool:
        """Wait until it is this job's turn, telling it how many are ahead; False if it is over before.

        One that gave way waits anew, behind whoever has had less: the turn that it gives up counts.
        """
        told, told_at = 0, 0.0
        with self._moved:
            if self._running is job:
                self._running, job.started = None, None
                self._waiting = {job: self._now, **self._waiting}
                self._moved.notify_all()
            while ahead := self._ahead(job):
                if job.is_over:
                    return False
                if ahead != told or time.monotonic() - told_at > _TELL_SECONDS:
                    job.events.put(Waiting(ahead, self._seconds_before(job)))
                    told, told_at = ahead, time.monotonic()
                self._moved.wait(_POLL_SECONDS)
            if job.is_over:
                return False
            start = self._starts()[job]
            del self._waiting[job]
            self._running, job.started = job, time.monotonic()
            self._now, self._served[job.visitor.name] = max(self._now, start), start + job.passes
        return True

    def gives_way(self, job: Job, done: float) -> bool:
        """Whether a running job is to stop and to :meth:`wait` anew (ours): its visitor had the turn before, too, while
        it stood in the line already, others have come who have had less, and less than half of it is done. No job does
        so twice.

        Args:
            job: the one that runs.
            done: the share of its steps that were made, which are lost.
        """
        with self._moved:
            name = job.visitor.name
            come = [start for other, start in self._starts().items() if other.visitor.name != name]
            is_next = bool(come) and min(come) < self._served[name]
            may = is_next and job in self._behind and done < 0.5 and not job.gave_way
            job.gave_way = job.gave_way or may
            return may

    def leave(self, job: Job) -> None:
        """Let the next one have its turn."""
        with self._moved:
            if self._running is job:
                self._now += job.passes / len(self._visitors)
                self._running = None
                self._behind = {other for other in self._waiting if other.visitor.name == job.visitor.name}
            else:
                del self._waiting[job]
            here = self._visitors
            self._served = {name: until for name, until in self._served.items() if until > self._now or name in here}
            self._moved.notify_all()

    def _starts(self) -> dict[Job, float]:
        """Where in the common time each that waits begins."""
        until, starts = dict(self._served), {}
        for job, arrived in self._waiting.items():
            name = job.visitor.name
            starts[job] = max(arrived, until.get(name, 0.0))
            until[name] = starts[job] + job.passes
        return starts

    def _before(self, job: Job) -> list[Job]:
        """Who comes first: the one that runs, and those that begin earlier, or as early and have waited longer."""
        order = sorted(starts := self._starts(), key=starts.__getitem__)  # which keeps the order of arrival
        running = [] if self._running is None else [self._running]
        return [*running, *order[: order.index(job)]]

    def _ahead(self, job: Job) -> int:
        return len(self._before(job))

    def _seconds_before(self, job: Job) -> float | None:
        left = [self._left(other) for other in self._before(job)]
        return None if None in left else sum(seconds for seconds in left if seconds is not None)

    def _left(self, job: Job) -> float | None:
        expected = self._expected(job)
        if expected is None or job.started is None:
            return expected
        return max(0.0, expected - (time.monotonic() - job.started))
