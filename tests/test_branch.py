"""The branch: an exact copy beside the backbone, the experts of eqs. 1-2, and a checkpoint that loads whole or not."""

import inspect
import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import make_branch, make_transformer
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file

from prophy import phenomena
from prophy.backbones import WAN
from prophy.branch import ProPhyBranch, attach
from prophy.branch.refinement import FORMS, RefinementExpertBlock
from prophy.branch.semantic import SemanticExpertBlock
from prophy.memory.footprint import footprint

WEIGHTS = "diffusion_pytorch_model.safetensors"


def make_inputs(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents (2, 4, 3, 4, 5), timesteps, and text (2, 7, 24) whose second row ends early."""
    torch.manual_seed(seed)
    text = torch.randn(2, 7, 24)
    text[1, 4:] = 0
    return torch.randn(2, 4, 3, 4, 5), torch.tensor([900.0, 30.0]), text


def backbone_output(transformer: WanTransformer3DModel, inputs: tuple) -> torch.Tensor:
    with torch.no_grad():
        return transformer(*inputs, return_dict=False)[0]


@pytest.fixture
def saved(tiny_branch: ProPhyBranch, tmp_path: Path) -> Path:
    tiny_branch.save_pretrained(tmp_path / "branch")
    return tmp_path / "branch"


def refusal(folder: Path) -> str:
    """The one line with which a saved branch is refused."""
    with pytest.raises((ValueError, OSError)) as caught:
        ProPhyBranch.from_pretrained(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    return str(caught.value)


# --- beside the backbone ----------------------------------------------------------------------------------------------


def test_zero_initialised_branch_leaves_the_backbone_bit_identical(tiny_transformer, zero_branch):
    inputs = make_inputs()
    stock = backbone_output(tiny_transformer, inputs)
    attach(tiny_transformer, zero_branch)
    assert torch.equal(backbone_output(tiny_transformer, inputs), stock)


def test_a_trained_branch_changes_the_backbone(tiny_transformer, tiny_branch):
    inputs = make_inputs()
    stock = backbone_output(tiny_transformer, inputs)
    attach(tiny_transformer, tiny_branch)
    difference = (backbone_output(tiny_transformer, inputs) - stock).abs().max()
    print(f"largest difference of a trained branch: {difference:.3g}")
    assert 1e-3 < difference < 1e3


def test_the_branch_starts_as_a_copy_of_its_blocks_and_embedders(tiny_transformer, zero_branch):
    for site, block in zip(zero_branch.config.sites, zero_branch.blocks, strict=True):
        for name, theirs in tiny_transformer.blocks[site].state_dict().items():
            assert torch.equal(block.state_dict()[name], theirs)
    for name, module in zero_branch.embedders.items():
        for key, theirs in getattr(tiny_transformer, name).state_dict().items():
            assert torch.equal(module.state_dict()[key], theirs)
    first = next(zero_branch.blocks[0].parameters())
    with torch.no_grad():
        first.add_(1)
    assert not torch.equal(first, next(tiny_transformer.blocks[0].parameters())), "the copy shares its memory"


def test_the_branch_runs_the_embedders_and_blocks_of_the_stock_forward(tiny_transformer, zero_branch):
    """Without basis maps and experts the branch's first block sees and says exactly what the backbone's says."""
    with torch.no_grad():
        zero_branch.semantic.basis_SCTHW.zero_()
        zero_branch.projections[0].weight.copy_(torch.eye(32))
    seen = []
    tiny_transformer.blocks[0].register_forward_hook(lambda *event: seen.append(event[2]))
    inputs = make_inputs()
    backbone_output(tiny_transformer, inputs)
    with torch.no_grad():
        residuals, _ = zero_branch(*inputs)
    assert torch.equal(residuals[0], seen[0])


def test_a_residual_only_behind_the_experts_is_the_last_of_those_behind_every_block(tiny_transformer):
    """One injection: what reaches the backbone has passed the refinement experts."""
    made = []
    for injections in (None, [2]):
        branch = make_branch(tiny_transformer, trained=True, injections=injections)
        with torch.no_grad():
            branch.projections[-1].weight.copy_(torch.eye(32))
            branch.refinement.weight_EDD.copy_(
                torch.linspace(-0.1, 0.1, branch.refinement.weight_EDD.numel()).view(5, 32, 32)
            )
            made.append(branch(*make_inputs())[0])
    every, last = made
    assert (len(every), len(last)) == (2, 1)
    assert torch.equal(every[-1], last[0])


def test_attached_behind_the_experts_alone_it_changes_the_blocks_after_them(tiny_transformer):
    branch = make_branch(tiny_transformer, trained=True, injections=[0], sites=[0])
    inputs = make_inputs()
    seen = []
    tiny_transformer.blocks[1].register_forward_hook(lambda *event: seen.append(event[1][0]))
    backbone_output(tiny_transformer, inputs)
    attachment = attach(tiny_transformer, branch)
    backbone_output(tiny_transformer, inputs)
    attachment.detach()
    plain, changed = seen
    with torch.no_grad():
        residual = branch(*inputs)[0][0]
    torch.testing.assert_close(changed - plain, residual, rtol=1e-4, atol=1e-5)


def test_a_branch_saved_before_there_was_a_choice_is_opened_as_it_was(tiny_transformer, tmp_path: Path):
    branch = make_branch(tiny_transformer, trained=True, refinement_form="residual")
    branch.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for key in ("refinement_form", "injections"):
        del config[key]
    (tmp_path / "config.json").write_text(json.dumps(config))
    opened = ProPhyBranch.from_pretrained(tmp_path).eval()
    assert (opened.refinement.form, opened.injections) == ("residual", [0, 2])
    with torch.no_grad():
        assert torch.equal(opened(*make_inputs())[0][1], branch(*make_inputs())[0][1])


def test_run_refined_block_that_refines_nothing_is_the_stock_block(tiny_transformer, zero_branch):
    latents, timestep, text = make_inputs()
    block = tiny_transformer.blocks[1]
    per_token = torch.linspace(900, 1, 2 * 60).view(2, 60)  # Wan2.2 TI2V: one timestep a token
    for name, time in (("one timestep a clip", timestep), ("one timestep a token", per_token)):
        with torch.no_grad():
            inputs = WAN.embed(zero_branch.embedders, latents, time, text)
            stock = WAN.run_block(block, inputs.hidden, inputs)
            ours = WAN.run_refined_block(block, inputs.hidden, inputs, lambda x: x)
        print(f"largest difference, {name}: {(ours - stock).abs().max():.3g}")
        assert torch.equal(ours, stock)


def test_refinement_sits_between_cross_attention_and_feed_forward(tiny_transformer, zero_branch):
    latents, timestep, text = make_inputs()
    block = tiny_transformer.blocks[1]
    order = []
    for name in ("attn1", "attn2", "ffn"):
        getattr(block, name).register_forward_hook(lambda *_, name=name: order.append(name))

    def refine(x: torch.Tensor) -> torch.Tensor:
        order.append("refine")
        return x

    with torch.no_grad():
        inputs = WAN.embed(zero_branch.embedders, latents, timestep, text)
        WAN.run_refined_block(block, inputs.hidden, inputs, refine)
    assert order == ["attn1", "attn2", "refine", "ffn"]


def test_routing_is_a_value_with_the_documented_shapes(tiny_branch):
    with torch.no_grad():
        residuals, routing = tiny_branch(*make_inputs())
    assert [tuple(residual.shape) for residual in residuals] == [(2, 60, 32)] * 2
    assert routing.semantic_logits_BS.shape == routing.semantic_weights_BS.shape == (2, 6)
    assert routing.probs_BNE.shape == (2, 60, 5)
    assert routing.topk_ids_BNK.shape == routing.topk_weights_BNK.shape == (2, 60, 2)
    assert routing.phenomenon_map_BNP.shape == (2, 60, 17)
    one = torch.ones(())
    torch.testing.assert_close(routing.probs_BNE.sum(-1), one.expand(2, 60))
    torch.testing.assert_close(routing.semantic_weights_BS.sum(-1), one.expand(2))
    assert (routing.topk_weights_BNK[..., 0] >= routing.topk_weights_BNK[..., 1]).all()
    assert torch.equal(routing.probs_BNE.gather(-1, routing.topk_ids_BNK), routing.topk_weights_BNK)


def test_one_clip_of_a_batch_is_routed_as_if_alone(tiny_branch):
    latents, timestep, text = make_inputs()
    with torch.no_grad():
        _, both = tiny_branch(latents, timestep, text)
        _, alone = tiny_branch(latents[1:], timestep[1:], text[1:])
    torch.testing.assert_close(alone.probs_BNE[0], both.probs_BNE[1], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(alone.semantic_logits_BS[0], both.semantic_logits_BS[1], rtol=1e-4, atol=1e-6)


def test_gradient_checkpointing_gives_identical_gradients(tiny_branch):
    tiny_branch.train()
    inputs = make_inputs()
    gradients = []
    for checkpointed in (False, True):
        if checkpointed:
            tiny_branch.enable_gradient_checkpointing()
        tiny_branch.zero_grad()
        residuals, routing = tiny_branch(*inputs)
        loss = sum(residual.square().mean() for residual in residuals) + routing.phenomenon_map_BNP.square().mean()
        (loss + tiny_branch.labels_from_semantics(routing.semantic_weights_BS).square().mean()).backward()
        gradients.append({name: p.grad.clone() for name, p in tiny_branch.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() == dict(tiny_branch.named_parameters()).keys()
    for name, gradient in gradients[0].items():
        assert gradient.abs().max() > 0, f"{name} receives no gradient"
        assert torch.equal(gradients[1][name], gradient), name


# --- the refinement experts (eq. 2) -----------------------------------------------------------------------------------


def naive_refinement(block: RefinementExpertBlock, x_BND: torch.Tensor, scale_E=None) -> torch.Tensor:
    """Eq. 2 token by token and expert by expert, in plain loops."""
    normal = block.norm(x_BND)
    routing = block.route(normal, scale_E)
    rows = []
    for b in range(x_BND.shape[0]):
        for n in range(x_BND.shape[1]):
            chosen, weights = routing.topk_ids_BNK[b, n], routing.topk_weights_BNK[b, n]
            if block.form == "mixture":
                token, weights = torch.zeros_like(x_BND[b, n]), weights / weights.sum()
            else:
                token = x_BND[b, n]
            for expert, weight in zip(chosen.tolist(), weights, strict=True):
                matrix, bias = block.weight_EDD[expert], block.bias_ED[expert]
                if block.form == "mixture":
                    token = token + weight * (x_BND[b, n] @ (torch.eye(12) + matrix) + bias)
                else:
                    token = token + weight * (normal[b, n] @ matrix + bias)
            rows.append(token)
    return torch.stack(rows).view_as(x_BND)


def make_refinement(experts: int = 5, top_k: int = 2, form: str = "mixture") -> RefinementExpertBlock:
    torch.manual_seed(1)
    block = RefinementExpertBlock(12, experts, top_k, form)
    torch.nn.init.normal_(block.router.weight, std=1.0)
    torch.nn.init.normal_(block.weight_EDD, std=0.2)
    torch.nn.init.normal_(block.bias_ED)
    return block


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("top_k", [1, 2, 5])
def test_dispatch_equals_a_naive_loop_over_experts(top_k: int, form: str):
    block = make_refinement(top_k=top_k, form=form)
    x_BND = torch.randn(2, 7, 12, requires_grad=True)
    results = []
    for run in (lambda: block(x_BND)[0], lambda: naive_refinement(block, x_BND)):
        block.zero_grad()
        x_BND.grad = None
        output = run()
        output.square().sum().backward()
        results.append((output.detach(), {"x": x_BND.grad.clone(), **{n: p.grad for n, p in block.named_parameters()}}))
    print(f"largest difference, top-{top_k}: {(results[0][0] - results[1][0]).abs().max():.3g}")
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-5, atol=1e-5)
    for name, gradient in results[1][1].items():
        torch.testing.assert_close(
            results[0][1][name], gradient, rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_a_fresh_mixture_returns_every_token_as_it_came():
    """Also where steering or few experts leave weights that do not sum to one."""
    block = RefinementExpertBlock(12, 5, 2)
    x_BND = torch.randn(2, 7, 12)
    assert torch.equal(block(x_BND)[0], x_BND)
    assert torch.equal(block(x_BND, torch.tensor([0.0, 1.0, -1.0, 3.0, 1.0]))[0], x_BND)


def test_a_mixture_of_experts_that_all_say_the_same_says_just_that():
    """The weights of the chosen experts are renormalised: eq. 2 replaces the state, it does not shrink it."""
    block = make_refinement()
    with torch.no_grad():
        block.weight_EDD.copy_(block.weight_EDD[:1].expand_as(block.weight_EDD))
        block.bias_ED.copy_(block.bias_ED[:1].expand_as(block.bias_ED))
    x_BND = torch.randn(2, 7, 12)
    expected = x_BND + x_BND @ block.weight_EDD[0] + block.bias_ED[0]
    torch.testing.assert_close(block(x_BND)[0], expected, rtol=1e-4, atol=1e-5)


def test_an_expert_that_nobody_chose_is_left_alone_and_gets_no_gradient():
    block = make_refinement()
    with torch.no_grad():
        block.router.bias[3] = -100.0
    x_BND = torch.randn(2, 7, 12)
    output, routing = block(x_BND)
    output.square().sum().backward()
    assert not (routing.topk_ids_BNK == 3).any()
    assert not block.weight_EDD.grad[3].any()
    assert torch.isfinite(output).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_refinement_without_gradients_keeps_the_sorted_tokens_and_their_answers_at_most(dtype):
    """In multiples of the hidden states, top-2: twice as many rows of each, and the normalised states."""
    with torch.no_grad(), torch.device("meta"):
        block = RefinementExpertBlock(256, 8, 2).to(dtype)
        x_BND = torch.empty(1, 4096, 256, dtype=dtype)
        assert footprint(lambda: block(x_BND), device="cpu").peak < 5.5 * x_BND.nbytes


def test_a_scale_of_ones_is_exactly_unsteered(tiny_branch):
    inputs = make_inputs()
    with torch.no_grad():
        plain, routing = tiny_branch(*inputs)
        scaled, same = tiny_branch(*inputs, torch.ones(6), torch.ones(5))
    assert all(torch.equal(a, b) for a, b in zip(plain, scaled, strict=True))
    for name, value in vars(routing).items():
        assert torch.equal(getattr(same, name), value), name


def test_a_muted_expert_has_share_zero_and_the_others_share_its_part():
    block = make_refinement()
    normal = block.norm(torch.randn(2, 7, 12))
    free = block.route(normal)
    muted = block.route(normal, torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0]))
    assert not muted.probs_BNE[..., 2].any()
    assert not (muted.topk_ids_BNK == 2).any()
    expected = free.probs_BNE.clone()
    expected[..., 2] = 0
    torch.testing.assert_close(muted.probs_BNE, expected / expected.sum(-1, keepdim=True))


def test_inversion_sends_each_token_to_the_expert_it_liked_least():
    block = make_refinement()
    normal = block.norm(torch.randn(2, 7, 12))
    free, inverted = block.route(normal), block.route(normal, -torch.ones(5))
    assert torch.equal(inverted.topk_ids_BNK[..., 0], free.probs_BNE.argmin(-1))
    torch.testing.assert_close(inverted.probs_BNE, (-free.probs_BNE.log()).softmax(-1))


def test_a_boost_doubles_the_odds():
    block = make_refinement()
    normal = block.norm(torch.randn(2, 7, 12))
    odds = block.route(normal).probs_BNE
    boosted = block.route(normal, torch.tensor([1.0, 2.0, 1.0, 1.0, 1.0])).probs_BNE
    torch.testing.assert_close(boosted[..., 1] / boosted[..., 0], 2 * odds[..., 1] / odds[..., 0])


@pytest.mark.parametrize("top_k", [1, 2, 5])
def test_a_muted_expert_is_never_first_even_when_it_is_far_ahead_or_there_are_too_few_others(top_k: int):
    block = make_refinement(top_k=top_k)
    with torch.no_grad():
        block.router.bias[2] = 1000.0  # the softmax of the others rounds to zero
    normal = block.norm(torch.randn(2, 7, 12))
    assert (block.route(normal).topk_ids_BNK[..., 0] == 2).all()
    for scale in ([1.0, 1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0, 0.0], [0.0, -1.0, 0.0, 0.0, 0.0]):
        scale_E = torch.tensor(scale)
        routing = block.route(normal, scale_E)
        assert not routing.probs_BNE[..., scale_E == 0].any()
        assert (scale_E[routing.topk_ids_BNK[..., 0]] != 0).all()
        assert not routing.topk_weights_BNK[scale_E[routing.topk_ids_BNK] == 0].any()
        torch.testing.assert_close(routing.probs_BNE.sum(-1), torch.ones(2, 7))


def test_muting_every_expert_is_refused():
    block = make_refinement()
    with pytest.raises(ValueError, match="every expert is muted: leave at least one"):
        block.route(torch.zeros(1, 1, 12), torch.zeros(5))
    with pytest.raises(ValueError, match="every expert is muted: leave at least one"):
        make_semantic()(*make_inputs()[::2], torch.zeros(6))


def test_a_forced_token_has_one_expert_and_the_others_are_untouched():
    block = make_refinement()
    x_BND = torch.randn(2, 7, 12)
    normal = block.norm(x_BND)
    free = block.route(normal)
    forced_N = torch.tensor([-1, 3, -1, 0, 0, -1, 3])
    routing = block.route(normal, torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0]), forced_N)
    taken = forced_N >= 0
    assert (routing.topk_ids_BNK[:, taken, 0] == forced_N[taken]).all()
    assert (routing.topk_weights_BNK[:, taken, 0] == 1).all()
    assert not routing.topk_weights_BNK[:, taken, 1:].any()
    assert (routing.probs_BNE[:, taken].sum(-1) == 1).all()
    assert not routing.probs_BNE[:, ~taken, 3].any(), "muted outside its region"
    alone = block.route(normal, None, forced_N)
    assert torch.equal(alone.probs_BNE[:, ~taken], free.probs_BNE[:, ~taken])
    output, _ = block(x_BND, None, forced_N)
    expected = x_BND[:, 1] + x_BND[:, 1] @ block.weight_EDD[3] + block.bias_ED[3]
    torch.testing.assert_close(output[:, 1], expected, rtol=1e-4, atol=1e-5)


def test_nothing_forced_is_exactly_unsteered(tiny_branch):
    inputs = make_inputs()
    with torch.no_grad():
        plain, routing = tiny_branch(*inputs)
        free, same = tiny_branch(*inputs, torch.ones(6), torch.ones(5), torch.full((60,), -1))
    assert all(torch.equal(a, b) for a, b in zip(plain, free, strict=True))
    for name, value in vars(routing).items():
        assert torch.equal(getattr(same, name), value), name


@pytest.mark.parametrize("forced_N", [torch.tensor([1, 1]), torch.tensor([[1] * 7]), torch.tensor([5] * 7)])
def test_forced_experts_that_do_not_fit_are_refused(forced_N: torch.Tensor):
    with pytest.raises(ValueError, match="give one below 5, or -1, for each of 7 tokens"):
        make_refinement().route(torch.zeros(2, 7, 12), None, forced_N)


# --- the semantic experts (eq. 1) -------------------------------------------------------------------------------------


def make_semantic() -> SemanticExpertBlock:
    torch.manual_seed(2)
    block = SemanticExpertBlock(num_experts=6, channels=4, text_dim=24, reference_grid=(3, 4, 5))
    torch.nn.init.normal_(block.basis_SCTHW)
    return block


def test_the_enhanced_latent_is_equation_one():
    block, (latents, _, text) = make_semantic(), make_inputs()
    enhanced, logits, weights = block(latents, text)
    torch.testing.assert_close(weights, logits.softmax(-1))
    for b in range(2):
        expected = latents[b].clone()
        for e in range(6):
            expected = expected + weights[b, e] * block.basis_SCTHW[e]
        torch.testing.assert_close(enhanced[b], expected)


def test_basis_maps_are_resampled_to_other_sizes_axis_by_axis():
    """A map that grows along one axis only still does so on another grid: swapped axes cannot hide."""
    block, (_, _, text) = make_semantic(), make_inputs()
    size = (6, 9, 7)
    for axis in range(3):
        ramp = torch.linspace(-1, 1, block.basis_SCTHW.shape[2 + axis])
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = -1
        with torch.no_grad():
            block.basis_SCTHW.copy_(ramp.view(shape).expand_as(block.basis_SCTHW))
            enhanced, _, _ = block(torch.zeros(2, 4, *size), text)
        assert enhanced.shape == (2, 4, *size)
        others = [d for d in (2, 3, 4) if d != 2 + axis]
        assert (enhanced.amax(others) - enhanced.amin(others)).max() < 1e-5
        along = enhanced.movedim(2 + axis, -1)[0, 0, 0, 0]
        assert (along.diff() >= 0).all()
        assert along[-1] - along[0] > 1.5


def test_padding_does_not_change_the_semantic_routing():
    block, (_, _, text) = make_semantic(), make_inputs()
    torch.testing.assert_close(block.route(text[1:, :4]), block.route(text[1:]), rtol=1e-6, atol=1e-7)


def test_semantic_steering_follows_the_law_of_the_refinement_experts():
    block, (latents, _, text) = make_semantic(), make_inputs()
    plain, logits, weights = block(latents, text)
    _, same, inverted = block(latents, text, -torch.ones(6))
    assert torch.equal(same, logits), "the recorded logits are the router's own"
    torch.testing.assert_close(inverted, (-logits).softmax(-1))
    enhanced, _, muted = block(latents, text, torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0, 1.0]))
    expected = weights.clone()
    expected[:, 2] = 0
    assert not muted[:, 2].any()
    torch.testing.assert_close(muted, expected / expected.sum(-1, keepdim=True))
    assert not torch.equal(enhanced, plain)


# --- its own checkpoint -----------------------------------------------------------------------------------------------


def test_a_saved_branch_comes_back_equal(tiny_branch, saved: Path):
    again = ProPhyBranch.from_pretrained(saved)
    for name in inspect.signature(ProPhyBranch).parameters:
        assert again.config[name] == tiny_branch.config[name], name
    state = tiny_branch.state_dict()
    assert again.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
    inputs = make_inputs()
    with torch.no_grad():
        (first, _), (second, _) = tiny_branch(*inputs), again.eval()(*inputs)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_weights_that_are_missing_are_refused(saved: Path):
    weights = load_file(saved / WEIGHTS)
    del weights["refinement.router.weight"]
    save_file(weights, saved / WEIGHTS, {"format": "pt"})
    assert "refinement.router.weight" in refusal(saved)


def test_weights_that_do_not_belong_are_refused(saved: Path):
    weights = load_file(saved / WEIGHTS)
    save_file({**weights, "refinement.router.extra": torch.zeros(3)}, saved / WEIGHTS, {"format": "pt"})
    assert "refinement.router.extra" in refusal(saved)


def test_weights_of_another_shape_are_refused(saved: Path):
    weights = load_file(saved / WEIGHTS)
    weights["coarse_head.weight"] = torch.zeros(17, 9)
    save_file(weights, saved / WEIGHTS, {"format": "pt"})
    assert "coarse_head.weight" in refusal(saved)


def test_truncated_weights_are_refused(saved: Path):
    content = (saved / WEIGHTS).read_bytes()
    (saved / WEIGHTS).write_bytes(content[: len(content) // 2])
    assert str(saved) in refusal(saved)


def test_a_branch_of_other_phenomena_is_refused(saved: Path):
    config = json.loads((saved / "config.json").read_text())
    config["phenomena_version"] = "wisa-18-v2"
    (saved / "config.json").write_text(json.dumps(config))
    message = refusal(saved)
    assert "wisa-18-v2" in message
    assert phenomena.VERSION in message


def test_a_branch_moved_to_another_folder_still_opens(saved: Path, tmp_path: Path):
    shutil.move(saved, tmp_path / "elsewhere")
    assert isinstance(ProPhyBranch.from_pretrained(tmp_path / "elsewhere"), ProPhyBranch)


# --- bfloat16 ---------------------------------------------------------------------------------------------------------


def test_routing_stays_float32_when_the_branch_computes_in_bfloat16(tiny_branch, saved: Path):
    small = ProPhyBranch.from_pretrained(saved, dtype=torch.bfloat16).eval()
    assert small.blocks[0].ffn.net[2].weight.dtype == torch.bfloat16
    latents, timestep, text = make_inputs()
    with torch.no_grad():
        residuals, routing = small(latents.bfloat16(), timestep, text.bfloat16())
        _, exact = tiny_branch(latents, timestep, text)
    assert {residual.dtype for residual in residuals} == {torch.bfloat16}
    assert not routing.topk_ids_BNK.is_floating_point()
    for name, value in vars(routing).items():
        assert name == "topk_ids_BNK" or value.dtype == torch.float32, name
    difference = (routing.probs_BNE - exact.probs_BNE).abs().max()
    print(f"largest difference of bfloat16 routing: {difference:.3g}")
    assert difference < 0.05


def test_routing_stays_float32_under_autocast(tiny_branch):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        _, routing = tiny_branch(*make_inputs())
        labels = tiny_branch.labels_from_semantics(routing.semantic_weights_BS)
    assert labels.dtype == torch.float32
    for name, value in vars(routing).items():
        assert name == "topk_ids_BNK" or value.dtype == torch.float32, name


# --- errors where a branch is built -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top_k": 9}, "top_k=9 exceeds num_refinement_experts=5: lower top_k"),
        ({"top_k": 0}, "top_k=0 must be at least 1"),
        ({"num_semantic_experts": 0}, "num_semantic_experts=0 must be at least 1"),
        ({"num_refinement_experts": 300}, "num_refinement_experts=300 must be at most 256"),
        ({"sites": []}, r"sites=\[\] must increase within 0..2"),
        ({"sites": [2, 0]}, "must increase within 0..2"),
        ({"sites": [1, 1]}, "must increase within 0..2"),
        ({"sites": [0, 3]}, "must increase within 0..2, the backbone's blocks"),
        ({"sites": [-1, 2]}, "must increase within 0..2"),
        ({"injections": []}, r"injections=\[\] must increase and be among the sites \[0, 2\]"),
        ({"injections": [1]}, "must increase and be among the sites"),
        ({"injections": [2, 0]}, "must increase and be among the sites"),
        ({"refinement_form": "sum"}, "refinement_form='sum' is unknown: use mixture or residual"),
        ({"reference_grid": [3, 4]}, r"reference_grid=\[3, 4\] must be three positive"),
        ({"reference_grid": [3, 0, 5]}, "must be three positive"),
        ({"phenomena_version": "wisa-18-v2"}, "branch of phenomena 'wisa-18-v2'"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused_where_it_is_built(tiny_transformer, change: dict, message: str):
    config = {"sites": [0, 2], "num_semantic_experts": 6, "num_refinement_experts": 5, "top_k": 2}
    with pytest.raises(ValueError, match=message):
        ProPhyBranch.from_transformer(tiny_transformer, **{**config, **change})


def test_an_unknown_backbone_is_refused_by_name():
    with pytest.raises(ValueError, match="unknown backbone family 'Linear': use one of WanTransformer3DModel"):
        ProPhyBranch.from_transformer(torch.nn.Linear(3, 4), sites=[0])


def test_an_image_to_video_backbone_is_refused():
    transformer = WanTransformer3DModel(
        patch_size=(1, 1, 1),
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        text_dim=24,
        freq_dim=16,
        ffn_dim=48,
        num_layers=1,
        image_dim=8,
        added_kv_proj_dim=32,
    )
    with pytest.raises(ValueError, match="attaches to text-to-video models"):
        ProPhyBranch.from_transformer(transformer, sites=[0])


def test_check_fits_accepts_its_own_base_and_refuses_another_width(saved: Path):
    branch = ProPhyBranch.from_pretrained(saved)
    branch.check_fits(make_transformer())
    wider = WanTransformer3DModel.from_config({**make_transformer().config, "num_attention_heads": 3})
    with pytest.raises(ValueError, match="made for a backbone with num_attention_heads=2, this one has 3") as caught:
        branch.check_fits(wider)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="num_attention_heads=2, this one has 3"):
        attach(wider, branch)


def test_check_fits_refuses_another_kind_of_backbone(tiny_branch):
    with pytest.raises(ValueError, match="belongs to a WanTransformer3DModel, not a Linear"):
        tiny_branch.check_fits(torch.nn.Linear(3, 4))


def test_the_same_seed_builds_the_same_branch(tiny_transformer):
    first, second = (make_branch(tiny_transformer, trained=True).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_weights_that_a_file_was_mapped_to_at_odd_places_are_copied(tiny_transformer, tiny_branch):
    before = {name: weights.clone() for name, weights in tiny_branch.state_dict().items()}
    for parameter in tiny_branch.parameters():
        odd = torch.empty(parameter.numel() + 1, dtype=parameter.dtype)[1:].view(parameter.shape)
        parameter.data = odd.copy_(parameter.data)
    assert all(parameter.data_ptr() % 16 for parameter in tiny_branch.parameters())
    attach(tiny_transformer, tiny_branch)
    assert not any(parameter.data_ptr() % 16 for parameter in tiny_branch.parameters())
    assert all(torch.equal(weights, before[name]) for name, weights in tiny_branch.state_dict().items())
