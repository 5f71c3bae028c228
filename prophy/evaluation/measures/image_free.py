"""The image-free control: how well can the map be guessed from the prompt and the token's position alone?

Captions say "on the left", balls lie on the floor and smoke is above chimneys: a map that only knows such things can
score well without looking. This model is trained on the same clips, for as many steps and on the same targets as the
branch, and never sees a latent. What the branch's map scores above it, it got from the picture.

Shapes: B batch, N tokens, L text length, D text width, W control width, P phenomena.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import UMT5EncoderModel

from prophy.branch.losses import fine_align_loss
from prophy.data.encode import encode_text
from prophy.data.latents import LatentCache
from prophy.evaluation.judges.fit import train_judge
from prophy.phenomena import IDS
from prophy.schema import AtLeastOne, BatchSize, LearningRate, LossWeight, Seed, Width, check_fields
from prophy.training.devices import autocast
from prophy.training.recipes import tiny_together


@dataclass(frozen=True)
class ImageFreeRecipe:
    """How the control is trained: steps, batch and the background's weight are the branch's own."""

    steps: AtLeastOne = tiny_together().steps
    batch: BatchSize = tiny_together().batch
    background: LossWeight = tiny_together().align_background
    width: Width = 128
    layers: Width = 2
    heads: Width = 4
    rate: LearningRate = 2e-3
    weight_decay: LossWeight = 0.01
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_fields(self)


class _Layer(nn.Module):
    """Cross-attention to the prompt, then an MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_read, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 3 * width), nn.SiLU(), nn.Linear(3 * width, width))

    def forward(self, x_BNW: torch.Tensor, text_BLW: torch.Tensor, present_BL: torch.Tensor) -> torch.Tensor:
        def split(t: torch.Tensor) -> torch.Tensor:
            return t.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        key, value = self.key_value(text_BLW).chunk(2, -1)
        query = self.query(self.before_read(x_BNW))
        read = functional.scaled_dot_product_attention(
            split(query), split(key), split(value), attn_mask=present_BL[:, None, None]
        )
        x_BNW = x_BNW + self.out(read.transpose(1, 2).flatten(2))
        return x_BNW + self.mlp(self.before_mlp(x_BNW))


class ImageFreeMap(nn.Module):
    """Text and position to phenomenon maps.

    Args:
        text_dim: D.
        tokens: N.
        recipe: its size.
    """

    def __init__(self, text_dim: int, tokens: int, recipe: ImageFreeRecipe) -> None:
        super().__init__()
        self.positions = nn.Parameter(0.5 * torch.randn(tokens, recipe.width))
        self.text = nn.Sequential(nn.LayerNorm(text_dim), nn.Linear(text_dim, recipe.width))
        self.layers = nn.ModuleList(_Layer(recipe.width, recipe.heads) for _ in range(recipe.layers))
        self.head = nn.Sequential(nn.LayerNorm(recipe.width), nn.Linear(recipe.width, len(IDS)))

    def forward(self, text_BLD: torch.Tensor) -> torch.Tensor:
        """Embeddings, zero after the prompt's end, to maps ``(B, N, P)``."""
        present_BL = text_BLD.abs().amax(-1) > 0
        text_BLW = self.text(text_BLD)
        x_BNW = self.positions.expand(len(text_BLD), -1, -1)
        for layer in self.layers:
            x_BNW = layer(x_BNW, text_BLW, present_BL)
        return self.head(x_BNW)


def train_image_free(cache: LatentCache, encoder: UMT5EncoderModel, recipe: ImageFreeRecipe) -> ImageFreeMap:
    """Train the control on captions and masks of training clips; their latents are not looked at."""
    torch.manual_seed(recipe.seed)
    device = encoder.device
    model = ImageFreeMap(encoder.config.d_model, cache.grid.num_tokens, recipe).train().to(device)

    def loss_at(step: int) -> torch.Tensor:
        rng = np.random.default_rng([recipe.seed, step])
        rows = np.sort(rng.integers(0, len(cache), recipe.batch))
        ids = cache.ids[rows, rng.integers(0, cache.ids.shape[1], recipe.batch)]
        with autocast(device, torch.bfloat16):
            with torch.no_grad():
                text_BLD = encode_text(encoder, torch.from_numpy(ids.astype(np.int64)).to(device))
            maps_BNP = model(text_BLD)
        targets, labels = cache.targets(rows).to(device), cache.labels(rows).to(device)
        return fine_align_loss(maps_BNP, targets, labels, recipe.background)

    train_judge(model, loss_at, recipe, "image-free control", warm_up=0.1)
    return model.eval()


@torch.no_grad()
def image_free_maps(model: ImageFreeMap, cache: LatentCache, encoder: UMT5EncoderModel, batch: int = 32) -> np.ndarray:
    """Its maps for the first caption of every clip, float32 ``(n, N, P)``."""
    parts = []
    for start in range(0, len(cache), batch):
        ids = torch.from_numpy(cache.ids[start : start + batch, 0].astype(np.int64))
        parts.append(model(encode_text(encoder, ids.to(encoder.device))).float().cpu().numpy())
    return np.concatenate(parts)
