"""The trainer: objectives as schedulers have them, recipes that differ as named, a step, exact resume, bad input."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from conftest import make_transformer
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from small_cogvideox import make_cogvideox, make_cogvideox_pipeline
from small_training import RECIPE, SHAPE, RandomClips, losses_of, run
from vlms import make_model, make_tokenizer

from prophy.annotation.annotator import Annotator
from prophy.annotation.config import AnnotationConfig
from prophy.annotation.pipeline import annotate_all
from prophy.branch import ProPhyBranch, attach
from prophy.branch.losses import LossWeights, coarse_bce_loss, coarse_loss, total_loss
from prophy.catalogue.limits import ClipSize
from prophy.cli import main
from prophy.data.encode import encode_clip
from prophy.data.examples import FirstFrames
from prophy.data.jobs import WORLDS, Shard, jobs_of_worlds
from prophy.generation.generate import GenerationSettings, generate, model_hash
from prophy.generation.pipelines import load
from prophy.phenomena import by_id
from prophy.routing.targets import TokenTargets
from prophy.runs.store import read_run
from prophy.training import checkpoints
from prophy.training.bases import open_backbone, open_examples, open_folder, sampler
from prophy.training.batches import NOISE_LEVELS, Batch, Batches, Order, Share, fixed_batch
from prophy.training.cached_examples import CachedExamples
from prophy.training.checkpoints import load_checkpoint, save_checkpoint
from prophy.training.cli import build_parser, changed
from prophy.training.log import read_lines
from prophy.training.objectives import FlowMatching, NoiseLevels, objective_for
from prophy.training.progress import TrainingStopped
from prophy.training.publish import publish
from prophy.training.recipe import BackboneShape, OptimiserSettings, Recipe, difference
from prophy.training.recipes import RECIPES, cogvideox_5b, recipe_named, tiny, wan_1_3b
from prophy.training.step import expert_usage, train_step
from prophy.training.strategies import AccelerateStrategy
from prophy.training.trainable import build_trainable, trained
from prophy.training.trainer import Running, validate
from prophy.video import sample_frames, write_video
from prophy.worlds import sample_clip
from prophy.worlds.scope import SCOPE

ROOT = Path(__file__).resolve().parents[1]
COGVIDEOX = {"beta_schedule": "scaled_linear", "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}


# --- objectives -------------------------------------------------------------------------------------------------------


@pytest.fixture
def clean_and_noise() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(5, 4, 3, 2, 6, generator=generator), torch.randn(5, 4, 3, 2, 6, generator=generator)


@pytest.mark.parametrize("scheduler_class", [CogVideoXDDIMScheduler, CogVideoXDPMScheduler])
@pytest.mark.parametrize("shift", [1.0, 3.0])  # CogVideoX-5B's and 2B's
def test_v_prediction_is_the_schedulers_own(clean_and_noise, scheduler_class, shift: float):
    clean, noise = clean_and_noise
    scheduler = scheduler_class(**COGVIDEOX, snr_shift_scale=shift)
    timesteps = torch.tensor([0, 17, 500, 950, 999])
    made = objective_for(scheduler).noised(clean, noise, timesteps.double() / 1000)
    assert made.timestep_B.tolist() == timesteps.tolist()
    largest = max(
        float((made.noisy_BCTHW - scheduler.add_noise(clean, noise, timesteps)).abs().max()),
        float((made.target_BCTHW - scheduler.get_velocity(clean, noise, timesteps)).abs().max()),
    )
    print(f"largest difference to {scheduler_class.__name__}: {largest:.3g}")
    assert largest < 1e-6
    assert made.noisy_BCTHW.std() > 0.5


def test_the_plain_error_of_v_is_cogvideox_own_weighted_error_of_the_clip(clean_and_noise):
    clean, noise = clean_and_noise
    scheduler = CogVideoXDPMScheduler(**COGVIDEOX, snr_shift_scale=1.0)
    timesteps = torch.tensor([10, 200, 500, 800, 980])
    made = objective_for(scheduler).noised(clean, noise, timesteps.double() / 1000)
    said = made.target_BCTHW + 0.3 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
    predicted_clean = scheduler.get_velocity(said, made.noisy_BCTHW, timesteps)
    weight = 1 / (1 - scheduler.alphas_cumprod[timesteps])
    theirs = (weight.view(-1, 1, 1, 1, 1) * (predicted_clean - clean) ** 2).mean()
    ours = (said - made.target_BCTHW).square().mean()
    assert float(ours) == pytest.approx(float(theirs), rel=1e-3)


def test_flow_matching_is_the_schedulers_own(clean_and_noise):
    clean, noise = clean_and_noise
    unipc = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    unipc.set_timesteps(20)
    euler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    for scheduler, add in ((unipc, unipc.add_noise), (euler, lambda x, n, t: euler.scale_noise(x, t, n))):
        at = [0, 3, 7, 11, 15]
        timesteps, sigmas = scheduler.timesteps[at], scheduler.sigmas[at]
        made = objective_for(scheduler).noised(clean, noise, sigmas.double())
        torch.testing.assert_close(made.noisy_BCTHW, add(clean, noise, timesteps), atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(made.timestep_B, timesteps.float(), atol=1.0, rtol=0)  # UniPC's are whole numbers
    sigma = sigmas.view(-1, 1, 1, 1, 1)
    torch.testing.assert_close(made.noisy_BCTHW - sigma * made.target_BCTHW, clean, atol=1e-5, rtol=0)


def test_a_base_that_predicts_noise_is_refused():
    with pytest.raises(ValueError, match="predicts 'epsilon': ProPhy trains flow and v-prediction models"):
        objective_for(DDPMScheduler())


def test_noise_levels_follow_their_sampling():
    levels = {}
    for sampling in ("uniform", "logit_normal", "shifted"):
        rng = np.random.default_rng(0)
        drawn = np.array([NoiseLevels(sampling, mean=0.5, std=0.7, shift=3.0).draw(rng) for _ in range(4000)])
        assert ((drawn >= 0) & (drawn < 1)).all()
        levels[sampling] = drawn
    assert np.quantile(levels["uniform"], [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.03)
    logits = np.log(levels["logit_normal"] / (1 - levels["logit_normal"]))
    assert (logits.mean(), logits.std()) == pytest.approx((0.5, 0.7), abs=0.03)
    assert np.median(levels["shifted"]) == pytest.approx(3 * 0.5 / (1 + 2 * 0.5), abs=0.03)
    for wrong in ({"sampling": "gaussian"}, {"std": 0.0}, {"shift": -1.0}):
        with pytest.raises(ValueError, match=r"noise levels|noise\.(std|shift)=.* must be above 0"):
            NoiseLevels(**wrong)


# --- recipes ----------------------------------------------------------------------------------------------------------

NO_LOSSES = {"losses.coarse": 0.0, "losses.fine_align": 0.0, "losses.fine_balance": 0.0}

#: by its name, exactly what a variant changes
CHANGES: dict[str, dict[str, object]] = {
    "lora": {"backbone": "lora", "branch": None, **NO_LOSSES},
    "lora_seb": {
        "backbone": "lora",
        "branch.refinement": False,
        "losses.fine_align": 0.0,
        "losses.fine_balance": 0.0,
    },
    "lora_reb": {"backbone": "lora", "branch.semantic": False, "losses.coarse": 0.0},
    "alone": {"branch": None, **NO_LOSSES},
    "seb": {"branch.refinement": False, "losses.fine_align": 0.0, "losses.fine_balance": 0.0},
    "reb": {"branch.semantic": False, "losses.coarse": 0.0},
    "bce": {"coarse": "bce"},
    "align_only": {"losses.fine_balance": 0.0},
    "balance_only": {"losses.fine_align": 0.0},
    "causal": {
        "branch.refinement_experts": 18,
        "losses.routing": 0.1,
        "losses.fine_balance": 0.0,
        "counterfactual.share": 0.35,
    },
}
BASES = (
    "wan_1_3b",
    "cogvideox_5b",
    "tiny_together",
    "tiny_transformer",
    "tiny_stills",
    "tiny_base",
    "tiny_branch",
    "tiny",
)


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in BASES])
def test_a_variant_differs_from_its_base_exactly_as_its_name_says(name: str):
    base = next(base for base in BASES if name.startswith(base + "_"))
    full, variant = recipe_named(base), recipe_named(name)
    changed = {field: now for field, (_, now) in difference(full, variant).items()}
    if name.endswith("_causal"):  # behind the experts alone, as the second embedded model's is anyway
        assert changed.pop("branch.injections", full.branch.injections) == full.branch.sites[-1:]
    assert changed == CHANGES[name.removeprefix(base + "_")]


def test_every_ablation_of_the_paper_and_ours_exists_for_every_base():
    for base in ("wan_1_3b", "cogvideox_5b", "tiny", "tiny_branch"):
        for variant in ("lora", "lora_seb", "lora_reb", "bce", "align_only", "balance_only", "causal"):
            assert f"{base}_{variant}" in RECIPES


def test_the_bases_carry_the_papers_loss_weights_and_differ_only_in_the_backbone():
    for recipe in (wan_1_3b(), cogvideox_5b()):
        assert recipe.losses == LossWeights(coarse=0.1, fine_align=0.02, fine_balance=0.01)
    assert difference(wan_1_3b(), cogvideox_5b()).keys() == {"base", "branch.sites", "noise.sampling"}
    changed = difference(tiny(), recipe_named("tiny_together")).keys()
    assert changed == {"backbone", "backbone_optimiser", "optimiser.decay"}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_comes_back_from_its_record(name: str):
    recipe = recipe_named(name)
    assert Recipe.from_record(json.loads(json.dumps(recipe.record()))) == recipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "thawed"}, "backbone='thawed' is unknown: use frozen or lora or trained"),
        ({"branch": None}, "nothing to train"),
        ({"batch": 5, "accumulation": 2}, "batch=5 does not divide into 2 parts"),
        ({"steps": 0}, "steps=0 must be at least 1"),
        ({"backbone": "trained", "backbone_dtype": "bfloat16"}, "a trained backbone needs backbone_dtype='float32'"),
        ({"scratch": BackboneShape()}, "a backbone from scratch must learn: backbone='frozen' must be 'trained'"),
        (
            {"backbone_optimiser": OptimiserSettings("muon", muon_rate=0.1)},
            "has nothing to train: the backbone is frozen",
        ),
        ({"backbone": "lora", "backbone_optimiser": OptimiserSettings()}, "must be the same"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused_in_one_line(changes: dict, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        replace(tiny(), **changes)
    assert "\n" not in str(caught.value)


def test_rates_rise_and_fall_as_the_recipe_says():
    settings = OptimiserSettings(warm_up=4, decay="linear")
    assert [settings.share_of_peak(step, 10) for step in (0, 1, 4, 9)] == pytest.approx([0.25, 0.45, 0.6, 0.1])
    assert replace(settings, decay="constant").share_of_peak(9, 10) == 1
    assert replace(settings, decay="cosine").share_of_peak(5, 10) == pytest.approx(0.5)
    late = replace(settings, decay="cool_down", cool_down=0.4)
    assert [late.share_of_peak(step, 10) for step in (0, 3, 6, 7, 9)] == pytest.approx([0.25, 1, 1, 0.75, 0.25])
    halved = replace(settings, decay="cool_down", cool_down=2.0)
    assert [halved.share_of_peak(step, 10) for step in (0, 1, 2, 9)] == pytest.approx([0.25, 0.45, 0.4, 0.05])
    with pytest.raises(ValueError, match=r"optimiser.cool_down=0 must be above 0"):
        replace(settings, cool_down=0)


# --- batches ----------------------------------------------------------------------------------------------------------


def test_every_epoch_shows_every_clip_once_and_sizes_do_not_mix():
    sizes = [(3, 4, 6) if i % 3 else (5, 2, 4) for i in range(30)]
    order = Order(sizes, 5, seed=1)
    assert order.steps_per_epoch == 6
    epochs = [[order.rows(step) for step in range(6 * e, 6 * e + 6)] for e in range(2)]
    for epoch in epochs:
        assert Counter(np.concatenate(epoch).tolist()) == Counter(range(30))
        assert all(len({sizes[row] for row in rows}) == 1 for rows in epoch)
    assert np.concatenate(epochs[0]).tolist() != np.concatenate(epochs[1]).tolist()
    again = Order(sizes, 5, seed=1)
    assert again.rows(7).tolist() == epochs[1][1].tolist(), "an order depends on what was asked before"
    assert Order(sizes, 7, seed=1).left_out == {}
    assert Order([*sizes, (1, 1, 1)], 5, seed=1).left_out == {(1, 1, 1): 1}
    with pytest.raises(ValueError, match="a batch of 31 clips, and at most 20 of one size"):
        Order(sizes, 31, seed=1)


def test_the_parts_of_all_processes_are_the_batch_of_one():
    examples, recipe = RandomClips(), replace(RECIPE, batch=8, accumulation=2, null_share=0.3)
    plain = examples.example
    examples.example = lambda index, wording: replace(plain(index, wording), targets_NP=examples.targets[index])
    alone = Batches(examples, recipe, FlowMatching(), Share())
    for item in (0, 1, 5):
        parts = [Batches(examples, recipe, FlowMatching(), Share(i, 2))[item] for i in range(2)]
        one = alone[item]
        assert one.keys == parts[0].keys + parts[1].keys
        for name, value in vars(one).items():
            if name != "keys":
                assert torch.equal(value, torch.cat([getattr(part, name) for part in parts])), name
    with pytest.raises(ValueError, match="batch=8 does not divide among 3 processes with 2 parts each"):
        Batches(examples, recipe, FlowMatching(), Share(0, 3))


def test_a_batch_drops_captions_and_weighs_where_physics_is():
    examples = RandomClips(size=(3, 4, 6), patch=2)
    batches = Batches(examples, replace(RECIPE, batch=12, null_share=0.4, foreground=2.0), FlowMatching(), Share())
    batch = batches[3]
    assert 0 < batch.described_B.sum() < 12
    for text, described in zip(batch.text_BLD, batch.described_B, strict=True):
        assert torch.equal(text, examples.empty_text_LD) != bool(described)
    assert 0 < batch.annotated_B.sum() < 12
    i = int(batch.annotated_B.nonzero()[0])
    row = int(batch.keys[i].split()[1])
    most = examples.targets[row].amax(-1).clamp(0, 1).view(3, 2, 3)
    assert torch.allclose(batch.weight_BTHW[i][:, 1::2, 0::2], 1 + 2 * most)
    assert torch.equal(batch.weight_BTHW[i][:, 0::2, 1::2], batch.weight_BTHW[i][:, 1::2, 0::2])
    none = int((~batch.annotated_B).nonzero()[0])
    assert (batch.weight_BTHW[none] == 1).all()


def test_a_small_phenomenon_weighs_as_much_as_a_large_one():
    """Up to a bound, with which one that fills a hundredth of a token does not decide a step."""
    examples = RandomClips(size=(1, 4, 4))
    painted = torch.zeros(16, 17)
    painted[:8, 2], painted[8:10, 5], painted[10, 7] = 1.0, 1.0, 0.01
    plain = examples.example
    examples.example = lambda index, wording: replace(plain(index, wording), targets_NP=painted)
    batch = Batches(examples, replace(RECIPE, foreground=0.0, event_weight=0.5), FlowMatching(), Share())[0]
    more_N = batch.weight_BTHW[0].flatten() - 1
    assert more_N[:8].tolist() == [1.0] * 8
    assert more_N[8:10].tolist() == [4.0, 4.0]
    assert more_N[:8].mean() * 8 == more_N[8:10].mean() * 2 == 0.5 * 16
    assert more_N[10] == pytest.approx(10 * 0.01)
    assert (more_N[11:] == 0).all()
    assert (fixed_batch(examples, [0], 0.5, FlowMatching()).weight_BTHW == 1).all(), "validation is left as it was"


# --- a step -----------------------------------------------------------------------------------------------------------


def test_a_step_of_an_untrained_branch_has_the_backbones_diffusion_loss():
    batch = Batches(RandomClips(), RECIPE, FlowMatching(), Share())[0]
    module = build_trainable(make_transformer(), replace(RECIPE, foreground=0.0))
    with module.attached():
        losses, predicted = train_step(module, batch, RECIPE)
    with torch.no_grad():
        bare = make_transformer()(batch.noisy_BCTHW, batch.timestep_B, batch.text_BLD, return_dict=False)[0]
    assert torch.equal(predicted.predicted_BCTHW, bare)
    weighted = (batch.weight_BTHW * (bare - batch.target_BCTHW).square().mean(1)).sum() / batch.weight_BTHW.sum()
    assert float(losses.diffusion) == pytest.approx(float(weighted))
    terms = (losses.diffusion, losses.coarse, losses.fine_align, losses.fine_balance)
    assert float(losses.total) == pytest.approx(float(total_loss(*terms, RECIPE.losses)))
    losses.total.backward()
    silent = [name for name, p in trained(module).items() if p.grad is None]
    assert not silent, f"trained, and without a gradient: {silent}"
    assert all(p.grad is None for p in module.transformer.parameters())
    usage = expert_usage(predicted)
    assert sum(usage.refinement_E) == pytest.approx(1, abs=1e-3)
    assert sum(usage.semantic_S) == pytest.approx(1, abs=1e-3)
    assert 0 < usage.token_entropy <= 1


def test_clips_without_targets_or_caption_do_not_change_the_physics_losses():
    recipe = replace(RECIPE, null_share=0.0)
    module = build_trainable(make_transformer(), recipe)
    batch = Batches(RandomClips(), recipe, FlowMatching(), Share())[0]
    assert batch.annotated_B.any()
    assert not batch.annotated_B.all()
    changed = replace(batch, targets_BNP=torch.where(batch.annotated_B[:, None, None], batch.targets_BNP, 9.0))
    silent = replace(batch, described_B=torch.zeros_like(batch.described_B))
    with module.attached():
        first, second, third = (train_step(module, b, recipe)[0] for b in (batch, changed, silent))
    assert float(first.fine_align) == float(second.fine_align) > 0
    assert (float(third.coarse), float(third.fine_align), float(third.fine_balance)) == (0, 0, 0)


def test_the_coarse_forms_are_the_ones_named():
    generator = torch.Generator().manual_seed(3)
    predicted, labels = torch.randn(4, 17, generator=generator), (torch.rand(4, 17, generator=generator) > 0.7).float()
    probability = predicted.sigmoid()
    by_hand = -(labels * probability.log() + (1 - labels) * (1 - probability).log()).mean()
    assert float(coarse_bce_loss(predicted, labels)) == pytest.approx(float(by_hand), rel=1e-5)
    assert float(coarse_bce_loss(predicted[:0], labels[:0])) == 0
    batch = Batches(RandomClips(), replace(RECIPE, null_share=0.0), FlowMatching(), Share())[0]
    module = build_trainable(make_transformer(), RECIPE)
    with module.attached():
        for recipe, form in ((RECIPE, coarse_loss), (replace(RECIPE, coarse="bce"), coarse_bce_loss)):
            losses, predicted = train_step(module, batch, recipe)
            assert float(losses.coarse) == pytest.approx(float(form(predicted.routed.labels_BP, batch.labels_BP)))


@pytest.mark.parametrize(
    ("changes", "learns", "rests"),
    [
        ({}, ("branch.semantic", "branch.refinement"), ("transformer",)),
        ({"backbone": "lora", "lora_rank": 4, "branch": None}, ("transformer",), ("branch",)),
        (
            {"backbone": "lora", "lora_rank": 4, "branch": replace(SHAPE, refinement=False)},
            ("branch.semantic", "branch.blocks", "transformer"),
            ("branch.refinement", "branch.map_head"),
        ),
        (
            {"backbone": "lora", "lora_rank": 4, "branch": replace(SHAPE, semantic=False)},
            ("branch.refinement", "branch.blocks", "transformer"),
            ("branch.semantic", "branch.coarse_head"),
        ),
        ({"backbone": "trained"}, ("branch.semantic", "transformer.blocks"), ()),
    ],
)
def test_what_a_recipe_trains_changes_and_nothing_else(tmp_path: Path, changes: dict, learns, rests):
    recipe = replace(RECIPE, steps=2, **changes)
    before = build_trainable(make_transformer(), recipe)
    assert all(any(name.startswith(part) for name in trained(before)) for part in learns)
    assert not any(name.startswith(part) for name in trained(before) for part in rests)
    if "lora" in changes.values():
        assert all("lora_" in name for name in trained(before) if name.startswith("transformer"))
    run(tmp_path, recipe)
    weights = load_checkpoint(tmp_path / "checkpoint")["weights"]
    assert weights.keys() == trained(before).keys()
    same = [name for name, value in trained(before).items() if torch.equal(value, weights[name])]
    # the bias of a key changes no attention: its gradient is zero
    assert not [name for name in same if "to_k.bias" not in name], "trained, and still the same"


@pytest.mark.parametrize("left_out", ["semantic", "refinement"])
def test_a_block_that_is_left_out_does_nothing(left_out: str):
    batch = Batches(RandomClips(), RECIPE, FlowMatching(), Share())[0]
    changed = {}
    full = replace(SHAPE, refinement_form="residual")  # whose experts are not the identity at the start
    for shape in (full, replace(full, **{left_out: False})):
        branch = build_trainable(make_transformer(), replace(RECIPE, branch=shape)).branch
        for projection in branch.projections:
            torch.nn.init.normal_(projection.weight)
        residuals = []
        for std in (0.1, 2.0):
            for parameter in getattr(branch, left_out).router.parameters():
                torch.nn.init.normal_(parameter, std=std)
            residuals.append(branch(batch.noisy_BCTHW, batch.timestep_B, batch.text_BLD)[0][-1])
        changed[getattr(shape, left_out)] = float((residuals[0] - residuals[1]).abs().max())
    assert changed[False] == 0 < changed[True]


@pytest.mark.parametrize("kind", ["5B", "2B"])
def test_a_cogvideox_step_is_what_its_pipelines_attachment_computes(kind: str):
    transformer = make_cogvideox(kind, **({} if kind == "5B" else {"sample_height": 8}))
    pipeline = make_cogvideox_pipeline(transformer)
    clips = RandomClips(size=(3, 8, 12), patch=2, words=7)
    batch = Batches(clips, RECIPE, objective_for(pipeline.scheduler), Share())[0]
    module = build_trainable(transformer, RECIPE)
    for projection in module.branch.projections:
        torch.nn.init.normal_(projection.weight, std=0.1)
    with torch.no_grad(), module.attached():
        ours = module(batch.noisy_BCTHW, batch.timestep_B, batch.text_BLD).predicted_BCTHW
    attachment = attach(transformer, module.branch)
    rotary = None
    if kind == "5B":
        rotary = pipeline._prepare_rotary_positional_embeddings(8 * 8, 12 * 8, 3, torch.device("cpu"))
    with torch.no_grad():
        theirs = transformer(
            hidden_states=batch.noisy_BCTHW.transpose(1, 2),
            encoder_hidden_states=batch.text_BLD,
            timestep=batch.timestep_B,
            image_rotary_emb=rotary,
            return_dict=False,
        )[0].transpose(1, 2)
    attachment.detach()
    print(f"largest difference to the attached pipeline: {(ours - theirs).abs().max():.3g}")
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_checkpointing_changes_no_loss(tmp_path: Path):
    run(tmp_path / "plain", replace(RECIPE, steps=4))
    run(tmp_path / "saving", replace(RECIPE, steps=4, checkpointing=True))
    assert losses_of(tmp_path / "plain") == losses_of(tmp_path / "saving")


def test_the_backbone_follows_rates_of_its_own_and_its_gradient_is_clipped_by_itself(tmp_path: Path):
    still = OptimiserSettings("adamw", rate=0.0, weight_decay=0.0)
    recipe = replace(RECIPE, backbone="trained", steps=3, backbone_optimiser=still)
    run(tmp_path, recipe)
    learnt = load_checkpoint(tmp_path / "checkpoint")["weights"]
    start = trained(build_trainable(make_transformer(), recipe))
    moved = {name.partition(".")[0] for name, weights in learnt.items() if not torch.equal(weights, start[name])}
    assert moved == {"branch"}

    gradients = {}
    for clip in (1e-3, 1e3):
        settings = replace(recipe, backbone_optimiser=replace(still, clip=clip), optimiser=OptimiserSettings(clip=1e3))
        module = build_trainable(make_transformer(), settings)
        strategy = AccelerateStrategy(module, settings, Accelerator(cpu=True), sharded=False)
        batch = Batches(RandomClips(), settings, FlowMatching(), Share())[0]
        with module.attached():
            train_step(module, batch, settings)[0].total.backward()
        norm = strategy.clip()
        parts = {part: optimiser.parameters for part, optimiser in strategy.optimisers.items()}
        gradients[clip] = {part: torch.nn.utils.get_total_norm([p.grad for p in ps]) for part, ps in parts.items()}
        whole = gradients[1e3] if clip == 1e3 else None
    assert norm == pytest.approx(float(torch.stack([*whole.values()]).norm()), rel=1e-5)
    assert float(gradients[1e-3]["transformer"]) == pytest.approx(1e-3, rel=1e-4)
    assert float(gradients[1e-3]["branch"]) == pytest.approx(float(whole["branch"]), rel=1e-5)
    assert float(whole["transformer"]) > 2e-3, "nothing was clipped: the test shows little"


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.timeout(600)
def test_compiled_blocks_and_plain_attention_change_no_loss(tmp_path: Path):
    recipe = replace(RECIPE, steps=3)
    kwargs = {"held_out": RandomClips(3, seed=1), "sample": lambda *parts: None}
    plain = Running(log_every=1, validation_clips=3, sample_every=1)
    run(tmp_path / "stock", recipe, plain, **kwargs)
    run(tmp_path / "plain", recipe, replace(plain, plain_attention=True), **kwargs)
    run(tmp_path / "compiled", recipe, replace(plain, plain_attention=True, compiled=True), **kwargs)
    stock = losses_of(tmp_path / "stock")
    for other in ("plain", "compiled"):
        for one, two in zip(stock, losses_of(tmp_path / other), strict=True):
            assert two == pytest.approx(one, rel=1e-4, abs=1e-6), other
        assert read_lines(tmp_path / other)[-1]["diffusion"] == pytest.approx(
            read_lines(tmp_path / "stock")[-1]["diffusion"], rel=1e-4
        )


def test_accumulation_gives_the_gradient_of_the_whole_batch(tmp_path: Path):
    """Without eqs. 3-4 and the balance, which look at a part as a whole."""
    recipe = replace(RECIPE, steps=4, batch=8, losses=LossWeights(0, 0, 0), foreground=0.0)
    run(tmp_path / "one", recipe)
    run(tmp_path / "two", replace(recipe, accumulation=2))
    one, two = losses_of(tmp_path / "one"), losses_of(tmp_path / "two")
    assert [a["diffusion"] for a in one] == pytest.approx([b["diffusion"] for b in two], rel=1e-5)


# --- resuming ---------------------------------------------------------------------------------------------------------


def test_a_stopped_run_resumes_bit_identically_and_its_log_has_every_step_once(tmp_path: Path):
    every = Running(log_every=1, checkpoint_every=4, validate_every=3, validation_clips=2)
    held_out = RandomClips(3, seed=1)
    run(tmp_path / "whole", running=every, held_out=held_out)

    class Broken(RandomClips):
        def example(self, index: int, wording: int):
            self.asked = getattr(self, "asked", 0) + 1
            if self.asked > 40:
                raise OSError("the disk of the clips is gone")
            return super().example(index, wording)

    with pytest.raises(OSError, match="is gone"):
        run(tmp_path / "broken", running=every, held_out=held_out, examples=Broken())
    assert load_checkpoint(tmp_path / "broken" / "checkpoint")["step"] == 8
    assert len(losses_of(tmp_path / "broken")) == 10
    run(tmp_path / "broken", running=every, held_out=held_out)
    for name in ("tensors.safetensors", "state.json"):
        whole, broken = ((tmp_path / run / "checkpoint" / name).read_bytes() for run in ("whole", "broken"))
        assert whole == broken, name
    assert losses_of(tmp_path / "whole") == losses_of(tmp_path / "broken")
    whole, broken = ([(line["kind"], line["step"]) for line in read_lines(tmp_path / r)] for r in ("whole", "broken"))
    assert whole == broken


def test_a_checkpoint_in_several_files_is_resumed_exactly_by_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its folder is all that travels."""
    muon = replace(RECIPE, steps=6, optimiser=replace(tiny().optimiser, warm_up=2))
    run(tmp_path / "whole", muon)
    monkeypatch.setattr(checkpoints, "FILE_BYTES", 20_000)
    run(tmp_path / "here", muon, Running(log_every=1, minutes=0.0))
    saved = tmp_path / "here" / "checkpoint"
    sizes = [path.stat().st_size for path in saved.glob("tensors-*-of-*.safetensors")]
    assert len(sizes) > 3
    assert max(sizes) < 60_000, "20,000 bytes of tensors, and their names"
    for name in (tmp_path.name, os.uname().nodename, "cuda"):
        assert name not in (saved / "state.json").read_text()
    monkeypatch.undo()
    shutil.copytree(tmp_path / "here", tmp_path / "there" / "carried")
    shutil.rmtree(tmp_path / "here")
    run(tmp_path / "there" / "carried", muon)
    end, resumed = tmp_path / "whole" / "checkpoint", tmp_path / "there" / "carried" / "checkpoint"
    assert (end / "tensors.safetensors").read_bytes() == (resumed / "tensors.safetensors").read_bytes()
    assert losses_of(tmp_path / "whole") == losses_of(tmp_path / "there" / "carried")


