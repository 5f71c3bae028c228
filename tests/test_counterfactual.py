"""Counterfactual routing: what is muted, what the target becomes, and that it makes experts causes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from small_training import RECIPE, RandomClips, losses_of, run

from prophy.branch.losses import LossWeights, routing_loss
from prophy.data.examples import Example
from prophy.phenomena import PHENOMENA
from prophy.training.batches import Batches, Share
from prophy.training.counterfactual import Counterfactual, counterfactual_target, muting_scale
from prophy.training.objectives import FlowMatching
from prophy.training.recipe import BranchShape, Recipe
from prophy.training.step import train_step
from prophy.training.trainable import TrainableModule, build_trainable, trained

NOTHING = len(PHENOMENA)
SHAPE = BranchShape((0,), semantic_experts=4, refinement_experts=NOTHING + 1, reference_grid=(2, 4, 4), injections=(0,))
CAUSAL: Recipe = replace(
    RECIPE,
    branch=SHAPE,
    null_share=0.0,
    losses=LossWeights(0.0, 1.0, 0.0, routing=0.3),
    counterfactual=Counterfactual(share=0.4),
    batch=16,
    steps=400,
)


# --- which clips, which phenomenon ------------------------------------------------------------------------------------


def example(labels: list[int], targets: dict[int, list[int]]) -> Example:
    """A clip of four tokens; ``targets`` names the tokens of each phenomenon."""
    labels_P, targets_NP = torch.zeros(NOTHING), torch.zeros(4, NOTHING)
    labels_P[labels] = 1
    for phenomenon, tokens in targets.items():
        targets_NP[tokens, phenomenon] = 1
    return Example("clip", torch.zeros(4, 1, 2, 2), torch.zeros(1, 24), labels_P, targets_NP)


def test_a_phenomenon_is_muted_only_where_it_is_shown_and_has_a_token():
    settings, rng = Counterfactual(share=0.5), np.random.default_rng(0)
    both = example([2, 5], {2: [0], 5: [1, 2]})
    assert {settings.choose(both, rng) for _ in range(40)} == {2, 5}
    assert settings.choose(example([2, 5], {2: [0]}), rng) == 2, "5 has no token"
    assert settings.choose(example([2], {2: [0], 5: [1]}), rng) == 2, "5 is not labelled"
    assert settings.choose(example([2], {}), rng) == -1
    assert settings.choose(replace(both, targets_NP=None), rng) == -1, "nobody annotated the clip"


@pytest.mark.parametrize("share", [0.0, 0.1, 0.35, 0.5, 0.9])
def test_every_batch_has_as_many_clips_to_mute_spread_over_its_parts(share: float):
    settings = Counterfactual(share)
    falls = np.array([settings.falls_on(place) for place in range(320)])
    for size in (16, 32):
        counts = falls.reshape(-1, size).sum(1)
        assert (abs(counts - share * size) < 1).all()


def test_a_batch_mutes_by_seed_and_step_alone_and_draws_the_same_clips_and_noise_as_without():
    recipe = replace(RECIPE, branch=SHAPE, null_share=0.0, batch=8)
    muting = replace(recipe, counterfactual=Counterfactual(share=0.5))
    clips = RandomClips()
    plain, muted, again = (Batches(clips, r, FlowMatching(), Share())[3] for r in (recipe, muting, muting))
    assert torch.equal(plain.noisy_BCTHW, muted.noisy_BCTHW)
    assert torch.equal(muted.muted_B, again.muted_B)
    assert (plain.muted_B == -1).all()
    rows = (muted.muted_B >= 0).nonzero().flatten()
    assert 1 <= len(rows) <= 4
    assert (muted.labels_BP[rows, muted.muted_B[rows]] == 1).all()


def test_the_scale_mutes_one_expert_of_each_muted_clip():
    scale = muting_scale(torch.tensor([-1, 3]), 18)
    assert scale.shape == (2, 1, 18)
    assert (scale[0] == 1).all()
    assert scale[1, 0].tolist() == [1.0] * 3 + [0.0] + [1.0] * 14


def test_the_target_changes_on_the_muted_phenomenons_tokens_of_muted_clips_and_nowhere_else():
    target = torch.randn(3, 4, 1, 2, 2)
    targets_BNP = torch.zeros(3, 4, NOTHING)
    targets_BNP[:, 1, 2] = 0.5  # token 1: latent row 0, column 1
    targets_BNP[:, 3, 5] = 0.5
    without = torch.full((1, 4, 1, 2, 2), 7.0)
    made, changed = counterfactual_target(target, without, torch.tensor([-1, 2, -1]), targets_BNP, 0.02)
    assert changed.nonzero().tolist() == [[1, 0, 0, 1]]
    assert (made[1, :, 0, 0, 1] == 7).all()
    rest = ~changed[:, None].expand_as(target)
    assert torch.equal(made[rest], target[rest])


# --- the losses -------------------------------------------------------------------------------------------------------


def test_the_routing_loss_is_least_where_each_phenomenons_tokens_go_to_its_own_expert():
    targets = torch.zeros(1, 4, NOTHING)
    targets[0, 0, 3] = 1
    right = torch.full((1, 4, NOTHING + 1), 1e-4)
    right[0, 0, 3] = 1
    right[0, 1:, NOTHING] = 1
    wrong = right.roll(1, dims=1)
    assert float(routing_loss(right, targets)) < 1e-3 < float(routing_loss(wrong, targets))
    by_hand = -(5 * wrong[0, 0, 3].log() + wrong[0, 1:, NOTHING].log().sum()) / 8
    assert float(routing_loss(wrong, targets)) == pytest.approx(float(by_hand), rel=1e-5)
    assert float(routing_loss(wrong[:0], targets[:0])) == 0


def test_muted_clips_train_the_diffusion_loss_alone():
    recipe = replace(CAUSAL, branch=replace(SHAPE, reference_grid=(3, 2, 4)), counterfactual=Counterfactual(share=0.5))
    batch = Batches(RandomClips(), recipe, FlowMatching(), Share())[0]
    rows = batch.muted_B >= 0
    assert rows.any()
    elsewhere = torch.where(rows[:, None, None], 1 - batch.targets_BNP, batch.targets_BNP)
    module = build_trainable(backbone(), recipe)
    with torch.no_grad():
        module.branch.projections[0].weight.fill_(0.1)
    with module.attached():
        plain, _ = train_step(module, batch, recipe)
        moved, _ = train_step(module, replace(batch, targets_BNP=elsewhere), recipe)
    assert float(plain.fine_align) == float(moved.fine_align) > 0
    assert float(plain.routing) == float(moved.routing) > 0
    assert float(plain.counterfactual) != float(moved.counterfactual)


# --- experts as causes ------------------------------------------------------------------------------------------------


class Painted(RandomClips):
    """Clips of two events, left and right, as the text says: each has a colour on its tokens, the rest is grey."""

    KINDS = (0, 3, 7, 12)

    def __init__(self, count: int = 256) -> None:
        generator = torch.Generator().manual_seed(1)
        self.fingerprint, self.size = "painted", (2, 4, 4)
        colours = torch.randn(NOTHING, 4, generator=generator)
        words = torch.randn(2, NOTHING, 24, generator=generator)
        self.latents = torch.zeros(count, 4, *self.size)
        self.labels = torch.zeros(count, NOTHING)
        self.targets = torch.zeros(count, 32, NOTHING)
        self.texts = torch.zeros(count, 3, 6, 24)
        acts = torch.zeros(2, *self.size)
        acts[0, :, 1:, :2] = acts[1, :, 1:, 2:] = 1
        for i in range(count):
            pair = torch.randperm(4, generator=generator)[:2].tolist()
            for side, kind in enumerate(self.KINDS[k] for k in pair):
                self.latents[i] += colours[kind].view(4, 1, 1, 1) * acts[side]
                self.labels[i, kind] = 1
                self.targets[i, :, kind] += acts[side].flatten()
                self.texts[i, :, side] = words[side, kind]
        self.empty_text_LD = torch.zeros(6, 24)
        self.empty_text_LD[0] = 1

    def example(self, index: int, wording: int) -> Example:
        text = self.texts[index, wording % 3]
        return Example(f"clip {index}", self.latents[index], text, self.labels[index], self.targets[index])


def backbone() -> WanTransformer3DModel:
    """Two layers, random weights."""
    torch.manual_seed(5)
    return WanTransformer3DModel(
        patch_size=(1, 1, 1),
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        text_dim=24,
        freq_dim=16,
        ffn_dim=64,
        num_layers=2,
        rope_max_seq_len=32,
    )


def learn(recipe: Recipe, clips: Painted) -> TrainableModule:
    """The trainer's own step on its own batches, without its files."""
    module = build_trainable(backbone(), recipe)
    optimiser = torch.optim.AdamW(trained(module).values(), lr=4e-3)
    batches = Batches(clips, recipe, FlowMatching(), Share())
    with module.attached():
        for step in range(recipe.steps):
            for group in optimiser.param_groups:
                group["lr"] = 4e-3 * recipe.optimiser.share_of_peak(step, recipe.steps)
            optimiser.zero_grad()
            train_step(module, batches[step], recipe)[0].total.backward()
            optimiser.step()
    return module.eval()


