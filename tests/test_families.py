"""The backbone families: CogVideoX as exact as Wan, Wan2.2's timesteps per token, and its two transformers."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_branch, make_transformer
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    FirstBlockCacheConfig,
    WanTransformer3DModel,
)
from small_cogvideox import LATENTS, TOKENS, make_cogvideox, make_cogvideox_pipeline
from torch.utils._pytree import tree_map

from prophy.backbones import COGVIDEOX
from prophy.backbones.pipeline import ProPhyPipeline
from prophy.backbones.wan import ProPhyWanPipeline
from prophy.branch import ProPhyBranch, attach, inject
from prophy.branch.family import FAMILIES
from prophy.catalogue.limits import ClipSize
from prophy.catalogue.published import PUBLISHED
from prophy.cli import main
from prophy.generation.generate import GenerationError, GenerationSettings, generate
from prophy.generation.pipelines import fastest_profile, load
from prophy.memory.plan import GIB
from prophy.memory.stages import parts_of, passes
from prophy.routing.schedule import Schedule

KINDS = ("2B", "5B")


def make_inputs(transformer: CogVideoXTransformer3DModel, batch: int = 2, latents: tuple = LATENTS) -> dict:
    """What the stock pipeline hands its transformer, rotary positions included."""
    torch.manual_seed(0)
    frames, _, height, width = latents
    rotary = None
    if transformer.config.use_rotary_positional_embeddings:
        pipeline = make_cogvideox_pipeline(transformer)
        rotary = pipeline._prepare_rotary_positional_embeddings(8 * height, 8 * width, frames, torch.device("cpu"))
    return {
        "hidden_states": torch.randn(batch, *latents),
        "encoder_hidden_states": torch.randn(batch, 7, 24),
        "timestep": torch.tensor([900, 30])[:batch],
        "image_rotary_emb": rotary,
    }


def branch_inputs(inputs: dict) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return inputs["hidden_states"].transpose(1, 2), inputs["timestep"], inputs["encoder_hidden_states"]


def run(transformer: torch.nn.Module, inputs: dict, context: str | None = None) -> torch.Tensor:
    with torch.no_grad(), contextlib.nullcontext() if context is None else transformer.cache_context(context):
        return transformer(**inputs, return_dict=False)[0]


def run_by_hand(transformer: CogVideoXTransformer3DModel, branch: ProPhyBranch, inputs: dict) -> torch.Tensor:
    """The stock forward with each residual added to the video half of its block's output, in plain hooks of torch."""
    with torch.no_grad():
        residuals, _ = branch(*branch_inputs(inputs))
    handles = [
        transformer.transformer_blocks[site].register_forward_hook(lambda _, __, out, r=r: (out[0] + r, out[1]))
        for site, r in zip(branch.injections, residuals, strict=True)
    ]
    output = run(transformer, inputs)
    for handle in handles:
        handle.remove()
    return output


@pytest.fixture(params=KINDS)
def cogvideox(request) -> CogVideoXTransformer3DModel:
    return make_cogvideox(request.param)


# --- CogVideoX beside its branch --------------------------------------------------------------------------------------


def test_a_zero_branch_leaves_cogvideox_bit_identical(cogvideox):
    inputs = make_inputs(cogvideox)
    stock = run(cogvideox, inputs)
    attachment = attach(cogvideox, make_branch(cogvideox, trained=False))
    assert torch.equal(run(cogvideox, inputs), stock)
    attachment.detach()
    attach(cogvideox, make_branch(cogvideox, trained=True))
    assert (run(cogvideox, inputs) - stock).abs().max() > 1e-3, "trained, it does nothing: the test shows nothing"


def test_an_attached_branch_adds_each_residual_once_to_the_video_tokens(cogvideox):
    branch, inputs = make_branch(cogvideox, trained=True), make_inputs(cogvideox)
    stock, expected = run(cogvideox, inputs), run_by_hand(cogvideox, branch, inputs)
    attachment = attach(cogvideox, branch)
    assert torch.equal(run(cogvideox, inputs), expected)
    with torch.no_grad():
        positional = [inputs.pop(name) for name in ("hidden_states", "encoder_hidden_states", "timestep")]
        assert torch.equal(cogvideox(*positional, **inputs).sample, expected)
    inputs = make_inputs(cogvideox)
    attachment.detach()
    assert torch.equal(run(cogvideox, inputs), stock)


