"""The engine behind the page: one open model, opened when first needed; one generation at a time; runs on disk.

It knows nothing of gradio. Nothing heavy is imported before the first generation, so that the page and the shipped runs
open at once.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from contextvars import copy_context
from dataclasses import asdict
from functools import partial
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING, NamedTuple

from prophy.catalogue.experts import ExpertShares
from prophy.memory.profiles import AUTO, OffloadMode, Profile
from prophy.runs.keep import RunLimits
from prophy.runs.store import Run
from prophy.ui.engine.aside import Aside
from prophy.ui.engine.errors import EngineError, for_visitors
from prophy.ui.engine.estimates import Estimate, Estimates, Timing
from prophy.ui.engine.events import Finished, Opening, Started
from prophy.ui.engine.gpu import gpu_seconds, is_lent, on_gpu
from prophy.ui.engine.kept_runs import KeptRuns
from prophy.ui.engine.line import Job, Line, LineLimits, Visitor, Waiting
from prophy.ui.engine.models import ModelCard, ModelSource, cards_of
from prophy.ui.engine.open_model import OpenModel
from prophy.ui.engine.presence import GRACE_SECONDS, Presence
from prophy.ui.engine.request import Request, Stopped
from prophy.ui.engine.scratch import Scratch
from prophy.ui.engine.slots import Slots

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from prophy.catalogue.limits import GenerationDefaults
    from prophy.generation.generate import Generation, StepPreview
    from prophy.generation.settings import GenerationSettings

    Event = Waiting | Opening | Started | StepPreview | Finished

logger = logging.getLogger(__name__)
_ALL = str(Profile(OffloadMode.ALL))
_EXPORTS = 2  # at once


class Returned(NamedTuple):
    """A generation that its owner found again: what it is for, and what happens in it."""

    prompt: str
    events: Iterator[Event]


class Engine:
    """Generates for every visitor of one app, one at a time.

    Args:
        sources: the models to choose from, the first by default. One is open at a time.
        profile: the memory profile of requests that name none.
        runs, gallery, runs_last, list_earlier, keep: of :class:`prophy.ui.engine.kept_runs.KeptRuns`.
        open_pipeline: of :class:`prophy.ui.engine.open_model.OpenModel`.
        limits: of the line before the model.

    Attributes:
        runs: what it has made, and the shipped ones.
        presence: who still listens.
        exports: files that are made for visitors, aside.
        aside: where generations are not in their way.
        inspections: traces that are read for programs.
        scratch: files that last for minutes.

    Raises:
        ValueError: no such model, branch or memory profile, or a clip that the model cannot make. One line.
    """

    def __init__(
        self,
        sources: Sequence[ModelSource] = (ModelSource(),),
        *,
        profile: str = AUTO,
        runs: str | Path = "runs",
        gallery: str | Path | None = None,
        runs_last: bool = True,
        list_earlier: bool = True,
        open_pipeline: Callable[[ModelCard, str], DiffusionPipeline] | None = None,
        limits: LineLimits = LineLimits(),
        keep: RunLimits = RunLimits(),
    ) -> None:
        _check_profile(profile)
        self._is_lent = is_lent()
        self.cards, self.profile = cards_of(sources), _ALL if self._is_lent else profile
        if self._is_lent and (len(self.cards) > 1 or profile not in (AUTO, _ALL)):
            raise ValueError(f"a lent GPU holds one model, in the profile {_ALL}: give one --model, and no --profile")
        self.runs = KeptRuns(runs, gallery, last=runs_last, list_earlier=list_earlier, limits=keep)
        self._model = OpenModel(open_pipeline)
        self._on_gpu = on_gpu(self._stream, self._gpu_seconds)
        self._estimates = Estimates()
        self.limits, self.presence, self.scratch = limits, Presence(), Scratch()
        self.exports = Slots("exports", running=_EXPORTS, waiting=8, each=4)
        self.aside = Aside(_EXPORTS)
        self.inspections = Slots("inspections", running=4, waiting=16, each=8)
        self._line = Line(limits, lambda job: self._estimates.seconds(job.card, job.steps, job.guided))
        self._jobs: dict[tuple[str, str], Job] = {}  # by session and owner
        self._jobs_lock = Lock()

    # --- the models --------------------------------------------------------------------------------------------------

    @property
    def open_model(self) -> str | None:
        """The name of the model whose weights are in memory, if any is."""
        return self._model.name

    def card(self, name: str = "") -> ModelCard:
        """A model by its name, which may come from anyone; without one, the first.

        Raises:
            EngineError: there is none of this name.
        """
        for card in self.cards:
            if name in ("", card.name):
                return card
        raise EngineError(f"no model {name!r:.80} here: choose {', '.join(card.name for card in self.cards)}")

    def experts_of(self, run: Run) -> ExpertShares | None:
        """What the experts of the model of a run's name were measured to do; None if nobody measured it. The run may be
        of other weights: see :meth:`prophy.catalogue.experts.ExpertShares.is_of`."""
        return next((card.experts for card in self.cards if card.name == run.record.model_id), None)

    def estimate(self, request: Request) -> Estimate:
        """What a request will need; some seconds of work when a model is first asked about.

        Raises:
            EngineError: it cannot be planned; one line.
        """
        card = self.card(request.model)
        guidance = card.made.guidance if request.guidance is None else request.guidance
        try:
            return self._estimates.of(
                card, request.profile or self.profile, request.steps or card.made.steps, guided=guidance > 1
            )
        except ValueError as error:
            raise EngineError(str(error)) from None

    def warm_up(self) -> None:
        """Import what a generation needs, opening no weights, so that the first one starts sooner."""
        import prophy.generation.generate
        import prophy.generation.pipelines  # noqa: F401

    def open_for_lending(self) -> int:
        """Open the model where a GPU is lent: on the main thread, before the page is served, see :mod:`.gpu`.

        Returns:
            For how many seconds a clip that its defaults ask for needs the GPU.
        """
        card = self.card()
        self._model.open(card, self.profile, lambda name: logger.info("opening %s", name))
        made = card.made
        planned = self._estimates.plan(card, guided=made.guidance > 1).of(Profile(OffloadMode.ALL))
        return gpu_seconds(planned, made.steps)

    # --- generating --------------------------------------------------------------------------------------------------

    def check(self, request: Request) -> GenerationSettings:
        """The settings of a request, if it can be met; words are checked only once the model is open.

        Raises:
            EngineError: it cannot; one line.
        """
        from prophy.generation.settings import GenerationSettings
        from prophy.generation.words import check_prompt

        card = self.card(request.model)
        made = card.made
        try:
            _check_profile(request.profile or self.profile)
            if self._is_lent and request.profile not in ("", AUTO, self.profile):
                raise ValueError(f"a lent GPU holds the whole model: use the memory profile {self.profile}")
            own = GenerationSettings(request.prompt, seed=request.seed, steering=request.steering, **asdict(made))
            settings = own.changed(**request.chosen)
            _check_size(card, settings)
            if (pipeline := self._model.pipeline_of(card)) is not None:
                check_prompt(pipeline.tokenizer, request.prompt, card.model_config.rules.text_tokens)
        except ValueError as error:
            raise EngineError(str(error)) from None
        if settings.steps > self.limits.steps:
            raise EngineError(f"steps={settings.steps} are more than this app makes: use at most {self.limits.steps}")
        return settings

    def same_run(self, request: Request, owner: str) -> Run | None:
        """A shipped run, or one of a visitor's, that its open model made of this very request; None if there is none.

        Same prompt, seed and settings give the same frames, so such a run need not be made again.
        """
        card = self.card(request.model)
        # where a GPU is lent, the weights that would have to be compared are not in this process
        if (pipeline := self._model.pipeline_of(card)) is None or self._is_lent:
            return None
        from prophy.generation.identity import branch_switched, computation_of, model_hash
        from prophy.generation.settings import GenerationError, GenerationSettings

        wanted = self.check(request)
        is_routed = request.use_branch and card.has_branch
        with branch_switched(pipeline, request.use_branch):
            weights, computation = model_hash(pipeline), computation_of(pipeline, wanted)
        for run in (*self.runs.history(owner), *self.runs.gallery()):
            if run.record.prompt != wanted.prompt or run.record.seed != wanted.seed:
                continue
            if (run.routing_path is not None) != is_routed:
                continue
            try:
                is_same = GenerationSettings.from_record(run.record) == wanted
            except GenerationError:
                continue  # made by another release
            is_same = is_same and not computation.differences(run.record.computation)
            if is_same and run.record.model_sha256 == weights:
                return run
        return None

    def generate(
        self,
        request: Request,
        session: str,
        owner: str = "",
        *,
        visitor: Visitor | None = None,
        is_here: Callable[[], bool] = lambda: True,
        may_return: bool = False,
    ) -> Iterator[Event]:
        """Generate one clip on a worker thread and yield what happens; the last event is :class:`Finished`.

        Closing the iterator stops the generation within one step and returns only when the worker has ended, unless its
        owner may return: see :meth:`returned`. An owner has one generation in a session: asking for another stops the
        first.

        Args:
            request: what to generate.
            session: page that asks. It is not a secret of ours: alone it changes nothing.
            owner: whose the run will be, see :func:`prophy.ui.engine.visitors.owner_of`; :meth:`stop` wants both.
            visitor: whom the limits count it for; None: the session.
            is_here: whether anybody still listens; once nobody does, the job is dropped.
            may_return: whether the job goes on, as long as ``is_here`` says so, for its owner to find it again.

        Raises:
            EngineError: the request cannot be met, the line is full, or the model failed; one line.
            prophy.generation.generate.GenerationStopped: :meth:`stop` was called; nothing was saved.
        """
        settings = self.check(request)
        self.stop(session, owner)
        card, profile = self.card(request.model), self.profile if self._is_lent else request.profile or self.profile
        job = Job(
            request.prompt,
            card,
            profile,
            request.use_branch,
            owner,
            settings.steps,
            settings.guidance > 1,
            visitor or Visitor(session),
            is_here,
            may_return and owner != "",
            request.attention,
        )
        work = partial(copy_context().run, self._work, job, settings)  # the lender of a GPU finds the visitor there
        job.worker = Thread(target=work, name="prophy-generation", daemon=True)
        self._line.join(job)
        try:
            job.worker.start()
        except RuntimeError:  # the system gives no thread more: whoever stands in the line would wait for this one
            self._line.leave(job)
            raise EngineError("this machine has too much to do: try again in a moment") from None
        with self._jobs_lock:
            self._forget_the_left()
            self._jobs[session, owner] = job
        yield from self._follow(job, session, owner)

    def returned(
        self, session: str, owner: str, *, is_here: Callable[[], bool], patience: float = 5.0
    ) -> Returned | None:
        """A generation whose owner left its page, as by loading it anew, and now asks in another one.

        Args:
            session: the page that asks now.
            owner: who asks; a generation without one is nobody's to find.
            is_here: whether anybody still listens in this page.
            patience: seconds to wait for news that the earlier page is gone.

        Returns:
            The generation, with its events as :meth:`generate` yields them; None if none of theirs was left behind, or
            if this page has asked for another meanwhile.
        """
        deadline = time.monotonic() + patience
        while owner:
            with self._jobs_lock:
                self._forget_the_left()
                if (session, owner) in self._jobs:
                    break
                theirs = [
                    (at, job)
                    for (at, its_owner), job in self._jobs.items()
                    if its_owner == owner and at != session and job.may_return and not job.stop.is_set()
                ]
                for at, job in theirs:
                    if not self.presence.listens(at):
                        del self._jobs[at, owner]
                        self._jobs[session, owner] = job
                        job.is_here = is_here
                        return Returned(job.prompt, self._follow(job, session, owner))
            if not theirs or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        return None

    def _forget_the_left(self) -> None:
        """Of jobs that have ended and that their owners did not come back to in time, keep nothing."""
        now = time.monotonic()
        for key, job in list(self._jobs.items()):
            if job.ended is not None and now - job.ended > GRACE_SECONDS:
                del self._jobs[key]

    def _follow(self, job: Job, session: str, owner: str) -> Iterator[Event]:
        from prophy.generation.generate import GenerationStopped
        from prophy.generation.settings import GenerationError

        heard, is_left = job.events.listen(), False
        try:
            while True:
                event = heard.get()
                if isinstance(event, GenerationError | EngineError):
                    raise EngineError(str(event)) from None
                if isinstance(event, GenerationStopped):
                    raise event
                if isinstance(event, BaseException):
                    raise EngineError(f"the generation failed: {_reason(event)}") from event
                yield event
                if isinstance(event, Finished):
                    return
        except GeneratorExit:
            is_left = job.may_return
            raise
        finally:
            job.events.forget(heard)
            if not is_left:
                job.stop.set()
                if job.worker is not None:
                    job.worker.join()
                with self._jobs_lock:
                    if self._jobs.get((session, owner)) is job:
                        del self._jobs[session, owner]

    @property
    def ahead(self) -> int:
        """How many generations have the model first, if one is asked for now."""
        return len(self._line)

    def is_generating(self, session: str, owner: str = "") -> bool:
        """Whether this owner's generation in this session is under way."""
        with self._jobs_lock:
            return (session, owner) in self._jobs

    def stop(self, session: str, owner: str = "") -> Stopped | None:
        """Stop an owner's generation in a session and wait until its worker has ended.

        Returns:
            What was stopped, or None if there was nothing of theirs to stop.
        """
        with self._jobs_lock:
            job = self._jobs.get((session, owner))
        if job is None:
            return None
        job.stop.set()
        if job.worker is not None:
            job.worker.join()
        return Stopped(job.prompt, job.preview)

    def close(self, session: str) -> None:
        """Stop what a page asked for that is no longer there, unless somebody may come back to it for a moment."""
        waits = self.presence.is_watched  # then it stops by itself once nobody came
        with self._jobs_lock:
            jobs = [job for (at, _), job in self._jobs.items() if at == session and not (waits and job.may_return)]
        for job in jobs:
            job.stop.set()

    def _work(self, job: Job, settings: GenerationSettings) -> None:
        try:
            job.events.put(Finished(self._run_in_turn(job, settings)))
        except BaseException as error:
            from prophy.generation.generate import GenerationStopped
            from prophy.generation.settings import GenerationError

            if not isinstance(error, GenerationError | GenerationStopped | EngineError):
                logger.exception("a generation failed")
            job.events.put(error)
        finally:
            job.ended = time.monotonic()

    def _run_in_turn(self, job: Job, settings: GenerationSettings) -> Run:
        from prophy.generation.generate import GenerationStopped

        try:
            while self._line.wait(job):
                if (run := self._made(job, settings)) is not None:
                    return run
            raise GenerationStopped
        finally:
            self._line.leave(job)

    def _made(self, job: Job, settings: GenerationSettings) -> Run | None:
        """The run, on disk; None where the job gave way to others."""
        from prophy.generation.generate import Generation, GenerationStopped, StepPreview
        from prophy.generation.words import check_prompt, unknown_words

        tokenizer = self._model.open(job.card, job.profile, lambda name: job.events.put(Opening(name))).tokenizer
        check_prompt(tokenizer, settings.prompt, job.card.model_config.rules.text_tokens)
        job.events.put(Started(settings.steps, unknown_words(tokenizer, settings.prompt)))
        with closing(self._on_gpu(settings, job.use_branch, job.attention)) as events:
            for event in events:
                if isinstance(event, StepPreview):
                    job.preview = event
                    job.events.put(event)
                if job.is_over:  # while the video was decoded, too: a stop leaves nothing behind
                    raise GenerationStopped
                if isinstance(event, Generation):
                    self._time(job.card, event)
                    run = event.save(self.runs.folder, owner=job.owner or None)
                    self.runs.sweep()
                    return run
                # a lent GPU is paid for by the visitor
                if not self._is_lent and self._line.gives_way(job, event.step / event.total):
                    return None
        raise RuntimeError("the generation ended without a clip")

    def _stream(
        self, settings: GenerationSettings, use_branch: bool, attention: bool
    ) -> Generator[StepPreview | Generation, None, None]:
        from prophy.generation.generate import stream
        from prophy.generation.identity import branch_switched

        pipeline = self._model.opened.pipeline
        with branch_switched(pipeline, use_branch):
            yield from stream(pipeline, settings, attention=attention)

    def _gpu_seconds(self, settings: GenerationSettings, use_branch: bool, attention: bool) -> int:
        """For how long :meth:`_stream` needs a GPU, by the plan."""
        from prophy.memory.offload import profile_of

        card, pipeline, _ = self._model.opened
        planned = self._estimates.plan(card, guided=settings.guidance > 1).of(profile_of(pipeline))
        return gpu_seconds(planned, settings.steps)

    def _time(self, card: ModelCard, made: Generation) -> None:
        from prophy.memory.offload import profile_of

        timing = Timing(
            profile_of(self._model.opened.pipeline),
            step=made.timings["denoise"] / made.settings.steps,
            decode=made.timings["decode"],
        )
        if _size_of(made.settings) == _size_of(card.made):  # what estimates are of
            self._estimates.record(card, made.settings.guidance > 1, timing)


