"""Localisation: does the routing find the physics? Token by token, on clips whose scenes and captions are held out.

    prophy evaluate localisation --model runs/tiny/model --work runs/tiny

The truth is the worlds' own masks: a token is positive when a phenomenon covers more than half of its pixels and
frames. Only phenomena that a clip shows are asked about; every other token of the clip, background or another
phenomenon's, is a negative. The branch's map is measured beside everything that could score without looking.

Shapes: n clips, N tokens, P phenomena, E refinement experts, K top-k, S semantic experts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from prophy.backbones.pipeline import ProPhyPipeline, rules_of
from prophy.data.latents import LatentCache, open_cache
from prophy.evaluation.measures.cross_attention import record_cross_attention, word_weights
from prophy.evaluation.measures.flow_loss import HELD_OUT, held_out_cache
from prophy.evaluation.measures.image_free import ImageFreeRecipe, image_free_maps, train_image_free
from prophy.evaluation.measures.metrics import (
    auc,
    average_precision,
    bootstrap,
    discrimination,
    energy_over_area,
    pointing,
)
from prophy.evaluation.results.localisation import (
    CENTRE,
    CROSS,
    FEATURES,
    IMAGE_FREE,
    MAP,
    ROUTER,
    SHUFFLED,
    UNIFORM,
    VIDEO,
    ExpertUse,
    LocalisationLevel,
    LocalisationResult,
    MapScore,
)
from prophy.generation.identity import branch_is_on, branch_switched, model_hash
from prophy.grid import TokenGrid
from prophy.phenomena import IDS
from prophy.tiny.parts import CLIPS as TRAINED_ON
from prophy.training.batches import NOISE_LEVELS, fixed_batch
from prophy.training.objectives import FlowMatching
from prophy.training.world_examples import WorldExamples
from prophy.worlds import WorldSet

CLIPS = 256
LEAST_SHARE = 0.05  #: gate: of all top-k assignments, what each expert must get
_SHUFFLES = 4


@dataclass(frozen=True)
class Truth:
    """Where each phenomenon of the held-out clips is.

    Attributes:
        cover_nNP: share of each token that a phenomenon covers, float32.
        shown_nP: phenomena of each clip, bool.
        grid: the tokens' grid.
    """

    cover_nNP: np.ndarray
    shown_nP: np.ndarray
    grid: TokenGrid


@dataclass(frozen=True)
class SplitRouting:
    """What the branch says about every clip of a split at one noise level, float32.

    Attributes:
        maps_nNP: P'.
        probs_nNE: the refinement router.
        topk_nNK: its choices, best first.
        labels_nP: the semantic router's weights mapped to label space (eq. 3).
        semantic_nS: the weights themselves.
    """

    maps_nNP: np.ndarray
    probs_nNE: np.ndarray
    topk_nNK: np.ndarray
    labels_nP: np.ndarray
    semantic_nS: np.ndarray


def evaluate_localisation(
    pipeline: ProPhyPipeline,
    work: Path,
    clips: int = CLIPS,
    match_clips: int = CLIPS,
    train_clips: int = TRAINED_ON,
    recipe: ImageFreeRecipe | None = None,
    batch: int = 16,
    *,
    caches: Path | None = None,
    noises: Sequence[float] = NOISE_LEVELS,
    slow_baselines: bool = True,
    worlds: WorldSet = WorldSet(),
) -> LocalisationResult:
    """Measure the branch's maps and every baseline; writes ``localisation.json`` under ``work/evaluation``.

    Args:
        pipeline: with a branch.
        work: folder of results.
        clips: held-out clips to measure on.
        match_clips: clips of the test split on which experts are matched and the semantic reading is fitted.
        train_clips: training clips for the image-free control.
        recipe: of the image-free control.
        batch: clips at a time.
        caches: folder of caches; default: ``work``.
        noises: levels to measure at.
        slow_baselines: also the image-free control, which is trained first, and what the backbone's attention says.
        worlds: that the clips are of; any split.

    Raises:
        ValueError: the pipeline has no branch.
    """
    if not branch_is_on(pipeline):
        raise ValueError("localisation needs a branch: give a model with a branch/ folder, or --branch")
    caches = Path(work if caches is None else caches)
    vae, tokenizer, encoder = pipeline.vae.eval(), pipeline.tokenizer, pipeline.text_encoder.eval()
    patch = rules_of(pipeline).patch
    held_out = held_out_cache(pipeline, caches, clips, worlds)
    test, train = replace(worlds, split="test"), replace(worlds, split="train")
    matching = open_cache(caches / "latents-test", vae, tokenizer, match_clips, test, patch)
    guessed_nNP = None
    if slow_baselines:
        training = open_cache(caches / "latents", vae, tokenizer, train_clips, train, patch)
        control = train_image_free(training, encoder, ImageFreeRecipe() if recipe is None else recipe)
        guessed_nNP = image_free_maps(control, held_out, encoder)
    truth, known = truth_of(held_out), truth_of(matching)

    levels, reading = [], None
    for noise in noises:
        routing = read_routing(pipeline, held_out, noise, batch)
        fitted = read_routing(pipeline, matching, noise, batch)
        if reading is None:  # the semantic router reads the text only
            reading = fit_reading(fitted.semantic_nS, known.shown_nP)
            video_nP = reading(routing.semantic_nS)
            head_nP = routing.labels_nP
        experts = match_experts(fitted.probs_nNE, known)
        maps = {
            MAP: routing.maps_nNP,
            ROUTER: routing.probs_nNE[:, :, experts],
            VIDEO: np.broadcast_to(video_nP[:, None], routing.maps_nNP.shape),
            CENTRE: np.broadcast_to(centre_prior(truth.grid)[None, :, None], routing.maps_nNP.shape),
            UNIFORM: np.ones_like(routing.maps_nNP),
        }
        if guessed_nNP is not None:
            maps |= {IMAGE_FREE: guessed_nNP, **attention_maps(pipeline, held_out, noise, batch)}
        scores = {name: score_maps(m, truth) for name, m in maps.items()}
        scores[SHUFFLED] = score_maps(routing.maps_nNP, truth, shuffles=_SHUFFLES)
        gain = None
        if guessed_nNP is not None:
            gain = bootstrap(average_precisions(maps[MAP], truth) - average_precisions(guessed_nNP, truth))
        named = {name: int(experts[IDS.index(name)]) for name in worlds.phenomena}
        use = expert_use(routing.topk_nNK, routing.probs_nNE.shape[2])
        levels.append(LocalisationLevel(noise, scores, gain, named, use))
    covered = (truth.cover_nNP > 0.5).any(1)
    return LocalisationResult(
        levels=tuple(levels),
        use=_mean_use([level.use for level in levels]),
        semantic_auc=_auc_by_phenomenon(video_nP, truth.shown_nP),
        semantic_auc_head=_auc_by_phenomenon(head_nP, truth.shown_nP),
        clips=len(held_out),
        split=HELD_OUT,
        matched_on="test",
        without_tokens=int((truth.shown_nP & ~covered).sum()),
        model_sha256=model_hash(pipeline),
        phenomena=worlds.phenomena,
        grammar=worlds.grammar,
        size=worlds.stage.size,
        fps=worlds.stage.fps,
    ).save(work)


# --- what is compared -------------------------------------------------------------------------------------------------


def truth_of(cache: LatentCache) -> Truth:
    """Masks and labels of every clip of a cache."""
    rows = np.arange(len(cache))
    return Truth(cache.targets(rows).numpy(), cache.labels(rows).numpy() > 0, cache.grid)


@torch.no_grad()
def read_routing(pipeline: ProPhyPipeline, cache: LatentCache, noise: float, batch: int) -> SplitRouting:
    """Run the branch alone on every clip of a cache, with fixed noise."""
    examples = WorldExamples(cache, pipeline.text_encoder)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in SplitRouting.__dataclass_fields__}
    for start in tqdm(range(0, len(cache), batch), f"routing at {noise}", mininterval=5, unit="batch"):
        rows = np.arange(start, min(start + batch, len(cache)))
        fixed = fixed_batch(examples, rows.tolist(), noise, FlowMatching()).to(pipeline.branch.device)
        _, routing = pipeline.branch(fixed.noisy_BCTHW, fixed.timestep_B, fixed.text_BLD)
        parts["maps_nNP"].append(routing.phenomenon_map_BNP.cpu().numpy())
        parts["probs_nNE"].append(routing.probs_BNE.float().cpu().numpy())
        parts["topk_nNK"].append(routing.topk_ids_BNK.cpu().numpy())
        parts["labels_nP"].append(pipeline.branch.labels_from_semantics(routing.semantic_weights_BS).cpu().numpy())
        parts["semantic_nS"].append(routing.semantic_weights_BS.cpu().numpy())
    return SplitRouting(**{name: np.concatenate(arrays) for name, arrays in parts.items()})


@torch.no_grad()
def attention_maps(pipeline: ProPhyPipeline, cache: LatentCache, noise: float, batch: int) -> dict[str, np.ndarray]:
    """What the backbone's attention says of each shown phenomenon, the branch off: two maps, float32 ``(n, N, P)``."""
    examples = WorldExamples(cache, pipeline.text_encoder)
    attended, alike = [], []
    with branch_switched(pipeline, on=False):
        for start in tqdm(range(0, len(cache), batch), f"attention at {noise}", mininterval=5, unit="batch"):
            rows = np.arange(start, min(start + batch, len(cache)))
            fixed = fixed_batch(examples, rows.tolist(), noise, FlowMatching()).to(pipeline.transformer.device)
            asked = [[IDS[p] for p in np.flatnonzero(shown)] for shown in cache.labels(rows).numpy()]
            weights_BPL = word_weights(pipeline.tokenizer, torch.from_numpy(cache.ids[rows, 0].astype(np.int64)), asked)
            frames = fixed.noisy_BCTHW.shape[2]
            with record_cross_attention(pipeline.transformer, fixed.text_BLD, weights_BPL, frames) as recorder:
                pipeline.transformer(fixed.noisy_BCTHW, fixed.timestep_B, fixed.text_BLD, return_dict=False)
            attended.append(recorder.maps[0].float().numpy())
            alike.append(recorder.alike[0].float().numpy())
    return {CROSS: np.concatenate(attended), FEATURES: np.concatenate(alike)}


