"""LoRAs: every convention that diffusers converts, exact in every profile, whole or not at all, gone when unloaded."""

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_branch, make_pipeline, make_transformer
from diffusers import CogVideoXPipeline, DiffusionPipeline, WanPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from small_cogvideox import make_cogvideox, make_cogvideox_pipeline
from torch import nn

from prophy.backbones import lora_scale
from prophy.backbones.lora import adapted_layers, read_lora
from prophy.backbones.lora_scale import LoraScale
from prophy.backbones.variants import variant_beside
from prophy.backbones.wan import ProPhyWanPipeline
from prophy.catalogue.lora import LoraSource
from prophy.generation.generate import GenerationSettings, generate
from prophy.generation.identity import model_hash
from prophy.generation.pipelines import load
from prophy.memory.offload import apply, profile_of
from prophy.memory.profiles import OffloadMode, Profile

RANK = 4
SETTINGS = GenerationSettings("a red ball bounces", steps=2, frames=9, height=32, width=48)
TALL = GenerationSettings("a red ball bounces", steps=2, frames=9, height=64, width=96)
WAN_NAMES = {
    "attn1.to_q": "self_attn.q",
    "attn1.to_k": "self_attn.k",
    "attn1.to_v": "self_attn.v",
    "attn1.to_out.0": "self_attn.o",
    "attn2.to_q": "cross_attn.q",
    "attn2.to_k": "cross_attn.k",
    "attn2.to_v": "cross_attn.v",
    "attn2.to_out.0": "cross_attn.o",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
}
COG_NAMES = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "ff.net.0.proj", "ff.net.2")

Pairs = dict[tuple[int, str], tuple[torch.Tensor, torch.Tensor]]


def pairs_for(blocks: nn.ModuleList, names=tuple(WAN_NAMES)) -> Pairs:
    """Random factors for every layer of every block."""
    torch.manual_seed(3)
    layers = {(i, name): block.get_submodule(name) for i, block in enumerate(blocks) for name in names}
    return {
        place: (torch.randn(RANK, layer.in_features) * 0.3, torch.randn(layer.out_features, RANK) * 0.3)
        for place, layer in layers.items()
    }


def wan_key(form: str, block: int, ours: str, down: bool) -> str:
    """The name of one factor in a convention that circulates for Wan."""
    theirs, ab, du = WAN_NAMES[ours], "AB"[not down], "down" if down else "up"
    return {
        "diffusers": f"transformer.blocks.{block}.{ours}.lora_{ab}.weight",
        "no prefix": f"blocks.{block}.{ours}.lora_{ab}.weight",
        "peft": f"base_model.model.blocks.{block}.{ours}.lora_{ab}.weight",
        "peft in diffusers": f"transformer.base_model.model.blocks.{block}.{ours}.lora_{ab}.default.weight",
        "comfy": f"diffusion_model.blocks.{block}.{theirs}.lora_{ab}.weight",
        "comfy, our names": f"diffusion_model.blocks.{block}.{ours}.lora_{ab}.weight",
        "diffsynth": f"blocks.{block}.{theirs}.lora_{ab}.default.weight",
        "musubi": f"lora_unet_blocks_{block}_{theirs.replace('.', '_')}.lora_{du}.weight",
        "lightx2v": f"diffusion_model.blocks.{block}.{theirs}.lora_{du}.weight",
    }[form]


WAN_FORMS = (
    *("diffusers", "no prefix", "peft", "peft in diffusers", "comfy", "comfy, our names", "diffsynth", "musubi"),
    "lightx2v",
)
WITH_ALPHA = {"musubi": 8.0, "lightx2v": 2.0, "comfy": 1.0}  # of rank 4: scales 2, 1/2 and 1/4


def write_wan(path: Path, pairs: Pairs, form: str) -> Path:
    tensors = {}
    for (block, ours), factors in pairs.items():
        for down, factor in zip((True, False), factors, strict=True):
            tensors[wan_key(form, block, ours, down)] = factor.contiguous()
        if form in WITH_ALPHA:
            stem = wan_key(form, block, ours, True).split(".lora_")[0]
            tensors[f"{stem}.alpha"] = torch.tensor(WITH_ALPHA[form])
    save_file(tensors, path)
    return path


def merge(blocks: nn.ModuleList, pairs: Pairs, scale: float) -> None:
    """What the LoRA means: the weights themselves, changed."""
    with torch.no_grad():
        for (block, name), (down, up) in pairs.items():
            blocks[block].get_submodule(name).weight += scale * (up @ down)


def frames(pipeline: DiffusionPipeline) -> np.ndarray:
    return generate(pipeline, TALL if isinstance(pipeline, CogVideoXPipeline) else SETTINGS).frames


