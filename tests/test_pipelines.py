"""The pipelines and the one door: a branch travels with its base, and what cannot open says so in one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import make_branch, make_transformer
from diffusers import CogVideoXPipeline, DiffusionPipeline, WanPipeline, WanTransformer3DModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from small_cogvideox import make_cogvideox, make_cogvideox_pipeline

import prophy
from prophy import phenomena
from prophy.backbones.cogvideox import ProPhyCogVideoXPipeline
from prophy.backbones.wan import ProPhyWanPipeline
from prophy.branch import ProPhyBranch
from prophy.catalogue.describe import BRANCH_FOLDER
from prophy.catalogue.published import PUBLISHED
from prophy.generation.generate import GenerationSettings, generate
from prophy.generation.identity import branch_switched, model_hash
from prophy.generation.pipelines import load

WEIGHTS = "diffusion_pytorch_model.safetensors"
SIZES = {
    ProPhyWanPipeline: {"steps": 2, "frames": 9, "height": 32, "width": 48},
    ProPhyCogVideoXPipeline: {"steps": 2, "frames": 9, "height": 64, "width": 96},
}


def clip(pipeline: DiffusionPipeline) -> torch.Tensor:
    size = next(size for kind, size in SIZES.items() if isinstance(pipeline, kind.__mro__[2]))
    return torch.from_numpy(generate(pipeline, GenerationSettings("a red ball bounces", seed=3, **size)).frames)


def same(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Equal up to rounding: weights mapped from a file lie otherwise in memory, and other kernels multiply them."""
    return int((first.int() - second.int()).abs().max()) <= 1


@pytest.fixture
def wan(tiny_pipeline) -> ProPhyWanPipeline:
    return tiny_pipeline


@pytest.fixture
def cogvideox() -> ProPhyCogVideoXPipeline:
    transformer = make_cogvideox()
    return make_cogvideox_pipeline(transformer, make_branch(transformer, trained=True))


@pytest.fixture(params=["wan", "cogvideox"])
def pipeline(request) -> ProPhyWanPipeline | ProPhyCogVideoXPipeline:
    return request.getfixturevalue(request.param)


def stock_of(pipeline: DiffusionPipeline) -> DiffusionPipeline:
    """The stock pipeline of the same parts."""
    parts = {name: part for name, part in pipeline.components.items() if name != "branch"}
    return (WanPipeline if isinstance(pipeline, WanPipeline) else CogVideoXPipeline)(**parts)


@pytest.fixture
def base(pipeline, tmp_path: Path) -> Path:
    """The folder of a stock pipeline, without a branch."""
    stock_of(pipeline).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def wan_base(wan, tmp_path: Path) -> Path:
    stock_of(wan).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def branch_folder(wan, tmp_path: Path) -> Path:
    wan.branch.save_pretrained(tmp_path / "physics")
    return tmp_path / "physics"


