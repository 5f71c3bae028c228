"""A model under training: its optimiser and the moving average of its weights, which is what ships."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from prophy.training.checkpoints import State
from prophy.training.optim import MuonAdamW


def split_parameters(
    model: nn.Module, inside: tuple[str, ...] = ("blocks.",)
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Matrices inside blocks (names with one of ``inside`` in them), for Muon, and the rest, for AdamW."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    inner = [p for name, p in named if p.ndim == 2 and any(part in name for part in inside)]
    chosen = {id(p) for p in inner}
    return inner, [p for _, p in named if id(p) not in chosen]


class Ema:
    """Exponential moving average of a model's trained parameters."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.average = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the parameters; faster in the first steps."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.values()), [p.detach() for p in self._parameters.values()], 1 - decay)


class Learner:
    """Everything that a step changes about one model, saved and restored as a whole.

    Args:
        model: with the weights that training starts from.
        muon_rate: peak learning rate of the matrices inside blocks.
        adamw_rate: peak learning rate of everything else.
        weight_decay: decoupled weight decay of both.
        ema: decay of the average.
        inside: what the names of the blocks' parameters contain.
    """

    def __init__(
        self,
        model: nn.Module,
        muon_rate: float,
        adamw_rate: float,
        weight_decay: float,
        ema: float,
        inside: tuple[str, ...] = ("blocks.",),
    ) -> None:
        self.model = model
        self._optimiser = MuonAdamW(*split_parameters(model, inside), muon_rate, adamw_rate, weight_decay)
        self._ema = Ema(model, ema)

    def step(self, step: int, rate_share: float) -> None:
        """Update the model from its gradients, at ``rate_share`` of the peak learning rates, then clear them."""
        self._optimiser.set_rate(rate_share)
        nn.utils.clip_grad_norm_(self._optimiser.parameters, 1.0)
        self._optimiser.step()
        self._ema.update(step)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside the block the model holds the average of its weights."""
        live = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.model.load_state_dict({**live, **self._ema.average})
        try:
            yield
        finally:
            self.model.load_state_dict(live)

    def state_dict(self) -> dict[str, State]:
        return {
            "model": self.model.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "ema": self._ema.average,
        }

    def load_state_dict(self, state: dict[str, State]) -> None:
        """Go on from a :meth:`state_dict`; other entries are ignored."""
        self.model.load_state_dict(state["model"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._ema.average.update(state["ema"])
