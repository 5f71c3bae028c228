"""Memory profiles: every mode keeps the branch and its numbers, modes follow each other, a shortage names its cure."""

import gc
import weakref

import numpy as np
import pytest
import torch
from accelerate.hooks import AlignDevicesHook
from conftest import make_branch
from diffusers.hooks import apply_group_offloading
from diffusers.hooks.group_offloading import ModuleGroup
from small_cogvideox import make_cogvideox, make_cogvideox_pipeline

from prophy.generation.generate import GenerationSettings, generate
from prophy.memory.offload import OutOfMemory, apply, branch_groups, profile_of, watch_memory
from prophy.memory.profiles import PROFILES, OffloadMode, Profile, Stage, next_profile

SETTINGS = GenerationSettings("a red ball bounces", steps=2, frames=9, height=32, width=48)
CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator"))


def branch_calls(pipeline) -> list[int]:
    """Grows by one with every call of the branch's blocks, seen inside all offloading."""
    calls = []
    for i, norm in enumerate(block.norm1 for block in pipeline.branch.blocks):
        norm.register_forward_hook(lambda *_, i=i: calls.append(i))
    return calls


# --- modes ------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["wan", "cogvideox"])
def pipeline(request, tiny_pipeline):
    """A small pipeline of each family, its branch at blocks 0 and 2."""
    if request.param == "wan":
        return tiny_pipeline
    transformer = make_cogvideox()
    return make_cogvideox_pipeline(transformer, make_branch(transformer, trained=True))


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_every_mode_makes_the_same_clip_with_the_same_routing_one_after_the_other(pipeline, device: str):
    """On one pipeline, so that each mode also leaves the last one behind."""
    calls = branch_calls(pipeline)
    expected = generate(pipeline, SETTINGS)
    per_clip = len(calls)
    assert per_clip >= 2 * 2, "two blocks, two steps"
    for mode in (*OffloadMode, OffloadMode.GROUP, OffloadMode.ALL):
        calls.clear()
        apply(pipeline, Profile(mode), device)
        for _ in range(2):  # a second clip finds what the first left
            made = generate(pipeline, SETTINGS)
        assert len(calls) == 2 * per_clip, mode
        assert profile_of(pipeline) == Profile(mode)
        assert made.model_sha256 == expected.model_sha256, mode
        if device == "cpu":
            assert np.array_equal(made.frames, expected.frames), mode
            assert np.array_equal(made.trace.topk_ids, expected.trace.topk_ids), mode
        else:
            assert np.abs(made.frames.astype(int) - expected.frames).max() <= 2, mode


@pytest.mark.parametrize("mode", list(OffloadMode))
def test_previews_come_in_every_mode(tiny_pipeline, mode: OffloadMode):
    """They encode a few pictures first, outside the pipeline's own call."""
    apply(tiny_pipeline, Profile(mode), "cpu")
    previews = []
    generate(tiny_pipeline, SETTINGS, on_step=previews.append)
    assert [preview.step for preview in previews] == [1, 2]


@pytest.fixture
def absent_when_offloaded(monkeypatch):
    """Group offloading that spoils the weights it takes away, as they are no use there on an accelerator."""
    kept = {}

    def tensors(group: ModuleGroup) -> list[torch.Tensor]:
        own = [t for module in group.modules for t in (*module.parameters(), *module.buffers())]
        return [t for t in (*own, *group.parameters, *group.buffers) if t.is_floating_point()]

    def offload(group: ModuleGroup) -> None:
        for tensor in tensors(group):
            if id(tensor) not in kept:
                kept[id(tensor)] = tensor.data
                tensor.data = torch.full_like(tensor, float("nan"))

    def onload(group: ModuleGroup) -> None:
        for tensor in tensors(group):
            if id(tensor) in kept:
                tensor.data = kept.pop(id(tensor))

    monkeypatch.setattr(ModuleGroup, "offload_", offload)
    monkeypatch.setattr(ModuleGroup, "onload_", onload)


@pytest.mark.parametrize("mode", [OffloadMode.GROUP, OffloadMode.SEQUENTIAL])
def test_no_weight_is_read_where_it_was_offloaded_to(pipeline, absent_when_offloaded, mode: OffloadMode):
    expected = generate(pipeline, SETTINGS)
    apply(pipeline, Profile(mode), "cpu")
    assert any(p.isnan().any() for p in pipeline.branch.parameters()), "nothing was taken away"
    for _ in range(2):
        made = generate(pipeline, SETTINGS)
        assert np.array_equal(made.frames, expected.frames)
        assert np.array_equal(made.trace.topk_ids, expected.trace.topk_ids)


