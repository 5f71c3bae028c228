"""Semantic Expert Block: which physics the prompt asks for, video level (section 3.2, eq. 1).

Shapes: B batch, L text length, D text width, S experts, C latent channels, T latent frames, H height, W width.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from prophy.branch.precision import without_autocast
from prophy.branch.scales import steered_softmax


class SemanticExpertBlock(nn.Module):
    """``X~ = X + Σ_e ρ_s[e] · B_e``: a text router weighs learnable basis maps.

    All experts take part: with small batches a top-k choice collapses onto a few (paper). The basis maps live in latent
    space on a reference grid and are resampled to any size (ours: a token-space map per expert would outweigh a 1.3B
    backbone).

    Args:
        num_experts: S.
        channels: C.
        text_dim: D.
        reference_grid: (T, H, W) of the basis maps.
    """

    def __init__(self, num_experts: int, channels: int, text_dim: int, reference_grid: tuple[int, int, int]) -> None:
        super().__init__()
        self.basis_SCTHW = nn.Parameter(0.02 * torch.randn(num_experts, channels, *reference_grid))
        self.router = nn.Sequential(
            nn.LayerNorm(text_dim), nn.Linear(text_dim, text_dim), nn.SiLU(), nn.Linear(text_dim, num_experts)
        )

    def route(self, text_BLD: torch.Tensor) -> torch.Tensor:
        """Router logits ``(B, S)`` in float32, from the mean over the prompt's tokens (padding rows are zero)."""
        present = text_BLD.abs().amax(-1, keepdim=True).gt(0)
        mean = (text_BLD.float() * present).sum(1) / present.sum(1).clamp(min=1)
        # the router computes in float32: bf16 ties make the weights jump between equal prompts
        with without_autocast(text_BLD):
            x = mean
            for layer in self.router:
                weight = getattr(layer, "weight", None)
                x = layer(x) if weight is None else _in_float32(layer, x)
        return x

    def forward(
        self, latents_BCTHW: torch.Tensor, text_BLD: torch.Tensor, scale_S: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Enhance the latent.

        Args:
            scale_S: steering, see :func:`prophy.branch.scales.steered_softmax`.

        Returns:
            ``X~`` like ``latents_BCTHW``; logits ``(B, S)`` before steering and weights ``(B, S)`` after, both float32.

        Raises:
            ValueError: every expert is muted.
        """
        logits_BS = self.route(text_BLD)
        weights_BS = steered_softmax(logits_BS, scale_S)
        basis = self.basis_SCTHW
        if basis.shape[2:] != latents_BCTHW.shape[2:]:
            basis = functional.interpolate(
                basis.float(), latents_BCTHW.shape[2:], mode="trilinear", align_corners=False
            )
        physics = torch.einsum("bs,scthw->bcthw", weights_BS, basis.float())
        return latents_BCTHW + physics.to(latents_BCTHW.dtype), logits_BS, weights_BS


def _in_float32(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Run a linear or normalisation layer in float32, whatever its parameters are stored in."""
    if isinstance(layer, nn.Linear):
        return functional.linear(x, layer.weight.float(), layer.bias.float())
    return functional.layer_norm(x, layer.normalized_shape, layer.weight.float(), layer.bias.float(), layer.eps)