@pytest.mark.timeout(600)
def test_a_training_killed_at_random_moments_ends_bit_identical():
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "tests" / "kill_training.py"), "--kills", "5"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    print(done.stdout)
    assert "5 kills" in done.stdout
    assert "bit-identical" in done.stdout


def test_a_folder_with_another_training_is_refused_and_left_alone(tmp_path: Path):
    run(tmp_path, replace(RECIPE, steps=2))
    before = (tmp_path / "checkpoint" / "state.json").read_bytes()
    with pytest.raises(ValueError, match=r"another recipe \(losses.coarse was 0.1, now 0.5, batch was 4, now 8\)"):
        run(tmp_path, replace(RECIPE, steps=2, batch=8, losses=replace(RECIPE.losses, coarse=0.5)))
    with pytest.raises(ValueError, match="trained on other data .random 0, now random 7."):
        run(tmp_path, replace(RECIPE, steps=2), examples=RandomClips(seed=7))
    with pytest.raises(ValueError, match="steps was 2, now 3"):  # its rates fall towards the last step
        run(tmp_path, replace(RECIPE, steps=3))
    assert (tmp_path / "checkpoint" / "state.json").read_bytes() == before


def test_more_steps_with_constant_rates_go_on_from_the_checkpoint(tmp_path: Path):
    recipe = replace(RECIPE, steps=5, optimiser=replace(RECIPE.optimiser, decay="constant"))
    run(tmp_path / "five", recipe)
    run(tmp_path / "eight", replace(recipe, steps=8))
    run(tmp_path / "five", replace(recipe, steps=8))
    assert losses_of(tmp_path / "five") == losses_of(tmp_path / "eight")


