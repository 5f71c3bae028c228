"""What computed is what is recorded: no two models share a digest, no run is made again otherwise without a word."""

import json
import os
import re
from dataclasses import replace
from functools import wraps
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler, WanPipeline
from diffusers.hooks import FirstBlockCacheConfig, apply_first_block_cache
from safetensors.torch import load_file, save_file
from test_lora import SETTINGS, Pairs, frames, pairs_for, wan, write_wan
from torch.nn.attention import SDPBackend, sdpa_kernel

from prophy.assets import gallery_dir
from prophy.backbones.pipeline import rules_of
from prophy.cli import main
from prophy.generation.checks import check
from prophy.generation.generate import GenerationSettings, generate
from prophy.generation.identity import computation_of, model_hash
from prophy.generation.pipelines import load
from prophy.generation.resume import RunFolder, resumable
from prophy.generation.sampling import sampled, scheduler_for
from prophy.generation.settings import GenerationError
from prophy.memory.offload import apply
from prophy.memory.profiles import OffloadMode, Profile
from prophy.runs.computation import Adapter, Computation
from prophy.runs.record import RunRecord
from prophy.runs.store import list_runs, read_run
from prophy.tiny.text import build_tokenizer

SIZE = ["--steps", "2", "--frames", "9", "--height", "32", "--width", "48"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    """A small model on disk, its branch inside, where the embedded one is looked for."""
    pipeline = wan()
    parts = {name: part for name, part in pipeline.components.items() if name != "branch"}
    WanPipeline(**parts).save_pretrained(tmp_path / "model")
    pipeline.branch.save_pretrained(tmp_path / "model" / "branch")
    monkeypatch.setattr("prophy.generation.pipelines.default_model", lambda: tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def pairs(tiny_transformer) -> Pairs:
    return pairs_for(tiny_transformer.blocks)


@pytest.fixture
def lora(tmp_path: Path, pairs) -> Path:
    return write_wan(tmp_path / "motion.safetensors", pairs, "diffusers")


# --- digests ----------------------------------------------------------------------------------------------------------


def test_no_two_models_share_a_digest_and_the_same_model_keeps_it(folder: Path, lora: Path):
    def with_lora(strength: float = 1.0):
        return load(folder, loras=[f"{lora}:{strength}"])

    plain = load(folder)
    own = model_hash(plain)
    hashes = {"plain": own, "LoRA": model_hash(with_lora()), "weaker": model_hash(with_lora(0.3))}
    fused = with_lora()
    fused.fuse_lora()
    hashes["fused"] = model_hash(fused)
    fused.unload_lora_weights()
    hashes["fused and unloaded"] = model_hash(fused)
    assert hashes["fused"] == hashes.pop("fused and unloaded"), "the same weights compute"
    cast = load(folder)
    cast.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    hashes["float8"] = model_hash(cast)
    hashes["bfloat16"] = model_hash(load(folder, dtype=torch.bfloat16))
    trained = load(folder)
    with torch.no_grad():
        trained.transformer.proj_out.bias.data[0] += 1e-4  # .data, which no version counter sees
    hashes["one weight"] = model_hash(trained)
    assert len(set(hashes.values())) == len(hashes), hashes

    off = with_lora()
    off.disable_lora()
    assert model_hash(off) == own
    assert model_hash(with_lora(0)) == own
    off.enable_lora()
    assert model_hash(off) == hashes["LoRA"]
    off.unload_lora_weights()
    assert model_hash(off) == own
    renamed = load(folder)
    renamed.load_lora_weights(str(lora), adapter_name="another")
    assert model_hash(renamed) == hashes["LoRA"], "a name computes nothing"
    for mode in OffloadMode:
        apply(renamed, Profile(mode), "cpu")
        assert model_hash(renamed) == hashes["LoRA"], mode


def test_a_model_whose_files_were_replaced_under_it_keeps_its_own_digest(folder: Path):
    first = load(folder)
    other = wan()
    with torch.no_grad():
        other.transformer.proj_out.weight.mul_(2)
    other.transformer.save_pretrained(folder / "transformer")
    assert model_hash(load(folder)) != model_hash(first)


def test_a_file_replaced_by_one_of_the_same_size_and_date_is_another_model(folder: Path):
    """As ``cp -p`` and ``rsync -t`` replace files, while the app is open."""
    before = model_hash(load(folder))
    (path,) = (folder / "transformer").glob("*.safetensors")
    status, tensors = path.stat(), load_file(path)
    name = next(iter(tensors))
    save_file({**tensors, name: tensors[name] + 1}, path, {"format": "pt"})
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert model_hash(load(folder)) != before


def test_a_variant_and_the_plain_weights_beside_it_have_digests_of_their_own(folder: Path):
    plain = model_hash(load(folder))
    other = wan()
    with torch.no_grad():
        other.transformer.proj_out.weight.mul_(2)
    other.transformer.save_pretrained(folder / "transformer", variant="fp16")
    assert model_hash(load(folder)) == plain != model_hash(load(folder, variant="fp16"))


# --- what is recorded -------------------------------------------------------------------------------------------------


def test_a_run_records_what_computed_it_and_comes_back_equal(folder: Path, lora: Path, tmp_path: Path):
    pipeline = load(folder, loras=[f"{lora}:0.5"], profile="group+tiling")
    made = generate(pipeline, replace(SETTINGS, flow_shift=8.0)).save(tmp_path / "runs")
    computation = read_run(made.path).record.computation
    assert computation == made.record.computation
    assert computation.scheduler == "UniPCMultistepScheduler"
    assert computation.scheduler_config["flow_shift"] == 8.0
    assert computation.profile == "group+tiling"
    assert computation.dtypes["transformer"] == "float32"
    assert computation.attention == {"transformer": "native (WanAttnProcessor)"}
    (adapter,) = computation.adapters
    assert (adapter.part, adapter.name, adapter.strength) == ("transformer", "motion", 0.5)
    assert pipeline.scheduler.config.flow_shift == 2.0, "the pipeline keeps its own"
    assert str(tmp_path) not in (made.path / "run.json").read_text()


def test_casting_caching_and_attention_are_recorded(tiny_pipeline):
    plain = computation_of(tiny_pipeline)
    tiny_pipeline.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16)
    tiny_pipeline.transformer.set_attention_backend("_native_math")
    tiny_pipeline.vae.enable_tiling()
    assert computation_of(tiny_pipeline).differences(plain) == [
        "transformer in float8_e4m3fn, computed in bfloat16 instead of float32",
        "transformer with attention by _native_math (WanAttnProcessor) instead of native (WanAttnProcessor)",
        "decoded in the profile all+tiling instead of all",
    ]


def test_what_is_done_with_the_weights_is_recorded(tiny_pipeline):
    """The tensors of all of these are the same."""
    plain, digest = computation_of(tiny_pipeline), model_hash(tiny_pipeline)

    def now() -> list[str]:
        assert model_hash(tiny_pipeline) == digest
        return computation_of(tiny_pipeline).differences(plain)

    tiny_pipeline.tokenizer(["a cube"], padding="max_length", truncation=True, max_length=9)
    assert now() == [], "a call leaves its padding in the tokenizer"
    own = tiny_pipeline.vae.config.latents_mean
    tiny_pipeline.vae.register_to_config(latents_mean=[value + 1 for value in own])
    (said,) = now()
    assert said.startswith("with the vae's latents_mean [")
    tiny_pipeline.vae.register_to_config(latents_mean=own)
    tiny_pipeline.register_to_config(boundary_ratio=0.5)
    assert now() == ["with the pipeline's boundary_ratio 0.5 instead of None"]
    tiny_pipeline.register_to_config(boundary_ratio=None)
    tiny_pipeline.transformer.compile_repeated_blocks(backend="eager")
    assert now() == ["transformer compiled by torch.compile instead of nothing"]
    tiny_pipeline.tokenizer = build_tokenizer(["a green cube melts"])
    assert now()[1].startswith("with the tokenizer's sha256 ")


def test_what_surrounds_the_weights_is_recorded(tiny_pipeline):
    """Autocast around the call, and a cache of diffusers' that was set without ``enable_cache``."""
    plain = computation_of(tiny_pipeline)
    with torch.autocast("cpu", torch.bfloat16):
        said = computation_of(tiny_pipeline).differences(plain)
        made = generate(tiny_pipeline, SETTINGS)
    assert "transformer in float32, autocast to bfloat16 instead of float32" in said
    assert made.computation.differences(plain) == said
    apply_first_block_cache(tiny_pipeline.transformer, FirstBlockCacheConfig(threshold=0.2))
    assert computation_of(tiny_pipeline).differences(plain) == [
        "transformer with caching by fbc_block_hook and fbc_leader_block_hook instead of nothing"
    ]


def scaled(module, arguments, output):
    """A hook as a study of features registers it."""
    return output * 0.5


class Halved(torch.nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) / 2


def test_hooks_and_modules_that_somebody_put_into_a_model_are_named(tiny_pipeline, monkeypatch):
    """The tensors of all of these are the same, and frames are others."""
    plain, digest = computation_of(tiny_pipeline), model_hash(tiny_pipeline)
    assert plain.foreign == {}
    transformer = tiny_pipeline.transformer
    block = transformer.blocks[1]

    def now() -> list[str]:
        computation = computation_of(tiny_pipeline)
        assert model_hash(tiny_pipeline) == digest
        assert Computation.from_json(computation.to_json()) == computation
        return computation.differences(plain)

    everywhere = torch.nn.modules.module.register_module_forward_hook
    for register, where in ((block.register_forward_hook, "blocks.1"), (everywhere, "every module")):
        handle = register(scaled)
        (said,) = {one for one in now() if one.startswith("transformer")}
        assert said == f"transformer changed by the hook test_computation.scaled on {where} instead of nothing"
        handle.remove()
    handles = [one.register_forward_pre_hook(lambda *_: None) for one in transformer.modules()]
    (said,) = now()
    assert said.count("the hook test_computation.test_hooks") == 3
    assert said.endswith(f"and {len(handles) - 3} more instead of nothing")
    for handle in handles:
        handle.remove()
    with monkeypatch.context() as patch:
        own = block.ffn.forward
        patch.setattr(block.ffn, "forward", lambda x: own(x) * 2, raising=False)
        assert "transformer changed by the forward test_computation.test_hooks" in now()[0]
        assert now()[0].endswith(" on blocks.1.ffn instead of nothing")
    linear, halved = transformer.proj_out, Halved(*reversed(transformer.proj_out.weight.shape))
    halved.load_state_dict(linear.state_dict())
    transformer.proj_out = halved
    assert now() == ["transformer changed by the module test_computation.Halved on proj_out instead of nothing"]
    transformer.proj_out = linear
    norm = tiny_pipeline.vae.decoder.norm_out
    tiny_pipeline.vae.decoder.norm_out = torch.nn.Sequential()  # of a known library, and not what belongs there
    said = computation_of(tiny_pipeline).differences(plain)
    assert said == [
        "vae changed by the module torch.nn.modules.container.Sequential on decoder.norm_out instead of nothing"
    ]
    tiny_pipeline.vae.decoder.norm_out = norm
    assert now() == []


class UniPCMultistepSchedulerOfSomebody(UniPCMultistepScheduler):
    pass


def test_functions_that_somebody_put_in_place_of_a_librarys_are_named(tiny_pipeline, monkeypatch):
    """As the recipes of TeaCache and SageAttention do: no tensor, hook or class tells."""
    plain, made = computation_of(tiny_pipeline), frames(tiny_pipeline)
    transformer, vae, scheduler = tiny_pipeline.transformer, tiny_pipeline.vae, tiny_pipeline.scheduler
    processor = transformer.blocks[0].attn1.processor
    Block, Scheduler = type(transformer.blocks[0]), type(scheduler)

    def halved(owner, name: str) -> None:
        own = getattr(owner, name)

        @wraps(own)  # its name is that of what it wraps
        def half(*args, **kwargs):
            out = own(*args, **kwargs)
            return (out[0] / 2,) if isinstance(out, tuple) else out / 2

        patch.setattr(owner, name, half, raising=False)

    for owner, name, part, said in (
        (Block, "forward", "transformer", "function .* as WanTransformerBlock.forward"),
        (torch.nn.Linear, "forward", "text_encoder", "function .* as Linear.forward"),
        (type(processor), "__call__", "transformer", "function .* as WanAttnProcessor.__call__"),
        (torch.nn.functional, "scaled_dot_product_attention", "torch", "function .* as torch.nn.functional.scaled_dot"),
        (vae, "decode", "vae", "decode .*"),
        (Scheduler, "step", "scheduler", "function .* as UniPCMultistepScheduler.step"),
        (scheduler, "step", "scheduler", "step .*"),
        (tiny_pipeline, "prepare_latents", "pipeline", "prepare_latents .*"),
    ):
        with monkeypatch.context() as patch:
            halved(owner, name)
            told = [one for one in computation_of(tiny_pipeline).differences(plain) if one.startswith(part)]
            assert len(told) == 1, (owner, name)
            assert re.match(f"{part} changed by the {said}", told[0])
            changed = generate(tiny_pipeline, SETTINGS)
            assert told[0] in changed.computation.differences(plain)
            assert not np.array_equal(changed.frames, made)
            assert np.array_equal(frames(tiny_pipeline), changed.frames), "it is still there"
    mine = type("WanAttnProcessor", (type(processor),), {})
    transformer.blocks[0].attn1.set_processor(mine())
    assert computation_of(tiny_pipeline).differences(plain) == [
        "transformer changed by the processor test_computation.WanAttnProcessor on blocks.0.attn1 instead of nothing"
    ]
    transformer.blocks[0].attn1.set_processor(processor)
    tiny_pipeline.scheduler = UniPCMultistepSchedulerOfSomebody.from_config(scheduler.config)
    assert "scheduler changed by the class test_computation.UniPCMultistepSchedulerOf" in str(
        computation_of(tiny_pipeline).differences(plain)
    )
    tiny_pipeline.scheduler = scheduler
    with sdpa_kernel(SDPBackend.MATH):
        (told,) = computation_of(tiny_pipeline).differences(plain)
    assert " (WanAttnProcessor) without flash and mem_efficient and cudnn instead of " in told
    assert computation_of(tiny_pipeline).differences(plain) == []
    assert np.array_equal(frames(tiny_pipeline), made)


def test_what_a_library_hooks_in_is_not_foreign(folder: Path, lora: Path):
    pipeline = load(folder, loras=[lora])
    for mode in OffloadMode:
        apply(pipeline, Profile(mode), "cpu")
        assert computation_of(pipeline).foreign == {}, mode
    apply(pipeline, Profile(OffloadMode.ALL), "cpu")
    pipeline.fuse_lora()
    assert computation_of(pipeline).foreign == {}
    pipeline.unload_lora_weights()
    pipeline.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    pipeline.transformer.compile_repeated_blocks(backend="eager")
    assert computation_of(pipeline).foreign == {}


def test_how_float32_is_multiplied_and_where_is_recorded(tiny_pipeline):
    plain = computation_of(tiny_pipeline)
    assert plain.device == f"cpu ({torch.backends.cpu.get_cpu_capability()})"
    assert plain.precision == {}
    assert "precision" not in plain.to_json()
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        (said,) = computation_of(tiny_pipeline).differences(plain)
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = "none"
    assert said == "with the matmul of float32 in bf16 instead of full precision"
    old = replace(plain, device="", precision={})  # of an older release
    assert computation_of(tiny_pipeline).differences(old) == []
    elsewhere = replace(plain, device="cuda (NVIDIA H200)", precision={"conv": "tf32"})
    assert plain.differences(elsewhere) == []
    assert plain.other_device(elsewhere) == f"on {plain.device} instead of cuda (NVIDIA H200)"
    assert plain.other_device(old) == plain.other_device(plain) == ""
    with pytest.raises(ValueError, match="precision must be texts by part"):
        replace(plain, precision={"conv": 1})


def test_a_run_of_another_precision_or_device_is_named_when_it_is_made_again(folder: Path, tmp_path: Path, capsys):
    first = made(tmp_path / "a", "a red ball", *SIZE)
    path = first.path / "run.json"
    document = json.loads(path.read_text())
    for changed, said in (
        (
            {"precision": {"matmul": "tf32"}},
            "with the matmul of float32 in full precision instead of tf32: expect other frames",
        ),
        (
            {"device": "cuda (X)"},
            f"on {document['computation']['device']} instead of cuda (X): frames may differ a little",
        ),
        (
            {"foreign": {"transformer": "the hook study.scaled on blocks.1"}},
            "transformer changed by nothing instead of the hook study.scaled on blocks.1: expect other frames",
        ),
    ):
        path.write_text(json.dumps({**document, "computation": {**document["computation"], **changed}}))
        capsys.readouterr()
        assert main(["generate", "--again", str(first.path), "--out", str(tmp_path / "b")]) == 0
        assert f"run {first.id} is now made {said}" in capsys.readouterr().out


def test_experts_that_change_places_are_another_model(tiny_pipeline):
    """Sums of the weights' columns stay as they were."""
    before = model_hash(tiny_pipeline)
    experts = ((name, p) for name, p in tiny_pipeline.branch.named_parameters() if p.ndim == 3 and len(p) > 1)
    name, stacked = next(experts)
    with torch.no_grad():
        stacked.copy_(stacked.flip(0))
    assert model_hash(tiny_pipeline) != before, name


def test_the_shipped_runs_of_0_1_0_open_and_say_that_it_is_not_known():
    runs = list_runs(gallery_dir())
    assert runs
    assert not any(run.record.computation.is_known for run in runs)
    known = Computation(scheduler="UniPCMultistepScheduler", profile="all")
    assert known.differences(runs[0].record.computation) == []


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"more": 1},
        {"dtypes": {"transformer": 1}},
        {"scheduler_config": {"a": float("nan")}},
        {"configuration": {"vae": 1}},
        {"configuration": {"vae": {"a": float("inf")}}},
        {"adapters": [{"part": "transformer"}]},
        {"adapters": [{"part": "transformer", "name": "x", "strength": "1", "sha256": "0" * 64}]},
        {"scheduler_config": {"a": "b" * 300_000}},
    ],
)
def test_a_touched_computation_is_refused(document: object):
    with pytest.raises(ValueError, match=r".") as caught:
        Computation.from_json(document)
    assert "\n" not in str(caught.value)