def _reason(error: BaseException) -> str:
    """The first line of what went wrong, or its kind where nothing is said."""
    if isinstance(error, OSError):
        return for_visitors(error)
    lines = str(error).strip().splitlines()
    return for_visitors(lines[0]) if lines else type(error).__name__


def _size_of(clip: GenerationSettings | GenerationDefaults) -> tuple[int, int, int]:
    return clip.width, clip.height, clip.frames


def _check_size(card: ModelCard, settings: GenerationSettings) -> None:
    """Refuse a clip that the model cannot make, or one of more pixels than the app was started for.

    Raises:
        ValueError: one line that names the cure.
    """
    (width, height, frames), asked = _size_of(card.made), _size_of(settings)
    if asked == (width, height, frames):
        return
    if card.is_embedded:
        raise ValueError(f"the embedded model makes clips of {width}×{height}, {frames} frames, and no others")
    card.model_config.rules.check(settings.frames, settings.height, settings.width)
    if math.prod(asked) > width * height * frames:
        raise ValueError(
            f"{settings.width}×{settings.height}, {settings.frames} frames are more than this app makes: at most as "
            f"many pixels as {width}×{height}, {frames} frames have"
        )


def _check_profile(name: str) -> None:
    if name != AUTO:
        Profile.parse(name)
