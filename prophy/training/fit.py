"""The loop of every small training beside the transformers': autoencoder, text encoder, vision-language model, judges.

A folder holds what a run of :mod:`prophy.training.trainer` does: ``run.json``, ``checkpoint/`` and ``log.jsonl``. A
training that was stopped or killed resumes exactly, if its loss is a function of the step, the weights and torch's
own random numbers.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from tqdm import tqdm

from prophy.files import exclusive
from prophy.training.about import About
from prophy.training.checkpoints import (
    State,
    load_checkpoint,
    random_state,
    refuse_older_layout,
    restore_random_state,
    save_checkpoint,
)
from prophy.training.ema import Ema
from prophy.training.log import Log
from prophy.training.progress import Progress, Stop, TrainingStopped
from prophy.training.run_folder import CHECKPOINT

log = logging.getLogger(__name__)

#: what a checkpoint must hold to be resumed
_STATE = ("recipe", "step", "mean_loss", "model", "optimiser", "ema", "random")
_EXPLOSION = 1000.0  # times its running mean: these losses jump where a phase begins


class Optimiser(Protocol):
    """See :mod:`prophy.training.optim`."""

    parameters: list[nn.Parameter]

    @property
    def rate(self) -> float: ...
    def step(self) -> None: ...
    def state_dict(self) -> list[dict]: ...
    def load_state_dict(self, state: list[dict]) -> None: ...


@exclusive("training", folder="folder")
def fit(
    model: nn.Module,
    loss_at: Callable[[int], torch.Tensor],
    optimiser: Optimiser,
    *,
    steps: int,
    name: str,
    pace: Callable[[int], None] | None = None,
    recipe: Any = None,
    folder: Path | None = None,
    ema: Ema | None = None,
    minutes: float | None = None,
    measure: Callable[[int], dict[str, float]] | None = None,
    checkpoint_every: int = 500,
    log_every: int = 25,
    data: str = "",
) -> int:
    """Minimise a loss, resuming exactly from what ``folder`` holds. Returns the steps made in all.

    Args:
        model: all that is trained, on its device; changed in place.
        loss_at: of a step, from 0: a scalar with gradients.
        optimiser: of the model's parameters.
        steps: in all.
        name: of the training, for its record and progress bar.
        pace: sets the optimiser's rates before a step; None: it keeps its own schedule.
        recipe: a dataclass; another one than the folder's is refused.
        folder: of the run; None keeps nothing.
        ema: average of the model's weights, to follow them.
        minutes: stop, resumable, after this long.
        measure: scores after so many steps, of the averaged weights if there is an average; called before a checkpoint.
        checkpoint_every: steps.
        log_every: steps.
        data: digest of the clips that the loss is of; another one than the folder's is refused. Empty: not known.

    Raises:
        TrainingStopped: the loss is not a number, or explodes.
        ValueError: the folder holds another training, or torchrun started several processes. One line.
    """
    if folder is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("one process trains this: start it without torchrun")
    device = next(model.parameters()).device
    progress = Progress()
    reports: Log | None = None
    if folder is not None:
        folder = Path(folder)
        refuse_older_layout(folder)
        record = json.loads(json.dumps(asdict(recipe)))
        state = load_checkpoint(folder / CHECKPOINT, _STATE)
        if state is None:
            _describe(folder, name, record, steps, optimiser.parameters)
        else:
            _refuse_another(folder, state["recipe"], record)
            if data and state.get("data", "") not in ("", data):
                raise ValueError(f"{folder} was trained on clips that were drawn otherwise: choose another folder")
            model.load_state_dict(state["model"])
            optimiser.load_state_dict(state["optimiser"])
            if ema is not None:
                ema.load(state["ema"])
            restore_random_state(state["random"], device)
            progress = Progress(state["step"], state["mean_loss"])
            log.info("resumed at step %d", progress.step)
        reports = Log(folder, progress.step)
    averaged = nullcontext if ema is None else ema.averaged
    bar = tqdm(total=steps, initial=progress.step, desc=name, mininterval=5, unit="step")
    with Stop(minutes) as stop, bar:
        while progress.step < steps:
            # 1. gradients
            loss = loss_at(progress.step)
            loss.backward()
            norm = float(nn.utils.clip_grad_norm_(optimiser.parameters, 1.0))
            value = float(loss.detach())
            if fault := progress.fault(value, norm, _EXPLOSION):
                raise TrainingStopped(f"{fault} at step {progress.step} of {name}: lower the rate, and start again")
            # 2. learn
            if pace is not None:
                pace(progress.step)
            rate = optimiser.rate
            optimiser.step()
            if ema is not None:
                ema.update(progress.step)
            progress.advance(value)
            # 3. report and keep
            bar.update()
            ending = progress.step == steps or stop.due
            if progress.step % log_every == 0 or ending:
                bar.set_postfix(loss=f"{progress.mean_loss:.4g}", refresh=False)
                if reports is not None:
                    reports.train(progress.step, losses={"total": value}, gradient_norms={"all": norm}, rate=rate)
            if folder is not None and (progress.step % checkpoint_every == 0 or ending):
                with averaged():
                    scores = {} if measure is None else measure(progress.step)
                if scores and reports is not None:
                    reports.scores(progress.step, scores)
                _save(folder, record, data, progress, model, optimiser, ema, device)
            if ending:
                break
    return progress.step


def _describe(folder: Path, name: str, record: dict, steps: int, parameters: Iterable[nn.Parameter]) -> None:
    About(
        recipe_name=name,
        base="",
        recipe={**record, "steps": steps},
        processes=1,
        trained_parameters=sum(parameter.numel() for parameter in parameters),
    ).write(folder)


def _refuse_another(folder: Path, before: dict, now: dict) -> None:
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if changed:
        listed = ", ".join(f"{name} was {before.get(name)!r}, now {now.get(name)!r}" for name in changed)
        raise ValueError(f"{folder} holds the training of another recipe ({listed}): choose another folder")


def _save(
    folder: Path,
    record: State,
    data: str,
    progress: Progress,
    model: nn.Module,
    optimiser: Optimiser,
    ema: Ema | None,
    device: torch.device,
) -> None:
    state = {
        "recipe": record,
        "data": data,
        "step": progress.step,
        "mean_loss": progress.mean_loss,
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "ema": None if ema is None else ema.average,
        "random": random_state(device),
    }
    save_checkpoint(folder / CHECKPOINT, state)