def near(first: np.ndarray, second: np.ndarray) -> bool:
    """Equal up to rounding: a merged weight and two factors beside one round otherwise."""
    return int(np.abs(first.astype(int) - second.astype(int)).max()) <= 2


def wan() -> ProPhyWanPipeline:
    """The small pipeline with its trained branch, always the same."""
    transformer = make_transformer()
    return make_pipeline(transformer, make_branch(transformer, trained=True))


@pytest.fixture
def wan_pairs(tiny_transformer) -> Pairs:
    return pairs_for(tiny_transformer.blocks)


@pytest.fixture
def comfy(tmp_path: Path, wan_pairs) -> Path:
    return write_wan(tmp_path / "comfy.safetensors", wan_pairs, "comfy")


def add(pipeline, *texts) -> list[str]:
    return pipeline.add_loras([LoraSource.parse(text) for text in texts])


def refusal(pipeline, *texts) -> str:
    """The one line with which LoRAs are refused; the pipeline is as it was."""
    state = {name: tensor.clone() for name, tensor in pipeline.transformer.state_dict().items()}
    learns = {name: parameter.requires_grad for name, parameter in pipeline.transformer.named_parameters()}
    profile, before = profile_of(pipeline), frames(pipeline)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        add(pipeline, *texts)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    after = pipeline.transformer.state_dict()
    assert after.keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in after.items() if not tensor.is_meta)
    assert {name: p.requires_grad for name, p in pipeline.transformer.named_parameters()} == learns
    assert not adapted_layers(pipeline.transformer)
    assert not getattr(pipeline.transformer, "peft_config", {})
    assert profile_of(pipeline) == profile
    assert np.array_equal(frames(pipeline), before)
    return message


# --- conventions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapper", ["module.{}", "pipe.dit.{}", "transformer._orig_mod.{}", "_orig_mod.module.{}"])
def test_what_held_a_model_in_training_is_left_out_of_the_names(wrapper: str, wan_pairs, tmp_path: Path):
    """DistributedDataParallel's, DiffSynth's and torch.compile's."""
    meant, pipeline = wan(), wan()
    merge(meant.transformer.blocks, wan_pairs, 1.0)
    form = "diffusers" if "transformer." in wrapper else "diffsynth"
    named = {}
    for (block, ours), factors in wan_pairs.items():
        for down, factor in zip((True, False), factors, strict=True):
            named[wrapper.format(wan_key(form, block, ours, down).removeprefix("transformer."))] = factor.contiguous()
    save_file(named, tmp_path / "wrapped.safetensors")
    add(pipeline, tmp_path / "wrapped.safetensors")
    assert near(frames(pipeline), frames(meant))


def test_a_lora_that_adds_nothing_says_so(wan_pairs, tmp_path: Path, caplog):
    """As a trainer writes it before its first step."""
    fresh = {place: (down, torch.zeros_like(up)) for place, (down, up) in wan_pairs.items()}
    pipeline = wan()
    before = frames(pipeline)
    add(pipeline, write_wan(tmp_path / "fresh.safetensors", fresh, "diffusers"))
    assert "fresh.safetensors adds nothing: its second factors are all zero" in caplog.text
    assert np.array_equal(frames(pipeline), before)


@pytest.mark.parametrize("form", WAN_FORMS)
def test_every_convention_for_wan_adds_what_it_means_and_goes_without_a_trace(form: str, wan_pairs, tmp_path: Path):
    path = write_wan(tmp_path / "motion.v1.safetensors", wan_pairs, form)
    pipeline, meant = wan(), wan()
    before = frames(pipeline)
    merge(meant.transformer.blocks, wan_pairs, WITH_ALPHA.get(form, RANK) / RANK)
    expected = frames(meant)
    assert add(pipeline, path) == ["motion_v1"]
    assert near(frames(pipeline), expected)
    assert not near(before, expected), "the LoRA shows nothing"
    pipeline.unload_lora_weights()
    assert np.array_equal(frames(pipeline), before)