def refusal(base: str | Path, **kwargs) -> str:
    """The one line with which a model is refused."""
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load(base, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


# --- one door ---------------------------------------------------------------------------------------------------------


def test_a_saved_pipeline_brings_its_branch_back(pipeline, tmp_path: Path):
    expected = clip(pipeline)
    pipeline.save_pretrained(tmp_path / "saved")
    for opened in (load(tmp_path / "saved"), type(pipeline).from_pretrained(str(tmp_path / "saved"))):
        assert type(opened) is type(pipeline)
        assert isinstance(opened.branch, ProPhyBranch)
        assert same(clip(opened), expected)
    assert (tmp_path / "saved" / BRANCH_FOLDER / "README.md").is_file()


def test_a_stock_folder_opens_with_a_branch_given_as_a_path_or_an_object(pipeline, base: Path, tmp_path: Path):
    expected = clip(pipeline)
    pipeline.branch.save_pretrained(tmp_path / "physics")
    for branch in (tmp_path / "physics", str(tmp_path / "physics"), make_branch(pipeline.transformer, trained=True)):
        assert same(clip(load(base, branch=branch)), expected)
    plain = load(base)
    assert plain.branch is None
    assert plain.attachment is None
    assert not same(clip(plain), expected)
    assert same(clip(plain), clip(stock_of(plain)))


def test_a_branch_folder_inside_a_stock_folder_is_found(wan, wan_base: Path):
    wan.branch.save_pretrained(wan_base / BRANCH_FOLDER)
    assert same(clip(load(wan_base)), clip(wan))
    assert WanPipeline.from_pretrained(wan_base).components.keys() == stock_of(wan).components.keys()


def test_the_backbone_opens_alone_whatever_lies_beside_it_and_counts_as_itself(pipeline, base: Path, tmp_path: Path):
    """What it makes is recorded as made by the backbone; so is what an opened branch that is switched off lets by."""
    stock = clip(stock_of(load(base)))
    pipeline.save_pretrained(tmp_path / "saved")
    pipeline.branch.save_pretrained(base / BRANCH_FOLDER)
    (tmp_path / "saved" / BRANCH_FOLDER / WEIGHTS).unlink()  # nor is it read
    for folder in (base, tmp_path / "saved"):
        alone = load(folder, branch=False)
        assert type(alone) is type(pipeline)
        assert (alone.branch, alone.attachment) == (None, None)
        assert same(clip(alone), stock)
    both = load(base)
    assert model_hash(both) != model_hash(load(base, branch=False))
    with branch_switched(both, False):
        assert same(clip(both), stock)
        assert model_hash(both) == model_hash(load(base, branch=False))
    assert both.attachment.enabled


def test_two_transformers_and_their_boundary_are_saved_and_reopened(wan, tmp_path: Path):
    wan.attachment.detach()
    both = ProPhyWanPipeline(**{**wan.components, "transformer_2": make_transformer()}, boundary_ratio=0.875)
    both.save_pretrained(tmp_path / "saved")
    opened = load(tmp_path / "saved")
    assert opened.config.boundary_ratio == 0.875
    assert same(clip(opened), clip(both))


def test_a_timestep_for_each_token_is_saved_and_reopened(wan, tmp_path: Path):
    wan.attachment.detach()
    ProPhyWanPipeline(**wan.components, expand_timesteps=True).save_pretrained(tmp_path / "saved")
    assert load(tmp_path / "saved").config.expand_timesteps is True


def test_the_door_is_found_on_first_use_and_importing_the_package_imports_no_torch():
    code = (
        "import sys, prophy; assert 'torch' not in sys.modules; assert 'load' in prophy.__all__;"
        "print(prophy.load.__module__, prophy.ProPhyBranch.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["prophy.generation.pipelines", "ProPhyBranch"]
    assert prophy.load is load
    with pytest.raises(AttributeError, match="module 'prophy' has no attribute 'lode'"):
        prophy.lode  # noqa: B018


def test_the_dtype_reaches_every_part_and_the_routing_stays_float32(pipeline, base: Path, tmp_path: Path):
    pipeline.branch.save_pretrained(tmp_path / "physics")
    small = load(base, branch=tmp_path / "physics", dtype=torch.bfloat16)
    assert small.transformer.dtype == small.branch.dtype == torch.bfloat16
    seen = []
    small.branch.register_forward_hook(lambda _, __, made: seen.append((made[0][0].dtype, made[1].probs_BNE.dtype)))
    clip(small)
    assert set(seen) == {(torch.bfloat16, torch.float32)}


# --- the hub ----------------------------------------------------------------------------------------------------------


def cut_off_the_network(monkeypatch) -> dict[str, bytes]:
    """Cut the two hub calls at the edge of diffusers; returns what would have been uploaded, filled on the way."""
    import diffusers.utils.hub_utils as hub

    class Repository:
        repo_id = "someone/model"

    uploaded = {}

    def upload(*, folder_path: str, **_) -> str:
        root = Path(folder_path)
        uploaded.update({str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()})
        return "https://example.org"

    monkeypatch.setattr(hub, "create_repo", lambda *_, **__: Repository)
    monkeypatch.setattr(hub, "upload_folder", upload)
    monkeypatch.setattr(hub.ModelCard, "load", classmethod(lambda cls, *_, **__: cls("---\n---\nnothing")))
    return uploaded


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8])
def test_a_dtype_that_does_not_compute_is_refused_and_names_layerwise_casting(wan_base: Path, dtype: torch.dtype):
    with pytest.raises(ValueError, match="do not compute: load in bfloat16, .*enable_layerwise_casting"):
        load(wan_base, dtype=dtype)