@pytest.mark.parametrize("latents", [LATENTS, (3, 4, 10, 12), (1, 4, 4, 4)])
def test_the_branch_runs_cogvideox_embedders_positions_and_blocks_exactly(cogvideox, latents: tuple):
    """Without basis maps and experts the branch's first block sees and says exactly what the backbone's says."""
    branch = make_branch(cogvideox, trained=False)
    with torch.no_grad():
        branch.semantic.basis_SCTHW.zero_()
        branch.projections[0].weight.copy_(torch.eye(32))
    seen = []
    cogvideox.transformer_blocks[0].register_forward_hook(lambda *event: seen.append(event[2][0]))
    inputs = make_inputs(cogvideox, latents=latents)
    run(cogvideox, inputs)
    with torch.no_grad():
        residuals, _ = branch(*branch_inputs(inputs))
    assert torch.equal(residuals[0], seen[0])


def test_cogvideox_run_refined_block_that_refines_nothing_is_the_stock_block(cogvideox):
    branch, block = make_branch(cogvideox, trained=False), cogvideox.transformer_blocks[1]
    with torch.no_grad():
        inputs = COGVIDEOX.embed(branch.embedders, *branch_inputs(make_inputs(cogvideox)))
        stock = COGVIDEOX.run_block(block, inputs.hidden, inputs)
        ours = COGVIDEOX.run_refined_block(block, inputs.hidden, inputs, lambda x: x)
    print(f"largest difference: {max((a - b).abs().max() for a, b in zip(stock, ours, strict=True)):.3g}")
    for theirs, mine in zip(stock, ours, strict=True):
        assert torch.equal(mine, theirs)


def test_cogvideox_refinement_sits_between_attention_and_feed_forward_on_video_tokens_only(cogvideox):
    branch, block, order = make_branch(cogvideox, trained=False), cogvideox.transformer_blocks[1], []
    for name in ("attn1", "ff"):
        getattr(block, name).register_forward_hook(lambda *_, name=name: order.append(name))

    def refine(x: torch.Tensor) -> torch.Tensor:
        order.append(tuple(x.shape))
        return x + 1

    with torch.no_grad():
        inputs = COGVIDEOX.embed(branch.embedders, *branch_inputs(make_inputs(cogvideox)))
        video, text = COGVIDEOX.run_refined_block(block, inputs.hidden, inputs, refine)
        stock_video, stock_text = COGVIDEOX.run_block(block, inputs.hidden, inputs)
    assert order[:3] == ["attn1", (2, TOKENS, 32), "ff"]
    assert not torch.equal(video, stock_video)
    assert torch.equal(text, stock_text)


def test_cogvideox_routing_has_a_row_for_each_video_token(cogvideox):
    with torch.no_grad():
        residuals, routing = make_branch(cogvideox, trained=True)(*branch_inputs(make_inputs(cogvideox)))
    assert [tuple(r.shape) for r in residuals] == [(2, TOKENS, 32)] * 2
    assert routing.probs_BNE.shape == (2, TOKENS, 5)


def test_a_saved_cogvideox_branch_comes_back_equal(cogvideox, tmp_path):
    branch = make_branch(cogvideox, trained=True)
    branch.save_pretrained(tmp_path)
    again = ProPhyBranch.from_pretrained(tmp_path).eval()
    again.check_fits(cogvideox)
    assert all(torch.equal(value, branch.state_dict()[name]) for name, value in again.state_dict().items())
    inputs = branch_inputs(make_inputs(cogvideox))
    with torch.no_grad():
        (first, _), (second, _) = branch(*inputs), again(*inputs)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_cogvideox_branch_computes_in_bfloat16_and_routes_in_float32(cogvideox, tmp_path):
    make_branch(cogvideox, trained=True).save_pretrained(tmp_path)
    small = ProPhyBranch.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    # a GPU refuses a layer norm whose weights are float32 and whose input is bfloat16
    assert {p.dtype for p in small.blocks.parameters()} == {torch.bfloat16}
    latents, timestep, text = branch_inputs(make_inputs(cogvideox))
    with torch.no_grad():
        residuals, routing = small(latents.bfloat16(), timestep, text.bfloat16())
    assert {residual.dtype for residual in residuals} == {torch.bfloat16}
    assert routing.probs_BNE.dtype == routing.semantic_weights_BS.dtype == torch.float32