@pytest.mark.parametrize("form", ["transformer.{}", "{}", "base_model.model.{}", "transformer.base_model.model.{}"])
def test_every_convention_for_cogvideox_adds_what_it_means(form: str, tmp_path: Path):
    """VideoREPA's LoRA of CogVideoX-5B has diffusers' names and no alpha: its scale, 64 / 128, is the strength."""
    transformer, other = make_cogvideox(), make_cogvideox()
    pairs = pairs_for(transformer.transformer_blocks, COG_NAMES)
    tensors = {}
    for (block, name), (down, up) in pairs.items():
        for ab, factor in (("A", down), ("B", up)):
            tensors[form.format(f"transformer_blocks.{block}.{name}.lora_{ab}.weight")] = factor.contiguous()
    path = tmp_path / "pytorch_lora_weights.safetensors"
    save_file(tensors, path)
    pipeline, meant = make_cogvideox_pipeline(transformer), make_cogvideox_pipeline(other)
    before = frames(pipeline)
    merge(other.transformer_blocks, pairs, 64 / 128)
    expected = frames(meant)
    add(pipeline, f"{tmp_path}:{64 / 128}")
    assert near(frames(pipeline), expected)
    assert not near(before, expected)
    pipeline.unload_lora_weights()
    assert np.array_equal(frames(pipeline), before)


def test_the_alpha_of_a_file_scales_it_in_peft_and_in_diffusers_own_format(tmp_path: Path):
    donor = make_transformer()
    donor.add_adapter(LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=["to_q"], init_lora_weights=False))
    state = get_peft_model_state_dict(donor)
    pairs = {
        (block, f"{attention}.to_q"): tuple(
            state[f"blocks.{block}.{attention}.to_q.lora_{ab}.weight"].detach() for ab in "AB"
        )
        for block in range(3)
        for attention in ("attn1", "attn2")
    }
    meant = wan()
    merge(meant.transformer.blocks, pairs, 2.0)
    expected = frames(meant)
    config = donor.peft_config["default"].to_dict()

    folder = tmp_path / "diffusers"
    WanPipeline.save_lora_weights(folder, state, transformer_lora_adapter_metadata=config)
    first = wan()
    add(first, folder)
    assert near(frames(first), expected)

    folder = tmp_path / "peft"
    folder.mkdir()
    save_file({f"base_model.model.{k}": v for k, v in state.items()}, folder / "adapter_model.safetensors")
    plain = {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()}
    (folder / "adapter_config.json").write_text(json.dumps({**plain, "of_another_release": 1}, default=str))
    second = wan()
    add(second, folder)
    assert np.array_equal(frames(second), frames(first))


def peft_folder(folder: Path, pairs: Pairs, config: str | dict) -> Path:
    """As peft saves an adapter: its configuration beside the tensors."""
    folder.mkdir(exist_ok=True)
    write_wan(folder / "adapter_model.safetensors", pairs, "peft")
    text = config if isinstance(config, str) else json.dumps(config)
    (folder / "adapter_config.json").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"lora_alpha": 8}, 2.0),
        ({"lora_alpha": 8, "use_rslora": True}, 4.0),
        ({"lora_alpha": 8, "alpha_pattern": {"to_q": 2, "to_k|to_v": 2, r"0|net\.0\.proj|net\.2": 2}}, 0.5),
        ({"lora_alpha": 4, "r": 10**9, "rank_pattern": {"to_q": 3}, "target_modules": 3}, 1.0),
        ({"lora_alpha": 4, "modules_to_save": ["proj_out"], "bias": "all", "fan_in_fan_out": True}, 1.0),
        ({"peft_type": "LORA", "layers_to_transform": [1], "corda_config": 3}, 1.0),
        ("\ufeff{}", 1.0),
    ],
)
def test_of_a_configuration_the_scale_is_read_and_the_tensors_say_the_rest(
    config: str | dict, scale: float, wan_pairs, tmp_path: Path
):
    pipeline, meant = wan(), wan()
    merge(meant.transformer.blocks, wan_pairs, scale)
    add(pipeline, peft_folder(tmp_path / "peft", wan_pairs, config))
    assert near(frames(pipeline), frames(meant))


def test_a_configuration_that_cannot_be_is_refused_in_one_line(wan_pairs, tmp_path: Path):
    pipeline, few = wan(), {(0, "attn1.to_q"): wan_pairs[0, "attn1.to_q"]}
    for config, said in (
        ("", "adapter_config.json is damaged"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "holds a list, not an object"),
        ('{"peft_type": "LOHA"}', "its adapter is a 'LOHA', no LoRA"),
        ('{"lora_alpha": NaN}', "lora_alpha=nan is no number"),
        ('{"lora_alpha": 1e308}', "lora_alpha=1e+308 is no number"),
        ('{"alpha_pattern": {"to_q": "x"}}', "alpha_pattern of to_q='x' is no number"),
        ('{"alpha_pattern": {"(": 1}}', "alpha_pattern='(' is no pattern"),
        ('{"alpha_pattern": {"(?i)to_q": 1}}', "alpha_pattern='(?i)to_q' is no pattern"),
        ('{"alpha_pattern": {"a{99999999999}": 1}}', "alpha_pattern='a{99999999999}' is no pattern"),
        ('{"alpha_pattern": [1]}', "holds no alpha by layer"),
        (json.dumps({"alpha_pattern": {f"layer{i}": 1 for i in range(5001)}}), "holds 5001 patterns, more than 5000"),
        (json.dumps({"alpha_pattern": {"a" * 501: 1}}), "is longer than 500 characters"),
    ):
        assert said in refusal(pipeline, peft_folder(tmp_path / "peft", few, config)), config
    path = tmp_path / "own.safetensors"
    down, up = few[0, "attn1.to_q"]
    tensors = {wan_key("diffusers", 0, "attn1.to_q", True): down, wan_key("diffusers", 0, "attn1.to_q", False): up}
    for metadata, said in (("{", "is damaged (its adapter's configuration:"), ("[1]", "configuration is no object")):
        save_file(tensors, path, {"lora_adapter_metadata": metadata})
        assert said in refusal(pipeline, path)


