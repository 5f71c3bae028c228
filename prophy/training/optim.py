"""Muon for the matrices and convolution kernels inside a network, AdamW for everything else, as one optimiser."""

from __future__ import annotations

import torch


class MuonAdamW:
    """Muon (Jordan et al., 2024) and AdamW behind one interface.

    Convolution kernels are given to Muon as matrices (output channels × everything else) that share their storage.

    Args:
        matrices: parameters for Muon, at least two-dimensional.
        others: parameters for AdamW.
        muon_rate: learning rate of Muon, in its original scaling.
        adamw_rate: learning rate of AdamW.
        weight_decay: decoupled weight decay of both.
    """

    def __init__(
        self,
        matrices: list[torch.nn.Parameter],
        others: list[torch.nn.Parameter],
        muon_rate: float,
        adamw_rate: float,
        weight_decay: float = 0.0,
    ) -> None:
        self._matrices, self.parameters = matrices, [*matrices, *others]
        self._flat = [torch.nn.Parameter(_as_matrix(p.data)) for p in matrices]
        for p, flat in zip(matrices, self._flat, strict=True):
            if p.data_ptr() != flat.data_ptr():
                raise ValueError("a kernel is not laid out channels-last: call channels_last(model) first")
        self._optimisers = [torch.optim.AdamW(others, lr=adamw_rate, betas=(0.9, 0.98), weight_decay=weight_decay)]
        if matrices:
            muon = torch.optim.Muon(self._flat, lr=muon_rate, weight_decay=weight_decay, adjust_lr_fn="original")
            self._optimisers.append(muon)
        self._rates = [optimiser.param_groups[0]["lr"] for optimiser in self._optimisers]

    def set_rate(self, share: float) -> None:
        """Scale both learning rates to ``share`` of their peak."""
        for optimiser, rate in zip(self._optimisers, self._rates, strict=True):
            optimiser.param_groups[0]["lr"] = rate * share

    @property
    def rate(self) -> float:
        """AdamW's learning rate now."""
        return self._optimisers[0].param_groups[0]["lr"]

    def step(self) -> None:
        """Update every parameter from its gradient, then clear the gradients."""
        for p, flat in zip(self._matrices, self._flat, strict=True):
            flat.grad = None if p.grad is None else _as_matrix(p.grad)
        for optimiser in self._optimisers:
            optimiser.step()
        for p in (*self.parameters, *self._flat):
            p.grad = None

    def state_dict(self) -> list[dict]:
        return [optimiser.state_dict() for optimiser in self._optimisers]

    def load_state_dict(self, state: list[dict]) -> None:
        for optimiser, saved in zip(self._optimisers, state, strict=True):
            optimiser.load_state_dict(saved)


def _as_matrix(tensor: torch.Tensor) -> torch.Tensor:
    """A view of a kernel ``(out, in, ...)`` as ``(out, ... · in)``, in channels-last order."""
    if tensor.ndim == 2:
        return tensor
    return tensor.permute(0, *range(2, tensor.ndim), 1).reshape(tensor.shape[0], -1)


class FusedAdamW:
    """AdamW in one kernel, with the interface of :class:`MuonAdamW`.

    Args:
        parameters: to update.
        rate: learning rate.
        weight_decay: decoupled.
    """

    def __init__(self, parameters: list[torch.nn.Parameter], rate: float, weight_decay: float) -> None:
        self.parameters = parameters
        self._rate = rate
        self._optimiser = torch.optim.AdamW(
            parameters, lr=rate, betas=(0.9, 0.95), weight_decay=weight_decay, fused=True
        )

    def set_rate(self, share: float) -> None:
        """Scale the learning rate to ``share`` of its peak."""
        self._optimiser.param_groups[0]["lr"] = self._rate * share

    @property
    def rate(self) -> float:
        """The learning rate now."""
        return self._optimiser.param_groups[0]["lr"]

    def step(self) -> None:
        """Update every parameter from its gradient, then clear the gradients."""
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict]:
        return [self._optimiser.state_dict()]

    def load_state_dict(self, state: list[dict]) -> None:
        self._optimiser.load_state_dict(state[0])


class OneCycleAdamW:
    """AdamW with one cycle of learning rate and momentum (Smith and Topin, 2019), which it keeps itself.

    Args:
        parameters: to update.
        rate: peak learning rate.
        steps: of the cycle.
        warm_up: share of the steps in which the rate rises.
        weight_decay: decoupled.
        beta: decay of the squared gradients.
    """

    def __init__(
        self,
        parameters: list[torch.nn.Parameter],
        rate: float,
        *,
        steps: int,
        warm_up: float,
        weight_decay: float,
        beta: float = 0.999,
    ) -> None:
        self.parameters = parameters
        self._optimiser = torch.optim.AdamW(parameters, rate, betas=(0.9, beta), weight_decay=weight_decay)
        if steps * warm_up == 1:  # torch divides by the steps between the first one and the peak
            warm_up *= 1 + 1e-9
        self._cycle = torch.optim.lr_scheduler.OneCycleLR(self._optimiser, rate, total_steps=steps, pct_start=warm_up)

    @property
    def rate(self) -> float:
        """The learning rate now."""
        return self._optimiser.param_groups[0]["lr"]

    def step(self) -> None:
        """Update every parameter from its gradient, clear the gradients, and turn the cycle on."""
        self._optimiser.step()
        self._optimiser.zero_grad()
        self._cycle.step()

    def state_dict(self) -> list[dict]:
        return [self._optimiser.state_dict(), self._cycle.state_dict()]

    def load_state_dict(self, state: list[dict]) -> None:
        self._optimiser.load_state_dict(state[0])
        self._cycle.load_state_dict(state[1])