def test_gradient_checkpointing_of_a_cogvideox_branch_gives_identical_gradients(cogvideox):
    branch = make_branch(cogvideox, trained=True).train()
    inputs = branch_inputs(make_inputs(cogvideox))
    gradients = []
    for checkpointed in (False, True):
        if checkpointed:
            branch.enable_gradient_checkpointing()
        branch.zero_grad()
        residuals, routing = branch(*inputs)
        loss = sum(r.square().mean() for r in residuals) + routing.phenomenon_map_BNP.square().mean()
        (loss + branch.labels_from_semantics(routing.semantic_weights_BS).square().mean()).backward()
        gradients.append({name: p.grad.clone() for name, p in branch.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() == dict(branch.named_parameters()).keys()
    for name, gradient in gradients[0].items():
        # attention is blind to a constant added to every key
        assert gradient.abs().max() > 0 or name.endswith("to_k.bias"), f"{name} receives no gradient"
        assert torch.equal(gradients[1][name], gradient), name


def test_residuals_injected_into_cogvideox_carry_gradients_under_gradient_checkpointing(cogvideox):
    branch, inputs = make_branch(cogvideox, trained=True), make_inputs(cogvideox)
    expected, gradients = run_by_hand(cogvideox, branch, inputs), []
    for checkpointed in (False, True):
        if checkpointed:
            cogvideox.enable_gradient_checkpointing()
        branch.zero_grad()
        residuals, _ = branch(*branch_inputs(inputs))
        with inject(cogvideox, branch, residuals):
            output = cogvideox(**inputs, return_dict=False)[0]
            output.square().mean().backward()
        assert torch.equal(output.detach(), expected)
        gradients.append([p.grad.clone() for p in branch.projections.parameters()])
    assert all(a.abs().max() > 0 and torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_a_cache_enabled_after_attaching_keeps_each_residual_of_cogvideox_exactly_once(cogvideox):
    branch, inputs = make_branch(cogvideox, trained=True), make_inputs(cogvideox)
    expected = run_by_hand(cogvideox, branch, inputs)
    attach(cogvideox, branch)
    cogvideox.enable_cache(FirstBlockCacheConfig(threshold=0.5))
    computed = []
    cogvideox.transformer_blocks[1].attn1.register_forward_hook(lambda *_: computed.append(1))
    first, second = (run(cogvideox, inputs, "cond_uncond") for _ in range(2))
    assert len(computed) == 1, "the cache skipped nothing: the test shows nothing"
    assert torch.equal(first, expected)
    torch.testing.assert_close(second, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_channels": 8}, "image-to-video CogVideoX: ProPhy attaches to text-to-video"),
        ({"ofs_embed_dim": 12}, "image-to-video CogVideoX"),
        ({"patch_size_t": 2, "patch_bias": False}, "CogVideoX 1.5.*use CogVideoX 2B or 5B"),
    ],
)
def test_a_cogvideox_that_no_branch_fits_is_refused(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        ProPhyBranch.from_transformer(make_cogvideox(**changes), sites=[0])


def test_a_branch_of_one_cogvideox_is_refused_beside_the_other():
    branch = make_branch(make_cogvideox("5B"), trained=False)
    with pytest.raises(ValueError, match="use_rotary_positional_embeddings=True, this one has False"):
        attach(make_cogvideox("2B"), branch)
    with pytest.raises(ValueError, match="belongs to a CogVideoXTransformer3DModel, not a WanTransformer3DModel"):
        attach(make_transformer(), branch)


# --- generating with CogVideoX ----------------------------------------------------------------------------------------

CLIP = {"steps": 3, "frames": 9, "height": 64, "width": 96}


def test_cogvideox_generates_with_a_trace_that_lines_up_and_live_previews(cogvideox):
    pipeline = make_cogvideox_pipeline(cogvideox, make_branch(cogvideox, trained=True))
    settings, previews = GenerationSettings("a red ball bounces", seed=3, **CLIP), []
    result = generate(pipeline, settings, on_step=previews.append)
    assert result.frames.shape == (9, 64, 96, 3)
    assert result.trace.grid.shape == (3, 4, 6)
    assert result.trace.timesteps.tolist() == pipeline.scheduler.timesteps.tolist()
    assert [preview.frames.shape for preview in previews] == [(3, 8, 12, 3)] * 3
    assert (previews[-1].top1 == result.trace.top1()).all()
    again = generate(pipeline, settings)
    assert (again.frames == result.frames).all()
    pipeline.attachment.enabled = False
    without = generate(pipeline, settings)
    assert without.trace is None
    assert (without.frames != result.frames).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 72}, "96×72 pixels do not divide into this model's steps of 16: use 96×64"),
        ({"width": 101}, "101×64 pixels do not divide into this model's steps of 16: use 96×64"),
        # its autoencoder decodes an even number of latent frames to four pictures each, the first one too
        ({"frames": 13}, r"frames=13 is not 1 \+ 8k, all this model can make: use 17"),
        ({"frames": 5}, r"frames=5 is not 1 \+ 8k, all this model can make: use 9"),
        ({"prompt": "a red ball bounces on the floor"}, "8 tokens long and the model reads 7: shorten it"),
    ],
)
def test_what_cogvideox_cannot_make_is_refused_before_any_step(changes: dict, message: str):
    pipeline, calls = make_cogvideox_pipeline(make_cogvideox()), []
    for part in (pipeline.transformer, pipeline.text_encoder, pipeline.vae):
        part.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(GenerationError, match=message):
        generate(pipeline, GenerationSettings(**{"prompt": "a red ball", **CLIP, **changes}))
    assert calls == []


