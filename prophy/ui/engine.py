"""The engine behind the page: one model, opened when first needed; one generation at a time; runs on disk.

It knows nothing of gradio. Nothing heavy is imported before the first generation, so that the page and the shipped runs
open at once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from threading import Condition, Event, Lock, Thread
from typing import TYPE_CHECKING

from prophy.assets import default_model, gallery_dir
from prophy.grid import TokenGrid
from prophy.runs import Run, RunError, delete_run, find_run, list_runs
from prophy.steering import Steering
from prophy.ui.gpu import on_gpu

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from prophy.generation import Generation, GenerationSettings, StepPreview

logger = logging.getLogger(__name__)

_TURN_POLL_SECONDS = 0.1  # how soon a job that waits for its turn sees its own stop


class EngineError(ValueError):
    """A request cannot be met. The message is for the person who made it."""


@dataclass(frozen=True)
class Request:
    """What a visitor asked for, unchecked.

    Attributes:
        prompt: as typed.
        seed: of the noise.
        steps: denoising steps.
        guidance: classifier-free guidance scale.
        use_branch: False leaves the backbone alone: a clip without routing.
        steering: what to do to the experts.
    """

    prompt: str
    seed: int = 0
    steps: int = 20
    guidance: float = 4.0
    use_branch: bool = True
    steering: Steering = field(default_factory=Steering)


@dataclass(frozen=True)
class Waiting:
    """Other generations have the model first.

    Attributes:
        ahead: how many of them.
    """

    ahead: int


@dataclass(frozen=True)
class Opening:
    """The model is being opened, once."""


@dataclass(frozen=True)
class Started:
    """Denoising begins.

    Attributes:
        steps: denoising steps to come.
        unknown_words: words of the prompt that the model has never seen.
    """

    steps: int
    unknown_words: tuple[str, ...]


@dataclass(frozen=True)
class Finished:
    """The run is on disk."""

    run: Run


@dataclass(frozen=True)
class Stopped:
    """A generation that was stopped.

    Attributes:
        prompt: what it was for.
        preview: after its last denoising step; None if it had done none.
    """

    prompt: str
    preview: StepPreview | None


@dataclass(frozen=True)
class ModelCard:
    """What the page may say of the model without opening it.

    Attributes:
        name: the folder's name or hub id.
        is_embedded: the model that this repository ships.
        has_branch: there is a branch to attach, so there will be routing to show.
        words: every word a word-level model knows, sorted; empty for a model that spells.
        semantic_experts: how many; 0 if there is no branch, or only a hub id is known.
        refinement_experts: likewise.
        grid: latent frames, token rows and columns of a clip of the default size.
    """

    name: str
    is_embedded: bool
    has_branch: bool
    words: tuple[str, ...]
    semantic_experts: int = 0
    refinement_experts: int = 0
    grid: tuple[int, int, int] = (5, 8, 8)


@dataclass(eq=False)
class _Job:
    prompt: str
    use_branch: bool
    stop: Event = field(default_factory=Event)
    events: SimpleQueue = field(default_factory=SimpleQueue)
    worker: Thread | None = None
    preview: StepPreview | None = None


class _Line:
    """Jobs that want the model: first come, first served. The first in line has it."""

    def __init__(self) -> None:
        self._jobs: list[_Job] = []
        self._moved = Condition()

    def __len__(self) -> int:
        return len(self._jobs)

    def join(self, job: _Job) -> None:
        with self._moved:
            self._jobs.append(job)

    def wait(self, job: _Job) -> bool:
        """Wait until it is this job's turn, telling it how many are ahead; False if it was stopped before."""
        told = 0
        with self._moved:
            while (ahead := self._jobs.index(job)) > 0:
                if job.stop.is_set():
                    return False
                if ahead != told:
                    job.events.put(Waiting(ahead))
                    told = ahead
                self._moved.wait(_TURN_POLL_SECONDS)
        return True

    def leave(self, job: _Job) -> None:
        with self._moved:
            self._jobs.remove(job)
            self._moved.notify_all()