def match_experts(probs_nNE: np.ndarray, truth: Truth) -> np.ndarray:
    """For each phenomenon, the expert whose probability finds it best (token average precision), int ``(P,)``.

    A phenomenon that no clip shows gets expert 0.
    """
    best = np.zeros(len(IDS), np.int64)
    for p in np.flatnonzero(truth.shown_nP.any(0)):
        rows = np.flatnonzero(truth.shown_nP[:, p])
        positive = truth.cover_nNP[rows, :, p] > 0.5
        kept = positive.any(1)
        if kept.any():
            pairs = list(zip(probs_nNE[rows[kept]], positive[kept], strict=True))
            best[p] = np.argmax(
                [np.mean([average_precision(a[:, e], b) for a, b in pairs]) for e in range(probs_nNE.shape[2])]
            )
    return best


def fit_reading(
    weights_nS: np.ndarray, shown_nP: np.ndarray, ridge: float = 1e-3
) -> Callable[[np.ndarray], np.ndarray]:
    """A linear reading of the semantic router's weights, by ridge regression; returns ``(n, S) -> (n, P)`` scores."""

    def inputs(weights: np.ndarray) -> np.ndarray:
        return np.concatenate([np.log(np.maximum(weights, 1e-6)), np.ones((len(weights), 1))], axis=1)

    x = inputs(weights_nS.astype(np.float64))
    solution = np.linalg.solve(x.T @ x + ridge * len(x) * np.eye(x.shape[1]), x.T @ shown_nP.astype(np.float64))
    return lambda weights: (inputs(weights.astype(np.float64)) @ solution).astype(np.float32)


