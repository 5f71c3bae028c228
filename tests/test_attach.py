"""Attaching: residuals reach a stock transformer exactly once, in the right order of hooks, and leave no trace."""

import contextlib

import pytest
import torch
from accelerate import cpu_offload
from conftest import make_branch, make_transformer
from diffusers import FirstBlockCacheConfig, WanPipeline, WanTransformer3DModel
from diffusers.hooks import apply_group_offloading

from prophy.branch import ProPhyBranch, attach, inject
from prophy.routing.trace import Routing


def make_inputs(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {
        "hidden_states": torch.randn(1, 4, 3, 4, 5),
        "timestep": torch.tensor([700.0]),
        "encoder_hidden_states": torch.randn(1, 7, 24),
    }


def run(transformer: WanTransformer3DModel, context: str | None = None, seed: int = 0) -> torch.Tensor:
    with torch.no_grad(), contextlib.nullcontext() if context is None else transformer.cache_context(context):
        return transformer(**make_inputs(seed), return_dict=False)[0]


def run_by_hand(transformer: WanTransformer3DModel, branch: ProPhyBranch, seed: int = 0) -> torch.Tensor:
    """The stock forward with each residual added after its block, in plain hooks of torch."""
    with torch.no_grad():
        residuals, _ = branch(*make_inputs(seed).values())
    handles = [
        transformer.blocks[site].register_forward_hook(lambda _, __, output, r=residual: output + r)
        for site, residual in zip(branch.injections, residuals, strict=True)
    ]
    output = run(transformer, seed=seed)
    for handle in handles:
        handle.remove()
    return output


# --- once, and only there ---------------------------------------------------------------------------------------------


def test_an_attached_branch_adds_each_residual_once_after_its_block(tiny_transformer, tiny_branch):
    expected = run_by_hand(tiny_transformer, tiny_branch)
    attach(tiny_transformer, tiny_branch)
    assert torch.equal(run(tiny_transformer), expected)


def test_positional_and_named_arguments_are_the_same(tiny_transformer, tiny_branch):
    attach(tiny_transformer, tiny_branch)
    named = run(tiny_transformer)
    with torch.no_grad():
        positional = tiny_transformer(*make_inputs().values()).sample
    assert torch.equal(positional, named)


def test_detach_restores_the_stock_output_bit_for_bit(tiny_transformer, tiny_branch):
    stock = run(tiny_transformer)
    attachment = attach(tiny_transformer, tiny_branch)
    assert not torch.equal(run(tiny_transformer), stock)
    attachment.detach()
    assert torch.equal(run(tiny_transformer), stock)
    attach(tiny_transformer, tiny_branch)
    assert not torch.equal(run(tiny_transformer), stock)


def test_a_disabled_attachment_leaves_the_backbone_alone(tiny_transformer, tiny_branch):
    stock = run(tiny_transformer)
    attachment = attach(tiny_transformer, tiny_branch)
    shaped = run(tiny_transformer)
    attachment.enabled = False
    seen = []
    with attachment.observe(lambda *step: seen.append(step)):
        assert torch.equal(run(tiny_transformer), stock)
    assert seen == []
    attachment.enabled = True
    assert torch.equal(run(tiny_transformer), shaped)


def test_steering_ends_with_its_block_also_when_that_raises(tiny_transformer, tiny_branch):
    attachment = attach(tiny_transformer, tiny_branch)
    plain = run(tiny_transformer)
    muted = torch.tensor([1.0, 0.0, 1.0, 1.0, 1.0])
    shares = []
    with attachment.steer(refinement_scale=muted), attachment.observe(lambda _, r: shares.append(r.probs_BNE[..., 1])):
        steered = run(tiny_transformer)
    assert not shares[0].any()
    assert not torch.equal(steered, plain)
    forced_N, first = torch.full((60,), -1), []
    forced_N[7:19] = 4
    with attachment.steer(forced_N=forced_N), attachment.observe(lambda _, r: first.append(r.topk_ids_BNK[0, :, 0])):
        assert not torch.equal(run(tiny_transformer), plain)
    assert (first[0][7:19] == 4).all()
    with pytest.raises(RuntimeError, match="stop"), attachment.steer(semantic_scale=-torch.ones(6)):
        raise RuntimeError("stop")
    assert torch.equal(run(tiny_transformer), plain)


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ({"semantic_scale": torch.ones(5)}, r"shape \(5,\): give one value for each of 6"),
        ({"refinement_scale": torch.ones(6)}, r"shape \(6,\): give one value for each of 5"),
        ({"refinement_scale": torch.ones(1, 5)}, r"shape \(1, 5\): give one value"),
    ],
)
def test_a_scale_of_the_wrong_length_is_refused(tiny_transformer, tiny_branch, scales: dict, message: str):
    attachment = attach(tiny_transformer, tiny_branch)
    with pytest.raises(ValueError, match=message), attachment.steer(**scales):
        pass