def test_a_computation_is_read_back_equal():
    made = Computation(
        {"vae": "float32"},
        {},
        {"transformer": "native"},
        {},
        "all",
        "A",
        {"b": [1, None]},
        (Adapter("t", "x", 1.0, "0" * 64),),
    )
    assert Computation.from_json(made.to_json()) == made
    assert Computation().to_json() == {}
    assert RunRecord("a", 0, SETTINGS.scalars, "m", "0" * 64).computation == Computation()


# --- made again, resumed, compared ------------------------------------------------------------------------------------


def made(out: Path, *arguments: str):
    assert main(["generate", *arguments, "--out", str(out)]) == 0
    (run,) = list_runs(out)
    return run


def test_a_run_with_a_lora_is_made_again_with_it_alone(folder: Path, lora: Path, tmp_path: Path, capsys):
    first = made(tmp_path / "a", "a red ball", *SIZE, "--lora", f"{lora}:0.5")
    capsys.readouterr()
    again = ["generate", "--again", str(first.path), "--out"]
    assert main([*again, str(tmp_path / "b")]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"prophy: run {first.id} was made by other weights (model), and is now made with no LoRA ")
    assert "instead of LoRA motion at 0.5: give its --lora, or open them with --model" in last
    assert main([*again, str(tmp_path / "c"), "--lora", str(lora)]) == 0
    assert "with LoRA motion at 1 instead of LoRA motion at 0.5: expect other frames" in capsys.readouterr().out
    same = made(tmp_path / "d", "--again", str(first.path), "--lora", f"{lora}:0.5")
    assert "expect other frames" not in capsys.readouterr().out
    assert (same.clip().frames == first.clip().frames).all()