def centre_prior(grid: TokenGrid) -> np.ndarray:
    """A bump in the middle of every frame, float32 ``(N,)`` in (0, 1]."""
    h = (np.arange(grid.height) + 0.5) / grid.height - 0.5
    w = (np.arange(grid.width) + 0.5) / grid.width - 0.5
    bump = np.exp(-8 * (h[:, None] ** 2 + w[None] ** 2))
    return np.broadcast_to(bump, grid.shape).reshape(-1).astype(np.float32)


def expert_use(topk_nNK: np.ndarray, experts: int) -> ExpertUse:
    """Shares of all assignments, and of the first choices."""

    def shares(ids: np.ndarray) -> tuple[float, ...]:
        return tuple((np.bincount(ids.ravel(), minlength=experts) / ids.size).tolist())

    return ExpertUse(shares(topk_nNK), shares(topk_nNK[..., 0]))


# --- scores -----------------------------------------------------------------------------------------------------------


def score_maps(maps_nNP: np.ndarray, truth: Truth, shuffles: int = 0) -> MapScore:
    """Score maps against the truth.

    Args:
        maps_nNP: scores; higher means here.
        truth: where the phenomena are.
        shuffles: instead of its own map, give each phenomenon that of another one, by this many random derangements,
            and average: what is left is the share that any map would have found.
    """
    present = np.flatnonzero(truth.shown_nP.any(0))
    orders = [np.arange(len(IDS))]
    if shuffles:
        orders = _derangements(present, len(IDS), shuffles)
    versions = [maps_nNP[:, :, order] for order in orders]

    def averaged(measure: Callable[[np.ndarray], np.ndarray | float]) -> np.ndarray:
        return np.asarray([measure(version) for version in versions]).mean(0)

    ap = averaged(lambda m: average_precisions(m, truth))
    return MapScore(
        ap=bootstrap(ap),
        ap_touched=bootstrap(averaged(lambda m: average_precisions(m, truth, 0.0))),
        energy=bootstrap(averaged(lambda m: _each(energy_over_area, m, truth))),
        pointing=bootstrap(averaged(lambda m: _each(pointing, m, truth))),
        apart=bootstrap(averaged(lambda m: _apart(m, truth))),
        ap_pooled=float(averaged(lambda m: _pooled(m, truth, present))),
        ap_by_phenomenon={IDS[p]: bootstrap(ap[:, p]) for p in present},
    )