# --- the conditional pass ---------------------------------------------------------------------------------------------


def pipeline_run(pipeline: WanPipeline, guidance: float, steps: int = 3, prompt: str = "a red ball") -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        prompt=prompt,
        height=32,
        width=48,
        num_frames=9,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(1),
        max_sequence_length=8,
        output_type="latent",
    ).frames


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_the_observer_sees_the_conditional_pass_of_every_step_once(tiny_pipeline, guidance: float):
    seen: list[tuple[float, Routing]] = []
    texts = []
    tiny_pipeline.branch.register_forward_pre_hook(lambda _, args: texts.append(args[2].clone()))
    with tiny_pipeline.attachment.observe(lambda timestep, routing: seen.append((timestep, routing))):
        pipeline_run(tiny_pipeline, guidance)
    assert len(texts) == 3 * (2 if guidance > 1 else 1)
    assert [timestep for timestep, _ in seen] == [float(t) for t in tiny_pipeline.scheduler.timesteps]
    prompt, empty = tiny_pipeline.encode_prompt("a red ball", max_sequence_length=8)
    with torch.no_grad():
        expected, other = (tiny_pipeline.branch.semantic.route(text) for text in (prompt, empty))
    assert (expected - other).abs().max() > 1e-3, "the two passes cannot be told apart: the test shows nothing"
    for _, routing in seen:
        torch.testing.assert_close(routing.semantic_logits_BS, expected, rtol=1e-5, atol=1e-6)
        assert routing.probs_BNE.shape == (1, 3 * 4 * 6, 5)


def test_both_passes_receive_their_own_residuals(tiny_pipeline):
    """Guidance far from 1 differs from a run whose unconditional pass has no branch."""
    with torch.no_grad():
        guided = pipeline_run(tiny_pipeline, 4.0)
        tiny_pipeline.attachment.enabled = False
        stock = pipeline_run(tiny_pipeline, 4.0)
    parts = {name: part for name, part in tiny_pipeline.components.items() if name != "branch"}
    tiny_pipeline.attachment.detach()
    with torch.no_grad():
        plain = pipeline_run(WanPipeline(**parts), 4.0)
    assert torch.equal(stock, plain)
    assert not torch.equal(guided, stock)


def test_an_observer_is_removed_when_its_block_raises_and_observers_nest(tiny_transformer, tiny_branch):
    attachment = attach(tiny_transformer, tiny_branch)
    outer, inner = [], []

    def stop(*step) -> None:
        inner.append(step)
        raise RuntimeError("stop")

    with attachment.observe(lambda *step: outer.append(step)):
        with pytest.raises(RuntimeError, match="stop"), attachment.observe(stop):
            run(tiny_transformer)
        run(tiny_transformer)
    run(tiny_transformer)
    assert len(inner) == len(outer) == 1


# --- the order of hooks -----------------------------------------------------------------------------------------------


def test_attaching_twice_is_refused(tiny_transformer, tiny_branch):
    attach(tiny_transformer, tiny_branch)
    with pytest.raises(ValueError, match=r"attached already: call its detach\(\) first"):
        attach(tiny_transformer, tiny_branch)