@torch.no_grad()
def effect_of_muting(module: TrainableModule, clips: Painted) -> tuple[float, float]:
    """How near the prediction comes to the backbone's own on the muted tokens, and how far it moves elsewhere.

    Squared distances, as shares of that between branch on and off in the same place: (1, 0) is a perfect cause.
    """
    recipe = replace(CAUSAL, batch=64, seed=9, counterfactual=Counterfactual())
    batch = Batches(clips, recipe, FlowMatching(), Share())[0]
    inputs = (batch.noisy_BCTHW, batch.timestep_B, batch.text_BLD)
    muted_B = batch.labels_BP.argmax(1)
    with module.attached():
        off = module(*inputs, use_branch=False).predicted_BCTHW
        on = module(*inputs).predicted_BCTHW
        muted = module(*inputs, muting_scale(muted_B, NOTHING + 1)).predicted_BCTHW
    own = (batch.targets_BNP[torch.arange(64), :, muted_B].view(64, 1, 2, 4, 4) > 0).float()
    left = ((muted - off).square() * own).sum() / ((on - off).square() * own).sum()
    moved = ((muted - on).square() * (1 - own)).sum() / ((on - off).square() * (1 - own)).sum()
    return 1 - float(left), float(moved)


@pytest.mark.timeout(300)
def test_a_muted_expert_gives_the_backbones_prediction_on_its_tokens_and_leaves_the_others_alone():
    clips = Painted()
    near, moved = effect_of_muting(learn(CAUSAL, clips), clips)
    control = replace(CAUSAL, counterfactual=Counterfactual())
    near_control, moved_control = effect_of_muting(learn(control, clips), clips)
    print(f"near the backbone {near:.3f}, elsewhere moved {moved:.3f}; control {near_control:.3f}, {moved_control:.3f}")
    assert near > 0.9
    assert moved < 0.1
    assert near_control < 0.6, "the control: experts by name alone are no causes"


