"""What diffusers offers works beside an attached branch, on small models of both families.

docs/features.md is the table of it; features that other files test are named there, and the last test here checks that
every test it names exists.
"""

import ast
import contextlib
import copy
import importlib.util
import re
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import diffusers
import pytest
import torch
from conftest import make_branch, make_transformer
from diffusers import (
    CogVideoXTransformer3DModel,
    ContextParallelConfig,
    DiffusionPipeline,
    FirstBlockCacheConfig,
    MagCacheConfig,
    PyramidAttentionBroadcastConfig,
    WanPipeline,
)
from peft import LoraConfig
from small_cogvideox import LATENTS, make_cogvideox, make_cogvideox_pipeline
from torch import nn

from prophy.backbones.cogvideox import ProPhyCogVideoXPipeline
from prophy.backbones.wan import ProPhyWanPipeline
from prophy.branch import ProPhyBranch, attach
from prophy.generation.generate import GenerationError, GenerationSettings, generate
from prophy.generation.pipelines import load
from prophy.routing.schedule import Schedule

ROOT = Path(__file__).resolve().parents[1]
FAMILIES = ("wan", "cogvideox")
CLIPS = {
    "wan": {"steps": 3, "frames": 9, "height": 32, "width": 48},
    "cogvideox": {"steps": 3, "frames": 9, "height": 64, "width": 96},
}


@dataclass(frozen=True)
class Small:
    """A small transformer with the arguments of one call, and what its stock forward and its branch make of them."""

    family: str
    transformer: nn.Module
    branch: ProPhyBranch
    inputs: dict

    @property
    def blocks(self) -> nn.ModuleList:
        return self.branch.family.blocks(self.transformer)

    def run(self, context: str | None = None, **changes) -> torch.Tensor:
        context = contextlib.nullcontext() if context is None else self.transformer.cache_context(context)
        with torch.no_grad(), context:
            return self.transformer(**{**self.inputs, **changes}, return_dict=False)[0]

    def residuals(self, **changes) -> list[torch.Tensor]:
        with torch.no_grad():
            return self.branch(*self.branch.family.call_arguments((), {**self.inputs, **changes}))[0]

    def run_by_hand(self, **changes) -> torch.Tensor:
        """The forward with each residual added once after its block, in plain hooks of torch."""
        handles = [
            self.blocks[site].register_forward_hook(
                lambda _, __, output, r=r: self.branch.family.add_residual(output, r)
            )
            for site, r in zip(self.branch.injections, self.residuals(**changes), strict=True)
        ]
        output = self.run(**changes)
        for handle in handles:
            handle.remove()
        return output

    def count(self, *names: str) -> list[str]:
        """Grows with every call of these modules of each block."""
        calls = []
        for i, block in enumerate(self.blocks):
            for name in names:
                block.get_submodule(name).register_forward_hook(lambda *_, at=f"{i}.{name}": calls.append(at))
        return calls


def make_small(family: str, *, trained: bool = True) -> Small:
    transformer = make_transformer() if family == "wan" else make_cogvideox()
    torch.manual_seed(0)
    if family == "wan":
        inputs = {
            "hidden_states": torch.randn(1, 4, 3, 4, 5),
            "timestep": torch.tensor([700.0]),
            "encoder_hidden_states": torch.randn(1, 7, 24),
        }
    else:
        frames, _, height, width = LATENTS
        rotary = make_cogvideox_pipeline(transformer)._prepare_rotary_positional_embeddings(
            8 * height, 8 * width, frames, torch.device("cpu")
        )
        inputs = {
            "hidden_states": torch.randn(1, *LATENTS).repeat(2, 1, 1, 1, 1),  # as under guidance
            "encoder_hidden_states": torch.randn(2, 7, 24),
            "timestep": torch.tensor([700, 700]),
            "image_rotary_emb": rotary,
        }
    return Small(family, transformer, make_branch(transformer, trained=trained), inputs)


