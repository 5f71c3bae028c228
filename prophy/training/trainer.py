"""The trainer: a branch, a backbone or both, the embedded model's as well as a published one's, on one process or many.

``train`` reads from top to bottom: open, place on the devices, resume from a checkpoint, train. A run's folder holds

* ``run.json``: recipe, base model, data, and the configurations to build the models again;
* ``checkpoint/``: everything the next step depends on, replaced as one folder;
* ``log.jsonl``: see :class:`prophy.training.log.Log`;
* ``samples/``: clips made on the way, if asked for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from diffusers import ModelMixin
from pydantic import Field
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from prophy.branch import ProPhyBranch
from prophy.data.examples import Examples, FirstFrames
from prophy.files import exclusive
from prophy.schema import AtLeastOne, check_fields
from prophy.training.about import BaseConfig
from prophy.training.base_config import refuse_other_base
from prophy.training.batches import NOISE_LEVELS, Batches, Share, fixed_batch
from prophy.training.checkpoints import refuse_older_layout
from prophy.training.collectives import all_reduce_sum
from prophy.training.devices import join_processes
from prophy.training.ema import Ema
from prophy.training.fsdp import reshard
from prophy.training.log import Log
from prophy.training.objectives import Objective
from prophy.training.progress import Stop, TrainingStopped
from prophy.training.recipe import Recipe
from prophy.training.run_folder import SAMPLES
from prophy.training.run_state import Inputs, RunState, refuse_other_inputs, weights_digest
from prophy.training.step import expert_usage, train_step
from prophy.training.strategies import AccelerateStrategy, Strategy
from prophy.training.trainable import Prediction, TrainableModule, build_trainable, initial_digest, start_from

log = logging.getLogger(__name__)

#: Makes samples with a backbone and a branch, unattached, inside a folder, which need not exist yet.
Sampler = Callable[[nn.Module, ProPhyBranch | None, Path], None]


@dataclass(frozen=True)
class Running:
    """Where and how a training runs; changes nothing about what it learns.

    Attributes:
        device: ``cpu``, or an accelerator's name; None: the machine's accelerator, or its CPU.
        compiled: run the blocks through ``torch.compile``, which needs a C++ compiler.
        plain_attention: see :meth:`prophy.training.trainable.TrainableModule.use_plain_attention`.
        sharded: shard weights over the processes (FSDP2) instead of copying them (DDP).
        deepspeed: a DeepSpeed configuration, whose strategy then shards optimiser states and gradients (ZeRO 1 or 2).
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

    device: str | None = None
    compiled: bool = False
    plain_attention: bool = False
    sharded: bool = False
    deepspeed: Path | None = None
    workers: Annotated[int, Field(ge=0, le=1024)] = 0
    minutes: Annotated[float, Field(ge=0, le=1e7)] | None = None
    checkpoint_every: AtLeastOne = 500
    log_every: AtLeastOne = 10
    validate_every: AtLeastOne = 500
    validation_clips: AtLeastOne = 64
    sample_every: AtLeastOne = 500
    tracker: str | None = None
    explosion: Annotated[float, Field(gt=1, le=1e9)] = 20.0

    def __post_init__(self) -> None:
        check_fields(self)


