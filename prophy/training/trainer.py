"""The trainer: a branch on a published backbone, or an ablation of it, on one process or many.

``train`` reads from top to bottom: open, place on the devices, go on from a checkpoint, train. A run's folder holds

* ``run.json``: recipe, base model, data, and the configurations to build the models again;
* ``checkpoint/``: everything the next step depends on, replaced as one folder;
* ``log.jsonl``: see :class:`prophy.training.log.Log`;
* ``samples/``: clips made on the way, if asked for.
"""

from __future__ import annotations

import json
import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from diffusers import ModelMixin
from safetensors import SafetensorError
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from prophy.branch import ProPhyBranch
from prophy.data.examples import Examples
from prophy.files import write_text
from prophy.training.batches import NOISE_LEVELS, Batch, Batches, Share, fixed_batch
from prophy.training.checkpoints import State, load_checkpoint, save_checkpoint
from prophy.training.collectives import all_reduce_sum
from prophy.training.fsdp import distribute_like, gather_full, reshard
from prophy.training.learner import Ema
from prophy.training.log import Log
from prophy.training.objectives import Objective
from prophy.training.recipes import Recipe, difference
from prophy.training.run_folder import CHECKPOINT, RUN_FILE, SAMPLES
from prophy.training.step import expert_usage, train_step
from prophy.training.strategies import AccelerateStrategy, Strategy, Weights
from prophy.training.trainable import Prediction, TrainableModule, build_trainable

log = logging.getLogger(__name__)

#: Makes samples with a backbone and a branch, unattached, inside a folder, which need not exist yet.
Sampler = Callable[[nn.Module, ProPhyBranch | None, Path], None]


class TrainingStopped(ValueError):
    """The training cannot go on; the last checkpoint is whole. One line."""