def test_another_scheduler_on_disk_is_named_when_a_run_is_made_again(folder: Path, tmp_path: Path, capsys):
    first = made(tmp_path / "a", "a red ball", *SIZE)
    UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=8.0).save_pretrained(
        folder / "scheduler"
    )
    capsys.readouterr()
    made(tmp_path / "b", "--again", str(first.path))
    said = f"run {first.id} is now made with the scheduler's flow_shift 8.0 instead of 2.0: expect other frames"
    assert said in capsys.readouterr().out


def test_a_run_in_another_dtype_is_made_again_in_it(folder: Path, tmp_path: Path):
    first = generate(load(folder, dtype=torch.bfloat16), SETTINGS).save(tmp_path / "a")
    again = made(tmp_path / "b", "--again", str(first.path))
    assert again.record.computation == first.record.computation
    assert again.record.model_sha256 == first.record.model_sha256
    assert (again.clip().frames == first.clip().frames).all()


def test_clips_that_another_computation_made_are_not_resumed(folder: Path, lora: Path, tmp_path: Path):
    pipeline = load(folder)
    resumable(pipeline, {"one": SETTINGS}, RunFolder(tmp_path / "runs", pipeline))
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler(shift=2.0)
    with pytest.raises(GenerationError, match="would be made with FlowMatchEulerDiscreteScheduler instead of UniPC"):
        resumable(pipeline, {"one": SETTINGS}, RunFolder(tmp_path / "runs", pipeline))
    changed = load(folder, loras=[lora])
    with pytest.raises(GenerationError, match="made with other settings or by another model"):
        resumable(changed, {"one": SETTINGS}, RunFolder(tmp_path / "runs", changed))


