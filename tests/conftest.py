"""Small real models: the very classes of the full ones, with random weights and a few thousand parameters."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

from prophy.backbones.wan import ProPhyWanPipeline
from prophy.branch import ProPhyBranch
from prophy.tiny.text import build_tokenizer
from prophy.worlds import sample_scenario

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs a GPU is skipped where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device here"))


def make_transformer() -> WanTransformer3DModel:
    """Three blocks, width 32, 4 latent channels; every parameter random, so that nothing cancels by chance."""
    torch.manual_seed(5)
    transformer = WanTransformer3DModel(
        patch_size=(1, 1, 1),
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        text_dim=24,
        freq_dim=16,
        ffn_dim=48,
        num_layers=3,
        rope_max_seq_len=32,
    )
    return transformer.eval()


def make_branch(transformer: WanTransformer3DModel, *, trained: bool, **config) -> ProPhyBranch:
    """A branch at blocks 0 and 2; ``trained`` gives its projections and experts values, else they are zero."""
    torch.manual_seed(6)
    shape = {
        "sites": [0, 2],
        "num_semantic_experts": 6,
        "num_refinement_experts": 5,
        "top_k": 2,
        "reference_grid": [3, 4, 5],
        "map_hidden": 8,
    }
    branch = ProPhyBranch.from_transformer(transformer, **{**shape, **config})
    if trained:
        for projection in branch.projections:
            torch.nn.init.normal_(projection.weight, std=0.1)
        torch.nn.init.normal_(branch.refinement.weight_EDD, std=0.05)
    return branch.eval()


@pytest.fixture
def tiny_transformer() -> WanTransformer3DModel:
    return make_transformer()


@pytest.fixture
def zero_branch(tiny_transformer) -> ProPhyBranch:
    return make_branch(tiny_transformer, trained=False)


@pytest.fixture
def tiny_branch(tiny_transformer) -> ProPhyBranch:
    return make_branch(tiny_transformer, trained=True)


def make_text_encoder(words: int) -> UMT5EncoderModel:
    """One layer, width 24."""
    config = UMT5Config(
        vocab_size=words, d_model=24, d_kv=12, d_ff=32, num_layers=1, num_heads=2, is_encoder_decoder=False
    )
    return UMT5EncoderModel(config).eval()


def make_vae(base_dim: int, latents_mean=(0.0,) * 4, latents_std=(1.0,) * 4) -> AutoencoderKLWan:
    """4 latent channels, the full model's factors of 8 in space and 4 in time."""
    vae = AutoencoderKLWan(
        base_dim=base_dim,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=list(latents_mean),
        latents_std=list(latents_std),
    )
    return vae.eval()


def make_pipeline(transformer: WanTransformer3DModel, branch: ProPhyBranch) -> ProPhyWanPipeline:
    """A pipeline around them, its other parts small and always the same."""
    torch.manual_seed(7)
    tokenizer = build_tokenizer(["a red ball bounces on the floor", "a blue candle burns on the left"])
    return ProPhyWanPipeline(
        tokenizer=tokenizer,
        text_encoder=make_text_encoder(len(tokenizer)),
        vae=make_vae(8),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=2.0),
        transformer=transformer,
        branch=branch,
    )


@pytest.fixture
def tiny_pipeline(tiny_transformer, tiny_branch) -> ProPhyWanPipeline:
    return make_pipeline(tiny_transformer, tiny_branch)


def write_base(folder: Path, captions: Sequence[str]) -> Path:
    """Write a small base model that knows the words of these captions, as its makers publish one: without a branch."""
    torch.manual_seed(7)
    tokenizer = build_tokenizer(captions)
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=2.0)
    parts = tokenizer, make_text_encoder(len(tokenizer)), make_vae(4), scheduler, make_transformer()
    WanPipeline(*parts).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small base model that knows the worlds' words."""
    return write_base(tmp_path_factory.mktemp("base"), [sample_scenario(seed)[1] for seed in range(40)])


@pytest.fixture(scope="module")
def browser():
    """A chromium without a window."""
    from chromium import ARGUMENTS, CHROMIUM
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()