def test_attaching_after_a_cache_is_refused_and_the_cure_works(tiny_transformer, tiny_branch):
    tiny_transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(RuntimeError, match=r"call transformer.disable_cache\(\), attach the branch, then enable"):
        attach(tiny_transformer, tiny_branch)
    tiny_transformer.disable_cache()
    attach(tiny_transformer, tiny_branch)
    tiny_transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))


def test_attaching_after_offloading_is_refused(tiny_branch):
    offloaded = cpu_offload(make_transformer(), execution_device=torch.device("cpu"))
    with pytest.raises(RuntimeError, match=r"remove_all_hooks\(\), attach the branch, then offload"):
        attach(offloaded, tiny_branch)


@pytest.mark.parametrize(
    "kind", [{"offload_type": "block_level", "num_blocks_per_group": 1}, {"offload_type": "leaf_level"}]
)
def test_attaching_after_group_offloading_is_refused(tiny_branch, kind: dict):
    offloaded = make_transformer()
    apply_group_offloading(offloaded, onload_device=torch.device("cpu"), offload_device=torch.device("cpu"), **kind)
    with pytest.raises(RuntimeError, match="attach the branch before offloading, caching or parallelism"):
        attach(offloaded, tiny_branch)


def test_a_refused_attachment_leaves_the_transformer_as_it_was(tiny_transformer, tiny_branch):
    stock = run(tiny_transformer)
    tiny_transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(RuntimeError):
        attach(tiny_transformer, tiny_branch)
    tiny_transformer.disable_cache()
    assert torch.equal(run(tiny_transformer), stock)


def test_a_cache_enabled_after_attaching_keeps_each_residual_exactly_once(tiny_transformer, tiny_branch):
    """The second step repeats the first: every block but the first is skipped, and the output must be the same."""
    attach(tiny_transformer, tiny_branch)
    expected = run(tiny_transformer)
    tiny_transformer.enable_cache(FirstBlockCacheConfig(threshold=0.5))
    computed = []
    tiny_transformer.blocks[1].attn1.register_forward_hook(lambda *_: computed.append(1))
    first, second = run(tiny_transformer, "cond"), run(tiny_transformer, "cond")
    assert len(computed) == 1, "the cache skipped nothing: the test shows nothing"
    print(f"largest difference of a skipped step: {(second - expected).abs().max():.3g}")
    assert torch.equal(first, expected)
    torch.testing.assert_close(second, expected, rtol=0, atol=2e-6)


def test_a_cached_step_adds_the_residuals_of_the_last_step_computed(tiny_transformer, tiny_branch):
    """What diffusers' cache means for the later sites, kept in mind here: the first site alone stays fresh."""
    attach(tiny_transformer, tiny_branch)
    tiny_transformer.enable_cache(FirstBlockCacheConfig(threshold=1e9))
    first = run(tiny_transformer, "cond", seed=0)
    other = run(tiny_transformer, "cond", seed=1)
    assert not torch.equal(first, other)
    assert torch.isfinite(other).all()


def test_the_observer_sees_skipped_steps_too(tiny_transformer, tiny_branch):
    attachment = attach(tiny_transformer, tiny_branch)
    tiny_transformer.enable_cache(FirstBlockCacheConfig(threshold=1e9))
    seen = []
    with attachment.observe(lambda timestep, _: seen.append(timestep)):
        for _ in range(3):
            run(tiny_transformer, "cond")
            run(tiny_transformer, "uncond")
    assert seen == [700.0] * 3


def test_detaching_under_a_cache_is_refused_and_the_cure_works(tiny_transformer, tiny_branch):
    stock = run(tiny_transformer)
    attachment = attach(tiny_transformer, tiny_branch)
    tiny_transformer.enable_cache(FirstBlockCacheConfig(threshold=0.5))
    with pytest.raises(RuntimeError, match=r"call transformer.disable_cache\(\), detach"):
        attachment.detach()
    tiny_transformer.disable_cache()
    attachment.detach()
    assert torch.equal(run(tiny_transformer), stock)