# --- settings that published models want ------------------------------------------------------------------------------


def transformer_calls(pipeline) -> list[float]:
    """Grows by the timestep of every call of the transformer."""
    calls: list[float] = []
    pipeline.transformer.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append(float(kwargs["timestep"].flatten()[0])), with_kwargs=True
    )
    return calls


def test_a_negative_prompt_leads_away_as_in_the_stock_call(tiny_pipeline):
    settings = replace(SETTINGS, negative_prompt="a blue candle burns")
    with_it = generate(tiny_pipeline, settings)
    assert not np.array_equal(with_it.frames, frames(tiny_pipeline))
    tiny_pipeline.attachment.detach()
    tiny_pipeline.attachment = None
    stock = tiny_pipeline(
        prompt="a red ball bounces",
        negative_prompt="a blue candle burns",
        height=32,
        width=48,
        num_frames=9,
        num_inference_steps=2,
        guidance_scale=4.0,
        generator=torch.Generator("cpu").manual_seed(0),
        output_type="np",
        max_sequence_length=rules_of(tiny_pipeline).text_tokens,
    ).frames[0]
    assert np.array_equal(generate(tiny_pipeline, settings).frames, np.round(255 * stock).astype(np.uint8))
    with pytest.raises(GenerationError, match="of the negative prompt: the model knows no word of this prompt"):
        check(tiny_pipeline, replace(SETTINGS, negative_prompt="色调艳丽"))
    check(tiny_pipeline, replace(SETTINGS, negative_prompt="色调艳丽", guidance=1.0))  # nothing reads it