def test_only_the_conditional_half_of_cogvideox_batches_is_recorded(cogvideox):
    pipeline = make_cogvideox_pipeline(cogvideox, make_branch(cogvideox, trained=True))
    batches = []
    cogvideox.register_forward_pre_hook(lambda _, __, kw: batches.append(len(kw["timestep"])), with_kwargs=True)
    guided, plain = (
        generate(pipeline, GenerationSettings("a red ball bounces", guidance=g, **{**CLIP, "steps": 1})).trace
        for g in (6.0, 1.0)
    )
    assert batches == [2, 1]
    # the first step starts from the same noise, and without guidance there is only the conditional row
    assert (guided.topk_ids == plain.topk_ids).all()
    torch.testing.assert_close(torch.tensor(guided.semantic_logits), torch.tensor(plain.semantic_logits))


@pytest.mark.parametrize("scheduler", [CogVideoXDDIMScheduler, CogVideoXDPMScheduler])
@pytest.mark.parametrize("guidance", [1.0, 6.0])
@pytest.mark.parametrize("unconditional", [True, False])
def test_each_clip_of_a_cogvideox_batch_keeps_its_own_routing(scheduler, guidance: float, unconditional: bool):
    transformer = make_cogvideox()
    pipeline = make_cogvideox_pipeline(transformer, make_branch(transformer, trained=True))
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
    schedule = Schedule(unconditional=unconditional)
    one = GenerationSettings("a red ball bounces", seed=3, guidance=guidance, schedule=schedule, **CLIP)
    # the same noise: in the first step only the text tells two clips of one batch from one clip's two passes
    for made in generate(pipeline, [one, replace(one, prompt="a blue candle burns")]):
        alone = generate(pipeline, made.settings)
        assert np.abs(made.frames.astype(int) - alone.frames).max() <= 1
        np.testing.assert_allclose(made.trace.semantic_logits, alone.trace.semantic_logits, atol=1e-4)
        np.testing.assert_allclose(made.trace.mean_probs, alone.trace.mean_probs, atol=1e-4)


# --- Wan2.2 -----------------------------------------------------------------------------------------------------------


def test_the_observer_gets_the_step_also_when_some_tokens_are_conditioned(tiny_transformer, tiny_branch):
    """Wan2.2 TI2V: one timestep a token, and 0 for the tokens of a given first frame."""
    torch.manual_seed(0)
    timestep = torch.full((1, 60), 700.0)
    timestep[:, :20] = 0
    seen = []
    with attach(tiny_transformer, tiny_branch).observe(lambda step, _: seen.append(step)):
        run(
            tiny_transformer,
            {
                "hidden_states": torch.randn(1, 4, 3, 4, 5),
                "timestep": timestep,
                "encoder_hidden_states": torch.randn(1, 7, 24),
            },
        )
    assert seen == [700.0]


def patched(**changes) -> WanTransformer3DModel:
    """The tiny Wan with Wan2.2's patches of two by two latent cells."""
    torch.manual_seed(5)
    return WanTransformer3DModel.from_config({**make_transformer().config, "patch_size": (1, 2, 2), **changes}).eval()