def test_a_run_may_change_how_it_ends_where_that_changes_no_step_it_has_made(tmp_path: Path):
    constant = replace(RECIPE, steps=6, optimiser=replace(RECIPE.optimiser, decay="constant"))
    run(tmp_path, constant, Running(log_every=1, checkpoint_every=2, minutes=0.0))
    run(tmp_path, replace(constant, steps=8), Running(log_every=1, checkpoint_every=2, minutes=0.0))
    ending = replace(constant, steps=4, optimiser=replace(constant.optimiser, decay="cool_down", cool_down=0.5))
    run(tmp_path, ending)
    rates = [line["rate"] for line in read_lines(tmp_path) if line["kind"] == "train"]
    assert rates == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3, 0.5e-3])
    assert json.loads((tmp_path / "run.json").read_text())["recipe"] == ending.record()
    with pytest.raises(ValueError, match="steps was 4, now 9"):
        run(tmp_path, replace(ending, steps=9))
    with pytest.raises(ValueError, match="trained on other data"):
        run(tmp_path, replace(ending, steps=4, optimiser=constant.optimiser), examples=RandomClips(seed=7))


def test_other_data_is_refused_also_where_steps_are_added(tmp_path: Path):
    recipe = replace(RECIPE, steps=2, optimiser=replace(RECIPE.optimiser, decay="constant"))
    run(tmp_path, recipe)
    with pytest.raises(ValueError, match="trained on other data .random 0, now random 7."):
        run(tmp_path, replace(recipe, steps=4), examples=RandomClips(seed=7))


