"""The losses against slow, literal transcriptions of the paper's equations."""

import math

import pytest
import torch

from prophy.branch.losses import LossWeights, coarse_loss, fine_align_loss, fine_balance_loss, total_loss

# Sizes where no two axes are equal: B batch, N tokens, E experts, K top-k, P phenomena.
B, N, E, K, P = 4, 7, 5, 2, 6


def make_labels() -> torch.Tensor:
    """Multi-hot; the first two clips agree, the last has no label."""
    labels = torch.zeros(B, P)
    labels[0, [1, 3]] = labels[1, [1, 3]] = 1
    labels[2, 4] = 1
    return labels


def make_targets() -> torch.Tensor:
    """Signed, as a difference of attention maps is."""
    return torch.randn(B, N, P, generator=torch.Generator().manual_seed(2))


def make_routing() -> tuple[torch.Tensor, torch.Tensor]:
    probs = torch.randn(B, N, E, generator=torch.Generator().manual_seed(3)).softmax(-1)
    return probs, probs.topk(K, dim=-1).indices


def cosine(a: list[float], b: list[float]) -> float:
    norm = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / norm if norm else 0.0


# --- coarse, eqs. 3-4 -------------------------------------------------------------------------------------------------


def test_coarse_is_the_mean_over_pairs_of_squared_differences_of_cosines():
    predicted, labels = torch.randn(B, P, generator=torch.Generator().manual_seed(1)), make_labels()
    terms = [
        (cosine(predicted[i].tolist(), predicted[j].tolist()) - cosine(labels[i].tolist(), labels[j].tolist())) ** 2
        for i in range(B)
        for j in range(i + 1, B)
    ]
    assert len(terms) == 6
    assert float(coarse_loss(predicted, labels)) == pytest.approx(sum(terms) / len(terms), abs=1e-6)


def test_coarse_is_zero_when_similarities_match_whatever_their_scale():
    labels = make_labels()[:3]
    assert float(coarse_loss(3.7 * labels, labels)) == pytest.approx(0, abs=1e-12)
    turned = labels[:, torch.tensor([5, 0, 3, 2, 1, 4])]
    assert float(coarse_loss(turned, labels)) == pytest.approx(0, abs=1e-12), "only relations inside the batch matter"


def test_coarse_of_one_clip_is_zero_and_still_has_a_gradient():
    for size in (0, 1):
        predicted = torch.randn(size, P, requires_grad=True)
        loss = coarse_loss(predicted, torch.ones(size, P))
        loss.backward()
        assert float(loss.detach()) == 0
        assert not predicted.grad.any()


def test_coarse_does_not_depend_on_the_order_or_the_number_of_equal_batches():
    predicted, labels = torch.randn(B, P, generator=torch.Generator().manual_seed(1)), make_labels()
    turned = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(coarse_loss(predicted[turned], labels[turned]), coarse_loss(predicted, labels))


# --- fine align, eq. 5 ------------------------------------------------------------------------------------------------


def naive_align(predicted, targets, labels, background: float) -> float:
    here, elsewhere = [], []
    for b in range(predicted.shape[0]):
        for n in range(predicted.shape[1]):
            for p in range(predicted.shape[2]):
                if labels[b, p] > 0 and targets[b, n, p] > 0:
                    here.append(float(predicted[b, n, p] - targets[b, n, p]) ** 2)
                else:
                    elsewhere.append(float(predicted[b, n, p]) ** 2)
    loss = sum(here) / max(1, len(here))
    return loss + background * sum(elsewhere) / max(1, len(elsewhere))


@pytest.mark.parametrize("background", [0.0, 0.3])
def test_align_is_the_mean_squared_error_where_a_labelled_phenomenon_acts(background: float):
    predicted, targets, labels = torch.randn(B, N, P), make_targets(), make_labels()
    expected = naive_align(predicted, targets, labels, background)
    assert float(fine_align_loss(predicted, targets, labels, background)) == pytest.approx(expected, rel=1e-5)


def test_align_without_background_does_not_look_where_nothing_is_labelled():
    predicted, targets, labels = torch.randn(B, N, P), make_targets(), make_labels()
    ignored = (targets <= 0) | (labels[:, None] == 0)
    assert 0 < ignored.sum() < ignored.numel()
    other_prediction = torch.where(ignored, predicted + 9.0, predicted)
    other_targets = torch.where(labels[:, None] == 0, targets + 5.0, targets)
    loss = fine_align_loss(predicted, targets, labels)
    assert torch.equal(fine_align_loss(other_prediction, targets, labels), loss)
    assert torch.equal(fine_align_loss(predicted, other_targets, labels), loss)
    predicted.requires_grad_()
    fine_align_loss(predicted, targets, labels).backward()
    assert not predicted.grad[ignored].any()
    assert predicted.grad[~ignored].all()


def test_align_background_pulls_everything_else_to_zero():
    targets, labels = make_targets(), make_labels()
    predicted = torch.ones(B, N, P, requires_grad=True)
    (fine_align_loss(predicted, targets, labels, 0.5) - fine_align_loss(predicted, targets, labels)).backward()
    ignored = (targets <= 0) | (labels[:, None] == 0)
    assert (predicted.grad[ignored] > 0).all()
    assert predicted.grad[~ignored].abs().max() < 1e-7


