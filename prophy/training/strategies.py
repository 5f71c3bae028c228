"""Distributed strategies: one process, DDP, FSDP2; :mod:`prophy.training.deepspeed` adds ZeRO."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TypeAlias

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn

from prophy.training.checkpoints import State
from prophy.training.fsdp import distribute_like, shard
from prophy.training.optim import FusedAdamW, MuonAdamW
from prophy.training.recipe import Recipe
from prophy.training.trainable import TrainableModule, trained

Weights: TypeAlias = "dict[str, nn.Parameter]"  #: under training, by name


class Optimiser(Protocol):
    """Of one part of the module, with a state of full tensors once :func:`prophy.training.fsdp.gather_full` has run."""

    parameters: list[nn.Parameter]

    def set_rate(self, share: float) -> None: ...
    def state_dict(self) -> list[dict]: ...


class Strategy(Protocol):
    """A module placed on the devices.

    Attributes:
        model: what is called to predict.
        weights: under training.
        optimisers: ``branch`` and ``transformer``, those of them that are trained.
    """

    model: nn.Module
    weights: Weights

    @property
    def optimisers(self) -> Mapping[str, Optimiser]: ...
    def part(self, last: bool) -> AbstractContextManager[None]: ...
    def backward(self, loss: torch.Tensor) -> None: ...
    def norms(self) -> dict[str, float]: ...
    def clip(self) -> float: ...
    def update(self, shares: dict[str, float]) -> None: ...
    def restore(self, weights: dict[str, torch.Tensor], optimisers: dict[str, list[dict]]) -> None: ...


class AccelerateStrategy:
    """accelerate's devices and precision; copies by DDP, or spread by FSDP2.

    Raises:
        ValueError: sharding with one process, or with Muon.
    """

    def __init__(self, module: TrainableModule, recipe: Recipe, accelerator: Accelerator, sharded: bool) -> None:
        self._accelerator = accelerator
        if not sharded:
            self.model = accelerator.prepare(module)
        elif accelerator.distributed_type is DistributedType.NO:
            raise ValueError("sharding needs several processes: start with torchrun, or leave --fsdp out")
        else:
            self.model = shard(module.to(accelerator.device))  # the buffers too, which sharding leaves where they are
        self.weights = trained(module)
        self.optimisers = _optimisers(self.weights, recipe, sharded)
        if recipe.backbone_optimiser is None:
            self._clipped = [(list(self.weights.values()), recipe.optimiser.clip)]
        else:
            settings = recipe.optimisers()
            self._clipped = [(optim.parameters, settings[part].clip) for part, optim in self.optimisers.items()]

    @contextmanager
    def part(self, last: bool) -> Iterator[None]:
        """One accumulated part; processes exchange gradients in the last one only."""
        if hasattr(self.model, "set_requires_gradient_sync"):
            self.model.set_requires_gradient_sync(last)
        with self._accelerator.accumulate(self.model):
            yield

    def backward(self, loss: torch.Tensor) -> None:
        self._accelerator.backward(loss)

    def norms(self) -> dict[str, float]:
        """Of the branch's parts and of the backbone: a router that stops learning shows here."""
        groups: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.weights.items():
            groups.setdefault(part_of(name), []).append(parameter)
        return {group: round(float(_norm(parameters)), 6) for group, parameters in groups.items()}

    def clip(self) -> float:
        """Scale gradients down to the recipe's largest norm; returns the norm of all of them before."""
        norms = []
        for parameters, largest in self._clipped:
            norms.append(float(_norm(parameters)))
            if norms[-1] > largest:
                torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], largest / norms[-1])
        return math.hypot(*norms)

    def update(self, shares: dict[str, float]) -> None:
        """Follow the gradients at shares of the peak rates, by part, then clear them."""
        for part, optimiser in self.optimisers.items():
            optimiser.set_rate(shares[part])
            optimiser.step()

    @torch.no_grad()
    def restore(self, weights: dict[str, torch.Tensor], optimisers: dict[str, list[dict]]) -> None:
        """Go on from whole tensors."""
        for key, parameter in self.weights.items():
            parameter.copy_(distribute_like(weights[key], parameter))
        for part, optimiser in self.optimisers.items():
            optimiser.load_state_dict(_placed(optimisers[part], optimiser.parameters))


def part_of(name: str) -> str:
    """``backbone``, or the part of the branch that a weight belongs to."""
    part, _, rest = name.partition(".")
    return rest.partition(".")[0] if part == "branch" else "backbone"


def _optimisers(weights: Weights, recipe: Recipe, sharded: bool) -> dict[str, MuonAdamW | FusedAdamW]:
    made: dict[str, MuonAdamW | FusedAdamW] = {}
    for part, settings in recipe.optimisers().items():
        named = {name: p for name, p in weights.items() if name.startswith(part)}
        if not named:
            continue
        if settings.kind == "adamw":
            made[part] = FusedAdamW(list(named.values()), settings.rate, settings.weight_decay)
            continue
        if sharded:
            raise ValueError("Muon needs whole matrices: leave --fsdp out, or use --set optimiser.kind=adamw")
        inner = {n: p for n, p in named.items() if "blocks." in n and p.ndim == 2 and "lora_" not in n}
        others = [p for n, p in named.items() if n not in inner]
        made[part] = MuonAdamW(list(inner.values()), others, settings.muon_rate, settings.rate, settings.weight_decay)
    return made


def _norm(parameters: list[nn.Parameter]) -> torch.Tensor:
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


def _placed(state: list[dict], parameters: list[nn.Parameter]) -> list[dict]:
    """States of optimisers whose tensors lie as their parameters do; :class:`MuonAdamW`'s are never spread."""
    if len(state) != 1:
        return state
    (one,) = state
    placed: dict[int, dict[str, State]] = {
        index: {key: distribute_like(value, parameters[index]) for key, value in entry.items()}
        for index, entry in one["state"].items()
    }
    return [{**one, "state": placed}]