def test_clips_of_one_batch_have_one_negative_prompt_each_way(tiny_pipeline):
    both = [replace(SETTINGS, negative_prompt="a blue candle"), SETTINGS]
    alone = [generate(tiny_pipeline, one).frames for one in both]
    together = generate(tiny_pipeline, both)
    assert all(np.array_equal(made.frames, one) for made, one in zip(together, alone, strict=True))


def test_few_steps_leave_the_unconditional_pass_out_and_lie_where_the_authors_have_them(tiny_pipeline):
    calls = transformer_calls(tiny_pipeline)
    settings = replace(SETTINGS, negative_prompt="a blue candle", steps=20).in_few_steps()
    assert (settings.steps, settings.guidance, settings.flow_shift, settings.sampler) == (4, 1.0, 5.0, "euler")
    own = tiny_pipeline.scheduler
    made = generate(tiny_pipeline, settings)
    shifted = [1000 * 5 * t / (1 + 4 * t) for t in (1.0, 0.75, 0.5, 0.25)]
    assert np.allclose(calls, shifted, atol=2)
    assert tiny_pipeline.scheduler is own
    assert made.computation.scheduler_config["flow_shift"] == 5.0
    record = RunRecord("a", 0, settings.scalars, "m", "0" * 64)
    assert GenerationSettings.from_record(replace(record, prompt=settings.prompt)) == settings


