"""Small real vision-language models: the classes of the full ones, random weights, and a tokenizer made on the spot."""

from __future__ import annotations

from functools import cache

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
FAMILIES = ("qwen2_5_vl", "qwen3_vl", "qwen3_5")


@cache
def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte level, no merges: any text, one token a byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({byte: i for i, byte in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def make_model(
    family: str,
    *,
    layers: int = 4,
    width: int = 64,
    heads: int = 4,
    patch: int = 4,
    layer_types: list[str] | None = None,
) -> PreTrainedModel:
    """Random weights, large enough that attention and answers are far from uniform."""
    tokenizer = make_tokenizer()
    ids = dict(zip(SPECIAL, tokenizer.convert_tokens_to_ids(list(SPECIAL)), strict=True))
    head_width = width // heads
    sections = [head_width // 8, 3 * head_width // 16, 3 * head_width // 16]
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": sections},
        "max_position_embeddings": 32768,
    }
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "out_hidden_size": width,
        "patch_size": patch,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    tokens = {"image_token_id": ids["<|image_pad|>"], "video_token_id": ids["<|video_pad|>"]}
    tokens |= {"vision_start_token_id": ids["<|vision_start|>"], "vision_end_token_id": ids["<|vision_end|>"]}
    if family == "qwen2_5_vl":
        vision |= {"window_size": 4 * patch, "fullatt_block_indexes": [1], "tokens_per_second": 2}
        config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **tokens)
        cls = Qwen2_5_VLForConditionalGeneration
    elif family == "qwen3_vl":
        vision |= {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64}
        config = Qwen3VLConfig(text_config=text | {"head_dim": head_width}, vision_config=vision, **tokens)
        cls = Qwen3VLForConditionalGeneration
    else:
        text |= {
            "head_dim": head_width,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "layer_types": layer_types or ["linear_attention", "full_attention"] * (layers // 2),
            "rope_parameters": text["rope_parameters"] | {"partial_rotary_factor": 1.0},
        }
        vision |= {"num_position_embeddings": 64}
        config = Qwen3_5Config(text_config=text, vision_config=vision, **tokens)
        cls = Qwen3_5ForConditionalGeneration
    torch.manual_seed(11)
    config._attn_implementation = "sdpa"
    model = cls(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=1.5 / parameter.shape[1] ** 0.5)
            elif parameter.ndim == 1 and name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.1)
            elif name.endswith("q_norm.weight"):
                torch.nn.init.uniform_(parameter, 1, 3)
    model.generation_config.eos_token_id = None
    return model