@dataclass(frozen=True)
class Running:
    """Where and how a training runs; changes nothing about what it learns.

    Attributes:
        sharded: spread weights over the processes (FSDP2) instead of copying them (DDP).
        deepspeed: a DeepSpeed configuration, whose strategy then spreads optimiser states and gradients (ZeRO 1 or 2).
        workers: processes that prepare batches ahead, for each training process.
        minutes: stop, resumable, after this long; None: at the recipe's last step.
        checkpoint_every: steps.
        log_every: steps.
        validate_every: steps; needs held-out clips.
        validation_clips: how many of them.
        sample_every: steps; needs a sampler.
        tracker: a tracker that accelerate knows, beside the log: ``tensorboard``, ``trackio`` or ``wandb``.
        explosion: stop when a loss is this many times its running mean.
    """

    sharded: bool = False
    deepspeed: Path | None = None
    workers: int = 0
    minutes: float | None = None
    checkpoint_every: int = 500
    log_every: int = 10
    validate_every: int = 500
    validation_clips: int = 64
    sample_every: int = 500
    tracker: str | None = None
    explosion: float = 20.0

    def __post_init__(self) -> None:
        for name in ("checkpoint_every", "log_every", "validate_every", "validation_clips", "sample_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


@dataclass
class _Progress:
    """What changes from step to step besides weights."""

    step: int = 0
    mean_loss: float = 0.0
    waited: float = field(default=0.0)  # seconds without data, since the log was last written


def train(
    recipe: Recipe,
    transformer: ModelMixin,
    objective: Objective,
    examples: Examples,
    out: Path,
    *,
    name: str = "",
    base: str = "",
    held_out: Examples | None = None,
    running: Running | None = None,
    sample: Sampler | None = None,
) -> Path:
    """Train until the recipe's last step, resuming exactly from what ``out`` holds.

    Args:
        recipe: what to learn.
        transformer: the backbone, as opened; changed here.
        objective: what the backbone predicts.
        examples: to learn from.
        out: the run's folder.
        name: of the recipe, for the record.
        base: the base model's folder or hub id, for the record.
        held_out: for validation losses.
        running: where and how.
        sample: called every ``sample_every`` steps and at the end, on the first process, with the averaged weights.

    Returns:
        ``out``.

    Raises:
        TrainingStopped: a loss that is not a number or explodes, or a checkpoint that cannot be written.
        ValueError: the folder holds another training, or recipe, data and processes do not fit. One line.
    """
    out, running = Path(out), running or Running()
    if sample is not None and running.sharded:
        raise ValueError("samples need whole weights on one process: leave --shard or --sample-every out")
    # 1. the module, and the devices
    torch.manual_seed(recipe.seed)
    module = build_trainable(transformer, recipe)
    accelerator = Accelerator(
        gradient_accumulation_steps=recipe.accumulation,
        log_with=_checked_tracker(running.tracker),
        project_dir=str(out),
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
    )
    share = Share(accelerator.process_index, accelerator.num_processes)
    batches = Batches(examples, recipe, objective, share)
    for size, count in batches.order.left_out.items():
        log.warning("%d clips of size %s are too few for a batch of %d: left out", count, size, recipe.batch)
    strategy = _strategy(module, recipe, accelerator, running)
    ema = Ema(module, recipe.ema)

    # 2. what was there before
    run = _Run(recipe, module, strategy, ema, examples.fingerprint, out, accelerator)
    progress = run.resume(name, base)
    reports = Log(out, accelerator, progress.step, running.tracker)
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=range(progress.step * recipe.accumulation, len(batches)),
        num_workers=running.workers,
        pin_memory=accelerator.device.type == "cuda",
        generator=torch.Generator(),  # else its workers' seeds come from the state that a checkpoint holds
    )
    ahead = iter(loader)
    run.restore_random_state()

    # 3. train
    stop = _Stop(running.minutes)
    bar = tqdm(
        total=recipe.steps, initial=progress.step, desc="train", mininterval=5, disable=not accelerator.is_main_process
    )
    with stop, bar:
        while progress.step < recipe.steps:
            # 3.1 gradients of eq. 6 on the whole batch
            reported = (progress.step + 1) % running.log_every == 0 or progress.step + 1 == recipe.steps
            losses, prediction, keys = [], None, []
            for part in range(recipe.accumulation):
                waiting = time.perf_counter()
                batch = next(ahead).to(accelerator.device)
                progress.waited += time.perf_counter() - waiting
                with module.attached(), strategy.part(last=part + 1 == recipe.accumulation):
                    step_losses, prediction = train_step(strategy.model, batch, recipe)
                    strategy.backward(step_losses.total)
                losses.append(step_losses.row())
                keys += batch.keys
            row = {name: sum(part[name] for part in losses) / len(losses) for name in losses[0]}
            norms = strategy.norms() if reported else {}
            norm = strategy.clip(recipe.optimiser.clip)
            # 3.2 learn, or stop before a bad batch has changed anything
            _check(row["total"], norm, progress, running.explosion, keys, run)
            share_of_peak = recipe.optimiser.share_of_peak(progress.step, recipe.steps)
            strategy.update(share_of_peak)
            ema.update(progress.step)
            progress.step += 1
            progress.mean_loss = row["total"] if progress.step == 1 else 0.98 * progress.mean_loss + 0.02 * row["total"]
            # 3.3 report
            bar.update()
            if reported:
                bar.set_postfix({key: f"{value:.4g}" for key, value in row.items()}, refresh=False)
                reports.train(
                    progress.step,
                    losses=row,
                    gradient_norms={"all": norm, **norms},
                    rate=share_of_peak * recipe.optimiser.rate,
                    experts=expert_usage(prediction),
                    waited=progress.waited,
                )
                progress.waited = 0.0
            ending = progress.step == recipe.steps or stop.asked(accelerator)
            if held_out is not None and (ending or progress.step % running.validate_every == 0):
                with averaged(strategy.weights, ema), module.attached():
                    found = validate(
                        strategy.model, held_out, objective, running.validation_clips, share, accelerator.device
                    )
                reports.validation(progress.step, found)
            # 3.4 keep
            if ending or progress.step % running.checkpoint_every == 0:
                run.save(progress)
            if sample is not None and (ending or progress.step % running.sample_every == 0):
                with averaged(strategy.weights, ema):
                    _sample(sample, module, out / SAMPLES / f"step-{progress.step:06d}", accelerator)
            if ending:
                break
    reports.close()
    return out


def _strategy(module: TrainableModule, recipe: Recipe, accelerator: Accelerator, running: Running) -> Strategy:
    if running.deepspeed is None:
        return AccelerateStrategy(module, recipe, accelerator, running.sharded)
    if running.sharded:
        raise ValueError("DeepSpeed spreads optimiser states by its own file: leave --shard or --deepspeed out")
    from prophy.training.deepspeed import DeepSpeedStrategy

    return DeepSpeedStrategy(module, recipe, accelerator.device, running.deepspeed)


# --- bad batches ------------------------------------------------------------------------------------------------------


