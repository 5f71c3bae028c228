"""Training, saving and loading of the small judges of the evaluation."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from prophy.evaluation.judges.pictures import stacked
from prophy.files import replacing
from prophy.schema import parsed
from prophy.training.devices import autocast
from prophy.training.fit import fit
from prophy.training.optim import OneCycleAdamW
from prophy.training.progress import TrainingStopped
from prophy.training.run_folder import CHECKPOINT

R = TypeVar("R")
M = TypeVar("M", bound=nn.Module)
Truth = TypeVar("Truth", np.ndarray, torch.Tensor)


class Recipe(Protocol):
    """What the recipe of every judge holds."""

    @property
    def steps(self) -> int: ...
    @property
    def rate(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...


class FrameRecipe(Recipe, Protocol):
    """What the recipe of a judge that sees clips holds besides."""

    @property
    def seed(self) -> int: ...
    @property
    def batch(self) -> int: ...


def train_judge(
    model: nn.Module,
    loss_at: Callable[[int], torch.Tensor],
    recipe: Recipe,
    name: str,
    work: Path | None = None,
    minutes: float | None = None,
    warm_up: float = 0.15,
    data: str = "",
) -> None:
    """AdamW with one cycle of the learning rate; a training that was stopped is resumed from ``work/name``.

    Args:
        model: on its device; changed in place.
        loss_at: of a step, from 0; a scalar with gradients.
        recipe: a dataclass.
        name: of the judge.
        work: folder of results; None keeps nothing.
        minutes: stop, resumable, after this long.
        warm_up: share of the steps in which the rate rises.
        data: digest of what it learns from; empty: not known.

    Raises:
        TrainingStopped: the time ended first, or the loss is no longer a number.
        ValueError: a training of another recipe, or on other clips, was stopped there. One line.
    """
    folder = None if work is None else Path(work) / name
    optimiser = OneCycleAdamW(
        list(model.parameters()),
        recipe.rate,
        steps=recipe.steps,
        warm_up=warm_up,
        weight_decay=recipe.weight_decay,
    )
    made = fit(
        model,
        loss_at,
        optimiser,
        steps=recipe.steps,
        name=name,
        recipe=recipe,
        folder=folder,
        minutes=minutes,
        data=data,
    )
    if made < recipe.steps:
        raise TrainingStopped(f"{name} was stopped at step {made} of {recipe.steps}: start it again to resume")
    if folder is not None:
        shutil.rmtree(folder / CHECKPOINT)  # asked for once more, it is trained anew


class Chance(NamedTuple):
    """The random numbers of one step."""

    rng: np.random.Generator
    generator: torch.Generator


def fit_judge(
    build: Callable[[], M],
    frames_nFHWC: np.ndarray,
    truth: Truth,
    recipe: FrameRecipe,
    name: str,
    spoilt: Callable[[Chance, np.ndarray, Truth], tuple[torch.Tensor, torch.Tensor]],
    loss_of: Callable[[Any, torch.Tensor], torch.Tensor],
    device: torch.device | None = None,
    work: Path | None = None,
    minutes: float | None = None,
) -> M:
    """Train a judge that sees clips on rendered ones. A function of the arguments and the number of threads alone.

    Args:
        build: makes the judge, after torch's random numbers were set by the recipe.
        frames_nFHWC: what is seen of the clips, uint8.
        truth: of each clip, what it should answer.
        recipe: a dataclass.
        name: of the judge.
        spoilt: a batch of clips and of their truths, both copies, as the judge and its loss are given them.
        loss_of: the judge's answers and such truths, on its device.
        device: to train on; default: the CPU.
        work, minutes: see :func:`train_judge`; without ``work`` it cannot be resumed.

    Raises:
        TrainingStopped, ValueError: see :func:`train_judge`.
    """
    device = device or torch.device("cpu")
    torch.manual_seed(recipe.seed)
    model = build().train().to(device, memory_format=torch.channels_last)

    def loss_at(step: int) -> torch.Tensor:
        rng = np.random.default_rng([recipe.seed, step])
        chance = Chance(rng, torch.Generator().manual_seed(int(rng.integers(2**63))))
        rows = rng.integers(len(frames_nFHWC), size=recipe.batch)
        x, target = spoilt(chance, frames_nFHWC[rows], truth[rows])
        x = x.to(device)
        with autocast(x.device, torch.bfloat16):
            answers = model(x)
        return loss_of(answers, target.to(device))

    data = "" if work is None else _digest(frames_nFHWC, truth)
    train_judge(model, loss_at, recipe, name, work, minutes, data=data)
    return model.eval()


def _digest(frames_nFHWC: np.ndarray, truth: np.ndarray | torch.Tensor) -> str:
    """Of rendered clips and what they show: the worlds of another release may draw the same seeds otherwise."""
    digest = hashlib.sha256(np.ascontiguousarray(frames_nFHWC).data)
    digest.update(np.ascontiguousarray(truth).data)
    return digest.hexdigest()[:16]


@torch.no_grad()
def answers_of(model: nn.Module, frames_nFHWC: np.ndarray, batch: int = 64) -> Iterator[Any]:
    """What a judge says of what it sees, uint8 ``(n, F', h, w, 3)``, so many clips at a time, on its device."""
    model.eval()
    device = next(model.parameters()).device
    for start in range(0, len(frames_nFHWC), batch):
        yield model(stacked(frames_nFHWC[start : start + batch]).to(device))


def save_fitted(model: nn.Module, recipe: Any, work: Path, name: str) -> None:
    """Write ``work/name.safetensors``, whole or not at all, with the recipe, a dataclass, in its header."""
    work.mkdir(parents=True, exist_ok=True)
    weights = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    with replacing(work / f"{name}.safetensors", shared=True) as temporary:
        save_file(weights, temporary, {"recipe": json.dumps(asdict(recipe))})


def fitted(work: Path, name: str, build: Callable[[dict[str, torch.Tensor]], M]) -> M:
    """The judge that :func:`save_fitted` wrote, ready to judge.

    Args:
        work: folder of results.
        name: of the judge.
        build: makes it, untrained, for these weights. Memory is taken for what the file holds, not for what it says.

    Raises:
        FileNotFoundError: the judge has not been trained.
        ValueError: its file is damaged, or holds weights of another judge or that are not numbers.
    """
    path = _path(work, name)
    try:
        weights = {key: tensor.float() for key, tensor in load_file(path).items()}
        if wrong := next((key for key, tensor in weights.items() if not bool(tensor.isfinite().all())), None):
            raise ValueError(f"{wrong} holds values that are not numbers")
        with torch.device("meta"):
            model = build(weights)
        model.load_state_dict(weights, assign=True)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OSError) as error:
        raise _damaged(path, error) from error
    return model.eval()


def fitted_recipe(work: Path, name: str, kind: type[R]) -> R:
    """The recipe that :func:`save_fitted` wrote, a dataclass of this kind.

    Raises:
        FileNotFoundError: the judge has not been trained.
        ValueError: its file is damaged, or another release's.
    """
    path = _path(work, name)
    try:
        with safe_open(path, "pt") as file:
            made = parsed((file.metadata() or {})["recipe"])
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in made.items()})
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())[:200]
    return ValueError(f"{path} is no judge of this release ({reason}): train it again, or copy it again")


def _path(work: Path, name: str) -> Path:
    path = Path(work) / f"{name}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run `prophy evaluate {name} --work {work}` first")
    return path