@pytest.mark.parametrize(
    "pattern",
    [
        r"([a-z0-9._]|\w|\.|[a-z])*[A-Z]",
        r"(\w+)+!",
        ".*" * 240 + "!",
        "([a-z0-9._]{1,99}){1,99}[A-Z]",
        "(.*)*" * 90 + "[A-Z]",
        "(" * 20 + "[a-z0-9._]*)*" * 20 + "[A-Z]",
        "(.*)" * 20 + r"\3\4\5[A-Z]",
    ],
)
def test_no_pattern_takes_longer_than_its_seconds(pattern: str, monkeypatch: pytest.MonkeyPatch):
    """Each takes minutes in re. Where regex knows a short cut, the pattern just does not match."""
    monkeypatch.setattr(lora_scale, "_SECONDS", 0.5)
    began = time.monotonic()
    try:
        scale = LoraScale.of({"lora_alpha": 8, "alpha_pattern": {pattern: 1}}, "")
        assert set(scale.of_layers({f"blocks.{i}.attn1.to_out.0": 4 for i in range(400)}).values()) == {2.0}
    except ValueError as error:
        assert re.match(r"alpha_pattern='.*takes too long to match: name the layers$", str(error))  # noqa: PT017
    assert time.monotonic() - began < 60, "machines are busy at times"


def test_a_pattern_that_goes_back_and_forth_without_end_is_refused_in_one_line(
    wan_pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lora_scale, "_SECONDS", -1.0)  # as after ten seconds
    config = {"alpha_pattern": {"to_q": 2, r"(\w+)+!": 1}}
    said = refusal(wan(), peft_folder(tmp_path / "peft", wan_pairs, config))
    assert "takes too long to match: name the layers" in said


def test_decomposed_weights_are_exact_and_at_strength_zero_nothing(tmp_path: Path):
    donor, meant = make_transformer(), wan()
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["to_q"], init_lora_weights=False, use_dora=True)
    donor.add_adapter(config)
    state = {name: tensor.detach().clone() for name, tensor in get_peft_model_state_dict(donor).items()}
    layers = {name.split(".lora_")[0] for name in state}
    with torch.no_grad():
        for layer in layers:
            magnitude = state[f"{layer}.lora_magnitude_vector"].mul_(1.3)
            own = meant.transformer.get_submodule(layer).weight
            whole = own + state[f"{layer}.lora_B.weight"] @ state[f"{layer}.lora_A.weight"]
            own.copy_(magnitude[:, None] * whole / whole.norm(dim=1, keepdim=True))
    path = tmp_path / "dora.safetensors"
    save_file({f"transformer.{name}": tensor for name, tensor in state.items()}, path)
    pipeline = wan()
    before = frames(pipeline)
    digest = model_hash(pipeline)
    add(pipeline, path)
    assert near(frames(pipeline), frames(meant))
    assert not near(frames(pipeline), before)
    pipeline.set_adapters(["dora"], [0.0])
    assert not np.array_equal(frames(pipeline), before), "its magnitudes act at any scale of the factors"
    assert model_hash(pipeline) != digest
    pipeline.unload_lora_weights()
    add(pipeline, f"{path}:0")
    assert np.array_equal(frames(pipeline), before)
    assert model_hash(pipeline) == digest


def test_factors_of_eight_bits_are_read(wan_pairs, tmp_path: Path):
    eight = {place: tuple(factor.to(torch.float8_e4m3fn) for factor in pair) for place, pair in wan_pairs.items()}
    pipeline, meant = wan(), wan()
    merge(meant.transformer.blocks, {place: (a.float(), b.float()) for place, (a, b) in eight.items()}, 2 / RANK)
    add(pipeline, write_wan(tmp_path / "eight.safetensors", eight, "lightx2v"))
    assert near(frames(pipeline), frames(meant))


