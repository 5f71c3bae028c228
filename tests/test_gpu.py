"""What only a CUDA device can show: ``pytest -m gpu``. Everywhere else all of it is skipped."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_branch, make_transformer
from small_training import RECIPE, losses_of, run
from torch.nn import functional

import prophy
from prophy.branch import attach
from prophy.branch.refinement import RefinementExpertBlock
from prophy.data.latents import LatentCache
from prophy.evaluation.measures.localisation import attention_maps, read_routing
from prophy.generation.generate import generate
from prophy.generation.settings import GenerationSettings
from prophy.memory.offload import apply
from prophy.memory.profiles import PROFILES, OffloadMode, Profile
from prophy.training.checkpoints import load_checkpoint
from prophy.training.optim import FusedAdamW
from prophy.training.recipes import tiny
from prophy.training.trainer import Running

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]

CUDA = "cuda"
SETTINGS = GenerationSettings("a red ball bounces on the floor", steps=4)


# --- kernels ----------------------------------------------------------------------------------------------------------


def one_by_one(block: RefinementExpertBlock, x_BND: torch.Tensor) -> torch.Tensor:
    """Eq. 2 with every expert on every token, in float64 on the CPU, with the choices that the block made."""
    routing = block.route(functional.layer_norm(x_BND, x_BND.shape[-1:], block.norm.weight, block.norm.bias))
    x = x_BND.detach().cpu().double().requires_grad_(True)
    weight, bias = block.weight_EDD.detach().cpu().double(), block.bias_ED.detach().cpu().double()
    shares = (routing.topk_weights_BNK / routing.topk_weights_BNK.sum(-1, keepdim=True)).detach().cpu().double()
    answers_BNED = torch.einsum("bnd,edf->bnef", x, weight) + bias
    ids_BNKD = routing.topk_ids_BNK.cpu()[..., None].expand(-1, -1, -1, x.shape[-1])
    return x + (shares[..., None] * answers_BNED.gather(2, ids_BNKD)).sum(2)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-3), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("favoured", [0.0, 30.0])  # groups of all sizes; or some experts that no token chooses
def test_the_grouped_products_give_what_the_experts_would_one_by_one(
    dtype: torch.dtype, tolerance: float, favoured: float
):
    torch.manual_seed(0)
    block = RefinementExpertBlock(64, 8, 2)
    torch.nn.init.normal_(block.weight_EDD, std=0.1)
    torch.nn.init.normal_(block.bias_ED, std=0.1)
    with torch.no_grad():
        block.router.bias[:3] += favoured
    block.to(CUDA, dtype)
    x = torch.randn(2, 333, 64, device=CUDA, dtype=dtype, requires_grad=True)  # no multiple of a tile
    found, _ = block(x)
    wanted = one_by_one(block, x)
    assert torch.linalg.vector_norm(found.cpu() - wanted) <= tolerance * torch.linalg.vector_norm(wanted)
    found.float().square().sum().backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    if favoured:
        assert not block.weight_EDD.grad[3:].any(), "an expert without tokens learnt"


def test_a_fresh_branch_leaves_the_backbone_bit_identical():
    transformer = make_transformer().to(CUDA, torch.bfloat16)
    branch = make_branch(transformer, trained=False).to(CUDA, torch.bfloat16)
    made = {"device": CUDA, "dtype": torch.bfloat16}
    inputs = torch.randn(1, 4, 3, 4, 4, **made), torch.tensor([500.0], device=CUDA), torch.randn(1, 6, 24, **made)
    with torch.no_grad():
        alone = transformer(*inputs, return_dict=False)[0]
        with attach(transformer, branch).observe(lambda *_: None):
            beside = transformer(*inputs, return_dict=False)[0]
    assert torch.equal(alone, beside)


# --- generating -------------------------------------------------------------------------------------------------------


def frames_of(pipeline) -> np.ndarray:
    return generate(pipeline, SETTINGS).frames.astype(int)


@pytest.mark.shipped
def test_the_embedded_model_makes_the_cpus_frames():
    wanted = frames_of(prophy.load(device="cpu", profile="all"))
    found = frames_of(prophy.load(device=CUDA, dtype=torch.float32, profile="all"))
    difference = np.abs(found - wanted)
    assert difference.max() <= 8
    assert difference.mean() < 0.2


@pytest.mark.shipped
def test_every_memory_profile_makes_the_same_frames():
    pipeline = prophy.load(device=CUDA, dtype=torch.float32, profile="all")
    wanted = frames_of(pipeline)
    for profile in PROFILES:
        apply(pipeline, profile, CUDA)
        difference = np.abs(frames_of(pipeline) - wanted)
        assert difference.max() <= (40 if profile.tiling else 1), profile  # tiles are blended where they meet
    apply(pipeline, Profile(OffloadMode.GROUP), CUDA)
    torch.cuda.reset_peak_memory_stats()
    frames_of(pipeline)
    in_group = torch.cuda.max_memory_allocated()
    apply(pipeline, Profile(OffloadMode.ALL), CUDA)
    torch.cuda.reset_peak_memory_stats()
    frames_of(pipeline)
    assert in_group < torch.cuda.max_memory_allocated(), "offloading saves nothing"


# --- measuring --------------------------------------------------------------------------------------------------------


def test_routing_and_attention_are_read_as_on_the_cpu(tiny_pipeline):
    rng = np.random.default_rng(0)
    cache = LatentCache(
        latents=rng.normal(size=(3, 4, 3, 4, 4)).astype(np.float16),
        ids=rng.integers(1, 8, (3, 4, 12)).astype(np.int16),
        masks=rng.integers(0, 256, (3, 2, 48)).astype(np.uint8),
        phenomena=np.array([[0, -1], [1, 2], [3, -1]], np.int8),
    )
    read = [read_routing(tiny_pipeline, cache, 0.5, 2)]
    seen = [attention_maps(tiny_pipeline, cache, 0.5, 2)]
    tiny_pipeline.to(CUDA)
    read.append(read_routing(tiny_pipeline, cache, 0.5, 2))
    seen.append(attention_maps(tiny_pipeline, cache, 0.5, 2))
    np.testing.assert_allclose(seen[0], seen[1], atol=2e-3)
    for name, wanted in vars(read[0]).items():
        found = getattr(read[1], name)
        if name != "topk_nNK":  # equal probabilities may change places
            np.testing.assert_allclose(wanted, found, atol=2e-3, err_msg=name)


# --- training ---------------------------------------------------------------------------------------------------------

MUON = replace(RECIPE, steps=8, optimiser=replace(tiny().optimiser, warm_up=2, decay="constant"))


@pytest.mark.parametrize("recipe", [replace(RECIPE, steps=8), MUON], ids=["adamw", "muon"])
@pytest.mark.parametrize(("first", "then"), [("cpu", CUDA), (CUDA, "cpu"), (CUDA, CUDA)])
def test_a_training_moves_between_cpu_and_gpu(tmp_path: Path, recipe, first: str, then: str):
    watched = Running(log_every=1, device=then)
    run(tmp_path / "whole", recipe, watched)
    run(tmp_path / "here", recipe, Running(log_every=1, device=first, minutes=0.0))
    before = load_checkpoint(tmp_path / "here" / "checkpoint")
    assert before["step"] == 1
    assert {tensor.device.type for tensor in before["weights"].values()} == {"cpu"}
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    run(tmp_path / "there", recipe, watched)
    whole, moved = losses_of(tmp_path / "whole"), losses_of(tmp_path / "there")
    assert len(whole) == len(moved) == 8
    assert [a["total"] for a in whole] == pytest.approx([b["total"] for b in moved], rel=5e-3)


def test_a_training_runs_in_bfloat16_compiled_and_with_workers(tmp_path: Path):
    recipe = replace(MUON, precision="bfloat16")
    run(tmp_path / "plain", recipe, Running(log_every=1, device=CUDA, workers=2))
    run(tmp_path / "compiled", recipe, Running(log_every=1, device=CUDA, workers=2, compiled=True))
    plain, compiled = losses_of(tmp_path / "plain"), losses_of(tmp_path / "compiled")
    assert [a["diffusion"] for a in plain] == pytest.approx([b["diffusion"] for b in compiled], rel=3e-2)


def test_a_fused_optimiser_goes_on_with_moments_that_were_on_another_device():
    weight = torch.nn.Parameter(torch.ones(3))
    first = FusedAdamW([weight], 0.1, 0.0)
    weight.grad = torch.ones(3)
    first.step()
    there = torch.nn.Parameter(weight.detach().to(CUDA))
    second = FusedAdamW([there], 0.1, 0.0)
    second.load_state_dict(first.state_dict())
    for parameter, optimiser in ((weight, first), (there, second)):
        parameter.grad = torch.ones_like(parameter)
        optimiser.step()
    assert torch.allclose(weight, there.cpu())