def test_eulers_sampler_makes_eulers_steps():
    scheduler = scheduler_for(UniPCMultistepScheduler(prediction_type="flow_prediction"), SETTINGS.in_few_steps())
    scheduler.set_timesteps(4)
    torch.manual_seed(0)
    x = torch.randn(1, 4, 3, 4, 4)
    for i, t in enumerate(scheduler.timesteps):
        velocity = torch.randn_like(x)
        wanted = x + (scheduler.sigmas[i + 1] - scheduler.sigmas[i]) * velocity
        x = scheduler.step(velocity, t, x, return_dict=False)[0]
        assert torch.allclose(x, wanted, atol=1e-4)
    assert float(scheduler.sigmas[-1]) == 0


def test_a_shift_is_that_of_the_scheduler_and_ends_with_the_clip_also_after_an_error(tiny_pipeline):
    shifted = generate(tiny_pipeline, replace(SETTINGS, flow_shift=8.0)).frames
    own = tiny_pipeline.scheduler
    tiny_pipeline.scheduler = UniPCMultistepScheduler.from_config(own.config, flow_shift=8.0)
    assert np.array_equal(frames(tiny_pipeline), shifted)
    tiny_pipeline.scheduler = own
    assert not np.array_equal(frames(tiny_pipeline), shifted)
    with pytest.raises(RuntimeError, match="here"), sampled(tiny_pipeline, replace(SETTINGS, sampler="euler")):
        raise RuntimeError("here")
    assert tiny_pipeline.scheduler is own