def test_a_distillation_lora_of_lightx2v_brings_its_biases_and_names_what_diffusers_leaves_out(
    wan_pairs, tmp_path: Path, caplog
):
    """Its layout: factors with alpha, biases of some layers, the head as a whole difference, differences of norms."""
    meant, pipeline = wan(), wan()
    torch.manual_seed(4)
    tensors = {}
    for (block, ours), (down, up) in wan_pairs.items():
        stem = f"diffusion_model.blocks.{block}.{WAN_NAMES[ours]}"
        tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
        if not ours.startswith("attn2"):
            tensors[f"{stem}.diff_b"] = bias = torch.randn(len(up)) * 0.05
            meant.transformer.blocks[block].get_submodule(ours).bias.data += bias
        tensors[f"diffusion_model.blocks.{block}.self_attn.norm_q.diff"] = torch.zeros(32)
    tensors["diffusion_model.blocks.1.norm3.diff"] = torch.ones(32)
    head = torch.randn(4, 32) * 0.1
    tensors |= {"diffusion_model.head.head.diff": head, "diffusion_model.head.head.diff_b": torch.ones(4) * 0.1}
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, tmp_path / "distilled.safetensors")
    merge(meant.transformer.blocks, wan_pairs, 1.0)
    with torch.no_grad():
        meant.transformer.proj_out.weight += head
        meant.transformer.proj_out.bias += 0.1
    add(pipeline, tmp_path / "distilled.safetensors")
    assert near(frames(pipeline), frames(meant))
    assert [record.getMessage() for record in caplog.records if "left out" in record.getMessage()] == [
        "distilled.safetensors: diffusers has no place for 1 of its tensors, such as "
        "diffusion_model.blocks.1.norm3.diff: they are left out"
    ]


# --- profiles, strengths, several -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", OffloadMode)
@pytest.mark.parametrize("door", ["add_loras", "load_lora_weights"])
def test_a_lora_acts_alike_in_every_profile_and_the_profile_stays(mode: OffloadMode, door: str, comfy: Path):
    expected = wan()
    before = frames(expected)
    add(expected, comfy)
    changed = frames(expected)
    pipeline = wan()
    apply(pipeline, Profile(mode, tiling=False), "cpu")
    pipeline.vae.enable_tiling()  # not the profile's to undo
    hooked = sum(hasattr(module, "_hf_hook") for module in pipeline.text_encoder.modules())
    add(pipeline, comfy) if door == "add_loras" else pipeline.load_lora_weights(str(comfy))
    assert pipeline.vae.use_tiling
    assert profile_of(pipeline) == Profile(mode)
    assert sum(hasattr(module, "_hf_hook") for module in pipeline.text_encoder.modules()) == hooked
    if mode is OffloadMode.SEQUENTIAL:
        assert {p.device.type for p in pipeline.transformer.parameters()} == {"meta"}
    assert np.array_equal(frames(pipeline), changed)
    pipeline.unload_lora_weights()
    assert not adapted_layers(pipeline.transformer)
    assert np.array_equal(frames(pipeline), before)
    if mode is OffloadMode.SEQUENTIAL:
        assert {p.device.type for p in pipeline.transformer.parameters()} == {"meta"}


@pytest.mark.parametrize("mode", OffloadMode)
def test_fusing_works_in_every_profile_and_another_lora_on_top_is_refused(mode: OffloadMode, comfy: Path):
    pipeline = wan()
    apply(pipeline, Profile(mode), "cpu")
    add(pipeline, comfy)
    beside = frames(pipeline)
    pipeline.fuse_lora()
    assert near(frames(pipeline), beside)
    with pytest.raises(ValueError, match=r"comfy.safetensors would change nothing beside adapters that are fused"):
        add(pipeline, comfy)
    pipeline.unfuse_lora()
    assert near(frames(pipeline), beside)


def test_several_loras_act_together_each_at_its_strength(wan_pairs, comfy: Path, tmp_path: Path):
    few = {place: pair for place, pair in wan_pairs.items() if place[0] == 1}
    other = write_wan(tmp_path / "other.safetensors", few, "diffusers")
    meant = wan()
    merge(meant.transformer.blocks, wan_pairs, 0.5 / 4)
    merge(meant.transformer.blocks, few, -0.75)
    pipeline = wan()
    assert add(pipeline, f"{comfy}:0.5", f"{other}:-0.75") == ["comfy", "other"]
    assert near(frames(pipeline), frames(meant))
    third = wan()
    third.load_lora_weights(comfy, adapter_name="a")
    third.load_lora_weights(str(tmp_path), weight_name="other.safetensors")
    assert set(third.get_list_adapters()["transformer"]) == {"a", "other"}
    assert third.get_active_adapters() == ["a", "other"], "the second would not act"