def test_pushing_a_pipeline_to_the_hub_carries_the_branch(pipeline, monkeypatch, tmp_path: Path):
    uploaded = cut_off_the_network(monkeypatch)
    pipeline.push_to_hub("someone/model")
    assert json.loads(uploaded["model_index.json"])["branch"] == ["prophy.branch.model", "ProPhyBranch"]
    assert f"{BRANCH_FOLDER}/{WEIGHTS}" in uploaded
    for name, content in uploaded.items():  # what a download would bring
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert same(clip(load(tmp_path)), clip(pipeline))


def test_pushing_a_branch_alone_carries_its_card(wan, monkeypatch):
    uploaded = cut_off_the_network(monkeypatch)
    wan.branch.push_to_hub("someone/physics")
    assert {"config.json", WEIGHTS, "README.md"} <= uploaded.keys()
    assert uploaded["README.md"].decode().count("prophy.load(") == 1


def test_the_card_says_what_the_branch_is_and_how_to_open_it(pipeline, tmp_path: Path):
    pipeline.branch.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    config = pipeline.branch.config
    for said in (
        f"`{config.family}`",
        "3 blocks of width 32",
        "blocks 0, 2",
        "6, on a reference grid of 3×4×5",
        "5, top-2",
        phenomena.VERSION,
        "unnatural light source",
        "Licence: the code is Apache-2.0",
        "arXiv:2512.05564",
    ):
        assert said in card, said
    lines = card.split("```python\n")[1].split("```")[0].splitlines()
    assert len(lines) == 3
    compile("\n".join(lines), "card", "exec")
    assert f"{sum(p.numel() for p in pipeline.branch.parameters()):,} parameters" in card
    assert not list(tmp_path.glob("*.new"))


# --- other weights beside the same branch -----------------------------------------------------------------------------

#: The names of the original checkpoints, by those of diffusers: its conversion read backwards.
ORIGINAL_NAMES = {
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "attn2": "cross_attn",
    "attn1": "self_attn",
    ".to_out.0.": ".o.",
    ".to_q.": ".q.",
    ".to_k.": ".k.",
    ".to_v.": ".v.",
    "proj_out": "head.head",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
    # the original calls its norms in the order 1, 3, 2
    "norm2": "norm_",
    "norm3": "norm2",
    "norm_.": "norm3.",
}


def original_name(name: str) -> str:
    if name == "scale_shift_table":
        return "head.modulation"
    for theirs, original in ORIGINAL_NAMES.items():
        name = name.replace(theirs, original)
    return name.replace("scale_shift_table", "modulation")


def test_the_original_names_are_those_of_the_published_checkpoint():
    with torch.device("meta"):
        transformer = WanTransformer3DModel(**{**PUBLISHED["wan2.1-1.3b"].transformer, "num_layers": 1})
    names = {original_name(name) for name in transformer.state_dict()}
    assert {
        "blocks.0.self_attn.q.weight",
        "blocks.0.self_attn.norm_q.weight",
        "blocks.0.cross_attn.o.bias",
        "blocks.0.norm3.weight",
        "blocks.0.modulation",
        "blocks.0.ffn.2.weight",
        "head.modulation",
        "head.head.weight",
        "time_projection.1.weight",
        "patch_embedding.weight",
    } <= names


