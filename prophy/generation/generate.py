"""A prompt becomes a run: the stock pipeline call, the routing of its conditional pass, live previews, a real stop.

Shapes: C latent channels, T latent frames, h and w latent rows and columns, F video frames of H×W pixels.
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import TYPE_CHECKING

import numpy as np
import torch
from tokenizers.models import WordLevel

from prophy.catalogue.limits import LONGEST_PROMPT_TOKENS, Recommended
from prophy.generation.previews import latent_colours, predicted_clean
from prophy.grid import TEMPORAL, TokenGrid
from prophy.memory.offload import profile_of, state_of, watch_memory
from prophy.memory.profiles import Stage
from prophy.memory.stages import rules_of
from prophy.routing.schedule import Schedule
from prophy.routing.steering import Steering, SteeringError
from prophy.routing.trace import RoutingTrace, TraceRecorder
from prophy.runs.overlay import contact_sheet
from prophy.runs.store import Run, RunRecord, write_run

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from transformers import PreTrainedTokenizerBase

MAX_PROMPT_CHARS = 2000


class GenerationError(ValueError):
    """The request cannot be met as it stands, or not by these weights. One line, for the person who made it."""


class GenerationStopped(Exception):
    """The stop event was set: nothing was generated and nothing is left running."""


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
    steps: int = Recommended.steps
    guidance: float = Recommended.guidance
    frames: int = Recommended.frames
    height: int = Recommended.height
    width: int = Recommended.width
    fps: float = Recommended.fps
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
            nearest = 1 + TEMPORAL * round((self.frames - 1) / TEMPORAL)
            raise GenerationError(f"frames={self.frames} is not 1 + {TEMPORAL}k: use {nearest}")
        if not isinstance(self.steering, Steering):
            raise GenerationError("steering must be a prophy.routing.steering.Steering")
        if not isinstance(self.schedule, Schedule):
            raise GenerationError("schedule must be a prophy.routing.schedule.Schedule")

    @classmethod
    def from_record(cls, record: RunRecord) -> GenerationSettings:
        """The settings that made a run: with the same weights, and the branch on or off as then, its frames again.

        Raises:
            GenerationError: a setting that this release does not know, or out of range.
        """
        known = {f.name for f in fields(cls)} - {"prompt", "seed", "steering", "schedule"}
        if unknown := sorted(record.settings.keys() - known):
            raise GenerationError(f"the run has the setting {unknown[0]}, which this release does not know: update it")
        return cls(record.prompt, record.seed, **record.settings, steering=record.steering, schedule=record.schedule)


@dataclass(frozen=True)
class StepPreview:
    """What is known after one denoising step.

    Attributes:
        step: steps done, 1 to ``total``.
        total: denoising steps in all.
        seconds_left: the mean time of a step times the steps to go; decoding comes on top.
        frames: the predicted clean video in rough colours, uint8 (T, h, w, 3), one picture per latent frame.
        top1: each token's strongest expert at this step, or the last at which the branch ran, uint8 (T, token rows,
            token columns); None without a branch.
    """

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
        model_sha256: see :func:`model_hash`.
        timings: seconds of ``denoise`` (text encoding included) and ``decode``.
    """

    settings: GenerationSettings
    frames: np.ndarray
    trace: RoutingTrace | None
    unknown_words: tuple[str, ...]
    model_id: str
    model_sha256: str
    timings: dict[str, float]

    def save(self, root: str | Path, run_id: str | None = None) -> Run:
        """Write a run directory under ``root``.

        See :func:`prophy.runs.store.write_run` for ``run_id`` and what it raises.
        """
        settings = {name: getattr(self.settings, name) for name in GenerationSettings.__dataclass_fields__}
        of_record = {name: settings.pop(name) for name in ("prompt", "seed", "steering", "schedule")}
        record = RunRecord(
            **of_record,
            settings=settings,
            model_id=self.model_id,
            model_sha256=self.model_sha256,
            timings=self.timings,
            unknown_words=self.unknown_words,
        )
        sheet = None if self.trace is None else contact_sheet(self.frames, self.trace)
        return write_run(root, record, self.frames, trace=self.trace, sheet=sheet, run_id=run_id)