def test_of_two_transformers_both_adapt_or_the_one_that_is_named(wan_pairs, comfy: Path, tmp_path: Path):
    def both() -> ProPhyWanPipeline:
        one = wan()
        parts = {name: part for name, part in one.components.items() if name not in ("branch", "transformer_2")}
        return ProPhyWanPipeline(**parts, transformer_2=make_transformer(), boundary_ratio=0.8)

    pipeline = both()
    before = frames(pipeline)
    add(pipeline, f"low={comfy}")
    assert not adapted_layers(pipeline.transformer)
    assert adapted_layers(pipeline.transformer_2)
    low = frames(pipeline)
    pipeline.unload_lora_weights()
    assert np.array_equal(frames(pipeline), before)
    add(pipeline, f"high={comfy}:1", f"low={comfy}")
    apart = frames(pipeline)
    whole = both()
    add(whole, comfy)
    assert np.array_equal(frames(whole), apart)
    assert len({made.tobytes() for made in (before, low, apart)}) == 3
    assert "give comfy.safetensors without high=" in refusal(wan(), f"high={comfy}")


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [OffloadMode.ALL, OffloadMode.GROUP, OffloadMode.SEQUENTIAL])
def test_a_lora_of_another_model_is_refused_with_what_it_is_for(mode: OffloadMode, tmp_path: Path):
    wide = {
        f"diffusion_model.blocks.{i}.self_attn.q.lora_{ab}.weight": torch.ones((2, 5120) if ab == "A" else (5120, 2))
        for i in range(40)
        for ab in "AB"
    }
    save_file(wide, tmp_path / "wide.safetensors")
    pipeline = wan()
    apply(pipeline, Profile(mode), "cpu")
    assert refusal(pipeline, tmp_path / "wide.safetensors") == (
        "wide.safetensors fits no layer of this model (WanTransformer3DModel): it is for blocks 0 to 39 of width 5120, "
        "as in Wan2.1-T2V-14B and Wan2.2-T2V-A14B"
    )


