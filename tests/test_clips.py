"""What a model can make, known from its small files: the same as the stock pipelines and their tensors say."""

import json
from pathlib import Path

import pytest
import torch
from conftest import make_branch, make_transformer
from small_cogvideox import make_cogvideox, make_cogvideox_pipeline

from prophy.backbones.pipeline import rules_of
from prophy.catalogue.describe import describe_model
from prophy.catalogue.families import facts_of
from prophy.catalogue.limits import LONGEST_PROMPT_TOKENS, ClipRules, ClipSize, GenerationDefaults
from prophy.catalogue.published import PUBLISHED
from prophy.generation.generate import GenerationSettings


@pytest.fixture(params=["wan", "cogvideox"])
def pipeline(request, tiny_pipeline):
    if request.param == "wan":
        return tiny_pipeline
    transformer = make_cogvideox()
    return make_cogvideox_pipeline(transformer, make_branch(transformer, trained=True))


def test_the_files_of_a_model_say_the_same_as_the_opened_model(pipeline, tmp_path: Path):
    pipeline.save_pretrained(tmp_path / "small")
    described = describe_model(tmp_path / "small")
    assert described.rules == rules_of(pipeline)
    assert (described.name, described.transformers) == ("small", 1)
    assert described.branch["num_refinement_experts"] == 5
    assert described.defaults is None


def test_a_clips_latent_is_the_one_that_the_autoencoder_makes(pipeline):
    """No two sizes equal; the grid is what the transformer makes of it."""
    clip = ClipSize(64, 96, 9)
    pixels = torch.zeros(1, 3, clip.frames, clip.height, clip.width)
    with torch.no_grad():
        latent = pipeline.vae.encode(pixels).latent_dist.mode()
    rules = rules_of(pipeline)
    assert rules.latent_shape(clip) == tuple(latent.shape[1:])
    grid = rules.grid(clip.frames, clip.height, clip.width)
    assert grid.num_video_frames == clip.frames
    assert (grid.height * rules.patch, grid.width * rules.patch) == tuple(latent.shape[-2:])


def test_what_the_files_leave_out_is_what_the_classes_take_by_default():
    with torch.device("meta"):
        from diffusers import (
            AutoencoderKLCogVideoX,
            AutoencoderKLWan,
            CogVideoXTransformer3DModel,
            WanTransformer3DModel,
        )

        for transformer, vae in (
            (WanTransformer3DModel(num_layers=1), AutoencoderKLWan()),
            (CogVideoXTransformer3DModel(num_layers=1), AutoencoderKLCogVideoX()),
        ):
            name = type(transformer).__name__
            assert rules(name, {}, {}) == rules(name, transformer.config, vae.config)
    with pytest.raises(ValueError, match="unknown backbone family 'LTX': use one of WanTransformer3DModel"):
        rules("LTX", {}, {})


@pytest.mark.parametrize("key", PUBLISHED)
def test_a_published_model_is_described_by_its_hub_id_without_asking_anyone(key: str, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", None)
    described = describe_model(PUBLISHED[key].repo)
    assert described == describe_model(key)
    made = described.defaults
    assert (made.width, made.height, made.frames) == (
        PUBLISHED[key].width,
        PUBLISHED[key].height,
        PUBLISHED[key].frames,
    )
    assert described.rules.grid(made.frames, made.height, made.width).num_video_frames == made.frames
    assert described.published is PUBLISHED[key]


def test_another_hub_id_is_described_by_its_small_files(tiny_pipeline, tmp_path: Path, monkeypatch):
    import huggingface_hub

    tiny_pipeline.save_pretrained(tmp_path)
    asked = []

    def download(repo: str, name: str) -> str:
        asked.append(name)
        if not (tmp_path / name).is_file():
            raise OSError("404: no such file\nsecond line")
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert describe_model("someone/their-wan").rules == describe_model(tmp_path).rules
    assert describe_model("someone/their-wan").name == "someone/their-wan"
    assert all(name.endswith(".json") for name in asked), "it reads weights"
    with pytest.raises(ValueError, match="^cannot read config.json of a/b from the hub: 404: no such file$"):
        describe_model(tmp_path, branch="a/b")


def test_damaged_and_foreign_files_are_refused_in_one_line(tiny_pipeline, tmp_path: Path):
    tiny_pipeline.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds no branch"):
        describe_model(tmp_path, branch=tmp_path / "vae" / "nothing")
    (tmp_path / "vae" / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is damaged .*: write it again"):
        describe_model(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps({**index, "transformer": ["diffusers", "LTXModel"]}))
    (tmp_path / "vae" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="unknown backbone family 'LTXModel'"):
        describe_model(tmp_path)


@pytest.mark.parametrize("text", ["", "832x480", "832x480x81x2", "axbxc", "0x480x81", "-8x8x9", "1.5x8x9", "٣x8x9"])
def test_a_size_is_three_whole_numbers(text: str):
    assert ClipSize.parse("832X480x81") == ClipSize(832, 480, 81)
    with pytest.raises(ValueError, match="give three numbers, as in 832x480x81"):
        ClipSize.parse(text)


def test_a_clip_that_cannot_be_made_is_refused_with_the_nearest_that_can():
    wan = rules_of_shape(make_transformer())
    with pytest.raises(ValueError, match="48×30 pixels .* steps of 16: use 48×32"):
        wan.check(9, 30, 48)
    with pytest.raises(ValueError, match=r"frames=3 is not 1 \+ 4k, all this model can make: use 5"):
        wan.check(3, 32, 48)
    with pytest.raises(ValueError, match=r"frames=13 is not 1 \+ 8k, all this model can make: use 17"):
        rules_of_shape(make_cogvideox()).check(13, 64, 96)


def rules(transformer_class: str, transformer: dict, vae: dict) -> ClipRules:
    return facts_of(transformer_class).clip_rules(transformer, vae, LONGEST_PROMPT_TOKENS)


def rules_of_shape(transformer) -> ClipRules:
    return rules(type(transformer).__name__, transformer.config, {})


def test_settings_and_recommendation_agree_on_the_embedded_models_clip():
    settings, made = GenerationSettings("a ball"), GenerationDefaults()
    for name in ("width", "height", "frames", "fps", "steps", "guidance"):
        assert getattr(settings, name) == getattr(made, name)