def test_offloading_a_branch_block_by_block_as_diffusers_would_reads_weights_that_are_away(
    tiny_branch, absent_when_offloaded
):
    """Why a branch has groups of its own; should this pass one day, they can go."""
    inputs = torch.randn(1, 4, 3, 4, 5), torch.tensor([700.0]), torch.randn(1, 7, 24)
    cpu = torch.device("cpu")
    with torch.no_grad():
        assert all(residual.isfinite().all() for residual in tiny_branch(*inputs)[0])
        apply_group_offloading(tiny_branch, cpu, cpu, offload_type="block_level", num_blocks_per_group=1)
        residuals, routing = tiny_branch(*inputs)
    assert residuals[0].isfinite().all()
    assert residuals[1].isnan().any()
    assert routing.phenomenon_map_BNP.isnan().any()


def test_sequential_leaves_no_weight_of_the_backbone_in_place_and_gives_all_back(tiny_pipeline):
    names = {name: parameter.clone() for name, parameter in tiny_pipeline.transformer.named_parameters()}
    apply(tiny_pipeline, Profile(OffloadMode.SEQUENTIAL), "cpu")
    assert {p.device.type for p in tiny_pipeline.transformer.parameters()} == {"meta"}
    assert isinstance(tiny_pipeline.transformer.blocks[0].attn1.to_q._hf_hook, AlignDevicesHook)
    apply(tiny_pipeline, Profile(OffloadMode.ALL), "cpu")
    for name, parameter in tiny_pipeline.transformer.named_parameters():
        assert torch.equal(parameter, names[name]), name


@pytest.mark.parametrize("mode", [OffloadMode.GROUP, OffloadMode.SEQUENTIAL])
def test_all_of_a_branch_travels_and_only_whole_blocks_travel_alone(tiny_pipeline, mode: OffloadMode):
    """Weights that are read without a call of their module would stay behind, which a CPU cannot show."""
    branch = tiny_pipeline.branch
    apply(tiny_pipeline, Profile(mode), "cpu")
    together, alone = branch_groups(branch)
    travelling = [id(p) for module in (*together, *alone) for p in module.parameters()]
    assert sorted(travelling) == sorted(id(p) for p in branch.parameters())
    hooked = [module for module in branch.modules() if "group_offloading" in _hooks(module)]
    assert hooked == [branch, *branch.blocks[:-1]] == [branch, *alone]


def _hooks(module: torch.nn.Module) -> list[str]:
    registry = getattr(module, "_diffusers_hook", None)
    return [] if registry is None else list(registry.hooks)


def test_group_brings_the_blocks_of_backbone_and_text_encoder_one_by_one(tiny_pipeline):
    apply(tiny_pipeline, Profile(OffloadMode.GROUP), "cpu")
    assert all("group_offloading" in _hooks(block) for block in tiny_pipeline.transformer.blocks)
    assert all("group_offloading" in _hooks(block) for block in tiny_pipeline.text_encoder.encoder.block)
    apply(tiny_pipeline, Profile(OffloadMode.ALL), "cpu")
    for part in (tiny_pipeline.transformer, tiny_pipeline.text_encoder, tiny_pipeline.branch):
        assert not any("group_offloading" in _hooks(module) for module in part.modules())


def test_tiling_follows_the_profile(tiny_pipeline):
    for tiling in (True, False):
        apply(tiny_pipeline, Profile(OffloadMode.ALL, tiling), "cpu")
        assert tiny_pipeline.vae.use_tiling is tiling


def test_a_device_that_is_not_there_changes_nothing(tiny_pipeline):
    apply(tiny_pipeline, Profile(OffloadMode.SEQUENTIAL), "cpu")
    with pytest.raises(ValueError, match="torch has no device 'mtia' here: use cpu"):
        apply(tiny_pipeline, Profile(OffloadMode.ALL), "mtia")
    assert profile_of(tiny_pipeline) == Profile(OffloadMode.SEQUENTIAL)
    assert generate(tiny_pipeline, SETTINGS).trace is not None


