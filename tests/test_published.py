"""The published backbones: their configurations build models of the published sizes, and a clip of each divides."""

import diffusers
import pytest
import torch
import transformers

from prophy.catalogue.families import facts_of
from prophy.catalogue.published import PUBLISHED, PublishedModel

#: parameters of one transformer, of the autoencoder and of the text encoder. The transformers of Wan2.1-1.3B, 14B and
#: CogVideoX-5B are known from their published weights; the others are what these configurations build
COUNTS = {
    "wan2.1-1.3b": (1_418_996_800, 126_892_531, 5_680_910_336),
    "wan2.1-14b": (14_288_491_584, 126_892_531, 5_680_910_336),
    "wan2.2-a14b": (14_288_491_584, 126_892_531, 5_680_910_336),
    "wan2.2-ti2v-5b": (4_999_787_712, 704_688_668, 5_680_910_336),
    "cogvideox-2b": (1_693_783_872, 215_583_907, 4_762_310_656),
    "cogvideox-5b": (5_570_283_072, 215_583_907, 4_762_310_656),
}


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("key", COUNTS)
def test_the_published_configurations_build_models_of_the_published_sizes(key: str):
    model = PUBLISHED[key]
    encoder = getattr(transformers, model.text_encoder_class)
    with torch.device("meta"):
        parts = (
            getattr(diffusers, model.transformer_class)(**model.transformer),
            getattr(diffusers, model.vae_class)(**model.vae),
            encoder(encoder.config_class(**model.text_encoder)),
        )
    assert tuple(count(part) for part in parts) == COUNTS[key]


def test_every_published_model_is_counted():
    assert PUBLISHED.keys() == COUNTS.keys()


@pytest.mark.parametrize("model", PUBLISHED.values(), ids=lambda model: model.name)
def test_the_recommended_clip_of_each_model_divides_into_tokens(model: PublishedModel):
    rules = facts_of(model.transformer_class).clip_rules(model.transformer, model.vae, model.text_tokens)
    grid = rules.grid(model.frames, model.height, model.width)
    assert grid.num_video_frames == model.frames
    text = model.transformer["text_dim" if model.transformer_class.startswith("Wan") else "text_embed_dim"]
    assert text == model.text_encoder["d_model"]
    assert model.transformer["in_channels"] == rules.channels
    assert model.text_tokens == rules.text_tokens