def test_a_recipe_of_an_older_release_is_read_and_one_it_cannot_be_is_refused():
    record = json.loads(json.dumps(tiny().record()))
    for name in ("scratch", "backbone_optimiser", "counterfactual"):
        del record[name]
    del record["optimiser"]["cool_down"]
    record["optimiser"]["backbone_share"] = 1.0
    assert Recipe.from_record(record) == tiny()
    record["optimiser"]["backbone_share"] = 0.5
    with pytest.raises(ValueError, match="written by another release .optimiser.backbone_share.: use that one"):
        Recipe.from_record(record)


def test_an_older_releases_stage_is_not_written_over(tmp_path: Path):
    save_checkpoint(tmp_path / "branch", {"step": 9})
    with pytest.raises(ValueError, match="holds the checkpoint of an older release.*or choose another folder"):
        run(tmp_path / "branch")


@pytest.mark.parametrize("changes", [{}, {"backbone": "trained"}])
def test_a_new_run_starts_from_a_published_model_if_it_is_told_to(base: Path, tmp_path: Path, changes: dict):
    recipe = replace(RECIPE, steps=3, ema=0.5, **changes)
    run(tmp_path / "first", recipe)
    published = publish(tmp_path / "first", tmp_path / "model")
    run(tmp_path / "second", replace(recipe, steps=1, optimiser=OptimiserSettings(rate=0.0)), initial=published)
    before, after = (load_checkpoint(tmp_path / name / "checkpoint") for name in ("first", "second"))
    assert before["ema"].keys() == after["weights"].keys()
    for name, weights in after["weights"].items():
        assert torch.equal(weights, before["ema"][name]), name
    assert json.loads((tmp_path / "second" / "run.json").read_text())["initial"] == str(published)
    with pytest.raises(ValueError, match="holds no weights that are trained here: give a published model as --initial"):
        run(tmp_path / "third", replace(recipe, branch=None, backbone="lora", lora_rank=2), initial=published)
    other = replace(recipe, branch=replace(SHAPE, refinement_experts=7))
    with pytest.raises(
        ValueError, match="the branch in .*model does not fit here .*: give another --initial"
    ) as caught:
        run(tmp_path / "third", other, initial=published)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "third").exists()