def test_a_pipeline_with_a_timestep_for_each_token_generates_and_is_traced(tiny_pipeline):
    transformer = patched()
    names = ("tokenizer", "text_encoder", "vae", "scheduler")
    parts = {name: tiny_pipeline.components[name] for name in names}
    pipeline = ProPhyWanPipeline(
        **parts, transformer=transformer, branch=make_branch(transformer, trained=True), expand_timesteps=True
    )
    shapes = []
    transformer.register_forward_pre_hook(
        lambda _, __, kw: shapes.append(tuple(kw["timestep"].shape)), with_kwargs=True
    )
    trace = generate(pipeline, GenerationSettings("a red ball", steps=3, frames=9, height=64, width=96)).trace
    assert shapes == [(1, 3 * 4 * 6)] * 6, "the pipeline gave no timestep a token: the test shows nothing"
    assert trace.grid.shape == (3, 4, 6)
    assert trace.timesteps.tolist() == pipeline.scheduler.timesteps.tolist()


@pytest.fixture
def two_stages(tiny_pipeline) -> ProPhyWanPipeline:
    """Wan2.2 A14B in small: two transformers of one shape and different weights."""
    tiny_pipeline.attachment.detach()
    second = make_transformer()
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.mul_(0.9)
    parts = {**tiny_pipeline.components, "transformer_2": second}
    return ProPhyWanPipeline(**parts, boundary_ratio=0.875)


def test_one_branch_serves_two_transformers_and_one_trace_covers_all_steps(two_stages):
    calls = []
    for name in ("transformer", "transformer_2"):
        getattr(two_stages, name).register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    settings = GenerationSettings("a red ball", seed=3, steps=6, guidance=1.0, frames=9, height=32, width=48)
    result = generate(two_stages, settings)
    assert set(calls) == {"transformer", "transformer_2"}, "one of the two did nothing: the test shows nothing"
    assert calls == sorted(calls)
    assert result.trace.timesteps.tolist() == two_stages.scheduler.timesteps.tolist()
    two_stages.attachment.enabled = False
    assert (generate(two_stages, settings).frames != result.frames).any()


def test_detaching_frees_both_transformers(two_stages):
    torch.manual_seed(0)
    inputs = {
        "hidden_states": torch.randn(1, 4, 3, 4, 5),
        "timestep": torch.tensor([700.0]),
        "encoder_hidden_states": torch.randn(1, 7, 24),
    }
    transformers = two_stages.transformer, two_stages.transformer_2
    shaped = [run(transformer, inputs) for transformer in transformers]
    two_stages.transformer_2.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(RuntimeError, match="a cache is enabled"):
        two_stages.attachment.detach()
    two_stages.transformer_2.disable_cache()
    two_stages.attachment.detach()
    for transformer, before in zip(transformers, shaped, strict=True):
        assert not torch.equal(run(transformer, inputs), before)
    attachment = attach(transformers, two_stages.branch)
    seen = []
    with attachment.observe(lambda step, _: seen.append(step)):
        for transformer, before in zip(transformers, shaped, strict=True):
            assert torch.equal(run(transformer, inputs), before)
    assert seen == [700.0, 700.0]


def test_a_branch_that_fits_one_of_two_transformers_is_refused_and_neither_is_hooked(tiny_transformer, tiny_branch):
    shallow = WanTransformer3DModel.from_config({**tiny_transformer.config, "num_layers": 2})
    with pytest.raises(ValueError, match="fits only one of the pipeline's transformers.*num_layers=3") as caught:
        attach((tiny_transformer, shallow), tiny_branch)
    assert "\n" not in str(caught.value)
    attach(tiny_transformer, tiny_branch)  # would be refused if a hook were left


def test_a_cache_on_the_second_transformer_is_refused_and_the_first_is_not_hooked(tiny_transformer, tiny_branch):
    second = make_transformer()
    second.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(RuntimeError, match="a cache is enabled"):
        attach((tiny_transformer, second), tiny_branch)
    second.disable_cache()
    attach((tiny_transformer, second), tiny_branch)


def test_attaching_to_nothing_is_refused(tiny_branch):
    with pytest.raises(ValueError, match="no transformer to attach the branch to"):
        attach((), tiny_branch)


def test_a_wan_that_takes_an_image_in_extra_channels_is_refused():
    with pytest.raises(ValueError, match="image-to-video Wan"):
        ProPhyBranch.from_transformer(patched(in_channels=9), sites=[0])


# --- what the plan counts ---------------------------------------------------------------------------------------------


def whole_frames(**changes) -> CogVideoXTransformer3DModel:
    """CogVideoX 1.5 in small: tokens span two latent frames."""
    return make_cogvideox("5B", patch_size_t=2, patch_bias=False, **changes)