@pytest.fixture(params=FAMILIES)
def small(request) -> Small:
    return make_small(request.param)


@pytest.fixture(params=FAMILIES)
def pipeline(request, tiny_pipeline) -> ProPhyWanPipeline | ProPhyCogVideoXPipeline:
    if request.param == "wan":
        return tiny_pipeline
    transformer = make_cogvideox()
    return make_cogvideox_pipeline(transformer, make_branch(transformer, trained=True))


def settings(pipeline: DiffusionPipeline, **changes) -> GenerationSettings:
    family = "wan" if isinstance(pipeline, WanPipeline) else "cogvideox"
    return GenerationSettings(**{"prompt": "a red ball bounces", "seed": 3, **CLIPS[family], **changes})


# --- weights stored small ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["attach", "cast"])
def test_layerwise_casting_keeps_each_residual_exactly_once(small, first: str):
    """Weights lie in eight bits and come up one layer at a time, of the backbone and of the branch."""

    def cast(module: nn.Module) -> None:
        module.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)

    whole = small.run_by_hand()
    if first == "attach":
        attach(small.transformer, small.branch)
    for part in (small.transformer, small.branch):
        cast(part)
        assert any(p.dtype == torch.float8_e4m3fn for p in part.parameters()), "nothing was cast"
    for name, parameter in small.branch.named_parameters():
        if "router" in name or "map_head" in name or name.startswith("refinement"):
            assert parameter.dtype == torch.float32, name
    if first == "cast":
        expected = small.run_by_hand()
        attach(small.transformer, small.branch)
        assert torch.equal(small.run(), expected)
    assert 0 < (small.run() - whole).abs().max() < 0.2 * whole.abs().max()


QUANTISED = {
    "bitsandbytes": (lambda: diffusers.BitsAndBytesConfig(load_in_8bit=True), "GPU|bitsandbytes"),
    "optimum": (lambda: diffusers.QuantoConfig(weights_dtype="int8"), "requires optimum-quanto"),
}