def test_an_original_wan_checkpoint_opens_beside_the_branch(wan, wan_base: Path, branch_folder: Path, tmp_path: Path):
    state = wan.transformer.state_dict()
    save_file({original_name(name): value.contiguous() for name, value in state.items()}, tmp_path / "wan.safetensors")
    opened = WanTransformer3DModel.from_single_file(
        str(tmp_path / "wan.safetensors"), config=str(wan_base), subfolder="transformer"
    )
    assert opened.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in opened.state_dict().items())
    (wan_base / "transformer" / WEIGHTS).unlink()  # the base may come without
    again = load(wan_base, branch=branch_folder, transformer=opened)
    assert same(clip(again), clip(wan))


def test_a_fine_tuned_transformer_opens_beside_the_branch(wan, wan_base: Path, branch_folder: Path, tmp_path: Path):
    before = clip(wan)
    with torch.no_grad():
        for parameter in wan.transformer.parameters():
            parameter.mul_(0.9)
    expected = clip(wan)
    assert not same(expected, before)
    wan.transformer.save_pretrained(tmp_path / "tuned")
    tuned = WanTransformer3DModel.from_pretrained(tmp_path / "tuned")
    assert same(clip(load(wan_base, branch=branch_folder, transformer=tuned)), expected)


def test_a_lora_opens_beside_the_branch_unchanged(pipeline, base: Path, tmp_path: Path):
    """Saved by the stock pipeline, opened by ours: the backbone learns it, the branch stays as it was."""
    before = clip(pipeline)
    pipeline.branch.save_pretrained(tmp_path / "physics")
    donor = stock_of(load(base))
    torch.manual_seed(8)
    donor.transformer.add_adapter(
        LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
    )
    donor.save_lora_weights(tmp_path / "lora", transformer_lora_layers=get_peft_model_state_dict(donor.transformer))
    opened = load(base, branch=tmp_path / "physics")
    weights = {name: value.clone() for name, value in opened.branch.state_dict().items()}
    opened.load_lora_weights(tmp_path / "lora")
    both = clip(opened)
    assert opened.branch.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in opened.branch.state_dict().items())
    opened.attachment.enabled = False
    assert same(clip(opened), clip(donor))
    assert not same(both, clip(donor))
    assert not same(both, before)
    opened.attachment.enabled = True
    opened.unload_lora_weights()
    assert same(clip(opened), before)


# --- what cannot open, says so ----------------------------------------------------------------------------------------


def edit_index(folder: Path, **changes) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, **changes}))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("FluxPipeline", "is a FluxPipeline: open a WanPipeline or a CogVideoXPipeline"),
        ("WanImageToVideoPipeline", "is image-to-video (WanImageToVideoPipeline): ProPhy attaches to text-to-video"),
        ("CogVideoXImageToVideoPipeline", "is image-to-video (CogVideoXImageToVideoPipeline)"),
    ],
)
def test_another_kind_of_pipeline_is_refused_by_name(wan_base: Path, name: str, message: str):
    edit_index(wan_base, _class_name=name)
    assert message in refusal(wan_base)


def test_a_class_refuses_the_folder_of_the_other_family(wan_base: Path):
    with pytest.raises(ValueError, match="is a WanPipeline, not for ProPhyCogVideoXPipeline: open it with prophy.load"):
        ProPhyCogVideoXPipeline.from_pretrained(wan_base)