def _check(loss: float, norm: float, progress: _Progress, explosion: float, keys: list[str], run: _Run) -> None:
    """Refuse a step that would spoil the weights. All processes see the same loss and norm, and all refuse."""
    bad = None
    if not (abs(loss) < float("inf") and norm < float("inf")):
        bad = f"the loss is {loss:g} and its gradient's norm {norm:g}"
    elif progress.step >= 50 and loss > explosion * progress.mean_loss:
        bad = f"the loss is {loss:g}, over {explosion:g} times its running mean {progress.mean_loss:g}"
    if bad is None:
        return
    everyone = run.from_all(keys)
    raise TrainingStopped(
        f"{bad} at step {progress.step} (clips {', '.join(everyone)}): the step was not made; {run.kept()}. "
        "Look at these clips, or lower the rate"
    )


# --- weights, saved and restored -------------------------------------------------------------------------------------


class _Run:
    """A training as its folder keeps it: every tensor whole, so that any number of processes can go on."""

    def __init__(
        self,
        recipe: Recipe,
        module: TrainableModule,
        strategy: Strategy,
        ema: Ema,
        data: str,
        out: Path,
        accelerator: Accelerator,
    ) -> None:
        self._recipe, self._module, self._strategy, self._ema = recipe, module, strategy, ema
        self._data, self._out, self._accelerator = data, out, accelerator
        self._random_state: list[State] | None = None
        self._last: int | None = None

    def resume(self, name: str, base: str) -> _Progress:
        """Go on from the checkpoint, if there is one."""
        state = load_checkpoint(self._out / CHECKPOINT)
        if state is None:
            if self._accelerator.is_main_process:
                self._describe(name, base)
            self._accelerator.wait_for_everyone()
            return _Progress()
        self._refuse_another(state)
        if self._accelerator.is_main_process:
            self._note_steps()
        with torch.no_grad():
            for key, parameter in self._strategy.weights.items():
                self._ema.average[key].copy_(distribute_like(state["ema"][key], parameter))
        self._strategy.restore(state["weights"], state["optimisers"])
        there, here = len(state["random"]), self._accelerator.num_processes
        if there != here:
            log.warning(
                "saved by %d processes, resumed by %d: clips, captions and noise stay the same; sums are made in "
                "another order, and any dropout draws anew",
                there,
                here,
            )
        else:
            self._random_state = state["random"][self._accelerator.process_index]
        self._last = state["step"]
        log.info("resumed at step %d", state["step"])
        return _Progress(state["step"], state["mean_loss"])

    def restore_random_state(self) -> None:
        """Last of all, after everything that draws numbers while a run starts."""
        if self._random_state is not None:
            torch.set_rng_state(self._random_state["cpu"])
            if self._accelerator.device.type == "cuda":
                torch.cuda.set_rng_state(self._random_state["cuda"])

    def save(self, progress: _Progress) -> None:
        """Write the checkpoint. All processes must call it."""
        branch = {} if self._module.branch is None else self._module.branch.state_dict(prefix="branch.")
        states = {
            "weights": self._strategy.weights,
            "still": {name: tensor for name, tensor in branch.items() if name not in self._strategy.weights},
            "ema": self._ema.average,
            "optimisers": {part: optimiser.state_dict() for part, optimiser in self._strategy.optimisers.items()},
        }
        states = gather_full(states)
        here = {"cpu": torch.get_rng_state()}
        if self._accelerator.device.type == "cuda":
            here["cuda"] = torch.cuda.get_rng_state()
        about = {
            "recipe": self._recipe.record(),
            "data": self._data,
            "step": progress.step,
            "mean_loss": progress.mean_loss,
            "random": self.from_all([here]),
        }
        if self._accelerator.is_main_process:
            try:
                save_checkpoint(self._out / CHECKPOINT, {**about, **states})
            except (OSError, SafetensorError) as error:
                raise TrainingStopped(
                    f"the checkpoint of step {progress.step} cannot be written ({error}): {self.kept()}. "
                    "Make room on the disk and start again"
                ) from error
        self._last = progress.step
        self._accelerator.wait_for_everyone()

    def kept(self) -> str:
        """What a stopped training leaves."""
        if self._last is None:
            return "there is no checkpoint yet"
        return f"{self._out / CHECKPOINT} holds step {self._last}, whole"

    def from_all(self, here: list) -> list:
        """The lists of all processes, one after the other."""
        if self._accelerator.num_processes == 1:
            return here
        gathered: list = [None] * self._accelerator.num_processes
        dist.all_gather_object(gathered, here)
        return [one for part in gathered for one in part]

    def _refuse_another(self, state: dict[str, State]) -> None:
        changed = difference(Recipe.from_record(state["recipe"]), self._recipe)
        if changed.keys() == {"steps"} and self._recipe.optimiser.decay == "constant":
            return  # nothing up to here depended on it
        if changed:
            listed = ", ".join(f"{key} was {was!r}, now {now!r}" for key, (was, now) in changed.items())
            raise ValueError(f"{self._out} holds the training of another recipe ({listed}): choose another --out")
        if state["data"] != self._data:
            raise ValueError(
                f"{self._out} was trained on other data ({state['data']}, now {self._data}): give the same --data, or "
                "choose another --out"
            )

    def _note_steps(self) -> None:
        """More may have been asked for than when the run was described."""
        path = self._out / RUN_FILE
        about = json.loads(path.read_text()) if path.is_file() else None
        if about is not None and about["recipe"]["steps"] != self._recipe.steps:
            about["recipe"]["steps"] = self._recipe.steps
            write_text(path, json.dumps(about, indent=2) + "\n")

    def _describe(self, name: str, base: str) -> None:
        module = self._module
        about = {
            "recipe_name": name,
            "base": base,
            "recipe": self._recipe.record(),
            "data": self._data,
            "processes": self._accelerator.num_processes,
            "transformer": {"class": type(module.transformer).__name__, "config": _plain(module.transformer.config)},
            "branch": None if module.branch is None else _plain(module.branch.config),
            "trained_parameters": sum(p.numel() for p in self._strategy.weights.values()),
        }
        self._out.mkdir(parents=True, exist_ok=True)
        write_text(self._out / RUN_FILE, json.dumps(about, indent=2) + "\n")