def test_what_would_be_left_out_in_silence_is_refused(wan_pairs, comfy: Path, tmp_path: Path):
    def saved(name: str, tensors: dict) -> Path:
        save_file({key: tensor.clone() for key, tensor in tensors.items()}, tmp_path / name)
        return tmp_path / name

    key = "transformer.blocks.0.attn1.to_q.lora_{}.weight"
    down, up = wan_pairs[0, "attn1.to_q"]
    pair = {key.format("A"): down, key.format("B"): up}
    elsewhere = {
        "transformer.blocks.0.attn9.to_q.lora_A.weight": down,
        "transformer.blocks.0.attn9.to_q.lora_B.weight": up,
    }
    pipeline = wan()
    assert "begins with nowhere.lora_A.weight" in refusal(
        pipeline, saved("none.safetensors", {"nowhere.lora_A.weight": down, "nowhere.lora_B.weight": up})
    )
    assert "2 of its 4 tensors fit no layer of this WanTransformer3DModel, such as blocks.0.attn9.to_q" in refusal(
        pipeline, saved("some.safetensors", {**pair, **elsewhere})
    )
    assert "half of a pair for blocks.0.attn1.to_q" in refusal(
        pipeline, saved("half.safetensors", {key.format("A"): down})
    )
    assert "text_encoder.layer.lora_A.weight, which is no part of a transformer" in refusal(
        pipeline, saved("text.safetensors", {**pair, "text_encoder.layer.lora_A.weight": down})
    )
    assert "odd.safetensors is no LoRA that diffusers converts: it lacks" in refusal(
        pipeline, saved("odd.safetensors", {"lora_unet_blocks_0_self_attn_q.lora_down.weight": down})
    )
    assert "which is no part of a transformer: give a LoRA of one alone" in refusal(
        pipeline, saved("kohya.safetensors", {"lora_te1_layer.lora_down.weight": down, **pair})
    )
    assert "holds values that are not numbers, in transformer.blocks.0.attn1.to_q.lora_B.weight" in refusal(
        pipeline, saved("nan.safetensors", {**pair, key.format("B"): up * float("nan")})
    )
    assert "the pair of blocks.0.attn1.to_q has the ranks 4 and 3" in refusal(
        pipeline, saved("ranks.safetensors", {**pair, key.format("B"): up[:, :3]})
    )
    nothing = {key.format("A"): down[:0], key.format("B"): up[:, :0]}
    flat = {"lora_unet_blocks_0_self_attn_q.lora_down.weight": down[:0]}
    flat |= {"lora_unet_blocks_0_self_attn_q.lora_up.weight": up[:, :0]}
    alpha = {"transformer.blocks.0.attn1.to_q.alpha": torch.tensor(8.0)}
    for tensors in (
        nothing,
        {**nothing, **alpha},
        flat,
        {**flat, "lora_unet_blocks_0_self_attn_q.alpha": torch.ones(())},
    ):
        assert "(a pair of rank 0): copy or download it again" in refusal(pipeline, saved("empty.safetensors", tensors))
    assert "flat.safetensors fits no layer of this model" in refusal(
        pipeline, saved("flat.safetensors", {key.format("A"): down[0], key.format("B"): up[:, 0]})
    )
    assert "holds whole numbers, in blocks.0.attn1.to_q.lora_A.weight" in refusal(
        pipeline, saved("whole.safetensors", {name: tensor.int() for name, tensor in pair.items()})
    )
    tall = {name: tensor[:, :, None, None] for name, tensor in pair.items()}
    assert "2 of its 2 tensors fit no layer of this WanTransformer3DModel, such as blocks.0.attn1.to_q" in refusal(
        pipeline, saved("tall.safetensors", tall)
    )
    assert "differences.safetensors is no LoRA that diffusers converts: of its 1 tensors none is a factor" in refusal(
        pipeline, saved("differences.safetensors", {"diffusion_model.blocks.0.self_attn.q.diff": up})
    )
    of_pictures = {f"diffusion_model.blocks.0.cross_attn.k_img.lora_{way}.weight": up for way in ("down", "up")}
    assert "holds blocks.0.cross_attn.k_img.lora_down.weight, which diffusers does not know" in refusal(
        pipeline,
        saved(
            "pictures.safetensors",
            {
                **of_pictures,
                "diffusion_model.blocks.0.self_attn.q.lora_down.weight": down,
                "diffusion_model.blocks.0.self_attn.q.lora_up.weight": up,
            },
        ),
    )
    short = tmp_path / "short.safetensors"
    short.write_bytes(comfy.read_bytes()[:-5])
    assert "short.safetensors is cut short or damaged" in refusal(pipeline, short)
    # the first fits, the second does not: neither stays
    assert "some.safetensors" in refusal(pipeline, comfy, tmp_path / "some.safetensors")
    with pytest.raises(ValueError, match="fits no layer"):
        pipeline.load_lora_weights({"a.lora_A.weight": down, "a.lora_B.weight": up})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gone/motion.safetensors", "no LoRA at gone/motion.safetensors"),
        ("./gone", "no LoRA at ./gone"),
        ("x.safetensors:nan", "a LoRA of strength nan"),
        ("x.safetensors:much", "'much' is no strength of x.safetensors"),
        ("", "a LoRA without a name"),
        ("HIGH=here/motion.safetensors", "no LoRA at HIGH=here/motion.safetensors: give a safetensors file"),
    ],
)
def test_a_lora_that_cannot_be_found_is_one_line_before_the_model_opens(text: str, message: str):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load("no/such-model", loras=[text])


def test_the_file_in_a_folder_is_found_or_asked_for(comfy: Path, tmp_path: Path):
    assert LoraSource(tmp_path).file() == comfy
    (tmp_path / "second.safetensors").write_bytes(comfy.read_bytes())
    with pytest.raises(ValueError, match=r"holds several files \(comfy.safetensors, second.safetensors\): name one"):
        LoraSource(tmp_path).file()
    (tmp_path / "pytorch_lora_weights.safetensors").write_bytes(comfy.read_bytes())
    assert LoraSource(tmp_path).file().name == "pytorch_lora_weights.safetensors"
    (tmp_path / "old.pt").touch()
    with pytest.raises(ValueError, match="other formats can hold programs"):
        LoraSource(tmp_path / "old.pt").file()
    shouted = comfy.rename(tmp_path / "COMFY.SAFETENSORS")  # as some systems write names
    assert LoraSource.parse(f"{shouted}:0.5").file() == shouted
    assert LoraSource.parse(f"high={comfy}:-0.5") == LoraSource(str(comfy), -0.5, "high")
    assert LoraSource.parse("owner/name/part/file.safetensors:0.8").where == "owner/name/part/file.safetensors"