class Engine:
    """Generates for every visitor of one app, one at a time.

    Args:
        model: a diffusers folder or hub id; default: the embedded model.
        branch: the branch's folder or hub id; default: the model's own, if it has one.
        runs: the folder that new runs go to.
        gallery: the folder of shipped runs; default: the repository's. It may be missing.
        list_earlier: show every visitor the runs that ``runs`` already holds: right on one's own machine, wrong on a
            public one.
        open_pipeline: returns the pipeline; default: :func:`prophy.pipelines.load` of ``model`` and ``branch``.

    Raises:
        FileNotFoundError: ``model`` or ``branch`` looks like a folder and is none.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        branch: str | Path | None = None,
        *,
        runs: str | Path = "runs",
        gallery: str | Path | None = None,
        list_earlier: bool = True,
        open_pipeline: Callable[[], DiffusionPipeline] | None = None,
    ) -> None:
        for kind, path in (("model", model), ("branch", branch)):
            if path is not None and str(path).startswith((".", "/", "~")) and not Path(path).is_dir():
                raise FileNotFoundError(f"no {kind} at {path}: give a {kind} folder or a hub id")
        self._model, self._branch = model, branch
        self.runs_dir = Path(runs)
        self._gallery_dir = gallery_dir() if gallery is None else Path(gallery)
        self._open_pipeline = open_pipeline or self._load
        self._on_gpu = on_gpu(self._stream)
        self._pipeline: DiffusionPipeline | None = None
        self._line = _Line()
        self._jobs: dict[str, _Job] = {}
        self._jobs_lock = Lock()
        self._earlier = tuple(run.id for run in list_runs(self.runs_dir)) if list_earlier else ()

    # --- the model ---------------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether the model's weights are in memory."""
        return self._pipeline is not None

    def card(self) -> ModelCard:
        """Describe the model from its folder's small files; a hub id only by its name."""
        folder = default_model() if self._model is None else Path(self._model)
        branch = folder / "branch" if self._branch is None else Path(self._branch)
        semantic, refinement = _expert_counts(branch / "config.json")
        return ModelCard(
            name=folder.name if folder.is_dir() else str(self._model),
            is_embedded=folder.resolve() == default_model().resolve(),
            has_branch=self._branch is not None or (branch / "config.json").is_file(),
            words=_vocabulary(folder / "tokenizer" / "tokenizer.json"),
            semantic_experts=semantic,
            refinement_experts=refinement,
            grid=TokenGrid.from_video(17, 64, 64, _cell(folder)).shape,
        )

    def warm_up(self) -> None:
        """Import what a generation needs, opening no weights, so that the first one starts sooner."""
        import prophy.generation
        import prophy.pipelines  # noqa: F401

    def _load(self) -> DiffusionPipeline:
        from prophy.pipelines import load

        return load(self._model, branch=self._branch)

    # --- generating --------------------------------------------------------------------------------------------------

    def check(self, request: Request) -> GenerationSettings:
        """The settings of a request, if it can be met; words are checked only once the model is open.

        Raises:
            EngineError: it cannot; one line.
        """
        from prophy.generation import GenerationError, GenerationSettings, check_prompt

        try:
            settings = GenerationSettings(
                request.prompt,
                seed=request.seed,
                steps=request.steps,
                guidance=request.guidance,
                steering=request.steering,
            )
            if self._pipeline is not None:
                check_prompt(self._pipeline.tokenizer, request.prompt)
        except GenerationError as error:
            raise EngineError(str(error)) from None
        return settings

    def generate(
        self, request: Request, session: str
    ) -> Iterator[Waiting | Opening | Started | StepPreview | Finished]:
        """Generate one clip on a worker thread and yield what happens; the last event is :class:`Finished`.

        Closing the iterator stops the generation within one step and returns only when the worker has ended. A session
        has one generation: asking for another stops the first.

        Args:
            request: what to generate.
            session: who asks; :meth:`stop` wants the same.

        Raises:
            EngineError: the request cannot be met, or the model failed; one line.
            prophy.generation.GenerationStopped: :meth:`stop` was called; nothing was saved.
        """
        from prophy.generation import GenerationError, GenerationStopped

        settings = self.check(request)
        self.stop(session)
        job = _Job(request.prompt, request.use_branch)
        job.worker = Thread(target=self._work, args=(job, settings), name="prophy-generation", daemon=True)
        with self._jobs_lock:
            self._jobs[session] = job
        self._line.join(job)
        job.worker.start()
        try:
            while True:
                event = job.events.get()
                if isinstance(event, GenerationError | EngineError):
                    raise EngineError(str(event)) from None
                if isinstance(event, GenerationStopped):
                    raise event
                if isinstance(event, BaseException):
                    reason = str(event).strip().splitlines()
                    raise EngineError(
                        f"the generation failed: {reason[0] if reason else type(event).__name__}"
                    ) from event
                yield event
                if isinstance(event, Finished):
                    return
        finally:
            job.stop.set()
            job.worker.join()
            with self._jobs_lock:
                if self._jobs.get(session) is job:
                    del self._jobs[session]

    @property
    def ahead(self) -> int:
        """How many generations have the model first, if one is asked for now."""
        return len(self._line)

    def is_generating(self, session: str) -> bool:
        """Whether this session's generation is under way."""
        with self._jobs_lock:
            return session in self._jobs

    def stop(self, session: str) -> Stopped | None:
        """Stop the session's generation and wait until its worker has ended.

        Returns:
            What was stopped, or None if there was nothing to stop.
        """
        with self._jobs_lock:
            job = self._jobs.get(session)
        if job is None:
            return None
        job.stop.set()
        job.worker.join()
        return Stopped(job.prompt, job.preview)

    def _work(self, job: _Job, settings: GenerationSettings) -> None:
        try:
            job.events.put(Finished(self._run_in_turn(job, settings)))
        except BaseException as error:
            from prophy.generation import GenerationError, GenerationStopped

            if not isinstance(error, GenerationError | GenerationStopped | EngineError):
                logger.exception("a generation failed")
            job.events.put(error)

    def _run_in_turn(self, job: _Job, settings: GenerationSettings) -> Run:
        from prophy.generation import Generation, GenerationStopped, StepPreview, check_prompt, unknown_words

        try:
            if not self._line.wait(job):
                raise GenerationStopped
            if self._pipeline is None:
                job.events.put(Opening())
                self._pipeline = self._open_pipeline()
            tokenizer = self._pipeline.tokenizer
            check_prompt(tokenizer, settings.prompt)
            job.events.put(Started(settings.steps, unknown_words(tokenizer, settings.prompt)))
            with closing(self._on_gpu(settings, job.use_branch)) as events:
                for event in events:
                    if isinstance(event, StepPreview):
                        job.preview = event
                        job.events.put(event)
                    if job.stop.is_set():  # while the video was decoded, too: a stop leaves nothing behind
                        raise GenerationStopped
                    if isinstance(event, Generation):
                        return event.save(self.runs_dir)
            raise RuntimeError("the generation ended without a clip")
        finally:
            self._line.leave(job)

    def _stream(self, settings: GenerationSettings, use_branch: bool) -> Iterator[StepPreview | Generation]:
        from prophy.generation import stream

        if (attachment := getattr(self._pipeline, "attachment", None)) is not None:
            attachment.enabled = use_branch
        yield from stream(self._pipeline, settings)

    # --- runs --------------------------------------------------------------------------------------------------------

    def gallery(self) -> list[Run]:
        """The shipped runs, by name."""
        return sorted(list_runs(self._gallery_dir), key=lambda run: run.id)

    def history(self, own: list[str]) -> list[Run]:
        """A visitor's runs, newest first: those of the ids they bring, and the earlier ones where they are listed."""
        wanted = [*own, *self._earlier]
        runs = []
        for run_id in dict.fromkeys(wanted):
            try:
                runs.append(find_run(self.runs_dir, run_id))
            except RunError as error:
                logger.info("not in the history: %s", error)
        return sorted(runs, key=lambda run: (run.record.created, run.id), reverse=True)

    def same_run(self, request: Request, own: list[str]) -> Run | None:
        """A shipped run, or one of a visitor's, that the open model made of this very request; None if there is none.

        Same prompt, seed and settings give the same frames, so such a run need not be made again.
        """
        if self._pipeline is None:
            return None
        from prophy.generation import GenerationError, GenerationSettings, model_hash

        wanted = self.check(request)
        is_routed = request.use_branch and self.card().has_branch
        for run in (*self.history(own), *self.gallery()):
            if run.record.prompt != wanted.prompt or run.record.seed != wanted.seed:
                continue
            if (run.routing_path is not None) != is_routed:
                continue
            try:
                is_same = GenerationSettings.from_record(run.record) == wanted
            except GenerationError:
                continue  # made by another release
            if is_same and run.record.model_sha256 == model_hash(self._pipeline):
                return run
        return None

    def delete(self, run_id: str) -> None:
        """Delete a run of the runs folder; shipped ones stay.

        Raises:
            EngineError: there is none of this id.
        """
        try:
            delete_run(self.runs_dir, run_id)
        except RunError as error:
            raise EngineError(str(error)) from None

    def find(self, run_id: str) -> Run:
        """A run of the gallery or of the runs folder, by its id, which may come from anyone.

        Raises:
            EngineError: there is none, or it is damaged.
        """
        try:
            return find_run(self._gallery_dir, run_id)
        except RunError:
            pass
        try:
            return find_run(self.runs_dir, run_id)
        except RunError as error:
            raise EngineError(str(error)) from None


def _expert_counts(path: Path) -> tuple[int, int]:
    """Semantic and refinement experts by a branch's ``config.json``; zeros if it does not say."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        return int(config["num_semantic_experts"]), int(config["num_refinement_experts"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0, 0


def _cell(folder: Path) -> int:
    """Pixels on a side of a token, by a pipeline folder's configurations; 8 if they do not say."""
    try:
        vae, transformer = (
            json.loads((folder / part / "config.json").read_text(encoding="utf-8")) for part in ("vae", "transformer")
        )
        return int(vae.get("scale_factor_spatial", 8)) * int(transformer["patch_size"][1])
    except (OSError, ValueError, KeyError, TypeError):
        return 8


def _vocabulary(path: Path) -> tuple[str, ...]:
    """The words in a word-level ``tokenizer.json``, sorted; none if it is another kind or is not there."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["model"]["type"] != "WordLevel":
            return ()
        special = {token["content"] for token in document.get("added_tokens", ())}
        return tuple(sorted(word for word in document["model"]["vocab"] if word not in special))
    except (OSError, ValueError, KeyError, TypeError):
        return ()