@pytest.mark.parametrize("package", QUANTISED)
@pytest.mark.filterwarnings("ignore:.*Quanto.*is deprecated:FutureWarning")
def test_a_quantisation_config_reaches_diffusers(pipeline, tmp_path: Path, package: str):
    """Not run: neither package is required. Without it diffusers' own refusal is passed on in one line."""
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed: this checks what happens without it")
    make_config, refusal = QUANTISED[package]
    config = diffusers.PipelineQuantizationConfig(quant_mapping={"transformer": make_config()})
    pipeline.save_pretrained(tmp_path / "saved")
    with pytest.raises(ValueError, match=f"cannot open .*({refusal})") as caught:
        load(tmp_path / "saved", quantization_config=config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_dtype_generates_with_a_routing_in_float32(pipeline, tmp_path: Path, dtype: torch.dtype):
    pipeline.save_pretrained(tmp_path / "saved")
    opened = load(tmp_path / "saved", dtype=dtype)
    seen = []
    opened.branch.register_forward_hook(lambda _, __, made: seen.append((made[0][0].dtype, made[1].probs_BNE.dtype)))
    size = settings(pipeline, steps=2, guidance=1.0)
    made = generate(opened, size)
    assert set(seen) == {(dtype, torch.float32)}
    expected = generate(pipeline, size)
    assert abs(made.frames.astype(float) - expected.frames).mean() < 3
    assert (made.trace.topk_ids[0] == expected.trace.topk_ids[0]).mean() > 0.9


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_zero_branch_is_bit_identical_in_every_dtype(family: str, dtype: torch.dtype, tmp_path: Path):
    small = make_small(family, trained=False)
    for name in ("transformer", "branch"):
        getattr(small, name).save_pretrained(tmp_path / name)
    transformer = type(small.transformer).from_pretrained(tmp_path / "transformer", dtype=dtype)
    branch = ProPhyBranch.from_pretrained(tmp_path / "branch", dtype=dtype)
    inputs = {k: v.to(dtype) if k.endswith("states") else v for k, v in small.inputs.items()}
    loaded = Small(family, transformer.eval(), branch.eval(), inputs)
    stock = loaded.run()
    attach(transformer, branch)
    assert torch.equal(loaded.run(), stock)


# --- the autoencoder --------------------------------------------------------------------------------------------------


def test_vae_tiling_changes_the_decoding_and_not_the_routing(pipeline):
    heights = []
    pipeline.vae.decoder.register_forward_hook(lambda _, args, __: heights.append(args[0].shape[-2]))
    whole = generate(pipeline, settings(pipeline))
    tallest = max(heights)
    heights.clear()
    side = settings(pipeline).height // 2
    if isinstance(pipeline, WanPipeline):
        pipeline.vae.enable_tiling(side, side, side - 8, side - 8)
    else:
        pipeline.vae.enable_tiling(side, side, 0.25, 0.25)
    tiled = generate(pipeline, settings(pipeline))
    assert max(heights) < tallest, "nothing was tiled"
    assert tiled.frames.shape == whole.frames.shape
    assert (tiled.frames != whole.frames).any()
    assert (tiled.trace.topk_ids == whole.trace.topk_ids).all()


def test_vae_slicing_decodes_one_clip_at_a_time_and_the_same(pipeline):
    size = settings(pipeline)
    batches = []
    pipeline.vae.decoder.register_forward_hook(lambda _, args, __: batches.append(len(args[0])))
    pipeline.set_progress_bar_config(disable=True)

    def two() -> torch.Tensor:
        return pipeline(
            prompt=["a red ball", "a blue candle"],
            height=size.height,
            width=size.width,
            num_frames=size.frames,
            num_inference_steps=2,
            generator=[torch.Generator().manual_seed(seed) for seed in (1, 2)],
            max_sequence_length=7,
            output_type="pt",
        ).frames

    together = two()
    assert set(batches) == {2}
    batches.clear()
    pipeline.vae.enable_slicing()
    sliced = two()
    assert set(batches) == {1}
    torch.testing.assert_close(sliced, together, rtol=0, atol=1e-5)


# --- caches: steps are skipped, and the residual is not doubled -------------------------------------------------------


def skip_most(small: Small) -> dict[str, tuple[object, tuple[str, ...]]]:
    """Every cache with the settings that skip the second step, and the modules that are then left out."""
    one_by_one = PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2, current_timestep_callback=lambda: int(small.inputs["timestep"][0])
    )
    return {
        "first block": (FirstBlockCacheConfig(threshold=0.5), ("1.attn1.to_q", "2.attn1.to_q")),
        "magnitude": (
            MagCacheConfig(threshold=0.5, retention_ratio=0, num_inference_steps=4, mag_ratios=[1.0] * 4),
            ("0.attn1.to_q", "1.attn1.to_q", "2.attn1.to_q"),
        ),
        "attention broadcast": (one_by_one, ("0.attn1.to_q", "1.attn1.to_q", "2.attn1.to_q")),
    }


@pytest.mark.parametrize("cache", ["first block", "magnitude", "attention broadcast"])
def test_a_cache_skips_and_keeps_each_residual_exactly_once(small, cache: str):
    """The second step repeats the first, so a cache that is right changes nothing."""
    expected = small.run_by_hand()
    strength = (expected - small.run()).abs().max()
    attach(small.transformer, small.branch)
    config, skipped = skip_most(small)[cache]
    small.transformer.enable_cache(config)
    calls = small.count("attn1.to_q")
    first = small.run("cond")
    everything = sorted(calls)
    assert everything == ["0.attn1.to_q", "1.attn1.to_q", "2.attn1.to_q"]
    calls.clear()
    second = small.run("cond")
    assert sorted(set(everything) - set(calls)) == list(skipped)
    assert strength > 1e-2, "the residuals do nothing: the test shows nothing"
    torch.testing.assert_close(first, expected, rtol=0, atol=2e-6)
    torch.testing.assert_close(second, expected, rtol=0, atol=5e-6)