@torch.no_grad()
def generate(
    pipeline: DiffusionPipeline,
    settings: GenerationSettings,
    *,
    on_step: Callable[[StepPreview], None] | None = None,
    stop: Event | None = None,
) -> Generation:
    """Run the stock pipeline once.

    The noise comes from a CPU generator, so that the same prompt, seed and settings give the same frames. One call at a
    time per pipeline: its scheduler keeps state.

    Args:
        pipeline: opened by :func:`prophy.generation.pipelines.load`, or a stock Wan or CogVideoX pipeline (then
            without a trace).
        settings: what to generate.
        on_step: called after every denoising step, on the calling thread.
        stop: looked at before the first step and after every step.

    Raises:
        GenerationError: the model cannot do what the settings ask for, steering of its experts included; or it produced
            values that are not numbers, which ends the generation at that step.
        GenerationStopped: ``stop`` was set.
        prophy.memory.offload.OutOfMemory: memory ran out; the message names the memory profile to try.
    """
    rules = rules_of(pipeline)
    grid = token_grid(pipeline, settings)
    check_prompt(pipeline.tokenizer, settings.prompt, rules.text_tokens)
    attachment = getattr(pipeline, "attachment", None)
    routed = attachment is not None and attachment.enabled
    steered = _steered(pipeline, settings.steering, grid)
    scheduled = _scheduled(pipeline, settings.schedule)
    recorder = TraceRecorder(grid, settings.steps) if routed else None
    colours = None if on_step is None else latent_colours(pipeline.vae)
    if stop is not None and stop.is_set():
        raise GenerationStopped

    started = time.perf_counter()
    denoised_at = started

    def after_step(_, index: int, timestep: torch.Tensor, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        nonlocal denoised_at
        denoised_at = time.perf_counter()
        done = index + 1
        if done == settings.steps:
            watch.stage = Stage.DECODING
        latents = tensors["latents"]
        # one number a step, so that a run that has failed does not go on for minutes
        if not math.isfinite(float(latents.sum(dtype=torch.float32))):
            raise GenerationError(
                f"step {done} of {settings.steps} gave values that are not numbers: load the model in bfloat16 "
                "(float16 overflows), or download its weights again"
            )
        if on_step is not None:
            clean_CThw = predicted(latents)[0]
            if rules.frames_first:
                clean_CThw = clean_CThw.transpose(0, 1)
            left = (denoised_at - started) / done * (settings.steps - done)
            top1 = None if recorder is None or recorder.is_empty else recorder.latest_top1()
            on_step(StepPreview(done, settings.steps, left, colours(clean_CThw), top1))
        if stop is not None and stop.is_set():
            raise GenerationStopped
        return {}

    pipeline.set_progress_bar_config(disable=True)
    try:
        placed = profile_of(pipeline)
        observed = nullcontext() if recorder is None else attachment.observe(recorder.record)
        with (
            steered,
            scheduled,
            observed,
            predicted_clean(pipeline.scheduler) as predicted,
            watch_memory(placed) as watch,
        ):
            video = pipeline(
                prompt=settings.prompt,
                height=settings.height,
                width=settings.width,
                num_frames=settings.frames,
                num_inference_steps=settings.steps,
                guidance_scale=settings.guidance,
                generator=torch.Generator("cpu").manual_seed(settings.seed),
                output_type="np",
                max_sequence_length=rules.text_tokens,
                callback_on_step_end=after_step,
            ).frames[0]
    except BaseException:
        pipeline.maybe_free_model_hooks()  # the stock call does so only when it returns
        raise
    finished = time.perf_counter()
    if not np.isfinite(video).all():
        raise GenerationError(
            "the autoencoder gave values that are not numbers: load it in bfloat16 or float32, or download it again"
        )
    return Generation(
        settings=settings,
        frames=np.round(255 * video).astype(np.uint8),
        trace=None if recorder is None or recorder.is_empty else recorder.finish(settings.prompt, settings.seed),
        unknown_words=unknown_words(pipeline.tokenizer, settings.prompt),
        model_id=_model_id(pipeline),
        model_sha256=model_hash(pipeline),
        timings={"denoise": round(denoised_at - started, 3), "decode": round(finished - denoised_at, 3)},
    )


def stream(pipeline: DiffusionPipeline, settings: GenerationSettings) -> Iterator[StepPreview | Generation]:
    """:func:`generate`, one denoising step at a time: a preview after each, the generation at the end.

    The next step begins when the next value is asked for. Closing the iterator ends the generation where it stands.

    Raises:
        As :func:`generate`.
    """
    asked, made = SimpleQueue(), SimpleQueue()
    closing = Event()

    def on_step(preview: StepPreview) -> None:
        made.put(preview)
        asked.get()

    def work() -> None:
        try:
            made.put(generate(pipeline, settings, on_step=on_step, stop=closing))
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


# --- words -----------------------------------------------------------------------------------------------------------


def known_words(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Every word of a word-level tokenizer, sorted. Empty for a tokenizer of pieces, which can spell anything."""
    if not _is_word_level(tokenizer):
        return ()
    return tuple(sorted(set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)))


def unknown_words(tokenizer: PreTrainedTokenizerBase, prompt: str) -> tuple[str, ...]:
    """Words of the prompt that the tokenizer maps to its unknown token or drops, lower-case, in order, each once.

    Empty for a tokenizer of pieces.
    """
    if not _is_word_level(tokenizer):
        return ()
    words = re.findall(r"[^\W_]+", re.sub(r"['’]s\b", "", prompt.lower()))
    return tuple(word for word in dict.fromkeys(words) if not _is_known(tokenizer, word))


def check_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str, text_tokens: int = LONGEST_PROMPT_TOKENS) -> None:
    """Refuse a prompt that the model would cut or cannot read at all.

    Args:
        tokenizer: the model's.
        prompt: plain words.
        text_tokens: how many the model reads, see :class:`prophy.catalogue.limits.ClipRules`; the tokenizer may know
            fewer.

    Raises:
        GenerationError: more tokens than the model reads, or not one known word.
    """
    count = len(tokenizer(prompt, truncation=False, verbose=False).input_ids)
    limit = min(tokenizer.model_max_length, text_tokens)
    if count > limit:
        raise GenerationError(f"the prompt is {count} tokens long and the model reads {limit}: shorten it")
    words = re.findall(r"[^\W_]+", prompt.lower())
    if _is_word_level(tokenizer) and not any(_is_known(tokenizer, word) for word in words):
        some = ", ".join([word for word in known_words(tokenizer) if len(word) > 3][:8])
        raise GenerationError(
            f"the model knows no word of this prompt: it was trained on a small vocabulary ({some}, …)"
        )


def _is_word_level(tokenizer: PreTrainedTokenizerBase) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend is not None and isinstance(backend.model, WordLevel)


def _is_known(tokenizer: PreTrainedTokenizerBase, word: str) -> bool:
    ids = tokenizer(word, add_special_tokens=False).input_ids
    return bool(ids) and tokenizer.unk_token_id not in ids


# --- the model -------------------------------------------------------------------------------------------------------


def model_hash(pipeline: DiffusionPipeline) -> str:
    """SHA-256 of the weights of every component, 64 hexadecimal digits.

    A component opened from a folder is hashed by its files, each file once per size and modification time. One built in
    memory is hashed by its tensors, and so is a LoRA that was loaded into it.
    """
    digest = hashlib.sha256()
    for name, component in sorted(pipeline.components.items()):
        if isinstance(component, torch.nn.Module):
            digest.update(f"{name}:{_component_hash(component)}\n".encode())
    return digest.hexdigest()


def _component_hash(component: torch.nn.Module) -> str:
    origin = getattr(component.config, "_name_or_path", "")
    files = sorted(Path(origin).glob("*.safetensors")) if origin and Path(origin).is_dir() else []
    digest = hashlib.sha256()
    for path in files:
        status = path.stat()
        digest.update(_file_hash(path, status.st_size, status.st_mtime_ns))
    adapted = bool(getattr(component, "peft_config", None))
    if adapted or not files:
        for name, tensor in sorted(state_of(component).items()):
            if files and "lora_" not in name:
                continue
            raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(raw.numpy().tobytes())
    return digest.hexdigest()


@lru_cache(maxsize=256)
def _file_hash(path: Path, size: int, mtime_ns: int) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _model_id(pipeline: DiffusionPipeline) -> str:
    """A folder's name or a hub id; never a path of this machine."""
    origin = str(getattr(pipeline.config, "_name_or_path", "") or "")
    return (Path(origin).name if Path(origin).is_dir() else origin) or type(pipeline).__name__


def token_grid(pipeline: DiffusionPipeline, settings: GenerationSettings) -> TokenGrid:
    """The token grid of a clip of these settings.

    Raises:
        GenerationError: a size or a length that the pipeline cannot make; the message names the nearest that it can.
    """
    try:
        return rules_of(pipeline).grid(settings.frames, settings.height, settings.width)
    except ValueError as error:
        raise GenerationError(str(error)) from None


def _steered(pipeline: DiffusionPipeline, steering: Steering, grid: TokenGrid) -> AbstractContextManager[None]:
    """Steers the pipeline's branch inside its block, in the conditional and the unconditional pass."""
    if steering.is_neutral:
        return nullcontext()
    attachment = getattr(pipeline, "attachment", None)
    if attachment is None:
        raise GenerationError("this model has no branch, so no experts to steer: open one that has, or do not steer")
    if not attachment.enabled:
        raise GenerationError("the branch is switched off, so its experts cannot be steered: switch it on")
    config = pipeline.branch.config
    sizes = config.num_semantic_experts, config.num_refinement_experts
    try:
        steering.check(*sizes, grid)
    except SteeringError as error:
        raise GenerationError(str(error)) from None
    scales = (steering.semantic, steering.refinement)
    tensors = [
        torch.tensor([by_expert.get(expert, 1.0) for expert in range(size)])
        for by_expert, size in zip(scales, sizes, strict=True)
    ]
    return attachment.steer(*tensors, torch.from_numpy(steering.forced_experts(grid)))


def _scheduled(pipeline: DiffusionPipeline, schedule: Schedule) -> AbstractContextManager[None]:
    """Runs the pipeline's branch by the schedule inside its block."""
    attachment = getattr(pipeline, "attachment", None)
    if attachment is not None and attachment.enabled:
        return attachment.scheduled(schedule)
    if not schedule.is_every_pass:
        raise GenerationError("there is no branch to schedule: open a model that has one and leave it on")
    return nullcontext()


def _check_range(name: str, value: object, low: float, high: float, kind: type) -> None:
    is_number = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        raise GenerationError(
            f"{name}={value!r} must be a {'whole ' if kind is int else ''}number from {low} to {high}"
        )