# --- beside a branch --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", WAN_FORMS)
def test_a_lora_in_a_branchs_folder_opens_in_every_convention(form: str, wan_pairs, tmp_path: Path):
    pipeline = wan()
    parts = {name: part for name, part in pipeline.components.items() if name != "branch"}
    WanPipeline(**parts).save_pretrained(tmp_path / "model")
    pipeline.branch.save_pretrained(tmp_path / "branch")
    path = write_wan(tmp_path / "branch" / "pytorch_lora_weights.safetensors", wan_pairs, form)
    opened = load(tmp_path / "model", branch=tmp_path / "branch")
    add(pipeline, path)
    assert near(frames(opened), frames(pipeline))
    assert opened.get_list_adapters() == {"transformer": ["pytorch_lora_weights"]}
    assert near(frames(load(tmp_path / "model", branch=opened.branch, loras=[path])), frames(pipeline))


def test_a_branchs_own_lora_beside_it_is_not_taken_for_the_backbones(tmp_path: Path):
    pipeline = wan()
    parts = {name: part for name, part in pipeline.components.items() if name != "branch"}
    WanPipeline(**parts).save_pretrained(tmp_path / "model")
    pipeline.branch.save_pretrained(tmp_path / "branch")
    expected = frames(load(tmp_path / "model", branch=tmp_path / "branch"))
    pipeline.branch.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    pipeline.branch.save_lora_adapter(tmp_path / "branch")
    assert (tmp_path / "branch" / "pytorch_lora_weights.safetensors").is_file()
    opened = load(tmp_path / "model", branch=tmp_path / "branch")
    assert np.array_equal(frames(opened), expected)


def test_reading_keeps_the_files_values(comfy: Path, wan_pairs):
    file = read_lora(comfy, wan())
    key = "transformer.blocks.2.ffn.net.2.lora_{}.weight"
    down, up = wan_pairs[2, "ffn.net.2"]
    assert torch.allclose(file.tensors[key.format("B")] @ file.tensors[key.format("A")], up @ down / 4)
    assert file.left_out == ()


# --- variants ---------------------------------------------------------------------------------------------------------


def test_weights_that_exist_as_one_variant_are_found_and_of_several_one_is_asked_for(tmp_path: Path):
    pipeline = wan()
    parts = {name: part for name, part in pipeline.components.items() if name != "branch"}
    folder = tmp_path / "model"
    WanPipeline(**parts).save_pretrained(folder, variant="fp16")
    assert not (folder / "transformer" / "diffusion_pytorch_model.safetensors").exists()
    expected = frames(load(folder, variant="fp16"))
    assert np.array_equal(frames(load(folder)), expected)
    with pytest.raises(ValueError, match="text_encoder holds its weights as fp16: say which with --variant"):
        load(folder, variant="bf16")
    pipeline.transformer.save_pretrained(folder / "transformer", variant="bf16")
    with pytest.raises(ValueError, match=r"transformer holds its weights as bf16 and fp16: say which with --variant"):
        load(folder)
    assert np.array_equal(frames(load(folder, variant="fp16")), expected)
    WanPipeline(**parts).save_pretrained(tmp_path / "plain")
    with pytest.raises(ValueError, match="holds no weights of the variant fp16: it has the plain ones only"):
        load(tmp_path / "plain", variant="fp16")
    # beside the plain ones a variant is taken only when it is named
    with torch.no_grad():
        pipeline.transformer.proj_out.weight.mul_(1.5)
    pipeline.transformer.save_pretrained(tmp_path / "plain" / "transformer", variant="fp16")
    assert np.array_equal(frames(load(tmp_path / "plain")), expected)
    assert not np.array_equal(frames(load(tmp_path / "plain", variant="fp16")), expected)


def test_a_branch_that_exists_as_one_variant_is_found_and_of_several_one_is_asked_for(tmp_path: Path):
    pipeline = wan()
    parts = {name: part for name, part in pipeline.components.items() if name != "branch"}
    WanPipeline(**parts).save_pretrained(tmp_path / "model")
    expected, branch = frames(pipeline), tmp_path / "branch"
    pipeline.branch.save_pretrained(branch, variant="fp16")
    assert np.array_equal(frames(load(tmp_path / "model", branch=branch)), expected)
    pipeline.branch.save_pretrained(branch, variant="bf16")
    with pytest.raises(ValueError, match=r"branch holds its weights as bf16 and fp16: say which with --variant"):
        load(tmp_path / "model", branch=branch)
    pipeline.branch.save_pretrained(branch)
    assert np.array_equal(frames(load(tmp_path / "model", branch=branch)), expected)
    assert variant_beside(branch, None) is None
    assert variant_beside(branch, "bf16") == "bf16", "also beside plain ones"
    assert variant_beside(branch, "fp8") is None