def test_a_magnitude_cached_step_adds_the_last_step_that_was_computed_once(small):
    """At a new input the skipped blocks add what they and their residuals added before: by hand, the same."""
    heads = []
    tail_output = []
    family = small.branch.family
    video = family.video_tokens
    changed = torch.randn(small.inputs["hidden_states"].shape, generator=torch.Generator().manual_seed(9))

    def keep_input(_, args, kwargs) -> None:
        heads.append(args[0] if args else kwargs["hidden_states"])

    handles = [
        small.blocks[0].register_forward_pre_hook(keep_input, with_kwargs=True),
        small.blocks[-1].register_forward_hook(lambda _, __, output: tail_output.append(video(output))),
    ]
    attachment = attach(small.transformer, small.branch)
    small.run()
    small.run(hidden_states=changed)
    for handle in handles:
        handle.remove()
    expected_tail = heads[1] + (tail_output[0] - heads[0])
    attachment.detach()
    handle = small.blocks[-1].register_forward_hook(
        lambda _, __, output: (expected_tail, *output[1:]) if isinstance(output, tuple) else expected_tail
    )
    expected = small.run(hidden_states=changed)
    handle.remove()

    attach(small.transformer, small.branch)
    small.transformer.enable_cache(skip_most(small)["magnitude"][0])
    small.run("cond")
    torch.testing.assert_close(small.run("cond", hidden_states=changed), expected, rtol=0, atol=5e-6)


def test_a_whole_clip_is_made_under_each_cache(pipeline):
    """In the pipeline's own contexts and with its own resets: a second clip repeats the first."""
    plain = generate(pipeline, settings(pipeline, steps=4))
    configs = (
        FirstBlockCacheConfig(threshold=10.0),
        MagCacheConfig(threshold=10.0, retention_ratio=0.2, num_inference_steps=4, mag_ratios=[1.0] * 4),
        PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=2,
            spatial_attention_timestep_skip_range=(0, 1000),
            current_timestep_callback=lambda: int(pipeline._current_timestep),
        ),
    )
    calls = []
    blocks = pipeline.branch.family.blocks(pipeline.transformer)
    blocks[1].attn1.to_q.register_forward_hook(lambda *_: calls.append(1))
    generate(pipeline, settings(pipeline, steps=4))
    of_all_steps = len(calls)
    for config in configs:
        pipeline.transformer.enable_cache(config)
        calls.clear()
        clips = [generate(pipeline, settings(pipeline, steps=4)) for _ in range(2)]
        assert len(calls) < 2 * of_all_steps, config
        assert (clips[0].frames == clips[1].frames).all(), config
        assert clips[0].trace.steps == 4
        assert (clips[0].trace.topk_ids[0] == plain.trace.topk_ids[0]).all()
        pipeline.transformer.disable_cache()
    assert (generate(pipeline, settings(pipeline, steps=4)).frames == plain.frames).all()


# --- LoRA on the branch -----------------------------------------------------------------------------------------------


