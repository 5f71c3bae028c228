"""What a backbone learns to predict, as pure functions: the velocity of flow matching (Wan), and v (CogVideoX).

A *noise level* in [0, 1) says how far along the noise a clip is, in the order of the scheduler's timesteps: 0 is clean.

Shapes: B batch, C channels, T latent frames, H height, W width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, NamedTuple, Protocol

import numpy as np
import torch
from pydantic import Field

from prophy.schema import check_fields

TIMESTEPS = 1000  #: of both families
SAMPLINGS = ("uniform", "logit_normal", "shifted")


class Noised(NamedTuple):
    """Clips made noisy: what the network is given, and what it should say.

    Attributes:
        noisy_BCTHW: the network's input.
        target_BCTHW: the network's output, were it perfect.
        timestep_B: float32, as schedulers count, from 0 (clean) to 1000.
    """

    noisy_BCTHW: torch.Tensor
    target_BCTHW: torch.Tensor
    timestep_B: torch.Tensor


@dataclass(frozen=True)
class NoiseLevels:
    """How often training visits each noise level.

    Attributes:
        sampling: ``uniform``; ``logit_normal``, the sigmoid of a normal variable (Esser et al., 2024); ``shifted``,
            uniform and then ``s·u / (1 + (s - 1)·u)``, as samplers with a flow shift visit them.
        mean: of the normal variable.
        std: of the normal variable.
        shift: s; above 1 more noise.

    Raises:
        ValueError: unknown sampling, or a number out of its range.
    """

    sampling: str = "uniform"
    mean: Annotated[float, Field(ge=-100, le=100)] = 0.0
    std: Annotated[float, Field(gt=0, le=100)] = 1.0
    shift: Annotated[float, Field(gt=0, le=1000)] = 3.0

    def __post_init__(self) -> None:
        check_fields(self, "noise")
        if self.sampling not in SAMPLINGS:
            raise ValueError(f"unknown sampling {self.sampling!r} of noise levels: use one of {', '.join(SAMPLINGS)}")

    def draw(self, rng: np.random.Generator) -> float:
        """One noise level in [0, 1)."""
        if self.sampling == "logit_normal":
            return 1 / (1 + math.exp(-rng.normal(self.mean, self.std)))
        uniform = rng.random()
        if self.sampling == "shifted":
            return self.shift * uniform / (1 + (self.shift - 1) * uniform)
        return uniform


class Objective(Protocol):
    """What is predicted, and from what."""

    def noised(self, clean_BCTHW: torch.Tensor, noise_BCTHW: torch.Tensor, level_B: torch.Tensor) -> Noised: ...


class FlowMatching:
    """``(1-σ) x + σ ε``, and the velocity ``ε - x`` (Lipman et al., 2023); the noise level is σ."""

    def noised(self, clean_BCTHW: torch.Tensor, noise_BCTHW: torch.Tensor, level_B: torch.Tensor) -> Noised:
        sigma = level_B.to(clean_BCTHW.dtype).view(-1, 1, 1, 1, 1)
        noisy = (1 - sigma) * clean_BCTHW + sigma * noise_BCTHW
        return Noised(noisy, noise_BCTHW - clean_BCTHW, (TIMESTEPS * level_B).float())


class VPrediction:
    """``√ᾱ x + √(1-ᾱ) ε``, and ``v = √ᾱ ε - √(1-ᾱ) x`` (Salimans and Ho, 2022).

    The plain squared error of v is CogVideoX's own loss: that weighs the error of the predicted clip by ``1 / (1-ᾱ)``,
    and the error of the clip is ``√(1-ᾱ)`` times that of v.

    Args:
        alphas_cumprod: ᾱ at each of the scheduler's timesteps.
    """

    def __init__(self, alphas_cumprod: torch.Tensor) -> None:
        self._alphas_cumprod = alphas_cumprod.float()

    def noised(self, clean_BCTHW: torch.Tensor, noise_BCTHW: torch.Tensor, level_B: torch.Tensor) -> Noised:
        timestep = (level_B.double() * len(self._alphas_cumprod)).long()
        alpha = self._alphas_cumprod[timestep].to(clean_BCTHW.dtype).view(-1, 1, 1, 1, 1)
        keep, drown = alpha.sqrt(), (1 - alpha).sqrt()
        noisy = keep * clean_BCTHW + drown * noise_BCTHW
        return Noised(noisy, keep * noise_BCTHW - drown * clean_BCTHW, timestep.float())


def objective_for(scheduler: object) -> Objective:
    """What a base model predicts, as the configuration of its scheduler says.

    Raises:
        ValueError: something else than the velocity of a flow or v.
    """
    predicted = getattr(scheduler.config, "prediction_type", None)
    if predicted == "v_prediction":
        return VPrediction(scheduler.alphas_cumprod)
    flow = type(scheduler).__name__.startswith("FlowMatch")
    if predicted == "flow_prediction" or flow:
        return FlowMatching()
    raise ValueError(f"the base model predicts {predicted!r}: ProPhy trains flow and v-prediction models")