def test_the_second_guidance_is_that_of_the_second_transformer(tiny_pipeline):
    from conftest import make_transformer

    parts = {name: part for name, part in tiny_pipeline.components.items() if name not in ("branch", "transformer_2")}
    tiny_pipeline.attachment.detach()
    both = type(tiny_pipeline)(**parts, transformer_2=make_transformer(), boundary_ratio=0.8)
    one, other = (generate(both, replace(SETTINGS, guidance_2=scale)).frames for scale in (4.0, 9.0))
    assert np.array_equal(one, generate(both, SETTINGS).frames)
    assert not np.array_equal(one, other)
    with pytest.raises(GenerationError, match="one transformer for all noise: leave the second guidance out"):
        check(wan(), replace(SETTINGS, guidance_2=3.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guidance": 1.0, "guidance_2": 3.0}, "guidance_2=3 would do nothing"),
        ({"flow_shift": 0}, "flow_shift=0 must be a number"),
        ({"sampler": "best"}, "sampler='best' is unknown: use euler or unipc"),
        ({"negative_prompt": "<b>"}, "the negative prompt looks like HTML"),
        ({"negative_prompt": "x" * 2001}, "the negative prompt has 2001 characters"),
        ({"negative_prompt": None}, "the negative prompt must be a text"),
    ],
)
def test_settings_that_cannot_be_are_one_line(changes: dict, message: str):
    with pytest.raises(GenerationError, match=message):
        replace(SETTINGS, **changes)


def test_what_is_chosen_replaces_the_models_defaults_and_nothing_chosen_is_idle():
    a14b = replace(SETTINGS, guidance=4.0, guidance_2=3.0, negative_prompt="dark", flow_shift=12.0)
    assert a14b.changed() == a14b
    assert a14b.changed(guidance=1.0).guidance_2 is None
    few = a14b.changed(few_steps=8, flow_shift=7.0)
    assert (few.steps, few.guidance, few.flow_shift, few.negative_prompt) == (8, 1.0, 7.0, "")
    with pytest.raises(GenerationError, match="a negative prompt does nothing while guidance is 1"):
        a14b.changed(few_steps=4, negative_prompt="dark")


def test_a_model_without_a_flow_has_no_shift(tmp_path: Path):
    from small_cogvideox import make_cogvideox, make_cogvideox_pipeline

    pipeline = make_cogvideox_pipeline(make_cogvideox())
    tall = GenerationSettings("a red ball bounces", steps=2, frames=9, height=64, width=96)
    with pytest.raises(GenerationError, match=r"noise is no flow \(CogVideoXDDIMScheduler\)"):
        check(pipeline, tall.in_few_steps())
    negative = generate(pipeline, replace(tall, negative_prompt="a blue candle")).frames
    assert not np.array_equal(negative, frames(pipeline))