def test_a_lora_on_the_branch_trains_alone_and_is_saved_and_reopened(small, tmp_path: Path):
    plain = small.residuals()
    small.branch.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    trained = {name for name, p in small.branch.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    adapted = small.residuals()
    assert not torch.equal(adapted[1], plain[1])
    attach(small.transformer, small.branch)
    with_lora = small.run()
    small.branch.disable_adapters()
    assert all(torch.equal(a, b) for a, b in zip(small.residuals(), plain, strict=True))
    assert not torch.equal(small.run(), with_lora)

    small.branch.enable_adapters()
    small.branch.save_lora_adapter(tmp_path / "lora")
    again = make_branch(small.transformer, trained=True)
    again.load_lora_adapter(tmp_path / "lora", prefix=None, weight_name="pytorch_lora_weights.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(make_small(small.family).residuals(), plain, strict=True))
    reopened = Small(small.family, small.transformer, again, small.inputs)
    assert all(torch.equal(a, b) for a, b in zip(reopened.residuals(), adapted, strict=True))


# --- compilation and parallelism --------------------------------------------------------------------------------------


def test_repeated_blocks_of_wan_compile_with_the_branch_in_one_graph():
    """With the graphs that dynamo and AOTAutograd make, run as they are: generating machine code takes a minute."""
    small = make_small("wan")
    attach(small.transformer, small.branch)
    expected = small.run()
    torch._dynamo.reset()
    small.transformer.compile_repeated_blocks(fullgraph=True, dynamic=False, backend="aot_eager")
    compiled = small.run()
    print(f"largest difference: {(compiled - expected).abs().max():.3g}")
    torch.testing.assert_close(compiled, expected, rtol=0, atol=5e-6)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1, "nothing was compiled"
    other = torch.randn(1, 4, 3, 4, 5)
    changed = small.run(hidden_states=other)
    assert (changed - compiled).abs().max() > 1e-2
    uncompiled = make_small("wan")
    torch.testing.assert_close(changed, uncompiled.run_by_hand(hidden_states=other), rtol=0, atol=5e-6)


def test_diffusers_names_no_repeated_blocks_of_cogvideox():
    small = make_small("cogvideox")
    attach(small.transformer, small.branch)
    with pytest.raises(ValueError, match="`_repeated_blocks` attribute is empty"):
        small.transformer.compile_repeated_blocks()


def parallel_worker(rank: int, folder: str) -> None:
    """One of two processes: half of the tokens, all of the branch."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    try:
        assert torch.distributed.get_world_size() == 2
        torch.accelerator.device_count = lambda: 1  # diffusers divides by it, and a CPU is none
        small = make_small("wan")
        per_token = torch.full((1, 60), 700.0)
        per_token[:, :20] = 0
        attachment = attach(small.transformer, small.branch)
        made = {"plain": small.run(), "per token": small.run(timestep=per_token)}
        small.transformer.enable_parallelism(config=ContextParallelConfig(ulysses_degree=2))
        lengths = small.count("attn1")
        small.blocks[1].register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[1]))
        seen = []
        with attachment.observe(lambda timestep, routing: seen.append((timestep, routing.probs_BNE.shape[1]))):
            split = {"plain": small.run(), "per token": small.run(timestep=per_token)}
        assert [length for length in lengths if isinstance(length, int)] == [30, 30], "nothing was split"
        assert seen == [(700.0, 60)] * 2
        for name, expected in made.items():
            torch.testing.assert_close(split[name], expected, rtol=0, atol=2e-6)
        with pytest.raises(ValueError, match="Expected output to be a tensor"), torch.no_grad():
            small.transformer(**small.inputs)  # diffusers wants return_dict=False
        with pytest.raises(ValueError, match="attached already"):
            attach(small.transformer, small.branch)
        attachment.detach()
        with pytest.raises(RuntimeError, match="attach the branch before offloading, caching or parallelism"):
            attach(small.transformer, small.branch)
        Path(folder, f"done-{rank}").write_text(str(torch.distributed.get_world_size()))
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.timeout(300)  # two processes import everything anew
def test_context_parallel_on_two_processes_equals_one(tmp_path: Path):
    torch.multiprocessing.spawn(parallel_worker, args=(str(tmp_path),), nprocs=2)
    assert [(tmp_path / f"done-{rank}").read_text() for rank in range(2)] == ["2", "2"]


def test_diffusers_has_no_context_parallel_plan_for_cogvideox():
    assert CogVideoXTransformer3DModel._cp_plan is None
    assert not hasattr(make_cogvideox().transformer_blocks[0].attn1.processor, "_parallel_config")


# --- the step callback ------------------------------------------------------------------------------------------------


def test_a_step_callback_may_change_the_latents_that_the_next_step_reads(pipeline):
    size = settings(pipeline)
    read, steps = [], []
    pipeline.branch.register_forward_pre_hook(lambda _, args: read.append(args[0].clone()))
    pipeline.set_progress_bar_config(disable=True)

    def zero_after_the_first(_, step: int, timestep: torch.Tensor, tensors: dict) -> dict:
        steps.append((step, float(timestep)))
        return {"latents": torch.zeros_like(tensors["latents"])} if step == 0 else {}

    pipeline(
        prompt="a red ball",
        height=size.height,
        width=size.width,
        num_frames=size.frames,
        num_inference_steps=3,
        guidance_scale=1.0,
        max_sequence_length=7,
        output_type="latent",
        callback_on_step_end=zero_after_the_first,
        callback_on_step_end_tensor_inputs=["latents"],
    )
    assert steps == list(enumerate(pipeline.scheduler.timesteps.tolist()))
    assert [bool(latents.any()) for latents in read] == [True, False, True]


# --- when the branch runs ---------------------------------------------------------------------------------------------


def passes(pipeline: DiffusionPipeline) -> list[int]:
    """Grows with the batch of every call of the branch."""
    sizes = []
    pipeline.branch.register_forward_hook(lambda _, __, made: sizes.append(len(made[0][0])))
    return sizes


def test_the_whole_schedule_is_the_default(pipeline):
    expected = generate(pipeline, settings(pipeline))
    assert pipeline.attachment.schedule == Schedule()
    same = settings(pipeline, schedule=Schedule(unconditional=True, interval=(0, 1)))
    assert (generate(pipeline, same).frames == expected.frames).all()


def test_conditional_only_leaves_the_unconditional_pass_to_the_backbone(small):
    stock = small.run()
    attachment = attach(small.transformer, small.branch)
    attachment.schedule = Schedule(unconditional=False)
    if small.family == "wan":
        shaped = small.run("cond")
        assert torch.equal(small.run("uncond"), stock)
        assert torch.equal(small.run(), shaped), "outside the pipeline a call is a conditional one"
        attachment.schedule = Schedule()
        assert torch.equal(small.run("uncond"), shaped)
        return
    seen = []
    with attachment.observe(lambda _, routing: seen.append(routing.probs_BNE)):
        shaped = small.run("cond_uncond")
    assert [len(probs) for probs in seen] == [1]
    attachment.schedule = Schedule()
    with attachment.observe(lambda _, routing: seen.append(routing.probs_BNE)):
        both = small.run("cond_uncond")
    torch.testing.assert_close(shaped[0], stock[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(shaped[1], both[1], rtol=0, atol=1e-6)
    torch.testing.assert_close(seen[0][-1], seen[1][-1])
    assert (both[0] - stock[0]).abs().max() > 1e-2, "the branch does nothing: the test shows nothing"


def test_two_clips_without_guidance_are_both_conditional():
    small = make_small("cogvideox")
    different = torch.randn(2, *LATENTS)
    expected = small.run_by_hand(hidden_states=different)
    attach(small.transformer, small.branch).schedule = Schedule(unconditional=False)
    assert torch.equal(small.run("cond_uncond", hidden_states=different), expected)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_conditional_only_traces_every_step_of_a_clip(pipeline, guidance: float):
    size = settings(pipeline, guidance=guidance)
    full = generate(pipeline, size)
    ran = passes(pipeline)
    made = generate(pipeline, replace(size, schedule=Schedule(unconditional=False)))
    assert ran == [1, 1, 1]
    assert made.trace.timesteps.tolist() == full.trace.timesteps.tolist()
    assert (made.trace.topk_ids[0] == full.trace.topk_ids[0]).all()
    assert (made.frames == full.frames).all() == (guidance == 1.0)


def test_outside_its_interval_the_branch_rests_and_the_trace_says_which_steps_it_ran_in(pipeline):
    size = settings(pipeline, guidance=1.0, steps=6)
    full = generate(pipeline, size)
    timesteps = full.trace.timesteps
    low, high = float(timesteps[4]) / 1000, float(timesteps[2]) / 1000
    ran, previews = passes(pipeline), []
    made = generate(pipeline, replace(size, schedule=Schedule(interval=(low, high))), on_step=previews.append)
    assert ran == [1, 1, 1]
    assert made.trace.timesteps.tolist() == timesteps[2:5].tolist()
    assert made.trace.step_numbers == (1, 2, 3)
    assert [preview.top1 is None for preview in previews] == [True, True, False, False, False, False]
    assert (made.frames != full.frames).any()


def test_an_interval_without_a_step_is_the_backbone_alone(pipeline):
    size = settings(pipeline)
    made = generate(pipeline, replace(size, schedule=Schedule(interval=(0, 1e-6))))
    assert made.trace is None
    pipeline.attachment.enabled = False
    assert (generate(pipeline, size).frames == made.frames).all()


def test_a_trace_of_some_of_more_steps_than_it_keeps_numbers_those_it_has(tiny_pipeline):
    pipeline = tiny_pipeline
    late = Schedule(interval=(0.5, 1.0))
    trace = generate(pipeline, settings(pipeline, guidance=1.0, steps=70, schedule=late)).trace
    assert trace.timesteps.min() >= 500
    assert trace.step_numbers == tuple(range(1, trace.num_kept + 1))


@pytest.mark.parametrize("interval", [(0.5, 0.5), (0.9, 0.1), (-0.1, 1.0), (0.0, 1.5), (float("nan"), 1.0)])
def test_an_impossible_interval_is_refused(interval: tuple[float, float]):
    with pytest.raises(ValueError, match="must be two shares of the noise, low to high, within 0 and 1"):
        Schedule(interval=interval)


def test_a_generation_leaves_the_schedule_of_other_calls_as_it_was(pipeline):
    mine = Schedule(unconditional=False)
    pipeline.attachment.schedule = mine
    generate(pipeline, settings(pipeline))
    assert pipeline.attachment.schedule == mine


def test_a_schedule_without_a_branch_is_refused_before_the_first_step(pipeline):
    pipeline.attachment.enabled = False
    with pytest.raises(GenerationError, match="there is no branch to schedule: open a model that has one"):
        generate(pipeline, settings(pipeline, schedule=Schedule(unconditional=False)))


# --- traps ------------------------------------------------------------------------------------------------------------


def test_copying_a_transformer_with_a_branch_is_refused_and_the_cure_works(small):
    attachment = attach(small.transformer, small.branch)
    with pytest.raises(RuntimeError, match=r"call its detach\(\), copy the transformer, then attach again"):
        copy.deepcopy(small.transformer)
    attachment.detach()
    stock, copied = small.run(), copy.deepcopy(small.transformer)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.mul_(0.9)
    attach(small.transformer, small.branch)
    other = Small(small.family, copied, small.branch, small.inputs)
    assert not torch.equal(other.run(), stock), "the copy runs the original's weights"
    attach(copied, small.branch)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="diffusers finds the accelerator by itself")
def test_model_offloading_without_an_accelerator_is_refused_unless_a_device_is_named(pipeline):
    with pytest.raises(RuntimeError, match="(?i)accelerator"):
        pipeline.enable_model_cpu_offload()
    pipeline.enable_model_cpu_offload(device="cpu")
    assert generate(pipeline, settings(pipeline)).trace is not None


# --- the table --------------------------------------------------------------------------------------------------------


def test_every_test_that_the_table_names_exists_and_every_test_here_is_in_it():
    defined = {
        node.name
        for path in (ROOT / "tests").glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "features.md").read_text()))
    assert named - defined == set()
    here = {
        node.name
        for node in ast.parse(Path(__file__).read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    assert here - named == {"test_every_test_that_the_table_names_exists_and_every_test_here_is_in_it"}
