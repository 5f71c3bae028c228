"""The embedded model: an ordinary diffusers folder that stock classes open, with weights that do what they claim."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel

from prophy.assets import default_model, gallery_dir
from prophy.branch import ProPhyBranch
from prophy.catalogue.describe import BRANCH_FOLDER
from prophy.evaluation.prompts.fixed import FIXED_PROMPTS
from prophy.evaluation.prompts.gallery import SHIPPED
from prophy.generation.identity import origin_hash
from prophy.generation.pipelines import load
from prophy.runs.store import list_runs
from prophy.worlds import sample_clip
from prophy.worlds.scope import SCOPE

pytestmark = pytest.mark.shipped


@pytest.fixture(scope="module")
def stock() -> WanPipeline:
    pipeline = WanPipeline.from_pretrained(default_model())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(pipeline: WanPipeline, seed: int = 1) -> np.ndarray:
    """Two steps at the size the model was trained at."""
    return pipeline(
        prompt="a red ball bounces on the floor",
        height=64,
        width=64,
        num_frames=17,
        num_inference_steps=2,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(seed),
        max_sequence_length=pipeline.tokenizer.model_max_length,
        output_type="np",
    ).frames[0]


def test_a_stock_pipeline_opens_the_folder_and_generates(stock):
    assert type(stock) is WanPipeline
    assert type(stock.transformer) is WanTransformer3DModel
    frames = generate(stock)
    assert frames.shape == (17, 64, 64, 3)
    assert np.isfinite(frames).all()
    assert frames.min() >= 0
    assert frames.max() <= 1
    assert frames.std() > 0.02, "an empty picture"
    assert not np.array_equal(generate(stock, seed=2), frames)


def test_the_folder_names_stock_classes_only():
    index = json.loads((default_model() / "model_index.json").read_text())
    assert index["_class_name"] == "WanPipeline"
    components = {name: value for name, value in index.items() if isinstance(value, list)}
    assert {library for library, _ in components.values()} <= {"diffusers", "transformers", None}
    assert BRANCH_FOLDER not in components


@pytest.mark.parametrize(
    "path", sorted(default_model().rglob("*.json")), ids=lambda p: str(p.relative_to(default_model()))
)
def test_no_file_names_a_path_of_the_machine_that_trained_it(path: Path):
    assert not re.search(r'"/(root|home|tmp|work|mnt|data)\b', path.read_text()), path


@pytest.mark.timeout(300)
def test_the_autoencoder_reconstructs_held_out_clips():
    """The first clips of the held-out split, as they come."""
    vae = AutoencoderKLWan.from_pretrained(default_model() / "vae").eval()
    values = []
    for seed in range(4):
        clip = sample_clip(seed, "test")
        video = torch.from_numpy(clip.frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        with torch.no_grad():
            again = vae.decode(vae.encode(video).latent_dist.mode()).sample.clamp(-1, 1)
        values.append(10 * np.log10(4 / float((again - video).square().mean())))
        print(f"clip {seed}, {', '.join(clip.masks)}: {values[-1]:.1f} dB")
    assert np.mean(values) > 27
    assert min(values) > 24, "one clip is lost"


def test_the_shipped_pipeline_generates_the_same_frames_when_its_branch_is_off():
    pipeline = load()
    stock = WanPipeline.from_pretrained(default_model(), dtype=torch.float32)  # by default, text is read in fp16
    stock.set_progress_bar_config(disable=True)
    if pipeline.attachment is None:
        pytest.skip("no branch is shipped")
    pipeline.set_progress_bar_config(disable=True)
    pipeline.attachment.enabled = False
    np.testing.assert_array_equal(generate(pipeline), generate(stock))


def test_the_shipped_branch_belongs_to_the_shipped_transformer(stock):
    folder = default_model() / BRANCH_FOLDER
    if not folder.is_dir():
        pytest.skip("no branch is shipped")
    ProPhyBranch.from_pretrained(folder).check_fits(stock.transformer)


def test_the_gallery_shows_every_phenomenon_and_was_made_by_the_shipped_weights():
    runs = {run.id: run for run in list_runs(gallery_dir())}
    assert set(runs) == set(SHIPPED.values())
    assert len(runs) >= 12
    shown = {phenomenon for fixed in FIXED_PROMPTS if fixed.seed in SHIPPED for phenomenon in fixed.phenomena}
    assert shown == set(SCOPE)
    weights = origin_hash(load())  # as release 0.1 took it, which made them
    for fixed in FIXED_PROMPTS:
        if fixed.seed in SHIPPED:
            run = runs[SHIPPED[fixed.seed]]
            assert (run.record.prompt, run.record.seed) == (fixed.prompt, fixed.seed)
            assert run.record.model_sha256 == weights, f"{run.id}: run `prophy evaluate gallery` again"
            assert run.trace().num_kept == run.record.settings["steps"]


def test_the_folder_is_small_enough_for_an_ordinary_clone():
    assert sum(path.stat().st_size for path in default_model().rglob("*") if path.is_file()) < 64 * 2**20