def small_pipelines(wan: ProPhyWanPipeline) -> dict[str, tuple[ProPhyPipeline, ClipSize]]:
    """Each way in which a stock pipeline calls its transformer, with a clip whose sizes all differ."""
    parts = {name: wan.components[name] for name in ("tokenizer", "text_encoder", "vae", "scheduler")}
    per_token = ProPhyWanPipeline(**parts, transformer=patched(), expand_timesteps=True)
    return {
        "wan": (wan, ClipSize(48, 32, 9)),
        "wan, a timestep for each token": (per_token, ClipSize(96, 64, 9)),
        "wan, unguided": (wan, ClipSize(48, 32, 9, guided=False)),
        "cogvideox 2b": (make_cogvideox_pipeline(make_cogvideox("2B", sample_height=8)), ClipSize(96, 64, 9)),
        "cogvideox 5b": (make_cogvideox_pipeline(make_cogvideox("5B")), ClipSize(96, 64, 9)),
        "cogvideox 5b, unguided": (make_cogvideox_pipeline(make_cogvideox("5B")), ClipSize(96, 64, 9, guided=False)),
        "cogvideox 1.5": (make_cogvideox_pipeline(whole_frames()), ClipSize(96, 80, 17)),
        "cogvideox 1.5, one more": (make_cogvideox_pipeline(whole_frames()), ClipSize(96, 80, 9)),
    }


def shapes(tree: object) -> object:
    return tree_map(lambda leaf: (tuple(leaf.shape), leaf.dtype) if isinstance(leaf, torch.Tensor) else leaf, tree)


def test_the_plan_calls_every_transformer_with_what_its_pipeline_calls_it_with(tiny_pipeline):
    for name, (pipeline, clip) in small_pipelines(tiny_pipeline).items():
        calls = []
        handle = pipeline.transformer.register_forward_pre_hook(
            lambda _, args, kwargs, calls=calls: calls.append(kwargs), with_kwargs=True
        )
        guidance = 4.0 if clip.guided else 1.0
        sizes = {"frames": clip.frames, "height": clip.height, "width": clip.width}
        generate(pipeline, GenerationSettings("a red ball bounces", steps=2, guidance=guidance, **sizes))
        handle.remove()
        parts = parts_of(pipeline)
        planned = parts.backbone.step_inputs(parts.transformer, parts.rules, clip, parts.pipeline_config, "meta")
        stock = {key: value for key, value in calls[0].items() if key in planned.arguments}
        timestep = stock.pop("timestep"), planned.arguments.pop("timestep")
        assert shapes(stock) == shapes(planned.arguments), name
        assert timestep[0].shape == timestep[1].shape, name
        assert len(calls) == 2 * passes(parts, clip), name


def test_cogvideox_1_5_is_planned_without_a_branch_and_its_previews_show_the_clip_alone(tmp_path):
    """Its pipeline denoises an even number of latent frames and drops the first, which no one asked for."""
    pipeline = make_cogvideox_pipeline(whole_frames())
    CogVideoXPipeline(**{k: v for k, v in pipeline.components.items() if k != "branch"}).save_pretrained(tmp_path)
    opened, clip = load(tmp_path), ClipSize(96, 80, 17)
    assert str(fastest_profile(opened, 24 * GIB, clip)) == "all"
    assert main(["plan", "--model", str(tmp_path), "--no-branch", "--size", "96x80x17", "--vram", "8"]) == 0
    settings = GenerationSettings("a red ball", steps=2, frames=clip.frames, height=clip.height, width=clip.width)
    previews = []
    assert generate(opened, settings, on_step=previews.append).frames.shape == (17, 80, 96, 3)
    assert [preview.frames.shape for preview in previews] == [(5, 10, 12, 3)] * 2


# --- the published sizes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", PUBLISHED)
def test_a_branch_is_built_beside_every_published_transformer(key: str):
    """On the meta device: the parts of a full-size branch have the shapes of its backbone's, name by name."""
    import diffusers

    model = PUBLISHED[key]
    with torch.device("meta"):
        transformer = getattr(diffusers, model.transformer_class)(**{**model.transformer, "num_layers": 2})
        family = FAMILIES[model.transformer_class]
        branch = ProPhyBranch(family.name, family.describe(transformer), [0, 1], reference_grid=[5, 8, 8])
    branch.check_fits(transformer)
    for block, theirs in zip(branch.blocks, family.blocks(transformer), strict=True):
        assert {n: p.shape for n, p in block.named_parameters()} == {n: p.shape for n, p in theirs.named_parameters()}
    for name, module in branch.embedders.items():
        for key, parameter in module.named_parameters():
            assert parameter.shape == transformer.get_submodule(name).get_parameter(key).shape