@exclusive("training")
def train(
    recipe: Recipe,
    transformer: ModelMixin,
    objective: Objective,
    examples: Examples,
    out: Path,
    *,
    name: str = "",
    base: str = "",
    base_config: BaseConfig | None = None,
    initial: Path | None = None,
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
        base_config: see :func:`prophy.training.base_config.base_config_of`; a run is not resumed beside another one.
            None: not compared.
        initial: a model folder whose weights a new run starts from, with a new optimiser;
            see :func:`prophy.training.trainable.start_from`.
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
        raise ValueError("samples need whole weights on one process: leave --fsdp or --sample-every out")
    if recipe.latent_frames:
        examples = FirstFrames(examples, recipe.latent_frames)
        held_out = None if held_out is None else FirstFrames(held_out, recipe.latent_frames)
    refuse_older_layout(out)
    backbone = None if recipe.scratch is not None else weights_digest(transformer)
    inputs = Inputs(
        examples.fingerprint,
        backbone,
        "" if initial is None else initial_digest(initial),
        "" if held_out is None else held_out.fingerprint,
        base_config,
    )
    inputs = refuse_other_inputs(out, inputs)
    # 1. the module, and the devices
    join_processes(running.device)
    accelerator = Accelerator(
        gradient_accumulation_steps=recipe.accumulation,
        log_with=_checked_tracker(running.tracker),
        project_dir=str(out),
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
    )
    torch.manual_seed(recipe.seed)
    module = build_trainable(transformer, recipe)
    if initial is not None:
        if base_config is not None:
            refuse_other_base(initial, base_config)
        start_from(module, initial)
    if running.plain_attention:
        module.use_plain_attention()
    if running.compiled:
        module.compile_blocks()
    share = Share(accelerator.process_index, accelerator.num_processes)
    batches = Batches(examples, recipe, objective, share)
    for size, count in batches.order.left_out.items():
        log.warning("%d clips of size %s are too few for a batch of %d: left out", count, size, recipe.batch)
    strategy = _strategy(module, recipe, accelerator, running)
    ema = Ema(module, recipe.ema)

    # 2. what was there before
    run = RunState(recipe, module, strategy, ema, inputs, out, accelerator)
    progress = run.resume(name, base, "" if initial is None else str(initial))
    tracked = accelerator if running.tracker else None
    reports = Log(out, progress.step, writes=accelerator.is_main_process, tracked=tracked)
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
    bar = tqdm(
        total=recipe.steps, initial=progress.step, desc="train", mininterval=5, disable=not accelerator.is_main_process
    )
    with Stop(running.minutes) as stop, bar, module.attached():
        while progress.step < recipe.steps:
            # 3.1 gradients of eq. 6 on the whole batch
            reported = (progress.step + 1) % running.log_every == 0 or progress.step + 1 == recipe.steps
            losses, prediction, keys = [], None, []
            for part in range(recipe.accumulation):
                waiting = time.perf_counter()
                batch = next(ahead).to(accelerator.device)
                progress.waited += time.perf_counter() - waiting
                with strategy.part(last=part + 1 == recipe.accumulation):
                    step_losses, prediction = train_step(strategy.model, batch, recipe)
                    strategy.backward(step_losses.total)
                losses.append(step_losses.row())
                keys += batch.keys
            row = {name: sum(part[name] for part in losses) / len(losses) for name in losses[0]}
            norms = strategy.norms() if reported else {}
            norm = strategy.clip()
            # 3.2 learn, or stop before a bad batch has changed anything: all processes see the same loss and norm
            if fault := progress.fault(row["total"], norm, running.explosion):
                raise TrainingStopped(
                    f"{fault} at step {progress.step} (clips {', '.join(run.from_all(keys))}): the step was not made; "
                    f"{run.kept()}. Look at these clips, or lower the rate"
                )
            shares = recipe.shares_of_peak(progress.step)
            strategy.update(shares)
            ema.update(progress.step)
            progress.advance(row["total"])
            # 3.3 report
            bar.update()
            if reported:
                bar.set_postfix({key: f"{value:.4g}" for key, value in row.items()}, refresh=False)
                first = next(iter(strategy.optimisers))
                reports.train(
                    progress.step,
                    losses=row,
                    gradient_norms={"all": norm, **norms},
                    rate=shares[first] * recipe.optimisers()[first].rate,
                    experts=expert_usage(prediction),
                    waited=progress.waited,
                )
                progress.waited = 0.0
            ending = progress.step == recipe.steps or _any(stop.due, accelerator.device)
            if held_out is not None and (ending or progress.step % running.validate_every == 0):
                with ema.averaged():
                    found = validate(strategy.model, held_out, objective, running.validation_clips, share, recipe.batch)
                reports.validation(progress.step, found)
            # 3.4 keep
            if ending or progress.step % running.checkpoint_every == 0:
                run.save(progress)
            if sample is not None and (ending or progress.step % running.sample_every == 0):
                with ema.averaged(), module.detached():
                    _sample(sample, module, out / SAMPLES / f"step-{progress.step:06d}", accelerator)
            if ending:
                break
    reports.close()
    return out


def _strategy(module: TrainableModule, recipe: Recipe, accelerator: Accelerator, running: Running) -> Strategy:
    if running.deepspeed is None:
        return AccelerateStrategy(module, recipe, accelerator, running.sharded)
    if running.sharded:
        raise ValueError("DeepSpeed spreads optimiser states by its own file: leave --fsdp or --deepspeed out")
    from prophy.training.deepspeed import DeepSpeedStrategy

    return DeepSpeedStrategy(module, recipe, accelerator.device, running.deepspeed)


# --- on the way ------------------------------------------------------------------------------------------------------


@torch.no_grad()
@torch.compiler.set_stance("force_eager")  # for a batch of another size blocks would be compiled anew
def validate(
    model: nn.Module, held_out: Examples, objective: Objective, clips: int, share: Share, batch: int
) -> dict[str, float]:
    """The plain diffusion loss of held-out clips at several noise levels, whatever the size of a batch.

    Args:
        model: a :class:`prophy.training.trainable.TrainableModule`, attached, or what wraps it.
        held_out: not trained on.
        objective: what is predicted.
        clips: how many; each process takes as many: a number that does not divide is rounded down, to one at least.
        share: of this process.
        batch: clips at a time, if all have one size.

    Returns:
        The mean loss by noise level, each of :data:`~prophy.training.batches.NOISE_LEVELS`.
    """
    each = max(1, min(clips, len(held_out)) // share.processes)
    mine = [(i * share.processes + share.process) % len(held_out) for i in range(each)]
    if len({tuple(held_out.latent_size(index)) for index in range(len(held_out))}) > 1:
        batch = 1
    device = next(model.parameters()).device
    losses = {}
    for level in NOISE_LEVELS:
        error = torch.zeros((), device=device)
        for start in range(0, each, batch):
            fixed = fixed_batch(held_out, mine[start : start + batch], level, objective).to(device)
            predicted: Prediction = model(fixed.noisy_BCTHW, fixed.timestep_B, fixed.text_BLD)
            error += (predicted.predicted_BCTHW - fixed.target_BCTHW).square().flatten(1).mean(1).sum()
        losses[str(level)] = float(all_reduce_sum(error)) / (each * share.processes)
    reshard(model)
    return losses


def _any(here: bool, device: torch.device) -> bool:
    """Whether this holds on any process."""
    return bool(all_reduce_sum(torch.tensor(int(here), device=device)))


def _sample(sample: Sampler, module: TrainableModule, folder: Path, accelerator: Accelerator) -> None:
    if accelerator.is_main_process:
        with torch.random.fork_rng(), torch.no_grad(), torch.compiler.set_stance("force_eager"):
            sample(module.transformer, module.branch, folder)
    accelerator.wait_for_everyone()


def _checked_tracker(name: str | None) -> str | None:
    if name is None:
        return None
    from accelerate.tracking import get_available_trackers

    if name not in map(str, get_available_trackers()):
        raise ValueError(f"{name} is not installed: pip install {name}, or leave --tracker out; log.jsonl has it all")
    return name