# --- bad input --------------------------------------------------------------------------------------------------------


class BadClip(RandomClips):
    """Clip 7 holds what cannot be learnt."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.latents[7] = value


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_a_number_stops_before_the_step_and_names_the_clips(tmp_path: Path, value: float):
    with pytest.raises(TrainingStopped, match=r"the loss is (nan|inf).*clip 7\b.*the step was not made") as caught:
        run(tmp_path, examples=BadClip(value), running=Running(log_every=1, checkpoint_every=1))
    assert "\n" not in str(caught.value)
    state = load_checkpoint(tmp_path / "checkpoint")
    made = len(losses_of(tmp_path))
    if made:
        assert state["step"] == made
        assert f"holds step {made}, whole" in str(caught.value)
        assert all(value.isfinite().all() for value in state["weights"].values())


def test_an_exploding_loss_stops_the_training(tmp_path: Path):
    recipe = replace(RECIPE, steps=120)
    examples = RandomClips()
    plain = examples.example
    order = Batches(examples, recipe, FlowMatching(), Share()).order
    late = int(order.rows(60)[0])
    seen: Counter = Counter()

    def example(index: int, wording: int):
        seen[index] += 1
        made = plain(index, wording)
        spoilt = index == late and seen[index] > 60 // order.steps_per_epoch
        return replace(made, latents_CTHW=made.latents_CTHW * 100) if spoilt else made

    examples.example = example
    with pytest.raises(TrainingStopped, match=rf"over 20 times its running mean .* at step 60 .*clip {late}\b"):
        run(tmp_path, recipe, examples=examples, running=Running(log_every=20, checkpoint_every=25))
    assert load_checkpoint(tmp_path / "checkpoint")["step"] == 50


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one_whole(tmp_path: Path):
    recipe = replace(RECIPE, steps=8)
    every = Running(log_every=1, checkpoint_every=4)
    run(tmp_path / "whole", recipe, every)

    class Filling(RandomClips):
        """From the fifth step on no file may grow beyond 64 KiB."""

        def example(self, index: int, wording: int):
            self.asked = getattr(self, "asked", 0) + 1
            if self.asked == 17:
                resource.setrlimit(resource.RLIMIT_FSIZE, (65536, limit))
            return super().example(index, wording)

    soft, limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(TrainingStopped, match="step 8 cannot be written .* holds step 4, whole") as caught:
            run(tmp_path / "full", recipe, every, Filling())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, limit))
    assert "\n" not in str(caught.value)
    assert load_checkpoint(tmp_path / "full" / "checkpoint")["step"] == 4
    run(tmp_path / "full", recipe, every)
    tensors = [(tmp_path / name / "checkpoint" / "tensors.safetensors").read_bytes() for name in ("whole", "full")]
    assert tensors[0] == tensors[1]


def test_what_one_process_or_this_machine_cannot_do_is_refused_in_one_line(tmp_path: Path):
    with pytest.raises(ValueError, match="sharding needs several processes: start with torchrun"):
        run(tmp_path, running=Running(sharded=True))
    with pytest.raises(ValueError, match="wandb is not installed: pip install wandb"):
        run(tmp_path, running=Running(tracker="wandb"))
    with pytest.raises(ValueError, match="log_every=0 must be at least 1"):
        Running(log_every=0)
    with pytest.raises(ValueError, match="--device abacus cannot be used here: give cpu or"):
        run(tmp_path, running=Running(device="abacus"))
    assert not (tmp_path / "checkpoint").exists()


def test_a_recipe_of_stills_sees_the_first_latent_frame_of_every_clip_and_its_targets():
    clips = RandomClips(size=(3, 2, 4))
    stills = FirstFrames(clips, 1)
    whole, still = clips.example(3, 0), stills.example(3, 0)
    assert stills.latent_size(3) == (1, 2, 4)
    assert torch.equal(still.latents_CTHW, whole.latents_CTHW[:, :1])
    assert torch.equal(still.targets_NP, whole.targets_NP[: 2 * 4])
    assert stills.example(5, 0).targets_NP is None
    batch = Batches(stills, RECIPE, FlowMatching(), Share())[0]
    assert batch.noisy_BCTHW.shape[2:] == batch.weight_BTHW.shape[1:] == (1, 2, 4)
    with pytest.raises(ValueError, match="latent_frames=4, and a clip has 3: lower latent_frames"):
        FirstFrames(clips, 4)


def test_some_steps_see_stills_of_the_clips_that_they_would_have_seen_whole():
    clips = RandomClips(size=(3, 2, 4))
    recipe = replace(RECIPE, steps=40, batch=4, accumulation=2, stills=0.5)

    def parts(recipe: Recipe) -> list[Batch]:
        batches = Batches(clips, recipe, FlowMatching(), Share())
        return [batches[item] for item in range(len(batches))]

    some, none = parts(recipe), parts(replace(recipe, stills=0.0))
    frames = [batch.noisy_BCTHW.shape[2] for batch in some]
    assert frames[::2] == frames[1::2], "both parts of a step"
    assert 10 <= frames[::2].count(1) <= 30
    assert set(frames) == {1, 3}
    assert [batch.keys for batch in some] == [batch.keys for batch in none]
    assert all(torch.equal(a.text_BLD, b.text_BLD) for a, b in zip(some, none, strict=True))


def test_a_training_on_stills_goes_on_with_whole_clips(tmp_path: Path):
    stills = run(tmp_path / "stills", replace(RECIPE, latent_frames=1, steps=2), held_out=RandomClips(8, seed=1))
    published = publish(stills, tmp_path / "model")
    clips = run(tmp_path / "clips", replace(RECIPE, steps=2), initial=published)
    assert load_checkpoint(clips / "checkpoint")["recipe"]["latent_frames"] == 0
    assert [line["kind"] for line in read_lines(stills)].count("validation") >= 1


def test_validation_is_the_same_whatever_the_size_of_a_batch():
    held_out = RandomClips(7, seed=1)
    module = build_trainable(make_transformer(), RECIPE)
    with module.attached():
        one, three, all_of_them = (
            validate(module, held_out, FlowMatching(), 7, Share(), batch) for batch in (1, 3, 16)
        )
    assert one == pytest.approx(three, rel=1e-5)
    assert one == pytest.approx(all_of_them, rel=1e-5)


def test_validation_is_of_the_averaged_weights_at_fixed_noise_levels(tmp_path: Path):
    held_out = RandomClips(3, seed=1)
    recipe = replace(RECIPE, steps=6, ema=0.5)
    run(tmp_path, recipe, Running(log_every=1, validate_every=100, validation_clips=3), held_out=held_out)
    line = read_lines(tmp_path)[-1]
    assert (line["kind"], line["step"]) == ("validation", 6)
    module = build_trainable(make_transformer(), recipe)
    module.load_state_dict(load_checkpoint(tmp_path / "checkpoint")["ema"], strict=False)
    assert line["diffusion"].keys() == {str(level) for level in NOISE_LEVELS}
    for level in NOISE_LEVELS:
        losses = []
        for i in range(3):
            batch = fixed_batch(held_out, [i], level, FlowMatching())
            with torch.no_grad(), module.attached():
                said = module(batch.noisy_BCTHW, batch.timestep_B, batch.text_BLD).predicted_BCTHW
            losses.append(float((said - batch.target_BCTHW).square().mean()))
        assert line["diffusion"][str(level)] == pytest.approx(np.mean(losses), rel=1e-5)


# --- the command line, samples and publishing -------------------------------------------------------------------------


SMALLER = ("branch.sites=0,2", "batch=2", "precision=float32")


def train_by_command(base: Path, data: Path, out: Path, *more: str, recipe: str = "tiny") -> int:
    settings = [part for setting in SMALLER for part in ("--set", setting)] if recipe[-4:] != "lora" else []
    arguments = ["--recipe", recipe, "--data", str(data), "--out", str(out), "--model", str(base), "--workers", "0"]
    return main(["train", *arguments, *settings, *more])


def test_a_training_by_command_encodes_worlds_trains_samples_and_publishes(base: Path, tmp_path: Path):
    out, data = tmp_path / "run", tmp_path / "cache"
    more = ("--set", "steps=3", "--log-every", "1", "--prompt", "a red ball bounces", "--size", "64x64x17")
    assert train_by_command(base, data, out, "--worlds", "6", "--held-out", str(data), *more) == 0
    about = json.loads((out / "run.json").read_text())
    assert (about["recipe_name"], about["base"], about["recipe"]["steps"]) == ("tiny", str(base), 3)
    kinds = [(line["kind"], line["step"]) for line in read_lines(out)]
    assert kinds == [("train", 1), ("train", 2), ("train", 3), ("validation", 3)]
    sample = read_run(out / "samples" / "step-000003" / "00")
    assert sample.record.prompt == "a red ball bounces"
    assert sample.routing_path is not None
    assert sample.sheet_path.is_file()
    assert main(["publish", str(out), "--out", str(tmp_path / "model")]) == 0
    card = (tmp_path / "model" / "README.md").read_text()
    for expected in ("| recipe | `tiny`", str(base), "3 of 3, 2 clips each", "worlds ", "| 0.95 |", "## Limits", "λ"):
        assert expected in card, expected
    assert (tmp_path / "model" / "training" / "curves.html").stat().st_size > 1000
    branch = ProPhyBranch.from_pretrained(tmp_path / "model")
    averages = load_checkpoint(out / "checkpoint")["ema"]
    assert all(torch.equal(value, averages[f"branch.{name}"]) for name, value in branch.named_parameters())


def test_a_step_that_is_done_again_after_a_kill_makes_its_samples_again(base: Path, tmp_path: Path):
    settings = GenerationSettings("a red ball", steps=1, guidance=1.0, frames=5, height=64, width=64)
    sample, transformer = sampler(str(base), [settings], "float32"), make_transformer()
    for _ in range(2):
        sample(transformer, None, tmp_path / "step-000003")
        assert read_run(tmp_path / "step-000003" / "00").record.prompt == "a red ball"


@pytest.mark.parametrize("changes", [{"backbone": "lora", "lora_rank": 3}, {"backbone": "trained"}])
def test_a_published_backbone_predicts_as_the_averaged_weights_did(base: Path, tmp_path: Path, changes: dict):
    shape = replace(SHAPE, semantic=False)
    recipe = replace(RECIPE, steps=4, ema=0.5, branch=shape, **changes)
    run(tmp_path / "run", recipe, base=str(base))
    publish(tmp_path / "run", tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    module = build_trainable(make_transformer(), recipe)
    state = load_checkpoint(tmp_path / "run" / "checkpoint")
    module.load_state_dict(state["ema"], strict=False)
    assert 'prophy.load("the base model", branch="this folder")' in card
    pipeline = load(base, branch=tmp_path / "model")
    batch = fixed_batch(RandomClips(), [3], 0.5, FlowMatching())
    with torch.no_grad():
        with module.attached():
            ours = module(batch.noisy_BCTHW, batch.timestep_B, batch.text_BLD).predicted_BCTHW
        theirs = pipeline.transformer(batch.noisy_BCTHW, batch.timestep_B, batch.text_BLD, return_dict=False)[0]
        bare = make_transformer()(batch.noisy_BCTHW, batch.timestep_B, batch.text_BLD, return_dict=False)[0]
    print(f"largest difference after publishing: {(ours - theirs).abs().max():.3g}")
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert (ours - bare).abs().max() > 1e-3
    assert model_hash(pipeline) != model_hash(load(base, branch=pipeline.branch)), "the backbone's change goes unnamed"


@pytest.mark.parametrize("changes", [{"backbone": "lora", "lora_rank": 2}, {"backbone": "trained"}])
def test_a_backbone_without_a_branch_is_published_and_opened_too(base: Path, tmp_path: Path, changes: dict):
    run(tmp_path / "run", replace(RECIPE, steps=2, branch=None, ema=0.5, **changes))
    publish(tmp_path / "run", tmp_path / "model")
    names = {path.name for path in (tmp_path / "model").iterdir()}
    weights = "pytorch_lora_weights.safetensors" if "lora_rank" in changes else "transformer"
    assert names == {"README.md", weights, "training"}
    assert "without a branch" in (tmp_path / "model" / "README.md").read_text()
    pipeline = load(base, branch=tmp_path / "model")
    assert pipeline.branch is pipeline.attachment is None
    batch = fixed_batch(RandomClips(), [3], 0.5, FlowMatching())
    with torch.no_grad():
        arguments = batch.noisy_BCTHW, batch.timestep_B, batch.text_BLD
        theirs = pipeline.transformer(*arguments, return_dict=False)[0]
        bare = make_transformer()(*arguments, return_dict=False)[0]
    assert (theirs - bare).abs().max() > 1e-4


def test_a_published_lora_that_is_cut_short_is_refused(base: Path, tmp_path: Path):
    run(tmp_path / "run", replace(RECIPE, steps=1, backbone="lora", lora_rank=2))
    published = publish(tmp_path / "run", tmp_path / "model")
    path = published / "pytorch_lora_weights.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="pytorch_lora_weights.safetensors is cut short or damaged"):
        load(base, branch=published)


def test_a_field_is_set_by_its_dotted_name():
    recipe = changed(tiny(), ["steps=7", "optimiser.rate=1e-5", "checkpointing=true", "branch.sites=0,3", "base=x"])
    assert difference(tiny(), recipe) == {
        "steps": (1400, 7),
        "optimiser.rate": (1e-3, 1e-5),
        "checkpointing": (False, True),
        "branch.sites": ((1, 4, 7), (0, 3)),
        "base": ("", "x"),
    }
    for setting, message in (
        ("steps", "write FIELD=VALUE"),
        ("stepz=1", "no field 'stepz', use one of base, branch"),
        ("optimiser.speed=1", "no field 'speed'"),
        ("steps.rate=1", "steps has no fields"),
        ("steps=many", "'many' is not a int"),
        ("checkpointing=2", "'2' is not a bool"),
        ("branch.sites=a", "write whole numbers"),
        ("optimiser=adamw", "optimiser is no single value"),
        ("scratch.width=64", "scratch is not part of this recipe"),
    ):
        with pytest.raises(ValueError, match=message):
            changed(tiny(), [setting])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "tiny"], "give --data too"),
        (["--recipe", "huge", "--data", "x", "--out", "y"], "no recipe 'huge': use one of wan_1_3b"),
        (["--recipe", "tiny", "--data", "nowhere", "--out", "y"], "nowhere holds no cache .cache.json is missing."),
        (["--recipe", "tiny", "--data", "x", "--out", "y", "--model", "./none"], "holds no model"),
    ],
)
def test_a_command_that_cannot_work_is_one_line(
    arguments: list[str], message: str, capsys, monkeypatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == 2
    said = capsys.readouterr().err
    assert re.search(message, said), said
    assert said.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_a_run_without_a_checkpoint_is_not_published(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="holds no checkpoint: give a folder that prophy train wrote"):
        publish(tmp_path, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_flags_of_training_change_only_on_purpose():
    assert set(build_parser()._option_string_actions) - {"-h", "--help"} == {
        *(
            "--recipe",
            "--list",
            "--data",
            "--folder",
            "--annotations",
            "--fps",
            "--out",
            "--model",
            "--held-out",
            "--worlds",
            "--set",
            "--fsdp",
            "--deepspeed",
            "--workers",
            *("--held-out-worlds", "--initial", "--device", "--compile", "--plain-attention", "--validation-clips"),
            *("--phenomena", "--grammar"),
        ),
        *("--minutes", "--checkpoint-every", "--validate-every", "--log-every", "--sample-every", "--prompt", "--size"),
        *("--tracker", "--unlawful"),
    }


# --- training sets ----------------------------------------------------------------------------------------------------


def test_a_sharded_cache_is_a_training_set(tmp_path: Path):
    cache_module = pytest.importorskip("prophy.data.cache")
    cache = cache_module.TensorCache(tmp_path / "cache", {"model": "x"})
    clips = RandomClips(6)
    with cache.writer("0001-of-0001") as writer:
        for i in range(6):
            made = clips.example(i, 0)
            tensors = {"latents": made.latents_CTHW.half(), "text": made.text_LD}
            if made.targets_NP is not None:
                tensors |= {"targets": made.targets_NP.half(), "labelled": made.labels_P.bool()}
            writer.add(f"clip {i}", cache.key(str(i)), tensors)
    examples = CachedExamples(cache_module.TensorCache(tmp_path / "cache"), clips.empty_text_LD)
    assert (len(examples), examples.latent_size(3)) == (6, (3, 2, 4))
    read, bare = examples.example(3, 5), examples.example(5, 0)
    assert read.key == "clip 3"
    assert torch.equal(read.labels_P, clips.labels[3])
    assert torch.allclose(read.targets_NP, clips.targets[3], atol=1e-3)
    assert bare.targets_NP is None
    again = CachedExamples(cache_module.TensorCache(tmp_path / "cache"), clips.empty_text_LD)
    assert again.fingerprint == examples.fingerprint
    run(tmp_path / "run", replace(RECIPE, steps=1), examples=examples)
    with cache.writer("0002-of-0002") as writer:
        writer.add("clip 9", cache.key("9"), {"latents": clips.latents[0], "text": clips.texts[0, 0]})
    grown = CachedExamples(cache_module.TensorCache(tmp_path / "cache"), clips.empty_text_LD)
    with pytest.raises(ValueError, match="trained on other data .cache .* of 6, now cache .* of 7."):
        run(tmp_path / "run", replace(RECIPE, steps=1), examples=grown)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size_t": 2, "patch_bias": False}, "CogVideoX 1.5, whose tokens span two latent frames"),
        ({"in_channels": 8}, "image-to-video CogVideoX"),
    ],
)
def test_a_base_that_no_branch_fits_is_refused_also_where_only_lora_is_trained(tmp_path, changes: dict, message: str):
    """Its clips would be given to it in a shape that its pipeline never makes."""
    pipeline = make_cogvideox_pipeline(make_cogvideox())
    pipeline.transformer = make_cogvideox(**changes)
    pipeline.save_pretrained(tmp_path)
    recipe = replace(recipe_named("tiny_lora"), base=str(tmp_path))
    with pytest.raises(ValueError, match=message):
        open_backbone(str(tmp_path), recipe)


def test_worlds_are_learnt_from_annotations_instead_of_masks(base: Path, tmp_path: Path, capsys):
    data, annotations = tmp_path / "cache", tmp_path / "annotations"
    annotator = Annotator(make_model("qwen2_5_vl"), make_tokenizer(), AnnotationConfig(max_answer_tokens=3))
    annotate_all(annotator, jobs_of_worlds(2, "train", SCOPE), annotations, WORLDS, Shard(0, 1))
    masked = open_examples(data, str(base), clips=2)
    taught = open_examples(data, str(base), annotations=annotations)
    for index, job in enumerate(jobs_of_worlds(2, "train", SCOPE)):
        targets = TokenTargets.load(annotations / "clips" / job.folder / "targets.npz")
        one, other = masked.example(index, 0), taught.example(index, 0)
        assert torch.equal(other.targets_NP, torch.from_numpy(targets.values))
        assert not torch.equal(other.targets_NP, one.targets_NP)
        assert torch.equal(other.latents_CTHW, one.latents_CTHW)
        assert torch.equal(other.labels_P, torch.from_numpy(targets.labelled).float())

    one_step = ("--set", "steps=1", "--log-every", "1")
    assert train_by_command(base, data, tmp_path / "masked", *one_step) == 0
    assert train_by_command(base, data, tmp_path / "run", "--annotations", str(annotations), *one_step) == 0
    assert losses_of(tmp_path / "run")[0]["fine_align"] != losses_of(tmp_path / "masked")[0]["fine_align"]
    capsys.readouterr()
    assert train_by_command(base, data, tmp_path / "run", *one_step) == 2
    assert "was trained on other data" in capsys.readouterr().err
    open_examples(data, str(base), clips=3)
    assert train_by_command(base, data, tmp_path / "more", "--annotations", str(annotations), *one_step) == 2
    assert "lacks 1 of 3 clips, such as train-000002: prophy annotate --data worlds" in capsys.readouterr().err


def test_a_folder_of_clips_is_encoded_as_it_is_read(base: Path, tmp_path: Path, capsys):
    folder = tmp_path / "clips"
    folder.mkdir()
    for seed in range(3):
        write_video(folder / f"{seed}.mp4", sample_clip(seed, "train", SCOPE).frames, 8.0)
    rows = ["file,caption,phenomena", '0.mp4,a ball,"collision, melting"', "1.mp4,a candle,combustion", "2.mp4,smoke,"]
    (folder / "captions.csv").write_text("\n".join(rows))
    settings = [part for setting in (*SMALLER, "steps=2") for part in ("--set", setting)]
    arguments = ["--folder", str(folder), "--model", str(base), "--size", "64x48x9", "--log-every", "1", *settings]
    assert main(["train", "--recipe", "tiny", "--out", str(tmp_path / "run"), *arguments]) == 0
    last = losses_of(tmp_path / "run")[-1]
    assert last["fine_align"] == 0 < last["diffusion"] + last["fine_balance"]

    examples = open_folder(folder, str(base), ClipSize(64, 48, 9), 8.0)
    assert len(examples) == 3
    first, other = examples.example(0, 0), examples.example(0, 5)
    assert torch.equal(first.latents_CTHW, other.latents_CTHW)
    pipeline = load(base)
    frames = sample_frames(folder / "0.mp4", 9, 8.0, 48, 64)
    assert torch.equal(first.latents_CTHW, encode_clip(pipeline, frames))
    assert first.latents_CTHW.shape[1:] == examples.latent_size(0)
    assert first.labels_P.nonzero().flatten().tolist() == [by_id("collision").index, by_id("melting").index]

    seen = []
    pipeline.transformer.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["encoder_hidden_states"]), with_kwargs=True
    )
    generate(pipeline, GenerationSettings("a ball", steps=1, guidance=1.0, frames=5, height=16, width=32))
    assert torch.equal(seen[0][0], first.text_LD), "a training reads other embeddings than a generation"

    capsys.readouterr()
    for wrong, said in (
        (["--size", "64x48x8"], "frames=8 is not 1 + 4k"),
        (["--annotations", "x"], "--annotations belongs to --data: leave it out"),
        (["--folder", str(tmp_path)], "no table"),
    ):
        assert main(["train", "--recipe", "tiny", "--out", str(tmp_path / "other"), *arguments, *wrong]) == 2
        assert said in capsys.readouterr().err
