"""The moving average of weights under training; it is what is published."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class Ema:
    """Exponential moving average of a model's trained parameters.

    Attributes:
        average: by the parameter's name; placed and sharded like the parameter.

    Args:
        model: whose parameters are followed; they must stay the same tensors.
        decay: share of the average that a step keeps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.average = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the parameters; faster in the first steps."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.values()), [p.detach() for p in self._parameters.values()], 1 - decay)

    @torch.no_grad()
    def load(self, average: dict[str, torch.Tensor]) -> None:
        """Go on from an average that was kept."""
        for name, tensor in self.average.items():
            tensor.copy_(average[name])

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside the block the parameters hold their average."""
        live = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        self._fill(self.average)
        try:
            yield
        finally:
            self._fill(live)

    @torch.no_grad()
    def _fill(self, values: dict[str, torch.Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(values[name])