@pytest.mark.parametrize("name", ["vae", "transformer", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_component_is_named(wan_base: Path, name: str):
    (wan_base / name).rename(wan_base / f"{name}.away")
    assert refusal(wan_base).endswith(f"lacks its component {name}/: copy or download that folder again")


def test_a_missing_branch_of_a_saved_pipeline_is_named_and_another_can_be_given(
    wan, branch_folder: Path, tmp_path: Path
):
    wan.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / BRANCH_FOLDER).rename(tmp_path / "away")
    assert f"lacks its component {BRANCH_FOLDER}/" in refusal(tmp_path / "saved")
    assert same(clip(load(tmp_path / "saved", branch=branch_folder)), clip(wan))


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
@pytest.mark.parametrize("name", [f"transformer/{WEIGHTS}", f"vae/{WEIGHTS}", "text_encoder/model.safetensors"])
def test_a_file_that_is_cut_short_is_named(wan_base: Path, name: str, keep: int):
    content = (wan_base / name).read_bytes()
    (wan_base / name).write_bytes(content[:keep])
    assert refusal(wan_base) == f"{wan_base / name} is cut short or damaged: copy or download it again"


def test_a_missing_shard_is_named(wan, wan_base: Path):
    (wan_base / "transformer" / WEIGHTS).unlink()
    wan.transformer.save_pretrained(wan_base / "transformer", max_shard_size="20KB")
    shards = sorted((wan_base / "transformer").glob("*-of-*.safetensors"))
    assert len(shards) > 1
    assert load(wan_base).branch is None
    shards[1].unlink()
    assert f"lacks {shards[1].name}: copy or download that file again" in refusal(wan_base)


def test_a_branch_that_is_cut_short_is_named(wan_base: Path, branch_folder: Path):
    content = (branch_folder / WEIGHTS).read_bytes()
    (branch_folder / WEIGHTS).write_bytes(content[:-1])
    message = refusal(wan_base, branch=branch_folder)
    assert message == f"{branch_folder / WEIGHTS} is cut short or damaged: copy or download it again"


def test_a_branch_of_other_phenomena_is_refused(wan_base: Path, branch_folder: Path):
    config = json.loads((branch_folder / "config.json").read_text())
    (branch_folder / "config.json").write_text(json.dumps({**config, "phenomena_version": "wisa-18-v2"}))
    message = refusal(wan_base, branch=branch_folder)
    assert "branch of phenomena 'wisa-18-v2'" in message
    assert phenomena.VERSION in message


def test_a_branch_of_another_family_is_refused(wan_base: Path, cogvideox, tmp_path: Path):
    cogvideox.branch.save_pretrained(tmp_path / "physics")
    message = refusal(wan_base, branch=tmp_path / "physics")
    assert (
        "belongs to a CogVideoXTransformer3DModel, not a WanTransformer3DModel: load it beside its own base" in message
    )


@pytest.mark.parametrize("changes", [{"num_attention_heads": 3}, {"num_layers": 4}, {"in_channels": 8}])
def test_a_branch_of_another_width_or_depth_is_refused(wan_base: Path, tmp_path: Path, changes: dict, monkeypatch):
    config = {**make_transformer().config, **changes}
    other = WanTransformer3DModel.from_config({**config, "out_channels": config["in_channels"]})
    make_branch(other, trained=False).save_pretrained(tmp_path / "physics")
    ((name, value),) = changes.items()
    monkeypatch.setattr(WanTransformer3DModel, "from_pretrained", None)  # refused before any weights are read
    assert f"made for a backbone with {name}={value}, this one has" in refusal(wan_base, branch=tmp_path / "physics")


def test_an_image_to_video_transformer_is_refused(wan_base: Path, branch_folder: Path):
    config = make_transformer().config
    WanTransformer3DModel.from_config({**config, "in_channels": 9}).save_pretrained(wan_base / "transformer")
    assert "image-to-video Wan: ProPhy attaches to text-to-video models" in refusal(wan_base, branch=branch_folder)


def test_folders_that_hold_no_model_or_no_branch_are_refused(wan_base: Path, tmp_path: Path):
    assert "holds no model (model_index.json is missing)" in refusal(tmp_path / "nowhere")
    assert "holds no branch (config.json is missing)" in refusal(wan_base, branch=tmp_path / "nowhere")
    (wan_base / "model_index.json").write_text("{")
    assert f"cannot open {wan_base}" in refusal(wan_base)


def test_a_branch_for_one_of_two_transformers_is_refused(wan, branch_folder: Path, tmp_path: Path):
    shallow = WanTransformer3DModel.from_config({**make_transformer().config, "num_layers": 2})
    parts = {**stock_of(wan).components, "transformer_2": shallow}
    WanPipeline(**parts, boundary_ratio=0.875).save_pretrained(tmp_path / "two")
    assert "fits only one of the pipeline's transformers" in refusal(tmp_path / "two", branch=branch_folder)
