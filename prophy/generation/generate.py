"""Prompts become clips: the stock pipeline call, the routing of its conditional passes, live previews, a real stop.

Shapes: B clips of a batch, C latent channels, T latent frames, h and w latent rows and columns, F video frames of H×W
pixels.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import TYPE_CHECKING, overload

import numpy as np
import torch

from prophy.backbones.attention import AttentionRecorder, record_attention
from prophy.backbones.pipeline import rules_of, transformers_of
from prophy.generation.checks import check, check_all, num_experts, token_grid
from prophy.generation.identity import branch_is_on, computation_of, model_hash, model_id
from prophy.generation.previews import latent_colours, predicted_clean
from prophy.generation.sampling import sampled
from prophy.generation.settings import GenerationError, GenerationSettings
from prophy.generation.words import unknown_words, words_in
from prophy.grid import TokenGrid
from prophy.memory.offload import profile_of, watch_memory
from prophy.memory.profiles import Stage
from prophy.routing.attention import AttentionTrace
from prophy.routing.trace import Routing, RoutingTrace, TraceRecorder
from prophy.runs.computation import Computation
from prophy.runs.record import RunRecord
from prophy.runs.sheets import contact_sheet
from prophy.runs.store import Run, write_run

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class GenerationStopped(Exception):
    """The stop event was set: nothing was generated and nothing is left running."""


@dataclass(frozen=True)
class StepPreview:
    """What is known of one clip after one denoising step.

    Attributes:
        settings: of the clip.
        step: steps done, 1 to ``total``.
        total: denoising steps in all.
        seconds_left: the mean time of a step times the steps to go; decoding comes on top.
        frames: the predicted clean video in rough colours, uint8 (T, h, w, 3), one picture per latent frame.
        top1: each token's strongest expert at this step, or the last at which the branch ran, uint8 (T, token rows,
            token columns); None without a branch.
    """

    settings: GenerationSettings
    step: int
    total: int
    seconds_left: float
    frames: np.ndarray
    top1: np.ndarray | None


@dataclass(frozen=True)
class Generation:
    """A finished generation, in memory.

    Attributes:
        settings: as asked.
        frames: uint8 RGB (F, H, W, 3).
        trace: the routing; None when the pipeline has no branch, or it never ran.
        unknown_words: words of the prompt that the tokenizer has never seen.
        model_id: the model's folder name or hub id.
        model_sha256: see :func:`prophy.generation.identity.model_hash`.
        timings: seconds of ``denoise`` (text encoding included) and ``decode``, each of the whole batch.
        computation: how it was computed, adapters and scheduler among it.
        attention: what the backbone attended to; None unless it was to be recorded.
    """

    settings: GenerationSettings
    frames: np.ndarray
    trace: RoutingTrace | None
    unknown_words: tuple[str, ...]
    model_id: str
    model_sha256: str
    timings: dict[str, float]
    computation: Computation = field(default_factory=Computation)
    attention: AttentionTrace | None = None

    @property
    def routing(self) -> RoutingTrace:
        """The trace.

        Raises:
            GenerationError: no branch took part.
        """
        if self.trace is None:
            raise GenerationError("there is no routing to show: give a model with a branch, or leave the routing out")
        return self.trace

    def save(self, root: str | Path, run_id: str | None = None, *, sheet: bool = True, owner: str | None = None) -> Run:
        """Write a run directory under ``root``, without its contact sheet if ``sheet`` is False.

        See :func:`prophy.runs.store.write_run` for ``run_id``, ``owner`` and what it raises.
        """
        record = RunRecord(
            prompt=self.settings.prompt,
            seed=self.settings.seed,
            settings=self.settings.scalars,
            steering=self.settings.steering,
            schedule=self.settings.schedule,
            model_id=self.model_id,
            model_sha256=self.model_sha256,
            timings=self.timings,
            unknown_words=self.unknown_words,
            computation=self.computation,
        )
        picture = contact_sheet(self.frames, self.trace) if sheet and self.trace is not None else None
        return write_run(
            root,
            record,
            self.frames,
            trace=self.trace,
            attention=self.attention,
            sheet=picture,
            run_id=run_id,
            owner=owner,
        )


@overload
def generate(
    pipeline: DiffusionPipeline,
    settings: GenerationSettings,
    *,
    on_step: Callable[[StepPreview], None] | None = None,
    stop: Event | None = None,
    attention: bool = False,
) -> Generation: ...


@overload
def generate(
    pipeline: DiffusionPipeline,
    settings: Sequence[GenerationSettings],
    *,
    on_step: Callable[[StepPreview], None] | None = None,
    stop: Event | None = None,
    attention: bool = False,
) -> list[Generation]: ...


def generate(
    pipeline: DiffusionPipeline,
    settings: GenerationSettings | Sequence[GenerationSettings],
    *,
    on_step: Callable[[StepPreview], None] | None = None,
    stop: Event | None = None,
    attention: bool = False,
) -> Generation | list[Generation]:
    """Generate one clip, or several in as few calls of the stock pipeline as they allow (see :func:`batches`).

    Each clip's noise comes from a CPU generator of its own, so that the same prompt, seed and settings give the same
    frames, alone or beside others. One call at a time per pipeline: its scheduler keeps state.

    Args:
        pipeline: opened by :func:`prophy.generation.pipelines.load`, or a stock Wan or CogVideoX pipeline (then
            without a trace).
        settings: what to generate, one clip or several. All of them are checked before the first is made, and each
            batch is held in memory at once: for many clips see :func:`prophy.generation.resume.resumable`.
        on_step: called after every denoising step, on the calling thread, once for each clip of the batch.
        stop: looked at before the first step and after every step.
        attention: record what the backbone attends to, see :class:`prophy.routing.attention.AttentionTrace`. The frames
            are the same.

    Returns:
        The generation; of several settings a list in their order.

    Raises:
        GenerationError: the model cannot do what the settings ask for, steering of its experts included; or it produced
            values that are not numbers, which ends the generation at that step.
        GenerationStopped: ``stop`` was set.
        prophy.memory.offload.OutOfMemory: memory ran out; the message names the memory profile to try.
    """
    if isinstance(settings, GenerationSettings):
        check(pipeline, settings, attention=attention)
        return _generate_batch(pipeline, [settings], on_step, stop, attention)[0]
    check_all(pipeline, settings, attention=attention)
    made: dict[int, Generation] = {}
    for places in batches(settings):
        together = [settings[i] for i in places]
        made.update(zip(places, _generate_batch(pipeline, together, on_step, stop, attention), strict=True))
    return [made[i] for i in range(len(settings))]


def batches(settings: Sequence[GenerationSettings], size: int | None = None) -> list[list[int]]:
    """Which clips can be made together: places in ``settings``, at most ``size`` of them in each batch.

    Clips of one batch differ in prompt, seed and frames per second only. The stock pipeline takes one size, length,
    number of steps and guidance for all; the branch one schedule and one steering.

    Raises:
        ValueError: ``size`` is below 1.
    """
    if size is not None and size < 1:
        raise ValueError(f"a batch of {size} clips: make at least one at a time")
    grouped: dict[GenerationSettings, list[int]] = {}
    for i, one in enumerate(settings):
        grouped.setdefault(replace(one, prompt="any", seed=0, fps=1), []).append(i)
    return [
        places[start : start + (size or len(places))]
        for places in grouped.values()
        for start in range(0, len(places), size or len(places))
    ]


@torch.no_grad()
def _generate_batch(
    pipeline: DiffusionPipeline,
    batch: Sequence[GenerationSettings],
    on_step: Callable[[StepPreview], None] | None,
    stop: Event | None,
    attention: bool,
) -> list[Generation]:
    """One call of the stock pipeline, for settings that were checked and can share it."""
    shared, rules = batch[0], rules_of(pipeline)
    grid = token_grid(pipeline, shared)
    recorders = [TraceRecorder(grid, shared.steps) for _ in batch] if branch_is_on(pipeline) else []
    colours = None if on_step is None else latent_colours(pipeline.vae)
    computation = computation_of(pipeline, shared)
    if stop is not None and stop.is_set():
        raise GenerationStopped

    started = time.perf_counter()
    denoised_at = started

    def record(timestep: float, routing: Routing) -> None:
        for row, recorder in enumerate(recorders, -len(recorders)):  # the conditional rows come last
            recorder.record(timestep, routing, row)

    def after_step(
        _: DiffusionPipeline, index: int, timestep: torch.Tensor, tensors: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        nonlocal denoised_at
        denoised_at = time.perf_counter()
        done = index + 1
        if done == shared.steps:
            watch.stage = Stage.DECODING
        latents = tensors["latents"]
        # one number a step, so that a run that has failed does not go on for minutes
        if not math.isfinite(float(latents.sum(dtype=torch.float32))):
            raise GenerationError(
                f"step {done} of {shared.steps} gave values that are not numbers: load the model in bfloat16 "
                "(float16 overflows), or download its weights again"
            )
        if on_step is not None and colours is not None:
            left = (denoised_at - started) / done * (shared.steps - done)
            for i, clean_CThw in enumerate(predicted(latents)):
                if rules.frames_first:
                    clean_CThw = clean_CThw.transpose(0, 1)
                clean_CThw = clean_CThw[:, -grid.frames :]  # what was denoised to fill tokens lies before the clip
                top1 = recorders[i].latest_top1() if recorders and not recorders[i].is_empty else None
                on_step(StepPreview(batch[i], done, shared.steps, left, colours(clean_CThw), top1))
        if stop is not None and stop.is_set():
            raise GenerationStopped
        return {}

    pipeline.set_progress_bar_config(disable=True)
    asked = _asked_besides(batch)
    try:
        placed = profile_of(pipeline)
        observed = pipeline.attachment.observe(record) if recorders else nullcontext()
        attended: AbstractContextManager[AttentionRecorder | None] = nullcontext()
        if attention:
            words = [words_in(pipeline.tokenizer, one.prompt) for one in batch]
            attended = record_attention(transformers_of(pipeline), grid, words, shared.steps)
        with (
            _steered(pipeline, shared, grid),
            _scheduled(pipeline, shared),
            observed,
            attended as looked,
            sampled(pipeline, shared),
            predicted_clean(pipeline.scheduler) as predicted,
            watch_memory(placed) as watch,
        ):
            videos = pipeline(
                prompt=[one.prompt for one in batch],
                height=shared.height,
                width=shared.width,
                num_frames=shared.frames,
                num_inference_steps=shared.steps,
                guidance_scale=shared.guidance,
                generator=[torch.Generator("cpu").manual_seed(one.seed) for one in batch],
                output_type="np",
                max_sequence_length=rules.text_tokens,
                callback_on_step_end=after_step,
                **asked,
            ).frames
    except BaseException:
        pipeline.maybe_free_model_hooks()  # the stock call does so only when it returns
        raise
    finished = time.perf_counter()
    if not np.isfinite(videos).all():
        raise GenerationError(
            "the autoencoder gave values that are not numbers: load it in bfloat16 or float32, or download it again"
        )
    traces = [None if r.is_empty else r.finish(s.prompt, s.seed) for r, s in zip(recorders, batch, strict=False)]
    model, digest = model_id(pipeline), model_hash(pipeline)
    return [
        Generation(
            settings=settings,
            frames=np.round(255 * video).astype(np.uint8),
            trace=trace,
            unknown_words=unknown_words(pipeline.tokenizer, settings.prompt),
            model_id=model,
            model_sha256=digest,
            timings={"denoise": round(denoised_at - started, 3), "decode": round(finished - denoised_at, 3)},
            computation=computation,
            attention=None if looked is None else looked.finish(i, settings.prompt, settings.seed),
        )
        for i, (settings, video, trace) in enumerate(zip(batch, videos, traces or [None] * len(batch), strict=True))
    ]


def _asked_besides(batch: Sequence[GenerationSettings]) -> dict[str, object]:
    """Arguments of the stock call that are given only where they were set: not every family's pipeline takes them."""
    shared = batch[0]
    asked: dict[str, object] = {}
    if shared.guidance > 1 and any(one.negative_prompt for one in batch):
        asked["negative_prompt"] = [one.negative_prompt for one in batch]
    if shared.guidance_2 is not None:
        asked["guidance_scale_2"] = shared.guidance_2
    return asked