def test_align_others_pulls_to_zero_where_another_phenomenon_acts_and_nowhere_else():
    targets, labels = make_targets(), make_labels()
    here = (targets > 0) & (labels[:, None] > 0)
    leaks = ~here & here.any(-1, keepdim=True)
    assert 0 < leaks.sum() < (~here).sum()
    predicted = torch.randn(B, N, P, generator=torch.Generator().manual_seed(5), requires_grad=True)
    term = fine_align_loss(predicted, targets, labels, 0.5, 3.0) - fine_align_loss(predicted, targets, labels, 0.5)
    assert float(term.detach()) == pytest.approx(3 * float(predicted.detach().square()[leaks].mean()), rel=1e-4)
    term.backward()
    assert predicted.grad[leaks].all()
    assert predicted.grad[~leaks].abs().max() < 1e-7


def test_align_of_perfect_maps_and_of_unlabelled_batches_is_zero():
    targets, labels = make_targets(), make_labels()
    perfect = targets * ((targets > 0) & (labels[:, None] > 0))
    assert float(fine_align_loss(perfect, targets, labels, 1.0, 1.0)) == 0
    assert float(fine_align_loss(torch.randn(B, N, P), targets, torch.zeros(B, P))) == 0


# --- fine balance -----------------------------------------------------------------------------------------------------


def test_balance_is_the_auxiliary_loss_of_switch_transformers():
    probs, ids = make_routing()
    expected = 0.0
    for e in range(E):
        share = sum(int(ids[b, n, k] == e) for b in range(B) for n in range(N) for k in range(K)) / (B * N * K)
        mean = sum(float(probs[b, n, e]) for b in range(B) for n in range(N)) / (B * N)
        expected += E * share * mean
    assert float(fine_balance_loss(probs, ids)) == pytest.approx(expected, rel=1e-5)


def test_balance_is_one_when_uniform_and_the_number_of_experts_when_collapsed():
    uniform = torch.full((B, N, E), 1 / E)
    everyone = torch.arange(B * N * K).remainder(E).view(B, N, K)  # 56 assignments to 5 experts: as even as can be
    assert float(fine_balance_loss(uniform, everyone)) == pytest.approx(1)
    collapsed = torch.zeros(B, N, E)
    collapsed[..., 3] = 1
    assert float(fine_balance_loss(collapsed, torch.full((B, N, 1), 3))) == pytest.approx(E)


def test_balance_pushes_the_busiest_expert_down():
    logits = torch.zeros(B, N, E)
    logits[..., 2], logits[..., 0] = 1.0, 0.5
    logits.requires_grad_()
    probs = logits.softmax(-1)
    fine_balance_loss(probs, probs.topk(K, dim=-1).indices).backward()
    assert (logits.grad[..., 2] > 0).all()
    assert (logits.grad[..., 4] < 0).all()


def test_balance_of_a_batch_without_a_single_caption_is_zero():
    """Training drops captions; of a small batch now and then all of them."""
    probs, ids = torch.rand(0, N, E, requires_grad=True), torch.zeros(0, N, K, dtype=torch.long)
    loss = fine_balance_loss(probs, ids)
    loss.backward()
    assert float(loss) == 0


# --- all of them ------------------------------------------------------------------------------------------------------


def test_the_total_is_equation_six_with_the_papers_weights():
    parts = [torch.tensor(value) for value in (0.5, 2.0, 3.0, 1.5)]
    assert float(total_loss(*parts, LossWeights())) == pytest.approx(0.5 + 0.1 * 2.0 + 0.02 * 3.0 + 0.01 * 1.5)
    none = LossWeights(coarse=0, fine_align=0, fine_balance=0)
    assert float(total_loss(*parts, none)) == 0.5


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_gradients_are_finite_also_at_zero_and_far_away(scale: float):
    predicted = (scale * torch.randn(B, P)).requires_grad_()
    maps = (scale * torch.randn(B, N, P)).requires_grad_()
    logits = (scale * torch.randn(B, N, E)).requires_grad_()
    probs = logits.softmax(-1)
    loss = total_loss(
        torch.zeros(()),
        coarse_loss(predicted, make_labels()),
        fine_align_loss(maps, make_targets(), make_labels(), 1.0),
        fine_balance_loss(probs, probs.topk(K, dim=-1).indices),
        LossWeights(),
    )
    loss.backward()
    for tensor in (loss, predicted.grad, maps.grad, logits.grad):
        assert torch.isfinite(tensor).all()


def test_losses_are_float32_whatever_comes_in():
    probs, ids = make_routing()
    losses = (
        coarse_loss(torch.randn(B, P).bfloat16(), make_labels()),
        fine_align_loss(torch.randn(B, N, P).bfloat16(), make_targets(), make_labels()),
        fine_balance_loss(probs.bfloat16(), ids),
    )
    assert [loss.dtype for loss in losses] == [torch.float32] * 3