def test_residuals_are_let_go_of_after_each_pass(tiny_pipeline):
    """Held until the next pass they would lie beside the next ones, and beside the decoder."""
    seen = []

    def keep(_, __, output):
        seen.extend(weakref.ref(residual) for residual in output[0])

    tiny_pipeline.branch.register_forward_hook(keep)
    at_decoding = []
    decode = tiny_pipeline.vae.decode
    tiny_pipeline.vae.decode = lambda *args, **kwargs: (
        at_decoding.extend(ref() for ref in seen),
        decode(*args, **kwargs),
    )[1]
    generate(tiny_pipeline, SETTINGS)
    assert len(at_decoding) == 2 * 2 * 2
    assert set(at_decoding) == {None}


# --- names and order --------------------------------------------------------------------------------------------------


def test_profiles_are_read_as_they_are_written():
    for profile in PROFILES:
        assert Profile.parse(str(profile)) == profile
    with pytest.raises(ValueError, match=r"no memory profile 'tiny': use one of all, all\+tiling, model"):
        Profile.parse("tiny")


def test_the_next_profile_needs_less_where_memory_ran_out():
    assert next_profile(Profile(OffloadMode.ALL)) == Profile(OffloadMode.MODEL)
    assert next_profile(Profile(OffloadMode.ALL), Stage.DECODING) == Profile(OffloadMode.ALL, tiling=True)
    assert next_profile(Profile(OffloadMode.MODEL, True), Stage.DECODING) == Profile(OffloadMode.GROUP, True)
    assert next_profile(Profile(OffloadMode.SEQUENTIAL), Stage.DECODING) == Profile(OffloadMode.SEQUENTIAL, True)
    for stage in Stage:
        profile, seen = Profile(OffloadMode.ALL), []
        while profile is not None:
            seen.append(profile)
            profile = next_profile(profile, stage)
        assert len(set(seen)) == len(seen) >= len(OffloadMode)
        assert seen[-1].mode is OffloadMode.SEQUENTIAL


# --- shortage ---------------------------------------------------------------------------------------------------------


def test_an_allocation_that_fails_becomes_one_line_with_the_next_profile():
    def generate_too_much() -> None:
        with watch_memory(Profile(OffloadMode.MODEL)) as watch:
            watch.stage = Stage.DECODING
            torch.empty(2**55, dtype=torch.uint8)  # no machine has this

    with pytest.raises(OutOfMemory) as caught:
        generate_too_much()
    error = caught.value
    assert (error.stage, error.next_profile) == (Stage.DECODING, Profile(OffloadMode.MODEL, tiling=True))
    assert str(error) == (
        "memory ran out during decoding in the profile model (33554432.0 GiB more were asked for): "
        "use the memory profile model+tiling"
    )


def test_the_accelerators_own_error_counts_and_the_last_profile_says_so():
    message = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of"
    expected = r"\(20.00 MiB more were asked for\): make the clip smaller or shorter"
    with pytest.raises(OutOfMemory, match=expected), watch_memory(Profile(OffloadMode.SEQUENTIAL, tiling=True)):
        raise torch.OutOfMemoryError(message)


def test_other_errors_pass_through():
    with pytest.raises(RuntimeError, match="shapes"), watch_memory(Profile(OffloadMode.ALL)):
        raise RuntimeError("shapes differ")


def test_after_a_shortage_its_tensors_are_gone_while_the_error_is_still_held():
    held = []

    def fail() -> None:
        tensor = torch.ones(4)
        held.append(weakref.ref(tensor))
        torch.empty(2**55, dtype=torch.uint8)

    with pytest.raises(OutOfMemory) as caught, watch_memory(Profile(OffloadMode.ALL)):
        fail()
    gc.collect()
    assert caught.value is not None
    assert held[0]() is None


def test_a_generation_that_runs_out_of_memory_says_during_what_and_what_to_try(tiny_pipeline, monkeypatch):
    apply(tiny_pipeline, Profile(OffloadMode.MODEL), "cpu")

    def out_of_memory(*arguments, **keywords):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB.")

    with monkeypatch.context() as patched:
        patched.setattr(tiny_pipeline.vae, "decode", out_of_memory)
        with pytest.raises(OutOfMemory, match="during decoding .* model .*2.50 GiB"):
            generate(tiny_pipeline, SETTINGS)
    with monkeypatch.context() as patched:
        patched.setattr(tiny_pipeline.transformer.blocks[1], "forward", out_of_memory)
        with pytest.raises(OutOfMemory, match="during denoising .* use .* group") as error:
            generate(tiny_pipeline, SETTINGS)
    apply(tiny_pipeline, error.value.next_profile, "cpu")
    assert generate(tiny_pipeline, SETTINGS).frames.shape == (9, 32, 48, 3)