def test_switching_the_branch_off_under_a_cache_keeps_the_cache(tiny_transformer, tiny_branch):
    stock = run(tiny_transformer)
    attachment = attach(tiny_transformer, tiny_branch)
    tiny_transformer.enable_cache(FirstBlockCacheConfig(threshold=0.5))
    attachment.enabled = False
    assert torch.equal(run(tiny_transformer, "cond"), stock)
    torch.testing.assert_close(run(tiny_transformer, "cond"), stock, rtol=0, atol=2e-6)


# --- training's own injection -----------------------------------------------------------------------------------------


def test_injected_residuals_are_those_of_an_attached_branch_and_carry_gradients(tiny_transformer, tiny_branch):
    tiny_transformer.requires_grad_(False)
    inputs = make_inputs()
    residuals, _ = tiny_branch(*inputs.values())
    stock = run(tiny_transformer)
    with inject(tiny_transformer, tiny_branch, residuals):
        output = tiny_transformer(**inputs, return_dict=False)[0]
        output.square().mean().backward()
    assert torch.equal(output.detach(), run_by_hand(tiny_transformer, tiny_branch))
    for name, p in tiny_branch.projections.named_parameters():
        assert p.grad.abs().max() > 0, name
    assert all(p.grad is None for p in tiny_transformer.parameters())
    assert torch.equal(run(tiny_transformer), stock), "the hooks outlive their block"


def test_injection_keeps_gradients_under_gradient_checkpointing(tiny_transformer, tiny_branch):
    """A checkpointed backbone runs its blocks again in the backward pass: the residuals must be there both times."""
    gradients = []
    for checkpointed in (False, True):
        if checkpointed:
            tiny_transformer.enable_gradient_checkpointing()
        tiny_branch.zero_grad()
        residuals, _ = tiny_branch(*make_inputs().values())
        with inject(tiny_transformer, tiny_branch, residuals):
            tiny_transformer(**make_inputs(), return_dict=False)[0].square().mean().backward()
        gradients.append([p.grad.clone() for p in tiny_branch.projections.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_injection_reads_the_list_anew_in_every_pass(tiny_transformer, tiny_branch):
    with torch.no_grad():
        residuals = [torch.zeros(()), torch.zeros(())]
        stock = run(tiny_transformer)
        with inject(tiny_transformer, tiny_branch, residuals):
            assert torch.equal(run(tiny_transformer), stock)
            residuals[:], _ = tiny_branch(*make_inputs().values())
            assert not torch.equal(run(tiny_transformer), stock)


def test_injection_ends_when_its_block_raises(tiny_transformer, tiny_branch):
    stock = run(tiny_transformer)
    with pytest.raises(RuntimeError, match="stop"), inject(tiny_transformer, tiny_branch, [torch.ones(())] * 2):
        raise RuntimeError("stop")
    assert torch.equal(run(tiny_transformer), stock)


def test_impossible_injections_are_refused(tiny_transformer, tiny_branch):
    with (
        pytest.raises(ValueError, match="1 residuals for 2 injections: pass one for each"),
        inject(tiny_transformer, tiny_branch, [torch.zeros(())]),
    ):
        pass
    attachment = attach(tiny_transformer, tiny_branch)
    with (
        pytest.raises(ValueError, match="attached already"),
        inject(tiny_transformer, tiny_branch, [torch.zeros(())] * 2),
    ):
        pass
    attachment.detach()


def test_a_branch_with_one_site_attaches(tiny_transformer):
    branch = ProPhyBranch.from_transformer(tiny_transformer, sites=[1], num_refinement_experts=3).eval()
    torch.nn.init.ones_(branch.projections[0].bias)
    expected = run_by_hand(tiny_transformer, branch)
    attach(tiny_transformer, branch)
    assert torch.equal(run(tiny_transformer), expected)


def test_two_transformers_can_share_nothing(tiny_branch):
    first, second = make_transformer(), make_transformer()
    stock = run(second)
    attach(first, tiny_branch)
    attach(second, make_branch(second, trained=False))
    assert torch.equal(run(second), stock)
    assert not torch.equal(run(first), stock)