def average_precisions(maps_nNP: np.ndarray, truth: Truth, above: float = 0.5) -> np.ndarray:
    """Token average precision of every phenomenon a clip shows, float64 ``(n, P)``; NaN elsewhere."""
    return _each(average_precision, maps_nNP, truth, above)


def _each(
    measure: Callable[[np.ndarray, np.ndarray], float], maps_nNP: np.ndarray, truth: Truth, above: float = 0.5
) -> np.ndarray:
    table = np.full(truth.shown_nP.shape, np.nan)
    for i, p in zip(*np.nonzero(truth.shown_nP), strict=True):
        positive = truth.cover_nNP[i, :, p] > above
        if positive.any():
            table[i, p] = measure(maps_nNP[i, :, p], positive)
    return table


def _apart(maps_nNP: np.ndarray, truth: Truth) -> np.ndarray:
    values = np.full(len(maps_nNP), np.nan)
    for i in np.flatnonzero(truth.shown_nP.sum(1) == 2):
        a, b = np.flatnonzero(truth.shown_nP[i])
        cover = truth.cover_nNP[i] > 0.5
        values[i] = discrimination(maps_nNP[i, :, a], maps_nNP[i, :, b], cover[:, a], cover[:, b])
    return values


def _pooled(maps_nNP: np.ndarray, truth: Truth, present: np.ndarray) -> float:
    positive = truth.cover_nNP > 0.5
    found = [average_precision(maps_nNP[:, :, p], positive[:, :, p]) for p in present if positive[:, :, p].any()]
    return float(np.mean(found)) if found else float("nan")


def _derangements(present: np.ndarray, count: int, shuffles: int) -> list[np.ndarray]:
    """Orders of ``count`` columns in which every one of ``present`` has another one's place."""
    rng = np.random.default_rng(0)
    orders = []
    for _ in range(shuffles):
        cycle = rng.permutation(present)  # one round through all of them leaves none in its place
        order = np.arange(count)
        order[cycle] = np.roll(cycle, 1)
        orders.append(order)
    return orders


def _auc_by_phenomenon(scores_nP: np.ndarray, shown_nP: np.ndarray) -> dict[str, float]:
    return {IDS[p]: auc(scores_nP[:, p], shown_nP[:, p]) for p in np.flatnonzero(shown_nP.any(0))}


def _mean_use(uses: list[ExpertUse]) -> ExpertUse:
    def mean(which: str) -> tuple[float, ...]:
        return tuple(np.mean([getattr(use, which) for use in uses], axis=0).tolist())

    return ExpertUse(mean("topk"), mean("top1"))