def stream(
    pipeline: DiffusionPipeline, settings: GenerationSettings, *, attention: bool = False
) -> Iterator[StepPreview | Generation]:
    """:func:`generate`, one denoising step at a time: a preview after each, the generation at the end.

    The next step begins when the next value is asked for. Closing the iterator ends the generation where it stands.

    Raises:
        As :func:`generate`.
    """
    asked: SimpleQueue[None] = SimpleQueue()
    made: SimpleQueue[StepPreview | Generation | BaseException] = SimpleQueue()
    closing = Event()

    def on_step(preview: StepPreview) -> None:
        made.put(preview)
        asked.get()

    def work() -> None:
        try:
            made.put(generate(pipeline, settings, on_step=on_step, stop=closing, attention=attention))
        except BaseException as error:
            made.put(error)

    worker = Thread(target=work, name="prophy-denoising", daemon=True)
    worker.start()
    try:
        while True:
            event = made.get()
            if isinstance(event, BaseException):
                raise event
            yield event
            if isinstance(event, Generation):
                return
            asked.put(None)
    finally:
        closing.set()
        asked.put(None)
        worker.join()


# --- the branch during a call -----------------------------------------------------------------------------------------


def _steered(
    pipeline: DiffusionPipeline, settings: GenerationSettings, grid: TokenGrid
) -> AbstractContextManager[None]:
    """Steers the pipeline's branch inside its block, in the conditional and the unconditional pass."""
    steering = settings.steering
    if steering.is_neutral:
        return nullcontext()
    scales = zip((steering.semantic, steering.refinement), num_experts(pipeline), strict=True)
    tensors = [torch.tensor([by_expert.get(expert, 1.0) for expert in range(size)]) for by_expert, size in scales]
    forced_N = torch.from_numpy(steering.forced_experts(grid))
    return pipeline.attachment.steer(*tensors, forced_N, steering.strength)


def _scheduled(pipeline: DiffusionPipeline, settings: GenerationSettings) -> AbstractContextManager[None]:
    """Runs the pipeline's branch by the schedule inside its block."""
    if not branch_is_on(pipeline):
        return nullcontext()
    if settings.guidance > 1:
        return pipeline.attachment.scheduled(settings.schedule)
    # there is no unconditional pass to leave out, and two clips of one batch must not be taken for the two passes
    return pipeline.attachment.scheduled(replace(settings.schedule, unconditional=True))
