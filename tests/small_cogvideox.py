"""A small real CogVideoX: the very classes of the full ones, with random weights and a few thousand parameters."""

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXTransformer3DModel
from transformers import T5Config, T5EncoderModel

from prophy.backbones.cogvideox import ProPhyCogVideoXPipeline
from prophy.tiny.text import build_tokenizer

#: latents (B, T, C, H, W) of the transformer below, with no two sizes equal, and their tokens
LATENTS = (3, 4, 8, 12)
TOKENS = 3 * 4 * 6


def make_cogvideox(kind: str = "5B", **changes) -> CogVideoXTransformer3DModel:
    """Three blocks, width 32; ``5B`` has rotary positions, ``2B`` adds positions to its tokens."""
    torch.manual_seed(5)
    config = {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "in_channels": 4,
        "out_channels": 4,
        "time_embed_dim": 12,
        "text_embed_dim": 24,
        "num_layers": 3,
        "sample_width": 12,
        "sample_height": 10,
        "sample_frames": 9,
        "patch_size": 2,
        "max_text_seq_length": 7,
        "use_rotary_positional_embeddings": kind == "5B",
    }
    return CogVideoXTransformer3DModel(**{**config, **changes}).eval()


def make_cogvideox_pipeline(transformer: CogVideoXTransformer3DModel, branch=None) -> ProPhyCogVideoXPipeline:
    """Tokens of 16 pixels, prompts of 7 tokens, CogVideoX's own scheduler settings."""
    torch.manual_seed(7)
    tokenizer = build_tokenizer(["a red ball bounces on the floor", "a blue candle burns on the left"])
    encoder = T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer), d_model=24, d_kv=12, d_ff=32, num_layers=1, num_heads=2, is_encoder_decoder=False
        )
    )
    vae = AutoencoderKLCogVideoX(
        down_block_types=["CogVideoXDownBlock3D"] * 4,
        up_block_types=["CogVideoXUpBlock3D"] * 4,
        block_out_channels=[8, 8, 8, 8],
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        scaling_factor=0.7,
    )
    scheduler = CogVideoXDDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=3.0,
        timestep_spacing="trailing",
    )
    return ProPhyCogVideoXPipeline(tokenizer, encoder.eval(), vae.eval(), transformer, scheduler, branch)