# --- recipes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"branch": replace(SHAPE, refinement_experts=17)},
            "each of 17 phenomena and one for none: 18 at least",
        ),
        ({"branch": replace(SHAPE, refinement=False)}, "need refinement experts: give the branch some"),
        ({"backbone": "lora"}, "set backbone='frozen'"),
        ({"backbone": "trained"}, "set backbone='frozen'"),
    ],
)
def test_a_recipe_in_which_nobody_can_be_muted_is_refused_where_it_is_built(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        replace(CAUSAL, **changes)


@pytest.mark.parametrize(
    ("name", "value"), [("share", 1.0), ("share", -0.1), ("share", float("nan")), ("threshold", 1)]
)
def test_a_share_out_of_range_is_refused(name: str, value: float):
    with pytest.raises(ValueError, match=rf"counterfactual.{name}=.* must be"):
        Counterfactual(**{name: value})


def test_a_recipe_with_counterfactual_routing_comes_back_from_its_record():
    assert Recipe.from_record(CAUSAL.record()) == CAUSAL
    before = CAUSAL.record()
    del before["counterfactual"]
    assert Recipe.from_record(before).counterfactual == Counterfactual()


def test_the_trainer_logs_the_loss_where_experts_are_muted(tmp_path: Path):
    recipe = replace(CAUSAL, branch=replace(SHAPE, reference_grid=(3, 2, 4)), steps=3, batch=4)
    rows = losses_of(run(tmp_path / "run", recipe))
    assert len(rows) == 3
    assert all(row["routing"] > 0 and row["counterfactual"] >= 0 for row in rows)
    assert "counterfactual" not in losses_of(run(tmp_path / "plain", replace(RECIPE, steps=1)))[0]