def _plain(config: dict) -> dict[str, State]:
    """A configuration as diffusers saves it: without what it notes for itself."""
    return json.loads(json.dumps({key: value for key, value in config.items() if not key.startswith("_")}))


@contextmanager
def averaged(weights: Weights, ema: Ema) -> Iterator[None]:
    """Inside the block the parameters hold their average."""
    live = {name: parameter.detach().clone() for name, parameter in weights.items()}
    _fill(weights, ema.average)
    try:
        yield
    finally:
        _fill(weights, live)


@torch.no_grad()
def _fill(weights: Weights, values: dict[str, torch.Tensor]) -> None:
    for name, parameter in weights.items():
        parameter.copy_(values[name])


# --- on the way ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def validate(
    model: nn.Module, held_out: Examples, objective: Objective, clips: int, share: Share, device: torch.device
) -> dict[str, float]:
    """The plain diffusion loss of held-out clips at each of :data:`NOISE_LEVELS`.

    Each process takes as many clips: a number that does not divide is rounded down, to one each at least.
    """
    each = max(1, min(clips, len(held_out)) // share.processes)
    losses = {}
    for level in NOISE_LEVELS:
        error = torch.zeros((), device=device)
        for i in range(each):
            index = (i * share.processes + share.process) % len(held_out)
            batch: Batch = fixed_batch(held_out, index, level, objective).to(device)
            predicted: Prediction = model(batch.noisy_BCTHW, batch.timestep_B, batch.text_BLD)
            error += (predicted.predicted_BCTHW - batch.target_BCTHW).square().mean()
        losses[str(level)] = float(all_reduce_sum(error)) / (each * share.processes)
    reshard(model)
    return losses


def _sample(sample: Sampler, module: TrainableModule, folder: Path, accelerator: Accelerator) -> None:
    if accelerator.is_main_process:
        with torch.random.fork_rng(), torch.no_grad():
            sample(module.transformer, module.branch, folder)
    accelerator.wait_for_everyone()


class _Stop:
    """A time limit, and SIGTERM, which clusters send before they take a machine: both end with a checkpoint."""

    def __init__(self, minutes: float | None) -> None:
        self._end = None if minutes is None else time.monotonic() + 60 * minutes
        self._told = False

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGTERM, self._tell)

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _tell(self, *_: object) -> None:
        self._told = True

    def asked(self, accelerator: Accelerator) -> bool:
        """Whether any process was told, or is out of time."""
        here = self._told or (self._end is not None and time.monotonic() >= self._end)
        return bool(all_reduce_sum(torch.tensor(int(here), device=accelerator.device)))


def _checked_tracker(name: str | None) -> str | None:
    if name is None:
        return None
    from accelerate.tracking import get_available_trackers

    if name not in map(str, get_available_trackers()):
        raise ValueError(f"{name} is not installed: pip install {name}, or leave --tracker out; log.jsonl has it all")
    return name
